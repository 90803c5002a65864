"""How many series there are at most, and what is told apart however much came before it."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.answer.blame import Blame
from sidecar.core.model import Outcome, Usage
from sidecar.core.region.breaker import State
from sidecar.settings import load
from sidecar.settings.builtin import ROUTES
from sidecar.sinks.metrics import Metrics
from sidecar.sinks.readings import BREAKDOWNS, FLEET_READINGS, READINGS
from sidecar.sinks.series import EACH_SERVICE, SCANT, ConfiguredNames, names_of, plan
from sidecar.sinks.table import BILLED_UNITS, BUILD_INFO, METRICS
from sidecar.store.envelope import EnvelopeFault
from sidecar.upstream.route_limiter import CAUSES as SHED
from tests.sinks.scrapes import record, scrape, sent, total

REQUESTS = [outcome for outcome in Outcome if outcome is not Outcome.REFRESH]
ORIGINS = ("", *(origin.value for origin in Blame))
STATUSES = (200, 204, 302, 400, 404, 429, 500, 503, 600)
READ = {metric.name: (lambda: 1.0) for metric in (*READINGS, *FLEET_READINGS)}
TABLE = {metric.name: metric for metric in METRICS}
THREE = ("openai", "anthropic", "azure-openai")
BUILT_IN = {route.name: THREE for route in ROUTES}


def each(regions: int, *services: str) -> dict[str, tuple[str, ...]]:
    return {service: tuple(f"region-{number}" for number in range(regions)) for service in services}


def thirty(*services: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Thirty routes beside the built-in ones, for these services in turn."""
    turn = cycle(services)
    return BUILT_IN | {f"route-{number}": next(turn) for number in range(30)}


CONFIGURATIONS = [
    pytest.param(ConfiguredNames(each(1, *THREE), BUILT_IN), id="built-in"),
    pytest.param(ConfiguredNames(each(1, *THREE), thirty(*((one,) for one in THREE))), id="thirty-routes"),
    pytest.param(ConfiguredNames(each(1, *THREE), thirty(THREE)), id="thirty-routes-for-every-service"),
    pytest.param(ConfiguredNames(each(2, *THREE), thirty(THREE)), id="two-regions"),
    pytest.param(ConfiguredNames(each(3, *THREE), BUILT_IN), id="three-regions"),
    pytest.param(
        ConfiguredNames(each(12, *THREE), BUILT_IN, frozenset(BUILT_IN)), id="many-regions-and-observed-routes"
    ),
]


def everything(names: ConfiguredNames) -> Metrics:
    """What a process exposes after every kind of call has come, the plainest first, and every reading is there."""
    regions = [(service, region) for service, found in names.services.items() for region in found]
    told = {
        "breaker_state": {(*place, state.value): 1 for place in regions for state in State},
        "rate_windows": dict.fromkeys(regions, 2),
        "credentials_unusable": dict.fromkeys(regions, 1),
        "retry_budget_left": dict.fromkeys(names.services, 9),
        "key_splitting_headers": dict.fromkeys(names.routes, 1),
        "calls_waiting": dict.fromkeys(names.routes, 1),
        "calls_shed_total": {(route, cause): 1 for route in names.routes for cause in SHED},
    }
    told |= {metric.name: dict.fromkeys(metric.closed, 1) for metric in BREAKDOWNS if metric.closed}
    metrics = Metrics("1", names, READ, {name: lambda of=of: of for name, of in told.items()})
    metrics.redis(0.1)
    reasons = cycle(f"reason-{number}" for number in range(120))
    observed = cycle(("first", "same", "different"))
    for outcome in REQUESTS:
        for status in STATUSES:
            for route, services in names.routes.items():
                for service in services:
                    for region in names.services[service]:
                        metrics.record(
                            sent(
                                outcome, status, service=service, route=route, region=region, reason=next(reasons),
                                observed=next(observed), retry_causes=(next(reasons),), usage=Usage(*[1] * 9),
                                first_content_seconds=0.5, error_origin=next(ORIGIN),
                            )
                        )  # fmt: skip
    metrics.record(sent(Outcome.REFRESH, stored=True, service="openai"))
    metrics.record(record(Outcome.ERROR, 429, cause="route-limit", service="openai", error_origin="sidecar"))
    for status in (400, 503):
        metrics.record(record(Outcome.ERROR, status, service="", route="", error_origin="caller"))
    metrics.exposition()
    return metrics


ORIGIN = cycle(ORIGINS)


