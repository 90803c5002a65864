"""
The keys of a route, as data: which calls it takes, and what holds for them.

The rule: as in ``schema``, of which this is a part.
"""

from __future__ import annotations

from sidecar.core.durations import as_duration
from sidecar.core.rules import CacheMode, FallbackRule, RouteLimits, Timeouts
from sidecar.settings import forms
from sidecar.settings.forms import choice
from sidecar.settings.quantities import count, duration, whole
from sidecar.settings.shapes import Either, Items, Key, Named, Table

_HOUR, _DAY, _YEAR = 3600.0, 86400.0, 365 * 86400.0

_TIMEOUTS, _LIMITS = Timeouts(), RouteLimits()

_MATCH = Table(
    {
        "service": Key(forms.NAME, "the name of a service"),
        "path": Key(forms.PATTERN, "a shell pattern for the path after the service's prefix, without query"),
        "model": Key(forms.TEXT, "a shell pattern for the model asked for, upper and lower case alike"),
        "header": Key(
            Named(forms.MATCHED_HEADER, forms.TEXT),
            "shell patterns for header values, all of which match; not for headers that carry credentials",
        ),
    }
)

_CACHE = Table(
    {
        "mode": Key(
            choice({mode.value: mode for mode in CacheMode}, what="cache mode"),
            "`observe` only measures what would have hit; `deterministic` takes embeddings, documents and the like, "
            "and chat with an explicit `temperature: 0`",
            CacheMode.DETERMINISTIC.value,
        ),
        "ttl": Key(duration(0.001, _YEAR), "how long an answer is fresh", "by kind of endpoint, see below"),
        "share": Key(forms.SHARE, "who may read whose answers", "principal"),
        "tags": Key(Items(forms.TAG), "names to purge by"),
        "stale_while_revalidate": Key(
            duration(0, _YEAR), "how long after its `ttl` it still serves while it is refreshed", "0s"
        ),
        "stale_if_error": Key(
            duration(0, _YEAR), "how long after its `ttl` it still serves where the service fails", "0s"
        ),
        "seed": Key(
            choice({"trusted": True, "ignored": False}, what="seed rule"),
            "`trusted`: a chat call with a seed counts as deterministic",
            "ignored",
        ),
        "directives": Key(
            choice({"honour": True, "ignore": False}, what="directives rule"),
            "`honour`: what answers say about caching holds; `ignore`: it counts for nothing",
            "by dialect, see below",
        ),
    },
    frozenset({"verify", "holdout"}),
)

_TIMEOUT = Table(
    {
        "connect": Key(duration(0.001, _HOUR), "to a connection", as_duration(_TIMEOUTS.connect)),
        "first_byte": Key(duration(0.001, _DAY), "to the answer's head", as_duration(_TIMEOUTS.first_byte)),
        "stream_first_byte": Key(
            duration(0.001, _DAY),
            "the same where a stream was asked for",
            f"{as_duration(_TIMEOUTS.stream_first_byte)}, or first_byte where that is less",
        ),
        "idle": Key(duration(0.001, _DAY), "between two reads", as_duration(_TIMEOUTS.idle)),
    }
)

_LIMIT = Table(
    {
        "concurrency": Key(
            count(0, 10**6), "how many of its calls each process has under way at once; 0: no limit", "no limit"
        ),
        "tokens_per_minute": Key(
            count(0, 10**9),
            "tokens of prompts and answers; estimated first, corrected by what was used; spread over the minute as "
            "`requests_per_minute` is; 0: no limit",
            "no limit",
        ),
        "requests_per_minute": Key(
            count(0, 10**9),
            "calls that go to the service, spread over the minute: at once go those of two seconds, but always one; "
            "further ones wait for their turn where `queue` lets them, else get 429 (with 600: 20 at once, then one "
            "each 100 ms; with 2: one each 30 s); 0: no limit",
            "no limit",
        ),
        "queue": Key(
            count(0, 10**6), "how many calls, at most, wait for their turn in each process; 0: none", str(_LIMITS.queue)
        ),
        "replicas": Key(
            whole(1, 10**5),
            "where the fleet cannot be asked, a process takes one share of so many of the rates",
            str(_LIMITS.replicas),
        ),
        "adaptive": Key(
            forms.SWITCH, "`true`: the concurrency follows what the service takes", str(_LIMITS.adaptive).lower()
        ),
    }
)

_RETRY = Table(
    {
        "on_timeout": Key(
            forms.SWITCH,
            "`true`: a call that generates and was not answered in time is sent again, and may be paid for twice",
            "false",
        ),
        "hedge": Key(
            forms.HEDGE,
            "`on`: a call that takes longer than 95 % of its route's is sent once more, and the first answer counts; "
            "at most 5 % more calls",
            "off",
        ),
    }
)

_FALLBACK = Either(
    choice({"stale": FallbackRule("stale")}, what="fallback"),
    Table(
        {
            "model": Key(forms.MODEL, "another model of the service answers, under its own name"),
            "answer_file": Key(forms.FILE, "the file that holds the answer"),
        },
        ways=(("model",), ("answer_file",)),
    ),
)

ROUTE = Table(
    {
        "name": Key(forms.NAME, "its name in metrics and logs", required=True),
        "owner": Key(forms.TEXT, "who answers for it; a note for people"),
        "match": Key(_MATCH, "which calls it takes; what is not said matches everything"),
        "cache": Key(_CACHE, "whether and how its answers are cached"),
        "timeouts": Key(_TIMEOUT, "how long to wait upstream; there is no total"),
        "allow": Key(
            Items(forms.TAG, 1), "its calls go only to regions whose `residency` is one of these", "every region"
        ),
        "limits": Key(_LIMIT, "what its calls may take of the service"),
        "retry": Key(_RETRY, "what is sent twice"),
        "fallback": Key(
            Items(_FALLBACK),
            "what answers where no region does, the first that can; `stale` is an entry within `cache.stale_if_error`",
            "an error",
        ),
    },
    frozenset({"batch", "model", "shape", "slo"}),
)
