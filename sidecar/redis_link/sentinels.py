"""
The primary among several servers, as Sentinels name it.

The rule: every new connection asks them again, so that a failover needs only new connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  the client's own
    InvalidResponse,
    TimeoutError,  # noqa: A004  as above
)

from sidecar.redis_link.connection import RedisConnection
from sidecar.redis_link.pool import RedisPool
from sidecar.redis_link.replies import making_sense

SENTINEL_SECONDS = 0.5
"""How long one Sentinel may take before the next one is asked."""


class PrimaryConnection(RedisConnection, SentinelManagedConnection):
    """A connection to the primary that the Sentinels name."""


class PrimaryPool(RedisPool, SentinelConnectionPool):
    """Connections to the primary that the Sentinels name."""

    async def aclose(self) -> None:
        """Close all connections, those to the Sentinels too."""
        await super().aclose()
        for sentinel in self.sentinel_manager.sentinels:
            await sentinel.aclose()


class Sentinels(Sentinel):
    """Sentinels at *hosts*, connections to which are made with *wiring*."""

    def __init__(self, hosts: Iterable[tuple[str, int]], wiring: dict[str, Any]) -> None:
        super().__init__([])  # type: ignore[no-untyped-call]
        limits: dict[str, Any] = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
        self.sentinels = [
            Redis.from_pool(
                ConnectionPool(connection_class=SentinelConnection, host=host, port=port, **limits, **wiring)
            )
            for host, port in hosts
        ]

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """
        The address of the primary of *service_name*, from the first Sentinel that knows a live one.

        If none does, raises what a Sentinel refused or met, or that they know none.
        """
        met: Exception | None = None
        for sentinel in list(self.sentinels):
            try:
                with making_sense():
                    state = (await sentinel.sentinel_masters()).get(service_name)  # type: ignore[no-untyped-call]
                    found = state and self.check_master_state(state, service_name) and _address(state)
            except (ConnectionError, TimeoutError, InvalidResponse) as error:
                if not isinstance(met, AuthenticationError):
                    met = error
                continue
            if found:
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)  # to be asked first
                return found
        raise met or MasterNotFoundError(f"the Sentinels know of no live primary of {service_name!r}")


def _address(state: Mapping[str, Any]) -> tuple[str, int]:
    host, port = state["ip"], state["port"]
    if not isinstance(host, str) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError("no address")
    return host, port


class SentinelConnection(RedisConnection):
    """A connection to a Sentinel, which may not need the credentials of the servers it watches."""

    async def connect(self) -> None:
        """
        Send the credentials; connect without them if they are not accepted: the first command shows whether they are
        needed.
        """
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except AuthenticationError:
            if self.credential_provider is None:
                raise
            provider, self.credential_provider = self.credential_provider, None
            try:
                await super().connect()  # type: ignore[no-untyped-call]
            finally:
                self.credential_provider = provider  # the next connection may be made with other credentials

    def _refused(self) -> None:
        """A Sentinel has users of its own: its refusal says nothing of a token."""
