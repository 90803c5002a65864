"""
One connection: passes requests to the proxy and writes its answers, one after the other.

The rule: at most one request is in work. Requests that a client sends ahead wait as bytes, never much more than one
read above ``AHEAD``.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sidecar.core.model import Head
from sidecar.errors import ClientGone, Refused, SlowReader
from sidecar.net.base import Pending, Request, Response
from sidecar.net.inbound import http1
from sidecar.net.inbound.exchange import AnswerWriter, Reply, respond
from sidecar.net.inbound.flow import FlowControl
from sidecar.net.inbound.head_memo import KnownHead
from sidecar.net.inbound.intake import Intake
from sidecar.net.inbound.parser import RequestParser
from sidecar.net.inbound.shared import ListenerState

AHEAD = 64 * 1024
"""How many bytes sent ahead may wait before the sender is paused."""

TURN = 64
"""The most pieces that are read in one go; then other connections have their turn."""

LINGER_BYTES = 16 * 1024 * 1024
LINGER_SECONDS = 2.0
"""How much and how long a client may go on sending after its last answer, so that it can read that answer."""

NEVER = float("inf")


class CallerConnection(asyncio.Protocol):
    """
    The protocol of one accepted connection.

    *deadline* is when the client has been silent for too long: on a kept-alive connection, in a head, or in a body.
    """

    _transport: asyncio.Transport
    _flow: FlowControl
    _wire: AnswerWriter
    _parser: RequestParser
    _intake: Intake

    def __init__(self, shared: ListenerState) -> None:
        self._shared = shared
        self._rest = b""
        self._resuming = False
        self._eof = False
        self._closing = self._retired = False
        self._lingered = 0
        self._head_deadline = NEVER
        self.deadline = shared.now + shared.limits.idle_seconds
        # The request in work.
        self._invited = False
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._doomed: Refused | None = None

    def __repr__(self) -> str:
        return f"<CallerConnection {self._parser!r} {self._wire!r}{' closing' if self._closing else ''}>"

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._flow = FlowControl(self._transport)
        self._wire = AnswerWriter(self._transport, self._shared.limits.reader_seconds)
        self.port: int = transport.get_extra_info("sockname")[1]
        self._parser = RequestParser(self._shared.limits, self.port)
        self._intake = Intake(self._shared, self._parser, self)
        self._shared.came(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._closing or self._doomed is not None:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self._transport.abort()
        elif self._rest or self._parser.done:  # they wait for their turn
            self._rest += data
            self._throttle()
        else:
            found = self._find(data)
            read = None if found is None else self._try_hit(*found)
            if not isinstance(read, Response):
                self._take(data, found, read)
                self._flow.took(len(data))

    def eof_received(self) -> bool:
        """The client sends no more, and counts as gone, unless requests of it still wait as bytes."""
        self._eof = True
        if self._reply is not None and not self._reply.ended:
            self._transport.abort()
        return bool(self._rest) and not self._closing and self._reply is None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for any reason."""
        del exc
        self._rest = b""
        self._closing = True
        self._wire.lose()
        self._parser.close()
        self._intake.fail(ClientGone("the caller closed the connection"))
        if self._task is None:
            self._intake.release()
            self._shared.gone(self)
        elif self._reply is not None and not self._reply.ended and not self._reply.severed:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._wire.pause(self._shared.now)

    def resume_writing(self) -> None:
        """The client has read."""
        self._wire.resume()
        self._resume()

    # What the listener calls.

    def sweep(self, now: float) -> None:
        """Look at the deadlines."""
        if self._wire.lost:
            return
        if (self._wire.paused or self._closing) and self._wire.stalled(now):
            self._lose_patience()
        elif now >= self.deadline and not (self._closing and self._transport.get_write_buffer_size()):
            self._expire()

    def _lose_patience(self) -> None:
        if self._reply is not None and not self._wire.slow:
            self._wire.give_up()
        else:
            self._transport.abort()

    def _expire(self) -> None:
        self.deadline = NEVER
        if self._closing:
            self._transport.abort()
        elif self._reply is not None:
            if self._intake.starved:
                self._doomed = _timed_out()
                self._intake.fail(ClientGone("the request body stopped coming"))
        elif self._idle:
            self._close()
        else:
            self.refuse(_timed_out())

    def retire(self) -> None:
        """Close the connection if nothing is going on; otherwise it closes after its answer."""
        self._retired = True
        if self._idle and not self._closing:
            self._close()

    def abort(self) -> None:
        """End the connection, and what runs for it, now."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    # Reading.

    @property
    def _idle(self) -> bool:
        return not (self._parser.fed or self._rest or self._intake.opened)

    @property
    def _busy(self) -> bool:
        return self._parser.done or self._wire.paused or self._closing or self._doomed is not None

    def _find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The known head and the body of a whole request, unless a caller waits or the process is stopping."""
        if self._intake.opened or self._parser.fed or self._wire.paused or self._shared.draining:
            return None
        return self._shared.head_memo.find(data, self._parser.port)

    def _take(self, data: bytes, found: tuple[KnownHead, bytes] | None, read: Any = None) -> None:
        """Take bytes while no others wait: pass a request on whose head has been *found*, and read any other."""
        if found is None or not self._intake.repeat(*found, data, read):
            self._consume(data)
        elif self._intake.opened:
            self.deadline = NEVER
        else:
            self.pace()

    def _try_hit(self, known: KnownHead, body: bytes) -> Response | Any:
        """See ``Application.try_hit``. After a ``Response`` everything is left as after an ordinary answer."""
        shared, admission = self._shared, known.admission
        if not admission.collect:
            return None
        try:
            response = shared.app.try_hit(admission.plan, body)
        except Exception as error:  # noqa: BLE001 - the ordinary way meets the error again, and answers it
            shared.report(error)
            return None
        if not isinstance(response, Response):
            return response
        respond(self._wire, response, shared.date, 1, keep=not response.close, empty=False)
        self.deadline = shared.now + shared.limits.idle_seconds
        if response.close:
            self._close()
        return response

    def _consume(self, data: bytes) -> None:
        parser = self._parser
        at, size, turn = 0, len(data), TURN
        while at < size and turn and not self._busy:
            turn -= 1
            start = -1 if parser.fed or self._intake.opened else at
            try:
                at = parser.feed(data, at)
            except Refused as error:
                self._doom(error)
                return
            if parser.head is not None:
                self._head_deadline = NEVER
                self._intake.advance(size - at)
                if start >= 0:
                    self._intake.learn(data[start:at])
        if not self._closing:
            self._rest = data[at:]
            self.pace()

    def invite(self) -> None:
        """The body is going to be read: tell a client that waits for ``100 Continue`` to send it."""
        framing = self._parser.framing
        if framing is not None and framing.expects and not self._invited:
            self._invited = True
            if self._reply is None or not self._reply.started:
                self._transport.write(http1.CONTINUE)

    def pace(self) -> None:
        """Set the deadline that holds now, and decide whether to read on."""
        if self._closing:
            return
        limits, now = self._shared.limits, self._shared.now
        if self._intake.opened:
            self.deadline = now + limits.body_seconds if self._intake.starved else NEVER
        elif self._parser.fed:
            if self._head_deadline == NEVER:
                self._head_deadline = now + limits.head_seconds
            self.deadline = self._head_deadline
        else:
            self.deadline = now + limits.idle_seconds
        if self._rest or self._intake.opened or self._flow.held:
            self._throttle()
        if self._rest:
            if not self._resuming and not self._busy:
                self._resuming = True
                asyncio.get_running_loop().call_soon(self._resume)
        elif self._eof and not self._busy:
            self._close()

    def _throttle(self) -> None:
        self._flow.hold(len(self._rest) > AHEAD or self._intake.full)

    def _resume(self) -> None:
        self._resuming = False
        if self._rest and not self._busy:
            data, self._rest = self._rest, b""
            self._take(data, self._find(data))

    # Answering.

    def ask(self, request: Request) -> None:
        """Pass *request* to the proxy."""
        try:
            answer = self._shared.app.answer(request)
        except Refused as error:
            self.refuse(error)
            return
        except Exception as error:  # noqa: BLE001 - as above
            self.fault(error)
            return
        if isinstance(answer, Response):
            self._respond(answer)
        else:
            self._start(request.head, answer)

    def _respond(self, response: Response, *, close: bool = False) -> None:
        head = self._parser.head
        keep = self._keeps() and not close and not response.close
        minor, empty = (1, False) if head is None else (head.minor, head.method == b"HEAD")
        respond(self._wire, response, self._shared.date, minor, keep=keep, empty=empty)
        self._finish(keep=keep, linger=close)

    def refuse(self, error: Refused) -> None:
        """Answer the request with *error*."""
        try:
            response = self._shared.app.refuse(self._parser.head, error)
        except Exception as bug:  # noqa: BLE001 - as above
            self._shared.report(bug)
            response = Response(error.status, b"content-length: 0\r\n", b"")
        self._respond(response, close=error.close)

    def fault(self, error: Exception) -> None:
        """The proxy has failed: answer the request with that error."""
        self._shared.report(error)
        self.refuse(_failed())

    def _doom(self, error: Refused) -> None:
        """The client broke the rules: refuse, or if an answer is being written already, let that end first."""
        if self._reply is None:
            self.refuse(error)
            return
        self._doomed = error
        self._intake.fail(error)

    def _start(self, head: Head, pending: Pending) -> None:
        framing = self._parser.framing
        assert framing is not None
        self._reply = Reply(self._wire, self._shared, head, keep=framing.keep, whole=self._keeps)
        self._task = self._shared.spawn(self._carry(pending, self._reply), name="request")
        self._task.add_done_callback(self._settle)

    async def _carry(self, pending: Pending, reply: Reply) -> None:
        try:
            await pending.run(reply)
        except Exception as error:  # noqa: BLE001 - handled when the task has ended
            self._error = error

    def _settle(self, task: asyncio.Task[None]) -> None:
        """The task that answered has ended, for any reason."""
        reply, error, doomed = self._reply, self._error, self._doomed
        assert reply is not None
        self._reply = self._task = self._error = None
        if error is not None and not isinstance(error, (Refused, ClientGone, SlowReader)):
            self._shared.report(error)
        if self._wire.lost:
            self._intake.release()
            self._shared.gone(self)
        elif reply.ended:
            self._finish(keep=reply.keep and self._keeps())
            self._go_on()
        elif reply.started or reply.severed or task.cancelled() or error is None:
            self._intake.release()
            self._transport.abort()
        elif doomed is not None:
            self.refuse(doomed)
        elif isinstance(error, Refused):
            self.refuse(error)
            self._go_on()
        elif isinstance(error, (ClientGone, SlowReader)):
            self._intake.release()
            self._transport.abort()
        else:
            self.refuse(_failed())

    def _go_on(self) -> None:
        if not self._closing:
            if self._rest:
                self._resume()
            self.pace()

    # Ending.

    def _keeps(self) -> bool:
        """Whether the connection may serve another request, as far as is known now."""
        framing = self._parser.framing
        kept = framing is not None and framing.keep and self._parser.done
        return kept and self._doomed is None and not (self._retired or self._shared.draining)

    def _finish(self, *, keep: bool, linger: bool = False) -> None:
        """The answer is written: release what the request held, then read the next request or close."""
        clean = self._parser.done and not self._rest
        self._intake.release()
        if keep:
            self._parser.next()
            self._intake.next()
            self._invited = False
        else:
            self._close(linger=linger or not clean)

    def _close(self, *, linger: bool = False) -> None:
        """Close after the written bytes; *linger* reads on for a while, because a reset would destroy the answer."""
        self._closing = True
        self._rest = b""
        self._wire.pause(self._shared.now)
        self.deadline = self._shared.now + LINGER_SECONDS
        if linger and not self._eof and not self._transport.is_closing():
            self._throttle()
            self._transport.write_eof()
        else:
            self._transport.close()


def _timed_out() -> Refused:
    return Refused(408, "request-timeout", "The request did not arrive in time.", close=True)


def _failed() -> Refused:
    return Refused(500, "internal", "The sidecar failed to answer this call.", close=True)
