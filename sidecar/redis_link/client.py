"""
The client of the fleet's Redis, as a rule describes it.

The rule: the client does what it is told once. It doesn't retry, nor wait for a server to come back; it follows a
Cluster's redirections and asks Sentinels who the primary is. The library is imported when a client is built, because
it costs 5 MiB that a sidecar without Redis needn't spend.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sidecar.core.rules import RedisRule
from sidecar.tasks import Spawn

HostLookup = Callable[[str], Awaitable[Sequence[str]]]
"""``await lookup(host)``: its addresses. Raises ``OSError``."""

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


LARGEST = 64 * 1024 * 1024
"""Bytes of the largest value that is read, where nobody says it."""

LARGEST_NEWS = 64 * 1024
"""The same of a subscription, which brings short words."""


class Address(NamedTuple):
    """
    What a URL names. *kind*: ``single``, ``sentinel`` or ``cluster``; *hosts* has one entry for ``single``. *service*
    is what Sentinels call it.
    """

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0


def locate(url: str) -> Address:
    """
    The address that *url* names: ``redis://HOST[:PORT][/DATABASE]``, ``redis+cluster://HOST[:PORT],...``,
    ``redis+sentinel://HOST[:PORT],.../SERVICE[/DATABASE]``; ``rediss`` for TLS.

    Raises ``ValueError``, whose message says what is wrong and what would be right.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the scheme is one of {' '.join(SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError("credentials don't belong in the URL: name files with username_file and password_file")
    if parts.query or parts.fragment:
        raise ValueError("a URL of Redis has no query and no fragment")
    family, _, kind = parts.scheme.partition("+")
    hosts = tuple(_host(host, 26379 if kind == "sentinel" else 6379) for host in parts.netloc.split(","))
    if len(hosts) > 1 and not kind:
        raise ValueError("several hosts need redis+sentinel or redis+cluster")
    path = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    service = ""
    if kind == "sentinel":
        if not path:
            raise ValueError("the path of a Sentinel URL is /SERVICE or /SERVICE/DATABASE")
        service = path.pop(0)
    if len(path) > 1 or any(not step.isdecimal() or not step.isascii() for step in path):
        raise ValueError("the database is one number: /0")
    database = int(path[0]) if path else 0
    if kind == "cluster" and database:
        raise ValueError("a Cluster has database 0 alone")
    return Address(kind or "single", family == "rediss", hosts, service, database)


def build(rule: RedisRule, spawn: Spawn, lookup: HostLookup, *, largest: int = LARGEST) -> Any:
    """
    A client for *rule*, not connected yet; *spawn* owns the tasks in which it connects, and *lookup* finds addresses. A
    value that it reads has at most *largest* bytes; a server that sends more is told apart from Redis, and left.

    It has three methods of ours: ``ask(*command)``, the shortest way to a reply; ``probe()``, which raises unless Redis
    answers; and ``renew()``, which forgets what may have changed while it was away.
    """
    address = locate(rule.url)
    if address.kind == "cluster":
        from sidecar.redis_link.cluster import Cluster  # noqa: PLC0415  see the rule above

        return Cluster(address.hosts, spawn=spawn, wiring=_wiring(rule, address, lookup, largest))
    return _of_one(rule, address, spawn, lookup, rule.max_connections, largest)


def build_single(rule: RedisRule, spawn: Spawn, lookup: HostLookup, draw: float) -> Any:
    """As ``build``, with one connection, in a Cluster to any of the servers of the URL: *draw* from [0, 1) picks it."""
    address = locate(rule.url)
    if address.kind == "cluster":
        address = address._replace(kind="single", hosts=(address.hosts[int(draw * len(address.hosts))],))
    return _of_one(rule, address, spawn, lookup, 1, LARGEST_NEWS)


def user(rule: RedisRule) -> str:
    """Who we say we are, for the log: the file's name, for what is in it may be the password by mistake."""
    return rule.username_file or "default"


def _of_one(rule: RedisRule, address: Address, spawn: Spawn, lookup: HostLookup, connections: int, largest: int) -> Any:
    """A client of one server, or of the one among several that Sentinels name."""
    from sidecar.redis_link.connection import RedisConnection  # noqa: PLC0415  as above
    from sidecar.redis_link.pool import RedisPool, Single  # noqa: PLC0415  as above

    wiring = _wiring(rule, address, lookup, largest)
    options = {"max_connections": connections, "spawn": spawn, "db": address.database, **wiring}
    if address.kind == "sentinel":
        from sidecar.redis_link.sentinels import PrimaryConnection, PrimaryPool, Sentinels  # noqa: PLC0415  as above

        sentinels = Sentinels(address.hosts, wiring)
        return Single.from_pool(PrimaryPool(address.service, sentinels, connection_class=PrimaryConnection, **options))
    host, port = address.hosts[0]
    return Single.from_pool(RedisPool(connection_class=RedisConnection, host=host, port=port, **options))


def _wiring(rule: RedisRule, address: Address, lookup: HostLookup, largest: int) -> dict[str, Any]:
    """What every connection is made with. The library's defaults for retries, health checks and RESP2 are right."""
    from sidecar.redis_link.connection import RedisCredentials  # noqa: PLC0415  as above

    return {
        "credential_provider": RedisCredentials(rule) if rule.username_file or rule.password_file else None,
        "trust": Trust(rule) if address.tls else None,
        "lookup": lookup,
        "largest": largest,
        "lib_name": None,
        "lib_version": None,
    }


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or port
    except ValueError:
        host = ""
    if not host:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return host, port


class Trust:
    """Whom TLS trusts and who it says we are, by the files of *rule*; with a ``ca_file``, that authority alone."""

    def __init__(self, rule: RedisRule) -> None:
        self._rule = rule
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[tuple[int, int], ...] = ()

    def context(self) -> ssl.SSLContext:
        """For a new connection; one serves all until a file changes. Raises ``OSError`` where a file can't be used."""
        rule = self._rule
        files = [Path(path) for path in (rule.ca_file, rule.cert_file, rule.key_file) if path]
        stamps = tuple((status.st_ino, status.st_mtime_ns) for status in (file.stat() for file in files))
        if self._context is None or stamps != self._stamps:
            context = ssl.create_default_context(cafile=rule.ca_file or None)
            if rule.cert_file:
                context.load_cert_chain(rule.cert_file, rule.key_file or None)
            self._context, self._stamps = context, stamps
        return self._context
