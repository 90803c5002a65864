"""
Every key of a configuration, as data.

The rule: what a key is called, what form it has, what holds when it isn't said and what it is for stand here once; the
reader, the variables and the reference page all follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sidecar.core.durations import as_duration
from sidecar.core.rules import (
    CacheMode,
    Limits,
    Listen,
    MemoryRule,
    Mode,
    RedisRule,
    Region,
    SealRule,
    Timeouts,
    UpstreamRule,
)
from sidecar.dialects import DIALECTS
from sidecar.settings import forms
from sidecar.settings.forms import Form, as_size, choice, duration, size, whole

KIB, MIB, GIB = 1024, 1024**2, 1024**3
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """One key. *default* as the reference shows it, ``""`` where nothing holds without it."""

    value: Value
    about: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table of known keys.

    *later*: keys that belong to other versions of the program. *secret*: keys under which people write secrets, which
    are refused in every version, and the key that names the secret's file.
    """

    keys: Mapping[str, Key]
    later: frozenset[str] = frozenset()
    secret: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are the user's own, of form *key*."""

    key: Form
    value: Table | Form


@dataclass(frozen=True, slots=True)
class Items:
    """A list; *least* is how many items it has at least."""

    value: Table | Form
    least: int = 0


Value = Form | Table | Named | Items

_SECRET = dict.fromkeys(("api_key", "apikey", "key", "password", "secret", "token", "value"), "credential.file")

_LATER_DIALECTS = frozenset({
    "gemini", "cohere", "mistral", "ollama", "bedrock", "azure-documents", "azure-vision", "azure-language",
    "azure-translator", "azure-safety", "azure-speech",
})  # fmt: skip

_LIMITS, _MEMORY, _TIMEOUTS, _REDIS, _SEAL = Limits(), MemoryRule(), Timeouts(), RedisRule(""), SealRule()


def _address(at: Listen) -> dict[str, Key]:
    return {
        "host": Key(forms.ADDRESS, "the address to listen on", at.host),
        "port": Key(forms.PORT, "the port; 0 for any free one", str(at.port)),
    }


_CREDENTIAL = Table(
    {
        "header": Key(forms.CREDENTIAL_HEADER, "the header that carries it, such as `authorization`", required=True),
        "prefix": Key(forms.SCHEME, 'what stands before it, such as `"Bearer "`', '""'),
        "file": Key(forms.FILE, "the mounted file that holds it; read again when it changes", required=True),
    },
    frozenset({"managed_identity", "workload_identity"}),
    _SECRET,
)

_REGION = Table(
    {
        "name": Key(forms.NAME, "its name in headers, metrics and logs", required=True),
        "url": Key(
            forms.URL,
            "scheme, host, optional port and base path; `{resource}` in it is filled from the path's next segment",
            required=True,
        ),
        "priority": Key(
            whole(1, 1000),
            "this version sends to the region of the lowest number only; of equal ones, to the first",
            str(Region("", "").priority),
        ),
        "credential_domain": Key(
            forms.NAME,
            "whose keys work there; in this version only `microsoft` has an effect: it lets tokens issued by Microsoft "
            "through to a host that is not Microsoft's, such as a gateway",
            "one for the service where its keys work everywhere; else one for each region",
        ),
        "credential": Key(_CREDENTIAL, "a credential that the region supplies", "the caller's own is passed on"),
    },
    frozenset({"billing", "deployments", "residency", "weight"}),
    _SECRET,
)

_SERVICE = Table(
    {
        "dialect": Key(
            choice(DIALECTS, what="dialect", later=_LATER_DIALECTS),
            "the API it speaks",
            "required; for a built-in's name, the built-in's",
        ),
        "path": Key(
            forms.PREFIX,
            "the prefix of its base URL: `http://127.0.0.1:7400/openai`",
            "if neither path, hosts nor port is said: the built-in's, else `/NAME`",
        ),
        "hosts": Key(Items(forms.HOST), "host names that are this service's; a host match beats a path match"),
        "port": Key(forms.OWN_PORT, "a port of its own, for SDKs that tolerate no path prefix", "the shared port"),
        "regions": Key(
            Items(_REGION, 1),
            "where it answers; this version sends to the region of the lowest priority number only",
            "required; for a built-in's name, the built-in's",
        ),
    },
    frozenset({"breaker", "balance"}),
    _SECRET,
)

