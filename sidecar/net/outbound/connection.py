"""
aiohttp's client connection, made strict.

The rule: only aiohttp's pool (happy eyeballs, TLS, proxies, keep-alive) and its parser of bodies are used, nothing of
its session. ``call`` writes what goes over a connection, and ``answer_head`` reads the answer's head.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import http_parser
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

from sidecar.core.region.connections import ConnectionTerm, Opened
from sidecar.core.rules import KIB
from sidecar.errors import ConfigError
from sidecar.net.outbound.answer_head import (
    END,
    HEAD_LIMIT,
    MOST_FIELDS,
    AnswerHead,
    Unreadable,
    check_begun,
    read_answer_head,
)

READ_BUFFER = 64 * KIB
"""If more than twice so many bytes of an answer are unread, the socket is no longer read."""

FLOOR = (3, 14, 3)

_PARSER: Any = sys.modules[http_parser.HttpResponseParser.__module__]
_LAST = len(b"0\r\n\r\n")
_ENDS_A_BODY = re.compile(rb"[^\r\n]\r\n\r\n").fullmatch
_NO_LOOP: Any = object()  # for a parser that has nobody to wake


class UpstreamConnection(ResponseHandler):
    """
    One connection to an AI service or a proxy.

    *answered*: a byte of the current call's answer has come. *served*: how many calls it has completed. *on_lost* is
    called once, and at once, with the reason why it cannot be used any more. *term* says how long it may be used.

    Until the first ``begin``, aiohttp itself may talk to a proxy over it. After that ``answer_head`` reads heads, and
    aiohttp's parser gets only what frames the body.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop=loop)
        self.answered = False
        self.served = 0
        self.on_lost: Callable[[Opened], None] | None = None
        self.term: ConnectionTerm | None = None
        self._ours = False
        self._resting = False
        self._begun = b""  # of a head
        self._interim = 0  # bytes of interim answers
        self._head: AnswerHead | None = None
        self._body: aiohttp.StreamReader | None = None
        self._left: int | None = None  # bytes of the body that are still to come, where its length was said
        self._last = b""  # the last bytes that have come of a body
        self._barren = 0  # bytes that have come since the body last grew

    def __repr__(self) -> str:
        state = "resting" if self._resting else "answered" if self.answered else "waiting"
        return f"<UpstreamConnection {state}, {self.served} calls served>"

    def begin(self, *, bodiless: bool) -> None:
        """Get ready for the answer to a call; *bodiless* when none has a body (HEAD)."""
        self._ours = True
        self._resting = self.answered = False
        self._begun = self._last = b""
        self._interim = self._barren = 0
        self._head = self._body = self._left = None
        # This switch is global in aiohttp, and others use its parser, too: it is on only while our parser is made.
        before, _PARSER.DEBUG = _PARSER.DEBUG, True
        try:
            self.set_response_params(
                skip_payload=bodiless,
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BUFFER,
                max_line_size=HEAD_LIMIT,
                max_field_size=HEAD_LIMIT,
                max_headers=MOST_FIELDS,
            )
        finally:
            _PARSER.DEBUG = before

    async def answer(self) -> tuple[AnswerHead, aiohttp.StreamReader]:
        """The answer's head, once it has come, and its body. Raises what ``set_exception`` was given."""
        _, body = await self.read()
        assert self._head is not None, "an answer has a head"
        return self._head, body

    def rest(self) -> None:
        """The call is over and its answer was whole: from now on the peer must send nothing."""
        self._resting = True
        self._head = self._body = None
        self.served += 1

    def lose(self, reason: Opened) -> None:
        """The connection cannot be used any more, for *reason*; the first reason counts."""
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost(reason)

    def close(self) -> None:
        """Close the connection. The pool itself closes those that were unused for long or may not be kept."""
        self.lose(Opened.IDLE if self._resting and not self.should_close else Opened.CLOSED)
        super().close()

    def expect_body(self, idle: float) -> None:
        """From now on the body may stand still for *idle* seconds, without the time for which its reader pauses us."""
        if self._body is not None and not self._body.is_eof():
            self.read_timeout = idle
            if not self._reading_paused:
                self.start_timeout()

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
        elif self._body is not None:
            self._take(self._body, data)
        elif data:
            self.answered = True
            try:
                rest = self._read_head(data)
            except Unreadable as fault:
                self._refuse(fault)
                return
            if rest and self._body is not None:
                self._take(self._body, rest)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  the signature is aiohttp's
        """Go on. aiohttp asks for it at each chunk of a body, also where nothing has been paused."""
        if self._reading_paused or self._buffer_paused or self._tail:
            super().resume_reading(resume_parser)

    def feed_data(self, data: tuple[Any, aiohttp.StreamReader], size: int = 0) -> None:
        """Take from the parser what it knows of an answer: how its body is framed."""
        if not self._ours:
            super().feed_data(data, size)
        elif self._body is None:
            self._body = data[1]
            super().feed_data(data, size)
        else:
            self.force_close()  # another answer behind this one

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """
        Fail the call, whether it waits for the head or for the body (aiohttp reports only the former). Errors after a
        whole answer do not harm it.
        """
        body = self._body
        if body is not None and body.is_eof():
            self.force_close()
            return
        super().set_exception(exc, *cause)
        if body is not None and body.exception() is None:
            body.set_exception(exc)

    def eof_received(self) -> None:
        """The peer sends no more: if nothing was asked of it, it has closed the connection."""
        if self._resting:
            self.lose(Opened.CLOSED)
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """A body that ends with its connection is whole only if the connection was closed, not reset."""
        self.lose(Opened.CLOSED if self._resting else Opened.DIED)
        if self._body is not None and self._body.is_eof():
            self._parser = None  # what it would say of bytes behind the answer is nothing to its reader
        elif exc is not None and self._body is not None:
            self._body.set_exception(aiohttp.ClientPayloadError(type(exc).__name__))
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
        self._head, self._left = head, head.length
        super().data_received(head.framing)
        return begun

    def _take(self, body: aiohttp.StreamReader, data: bytes) -> None:
        """Take bytes of *body*; none if the parser goes on with those that it has."""
        if body.is_eof():
            if data:
                self.force_close()
            return
        if self._left is not None:
            if len(data) > self._left:
                data = data[: self._left]
                self.force_close()
            self._left -= len(data)
        elif data:
            self._last = (self._last + data)[-_LAST:]
        size = body.total_bytes
        super().data_received(data)
        if body.is_eof():
            if self._head is not None and self._head.chunked and not _ENDS_A_BODY(self._last):
                self.force_close()  # the parser has read on in what follows
        elif body.total_bytes > size or self._reading_paused:
            self._barren = 0
        else:
            self._barren += len(data)
            if self._barren > HEAD_LIMIT:
                self._refuse(Unreadable("its chunks are nothing but extensions, or its trailers too large"))

    def _refuse(self, fault: Unreadable) -> None:
        self.set_exception(fault)
        self.abort()


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
    Refuse an aiohttp that is older than its known flaws, that runs without its C parser (its Python parser had most of
    the request smuggling flaws), or whose parser cannot be made strict. Raises ``ConfigError``.
    """
    problems = []
    if tuple(int(part) for part in re.findall(r"\d+", aiohttp.__version__)[:3]) < FLOOR:
        floor = ".".join(map(str, FLOOR))
        problems.append(f"aiohttp {aiohttp.__version__} has known security flaws; install {floor} or later")
    if http_parser.HttpResponseParser is http_parser.HttpResponseParserPy:
        problems.append("aiohttp runs without its C parser; install its wheel, and unset AIOHTTP_NO_EXTENSIONS")
    elif not _is_strict():
        problems.append(f"aiohttp {aiohttp.__version__} cannot be made strict; install the one of requirements.txt")
    if problems:
        raise ConfigError(tuple(problems))


def _is_strict() -> bool:
    """Whether aiohttp's parser obeys its switch."""
    wire = UpstreamConnection(_NO_LOOP)
    wire.begin(bodiless=False)
    parser: Any = wire._parser  # noqa: SLF001
    try:
        parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\n")
    except HttpProcessingError:
        return True
    return False
