"""
The client that calls AI services.

The rule: it sends exactly what the caller passes, byte for byte, once. Every failure is an ``UpstreamFailed``. Retries,
deadlines over several attempts and the choice of a region belong to ``upstream``.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from sidecar.core.model import Pairs
from sidecar.core.region.connections import OLD, Census
from sidecar.core.rules import Timeouts, UpstreamRule
from sidecar.errors import Cause, UpstreamFailed
from sidecar.net.outbound.call import Body, OutboundCall, UpstreamAnswer
from sidecar.net.outbound.connection import UpstreamConnection, check_parser, trust
from sidecar.net.outbound.egress import PORTS, choose
from sidecar.net.outbound.pool import UpstreamPool
from sidecar.net.outbound.resolve import Resolver
from sidecar.tasks import Spawn

ORIGINS = 256
"""The most base URLs that are remembered; a service with a resource in its path can have any number."""

_DRAINED_SECONDS = 1.0
"""How often a pool that is no longer used is looked at, to close it after its last call."""

WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods whose empty body is sent with its length (RFC 9110, 8.6)."""

OURS = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"proxy-authorization"})
"""Fields that belong to the connection: only this module writes them."""


class UpstreamOrigin(Struct, frozen=True):
    """
    Where a base URL leads, worked out once.

    *request* is what the pool connects by, *key* what it keeps connections by. *prefix* stands before the target in the
    request line (the base path, or the whole base URL for a plain proxy); *fields* are the header lines for this hop;
    *via* is the proxy as ``host:port``.
    """

    request: aiohttp.ClientRequest
    key: ConnectionKey
    prefix: bytes
    fields: bytes
    peer: str
    via: str


class Upstream:
    """
    Calls AI services over pooled connections.

    *environ* holds the proxy variables. *own* says whether a host and port is one of our listeners: the sidecar never
    calls itself, neither directly nor through a proxy. *spawn* starts the task that sends a large body. *resolver*
    looks up names. Connections are used for about *old* seconds; *clock* is monotonic, *draw* uniform in [0, 1).
    """

    def __init__(
        self,
        rule: UpstreamRule,
        *,
        environ: Mapping[str, str],
        own: Callable[[str, int], bool],
        spawn: Spawn,
        resolver: Resolver,
        clock: Callable[[], float],
        draw: Callable[[], float],
        old: float = OLD,
    ) -> None:
        self._rule = rule
        self._resolver = resolver
        self._clock = clock
        self._draw = draw
        self._old = old
        self._environ = environ
        self._own = own
        self._spawn = spawn
        self._origins: dict[str, UpstreamOrigin] = {}
        self._pool: UpstreamPool | None = None
        self._retired: set[UpstreamPool] = set()
        self.census = Census()

    def __repr__(self) -> str:
        state = "closed" if self._pool is None else "open"
        return f"<Upstream {state}, {len(self._origins)} origins>"

    async def start(self) -> None:
        """Get ready. Raises ``ConfigError`` if ``ca_file`` or the installed aiohttp cannot be used."""
        check_parser()
        self._pool = self._make_pool(trust(self._rule.ca_file))

    def adopt(self, rule: UpstreamRule, anchors: ssl.SSLContext | None) -> None:
        """
        Call by *rule* from now on. Another rule, or other trust *anchors* (None: the same), begin with new connections;
        calls under way finish on theirs.
        """
        before, self._rule = self._rule, rule
        if self._pool is None or (anchors is None and rule == before):
            return
        pool, self._pool = self._pool, self._make_pool(anchors or self._pool.trust)
        self._origins.clear()
        self._retired.add(pool)
        _ = self._spawn(self._drain(pool), name="retired-connections")

    def _make_pool(self, anchors: ssl.SSLContext) -> UpstreamPool:
        return UpstreamPool(anchors, self.census, self._resolver, old=self._old, clock=self._clock, draw=self._draw)

    async def _drain(self, pool: UpstreamPool) -> None:
        """Close *pool* once its last call is over."""
        pool.retire()
        while pool.busy:  # noqa: ASYNC110  aiohttp tells nobody that a call is over
            await asyncio.sleep(_DRAINED_SECONDS)
        self._retired.discard(pool)
        await pool.close()

    async def close(self) -> None:
        """Close every connection, also those of running calls."""
        pools = [*self._retired] if self._pool is None else [self._pool, *self._retired]
        self._pool = None
        self._retired.clear()
        self._origins.clear()
        for pool in pools:
            await pool.close()

    async def send(
        self,
        *,
        method: bytes,
        base: str,
        target: bytes,
        pairs: Pairs,
        body: bytes | Body,
        timeouts: Timeouts,
        streaming: bool,
        on_sent: Callable[[], None] = lambda: None,
    ) -> UpstreamAnswer:
        """
        Send one request, and return its answer as soon as the head is there.

        *base* is the region's URL, *target* an origin-form target that follows it on the wire byte for byte. *pairs*
        are the request's fields, in this order and spelling; those of the connection (``OURS``) are left out and
        written anew: Host, and for a body its Content-Length, or chunked if its size is not known. An empty body has a
        Content-Length for the methods that expect one, and if *pairs* had one. *streaming* chooses the time for the
        first byte; *on_sent* is called when the whole request has been sent. Nothing is sent twice.
        """
        pool = self._pool
        if pool is None:
            raise UpstreamFailed(Cause.DRAINING, "the client is closed", sent=False)
        origin = self._origins.get(base) or self._learn(base)
        head = _head(origin, method, target, pairs, body)
        wire = pool.take(origin.key)
        if wire is None:
            wire = await self._open(pool, origin, timeouts.connect)
        first_byte = timeouts.stream_first_byte if streaming else timeouts.first_byte
        give_back = partial(pool.give_back, origin.key, wire)
        call = OutboundCall(wire, give_back, origin.peer, first_byte=first_byte, idle=timeouts.idle, on_sent=on_sent)
        return await call.exchange(head, body, bodiless=method == b"HEAD", spawn=self._spawn)

    def _learn(self, base: str) -> UpstreamOrigin:
        """The origin of *base*, remembered for later calls."""
        try:
            parts = urlsplit(base)
            url = URL(f"{parts.scheme}://{parts.netloc}")
            egress = choose(base, proxy=self._rule.proxy, environ=self._environ, own=self._own)
            prefix = parts.path.encode("ascii")
            authority = (url.host_port_subcomponent or "").encode("ascii")
        except ValueError:
            raise _unusable() from None
        if url.scheme not in PORTS or not url.raw_host or not url.port:
            raise _unusable()
        peer = f"{url.raw_host}:{url.port}"
        if self._own(url.raw_host, url.port):
            raise _ourselves(peer)
        fields = b"Host: %b\r\n" % authority
        proxy, tunnel = None, None
        if egress.proxy:
            proxy = URL(egress.proxy)
            tunnel = CIMultiDict({"Host": authority.decode("ascii")})
            if url.scheme == "http":
                prefix = b"http://%b%b" % (authority, prefix)
                if egress.authorization:
                    fields += b"Proxy-Authorization: %b\r\n" % egress.authorization.encode("ascii")
            elif egress.authorization:
                tunnel["Proxy-Authorization"] = egress.authorization
        request = aiohttp.ClientRequest("GET", url, loop=asyncio.get_running_loop(), proxy=proxy, proxy_headers=tunnel)
        via = f"{proxy.host}:{proxy.port}" if proxy else ""
        if len(self._origins) >= ORIGINS:
            del self._origins[next(iter(self._origins))]
        origin = self._origins[base] = UpstreamOrigin(request, request.connection_key, prefix, fields, peer, via)
        return origin

    async def _open(self, pool: UpstreamPool, origin: UpstreamOrigin, seconds: float) -> UpstreamConnection:
        """A new connection: name, TCP, proxy and TLS together within *seconds*."""
        try:
            wire = await pool.open(origin.request, seconds)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unconnected(error, origin, seconds) from None  # a proxy's answer may quote credentials
        if wire.transport is not None:
            address = wire.transport.get_extra_info("peername")
            if isinstance(address, tuple) and self._own(address[0], address[1]):
                pool.give_back(origin.key, wire, close=True)
                raise _ourselves(origin.peer)
        return wire


