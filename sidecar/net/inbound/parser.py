"""
Cuts the bytes of a connection into messages, with llhttp.

The rule: a head and a chunked body both end with an empty line, so the bytes are fed in pieces that end after each
empty line, and a message never ends inside a piece. llhttp cannot be paused; this way it never sees a second request
before the first one is done, and every limit is checked against counted bytes.
"""

from __future__ import annotations

from typing import Any

import httptools

from sidecar.core.model import Head
from sidecar.core.rules import Limits
from sidecar.net.inbound import http1
from sidecar.net.inbound.http1 import Framing

PIECE = 16 * 1024
"""The largest part of a head that is fed at once, so that its limits are checked in time."""

CHUNK_LINE = 24
"""The most framing bytes of a chunk; more of them count as an extension."""

_END = b"\r\n\r\n"
_HEAD, _SIZED, _CHUNKED = range(3)


class RequestParser:
    """
    Reads one message after another. Between two calls of ``feed``, *head* and *framing* are set once the head is
    complete, *chunks* holds what came of the body (the caller empties it), *done* tells that the message is complete,
    and *fed* how many bytes of its head were seen.
    """

    def __init__(self, limits: Limits, port: int) -> None:
        self._limits = limits
        self.port = port
        self._pairs: list[tuple[bytes, bytes]] = []
        self._method = b""
        self._target = b""
        self._version = ""
        self._keep = False
        self._headed = False
        self._mode = _HEAD
        self._left = 0
        self._tail = b""
        self._extra = 0
        self.fed = 0
        self.head: Head | None = None
        self.framing: Framing | None = None
        self.chunks: list[bytes] = []
        self.done = False
        self.on_body = self.chunks.append  # llhttp's callback, without a Python frame
        self._parser: Any = httptools.HttpRequestParser(self)

    def __repr__(self) -> str:
        where = "done" if self.done else "body" if self.head else "head" if self.fed else "between messages"
        return f"<RequestParser {where}>"

    def feed(self, data: bytes, at: int) -> int:
        """
        Read on in *data* from *at* until something happens; returns where it stopped. Not to be called when *done*.
        Raises ``Refused``; after that the connection cannot be read any more.
        """
        if self._mode == _SIZED:
            end = min(len(data), at + self._left)
            self._left -= end - at
            self._parse(memoryview(data)[at:end])
            return end
        end = self._boundary(data, at)
        if self._mode == _HEAD:
            self.fed += end - at
            self._parse(data[at:end])
            if self._headed:
                self._open()
            elif len(self._target) > self._limits.request_line:
                raise http1.too_large(414)
            elif self.fed > self._limits.request_line + self._limits.headers:
                raise http1.too_large(431)
        else:
            self._parse(memoryview(data)[at:end])
            self._extra = max(0, self._extra + end - at - sum(map(len, self.chunks)))
            if self._extra > self._limits.trailers:
                raise http1.too_large(431)
        return end

    def repeat(self, head: Head, size: int) -> None:
        """A whole message came whose head was read before; its body has *size* bytes."""
        self.head = head
        self.framing = Framing(size, keep=True, expects=False)
        self.done = True

    def next(self) -> None:
        """Make ready for the next message."""
        self._pairs.clear()
        self._target = b""
        self._headed = False
        self._mode = _HEAD
        self._tail = b""
        self._extra = 0
        self.fed = 0
        self.head = None
        self.framing = None
        self.chunks.clear()
        self.done = False

    def close(self) -> None:
        """Nothing more will be read."""
        self._parser = None
        self.chunks.clear()

    def on_url(self, url: bytes) -> None:
        """llhttp: a part of the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp: a field of the head, or a trailer, which is dropped."""
        self._pairs.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        """llhttp: the head is complete. Its properties are read now, because llhttp forgets them."""
        self._method = self._parser.get_method()
        self._version = self._parser.get_http_version()
        self._keep = self._parser.should_keep_alive()
        self._headed = True

    def on_chunk_header(self) -> None:
        """llhttp: a chunk begins."""
        self._extra -= CHUNK_LINE

    def on_message_complete(self) -> None:
        """llhttp: the message is complete."""
        self.done = True

    def _boundary(self, data: bytes, at: int) -> int:
        limit = PIECE if self._mode == _HEAD else len(data)
        if self._tail:
            seam = self._tail + data[at : at + 3]
            found = seam.find(_END)
            if found >= 0:
                end = at + found + len(_END) - len(self._tail)
                self._tail = b""
                return end
        found = data.find(_END, at, at + limit)
        if found >= 0:
            self._tail = b""
            return found + len(_END)
        end = min(len(data), at + limit)
        self._tail = (self._tail + data[max(at, end - 3) : end])[-3:]
        return end

    def _parse(self, piece: bytes | memoryview) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            pass  # the head is complete; reading it decides whether to refuse it
        except httptools.HttpParserError as error:
            if self._headed and self.head is None:
                self._open()
            method = isinstance(error, httptools.HttpParserInvalidMethodError)
            raise http1.unreadable(bytes(piece[:PIECE]), str(error), method=method) from error

    def _open(self) -> None:
        line = len(self._method) + len(self._target) + len("  HTTP/1.1\r\n")
        if line > self._limits.request_line:
            raise http1.too_large(414)
        if self.fed - line > self._limits.headers:
            raise http1.too_large(431)
        head, framing = http1.read_head(
            self._method, self._target, self._version, self._pairs, keep=self._keep, port=self.port
        )
        self.head = head
        self.framing = framing
        if b"upgrade" in head.fields and self._parser.should_upgrade():
            self._pass_over_upgrade(framing)
        if framing.length is None:
            self._mode = _CHUNKED
        elif framing.length:
            self._mode = _SIZED
            self._left = framing.length

    def _pass_over_upgrade(self, framing: Framing) -> None:
        # llhttp takes what follows such a head for another protocol. A new parser that is told only the framing does
        # not.
        self.done = False
        self._parser = httptools.HttpRequestParser(self)
        if framing.length is None:
            self._parser.feed_data(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        else:
            self._parser.feed_data(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % framing.length)