_ROUTE = Table(
    {
        "name": Key(forms.NAME, "its name in metrics and logs", required=True),
        "owner": Key(forms.TEXT, "who answers for it; a note for people"),
        "match": Key(
            Table(
                {
                    "service": Key(forms.NAME, "the name of a service"),
                    "path": Key(
                        forms.PATTERN, "a shell pattern for the path after the service's prefix, without query"
                    ),
                    "model": Key(forms.TEXT, "a shell pattern for the model asked for"),
                    "header": Key(
                        Named(forms.MATCHED_HEADER, forms.TEXT),
                        "shell patterns for header values, all of which match; not for headers that carry credentials",
                    ),
                }
            ),
            "which calls it takes; what is not said matches everything",
        ),
        "cache": Key(
            Table(
                {
                    "mode": Key(
                        choice({mode.value: mode for mode in CacheMode}, what="cache mode"),
                        "`observe` only measures what would have hit; `deterministic` takes embeddings, documents and "
                        "the like, and chat with an explicit `temperature: 0`",
                        CacheMode.DETERMINISTIC.value,
                    ),
                    "ttl": Key(
                        duration(0.001, 365 * DAY), "how long an answer is fresh", "by kind of endpoint, see below"
                    ),
                    "share": Key(forms.SHARE, "who may read whose answers", "principal"),
                    "tags": Key(Items(forms.TAG), "names to purge by"),
                    "stale_while_revalidate": Key(
                        duration(0, 365 * DAY), "how long after its `ttl` it still serves while it is refreshed", "0s"
                    ),
                    "stale_if_error": Key(
                        duration(0, 365 * DAY), "how long after its `ttl` it still serves where the service fails", "0s"
                    ),
                    "seed": Key(
                        choice({"trusted": True, "ignored": False}, what="seed rule"),
                        "`trusted`: a chat call with a seed counts as deterministic",
                        "ignored",
                    ),
                },
                frozenset({"verify"}),
            ),
            "whether and how its answers are cached",
        ),
        "timeouts": Key(
            Table(
                {
                    "connect": Key(duration(0.001, HOUR), "to a connection", as_duration(_TIMEOUTS.connect)),
                    "first_byte": Key(duration(0.001, DAY), "to the answer's head", as_duration(_TIMEOUTS.first_byte)),
                    "stream_first_byte": Key(
                        duration(0.001, DAY),
                        "the same where a stream was asked for",
                        f"{as_duration(_TIMEOUTS.stream_first_byte)}, or first_byte where that is less",
                    ),
                    "idle": Key(duration(0.001, DAY), "between two reads", as_duration(_TIMEOUTS.idle)),
                }
            ),
            "how long to wait upstream; there is no total",
        ),
    },
    frozenset({"batch", "model", "shape", "allow", "limits", "retry", "fallback", "slo"}),
)

_LIMIT = Table({
    "inflight_memory": Key(
        size(MIB, 64 * GIB), "bodies and flights in memory, all together", as_size(_LIMITS.inflight_memory)
    ),
    "collect": Key(
        size(0, 64 * GIB), "the largest body that is collected for a look-up; larger ones stream through",
        as_size(_LIMITS.collect),
    ),
    "request_line": Key(size(KIB, MIB), "a request line", as_size(_LIMITS.request_line)),
    "headers": Key(size(KIB, MIB), "a request's header fields", as_size(_LIMITS.headers)),
    "trailers": Key(size(0, MIB), "a request's trailer fields", as_size(_LIMITS.trailers)),
    "head": Key(duration(0.1, HOUR), "from a head's first byte to its last", as_duration(_LIMITS.head_seconds)),
    "body": Key(duration(0.1, HOUR), "how long a request body may stand still", as_duration(_LIMITS.body_seconds)),
    "idle": Key(duration(0.1, DAY), "how long a kept-alive connection may be silent",
                as_duration(_LIMITS.idle_seconds)),
    "reader": Key(duration(0.1, HOUR), "how long a caller that reads nothing is waited for",
                  as_duration(_LIMITS.reader_seconds)),
    "drain": Key(duration(0, HOUR), "grace after SIGTERM for calls that run", as_duration(_LIMITS.drain_seconds)),
})  # fmt: skip

_MEMORY_TIER = Table(
    {
        "max_bytes": Key(size(64 * KIB, 256 * GIB), "all entries together", as_size(_MEMORY.max_bytes)),
        "max_entry_bytes": Key(
            size(KIB, GIB), "the largest entry", f"{as_size(_MEMORY.max_entry_bytes)}, at most max_bytes"
        ),
        "max_entries": Key(whole(0, 10**9), "how many entries; 0 for no limit", str(_MEMORY.max_entries)),
        "eviction": Key(
            choice({"s3-fifo": "s3-fifo", "lru": "lru"}, what="way of eviction"),
            "which entries give way when it is full",
            _MEMORY.eviction,
        ),
    }
)

