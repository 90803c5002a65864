"""
Answers on their way out: the writing side of a connection, and the exchange that a task of the proxy uses.

The rule: an answer that was not written whole is broken off so that it cannot look whole, and a slow caller never makes
this process hold more than one buffer for it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import cache

from sidecar.core.model import Head, Pairs
from sidecar.errors import ClientGone, SlowReader
from sidecar.net.base import Response
from sidecar.net.inbound import http1
from sidecar.net.inbound.shared import ListenerState

WRITE_BUFFER = 64 * 1024
"""How many bytes may wait for a slow caller before its answer is paused."""

JOIN = 64 * 1024
"""Bodies up to this size are copied into one write with their head; for larger ones a second write is cheaper."""


class AnswerWriter:
    """
    The writing side of a transport: whether it takes more, and whether the caller still reads.

    *paused*: more than ``WRITE_BUFFER`` bytes are waiting. *lost*: the connection is gone. *slow*: the caller reads too
    slowly, and was given up.
    """

    __slots__ = ("_patience", "_since", "_size", "_waiters", "lost", "paused", "slow", "transport")

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self.transport = transport
        self.paused = False
        self.lost = False
        self.slow = False
        self._patience = patience
        self._size = 0
        self._since = 0.0
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        states = ("paused", "slow", "lost")
        return f"<{' '.join(['AnswerWriter', *(state for state in states if getattr(self, state))])}>"

    async def room(self) -> None:
        """Wait until there is room to write. Raises ``SlowReader`` and ``ClientGone``."""
        while self.paused and not self.lost and not self.slow:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self.lost:
            raise ClientGone("the caller closed the connection")
        if self.slow:
            raise SlowReader("the caller does not read its answer")

    def pause(self, now: float) -> None:
        """The transport's buffer is full."""
        self.paused = True
        self._size = self.transport.get_write_buffer_size()
        self._since = now

    def resume(self) -> None:
        """The transport's buffer has room again."""
        self.paused = False
        self._wake()

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        self._wake()

    def give_up(self) -> None:
        """The caller reads too slowly to be waited for."""
        self.slow = True
        self._wake()

    def reset_on_close(self, *, on: bool) -> None:
        """Make the connection end in a reset in every case, not in what looks like a clean end."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", on, 0))

    def stalled(self, now: float) -> bool:
        """Whether bytes wait, and none has left for *patience* seconds. Must be called regularly."""
        size = self.transport.get_write_buffer_size()
        if size == 0 or size != self._size:
            self._size = size
            self._since = now
            return False
        return now - self._since >= self._patience

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Reply:
    """
    One answer that takes its time; the ``Exchange`` of ``net/base``.

    *keep*: the connection may serve another request afterwards. *ended*: the answer is whole. *severed*: this side
    broke it off. *whole* says whether the request has been read to its end.
    """

    __slots__ = (
        "_empty",
        "_length",
        "_minor",
        "_shared",
        "_whole",
        "_wire",
        "_written",
        "ended",
        "keep",
        "severed",
        "started",
    )

    def __init__(
        self, wire: AnswerWriter, shared: ListenerState, head: Head, *, keep: bool, whole: Callable[[], bool]
    ) -> None:
        self._wire = wire
        self._shared = shared
        self._whole = whole
        self._empty = head.method == b"HEAD"
        self._minor = head.minor
        self._length: int | None = None
        self._written = 0
        self.keep = keep
        self.started = False
        self.ended = False
        self.severed = False

    def __repr__(self) -> str:
        state = "ended" if self.ended else "severed" if self.severed else "begun" if self.started else "waiting"
        return f"<Reply {state}, {self._written} of {self._length} bytes>"

    def begin(self, status: int, pairs: Pairs, length: int | None) -> None:
        """Send the head. Raises ``ValueError`` for fields that would break out of their lines."""
        lines = http1.field_lines(pairs)
        self._start()
        self._length = length
        self.keep = self.keep and self._whole()
        if status in {204, 304}:
            framing = b""
            self._empty = True
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self._minor:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b""
            self.keep = self.keep and self._empty
            if not self._empty:  # this answer ends with its connection, so only a reset shows a break
                self._wire.reset_on_close(on=True)
        self._wire.transport.write(
            b"".join(
                (
                    http1.status_line(status),
                    self._shared.date,
                    lines,
                    framing,
                    connection_line(self._minor, keep=self.keep),
                    b"\r\n",
                )
            )
        )

    async def write(self, chunk: bytes) -> None:
        """Send body bytes. Raises ``SlowReader``, ``ClientGone``, and ``ValueError`` past the announced length."""
        if self._wire.paused or self._wire.lost:
            await self._wire.room()
        if not self.started or self.ended or self.severed:
            raise RuntimeError("the answer has not begun or is over")
        self._written += len(chunk)
        if self._length is not None and self._written > self._length:
            self.abort()
            raise ValueError(f"the answer is longer than the {self._length} bytes announced")
        if self._empty or not chunk:
            return
        if self._length is not None or not self._minor:
            self._wire.transport.write(chunk)
        elif len(chunk) <= JOIN:
            self._wire.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            self._wire.transport.writelines((b"%x\r\n" % len(chunk), chunk, http1.CRLF))

    def end(self) -> None:
        """End the answer; break the connection where bytes of the announced length are missing."""
        if self._wire.lost or self.severed or self.ended:
            return
        if not self.started:
            raise RuntimeError("the answer has not begun")
        if self._length is not None and self._written != self._length and not self._empty:
            self.abort()
            return
        self.ended = True
        if self._length is not None or self._empty:
            return
        if self._minor:
            self._wire.transport.write(http1.LAST_CHUNK)
        else:
            self._wire.reset_on_close(on=False)

    def respond(self, response: Response) -> None:
        """Send a whole answer at once."""
        self._start()
        self.keep = self.keep and not response.close and self._whole()
        self.ended = True
        respond(self._wire, response, self._shared.date, self._minor, keep=self.keep, empty=self._empty)

    def abort(self) -> None:
        """Break the connection, so that the caller knows the answer is not whole."""
        if not self.ended:
            self.severed = True
            self._wire.transport.abort()

    def _start(self) -> None:
        if self.started:
            raise RuntimeError("the answer has begun already")
        if self._wire.lost:
            raise ClientGone("the caller closed the connection")
        self.started = True
        self.keep = self.keep and not self._shared.draining


@cache
def connection_line(minor: int, *, keep: bool) -> bytes:
    """The ``connection`` field, if HTTP/1.*minor* needs one."""
    if not keep:
        return http1.CLOSE
    return b"" if minor else http1.KEEP_ALIVE


def respond(wire: AnswerWriter, response: Response, date: bytes, minor: int, *, keep: bool, empty: bool) -> None:
    """Write a whole answer; *empty* leaves its body out (HEAD)."""
    head = (http1.status_line(response.status), date, response.head, connection_line(minor, keep=keep), http1.CRLF)
    if empty:
        wire.transport.write(b"".join(head))
    elif len(response.body) <= JOIN:
        wire.transport.write(b"".join((*head, response.body)))
    else:
        wire.transport.writelines((b"".join(head), response.body))
