"""
The metrics that Prometheus reads from this process.

The rule: ``record`` runs once for each request, memory hits included, so it adds to plain numbers and does nothing
else; the library sees them only at a scrape. Labels come from closed sets, and the number of series is bounded; see
``sinks/series``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.core.model import BILLED, Outcome, Record
from sidecar.sinks.metric_type import DURATIONS, LATENCIES, OVERHEADS, PREFIX, Metric
from sidecar.sinks.readings import BREAKDOWNS, FLEET_READINGS, READINGS
from sidecar.sinks.series import ConfiguredNames, ExposedLabels, Labels, Plan, plan
from sidecar.sinks.table import (
    BILLED_UNITS,
    BUILD_INFO,
    BYPASSES,
    CONFIG_INFO,
    ERRORS,
    FAILOVERS,
    FIRST_CONTENT,
    NOT_STORED,
    OBSERVED,
    OVERFLOW,
    OVERHEAD_DURATION,
    REDIS_DURATION,
    REFRESHES,
    REQUEST_DURATION,
    REQUESTS,
    THROTTLED,
    TOKENS,
    UPSTREAM_DURATION,
    UPSTREAM_RESPONSES,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of ``Metrics.exposition``."""

Breakdown = Mapping[str, float] | Mapping[tuple[str, str], float] | Mapping[tuple[str, str, str], float]
"""Numbers by their label, or by their labels in the order of the metric."""

_TOO_MANY = 429
_LAST = 5  # a status past the known ones is read as the last class (RFC 9110, 15)
_LIMIT = "route-limit"  # why a call was refused for a limit of our own

_LOOKED_UP = frozenset({Outcome.MISS, Outcome.COLLAPSED, Outcome.REFRESH})
"""
Outcomes of calls whose answer is stored if allowed. A collapsed call counts, because it may have called after its
leader left.
"""

# A look at a member of an enumeration's class takes 60 ns (Python 3.11), and every hit is counted here.
_REFRESH = Outcome.REFRESH
_BYPASS = Outcome.BYPASS

T = TypeVar("T")


class _Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class _Histogram:
    """Observations by bucket, each counted in its own bucket only; *total* is their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class _Family(Generic[T]):
    """One metric's cells by the labels that are exposed."""

    __slots__ = ("_known", "_make", "_places", "cells")

    def __init__(self, places: ExposedLabels, make: Callable[[], T]) -> None:
        self._places = places
        self._make = make
        self._known: dict[Labels, T] = {}
        self.cells: dict[Labels, T] = {}

    def cell(self, *labels: str) -> T:
        """The cell that counts for *labels*."""
        cell = self._known.get(labels)
        if cell is None:
            shown = self._places.of(labels)
            cell = self.cells.get(shown) if shown is not None else None
            if cell is None:
                cell = self._make()
                if shown is not None:
                    self.cells[shown] = cell
            self._known[labels] = cell
        return cell

    def adopt(self, places: ExposedLabels, names: ConfiguredNames) -> None:
        """Expose by *places* from now on. Cells of names that are no longer configured go, as do those without room."""
        self._places = places
        self._known = {}
        kept = {labels: cell for labels, cell in self.cells.items() if places.holds(names, labels)}
        self.cells = {labels: cell for labels, cell in kept.items() if places.of(labels) == labels}


