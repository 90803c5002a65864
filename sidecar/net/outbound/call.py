"""
One call on one connection: writes the request and reads the answer.

The rule: a call leaves its connection, synchronously and in every case, in one of two states: in the pool, if request
and answer are both complete, or closed.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Protocol

import aiohttp
from aiohttp.http import StreamWriter

from sidecar.core.region.connections import Opened
from sidecar.core.rules import KIB
from sidecar.errors import Cause, SidecarError, UpstreamFailed
from sidecar.net.outbound.answer_body import AnswerBody
from sidecar.net.outbound.answer_head import AnswerHead, Unreadable
from sidecar.net.outbound.connection import UpstreamConnection
from sidecar.tasks import Spawn

AT_ONCE = 64 * KIB
"""A body up to this size is sent in one write with its head; a larger one piece by piece, in a task."""

PIECE = 256 * KIB

BROKEN = (Unreadable, aiohttp.ClientError, OSError, RuntimeError)
"""What our connection and aiohttp raise while a call waits for its answer."""


class Body(Protocol):
    """A request body that is not in memory. *size* in bytes, None when it is not known before its end."""

    @property
    def size(self) -> int | None:
        """The body's Content-Length."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start."""


def _is_sent() -> None:
    """That the request has been sent is said once."""


class UpstreamAnswer:
    """
    An answer, from its head on. Whoever gets it reads it to its end or closes it.

    *pairs* is the head as received. *length* is the Content-Length it states, None where it states none (chunked,
    ended by the connection, or without a body).
    """

    __slots__ = ("_body", "_call", "_error", "_wire", "length", "pairs", "status")

    def __init__(self, call: OutboundCall, wire: UpstreamConnection, head: AnswerHead, body: AnswerBody) -> None:
        self._call = call
        self._wire = wire
        self._body = body
        self._error: SidecarError | None = None
        self.status = head.status
        self.pairs = head.pairs
        self.length = head.length
        if body.ended and not body.held:
            call.finish()

    def __repr__(self) -> str:
        return f"<UpstreamAnswer {self.status} {self._call!r}>"

    async def read(self) -> bytes:
        """
        The bytes that have come, at most about 384 KiB; ``b""`` at the clean end. The peer is paused while nobody
        reads. Raises ``UpstreamFailed`` (truncated, idle-timeout, malformed), or what the request's body raised. If
        this is cancelled, nothing is lost and it may be called again.
        """
        body = self._body
        while not (body.held or body.ended) and self._error is None:
            try:
                await self._wire.change()
            except BROKEN as error:
                self._lose(self._call.explain(error))
            except SidecarError as error:
                self._lose(error)
        if not (body.held or body.ended) and self._error is not None:
            raise self._error
        data = self._wire.take(body) if body.held else b""  # what came before a break belongs to the caller, too
        if body.ended:
            self._call.finish()
        return data

    def close(self) -> None:
        """Drop the rest of the answer, and close its connection. Does nothing after a clean end."""
        if self._body.ended and not self._body.held:
            self._call.finish()  # its end may have come while nobody read on
            return
        if self._error is None:
            self._error = UpstreamFailed(Cause.TRUNCATED, "closed by ourselves", answered=True)
        self._body.take()
        self._call.drop()

    def _lose(self, error: SidecarError) -> None:
        self._error = error
        self._call.drop(lost_by(error))


