"""What the demo says at its end: numbers as they were counted, and lines that fit."""

from __future__ import annotations

import pytest

from sidecar.core.model import Outcome, Record
from sidecar.demo.summary import (
    Bill,
    DemoUrls,
    DocumentCounts,
    Totals,
    documents_happened,
    happened,
    totals,
    try_it,
)
from sidecar.demo.workload import DemoAnswer, Manner
from sidecar.sinks.metrics import Metrics
from sidecar.sinks.series import ConfiguredNames

COLUMNS = 100


def record(outcome, seconds, *, service="openai", route="chat", reason="", attempts=0):
    return Record(
        0.0, b"r", service, route, "chat", outcome, 200, seconds=seconds, upstream_seconds=seconds * attempts,
        reason=reason, attempts=attempts,
    )  # fmt: skip


def told(*records):
    """The totals of the metrics that have heard of *records*."""
    metrics = Metrics("1", ConfiguredNames({"openai": ("us",), "anthropic": ("us",)}), {})
    for each in records:
        metrics.record(each)
    return totals(metrics.exposition().decode())


def test_totals_count_outcomes_and_reasons():
    """Requests by outcome over all routes, bypasses by reason."""
    total = told(
        record(Outcome.MISS, 1.0, attempts=1),
        record(Outcome.MISS, 1.0, route="embeddings", attempts=1),
        record(Outcome.HIT_MEMORY, 0.0),
        record(Outcome.BYPASS, 1.0, reason="no-store", attempts=1),
        record(Outcome.BYPASS, 1.0, reason="no-store", attempts=1),
        record(Outcome.BYPASS, 1.0, reason="route-off", attempts=1),
    )

    assert {"miss": 2, "hit_memory": 1, "bypass": 3} == total.outcomes
    assert {"no-store": 2, "route-off": 1} == total.reasons
    assert 6 == total.calls


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param([], 0.0, id="nothing"),
        pytest.param([record(Outcome.HIT_MEMORY, 0.5)], 0.0, id="no-miss-to-compare-with"),
        pytest.param(
            [record(Outcome.MISS, 2.0), record(Outcome.MISS, 4.0), *[record(Outcome.HIT_MEMORY, 0.5)] * 2],
            5.0,
            id="average-miss-less-own-time",
        ),
        pytest.param(
            [record(Outcome.MISS, 2.0), record(Outcome.HIT_MEMORY, 0.5, service="anthropic")], 0.0, id="another-service"
        ),
        pytest.param([record(Outcome.MISS, 2.0), record(Outcome.COLLAPSED, 1.5)], 0.5, id="shared"),
        pytest.param([record(Outcome.MISS, 2.0), record(Outcome.COLLAPSED, 2.5)], 0.0, id="never-below-nothing"),
        pytest.param([record(Outcome.MISS, 2.0), record(Outcome.BYPASS, 0.5)], 0.0, id="a-bypass-saves-nothing"),
    ],
)
def test_time_saved(records, expected):
    """Each served request counts the average miss of its service, less what it took itself."""

    assert expected == pytest.approx(told(*records).seconds_saved)


def test_bill():
    """What came without an upstream call is saved, the rest is spent."""
    bill = Bill()
    for manner in (Manner.MEMORY, Manner.SHARED, Manner.UPSTREAM, Manner.BYPASS):
        bill.book(DemoAnswer(manner, "gpt-4o", prompt=100))
    bill.book(DemoAnswer(Manner.FAILED))

    assert Bill(spent=500_000, saved=500_000) == bill


def test_happened_names_every_number():
    """Counts, shares, reasons, seconds and simulated money, with how they were made."""
    outcomes = {"miss": 4, "hit_memory": 10, "collapsed": 4, "bypass": 2}
    lines = list(happened(Totals(outcomes, {"no-store": 2}, 3.25), Bill(1_000_000_000, 500_000_000), 6))
    text = "\n".join(" ".join(line.split()) for line in lines)

    for expected in (
        "calls made 20", "answered from memory 10 50%", "shared a call on its way 4 20%", "fetched (miss) 4",
        "passed through (bypass) 2 no-store 2", "upstream calls 6 of 20;",
        "waiting time saved 3.2 s", "simulated money saved $0.5000 of $1.5000", "nobody was billed",
    ):  # fmt: skip
        assert expected in text
    assert "Redis" not in text
    assert "failed" not in text
    assert "documents" not in text
    assert all(len(line) <= 80 for line in lines)


def test_documents():
    """What was asked for, what was done, and the difference in pages and simulated money."""
    bill = Bill()
    for manner in (Manner.UPSTREAM, Manner.MEMORY, Manner.SHARED):
        bill.book(DemoAnswer(manner, "prebuilt-layout", pages=2))
    lines = list(documents_happened(bill, DocumentCounts(1, 1, 2, 20_000_000)))
    text = "\n".join(" ".join(line.split()) for line in lines)

    assert Bill(20_000_000, 40_000_000, 3, 6) == bill
    for expected in (
        "analyses asked for 3", "analyses done 1 of 1 documents; counted by the stand-in", "pages not analysed 4 of 6",
        "simulated money saved $0.0400 of $0.0600", "nobody was billed",
    ):  # fmt: skip
        assert expected in text
    assert all(len(line) <= 80 for line in lines)


def test_services_apart():
    """Requests to a service that is summed up elsewhere are left out, with their times."""
    metrics = Metrics("1", ConfiguredNames({"openai": ("us",), "documents": ("us",)}), {})
    for each in ("openai", "documents"):
        metrics.record(record(Outcome.MISS, 2.0, service=each, attempts=1))
        metrics.record(record(Outcome.HIT_MEMORY, 0.5, service=each))

    assert Totals({"miss": 1, "hit_memory": 1}, {}, 1.5) == totals(
        metrics.exposition().decode(), frozenset({"documents"})
    )


def test_happened_tells_of_failures_and_rare_outcomes():
    """What does not happen as a rule is a line only when it did."""
    text = "\n".join(happened(Totals({"error": 3, "hit_redis": 1}, {}, 0.0), Bill(), 0))

    assert "failed                         3" in text
    assert "answered from Redis" in text


def test_try_it():
    """The base URL, an SDK's and curl's call, and the pages to look at; the lines fit."""
    lines = list(try_it(DemoUrls("http://127.0.0.1:7400/openai", "http://127.0.0.1:7491", "http://127.0.0.1:7401")))
    text = "\n".join(lines)

    for expected in (
        "OPENAI_BASE_URL=http://127.0.0.1:7400/openai/v1 ", "NO_PROXY=127.0.0.1,localhost", "from openai import OpenAI",
        "curl -i http://127.0.0.1:7400/openai/v1/chat/completions", "http://127.0.0.1:7491/metrics",
        "http://127.0.0.1:7491/readyz?verbose", "documents  http://127.0.0.1:7401 ", "Ctrl-C",
    ):  # fmt: skip
        assert expected in text
    assert all(len(line) <= COLUMNS for line in lines)


def test_try_it_without_an_openai_service():
    """Where nothing speaks that API by path, its snippets are left out."""
    text = "\n".join(try_it(DemoUrls("", "http://127.0.0.1:7491")))

    assert "OPENAI" not in text
    assert "/metrics" in text
