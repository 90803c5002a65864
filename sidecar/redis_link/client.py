"""
Builds the client of the fleet's Redis from a rule.

The rule: the client sends each command once. It does not retry, nor wait for a server to come back. It follows a
Cluster's redirections and asks Sentinels for the primary. The library is imported when a client is built, because it
costs 5 MiB that a sidecar without Redis does not need.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.rules import RedisRule
from sidecar.redis_link.address import Address, HostLookup, locate
from sidecar.redis_link.login import LoginSource
from sidecar.tasks import Spawn

LARGEST = 64 * 1024 * 1024
"""The largest value that is read, in bytes, if the caller names no other bound."""

LARGEST_NEWS = 64 * 1024
"""The same for a subscription, which brings only short messages."""


def build(
    rule: RedisRule,
    spawn: Spawn,
    lookup: HostLookup,
    *,
    logins: LoginSource | None = None,
    largest: int = LARGEST,
) -> Any:
    """
    A client for *rule*, not connected yet. *spawn* owns the tasks in which it connects, *lookup* finds addresses, and
    *logins* has the credentials if these end. A value that it reads has at most *largest* bytes; a server that sends
    more is not Redis, and its connection is closed.

    It has four methods of ours: ``ask(*command)``, the shortest way to a reply; ``probe()``, which raises unless Redis
    answers; ``renew()``, which forgets what may have changed while Redis was away; and ``log_in(login, tell)``, which
    logs the open connections in anew.
    """
    address = locate(rule.url)
    if address.kind == "cluster":
        from sidecar.redis_link.cluster import Cluster  # noqa: PLC0415  see the rule above

        return Cluster(address.hosts, spawn=spawn, wiring=_wiring(rule, address, lookup, largest, logins))
    return _of_one(rule, address, spawn, lookup, rule.max_connections, largest, logins)


def build_single(
    rule: RedisRule, spawn: Spawn, lookup: HostLookup, draw: float, logins: LoginSource | None = None
) -> Any:
    """As ``build``, with one connection, in a Cluster to any of the servers of the URL: *draw* from [0, 1) picks it."""
    address = locate(rule.url)
    if address.kind == "cluster":
        address = address._replace(kind="single", hosts=(address.hosts[int(draw * len(address.hosts))],))
    return _of_one(rule, address, spawn, lookup, 1, LARGEST_NEWS, logins)


def _of_one(
    rule: RedisRule,
    address: Address,
    spawn: Spawn,
    lookup: HostLookup,
    connections: int,
    largest: int,
    logins: LoginSource | None,
) -> Any:
    """A client of one server, or of the one among several that Sentinels name."""
    from sidecar.redis_link.connection import RedisConnection  # noqa: PLC0415  as above
    from sidecar.redis_link.pool import RedisPool, Single  # noqa: PLC0415  as above

    wiring = _wiring(rule, address, lookup, largest, logins)
    options = {"max_connections": connections, "spawn": spawn, "db": address.database, **wiring}
    if address.kind == "sentinel":
        from sidecar.redis_link.sentinels import PrimaryConnection, PrimaryPool, Sentinels  # noqa: PLC0415  as above

        sentinels = Sentinels(address.hosts, wiring)
        return Single.from_pool(PrimaryPool(address.service, sentinels, connection_class=PrimaryConnection, **options))
    host, port = address.hosts[0]
    return Single.from_pool(RedisPool(connection_class=RedisConnection, host=host, port=port, **options))


def _wiring(
    rule: RedisRule, address: Address, lookup: HostLookup, largest: int, logins: LoginSource | None
) -> dict[str, Any]:
    """The arguments of every connection. The library's defaults for retries, health checks and RESP2 are right."""
    from sidecar.redis_link.connection import RedisCredentials, Trust  # noqa: PLC0415  as above

    return {
        "credential_provider": RedisCredentials(rule) if rule.username_file or rule.password_file else None,
        "logins": logins,
        "trust": Trust(rule) if address.tls else None,
        "lookup": lookup,
        "largest": largest,
        "lib_name": None,
        "lib_version": None,
    }