class OutboundCall:
    """
    A request on a connection that belongs to it alone until ``finish`` or ``drop``, where it is given back.

    *peer* is ``host:port``, for messages. *first_byte* is the time in seconds from the request sent to the answer's
    head; *idle* the time between two reads, and the longest time for which the peer may refuse more of the request.
    *on_sent* is called once, when the whole request has been sent.
    """

    __slots__ = (
        "_first_byte",
        "_give_back",
        "_headed",
        "_idle",
        "_on_sent",
        "_peer",
        "_sent",
        "_timer",
        "_upload",
        "_wire",
        "reused",
    )

    def __init__(
        self,
        wire: UpstreamConnection,
        give_back: Callable[..., None],
        peer: str,
        *,
        first_byte: float,
        idle: float,
        on_sent: Callable[[], None],
    ) -> None:
        self._give_back: Callable[..., None] | None = give_back
        self._wire = wire
        self._peer = peer
        self._first_byte = first_byte
        self._idle = idle
        self._on_sent = on_sent
        self._upload: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent = False
        self._headed = False
        self.reused = wire.served > 0

    def __repr__(self) -> str:
        return f"<OutboundCall to {self._peer} on {self._wire!r}{'' if self._give_back else ', over'}>"

    def __del__(self) -> None:
        """A call that nobody has ended is a bug that is heard of, not a leak."""
        if self._give_back is not None:
            warnings.warn(f"Unclosed connection of {self!r}", ResourceWarning, source=self, stacklevel=1)
            self._wire.forgotten(self._give_back)

    async def exchange(self, head: bytes, body: bytes | Body, *, bodiless: bool, spawn: Spawn) -> UpstreamAnswer:
        """
        Send *head* and *body*, and wait for the answer's head. *bodiless*: no answer to this method has a body.

        If the answer comes while the body is still being sent, sending goes on while the answer is read. Raises
        ``UpstreamFailed``, or what the body raised; then the connection is closed.
        """
        wire = self._wire
        wire.begin(bodiless=bodiless)
        try:
            if isinstance(body, bytes) and len(body) <= AT_ONCE:
                if wire.transport is not None:  # otherwise it is lost already, and read() reports it
                    wire.transport.write(head + body)
                self._all_sent()
            else:
                self._upload = spawn(self._send(head, body), name=f"upload to {self._peer}")
            while wire.head is None or wire.body is None:
                await wire.change()
        except BROKEN as error:
            failure = self.explain(error)
            await self._abandon(failure)
            raise failure from None  # aiohttp's error may quote header values
        except SidecarError as error:
            await self._abandon(error)
            raise
        except BaseException:
            self.drop()
            raise
        self._headed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sent and not wire.body.ended:
            wire.expect_body(self._idle)
        return UpstreamAnswer(self, wire, wire.head, wire.body)

    def finish(self) -> None:
        """The answer is whole: the connection may serve the next call, unless this request is still being sent."""
        if not self._sent:
            self.drop()
        elif self._give_back is not None:
            self._wire.rest()
            self._give_back()
            self._give_back = None

    def drop(self, reason: Opened = Opened.DROPPED) -> None:
        """
        Give up the call and close its connection at once, whatever is still in flight. Harmless when the call is over.
        *reason* is why another connection may have to be opened.
        """
        if self._give_back is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._upload is not None:
            self._upload.cancel()
        self._wire.lose(reason)
        self._wire.abort()  # a normal close would first wait for the peer to take what is buffered
        self._give_back(close=True)
        self._give_back = None

    def explain(self, error: Exception) -> UpstreamFailed:
        """
        The meaning of *error*, raised by aiohttp while a call waited for its answer. Quotes nothing of request or
        answer.
        """
        match error:
            case aiohttp.SocketTimeoutError():
                return self._failed(Cause.IDLE_TIMEOUT, f"nothing came for {self._idle:g} s")
            case Unreadable():
                return self._failed(Cause.MALFORMED, str(error))
            case aiohttp.ClientPayloadError():
                return self._failed(Cause.TRUNCATED, "the connection was closed within the answer")
            case _:
                cause = Cause.TRUNCATED if self._wire.answered else Cause.DISCONNECTED
                return self._failed(cause, getattr(error, "strerror", None) or "the connection was closed")

    def _failed(self, cause: Cause, detail: str) -> UpstreamFailed:
        return UpstreamFailed(cause, f"{self._peer}: {detail}", answered=self._wire.answered, reused=self.reused)

    async def _abandon(self, error: SidecarError) -> None:
        """Drop the failed call, and wait until nothing reads the request's body: it may be sent again."""
        self.drop(lost_by(error))
        if self._upload is not None:
            await asyncio.wait((self._upload,))

    def _fail(self, error: SidecarError, *cause: Exception) -> None:
        """Pass *error* to the answer's reader. Once the answer was whole, the connection belongs to another call."""
        if self._give_back is not None:
            self._wire.set_exception(error, *cause)

    def _all_sent(self) -> None:
        """The request is sent: the peer's time to answer starts."""
        self._sent = True
        on_sent, self._on_sent = self._on_sent, _is_sent
        on_sent()  # and is let go: it may refer to the request, and the answer's reader refers to this
        if self._headed:
            self._wire.expect_body(self._idle)
        else:
            self._timer = asyncio.get_running_loop().call_later(self._first_byte, self._too_late)

    def _too_late(self) -> None:
        detail = f"no answer within {self._first_byte:g} s"
        self._wire.set_exception(self._failed(Cause.FIRST_BYTE_TIMEOUT, detail))

    async def _send(self, head: bytes, body: bytes | Body) -> None:
        """
        Write a request whose body is large, or still arriving.

        If the connection breaks, this only ends: the reader of the answer gets the error, and an answer that came
        before the break still counts. What the body raises is passed to the reader of the answer.
        """
        size = len(body) if isinstance(body, bytes) else body.size
        chunks = _pieces(body) if isinstance(body, bytes) else body.chunks()
        try:
            await self._copy(head, chunks, size)
        except _ConnectionBroken:
            pass
        except SidecarError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - nothing else would report it
            self._fail(
                self._failed(Cause.INTERNAL, f"the request's body could not be read: {type(error).__name__}"), error
            )
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def _copy(self, head: bytes, chunks: AsyncIterator[bytes | memoryview], size: int | None) -> None:
        """Write *head* and *chunks*, which are *size* bytes together or, for None, chunked."""
        writer = StreamWriter(self._wire, asyncio.get_running_loop())
        await self._write(writer, head, last=size == 0)
        if size is None:
            writer.enable_chunking()
        written = 0
        async for chunk in chunks:
            written += len(chunk)
            if size is not None and written > size:
                break
            if chunk:
                await self._write(writer, chunk, last=written == size)
        if size is not None and written != size:
            raise self._failed(Cause.INTERNAL, "the request's body differs from its Content-Length")
        if size is None:
            await self._write(writer, b"", last=True)

    async def _write(self, writer: StreamWriter, data: bytes | memoryview, *, last: bool) -> None:
        """
        Write *data* (nothing for the end of a chunked body), and wait until the peer takes more.

        With the *last* of it the request counts as sent, before another task runs: otherwise a service that answers at
        once would seem to have answered early, and its connection could not be kept.
        """
        try:
            async with asyncio.timeout(self._idle):
                if data:
                    await writer.write(data, drain=False)
                else:
                    await writer.write_eof()
                await writer.drain()
            if last:
                self._all_sent()
            # Other calls get their turn; and an early answer must be read before a write breaks the connection.
            await asyncio.sleep(0)
        except TimeoutError:
            detail = f"it took no more of the request for {self._idle:g} s"
            raise self._failed(Cause.IDLE_TIMEOUT, detail) from None
        except (OSError, RuntimeError, aiohttp.ClientError) as error:  # uvloop raises RuntimeError when it is closed
            raise _ConnectionBroken from error


def lost_by(error: SidecarError) -> Opened:
    """
    Why the connection of a call that failed with *error* was lost: by itself, or because the sender of the request
    failed.
    """
    return Opened.DIED if isinstance(error, UpstreamFailed) else Opened.DROPPED


class _ConnectionBroken(Exception):
    """The connection broke under the request."""


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield view[start : start + PIECE]
