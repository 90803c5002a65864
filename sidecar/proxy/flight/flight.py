"""
One upstream answer on its way, and everybody who reads it.

The rule: the fetch belongs to the flight, not to its first caller. A reader that leaves harms nobody; a fetch that
nobody waits for is cancelled, unless it is worth finishing. Every change of shared state is made in one synchronous
method; what readers await is a future of their own. How much of the answer is kept is said in ``buffer``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from enum import StrEnum
from functools import partial

from sidecar.core.cache.purges import ALL, Scope, scope_of
from sidecar.core.draft import Draft
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Entry, Fields, Position, View
from sidecar.errors import Cause, SidecarError, UpstreamFailed
from sidecar.proxy.flight.buffer import AnswerBuffer
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.pulse import Pulse

WINDOW = 256 * 1024
"""Bytes that a flight past its limit may be ahead of its slowest reader."""

Scopes = Callable[[], tuple[Scope, ...]]

_NO_FIELDS: Fields = {}


class Stage(StrEnum):
    """Where a flight stands."""

    WAITING = "waiting"
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class Flight:
    """
    One fetch. The feeding side (``open``, ``push``, ``release``) is the fetch's; ``join`` is the callers'.

    *limit* is how many bytes of the answer are kept whole; *generating* that an abandoned call goes on costing money.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        limit: int,
        ledger: Ledger,
        generating: bool,
        on_close: Callable[[Flight], None],
        on_abandon: Callable[[Flight], bool],
        scopes: Scopes = tuple,
        target: bytes = b"",
    ) -> None:
        self.key = key
        self.target = target  # what the call reads, where others may change that
        self.scopes = scopes  # by which a purge may take its answer; asked for only when there is one
        self.generating = generating
        self.position = Position()  # set by the fetch: what was known of purges before the request was sent
        self.patience = 0.0  # set by the fetch, while it may wait so many seconds for another process
        self.sent = False  # set by the fetch when the request is out whole
        self.stage = Stage.WAITING
        self.opening: Opening | None = None
        self.error: SidecarError | None = None
        self.joinable = True
        self.boundary = True
        self.for_nobody = False
        self.complete = False  # the answer's last event has come, if not yet its last byte
        self.settled = False  # the call's cost is booked
        self.usage = True  # the stream shows its token counts
        self.draft: Draft | None = None  # of the reader to whom the call's cost is booked
        self.superseded = False  # a newer answer is wanted in place of its
        self.tags: set[str] = set()  # of those who have joined, beside those in its scopes
        self.inherits: Callable[[], tuple[str, ...]] = tuple  # set by the fetch: the tags of what it takes the place of
        self.kept: Entry | None = None  # set by the fetch: what is stored of it
        self.views: dict[View, bytes | None] = {}  # the whole answer, as converted for some callers
        self.task: asyncio.Task[None] | None = None
        self.leased = False  # set by the fetch: other processes wait for its answer
        self.second: Flight | None = None  # of a call that was begun because this one's is stuck
        self.seconded = False  # such a call has been sent, and there will be no other
        self._pulse: Pulse | None = None
        self._watched: Callable[[], Pulse] | None = None
        self._on_supersede: Callable[[], None] | None = None
        self._on_verdict: Callable[[Entry | None], None] | None = None
        self._on_close = on_close
        self._on_abandon = on_abandon
        self._buffer = AnswerBuffer(limit, ledger)
        self._readers: dict[Reader, None] = {}
        self._fits: Callable[[Fields], bool] | None = None
        self._owned = False
        self._room: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        kind = "window" if self.windowed else "whole"
        return f"<Flight {self.stage} {kind} {self.size} bytes, {len(self._readers)} readers>"

    @property
    def windowed(self) -> bool:
        """Whether the answer is too large to be kept whole: no more than a window of it may be waited for."""
        return self._buffer.windowed

    @property
    def size(self) -> int:
        """Bytes of the answer that have come."""
        return self._buffer.size

    @property
    def held(self) -> int:
        """Bytes of the answer that are still kept."""
        return self._buffer.held

    def holds(self, size: int) -> bool:
        """Whether an answer of *size* bytes can be kept whole."""
        return self._buffer.holds(size)

    @property
    def readers(self) -> int:
        """How many callers read along."""
        return len(self._readers)

    @property
    def over(self) -> bool:
        """Whether no more bytes will come."""
        return self.stage is Stage.DONE or self.stage is Stage.FAILED

    @property
    def stuck(self) -> bool:
        """Whether its call has shown no sign of life for too long, and nobody has any of its answer."""
        return self._pulse is not None and self._pulse.stuck and self.opening is None

    def fits(self, fields: Fields) -> bool:
        """Whether the answer is for a request with these *fields*, as far as is known by now."""
        return self._fits is None or self._fits(fields)

    def join(
        self,
        credential: bytes = b"",
        draft: Draft | None = None,
        question: Callable[[], bytes] = bytes,
        fields: Fields = _NO_FIELDS,
    ) -> Reader:
        """
        Read along from the first byte, for a request with *fields*. The first to join is the one whose request is sent:
        the owner, in whose *draft* the call's cost is booked; when it leaves early, that of another who reads along
        takes it over. *question* tells all that the caller asks.
        """
        reader = Reader(self, credential, draft, question, fields, owner=not self._owned)
        if self.draft is None:
            self.draft = draft
        self._owned = True
        self._readers[reader] = None
        return reader

    def taken_by(self, purged: frozenset[Scope]) -> bool:
        """Whether a purge of *purged* takes the answer."""
        if ALL in purged or not purged.isdisjoint(self.scopes()):
            return True
        return any(scope_of(tag) in purged for tag in (*self.tags, *self.inherits()))

    # ---- the feeding side ----

    def mark_sent(self) -> None:
        """The whole request is on its way: what it costs is spent."""
        self.sent = True

    def watch(self, patience: Callable[[], float], tell: Callable[[bool], None]) -> None:
        """From its first sign of life on its call has to show more; see ``Pulse``. A call may wait for its turn."""

        def heard(stuck: bool) -> None:  # noqa: FBT001  as Pulse calls it
            tell(stuck)
            self._wake()

        self._watched = partial(Pulse, patience, heard)

    def sign(self) -> None:
        """Its call has shown a sign of life."""
        if self._pulse is not None:
            self._pulse.sign()
        elif self._watched is not None and not self.over:
            self._pulse = self._watched()

    def help(self, second: Flight) -> None:
        """*second* brings the answer, if it can, to those who read along and board it, too."""
        self.second = second
        self._wake()

    def rest(self) -> None:
        """Nothing can be done about its silence now; so it is waited for once more."""
        if self._pulse is not None and not self.over:
            self._pulse.rest()

    def on_verdict(self, act: Callable[[Entry | None], None]) -> None:
        """Have *act* called, once, when it is known what is kept of the answer; None: nothing."""
        self._on_verdict = act

    def judged(self, kept: Entry | None) -> None:
        """It is known by now what is kept of the answer."""
        act, self._on_verdict = self._on_verdict, None
        if act is not None:
            act(kept)

    def rewind(self) -> None:
        """Forget the beginning of an answer that nobody has been told of: another one comes in its place."""
        assert self.opening is None, "nobody has been told"
        self._buffer.rewind()

    def open(self, opening: Opening) -> None:
        """The answer's head is known and final."""
        self.stage = Stage.OPEN
        self.opening = opening
        self._wake()

    def release(self, keep: Callable[[Reader], bool], *, together: bool = False) -> None:
        """
        The answer is not for everybody: readers other than the owner and those to *keep* go their own way. *together*:
        an answer of another call may well be for all of them.
        """
        self.close()
        self._let_go([reader for reader in self._readers if not reader.owner and not keep(reader)], together=together)

    def narrow(self, fits: Callable[[Fields], bool]) -> None:
        """The answer is only for requests that it *fits*: other readers go their own way, and no such one joins."""
        self._fits = fits
        strange = [reader for reader in self._readers if not reader.owner and not fits(reader.fields)]
        if strange:  # a flight that nobody has joined goes on as it was
            self._let_go(strange)

    def close(self) -> None:
        """Nobody joins any more."""
        if self.joinable:
            self.joinable = False
            self._on_close(self)

    def supersede(self) -> None:
        """A newer answer is wanted: this one is for those who wait for it already, and for nobody else."""
        if not self.superseded:
            self.superseded = True
            self.close()
            if self._on_supersede is not None:
                self._on_supersede()
            self._desert()

    def on_supersede(self, act: Callable[[], None]) -> None:
        """Have *act* called when a newer answer is wanted, or at once where it is by now."""
        self._on_supersede = act
        if self.superseded:
            act()

    async def push(self, chunk: bytes) -> None:
        """
        Bytes of the body; they may come before the head is known. Waits only past the limit, while the slowest reader
        is more than a window behind.
        """
        self._append(chunk)
        buffer = self._buffer
        while buffer.windowed and buffer.held > WINDOW and self._readers and self.opening is not None:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def ahead(self, reader: Reader) -> bool:
        """Whether there are bytes that *reader* has not had."""
        return reader.at < self._buffer.end

    def body(self) -> bytes | None:
        """The whole body so far, or None when its start has been let go."""
        return self._buffer.whole()

    def finish(self) -> None:
        """The answer is complete."""
        assert self.opening is not None, "an answer has a head"
        self._end(Stage.DONE, None)

    def fail(self, error: SidecarError) -> None:
        """The answer will never be complete."""
        self._end(Stage.FAILED, error)

    # ---- shared state: each of these is one synchronous step ----

    def _let_go(self, readers: list[Reader], *, together: bool = False) -> None:
        for reader in readers:
            self._part(reader)
            reader.released, reader.together = True, together
            reader.wake()
        self._trim()
        self._desert()

    def _append(self, chunk: bytes) -> None:
        if not chunk:
            return
        self.sign()
        buffer = self._buffer
        if not buffer.take(len(chunk)):
            self._open_window()
        buffer.add(chunk)
        if buffer.windowed and not self._readers:
            self._trim()
        self._wake()

    def _open_window(self) -> None:
        self._buffer.windowed = True
        self.judged(None)
        self.close()
        self._trim()
        self._desert()  # too large to be kept, so not worth finishing for nobody

    def _trim(self) -> None:
        """Let go of what every reader has had."""
        if not self.windowed:
            return
        self._buffer.trim([reader.at for reader in self._readers])
        if self._room is not None and not self._room.done() and (self._buffer.held <= WINDOW or not self._readers):
            self._room.set_result(None)

    def _take(self, reader: Reader) -> bytes:
        """What *reader* has not had yet, at most about 128 KiB; ``b""`` when there is nothing new."""
        at = reader.at
        chunk, reader.at = self._buffer.next(at)
        if chunk and self._buffer.windowed and self._buffer.left_behind(at):
            self._trim()
        return chunk

    def _leave(self, reader: Reader) -> None:
        if reader not in self._readers:
            return
        self._part(reader)
        if self._buffer.left_behind(reader.at):
            self._trim()
        self._desert()

    def _part(self, reader: Reader) -> None:
        """*reader* reads no more; a cost that is still growing goes to one who does."""
        del self._readers[reader]
        left = reader.draft
        if left is None or left is not self.draft or self.over or self.settled:
            return
        heir = next((other.draft for other in self._readers if other.draft is not None), None)
        if heir is not None:
            heir.inherit(left)
            self.draft = heir

    def _desert(self) -> None:
        """Where nobody reads any more: let go of an answer that is over; whether to go on is the table's to say."""
        if self._readers:
            return
        if self.over:
            self._drop()
        elif self._on_abandon(self) and self.task is not None:
            self.close()
            self.task.cancel()

    def _end(self, stage: Stage, error: SidecarError | None) -> None:
        if self.over:
            return
        self.close()
        self.stage = stage
        self.error = error
        if self._pulse is not None:
            self._pulse.end()
        self._pulse = self._watched = None
        self._wake()
        if not self._readers:
            self._drop()

    def _drop(self) -> None:
        self._buffer.drop()

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """
    One caller's place in a flight. Must be left, in a ``finally``.

    *fields*: those of its request. *owner*: this caller's own request is the one that was sent.
    """

    __slots__ = (
        "_waiter",
        "at",
        "credential",
        "draft",
        "fields",
        "flight",
        "owner",
        "question",
        "released",
        "together",
    )

    def __init__(
        self,
        flight: Flight,
        credential: bytes,
        draft: Draft | None,
        question: Callable[[], bytes],
        fields: Fields,
        *,
        owner: bool,
    ) -> None:
        self.flight = flight
        self.credential = credential
        self.draft = draft
        self.question = question
        self.fields = fields
        self.owner = owner
        self.released = self.together = False
        self.at = 0
        self._waiter: asyncio.Future[None] | None = None

    async def opening(self) -> Opening | None:
        """
        The answer's head, once it is known; None when the answer is not for this caller, which then makes a call of
        its own. Raises the flight's error.
        """
        flight = self.flight
        while flight.opening is None or self.released:
            if self.released:
                return None
            if flight.error is not None:
                raise flight.error
            await self._wait()
        return flight.opening

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end. Raises the flight's error where it broke."""
        flight = self.flight
        while True:
            chunk = flight._take(self)  # noqa: SLF001  a reader is the other half of its flight
            if chunk:
                return chunk
            if flight.error is not None:
                raise flight.error
            if flight.stage is Stage.DONE:
                return b""
            if self.released:
                raise UpstreamFailed(Cause.INTERNAL, "read on after being released")
            await self._wait()

    async def whole(self) -> bytes | None:
        """
        The whole body, once all that counts of it is there; None where it is too large to be kept whole. Raises the
        flight's error. What ``read`` gives stays as it was.
        """
        flight = self.flight
        while not (flight.over or flight.complete or flight.windowed):
            await self._wait()
        if flight.windowed:
            return None
        if flight.error is not None:
            raise flight.error
        return flight.body()

    @property
    def satisfied(self) -> bool:
        """It has had the answer's last event, and may well leave before the last byte."""
        return self.flight.complete and not self.flight.ahead(self)

    @property
    def owes(self) -> bool:
        """Whether it has left a call that goes on, or is being cancelled, and whose cost is still booked to it."""
        flight = self.flight
        booked = self.draft is not None and self.draft is flight.draft and not flight.settled
        return booked and flight.task is not None and not flight.task.done()

    def leave(self) -> None:
        """Read no more. May be called twice."""
        self.flight._leave(self)  # noqa: SLF001  as above

    def wake(self) -> None:
        """Something has changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        await changed(self)


async def changed(*readers: Reader) -> None:
    """Until something has changed in the flight of one of *readers*, which are one caller's."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for reader in readers:
        reader._waiter = waiter  # noqa: SLF001  as in Reader
    try:
        await waiter
    finally:
        for reader in readers:
            reader._waiter = None  # noqa: SLF001  as above
