"""
The metrics by name: what each counts, and which question it answers.

The rule: the reference is generated from this table and the exposed metrics take their names from it, so the two always
agree.
"""

from __future__ import annotations

from sidecar.sinks.metric_type import DURATIONS, LATENCIES, OVERHEADS, PREFIX, Metric
from sidecar.sinks.readings import BREAKDOWNS, FLEET_READINGS, READINGS

REQUESTS = Metric(
    "requests_total",
    "counter",
    ("service", "route", "outcome", "code_class"),
    "Requests answered.",
    "What share is answered without a call, and what share fails?",
    yields=("outcome", "service", "route", "code_class"),
)
ERRORS = Metric(
    "errors_total",
    "counter",
    ("service", "origin"),
    "Requests that ended in an error, by who caused it: caller (its request, credential or patience), sidecar (a "
    "bug, a limit, its configuration), upstream (the service failed, or had no room). No service: it is not known.",
    "Who has to do something about the errors?",
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
    ("service", "outcome"),
    "From the whole request read to the last byte of its answer handed on.",
    "How long do callers wait?",
    DURATIONS,
    yields=("outcome", "service"),
)
FIRST_CONTENT = Metric(
    "first_content_seconds",
    "histogram",
    ("service",),
    "From the whole request read to the first byte of content handed on; errors are not counted.",
    "How soon do callers see something, however long the answer is?",
    DURATIONS,
)
UPSTREAM_DURATION = Metric(
    "upstream_duration_seconds",
    "histogram",
    ("service", "region"),
    "The part of a request's duration spent waiting for a service.",
    "Which region is slow?",
    DURATIONS,
    yields=("region", "service"),
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
    "Requests that were sent upstream, by the class of the last answer: 2xx, 3xx, 429 (no room), 4xx (any other), 5xx; "
    "none where no answer came.",
    "Which region fails, and how?",
    yields=("region", "service", "class"),
)
FAILOVERS = Metric(
    "failovers_total",
    "counter",
    ("service", "reason"),
    "Attempts beyond a call's first, by the fault of the attempt before; hedge: that one only took long; "
    "second-leader: others waited for its answer, and it showed no sign of life.",
    "What do failures cost in extra calls?",
    yields=("reason", "service"),
)
THROTTLED = Metric(
    "throttled_total",
    "counter",
    ("by",),
    "Calls without room: the service said so and no other region had room, or the route's own limit said so.",
    "Are quotas, or our own limits, too small?",
    closed=("service", "limit"),
)
TOKENS = Metric(
    "tokens_total",
    "counter",
    ("type",),
    "Tokens that services reported for calls made; cached is part of prompt, reasoning of completion.",
    "How many tokens are paid for?",
    closed=("prompt", "completion", "cached", "reasoning"),
)
BILLED_UNITS = Metric(
    "billed_units_total",
    "counter",
    ("service", "type"),
    "What services charge for beside tokens, for calls made: pages of documents, images (each once for each feature "
    "asked for), characters of text (each once for each target language), seconds of audio, and text records (of at "
    "most 1000 characters).",
    "How many pages, images and characters are paid for?",
    yields=("type", "service"),
)

NOT_STORED = Metric(
    "not_stored_total",
    "counter",
    ("service", "reason"),
    "Answers to looked-up calls that were not stored: they were errors, not complete, not of the asked shape, or ended "
    "for a reason that is not known to be good (unknown-finish; the log names it).",
    "Why do so many misses store nothing?",
    yields=("reason", "service"),
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
    "Calls of the sidecar itself, for answers that were getting old: stored, or failed.",
    "Do stale answers get renewed?",
    closed=("stored", "failed"),
)
REDIS_DURATION = Metric(
    "redis_duration_seconds",
    "histogram",
    (),
    "Commands to Redis, from the connection taken to the reply read.",
    "Is Redis slow?",
    LATENCIES,
)

OVERFLOW = Metric(
    "series_overflow_total",
    "counter",
    (),
    "Series that found no room and are counted under `other`.",
    "Are there more services, routes, regions and reasons than are told apart?",
)
CONFIG_INFO = Metric(
    "config_info",
    "gauge",
    ("revision",),
    "Always 1, with the revision of the configuration in use.",
    "Which pods run which rules?",
)
BUILD_INFO = Metric("build_info", "gauge", ("version",), "Always 1.", "Which version runs where?")

METRICS = (
    REQUESTS,
    ERRORS,
    BYPASSES,
    REQUEST_DURATION,
    FIRST_CONTENT,
    UPSTREAM_DURATION,
    OVERHEAD_DURATION,
    UPSTREAM_RESPONSES,
    FAILOVERS,
    THROTTLED,
    TOKENS,
    BILLED_UNITS,
    NOT_STORED,
    OBSERVED,
    REFRESHES,
    REDIS_DURATION,
    *BREAKDOWNS,
    *FLEET_READINGS,
    *READINGS,
    OVERFLOW,
    CONFIG_INFO,
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
