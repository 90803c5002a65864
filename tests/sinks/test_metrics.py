"""What is counted of a request, and how it reads at a scrape."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.model import Outcome, Usage
from sidecar.sinks.metric_type import DURATIONS, OVERHEADS
from sidecar.sinks.metrics import Metrics
from sidecar.sinks.readings import BREAKDOWNS, FLEET_READINGS, READINGS
from sidecar.sinks.series import ConfiguredNames, plan
from sidecar.sinks.table import METRICS, reference
from tests.sinks.scrapes import record, scrape, sent, total

NAMES = ConfiguredNames(
    {"openai": ("us", "eu"), "anthropic": ("us",)},
    {"chat": ("openai", "anthropic"), "embeddings": ("openai",), "default": ("openai", "anthropic")},
)
ALL_READINGS = {metric.name: (lambda: 1.0) for metric in READINGS}


def test_nothing_happened():
    """A fresh process exposes its readings and its version only."""
    metrics = Metrics("1.2.3", NAMES, {"cache_bytes": lambda: 42.0, "cache_evictions_total": lambda: 0}, revision="abc")

    assert {
        ("sidecar_cache_bytes",): 42.0,
        ("sidecar_cache_evictions_total",): 0.0,
        ("sidecar_series_overflow_total",): 0.0,
        ("sidecar_config_info", "abc"): 1.0,
        ("sidecar_build_info", "1.2.3"): 1.0,
    } == scrape(metrics)


def test_memory_hits():
    """Hits are counted with their durations, and nothing upstream is."""
    metrics = Metrics("1", NAMES, {})
    for seconds in (0.0001, 0.005, 0.1):
        metrics.record(record(seconds=seconds, first_content_seconds=seconds))
    series = scrape(metrics)

    assert 3 == series["sidecar_requests_total", "2xx", "hit_memory", "chat", "openai"]
    for name, labels in (
        ("sidecar_request_duration_seconds", ("hit_memory", "openai")),
        ("sidecar_first_content_seconds", ("openai",)),
    ):
        buckets = [series[f"{name}_bucket", str(bound), *labels] for bound in (*DURATIONS, "+Inf")]

        assert [2, 2, 3, *[3] * 11] == buckets
        assert 3 == series[f"{name}_count", *labels]
        assert pytest.approx(0.1051) == series[f"{name}_sum", *labels]
    assert pytest.approx(0.1051) == series["sidecar_overhead_duration_seconds_sum",]
    assert not [name for name, *_ in series if "upstream" in name or "tokens" in name]


def test_sent_upstream():
    """A call that was made is counted by region and class of answer, with its wait and its tokens; 429 is a class."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(usage=Usage(prompt=10, completion=5, cached=4)))
    metrics.record(sent(usage=Usage(prompt=1, completion=1)))
    metrics.record(sent(Outcome.MISS, 429))
    metrics.record(sent(Outcome.ERROR, 502, upstream_status=0, region="eu"))
    series = scrape(metrics)

    assert 2 == series["sidecar_upstream_responses_total", "2xx", "us", "openai"]
    assert 1 == series["sidecar_upstream_responses_total", "429", "us", "openai"]
    assert 1 == series["sidecar_upstream_responses_total", "none", "eu", "openai"]
    assert 3 == series["sidecar_upstream_duration_seconds_count", "us", "openai"]
    assert 3.75 == series["sidecar_upstream_duration_seconds_sum", "us", "openai"]
    assert 1.0 == series["sidecar_overhead_duration_seconds_sum",]
    assert {"prompt": 11, "completion": 6, "cached": 4} == {
        key[1]: value for key, value in series.items() if key[0] == "sidecar_tokens_total"
    }


def test_billed_units():
    """What a service charges for beside tokens is counted by service and kind, for calls that were made."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(usage=Usage(pages=3)))
    metrics.record(sent(usage=Usage(1, 1, pages=4, records=2)))
    metrics.record(sent(usage=Usage(images=1, characters=10, seconds=61), service="anthropic"))
    metrics.record(sent(usage=Usage(1, 1)))

    assert {
        ("openai", "pages"): 7,
        ("openai", "records"): 2,
        ("anthropic", "images"): 1,
        ("anthropic", "characters"): 10,
        ("anthropic", "seconds"): 61,
    } == {key[1:]: value for key, value in scrape(metrics).items() if key[0] == "sidecar_billed_units_total"}


def test_billed_units_without_room():
    """Where there is no room for more services, what they charge for is counted together, and nothing is lost."""
    metrics = Metrics("1", ConfiguredNames(), {})
    for number in range(150):
        metrics.record(sent(service=f"service-{number}", usage=Usage(pages=2)))
    series = scrape(metrics)

    assert 300 == total(series, "sidecar_billed_units_total")
    assert 0 < series["sidecar_billed_units_total", "other", "other"] < 300


def test_usage_of_a_hit_is_not_paid_for():
    """The tokens and pages of an answer that was remembered are not counted again."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(record(usage=Usage(prompt=10, completion=5, pages=3)))
    series = scrape(metrics)

    assert 0 == total(series, "sidecar_tokens_total") + total(series, "sidecar_billed_units_total")


