"""
The metrics by name: what each counts, and which question it answers.

The rule: the reference is made from this table and what is exposed is named by it, so neither can say what the other
doesn't.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "sidecar_"

DURATIONS = (0.005, 0.05, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 180.0, 600.0)
"""
Buckets in seconds, 14 with the one for infinity: what memory and the fleet answer, then doubled as far as models take,
so that a quantile is told within a factor of two, and up to the first-byte timeout.
"""

OVERHEADS = (0.0005, 0.001, 0.01, 0.1)
"""Buckets in seconds for what we add ourselves."""

LATENCIES = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25)
"""Buckets in seconds for Redis; its usual deadline is among them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """
    A line of the reference. *question* is what its reader wants to know; *buckets* are a histogram's bounds.

    *yields*: the labels in the order in which they become ``other`` where there is no room for a series of their own;
    as they stand in *labels* where it does not say. *closed*: every value of the one label, which all have their place.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    question: str
    buckets: tuple[float, ...] = ()
    yields: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()

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
    yields=("outcome", "service", "route", "code_class"),
)
ERRORS = Metric(
    "errors_total",
    "counter",
    ("service", "origin"),
    "Requests that ended in an error, by whose it is: caller (its request, credential or patience), sidecar (a bug, a "
    "limit, its configuration), upstream (the service failed, or had no room). No service: nobody could tell which.",
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
    "Attempts beyond a call's first, by what was wrong with the one before it; hedge: it only took long; "
    "second-leader: others waited for its answer, and it showed no sign of life.",
    "What do failures cost in extra calls?",
    yields=("reason", "service"),
)
THROTTLED = Metric(
    "throttled_total",
    "counter",
    ("by",),
    "Calls without room: the service said so, and no other region had any, or a limit of the route's own.",
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

NOT_STORED = Metric(
    "not_stored_total",
    "counter",
    ("service", "reason"),
    "Answers to looked-up calls that were not stored: they were errors, not complete, not of the asked shape, or ended "
    "for a reason that is not known to be good (unknown-finish; the log names it).",
    "Why do so many misses leave nothing behind?",
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
    "Calls of our own for answers that were getting old: stored, or failed.",
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

BREAKDOWNS = (
    Metric(
        "redis_errors_total",
        "counter",
        ("reason",),
        "Times that Redis could not be asked: timeout, error, refused (credentials), malformed (no answer of Redis'), "
        "busy (no connection free), open (its breaker).",
        "Is the fleet's cache in use?",
        closed=("timeout", "error", "refused", "malformed", "busy", "open"),
    ),
    Metric(
        "envelope_faults_total",
        "counter",
        ("reason",),
        "Entries from Redis that were not used, for they did not verify.",
        "Is a secret missing, or somebody writing into our cache?",
        closed=("format", "version", "secret", "forged", "key", "size", "payload"),
    ),
    Metric(
        "mode",
        "gauge",
        ("mode",),
        "1 for the mode in force where that is not normal: cache-off or passthrough.",
        "Has somebody switched the cache off, and forgotten?",
        closed=("cache-off", "passthrough"),
    ),
    Metric(
        "breaker_state",
        "gauge",
        ("service", "region", "state"),
        "Breakers in this state: of a region 1, of one with resources in its path as many as were called.",
        "Which region is down?",
        yields=("region", "service", "state"),
    ),
    Metric(
        "rate_windows",
        "gauge",
        ("service", "region"),
        "Quotas, of a deployment and a credential, that are spent for the time being.",
        "Where do we run into quotas?",
        yields=("region", "service"),
    ),
    Metric(
        "credentials_unusable",
        "gauge",
        ("service", "region"),
        "1 while the credential that a region brings cannot be had, and no call can be sent there; else 0.",
        "Is a credential not mounted, or an identity not set up?",
        yields=("region", "service"),
    ),
    Metric(
        "retry_budget_left",
        "gauge",
        ("service",),
        "Extra attempts that may still be made in these 10 s.",
        "Are we out of retries?",
    ),
    Metric(
        "key_splitting_headers",
        "gauge",
        ("route",),
        "Header fields that have another value on nearly every call, and count; `/readyz?verbose` names them.",
        "Why does a route behind a gateway never hit?",
    ),
    Metric(
        "dns_lookups_total",
        "counter",
        ("result",),
        "Host names looked up: found, absent (there is no such name, or it has no address), failed (no answer; an "
        "earlier one goes on serving), refused (too many at once).",
        "Do the name servers answer?",
        closed=("found", "absent", "failed", "refused"),
    ),
    Metric(
        "upstream_connections_total",
        "counter",
        ("reason",),
        "Connections opened to services: there was none (first), each had a call on it (busy), or the one before was "
        "unused for long (idle), old (aged), at an address that its name no longer has (moved), closed by the service "
        "(closed), broke under a call (died), or was given up with its call (dropped).",
        "Do calls find a connection, or does each pay for a handshake?",
        closed=("first", "busy", "idle", "aged", "moved", "closed", "died", "dropped"),
    ),
    Metric(
        "calls_waiting",
        "gauge",
        ("route",),
        "Calls that wait for their turn under the route's limits.",
        "How long is the line?",
    ),
    Metric(
        "calls_shed_total",
        "counter",
        ("route", "cause"),
        "Calls sent away under the route's limits: too many wait (queue), their turn would come too late (deadline), "
        "or no rate has room for them soon (rate).",
        "Which limit is too small?",
    ),
    Metric(
        "envelope_bytes_total",
        "counter",
        ("form",),
        "Bytes of entries as they are (plain) and as they went into Redis (sealed).",
        "What does compression save?",
        closed=("plain", "sealed"),
    ),
)
"""As ``READINGS``, told apart by labels of closed sets."""

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
        "pods",
        "gauge",
        (),
        "Processes of the fleet when they were last counted, 0 while that is not known.",
        "Among how many are limits shared while Redis is away?",
    ),
    Metric(
        "region_orders",
        "gauge",
        (),
        "Regions about which an operator's order holds in the whole fleet.",
        "Has somebody taken a region out, and forgotten?",
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

OVERFLOW = Metric(
    "series_overflow_total",
    "counter",
    (),
    "Series that found no room and are counted under `other`.",
    "Are there more services, routes, regions and reasons than are told apart?",
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
    NOT_STORED,
    OBSERVED,
    REFRESHES,
    REDIS_DURATION,
    *BREAKDOWNS,
    *FLEET_READINGS,
    *READINGS,
    OVERFLOW,
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