def _head(origin: UpstreamOrigin, method: bytes, target: bytes, pairs: Pairs, body: bytes | Body) -> bytes:
    """The request's head. Raises ``UpstreamFailed`` for one that could be read in two ways."""
    measured = method in WITH_CONTENT or any(name.lower() == b"content-length" for name, _ in pairs)
    lines = [b"%b %b%b HTTP/1.1\r\n" % (method, origin.prefix, target), origin.fields]
    lines += [b"%b: %b\r\n" % pair for pair in pairs if pair[0].lower() not in OURS]
    count = len(lines)
    size = len(body) if isinstance(body, bytes) else body.size
    if size is None:
        lines.append(b"Transfer-Encoding: chunked\r\n\r\n")
    elif size or measured:
        lines.append(b"Content-Length: %d\r\n\r\n" % size)
    else:
        lines.append(b"\r\n")
    head = b"".join(lines)
    breaks = count + origin.fields.count(b"\n") - 1 + lines[-1].count(b"\n")
    whole = head.count(b"\n") == breaks == head.count(b"\r") and head.find(b"\0") < 0
    if not whole or target.find(b" ") >= 0 or not (target.startswith(b"/") or target == b"*"):
        raise UpstreamFailed(Cause.INTERNAL, "the request cannot be written as HTTP", sent=False)
    return head


def _unconnected(error: Exception, origin: UpstreamOrigin, seconds: float) -> UpstreamFailed:
    """What *error*, raised while connecting, means."""
    where = f"{origin.peer} through the proxy {origin.via}" if origin.via else origin.peer
    cause, detail = Cause.CONNECT, getattr(error, "strerror", None) or type(error).__name__
    match error:
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            cause = Cause.DNS
        case aiohttp.ClientConnectorCertificateError():
            cause = Cause.TLS
            detail = getattr(error.certificate_error, "verify_message", "") or "the certificate is refused"
        case aiohttp.ClientSSLError():
            cause = Cause.TLS
        case aiohttp.ClientHttpProxyError():
            detail = f"the proxy answered {error.status}"
        case aiohttp.ClientOSError() if error.errno == errno.ETIMEDOUT:
            cause = Cause.CONNECT_TIMEOUT
        case TimeoutError():
            cause, detail = Cause.CONNECT_TIMEOUT, f"no connection within {seconds:g} s"
        case _:
            pass
    return UpstreamFailed(cause, f"{where}: {detail}", sent=False)


def _ourselves(peer: str) -> UpstreamFailed:
    return UpstreamFailed(Cause.CONNECT, f"{peer} is this sidecar itself: the call would go in a loop", sent=False)


def _unusable() -> UpstreamFailed:
    return UpstreamFailed(Cause.CONNECT, "the region's url cannot be used", sent=False)