def test_bypass_reasons():
    """Bypassed requests are counted by reason; the reason of another outcome is not."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(Outcome.BYPASS, reason="server-tools"))
    metrics.record(sent(Outcome.MISS, reason="truncated"))
    series = scrape(metrics)

    assert 1 == series["sidecar_bypass_total", "server-tools"]
    assert 1 == total(series, "sidecar_bypass_total")


def test_answers_that_are_not_stored():
    """What a call that was looked up got and could not keep is counted by its reason, whoever pays for the call."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(Outcome.MISS, reason="unknown-finish", finish="abort"))
    metrics.record(sent(Outcome.COLLAPSED, reason="unknown-finish"))
    metrics.record(sent(Outcome.REFRESH, reason="truncated"))
    metrics.record(sent(Outcome.MISS, stored=True))
    metrics.record(sent(Outcome.MISS, reason="status", status=500, service="anthropic"))
    metrics.record(sent(Outcome.BYPASS, reason="server-tools"))
    metrics.record(sent(Outcome.ERROR, reason="unproven"))
    metrics.record(record(Outcome.COLLAPSED, reason="unproven"))

    assert {
        ("sidecar_not_stored_total", "unknown-finish", "openai"): 2.0,
        ("sidecar_not_stored_total", "truncated", "openai"): 1.0,
        ("sidecar_not_stored_total", "status", "anthropic"): 1.0,
    } == {series: value for series, value in scrape(metrics).items() if "sidecar_not_stored_total" in series}


def test_refreshes_are_no_requests():
    """A call of our own counts for the service and its tokens, and as no request of anybody."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(Outcome.REFRESH, stored=True, usage=Usage(1, 2, 0, 0)))
    metrics.record(sent(Outcome.REFRESH, 500))
    series = scrape(metrics)

    assert [1.0, 1.0] == [series["sidecar_refreshes_total", result] for result in ("stored", "failed")]
    assert 2 == total(series, "sidecar_upstream_responses_total")
    assert 2 == series["sidecar_tokens_total", "completion"]
    assert 0 == total(series, "sidecar_requests_total")


def test_fleets_numbers():
    """Commands to Redis by their time, and what others count by label."""
    metrics = Metrics("1", NAMES, {"redis_up": lambda: 1.0}, {"redis_errors_total": lambda: {"timeout": 3.0}})
    metrics.redis(0.0004)
    metrics.redis(0.3)
    series = scrape(metrics)

    assert 3 == series["sidecar_redis_errors_total", "timeout"]
    assert 1 == series["sidecar_redis_up",]
    assert [1, 2] == [series["sidecar_redis_duration_seconds_bucket", bound] for bound in ("0.0005", "+Inf")]


def test_clocks_that_disagree():
    """A wait measured longer than the whole adds nothing, for a sum must not shrink."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(seconds=1.0, upstream_seconds=1.1))
    series = scrape(metrics)

    assert 0 == series["sidecar_overhead_duration_seconds_sum",]
    assert 1 == series["sidecar_overhead_duration_seconds_bucket", str(OVERHEADS[0])]


def test_readings_are_read_at_each_scrape():
    """A reading is whatever its owner says at that moment."""
    values = iter([1.0, 2.0])
    metrics = Metrics("1", NAMES, {"connections": lambda: next(values)})

    assert [1.0, 2.0] == [scrape(metrics)["sidecar_connections",] for _ in range(2)]


def test_unknown_reading():
    """A reading that the table does not know is a mistake of whoever wires things up."""
    with pytest.raises(ValueError, match="no such metrics: cache_byte"):
        Metrics("1", NAMES, {"cache_byte": lambda: 0.0})


def test_first_content_comes_before_the_end():
    """What a caller sees first is counted apart from the whole; of an error it sees none."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(seconds=20.0, first_content_seconds=0.3))
    metrics.record(sent(status=500, seconds=0.1))
    series = scrape(metrics)

    assert 2 == series["sidecar_request_duration_seconds_count", "miss", "openai"]
    assert 1 == series["sidecar_first_content_seconds_count", "openai"]
    assert 0.3 == series["sidecar_first_content_seconds_sum", "openai"]
    assert [0, 1] == [series["sidecar_first_content_seconds_bucket", bound, "openai"] for bound in ("0.25", "0.5")]


def test_errors_by_whose_they_are():
    """Each request that failed counts for whoever has to see to it; a refresh is nobody's request."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(status=500, error_origin="upstream"))
    metrics.record(sent(status=400, error_origin="caller"))
    metrics.record(record(Outcome.ERROR, 503, error_origin="sidecar"))
    metrics.record(record(Outcome.ERROR, 400, route="", service="", error_origin="caller"))
    metrics.record(sent(Outcome.REFRESH, 500, error_origin="upstream"))
    metrics.record(record())

    assert {
        ("sidecar_errors_total", "upstream", "openai"): 1.0,
        ("sidecar_errors_total", "caller", "openai"): 1.0,
        ("sidecar_errors_total", "sidecar", "openai"): 1.0,
        ("sidecar_errors_total", "caller", ""): 1.0,
    } == {series: value for series, value in scrape(metrics).items() if series[0] == "sidecar_errors_total"}


