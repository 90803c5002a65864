"""
How many series this process exposes at most, and which of them are reserved from the start.

The rule: series for the configuration and for every class of errors are reserved, so they are told apart whenever they
come; only the rest is first come, first served. What finds no room is counted under ``other``, in as few labels as
possible, so that sums stay right and the bound always holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from sidecar.core.answer.blame import Blame
from sidecar.core.model import Outcome
from sidecar.core.region.breaker import State
from sidecar.core.rules import CacheMode, Rules
from sidecar.sinks.metric_type import Metric
from sidecar.sinks.readings import BREAKDOWNS, FLEET_READINGS, READINGS
from sidecar.sinks.table import (
    BILLED_UNITS,
    BUILD_INFO,
    BYPASSES,
    CONFIG_INFO,
    ERRORS,
    FAILOVERS,
    FIRST_CONTENT,
    METRICS,
    NOT_STORED,
    OBSERVED,
    OVERFLOW,
    OVERHEAD_DURATION,
    REDIS_DURATION,
    REQUEST_DURATION,
    REQUESTS,
    UPSTREAM_DURATION,
    UPSTREAM_RESPONSES,
)

SERIES, EACH_ROUTE, EACH_SERVICE = 150, 6, 120
"""The bound: for the process, and what each route and each service of the configuration adds."""

OTHER = "other"

CLASSES = ("2xx", "3xx", "4xx", "429", "5xx", "none")
"""Classes of the last answer to a call; each has a reserved series."""

ERROR_CLASSES = ("4xx", "5xx")
"""Classes of failed requests; each has a reserved series for every route."""

RESULTS = ("first", "same", "different")
"""Of calls in mode observe."""

AMPLE, SCANT = 100, 20
"""
Series that are not reserved: for metrics that are not only about errors, the number that there should be; for errors,
the number that there must be.
"""

Labels = tuple[str, ...]

_TABLE = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class ConfiguredNames:
    """
    The configured names: the regions of each service, and for each route the services whose calls it may take.
    *observed* are the routes whose calls are only measured.
    """

    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    observed: frozenset[str] = frozenset()

    @property
    def bound(self) -> int:
        """How many series there are, at most."""
        return SERIES + EACH_ROUTE * len(self.routes) + EACH_SERVICE * len(self.services)


def names_of(rules: Rules) -> ConfiguredNames:
    """The names in a configuration, the built-in ones included."""
    services = {service.name: tuple(region.name for region in service.regions) for service in rules.services}
    return ConfiguredNames(
        services,
        {route.name: tuple(name for name in services if route.match.service in {"", name}) for route in rules.routes},
        frozenset(route.name for route in rules.routes if route.cache.mode is CacheMode.OBSERVE),
    )


class SeriesRoom:
    """How many more series there may be. *refused* counts those that found no room."""

    __slots__ = ("left", "refused")

    def __init__(self, left: int) -> None:
        self.left = left
        self.refused = 0

    def __repr__(self) -> str:
        return f"<SeriesRoom {self.left} left, {self.refused} refused>"

    def take(self, width: int) -> bool:
        """Take room for *width* series, if there is so much."""
        if width > self.left:
            self.refused += width
            return False
        self.left -= width
        return True


class ExposedLabels:
    """The sets of labels of one metric that are exposed; those *held* are reserved from the start."""

    __slots__ = ("_held", "_known", "_metric", "_room", "_yields")

    def __init__(self, metric: Metric, held: Iterable[Labels], room: SeriesRoom) -> None:
        self._metric = metric
        self._held = frozenset(held)
        self._room = room
        self._yields = tuple(metric.labels.index(label) for label in metric.yields or metric.labels)
        self._known: dict[Labels, Labels | None] = {}

    def __repr__(self) -> str:
        return f"<ExposedLabels {self._metric.name}, {len(self._held)} held, {self._room!r}>"

    def of(self, labels: Labels) -> Labels | None:
        """
        The labels under which *labels* are counted: the same ones from the first time on. None if there is no room even
        for ``other``; in some metrics that holds for names that were never configured.
        """
        if labels in self._known:
            return self._known[labels]
        own = labels in self._held or self._room.take(self._metric.width)
        shown = self._known[labels] = labels if own else self._coarser(labels)
        return shown

    def holds(self, names: ConfiguredNames, labels: Labels) -> bool:
        """Whether *labels* name only services, regions and routes that are among *names*, or none."""
        said = dict(zip(self._metric.labels, labels, strict=True))
        service, region, route = (said.get(label, "") for label in ("service", "region", "route"))
        regions = (
            chain.from_iterable(names.services.values()) if service in {"", OTHER} else names.services.get(service)
        )
        return (
            service in {"", OTHER, *names.services}
            and route in {"", OTHER, *names.routes}
            and region in {"", OTHER, *(regions or ())}
        )

    def _coarser(self, labels: Labels) -> Labels | None:
        shown = list(labels)
        for index in self._yields:
            shown[index] = OTHER
            if tuple(shown) in self._held:
                return tuple(shown)
        return None


class Plan(NamedTuple):
    """
    The reserved label sets, by the name of their metric, and the room for the others. Duration histograms have a room
    of their own, so that they do not take the counters' labels.
    """

    held: Mapping[str, frozenset[Labels]]
    counters: SeriesRoom
    histograms: SeriesRoom

    def places(self, metric: Metric) -> ExposedLabels:
        """The places of *metric*."""
        return ExposedLabels(metric, self.held[metric.name], self.histograms if metric.buckets else self.counters)

    @property
    def refused(self) -> int:
        """How many series found no room."""
        return self.counters.refused + self.histograms.refused


def plan(names: ConfiguredNames) -> Plan:
    """The reserved series for the configured names."""
    held: dict[str, set[Labels]] = {metric.name: {(value,) for value in metric.closed} for metric in METRICS}
    for metric in BREAKDOWNS:
        if not metric.closed:
            held[metric.name].add((OTHER,) * len(metric.labels))
    for metric in (*READINGS, *FLEET_READINGS, OVERHEAD_DURATION, REDIS_DURATION, OVERFLOW, CONFIG_INFO, BUILD_INFO):
        held[metric.name].add((OTHER,) * len(metric.labels))
    for metric, labels in chain(_of_the_process(), *(_of_a_service(*each) for each in names.services.items())):
        held[metric.name].add(labels)
    left = names.bound - sum(_TABLE[name].width * len(sets) for name, sets in held.items())
    left -= _hold(held, ((REQUESTS, labels) for labels in _of_requests(names, left)))
    for wish in _wishes(names):
        if left - sum(metric.width for metric, _ in wish) >= AMPLE:
            left -= _hold(held, wish)
    return Plan(
        {name: frozenset(sets) for name, sets in held.items()}, SeriesRoom(left // 3), SeriesRoom(left - left // 3)
    )


def _hold(held: dict[str, set[Labels]], wanted: Iterable[tuple[Metric, Labels]]) -> int:
    """Reserve series for *wanted*; returns how many series that takes."""
    taken = 0
    for metric, labels in wanted:
        if labels not in held[metric.name]:
            held[metric.name].add(labels)
            taken += metric.width
    return taken


def _of_the_process() -> Iterator[tuple[Metric, Labels]]:
    """Series that exist without any service, and a last series for everything that is not told apart otherwise."""
    for metric in (BILLED_UNITS, BYPASSES, FAILOVERS, NOT_STORED, REQUEST_DURATION, REQUESTS):
        yield metric, (OTHER,) * len(metric.labels)
    for code in ("2xx", *ERROR_CLASSES):
        yield REQUESTS, (OTHER, OTHER, OTHER, code)
    for code in ERROR_CLASSES:  # for requests that are refused before their service is known
        yield REQUESTS, ("", "", Outcome.ERROR.value, code)
    for each in CLASSES:
        yield UPSTREAM_RESPONSES, (OTHER, OTHER, each)
    for result in RESULTS:
        yield OBSERVED, (OTHER, result)
    for origin in Blame:
        yield ERRORS, (OTHER, origin.value)
        yield ERRORS, ("", origin.value)


def _of_a_service(service: str, regions: tuple[str, ...]) -> Iterator[tuple[Metric, Labels]]:
    """At most ``EACH_SERVICE`` series. A service with more than two regions has one series for the rest."""
    yield REQUEST_DURATION, (service, Outcome.MISS.value)
    yield REQUEST_DURATION, (service, OTHER)
    yield FIRST_CONTENT, (service,)
    yield FAILOVERS, (service, OTHER)
    yield NOT_STORED, (service, OTHER)
    yield _TABLE["retry_budget_left"], (service,)
    for origin in Blame:
        yield ERRORS, (service, origin.value)
    for region in regions if len(regions) <= 2 else (OTHER,):
        yield UPSTREAM_DURATION, (service, region)
        yield from _of_a_region(service, region)


def _of_a_region(service: str, region: str) -> Iterator[tuple[Metric, Labels]]:
    for each in CLASSES:
        yield UPSTREAM_RESPONSES, (service, region, each)
    for state in State:
        yield _TABLE["breaker_state"], (service, region, state.value)
    yield _TABLE["rate_windows"], (service, region)
    yield _TABLE["credentials_unusable"], (service, region)


def _wishes(names: ConfiguredNames) -> Iterator[list[tuple[Metric, Labels]]]:
    """What is reserved if there is enough room, the most wanted first."""
    places = [(service, region) for service, regions in names.services.items() for region in regions]
    for place in places:
        yield list(_of_a_region(*place))
    for route in sorted(names.observed):
        yield [(OBSERVED, (route, result)) for result in RESULTS]
    for place in places:
        yield [(UPSTREAM_DURATION, place)]


def _of_requests(names: ConfiguredNames, left: int) -> set[Labels]:
    """
    Requests: routes, services and classes told apart together, if there is room for all of them; otherwise the errors,
    and of successes only the route; otherwise only the route.
    """
    pairs = [(service, route) for route, services in names.routes.items() for service in services]
    errors: set[Labels] = {(service, route, OTHER, code) for service, route in pairs for code in ERROR_CLASSES}
    whole = errors | {(service, route, OTHER, "2xx") for service, route in pairs}
    successes: set[Labels] = {(OTHER, route, OTHER, "2xx") for route in names.routes}
    for labels, reserve in ((whole, AMPLE), (errors | successes, SCANT)):
        if len(labels) <= left - reserve:
            return labels
    return successes | {(OTHER, route, OTHER, code) for route in names.routes for code in ERROR_CLASSES}
