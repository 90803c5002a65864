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
from sidecar.settings.shapes import Either, Items, Named, Setting, Table

_HOUR, _DAY, _YEAR = 3600.0, 86400.0, 365 * 86400.0

_TIMEOUTS, _LIMITS = Timeouts(), RouteLimits()

_MATCH = Table(
    {
        "service": Setting(forms.NAME, "the name of a service"),
        "path": Setting(forms.PATTERN, "a shell pattern for the path after the service's prefix, without query"),
        "model": Setting(forms.TEXT, "a shell pattern for the model asked for, upper and lower case alike"),
        "header": Setting(
            Named(forms.MATCHED_HEADER, forms.TEXT),
            "shell patterns for header values, all of which match; not for headers that carry credentials",
        ),
    }
)

_CACHE = Table(
    {
        "mode": Setting(
            choice({mode.value: mode for mode in CacheMode}, what="cache mode"),
            "`observe` only measures what would have hit; `deterministic` takes embeddings, documents and the like, "
            "and chat with an explicit `temperature: 0`",
            CacheMode.DETERMINISTIC.value,
        ),
        "ttl": Setting(duration(0.001, _YEAR), "how long an answer is fresh", "by kind of endpoint, see below"),
        "share": Setting(forms.SHARE, "who may read whose answers", "principal"),
        "tags": Setting(Items(forms.TAG), "names to purge by"),
        "stale_while_revalidate": Setting(
            duration(0, _YEAR), "how long after its `ttl` it still serves while it is refreshed", "0s"
        ),
        "stale_if_error": Setting(
            duration(0, _YEAR), "how long after its `ttl` it still serves where the service fails", "0s"
        ),
        "seed": Setting(
            choice({"trusted": True, "ignored": False}, what="seed rule"),
            "`trusted`: a chat call with a seed counts as deterministic",
            "ignored",
        ),
        "directives": Setting(
            choice({"honour": True, "ignore": False}, what="directives rule"),
            "`honour`: what answers say about caching holds; `ignore`: it counts for nothing",
            "by dialect, see below",
        ),
        "custom_models": Setting(
            forms.SWITCH,
            "`true`: answers of models that you trained yourselves are kept, too; purge them when you train one again",
            "false",
        ),
        "urls": Setting(
            choice({"off": "off", "unsigned": "unsigned"}, what="URL rule"),
            "`unsigned`: calls that name a document by its URL are looked up. The URL counts without the signature of "
            "an Azure blob, so within `share` whoever knows a blob's name has its result. What is behind the URL must "
            "not change within the `ttl`",
            "off",
        ),
    },
    frozenset({"verify", "holdout"}),
)

_TIMEOUT = Table(
    {
        "connect": Setting(duration(0.001, _HOUR), "to a connection", as_duration(_TIMEOUTS.connect)),
        "first_byte": Setting(duration(0.001, _DAY), "to the answer's head", as_duration(_TIMEOUTS.first_byte)),
        "stream_first_byte": Setting(
            duration(0.001, _DAY),
            "the same where a stream was asked for",
            f"{as_duration(_TIMEOUTS.stream_first_byte)}, or first_byte where that is less",
        ),
        "idle": Setting(duration(0.001, _DAY), "between two reads", as_duration(_TIMEOUTS.idle)),
    }
)

_LIMIT = Table(
    {
        "concurrency": Setting(
            count(0, 10**6), "how many of its calls each process has under way at once; 0: no limit", "no limit"
        ),
        "tokens_per_minute": Setting(
            count(0, 10**9),
            "tokens of prompts and answers; estimated first, corrected by what was used; spread over the minute as "
            "`requests_per_minute` is; 0: no limit",
            "no limit",
        ),
        "requests_per_minute": Setting(
            count(0, 10**9),
            "calls that go to the service, spread over the minute: at once go those of two seconds, but always one; "
            "further ones wait for their turn where `queue` lets them, else get 429 (with 600: 20 at once, then one "
            "each 100 ms; with 2: one each 30 s); 0: no limit",
            "no limit",
        ),
        "queue": Setting(
            count(0, 10**6), "how many calls, at most, wait for their turn in each process; 0: none", str(_LIMITS.queue)
        ),
        "replicas": Setting(
            whole(1, 10**5),
            "where the fleet cannot be asked, a process takes one share of so many of the rates",
            str(_LIMITS.replicas),
        ),
        "adaptive": Setting(
            forms.SWITCH, "`true`: the concurrency follows what the service takes", str(_LIMITS.adaptive).lower()
        ),
    }
)

_RETRY = Table(
    {
        "on_timeout": Setting(
            forms.SWITCH,
            "`true`: a call that generates and was not answered in time is sent again, and may be paid for twice",
            "false",
        ),
        "hedge": Setting(
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
            "model": Setting(forms.MODEL, "another model of the service answers, under its own name"),
            "answer_file": Setting(forms.FILE, "the file that holds the answer"),
        },
        ways=(("model",), ("answer_file",)),
    ),
)

ROUTE = Table(
    {
        "name": Setting(forms.NAME, "its name in metrics and logs", required=True),
        "owner": Setting(forms.TEXT, "who answers for it; a note for people"),
        "match": Setting(_MATCH, "which calls it takes; what is not said matches everything"),
        "cache": Setting(_CACHE, "whether and how its answers are cached"),
        "timeouts": Setting(_TIMEOUT, "how long to wait upstream; there is no total"),
        "allow": Setting(
            Items(forms.TAG, 1), "its calls go only to regions whose `residency` is one of these", "every region"
        ),
        "limits": Setting(_LIMIT, "what its calls may take of the service"),
        "retry": Setting(_RETRY, "what is sent twice"),
        "fallback": Setting(
            Items(_FALLBACK),
            "what answers where no region does, the first that can; `stale` is an entry within `cache.stale_if_error`",
            "an error",
        ),
    },
    frozenset({"batch", "model", "shape", "slo"}),
)
