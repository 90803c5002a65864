"""
What Prometheus reads of this process.

The rule: ``record`` runs once a request, memory hits included, so it adds to plain numbers and does nothing else;
the library sees them at a scrape only. Labels come from closed sets, and the number of series is bounded: past the
bound, further label sets of a metric are counted together as ``other``, so that sums stay right.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Exposed
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.core.model import Outcome, Record

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of ``Metrics.exposition``."""

PREFIX = "sidecar_"

DURATIONS = (0.0005, 0.005, 0.5, 3.0, 15.0, 600.0)
"""Buckets in seconds: own memory, the fleet's, short answers, chats, long ones, and up to the first-byte timeout."""

OVERHEADS = (0.0005, 0.001, 0.0025, 0.01, 0.1, 1.0)
"""Buckets in seconds for what we add ourselves."""

LATENCIES = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25)
"""Buckets in seconds for Redis; its usual deadline is among them."""

OTHER = "other"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """A line of the reference. *question* is what its reader wants to know; *buckets* are a histogram's bounds."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    question: str
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """Series for each set of labels: a histogram has its buckets, one for infinity, the sum and the count."""
        return len(self.buckets) + 3 if self.buckets else 1


REQUESTS = Metric(
    "requests_total",
    "counter",
    ("service", "route", "outcome", "code_class"),
    "Requests answered.",
    "What share is answered without a call, and what share fails?",
)
BYPASSES = Metric(
    "bypass_total",
    "counter",
    ("reason",),
    "Requests that were not looked up.",
    "Why is so little of the traffic cacheable?",
)
REQUEST_DURATION = Metric(
    "request_duration_seconds",
    "histogram",
    ("route", "outcome"),
    "From the whole request read to the last byte of its answer handed on.",
    "How long do callers wait?",
    DURATIONS,
)
UPSTREAM_DURATION = Metric(
    "upstream_duration_seconds",
    "histogram",
    ("service", "region"),
    "The part of a request's duration spent waiting for a service.",
    "Which region is slow?",
    DURATIONS,
)
OVERHEAD_DURATION = Metric(
    "overhead_duration_seconds",
    "histogram",
    (),
    "The part of a request's duration not spent waiting for a service.",
    "What does the sidecar itself add?",
    OVERHEADS,
)
UPSTREAM_RESPONSES = Metric(
    "upstream_responses_total",
    "counter",
    ("service", "region", "class"),
    "Requests that were sent upstream, by the class of the last answer; none where no answer came.",
    "Which region fails, and how?",
)
TOKENS = Metric(
    "tokens_total",
    "counter",
    ("type",),
    "Tokens that services reported for calls made; cached is part of prompt, reasoning of completion.",
    "How many tokens are paid for?",
)

OBSERVED = Metric(
    "observed_total",
    "counter",
    ("route", "result"),
    "Calls of routes in mode observe: first of their kind, or again with the same or a different answer.",
    "What would be a hit if this route were cached, and would the hit have said the same?",
)

REFRESHES = Metric(
    "refreshes_total",
    "counter",
    ("result",),
    "Calls of our own for answers that were getting old: stored, or failed.",
    "Do stale answers get renewed?",
)
REDIS_DURATION = Metric(
    "redis_duration_seconds",
    "histogram",
    (),
    "Commands to Redis, from the connection taken to the reply read.",
    "Is Redis slow?",
    LATENCIES,
)

BREAKDOWNS = (
    Metric(
        "redis_errors_total",
        "counter",
        ("reason",),
        "Times that Redis could not be asked: timeout, error, refused (credentials), busy (no connection free), "
        "open (its breaker).",
        "Is the fleet's cache in use?",
    ),
    Metric(
        "envelope_faults_total",
        "counter",
        ("reason",),
        "Entries from Redis that were not used, for they did not verify.",
        "Is a secret missing, or somebody writing into our cache?",
    ),
    Metric(
        "envelope_bytes_total",
        "counter",
        ("form",),
        "Bytes of entries as they are (plain) and as they went into Redis (sealed).",
        "What does compression save?",
    ),
)
"""As ``READINGS``, told apart by a label of a closed set."""

FLEET_READINGS = (
    Metric(
        "redis_up", "gauge", (), "1 while Redis is in use, 0 while its breaker is open.", "Is the fleet's cache in use?"
    ),
    Metric(
        "redis_pool_waits_total",
        "counter",
        (),
        "Commands that had to wait for a free connection to Redis.",
        "Are there enough connections?",
    ),
    Metric(
        "lease_waits_total",
        "counter",
        (),
        "Calls that waited for the answer of another process.",
        "How many calls does the fleet share?",
    ),
    Metric(
        "lease_takeovers_total",
        "counter",
        (),
        "Leases taken over after waiting for another process.",
        "Do processes die, or fail, in the middle of calls?",
    ),
    Metric("write_behind_entries", "gauge", (), "Entries that wait to be written to Redis.", "Does Redis keep up?"),
    Metric(
        "write_behind_dropped_total",
        "counter",
        (),
        "Entries that were not written to Redis because too many were waiting.",
        "Does Redis keep up?",
    ),
    Metric(
        "purge_lag_seconds",
        "gauge",
        (),
        "Since the fleet's log of purges was last read.",
        "How late may a purge be seen here?",
    ),
)
"""What is read of the fleet's part, where there is one."""