class Metrics(Collector):
    """
    The metrics of this process.

    *version* is the program's; *names* and *revision* are the configuration's. *readings* give what other parts know,
    by the names in ``READINGS``; a reading that is not passed is not exposed. *breakdowns* give numbers by label, by
    the names in ``BREAKDOWNS``. There are never more than ``names.bound`` series.

    *redis* counts one command to Redis, which took so many seconds.
    """

    def __init__(
        self,
        version: str,
        names: ConfiguredNames,
        readings: Mapping[str, Callable[[], float]],
        breakdowns: Mapping[str, Callable[[], Breakdown]] | None = None,
        *,
        revision: str = "",
    ) -> None:
        self._breakdowns = breakdowns or {}
        unknown = {*readings, *self._breakdowns} - {metric.name for metric in (*READINGS, *FLEET_READINGS, *BREAKDOWNS)}
        if unknown:
            raise ValueError(f"no such metrics: {', '.join(sorted(unknown))}")
        self._version = version
        self._revision = revision
        self._readings = readings
        self._tokens = dict.fromkeys(TOKENS.closed, 0)
        self._billed = dict.fromkeys(BILLED, 0)  # also of services that are no longer configured
        self._overhead = _Histogram(OVERHEADS)
        self._redis = _Histogram(LATENCIES)
        self.redis = self._redis.observe
        self._throttled = dict.fromkeys(THROTTLED.closed, 0)
        self._refreshes = dict.fromkeys(REFRESHES.closed, 0)
        self._plan = plan(names)

        def counters(metric: Metric) -> _Family[_Counter]:
            return _Family(self._plan.places(metric), _Counter)

        def histograms(metric: Metric) -> _Family[_Histogram]:
            return _Family(self._plan.places(metric), lambda: _Histogram(metric.buckets))

        self._requests = counters(REQUESTS)
        self._past: Counter[str] = Counter()  # requests in cells that are no longer exposed, by outcome
        self._errors = counters(ERRORS)
        self._bypasses = counters(BYPASSES)
        self._upstream_responses = counters(UPSTREAM_RESPONSES)
        self._observed = counters(OBSERVED)
        self._not_stored = counters(NOT_STORED)
        self._failovers = counters(FAILOVERS)
        self._billed_units = counters(BILLED_UNITS)
        self._durations = histograms(REQUEST_DURATION)
        self._first_contents = histograms(FIRST_CONTENT)
        self._upstream_durations = histograms(UPSTREAM_DURATION)
        self._breakdown_labels = {metric.name: self._plan.places(metric) for metric in BREAKDOWNS}
        self._known: dict[tuple[str, str, Outcome, int], tuple[_Counter, _Histogram, _Histogram | None]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def adopt(self, names: ConfiguredNames, series: Plan, revision: str) -> None:
        """
        Tell the *names* of another *revision* apart, by *series*, their plan. What others have counted is no longer
        exposed.
        """
        self._revision = revision
        self._plan = series
        self._known = {}
        self._past += _by_outcome(self._requests)
        for metric, family in (
            (REQUESTS, self._requests),
            (ERRORS, self._errors),
            (BYPASSES, self._bypasses),
            (UPSTREAM_RESPONSES, self._upstream_responses),
            (OBSERVED, self._observed),
            (NOT_STORED, self._not_stored),
            (FAILOVERS, self._failovers),
            (BILLED_UNITS, self._billed_units),
            (REQUEST_DURATION, self._durations),
            (FIRST_CONTENT, self._first_contents),
            (UPSTREAM_DURATION, self._upstream_durations),
        ):
            family.adopt(self._plan.places(metric), names)
        self._past -= _by_outcome(self._requests)
        self._breakdown_labels = {metric.name: self._plan.places(metric) for metric in BREAKDOWNS}

    def totals(self) -> Counter[str]:
        """
        Requests, the same by outcome, and the tokens and other quantities that services have counted, since the process
        started; also of names that are no longer exposed. ``other`` are those whose outcome found no series of its own.
        """
        found = self._past + _by_outcome(self._requests)
        found["requests"] = found.total()
        found.update({f"{kind}_tokens": count for kind, count in self._tokens.items() if count})
        found.update({f"billed_{quantity}": count for quantity, count in self._billed.items() if count})
        return found

    def record(self, record: Record) -> None:
        """Count one request."""
        outcome = record.outcome
        if outcome is _REFRESH:
            self._refreshes["stored" if record.stored else "failed"] += 1
            self._record_upstream(record)
            return
        known = (record.service, record.route, outcome, record.status // 100)
        cells = self._known.get(known)
        if cells is None:
            cells = self._known[known] = self._open(*known)
        requests, durations, firsts = cells
        requests.value += 1
        # All observations are written out: on a memory hit a call of ``observe`` would cost as much as the rest.
        seconds = record.seconds
        bucket = bisect_left(DURATIONS, seconds)
        durations.counts[bucket] += 1
        durations.total += seconds
        first = record.first_content_seconds
        if first is not None:
            if firsts is None:
                firsts = self._first(known)
            firsts.counts[bucket if first == seconds else bisect_left(DURATIONS, first)] += 1
            firsts.total += first
        added = seconds - record.upstream_seconds
        overhead = self._overhead
        overhead.counts[bisect_left(OVERHEADS, added)] += 1
        if added > 0.0:
            overhead.total += added
        if record.attempts:
            self._record_upstream(record)
        elif record.cause == _LIMIT:
            self._throttled["limit"] += 1
        if record.error_origin:
            self._errors.cell(record.service, record.error_origin).value += 1
        if outcome is _BYPASS:
            self._record_bypass(record)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Exposed]:
        """All metrics in the form that the library wants; only those with observations."""
        yield _counters(REQUESTS, self._requests)
        yield _counters(ERRORS, self._errors)
        yield _counters(BYPASSES, self._bypasses)
        yield _histograms(REQUEST_DURATION, self._durations.cells)
        yield _histograms(FIRST_CONTENT, self._first_contents.cells)
        yield _histograms(UPSTREAM_DURATION, self._upstream_durations.cells)
        yield _histograms(OVERHEAD_DURATION, {(): self._overhead} if any(self._overhead.counts) else {})
        yield _counters(UPSTREAM_RESPONSES, self._upstream_responses)
        yield _counters(FAILOVERS, self._failovers)
        yield _exposed(THROTTLED, {(by,): count for by, count in self._throttled.items() if count})
        yield _exposed(TOKENS, {(kind,): count for kind, count in self._tokens.items() if count})
        yield _counters(BILLED_UNITS, self._billed_units)
        yield _counters(NOT_STORED, self._not_stored)
        yield _counters(OBSERVED, self._observed)
        yield _exposed(REFRESHES, {(result,): count for result, count in self._refreshes.items() if count})
        yield _histograms(REDIS_DURATION, {(): self._redis} if any(self._redis.counts) else {})
        for metric in BREAKDOWNS:
            if metric.name in self._breakdowns:
                yield _exposed(metric, self._tell(metric))
        for metric in (*FLEET_READINGS, *READINGS):
            if metric.name in self._readings:
                yield _exposed(metric, {(): self._readings[metric.name]()})
        yield _exposed(OVERFLOW, {(): self._plan.refused})
        yield _exposed(CONFIG_INFO, {(self._revision,): 1})
        yield _exposed(BUILD_INFO, {(self._version,): 1})

    def _tell(self, metric: Metric) -> Mapping[Labels, float]:
        """Numbers by label from other parts; those without a series of their own are added up."""
        places, sums = self._breakdown_labels[metric.name], dict[Labels, float]()
        for of, value in self._breakdowns[metric.name]().items():
            shown = places.of((of,) if isinstance(of, str) else of)
            if shown is not None:
                sums[shown] = sums.get(shown, 0) + value
        return sums

    def _open(
        self, service: str, route: str, outcome: Outcome, hundreds: int
    ) -> tuple[_Counter, _Histogram, _Histogram | None]:
        return (
            self._requests.cell(service, route, outcome.value, f"{min(hundreds, _LAST)}xx"),
            self._durations.cell(service, outcome.value),
            None,
        )

    def _first(self, known: tuple[str, str, Outcome, int]) -> _Histogram:
        """The cell for first content. It is made when there is content, because most errors have none."""
        requests, durations, _ = self._known[known]
        firsts = self._first_contents.cell(known[0])
        self._known[known] = requests, durations, firsts
        return firsts

    def _record_bypass(self, record: Record) -> None:
        self._bypasses.cell(record.reason).value += 1
        if record.observed:
            self._observed.cell(record.route, record.observed).value += 1

    def _record_upstream(self, record: Record) -> None:
        service, region, status = record.service, record.region, record.upstream_status
        self._upstream_durations.cell(service, region).observe(record.upstream_seconds)
        self._upstream_responses.cell(service, region, _class(status)).value += 1
        if status == _TOO_MANY:
            self._throttled["service"] += 1
        for cause in record.retry_causes:
            self._failovers.cell(service, cause).value += 1
        if record.reason and not record.stored and record.outcome in _LOOKED_UP:
            self._not_stored.cell(service, record.reason).value += 1
        usage = record.usage
        if usage is not None:
            tokens = self._tokens
            tokens["prompt"] += usage.prompt
            tokens["completion"] += usage.completion
            tokens["cached"] += usage.cached
            tokens["reasoning"] += usage.reasoning
            for quantity in BILLED:
                count = getattr(usage, quantity)
                if count:
                    self._billed[quantity] += count
                    self._billed_units.cell(service, quantity).value += count


def _by_outcome(family: _Family[_Counter]) -> Counter[str]:
    """The requests in *family*, that of ``REQUESTS``."""
    found: Counter[str] = Counter()
    place = REQUESTS.labels.index("outcome")
    for labels, cell in family.cells.items():
        found[labels[place]] += cell.value
    return found


def _class(status: int) -> str:
    """One of ``CLASSES``."""
    if status == _TOO_MANY:
        return str(status)
    return f"{min(status // 100, _LAST)}xx" if status >= 200 else "none"


def _exposed(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Exposed:
    name = PREFIX + metric.name
    family = Exposed(name.removesuffix("_total"), metric.help, metric.kind)
    for labels, value in values.items():
        family.add_sample(name, dict(zip(metric.labels, labels, strict=True)), value)
    return family


def _counters(metric: Metric, family: _Family[_Counter]) -> Exposed:
    return _exposed(metric, {labels: cell.value for labels, cell in family.cells.items()})


def _histograms(metric: Metric, cells: Mapping[tuple[str, ...], _Histogram]) -> Exposed:
    name = PREFIX + metric.name
    family = Exposed(name, metric.help, metric.kind)
    for values, cell in cells.items():
        labels = dict(zip(metric.labels, values, strict=True))
        below = 0
        for bound, count in zip((*map(str, cell.bounds), "+Inf"), cell.counts, strict=True):
            below += count
            family.add_sample(f"{name}_bucket", {**labels, "le": bound}, below)
        family.add_sample(f"{name}_count", labels, below)
        family.add_sample(f"{name}_sum", labels, cell.total)
    return family