@pytest.mark.parametrize("names", CONFIGURATIONS)
def test_bound(names):
    """However much is told apart, there are no more series than the bound."""
    metrics = everything(names)
    series = scrape(metrics)

    assert names.bound >= len(series)
    assert len(series) == sum(not line.startswith(b"#") for line in metrics.exposition().splitlines())
    assert 0 < series["sidecar_series_overflow_total",]


@pytest.mark.parametrize("names", CONFIGURATIONS)
def test_errors_after_all_that(names):
    """Failures that come last are counted under their own class, service and route."""
    metrics = everything(names)
    for service in names.services:
        before = scrape(metrics)
        route = next(route for route, services in reversed(names.routes.items()) if service in services)
        for status in [500, 429] * 20:
            metrics.record(
                sent(status=status, service=service, route=route, region=names.services[service][-1],
                     error_origin="upstream")
            )  # fmt: skip
        after = scrape(metrics)
        grown = {series: value - before.get(series, 0) for series, value in after.items()}

        def rise(name, *labels, grown=grown):
            return sum(value for series, value in grown.items() if series[0] == name and {*labels} <= {*series})

        assert 20 == rise("sidecar_upstream_responses_total", "5xx", service)
        assert 20 == rise("sidecar_upstream_responses_total", "429", service)
        assert 20 == rise("sidecar_requests_total", "5xx", service, route)
        assert 20 == rise("sidecar_requests_total", "4xx", service, route)
        assert 40 == rise("sidecar_errors_total", "upstream", service)
        assert 40 == rise("sidecar_request_duration_seconds_count", service)
        assert len(before) <= len(after) <= names.bound


named = st.text("abc", min_size=1, max_size=2)


@st.composite
def configurations(draw) -> ConfiguredNames:
    services = draw(st.dictionaries(named, st.lists(named, min_size=1, max_size=9, unique=True).map(tuple),
                                    min_size=1, max_size=5))  # fmt: skip
    some = st.lists(st.sampled_from(sorted(services)), min_size=1, unique=True).map(tuple)
    routes = draw(st.dictionaries(named, some, min_size=1, max_size=8))
    return ConfiguredNames(services, routes, frozenset(draw(st.lists(st.sampled_from(sorted(routes))))))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), names=configurations())
def test_any_traffic(data, names):
    """
    Whatever comes, and in which order: no more series than the bound, no sum is wrong, no configured service and no
    class of errors is ``other``, nor is the route of a request.
    """
    metrics = Metrics("1", names, READ)
    pairs = [(route, service) for route, services in names.routes.items() for service in services]
    traffic = st.tuples(
        st.sampled_from(pairs), st.sampled_from(REQUESTS), st.sampled_from((200, 400, 429, 500)), st.integers(0, 200),
        st.sampled_from(ORIGINS),
    )  # fmt: skip
    came = data.draw(st.lists(traffic, max_size=60))
    for (route, service), outcome, status, number, origin in came:
        regions = names.services[service]
        metrics.record(
            sent(
                outcome, status, service=service, route=route, region=regions[number % len(regions)],
                reason=f"reason-{number}", retry_causes=(f"cause-{number}",), first_content_seconds=0.1,
                error_origin=origin, observed="first" if route in names.observed else "",
            )
        )  # fmt: skip
    series = scrape(metrics)
    families = [name for name, metric in TABLE.items() if "service" in metric.labels and name != "requests_total"]
    shown = {
        tuple(sample) for sample in series
        if sample[0].removesuffix("_count").removeprefix("sidecar_") in {*families, "requests_total"}
    }  # fmt: skip

    assert names.bound >= len(series)
    for name in ("requests_total", "upstream_responses_total", "request_duration_seconds_count",
                 "first_content_seconds_count", "upstream_duration_seconds_count"):  # fmt: skip
        assert len(came) == total(series, f"sidecar_{name}")
    for name, *values in shown:
        metric = TABLE[name.removesuffix("_count").removeprefix("sidecar_")]
        labels = dict(zip(sorted(metric.labels), values, strict=True))

        assert "other" not in {labels.get("class"), labels.get("code_class"), labels.get("origin")}
        if metric.name in families:
            assert labels["service"] in names.services
        else:
            assert labels["route"] in names.routes