READINGS = (
    Metric("cache_bytes", "gauge", (), "Bytes held by the memory tier.", "Is the memory tier full?"),
    Metric("cache_entries", "gauge", (), "Entries held by the memory tier.", "How much is remembered?"),
    Metric(
        "cache_evictions_total",
        "counter",
        (),
        "Entries that left the memory tier for lack of room.",
        "Would more memory mean more hits?",
    ),
    Metric(
        "cache_collisions_total",
        "counter",
        (),
        "Look-ups that met another key of the same address.",
        "Is somebody making keys collide?",
    ),
    Metric(
        "inflight_memory_bytes",
        "gauge",
        (),
        "Bytes held for bodies and answers in flight.",
        "How near is the limit past which bodies go to files?",
    ),
    Metric("purges_total", "counter", (), "Purges carried out by this process.", "Who empties the cache, and when?"),
    Metric("connections", "gauge", (), "Open connections of callers.", "How many callers are connected?"),
    Metric(
        "log_lines_lost_total",
        "counter",
        (),
        "Log lines that could not be written.",
        "Is the log complete?",
    ),
    Metric(
        "config_last_reload_successful",
        "gauge",
        (),
        "1 if the configuration read last is in use, 0 if it was refused.",
        "Was the last change accepted?",
    ),
    Metric(
        "config_last_reload_success_timestamp_seconds",
        "gauge",
        (),
        "When a configuration was last accepted.",
        "Since when does this configuration hold?",
    ),
)
"""What is not counted here but read from whoever knows it, at a scrape."""

BUILD_INFO = Metric("build_info", "gauge", ("version",), "Always 1.", "Which version runs where?")

METRICS = (
    REQUESTS,
    BYPASSES,
    REQUEST_DURATION,
    UPSTREAM_DURATION,
    OVERHEAD_DURATION,
    UPSTREAM_RESPONSES,
    TOKENS,
    OBSERVED,
    REFRESHES,
    REDIS_DURATION,
    *BREAKDOWNS,
    *FLEET_READINGS,
    *READINGS,
    BUILD_INFO,
)


def reference() -> str:
    """The table of all metrics, in Markdown."""
    rows = ["| metric | type | labels | meaning | answers |", "|---|---|---|---|---|"]
    rows += [
        f"| `{PREFIX}{metric.name}` | {metric.kind} | {' '.join(f'`{label}`' for label in metric.labels) or '-'} "
        f"| {metric.help} | {metric.question} |"
        for metric in METRICS
    ]
    return "\n".join(rows) + "\n"


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


class _Room:
    """How many more series there may be."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, width: int) -> bool:
        if width > self.left:
            return False
        self.left -= width
        return True


class _Family(Generic[T]):
    """One metric's cells by their labels. The series of ``other`` are set aside from the start."""

    __slots__ = ("_make", "_metric", "_room", "cells")

    def __init__(self, metric: Metric, make: Callable[[], T], room: _Room) -> None:
        self._metric = metric
        self._make = make
        self._room = room
        room.left -= metric.width
        self.cells: dict[tuple[str, ...], T] = {}

    def cell(self, *labels: str) -> T:
        """The cell that counts for *labels*."""
        cell = self.cells.get(labels)
        if cell is None:
            if not self._room.take(self._metric.width):
                labels = (OTHER,) * len(labels)
            cell = self.cells.setdefault(labels, self._make())
        return cell


