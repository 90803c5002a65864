"""
aiohttp's client connection, with what it leaves open closed.

The rule: of aiohttp only the pool (happy eyeballs, TLS, proxies, keep-alive) and the response parser are used;
what goes over a connection is written by ``net/call``. Nothing of its session is: no cookies, redirects, hidden
retries or headers of its own.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp import http_parser
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from sidecar.core.connections import Census, Opened, Term, outlived, term
from sidecar.core.model import Pairs
from sidecar.core.rules import KIB
from sidecar.errors import Cause, ConfigError, UpstreamFailed
from sidecar.net.resolve import Resolver

HEAD_LIMIT = 64 * KIB
"""Bytes of an answer's head, interim answers before it included."""

READ_BUFFER = 64 * KIB
"""Unread bytes of an answer past whose double the socket is no longer read."""

KEEP_IDLE = 50.0
"""Seconds an unused connection is kept: below the 60 s after which common load balancers drop theirs."""

PROBE = {"TCP_KEEPIDLE": 45, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 90_000}
"""A peer that vanished is noticed after 90 s, also by a call that waits ten minutes for its first byte; and the
first probe comes before NAT gateways forget a silent connection (from 240 s)."""

FLOOR = (3, 14, 3)
_SPLITTING = re.compile(rb"[\x00\r\n]")
_FRAMING = frozenset({len(b"content-length"), len(b"transfer-encoding")})


class Wire(ResponseHandler):
    """
    One connection to an AI service or a proxy.

    *answered*: a byte of the current call's answer has come. *served*: how many calls it has carried to their end.
    *on_lost* hears once, and at once, why it cannot be used any more. *term* says how long it may be used.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop=loop)
        self.answered = False
        self.served = 0
        self.on_lost: Callable[[Opened], None] | None = None
        self.term: Term | None = None
        self._resting = False
        self._heading = True
        self._head_bytes = 0
        self._body: aiohttp.StreamReader | None = None

    def __repr__(self) -> str:
        state = "resting" if self._resting else "answered" if self.answered else "waiting"
        return f"<Wire {state}, {self.served} calls served>"

    def begin(self, *, bodiless: bool) -> None:
        """Get ready for the answer to a call; *bodiless* when none has a body (HEAD)."""
        self._resting = self.answered = False
        self._heading = True
        self._head_bytes = 0
        self._body = None
        self.set_response_params(
            skip_payload=bodiless,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            max_headers=1024,
        )

    def rest(self) -> None:
        """The call is over and its answer was whole: from now on the peer has nothing to say."""
        self._resting = True
        self._body = None
        self.served += 1

    def lose(self, reason: Opened) -> None:
        """It cannot be used any more, for *reason*; the first one counts."""
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(reason)

    def close(self) -> None:
        """Close it. By itself the pool closes what has been unused for long, or may not be kept."""
        self.lose(Opened.IDLE if self._resting and not self.should_close else Opened.CLOSED)
        super().close()

    def expect_body(self, idle: float) -> None:
        """From now on the body may stand still for *idle* seconds; not counted while its reader pauses us."""
        if self._body is not None and not self._body.is_eof():
            self.read_timeout = idle
            if not self._reading_paused:
                self.start_timeout()

    def data_received(self, data: bytes) -> None:
        """
        Parse the next bytes.

        An answer nobody asked for would be taken for the next call's: a resting connection that speaks is dropped.
        """
        if not data:  # aiohttp resumes its parser this way
            super().data_received(data)
            return
        if self._resting:
            self.lose(Opened.CLOSED)
            self.abort()
            return
        self.answered = True
        super().data_received(data)
        if self._heading:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT:
                self.set_exception(UpstreamFailed(Cause.MALFORMED, "the answer's head is too large", answered=True))
                self.abort()

    def feed_data(self, data: tuple[Any, aiohttp.StreamReader], size: int = 0) -> None:
        """Take an answer's head from the parser. Interim answers (1xx) are dropped, but for a switch of protocol."""
        code = data[0].code
        if 100 <= code < 200 and code != 101:
            return
        self._heading = False
        self._body = data[1]
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the call, whether it waits for the head or for the body: aiohttp tells only the former."""
        super().set_exception(exc, *cause)
        if self._body is not None and not self._body.is_eof() and self._body.exception() is None:
            self._body.set_exception(exc)

    def eof_received(self) -> None:
        """The peer says no more: with nothing asked of it, it has closed the connection."""
        if self._resting:
            self.lose(Opened.CLOSED)
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body that ends with its connection is whole only if that was closed, not reset."""
        self.lose(Opened.CLOSED if self._resting else Opened.DIED)
        if exc is not None and self._body is not None and not self._body.is_eof():
            self._body.set_exception(aiohttp.ClientPayloadError(type(exc).__name__))
        super().connection_lost(exc)


class Pool(aiohttp.TCPConnector):
    """
    Connections by destination, without a limit: how many calls there are at once is decided elsewhere. *census* counts
    those that are opened. Names are looked up by *resolver*; connections last for *old* seconds, *clock* is monotonic,
    and *draw* uniform in [0, 1).
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
        protocol: type[ResponseHandler] = Wire
        self._factory = partial(protocol, loop=self._loop)  # aiohttp has no public way to say it

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close every connection at once, also one whose peer takes nothing any more."""
        for wire in tuple(self._acquired):
            wire.abort()
        await super().close(abort_ssl=abort_ssl)

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  the signature is aiohttp's
    ) -> ResponseHandler:
        """Open a connection; aiohttp has no public way to hear of it."""
        key, census = req.connection_key, self._census
        reason = census.opening(key)
        try:
            wire = await super()._create_connection(req, traces, timeout)
        except BaseException:
            census.failed(key, reason)
            raise
        census.succeeded(reason)
        if isinstance(wire, Wire):
            wire.on_lost = partial(census.lost, key)
            wire.term = self._term(req, wire)
            if wire.transport is None:
                wire.lose(Opened.DIED)
        return wire

    async def _get(self, key: Any, traces: list[Any]) -> Connection | None:
        """A kept connection, less those that have served for long enough; aiohttp has no public way to say so."""
        kept = self._conns.get(key)
        while kept:
            wire = kept[0][0]
            reason = self._outlived(wire) if wire.is_connected() else Opened.CLOSED
            if reason is None:
                break
            kept.popleft()
            if isinstance(wire, Wire):
                wire.lose(reason)
            wire.close()
        return await super()._get(key, traces)

    def _term(self, req: aiohttp.ClientRequest, wire: Wire) -> Term:
        host = (req.proxy.raw_host if req.proxy is not None else req.url.raw_host) or ""
        address = wire.transport.get_extra_info("peername") if wire.transport is not None else None
        return term(host, str(address[0]) if address else "", self._clock(), self._old, self._draw())

    def _outlived(self, wire: ResponseHandler) -> Opened | None:
        if not isinstance(wire, Wire) or wire.term is None:
            return None
        missing = self._names.missing(wire.term.host, wire.term.address)
        return outlived(wire.term, self._clock(), self._old, missing)


def trust(ca_file: str) -> ssl.SSLContext:
    """The system's trust anchors, and those of *ca_file* where named. Raises ``ConfigError``."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            reason = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            remedy = "put certificates there, in PEM"
            raise ConfigError((f"upstream.ca_file: {ca_file} cannot be used: {reason}; {remedy}",)) from error
    return context


def check_parser() -> None:
    """
    Refuse an aiohttp that is older than its known flaws, or runs without its parser in C, where most of the request
    smuggling flaws were. Raises ``ConfigError``.
    """
    problems = []
    if tuple(int(part) for part in re.findall(r"\d+", aiohttp.__version__)[:3]) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        problems.append(f"aiohttp {aiohttp.__version__} has known security flaws; install {floor} or later")
    if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy:
        problems.append("aiohttp runs without its C parser; install its wheel, and unset AIOHTTP_NO_EXTENSIONS")
    if problems:
        raise ConfigError(tuple(problems))


def framing(minor: int, pairs: Pairs) -> tuple[int | None, str]:
    """
    The Content-Length of an answer's head (None for none), and what is wrong with the head, ``""`` for nothing.

    The parser is lenient towards old servers. A head goes on to the caller byte for byte, so whatever two readers
    could understand differently is refused (RFC 9112, 6.3 and 11.1).
    """
    if _SPLITTING.search(b"".join([value for _, value in pairs])):
        return None, "a control character in a header field"
    if b" " in b"".join([name for name, _ in pairs]):
        return None, "a blank in a header field's name"
    length: int | None = None
    coded = False
    for name, value in pairs:
        if len(name) not in _FRAMING:
            continue
        lower = name.lower()
        if lower == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                return None, "Content-Length is not one number"
            length = int(value)
        elif lower == b"transfer-encoding":
            if coded or value.lower() != b"chunked" or minor == 0:
                return None, "a Transfer-Encoding that is not chunked"
            coded = True
    if coded and length is not None:
        return None, "both Content-Length and Transfer-Encoding"
    return length, ""


def _dial(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a vanished peer. aiohttp adds TCP_NODELAY."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBE.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    return sock