def test_a_usual_pod():
    """One service, every usual outcome, with the built-in settings: nothing is counted as other."""
    metrics = Metrics("1", names_of(load(None, environ={}, overrides={}, strict=True)), READ)
    usual = {"first_content_seconds": 0.4, "region": "default"}
    for one in (
        record(first_content_seconds=0.001),
        record(Outcome.HIT_REDIS, first_content_seconds=0.001),
        sent(usage=Usage(1, 2, 3, 4), **usual),
        sent(status=400, error_origin="caller", region="default"),
        sent(status=429, error_origin="upstream", region="default"),
        sent(status=500, error_origin="upstream", region="default", retry_causes=("5xx",)),
        record(Outcome.COLLAPSED, first_content_seconds=0.4),
        sent(Outcome.ERROR, 502, upstream_status=0, error_origin="upstream", region="default"),
        record(route="embeddings"),
        sent(route="embeddings", **usual),
        sent(Outcome.BYPASS, route="default", reason="unknown-endpoint", **usual),
        sent(Outcome.BYPASS, 404, route="default", reason="server-tools", error_origin="caller", region="default"),
        sent(Outcome.BYPASS, route="chat", reason="not-deterministic", **usual),
        sent(Outcome.MISS, route="chat", reason="truncated", **usual),
    ):
        metrics.record(one)

    assert '"other"' not in metrics.exposition().decode()
    assert 0 == scrape(metrics)["sidecar_series_overflow_total",]


@pytest.mark.parametrize("names", [pytest.param(ConfiguredNames(), id="nothing"), *CONFIGURATIONS])
def test_what_is_held_fits(names):
    """The places that are kept leave room for others; no service has more of them than it adds to the bound."""
    found = plan(names)
    taken = sum(TABLE[name].width * len(sets) for name, sets in found.held.items())

    assert names.bound == taken + found.counters.left + found.histograms.left
    assert SCANT <= found.counters.left + found.histograms.left
    for service, regions in names.services.items():
        own = [
            TABLE[name].width for name, sets in found.held.items() for labels in sets
            if labels[:1] == (service,) and (len(labels) < 2 or labels[1] in {"other", "miss", *regions[:2], *ORIGINS})
        ]  # fmt: skip

        assert len(regions) > 2 or sum(own) <= EACH_SERVICE


@pytest.mark.parametrize(
    "metric", [metric for metric in METRICS if metric.labels and not metric.closed and metric is not BUILD_INFO]
)
def test_a_place_that_is_kept(metric):
    """
    What is configured has a place where there is no room left, and always the same; but a service has none for what it
    charges for beside tokens, which is no failure.
    """
    found = plan(ConfiguredNames(each(4, "openai"), {"chat": ("openai",)}))
    found.counters.left = found.histograms.left = 0
    places = found.places(metric)
    told = {
        "class": "5xx", "code_class": "5xx", "origin": "caller", "result": "same", "state": "open", "service": "openai",
        "route": "chat",
    }  # fmt: skip
    labels = tuple(told.get(label, "new") for label in metric.labels)
    shown = places.of(labels)

    assert shown in found.held[metric.name]
    assert shown is places.of(labels)
    assert [label for label, one in zip(metric.labels, shown, strict=True) if one == "other"] == [
        label
        for label in metric.labels
        if label not in told or (label == "route" and metric.name != "requests_total") or metric is BILLED_UNITS
    ]


def test_no_place_at_all():
    """What was never configured is not exposed where it has no place, and breaks nothing."""
    metrics = Metrics("1", ConfiguredNames(), {})
    for number in range(40):
        metrics.record(sent(service=f"service-{number}", first_content_seconds=0.1))
    series = scrape(metrics)

    assert len(series) <= 150
    assert 40 == total(series, "sidecar_requests_total")
    assert 40 > total(series, "sidecar_first_content_seconds_count")


def test_closed_sets():
    """The values that have their place are those that occur."""

    assert {fault.value for fault in EnvelopeFault} == set(TABLE["envelope_faults_total"].closed)
    assert {"cache-off", "passthrough"} == set(TABLE["mode"].closed)


def test_names_of_a_configuration(tmp_path):
    """Built-in services and routes count, a route that names its service is for that one alone, and so on."""
    path = tmp_path / "sidecar.yaml"
    path.write_text(
        "services: {openai: {regions: [{name: eu, url: 'https://eu.example'}, {name: us, url: 'https://us.example'}]}}\n"
        "routes: [{name: mine, match: {service: openai}, cache: {mode: observe}}, {name: any}]\n"
    )
    names = names_of(load(str(path), environ={}, overrides={}, strict=True))

    assert {"openai": ("eu", "us"), "anthropic": ("default",), "azure-openai": ("default",)} == names.services
    assert ("openai",) == names.routes["mine"]
    assert set(THREE) == set(names.routes["any"]) == set(names.routes["default"])
    assert {"mine"} == names.observed
    assert 150 + 6 * (2 + len(ROUTES)) + 120 * 3 == names.bound