class Metrics(Collector):
    """
    The metrics of this process.

    *version* is the program's. *readings* give what others know, by the names in ``READINGS``: whatever is not handed
    in is not exposed; *breakdowns* give numbers by label, by the names in ``BREAKDOWNS``. There are never more than
    *series* series, those about Redis not counted: their number is fixed, and they are there only where it is used.
    """

    def __init__(
        self,
        version: str,
        readings: Mapping[str, Callable[[], float]],
        breakdowns: Mapping[str, Callable[[], Mapping[str, float]]] | None = None,
        series: int = 150,
    ) -> None:
        self._breakdowns = breakdowns or {}
        unknown = {*readings, *self._breakdowns} - {metric.name for metric in (*READINGS, *FLEET_READINGS, *BREAKDOWNS)}
        if unknown:
            raise ValueError(f"no such metrics: {', '.join(sorted(unknown))}")
        self._version = version
        self._readings = readings
        self._tokens = dict.fromkeys(("prompt", "completion", "cached", "reasoning"), 0)
        self._overhead = _Histogram(OVERHEADS)
        self._redis = _Histogram(LATENCIES)
        self._refreshes = dict.fromkeys(("stored", "failed"), 0)
        # Counters have room of their own: how finely durations are told apart should not cost the hit ratio its labels.
        own = sum(metric.name in readings for metric in READINGS) + len(self._tokens) + len(self._refreshes)
        free = series - own - OVERHEAD_DURATION.width - BUILD_INFO.width
        numbers, histograms = _Room(series // 6), _Room(free - series // 6)
        self._requests = _Family(REQUESTS, _Counter, numbers)
        self._bypasses = _Family(BYPASSES, _Counter, numbers)
        self._upstream_responses = _Family(UPSTREAM_RESPONSES, _Counter, numbers)
        self._observed = _Family(OBSERVED, _Counter, numbers)
        self._durations = _Family(REQUEST_DURATION, lambda: _Histogram(DURATIONS), histograms)
        self._upstream_durations = _Family(UPSTREAM_DURATION, lambda: _Histogram(DURATIONS), histograms)
        self._known: dict[tuple[str, str, Outcome, int], tuple[_Counter, _Histogram]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def redis(self, seconds: float) -> None:
        """Count one command to Redis."""
        self._redis.observe(seconds)

    def record(self, record: Record) -> None:
        """Count one request."""
        if record.outcome is Outcome.REFRESH:
            self._refreshes["stored" if record.stored else "failed"] += 1
            self._record_upstream(record)
            return
        known = (record.service, record.route, record.outcome, record.status // 100)
        cells = self._known.get(known)
        if cells is None:
            cells = self._known[known] = self._open(*known)
        requests, durations = cells
        requests.value += 1
        # Both observations are written out: on a memory hit a call of ``observe`` would cost as much as the rest.
        seconds = record.seconds
        durations.counts[bisect_left(DURATIONS, seconds)] += 1
        durations.total += seconds
        added = seconds - record.upstream_seconds
        overhead = self._overhead
        overhead.counts[bisect_left(OVERHEADS, added)] += 1
        if added > 0.0:
            overhead.total += added
        if record.attempts:
            self._record_upstream(record)
        if record.outcome is Outcome.BYPASS:
            self._bypasses.cell(record.reason).value += 1
            if record.observed:
                self._observed.cell(record.route, record.observed).value += 1

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format, of ``CONTENT_TYPE``."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Exposed]:
        """All metrics as the library wants them; only what was observed is among them."""
        yield _counters(REQUESTS, self._requests)
        yield _counters(BYPASSES, self._bypasses)
        yield _histograms(REQUEST_DURATION, self._durations.cells)
        yield _histograms(UPSTREAM_DURATION, self._upstream_durations.cells)
        yield _histograms(OVERHEAD_DURATION, {(): self._overhead} if any(self._overhead.counts) else {})
        yield _counters(UPSTREAM_RESPONSES, self._upstream_responses)
        yield _exposed(TOKENS, {(kind,): count for kind, count in self._tokens.items() if count})
        yield _counters(OBSERVED, self._observed)
        yield _exposed(REFRESHES, {(result,): count for result, count in self._refreshes.items() if count})
        yield _histograms(REDIS_DURATION, {(): self._redis} if any(self._redis.counts) else {})
        for metric in BREAKDOWNS:
            if metric.name in self._breakdowns:
                yield _exposed(metric, {(label,): value for label, value in self._breakdowns[metric.name]().items()})
        for metric in (*FLEET_READINGS, *READINGS):
            if metric.name in self._readings:
                yield _exposed(metric, {(): self._readings[metric.name]()})
        yield _exposed(BUILD_INFO, {(self._version,): 1})

    def _open(self, service: str, route: str, outcome: Outcome, hundreds: int) -> tuple[_Counter, _Histogram]:
        return (
            self._requests.cell(service, route, outcome.value, f"{hundreds}xx"),
            self._durations.cell(route, outcome.value),
        )

    def _record_upstream(self, record: Record) -> None:
        service, region, status = record.service, record.region, record.upstream_status
        self._upstream_durations.cell(service, region).observe(record.upstream_seconds)
        self._upstream_responses.cell(service, region, f"{status // 100}xx" if status else "none").value += 1
        usage = record.usage
        if usage is not None:
            tokens = self._tokens
            tokens["prompt"] += usage.prompt
            tokens["completion"] += usage.completion
            tokens["cached"] += usage.cached
            tokens["reasoning"] += usage.reasoning


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
