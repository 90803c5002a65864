"""
Every key of a configuration, as data.

The rule: a key's name, its form, its default and its purpose are written once, here (for services and routes in modules
of their own). The reader, the variables and the reference page all use this.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.durations import as_duration
from sidecar.core.rules import Limits, Listen, LogRule, MemoryRule, Mode, RedisRule, SealRule, UpstreamRule
from sidecar.settings import forms
from sidecar.settings.build import REDIS_SCOPE
from sidecar.settings.forms import choice
from sidecar.settings.identity_keys import AZURE_KEYS, KEYS, identities
from sidecar.settings.quantities import PORT, as_percent, as_size, duration, percent, size, whole
from sidecar.settings.route_keys import ROUTE
from sidecar.settings.service_keys import SERVICE
from sidecar.settings.shapes import Items, Named, Setting, Table, ValueForm, in_file

KIB, MIB, GIB = 1024, 1024**2, 1024**3
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

_LIMITS, _LOG, _MEMORY, _REDIS, _SEAL = Limits(), LogRule(), MemoryRule(), RedisRule(""), SealRule()


def _address(at: Listen) -> dict[str, Setting]:
    return {
        "host": Setting(forms.ADDRESS, "the address to listen on", at.host),
        "port": Setting(PORT, "the port; 0 for any free one", str(at.port)),
    }


_LIMIT = Table({
    "inflight_memory": Setting(
        size(MIB, 64 * GIB), "bodies and flights in memory, all together", as_size(_LIMITS.inflight_memory)
    ),
    "collect": Setting(
        size(0, 64 * GIB), "the largest body that is collected for a look-up; larger ones stream through",
        as_size(_LIMITS.collect),
    ),
    "request_line": Setting(size(KIB, MIB), "a request line", as_size(_LIMITS.request_line)),
    "headers": Setting(size(KIB, MIB), "a request's header fields", as_size(_LIMITS.headers)),
    "trailers": Setting(size(0, MIB), "a request's trailer fields", as_size(_LIMITS.trailers)),
    "head": Setting(duration(0.1, HOUR), "from a head's first byte to its last", as_duration(_LIMITS.head_seconds)),
    "body": Setting(duration(0.1, HOUR), "how long a request body may stand still", as_duration(_LIMITS.body_seconds)),
    "idle": Setting(duration(0.1, DAY), "how long a kept-alive connection may be silent",
                    as_duration(_LIMITS.idle_seconds)),
    "reader": Setting(duration(0.1, HOUR), "how long a caller that reads nothing is waited for; one that closes its "
                      "sending side (a half-close) counts as gone at once", as_duration(_LIMITS.reader_seconds)),
    "drain": Setting(duration(0, HOUR), "grace after SIGTERM for calls that run; connections without one close at once",
                     as_duration(_LIMITS.drain_seconds)),
})  # fmt: skip

_MEMORY_TIER = Table(
    {
        "max_bytes": Setting(size(64 * KIB, 256 * GIB), "all entries together", as_size(_MEMORY.max_bytes)),
        "max_entry_bytes": Setting(
            size(KIB, GIB), "the largest entry", f"{as_size(_MEMORY.max_entry_bytes)}, at most max_bytes"
        ),
        "max_entries": Setting(whole(0, 10**9), "how many entries; 0 for no limit", str(_MEMORY.max_entries)),
        "eviction": Setting(
            choice({"s3-fifo": "s3-fifo", "lru": "lru"}, what="way of eviction"),
            "which entries give way when it is full",
            _MEMORY.eviction,
        ),
    }
)

_REDIS_CREDENTIAL = Table(
    identities(
        REDIS_SCOPE,
        {"username": Setting(forms.ID, "the user as Redis knows it", "the object id (`oid`) that the token names")},
    ),
    secret={
        **dict.fromkeys(KEYS, in_file("cache.redis.password_file")),
        **dict.fromkeys(AZURE_KEYS, "remove it, and use workload_identity, which needs none"),
    },
    ways=(("managed_identity",), ("workload_identity",)),
)

_REDIS_TIER = Table(
    {
        "url": Setting(
            forms.REDIS,
            "`redis://HOST:PORT/DATABASE`; `redis+sentinel://HOST,HOST/SERVICE/DATABASE`; `redis+cluster://HOST,HOST`; "
            "with TLS `rediss`, `rediss+sentinel`, `rediss+cluster`",
            "required in this table",
        ),
        "timeout": Setting(
            duration(0.001, MINUTE), "the commands of one call, all together", as_duration(_REDIS.timeout)
        ),
        "namespace": Setting(
            forms.NAMESPACE, "what the names of its keys start with; Redis sees it in clear", _REDIS.namespace
        ),
        "max_connections": Setting(whole(1, 1000), "connections of this process", str(_REDIS.max_connections)),
        "lease_wait": Setting(
            duration(0, HOUR),
            "how long a call that streams waits for another pod's answer",
            as_duration(_REDIS.lease_wait),
        ),
        "warm": Setting(
            whole(0, 10**6), "how many entries, at most, it reads into memory at the start", str(_REDIS.warm)
        ),
        "username_file": Setting(forms.FILE, "the mounted file that holds the ACL user's name", "Redis' default user"),
        "password_file": Setting(forms.FILE, "the mounted file that holds the password", "no password"),
        "ca_file": Setting(forms.FILE, "trust anchors, PEM; for TLS", "the system's"),
        "cert_file": Setting(forms.FILE, "the client certificate, PEM; for TLS", "no certificate"),
        "key_file": Setting(forms.FILE, "its private key, PEM; for TLS", "in `cert_file`"),
        "credential": Setting(
            _REDIS_CREDENTIAL,
            "Microsoft Entra in place of user and password, for Azure Managed Redis and Azure Cache for Redis; over "
            "TLS, except to this machine",
            "user and password",
        ),
    },
    secret={
        **dict.fromkeys(("user", "username"), in_file("username_file")),
        **dict.fromkeys(("auth", "key", "password", "secret", "token"), in_file("password_file")),
    },
)

_CACHE = Table(
    {
        "memory": Setting(_MEMORY_TIER, "the tier in this process's memory"),
        "redis": Setting(_REDIS_TIER, "the tier that the fleet shares; needs `cache.secret_file`", "memory alone"),
        "secret_file": Setting(
            forms.FILE,
            "the mounted file that holds one or two lines from `sidecar keygen`, under which entries are sealed in "
            "Redis: the first writes, both read",
            "no Redis",
        ),
        "encrypt": Setting(
            forms.SWITCH, "`false`: entries in Redis are signed only, and can be read there", str(_SEAL.encrypt).lower()
        ),
        "compress_above": Setting(
            size(0, GIB), "entries larger than this are compressed for Redis", as_size(_SEAL.compress_above)
        ),
    },
    secret=dict.fromkeys(("key", "password", "secret", "secret_key"), in_file("secret_file")),
)

SCHEMA = Table(
    {
        "version": Setting(whole(1, 1, name="version", remedy="this program reads version 1"), "of this form", "1"),
        "mode": Setting(
            choice({mode.value: mode for mode in Mode}, what="mode"),
            "`cache-off`: nothing is looked up or kept; `passthrough`: calls are only forwarded",
            Mode.NORMAL.value,
        ),
        "listen": Setting(
            Table(
                {
                    **_address(Listen()),
                    "names": Setting(
                        Items(forms.HOST),
                        "names under which callers reach it, beside `localhost`, loopback addresses and the services' "
                        "hosts: a call under any other `Host` is not looked up, and gets no credential of a region; "
                        "a browser that comes to the health port under another name gets neither metrics nor "
                        "parts of readiness",
                    ),
                },
                frozenset({"tls_port"}),
            ),
            "where applications call",
        ),
        "log": Setting(
            Table(
                {
                    "sample": Setting(
                        percent(off=True),
                        "how many of the calls that went well and were not slow it tells of",
                        as_percent(_LOG.sample),
                    ),
                    "by": Setting(
                        choice({word: word for word in ("call", "key")}, what="way to draw the sample"),
                        "`call`: each of so many; `key`: all calls of so many keys, to see what becomes of repeats (a "
                        "line shows the beginning of its `key`); of calls that have no key, each of so many",
                        _LOG.by,
                    ),
                }
            ),
            "which calls have a line in the log; each call that fails or takes 30 s always has one",
        ),
        "health": Setting(Table(_address(Listen(port=7491))), "`/livez`, `/readyz` and `/metrics`"),
        "admin": Setting(
            Table(
                {
                    **_address(Listen(port=7490)),
                    "token_file": Setting(
                        forms.FILE,
                        "the mounted file that holds the token of who may act: one line of at least 16 characters",
                        "none: callers from this machine act on this process alone",
                    ),
                },
                secret=dict.fromkeys(("key", "password", "secret", "token"), in_file("token_file")),
            ),
            "where `sidecar purge` and `sidecar mode` reach it",
        ),
        "state": Setting(
            Table(
                {
                    "dir": Setting(
                        forms.FILE,
                        "the folder for files of its own",
                        "`$XDG_STATE_HOME/sidecar`, else `~/.local/state/sidecar`",
                    )
                },
                frozenset({"durable"}),
            ),
            "what the sidecar keeps on disk",
        ),
        "upstream": Setting(
            Table(
                {
                    "proxy": Setting(forms.PROXY, "the egress proxy", UpstreamRule().proxy),
                    "ca_file": Setting(forms.FILE, "extra trust anchors, PEM", "the system's alone"),
                    "nameservers": Setting(
                        Items(forms.NAMESERVER),
                        "the name servers that are asked for every host, by address; the hosts file and the search "
                        "domains of `/etc/resolv.conf` still count",
                        "those of `/etc/resolv.conf`",
                    ),
                }
            ),
            "the way to the services",
        ),
        "limits": Setting(_LIMIT, "bounds of this process"),
        "cache": Setting(_CACHE, "the cache's tiers"),
        "services": Setting(Named(forms.NAME, SERVICE), "the services that the application calls"),
        "routes": Setting(Items(ROUTE), "groups of calls and their rules; the first match wins"),
    },
    frozenset({"durable"}),
)


def scalars(table: Table = SCHEMA, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], ValueForm]]:
    """The single values outside lists and named tables: variables and options can set them."""
    for name, key in table.keys.items():
        if isinstance(key.value, ValueForm):
            yield (*path, name), key.value
        elif isinstance(key.value, Table):
            yield from scalars(key.value, (*path, name))
