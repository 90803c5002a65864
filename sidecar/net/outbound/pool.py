"""
The connections that are kept, by destination: aiohttp's pool, with our rules for how long one may be used.

The rule: what aiohttp has no public hook for is overridden here, and nowhere else.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey

from sidecar.core.region.connections import Census, ConnectionTerm, Opened, outlived, term
from sidecar.net.outbound.connection import UpstreamConnection
from sidecar.net.outbound.resolve import Resolver

KEEP_IDLE = 50.0
"""Seconds that an unused connection is kept: below the 60 s after which common load balancers drop theirs."""

PROBE = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 90_000}
"""A peer that vanished is noticed after 90 s, also by a call that waits ten minutes for its first byte; and the
first probe comes before NAT gateways forget a silent connection (from 240 s)."""


class UpstreamPool(aiohttp.TCPConnector):
    """
    Connections by destination, without a limit: the number of calls at a time is limited elsewhere. *census* counts
    those that are opened. *resolver* looks names up; connections last for *old* seconds, *clock* is monotonic, and
    *draw* uniform in [0, 1).
    """

    def __init__(
        self,
        trust: ssl.SSLContext,
        census: Census,
        resolver: Resolver,
        *,
        old: float,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self.trust = trust
        self._census = census
        self._names = resolver
        self._old = old
        self._clock = clock
        self._draw = draw
        super().__init__(
            ssl=trust,
            limit=0,
            resolver=resolver,
            use_dns_cache=False,
            keepalive_timeout=KEEP_IDLE,
            socket_factory=_dial,
        )
        protocol: type[ResponseHandler] = UpstreamConnection
        self._factory = partial(protocol, loop=self._loop)  # aiohttp has no public way to say it

    @property
    def busy(self) -> bool:
        """Whether a call has a connection of it."""
        return bool(self._acquired)

    def retire(self) -> None:
        """Keep no connection any more: unused ones close now, the others after their call."""
        self._force_close = True  # aiohttp has no public way to change it
        for wire in [wire for kept in self._conns.values() for wire, _ in kept]:
            wire.close()
        self._conns.clear()

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection at once, also one whose peer no longer reads."""
        for wire in tuple(self._acquired):
            wire.abort()
        await super().close(abort_ssl=abort_ssl)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the signature is aiohttp's
    ) -> ResponseHandler:
        """Open a connection and count it; aiohttp has no public hook for this."""
        key, census = req.connection_key, self._census
        reason = census.opening(key)
        try:
            wire = await super()._create_connection(req, traces, timeout)
        except BaseException:
            census.failed(key, reason)
            raise
        census.succeeded(reason)
        if isinstance(wire, UpstreamConnection):
            wire.on_lost = partial(census.lost, key)
            wire.term = self._term(req, wire)
            if wire.transport is None:
                wire.lose(Opened.DIED)
        return wire

    def take(self, key: ConnectionKey) -> UpstreamConnection | None:
        """
        A kept connection that is not too old. Whoever gets it gives it back. aiohttp has no public hook for the age,
        and its own way to a connection and back takes ten calls more.
        """
        kept = self._conns.get(key)
        while kept:
            wire, since = kept.popleft()
            if not kept:
                del self._conns[key]
            assert isinstance(wire, UpstreamConnection), "the pool makes no others"
            reason = self._unusable(wire, since)
            if reason is None:
                self._acquired.add(wire)
                return wire
            wire.lose(reason)
            wire.close()
        return None

    async def open(self, request: aiohttp.ClientRequest, seconds: float) -> UpstreamConnection:
        """A new connection, within *seconds*. Whoever gets it gives it back."""
        handle = await self.connect(request, [], aiohttp.ClientTimeout(connect=seconds))
        wire = handle.protocol
        handle._protocol = None  # noqa: SLF001  the handle would give the connection back as well
        assert isinstance(wire, UpstreamConnection), "the pool makes no others"
        return wire

    def give_back(self, key: ConnectionKey, wire: UpstreamConnection, *, close: bool = False) -> None:
        """The call on *wire* is over: keep it for the next one, or *close* it."""
        self._release(key, wire, should_close=close)

    def _term(self, req: aiohttp.ClientRequest, wire: UpstreamConnection) -> ConnectionTerm:
        host = (req.proxy.raw_host if req.proxy is not None else req.url.raw_host) or ""
        address = wire.transport.get_extra_info("peername") if wire.transport is not None else None
        return term(host, str(address[0]) if address else "", self._clock(), self._old, self._draw())

    def _unusable(self, wire: UpstreamConnection, since: float) -> Opened | None:
        """Why *wire*, unused *since* then, must not be used any more; None if it may."""
        if not wire.is_connected():
            return Opened.CLOSED
        if self._keepalive_timeout is not None and monotonic() - since > self._keepalive_timeout:
            return Opened.IDLE
        if wire.term is None:
            return None
        missing = self._names.missing(wire.term.host, wire.term.address)
        return outlived(wire.term, self._clock(), self._old, missing)


def _dial(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a vanished peer. aiohttp adds TCP_NODELAY."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBE.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock
