"""
aiohttp's client connection, made strict.

The rule: only aiohttp's pool (happy eyeballs, TLS, proxies, keep-alive) is used, nothing of its session or its parser.
``call`` writes what goes over a connection; ``answer_head`` and ``answer_body`` read the answer.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import http_parser
from aiohttp.client_proto import ResponseHandler

from sidecar.core.region.connections import ConnectionTerm, Opened
from sidecar.core.rules import KIB
from sidecar.errors import ConfigError
from sidecar.net.outbound.answer_body import AnswerBody, body_of
from sidecar.net.outbound.answer_head import END, HEAD_LIMIT, AnswerHead, Unreadable, check_begun, read_answer_head

HIGH_WATER = 128 * KIB
"""If more bytes of an answer are unread, the socket is no longer read."""

FLOOR = (3, 14, 3)


class UpstreamConnection(ResponseHandler):
    """
    One connection to an AI service or a proxy.

    *answered*: a byte of the current call's answer has come; *head* and *body*: what has come of it. *served*: how many
    calls it has completed. *on_lost* is called once, and at once, with the reason why it cannot be used any more.
    *term* says how long it may be used.

    Until the first ``begin``, aiohttp itself may talk to a proxy over it; after that its parser gets nothing.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop=loop)
        self.answered = False
        self.served = 0
        self.on_lost: Callable[[Opened], None] | None = None
        self.term: ConnectionTerm | None = None
        self.head: AnswerHead | None = None
        self.body: AnswerBody | None = None
        self._ours = False
        self._resting = False
        self._bodiless = False
        self._begun = b""  # of a head
        self._interim = 0  # bytes of interim answers
        self._fault: BaseException | None = None
        self._change: asyncio.Future[None] | None = None  # what the call waits for
        self._idle: float | None = None  # seconds for which the body may stand still
        self._heard = 0.0  # when bytes of the body came last

    def __repr__(self) -> str:
        state = "resting" if self._resting else "answered" if self.answered else "waiting"
        return f"<UpstreamConnection {state}, {self.served} calls served>"

    # What a call does.

    def begin(self, *, bodiless: bool) -> None:
        """Get ready for the answer to a call; *bodiless* when none has a body (HEAD)."""
        self._ours = True
        self._resting = self.answered = False
        self._bodiless = bodiless
        self._begun = b""
        self._interim = 0
        self.head = self.body = self._idle = None

    def change(self) -> asyncio.Future[None]:
        """Done when more of the answer has come. Raises what ``set_exception`` was given."""
        if self._fault is not None:
            raise self._fault
        self._change = self._loop.create_future()
        return self._change

    def take(self, body: AnswerBody) -> bytes:
        """The bytes of *body* that have come; the peer may send on."""
        data = body.take()
        if self._reading_paused:
            self._reading_paused = False
            self._resume_transport_reading()
            self._watch(body)
        return data

    def expect_body(self, idle: float) -> None:
        """From now on the body may stand still for *idle* seconds, without the time for which its reader pauses us."""
        if self.body is not None and not self.body.ended:
            self._idle = idle
            self._watch(self.body)

    def rest(self) -> None:
        """The call is over and its answer was whole: from now on the peer must send nothing."""
        self._resting = True
        self.head = self.body = None
        self.served += 1

    def forgotten(self, give_back: Callable[..., None]) -> None:
        """The call was never ended: close the connection, and report the bug."""
        if not self._loop.is_closed():
            give_back(close=True)
            self._loop.call_exception_handler({"message": f"Unclosed connection {self!r}"})

    def lose(self, reason: Opened) -> None:
        """The connection cannot be used any more, for *reason*; the first reason counts."""
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(reason)

    def close(self) -> None:
        """Close the connection. The pool itself closes those that were unused for long or may not be kept."""
        self.lose(Opened.IDLE if self._resting and not self.should_close else Opened.CLOSED)
        super().close()

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Fail the call, whether it waits for the head or for the body. Errors after a whole answer do not harm it."""
        if self.body is not None and self.body.ended:
            self.force_close()
            return
        super().set_exception(exc, *cause)
        if self._fault is None:
            self._fault = exc
            self._tell()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """
        Take the next bytes.

        Bytes that nobody asked for would be read as the next call's answer. So a resting connection that sends
        something is dropped, and one that sends more than its answer serves no other call.
        """
        if self._resting and data:
            self.lose(Opened.CLOSED)
            self.abort()
        elif not self._ours:
            super().data_received(data)
        elif self._fault is None:
            try:
                if self.body is None:
                    self.answered = True
                    data = self._read_head(data)
                if self.body is not None:
                    self._read_body(self.body, data)
                    self._tell()
            except Unreadable as fault:
                self.set_exception(fault)
                self.abort()

    def eof_received(self) -> None:
        """The peer sends no more: if nothing was asked of it, it has closed the connection."""
        if self._resting:
            self.lose(Opened.CLOSED)
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body that ends with its connection is whole only if the connection was closed, not reset."""
        self.lose(Opened.CLOSED if self._resting else Opened.DIED)
        body = self.body
        if body is not None and not body.ended:
            if exc is None:
                body.close()
            if body.ended:
                self._tell()
            else:
                self.set_exception(aiohttp.ClientPayloadError("the connection was closed within the answer"))
        super().connection_lost(exc)

    def _read_head(self, data: bytes) -> bytes:
        """
        Read on in a head; returns what follows it. Interim answers (1xx) are dropped. A switch of protocol is refused,
        because nobody asked for one. Raises ``Unreadable``.
        """
        begun = self._begun + data
        while True:
            end = begun.find(END)
            if end < 0:
                check_begun(begun)
                if self._interim + len(begun) > HEAD_LIMIT:
                    raise Unreadable("its head is too large")
                self._begun = begun
                return b""
            end += len(END)
            head, begun = read_answer_head(begun[:end]), begun[end:]
            self._interim += end
            if head.status == 101 or self._interim > HEAD_LIMIT:
                raise Unreadable("status 101" if head.status == 101 else "its head is too large")
            if head.status >= 200:
                break
        self._begun = b""
        self.head, self.body = head, body_of(head, bodiless=self._bodiless)
        if not head.keep:
            self.force_close()
        return begun

    def _read_body(self, body: AnswerBody, data: bytes) -> None:
        """Take bytes of *body*. If more stand behind it, no other call is served. Raises ``Unreadable``."""
        self._heard = self._loop.time()
        if data and (body.ended or body.feed(data)):
            self.force_close()
        if body.ended:
            if self._read_timeout_handle is not None:
                self._drop_timeout()
        elif body.held > HIGH_WATER and not self._reading_paused:
            self._reading_paused = True
            self._pause_transport_reading()
            self._drop_timeout()

    def _tell(self) -> None:
        """Wake the call, if it waits."""
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    def _watch(self, body: AnswerBody) -> None:
        """Fail the call if *body* stands still. One timer watches all of it: it looks when bytes have come last."""
        if self._idle is not None and self._fault is None and not body.ended:
            self._heard = self._loop.time()
            self._drop_timeout()
            self._read_timeout_handle = self._loop.call_later(self._idle, self._look, self._idle)

    def _look(self, idle: float) -> None:
        left = self._heard + idle - self._loop.time()
        if left > 0.0:
            self._read_timeout_handle = self._loop.call_later(left, self._look, idle)
        else:
            self.set_exception(aiohttp.SocketTimeoutError())


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
    Refuse an aiohttp that is older than its known flaws, or that runs without its C parser (its Python parser had most
    of the request smuggling flaws, and reads what proxies and identity providers answer). Raises ``ConfigError``.
    """
    problems = []
    if tuple(int(part) for part in re.findall(r"\d+", aiohttp.__version__)[:3]) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        problems.append(f"aiohttp {aiohttp.__version__} has known security flaws; install {floor} or later")
    if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy:
        problems.append("aiohttp runs without its C parser; install its wheel, and unset AIOHTTP_NO_EXTENSIONS")
    if problems:
        raise ConfigError(tuple(problems))
