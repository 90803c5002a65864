"""
The body of an upstream's answer, cut out of the bytes of its connection.

The rule: reject, never repair, as in ``answer_head`` (RFC 9112, 6.3 and 7.1). The end of a body is known to the byte,
so that nothing behind it becomes part of it, or of the next answer. Extensions and trailers are read and dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sidecar.core.rules import KIB
from sidecar.net.outbound.answer_head import HEAD_LIMIT, AnswerHead, Unreadable

LINE_LIMIT = 4 * KIB
"""The most bytes of a chunk's size and its extensions; services send none of the latter."""

_NO_BODY = frozenset({204, 304})
"""Statuses whose answers end with their head, whatever that says (RFC 9112, 6.3)."""

_TEXT = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SIZE = rb"([0-9A-Fa-f]{1,15})(?:;" + _TEXT + rb")?"
_FIRST = re.compile(_SIZE + rb"\r\n").match
_NEXT = re.compile(rb"\r\n" + _SIZE + rb"\r\n").match
_FIRST_BEGUN = re.compile(_SIZE + rb"\r?").fullmatch
_NEXT_BEGUN = re.compile(rb"\r(?:\n(?:" + _SIZE + rb"\r?)?)?").fullmatch
_TRAILER = re.compile(rb"(" + _TOKEN + rb"):" + _TEXT + rb"\r\n").match
_TRAILER_BEGUN = re.compile(rb"(?:\r|" + _TOKEN + rb"(?::" + _TEXT + rb"\r?)?)?").fullmatch
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class AnswerBody:
    """
    A body that ends where its connection is closed. *chunks*: the bytes that have come and that nobody has taken yet,
    *held* of them; *ended*: all of it has come.
    """

    __slots__ = ("chunks", "ended", "held")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.held = 0
        self.ended = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.held} bytes held{', ended' if self.ended else ''}>"

    def feed(self, data: bytes) -> bool:
        """The next bytes of the connection. Returns whether some are left behind the body; raises ``Unreadable``."""
        self.chunks.append(data)
        self.held += len(data)
        return False

    def close(self) -> None:
        """The connection was closed in the orderly way."""
        self.ended = True

    def take(self) -> bytes:
        """The bytes that have come since the last time."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.held = 0
        return data


class SizedBody(AnswerBody):
    """A body of *size* bytes."""

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self.chunks, self.held, self.ended = [], 0, not size
        self._left = size

    def feed(self, data: bytes) -> bool:
        """See ``AnswerBody``."""
        over = len(data) - self._left
        if over >= 0:
            self.ended = True
            data = data[: self._left]
        self._left -= len(data)
        self.chunks.append(data)
        self.held += len(data)
        return over > 0

    def close(self) -> None:
        """See ``AnswerBody``: the body is cut, if it has not ended."""


class ChunkedBody(AnswerBody):
    """A body in chunks."""

    __slots__ = ("_begins", "_begun", "_left", "_line", "_trailers")

    def __init__(self) -> None:
        self.chunks, self.held, self.ended = [], 0, False
        self._left = 0  # bytes of the present chunk that are still to come
        self._line = _FIRST  # reads the line in front of the next chunk
        self._begins: Callable[[bytes], object] = _FIRST_BEGUN
        self._begun = b""  # of a line
        self._trailers: int | None = None  # bytes of trailers that have come, once the last chunk has

    def feed(self, data: bytes) -> bool:
        """See ``AnswerBody``."""
        if self._begun:
            data, self._begun = self._begun + data, b""
        if self._trailers is not None:
            return self._pass_over_trailers(data, 0)
        at, end = 0, len(data)
        while at < end:
            if self._left:
                chunk = data[at : at + self._left]
                at += len(chunk)
                self._left -= len(chunk)
                self.chunks.append(chunk)
                self.held += len(chunk)
                continue
            line = self._line(data, at)
            if line is None:
                self._keep(data[at:], LINE_LIMIT)
                return False
            at = line.end()
            self._left = int(line[1], 16)
            if not self._left:
                self._trailers = 0
                self._begins = _TRAILER_BEGUN
                return self._pass_over_trailers(data, at)
            self._line, self._begins = _NEXT, _NEXT_BEGUN
        return False

    def close(self) -> None:
        """See ``AnswerBody``: the body is cut, if it has not ended."""

    def _pass_over_trailers(self, data: bytes, at: int) -> bool:
        start = at
        while not data.startswith(b"\r\n", at):
            trailer = _TRAILER(data, at)
            if trailer is None:
                assert self._trailers is not None
                self._trailers += at - start
                self._keep(data[at:], HEAD_LIMIT - self._trailers)
                return False
            if trailer[1].lower() in _FRAMING:
                raise Unreadable("a trailer that frames")
            at = trailer.end()
        self.ended = True
        return len(data) > at + 2

    def _keep(self, begun: bytes, limit: int) -> None:
        """Keep the beginning of a line. Raises ``Unreadable`` if no further bytes make a line of it."""
        if len(begun) > limit:
            raise Unreadable("its chunks are nothing but extensions, or its trailers too large")
        if begun and self._begins(begun) is None:
            raise Unreadable("its chunks are not well-formed")
        self._begun = begun


def body_of(head: AnswerHead, *, bodiless: bool) -> AnswerBody:
    """The body behind *head*. *bodiless*: no answer to the request's method has one."""
    if bodiless or head.status in _NO_BODY:
        return SizedBody(0)
    if head.chunked:
        return ChunkedBody()
    return AnswerBody() if head.length is None else SizedBody(head.length)
