"""
The metrics that are read where they stand, each time somebody asks: what each counts, and which question it answers.

The rule: as in ``table``. What reads them is handed over by ``app``.
"""

from __future__ import annotations

from sidecar.sinks.metric_type import Metric

BREAKDOWNS = (
    Metric(
        "redis_errors_total",
        "counter",
        ("reason",),
        "Times that Redis could not be asked: timeout, error, credential (no token of Azure's), refused (credentials), "
        "malformed (no answer of Redis), busy (no connection free), open (its breaker).",
        "Is the fleet's cache in use?",
        closed=("timeout", "error", "credential", "refused", "malformed", "busy", "open"),
    ),
    Metric(
        "envelope_faults_total",
        "counter",
        ("reason",),
        "Entries from Redis that were not used, because they did not verify.",
        "Is a secret missing, or does somebody write into our cache?",
        closed=("format", "version", "secret", "forged", "key", "size", "payload"),
    ),
    Metric(
        "mode",
        "gauge",
        ("mode",),
        "1 for the mode in force if that is not normal: cache-off or passthrough.",
        "Did somebody switch the cache off and forget it?",
        closed=("cache-off", "passthrough"),
    ),
    Metric(
        "breaker_state",
        "gauge",
        ("service", "region", "state"),
        "Breakers in this state: 1 for a region; for one with resources in its path, as many as were called.",
        "Which region is down?",
        yields=("region", "service", "state"),
    ),
    Metric(
        "rate_windows",
        "gauge",
        ("service", "region"),
        "Quotas of a deployment and a credential that are spent at present.",
        "Where do we run into quotas?",
        yields=("region", "service"),
    ),
    Metric(
        "credentials_unusable",
        "gauge",
        ("service", "region"),
        "1 while the credential of a region cannot be had and no call can be sent there; else 0.",
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
        "Header fields that count and have another value on nearly every call; `/readyz?verbose` names them.",
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
        "Connections opened to services, by reason: there was none (first), each had a call on it (busy), or the one "
        "before was unused for long (idle), open for long (aged), at an address that its name no longer has (moved), "
        "closed by the service (closed), broken under a call (died), or given up with its call (dropped).",
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
        "Calls refused under the route's limits: too many wait (queue), their turn would come too late (deadline), or "
        "no rate has room for them soon (rate).",
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
        "redis_token_seconds",
        "gauge",
        (),
        "Seconds until the token ends by which Redis knows this process, 0 without one; with `cache.redis.credential`.",
        "Are tokens for Redis renewed?",
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
        "fleet_revisions",
        "gauge",
        (),
        "Different configurations among the processes of the fleet when they were last counted, 0 while that is not "
        "known.",
        "Did a change reach all pods?",
    ),
    Metric(
        "region_orders",
        "gauge",
        (),
        "Regions about which an operator's order holds in the whole fleet.",
        "Did somebody take a region out and forget it?",
    ),
    Metric(
        "purge_lag_seconds",
        "gauge",
        (),
        "Seconds since the fleet's log of purges was last read.",
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
    Metric("tasks", "gauge", (), "Tasks of the event loop.", "Does work pile up that never ends?"),
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
        "When a configuration was last accepted, seconds since the epoch.",
        "Since when does this configuration hold?",
    ),
    Metric(
        "config_needs_restart",
        "gauge",
        (),
        "Keys of the configuration whose new values wait for a restart; `/readyz?verbose` names them.",
        "Is a change only half in use?",
    ),
)
"""Numbers that are not counted here, but read at a scrape from the part that knows them."""