def test_numbers_without_a_place():
    """What others count is added up under ``other`` where there is no room, in the same way at each scrape."""
    regions = {("crowded", f"region-{number}"): number for number in range(300)}
    names = ConfiguredNames({"crowded": tuple(region for _, region in regions)})
    metrics = Metrics("1", names, {}, {"rate_windows": lambda: regions})
    first, again = scrape(metrics), scrape(metrics)

    assert first == again
    assert len(first) <= names.bound
    assert sum(regions.values()) == total(first, "sidecar_rate_windows")
    assert 1 == first["sidecar_rate_windows", "region-1", "crowded"]
    assert 0 < first["sidecar_rate_windows", "other", "crowded"]
    assert 0 < first["sidecar_series_overflow_total",]


def test_again():
    """Each attempt beyond a call's first counts by what was wrong before it; calls without room by who had none."""
    metrics = Metrics("1", NAMES, {})
    metrics.record(sent(Outcome.MISS, retry_causes=("connect", "hedge")))
    metrics.record(sent(Outcome.MISS, retry_causes=("connect",), upstream_status=429))
    metrics.record(record(Outcome.ERROR, cause="route-limit"))
    names = {"sidecar_failovers_total", "sidecar_throttled_total"}

    assert {
        ("sidecar_failovers_total", "connect", "openai"): 2.0,
        ("sidecar_failovers_total", "hedge", "openai"): 1.0,
        ("sidecar_throttled_total", "limit"): 1.0,
        ("sidecar_throttled_total", "service"): 1.0,
    } == {series: value for series, value in scrape(metrics).items() if series[0] in names}


def test_exposed_as_the_table_says():
    """Names, types, labels and help texts of an exposition are those of the table."""
    fleets = {metric.name: (lambda: 1.0) for metric in FLEET_READINGS}
    breakdowns = {
        metric.name: (
            lambda labels=metric.labels, closed=metric.closed: {
                labels if len(labels) > 1 else (closed or ("one",))[0]: 1.0
            }
        )
        for metric in BREAKDOWNS
    }
    metrics = Metrics("1", NAMES, ALL_READINGS | fleets, breakdowns)
    metrics.record(sent(Outcome.BYPASS, reason="observe", observed="first", usage=Usage(1, 1, 1, 1, 1)))
    metrics.record(record(first_content_seconds=0.1))
    metrics.record(sent(status=500, error_origin="upstream"))
    metrics.record(sent(Outcome.REFRESH, stored=True))
    metrics.record(sent(Outcome.MISS, upstream_status=429, retry_causes=("connect", "hedge"), reason="status"))
    metrics.redis(0.001)
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}

    assert len(METRICS) == len(families)
    for metric in METRICS:
        family = families[f"sidecar_{metric.name}".removesuffix("_total")]

        assert (metric.kind, metric.help) == (family.type, family.documentation)
        assert {frozenset(metric.labels)} == {frozenset(sample.labels) - {"le"} for sample in family.samples}


def test_reference():
    """The reference has a row for each metric, and every one says what it is for."""
    rows = reference().splitlines()

    assert len(METRICS) == len(rows) - 2
    assert "| `sidecar_bypass_total` | counter | `reason` | Requests that were not looked up. " in rows[4]
    assert all(metric.help.endswith(".") and metric.question.endswith("?") for metric in METRICS)
    assert {5} == {row.count("|") - 1 for row in rows}


def test_totals():
    """All requests, and those of each outcome, also of names that are no longer configured; no refresh is a request."""
    metrics = Metrics("1", NAMES, {})
    none = metrics.totals()
    metrics.record(record())
    metrics.record(record(route="embeddings"))
    metrics.record(sent(usage=Usage(prompt=10, completion=5, cached=4, pages=2)))
    metrics.record(sent(Outcome.REFRESH))
    metrics.record(record(Outcome.ERROR, 504))
    before = metrics.totals()
    fewer = ConfiguredNames({"openai": ("us",)}, {"chat": ("openai",), "default": ("openai",)})
    metrics.adopt(fewer, plan(fewer), "abc")
    after = metrics.totals()
    metrics.record(record())

    assert {} == none - Counter()
    assert {
        "requests": 4, "hit_memory": 2, "miss": 1, "error": 1, "prompt_tokens": 10, "completion_tokens": 5,
        "cached_tokens": 4, "billed_pages": 2,
    } == before  # fmt: skip
    assert before == after
    assert {"requests": 1, "hit_memory": 1} == metrics.totals() - after