_REDIS_TIER = Table(
    {
        "url": Key(
            forms.REDIS,
            "`redis://HOST:PORT/DATABASE`; `redis+sentinel://HOST,HOST/SERVICE/DATABASE`; `redis+cluster://HOST,HOST`; "
            "with TLS `rediss`, `rediss+sentinel`, `rediss+cluster`",
            "required in this table",
        ),
        "timeout": Key(duration(0.001, MINUTE), "the commands of one call, all together", as_duration(_REDIS.timeout)),
        "namespace": Key(
            forms.NAMESPACE, "what the names of its keys start with; Redis sees it in clear", _REDIS.namespace
        ),
        "max_connections": Key(whole(1, 1000), "connections of this process", str(_REDIS.max_connections)),
        "lease_wait": Key(
            duration(0, HOUR),
            "how long a call that streams waits for another pod's answer",
            as_duration(_REDIS.lease_wait),
        ),
        "warm": Key(whole(0, 10**6), "how many entries, at most, it reads into memory at the start", str(_REDIS.warm)),
        "username_file": Key(forms.FILE, "the mounted file that holds the ACL user's name", "Redis' default user"),
        "password_file": Key(forms.FILE, "the mounted file that holds the password", "no password"),
        "ca_file": Key(forms.FILE, "trust anchors, PEM; for TLS", "the system's"),
        "cert_file": Key(forms.FILE, "the client certificate, PEM; for TLS", "no certificate"),
        "key_file": Key(forms.FILE, "its private key, PEM; for TLS", "in `cert_file`"),
    },
    secret={
        **dict.fromkeys(("user", "username"), "username_file"),
        **dict.fromkeys(("auth", "key", "password", "secret", "token"), "password_file"),
    },
)

_CACHE = Table(
    {
        "memory": Key(_MEMORY_TIER, "the tier in this process's memory"),
        "redis": Key(_REDIS_TIER, "the tier that the fleet shares; needs `cache.secret_file`", "memory alone"),
        "secret_file": Key(
            forms.FILE,
            "the mounted file that holds one or two lines from `sidecar keygen`, under which entries are sealed in "
            "Redis: the first writes, both read",
            "no Redis",
        ),
        "encrypt": Key(
            forms.SWITCH, "`false`: entries in Redis are signed only, and can be read there", str(_SEAL.encrypt).lower()
        ),
        "compress_above": Key(
            size(0, GIB), "entries larger than this are compressed for Redis", as_size(_SEAL.compress_above)
        ),
    },
    secret=dict.fromkeys(("key", "password", "secret", "secret_key"), "secret_file"),
)

SCHEMA = Table(
    {
        "version": Key(whole(1, 1, name="version", remedy="this program reads version 1"), "of this form", "1"),
        "mode": Key(
            choice({mode.value: mode for mode in Mode}, what="mode"),
            "`cache-off`: nothing is looked up or kept; `passthrough`: calls are only forwarded",
            Mode.NORMAL.value,
        ),
        "listen": Key(Table(_address(Listen()), frozenset({"tls_port"})), "where applications call"),
        "health": Key(Table(_address(Listen(port=7491))), "`/livez`, `/readyz` and `/metrics`"),
        "admin": Key(
            Table(
                {
                    **_address(Listen(port=7490)),
                    "token_file": Key(
                        forms.FILE,
                        "the mounted file that holds the token of who may act: one line of at least 16 characters",
                        "none: callers from this machine act on this process alone",
                    ),
                },
                secret=dict.fromkeys(("key", "password", "secret", "token"), "token_file"),
            ),
            "where `sidecar purge` and `sidecar mode` reach it",
        ),
        "state": Key(
            Table(
                {
                    "dir": Key(
                        forms.FILE,
                        "the folder for files of its own",
                        "`$XDG_STATE_HOME/sidecar`, else `~/.local/state/sidecar`",
                    )
                },
                frozenset({"durable"}),
            ),
            "what it keeps on disk",
        ),
        "upstream": Key(
            Table(
                {
                    "proxy": Key(forms.PROXY, "the egress proxy", UpstreamRule().proxy),
                    "ca_file": Key(forms.FILE, "extra trust anchors, PEM", "the system's alone"),
                }
            ),
            "the way to the services",
        ),
        "limits": Key(_LIMIT, "bounds of this process"),
        "cache": Key(_CACHE, "the cache's tiers"),
        "services": Key(Named(forms.NAME, _SERVICE), "whom the application calls"),
        "routes": Key(Items(_ROUTE), "groups of calls and their rules; the first match wins"),
    }
)


def scalars(table: Table = SCHEMA, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Form]]:
    """The single values outside lists and named tables: those that variables and options can set."""
    for name, key in table.keys.items():
        if isinstance(key.value, Form):
            yield (*path, name), key.value
        elif isinstance(key.value, Table):
            yield from scalars(key.value, (*path, name))
