"""
A flight: one upstream answer while it comes, and all callers that read it.

The rule: the fetch belongs to the flight, not to its first caller. A reader that leaves disturbs no other reader. If no
reader is left, the fetch is cancelled, unless its answer is worth storing. Each change of shared state is one
synchronous method; each reader awaits its own future. ``buffer`` says how much of the answer is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from sidecar.core.cache.purges import ALL, Scope, scope_of
from sidecar.core.draft import Draft
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Entry, Fields, Position, View
from sidecar.errors import SidecarError
from sidecar.proxy.flight.buffer import AnswerBuffer
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.pulse import Pulse
from sidecar.proxy.flight.seat import Seat

if TYPE_CHECKING:
    from sidecar.net.base import Spool

WINDOW = 256 * 1024
"""Bytes that a windowed flight may be ahead of its slowest reader."""

Scopes = Callable[[], tuple[Scope, ...]]


class Stage(StrEnum):
    """The state of a flight."""

    WAITING = "waiting"
    OPEN = "open"
    DONE = "done"
    FAILED = "failed"


class Flight:
    """
    One fetch. The fetch calls the feeding side (``open``, ``push``, ``release``); callers read through a ``Reader``.

    *limit*: bytes of the answer that are kept whole. *generating*: an abandoned call goes on costing money.
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
        self.target = target  # what the call reads, if other calls may change that
        self.scopes = scopes  # scopes whose purge removes its answer; asked for only at a purge
        self.generating = generating
        self.position = Position()  # set by the fetch: what was known of purges before the request was sent
        self.patience = 0.0  # set by the fetch, while it may wait so many seconds for another process
        self.sent = False  # set by the fetch when the whole request has been sent
        self.stage = Stage.WAITING
        self.opening: Opening | None = None
        self.error: SidecarError | None = None
        self.joinable = True
        self.boundary = True
        self.for_nobody = False
        self.complete = False  # the last event has come, but perhaps not the last byte
        self.settled = False  # the call's cost is booked
        self.usage = True  # the stream shows its token counts
        self.draft: Draft | None = None  # of the reader to whom the call's cost is booked
        self.superseded = False  # a newer answer must replace this one
        self.tags: set[str] = set()  # tags of callers that joined, in addition to its scopes
        self.inherits: Callable[[], tuple[str, ...]] = tuple  # set by the fetch: tags of the entry that it replaces
        self.kept: Entry | None = None  # set by the fetch: the entry that is stored
        self.result: Opening | None = None  # set by the fetch: the head of an operation's result, which is the body
        self.views: dict[View, bytes | None] = {}  # the whole answer, as converted for some callers
        self.task: asyncio.Task[None] | None = None
        self.leased = False  # set by the fetch: other processes wait for its answer
        self.second: Flight | None = None  # the flight of the second call, if this one is stuck
        self.seconded = False  # a second call has been sent; there is no third
        self.lent: Spool | None = None  # set by the fetch: the body of its request, which it closes
        self._pulse: Pulse | None = None
        self._watched: Callable[[], Pulse] | None = None
        self._on_supersede: Callable[[], None] | None = None
        self._on_verdict: Callable[[Entry | None], None] | None = None
        self._on_close = on_close
        self._on_abandon = on_abandon
        self._buffer = AnswerBuffer(limit, ledger)
        self._readers: dict[Seat, None] = {}
        self._fits: Callable[[Fields], bool] | None = None
        self._owned = False
        self._room: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        kind = "window" if self.windowed else "whole"
        return f"<Flight {self.stage} {kind} {self.size} bytes, {len(self._readers)} readers>"

    def give_back(self) -> None:
        """The body of its request is needed no longer."""
        lent, self.lent = self.lent, None
        if lent is not None:
            lent.close()

    @property
    def windowed(self) -> bool:
        """Whether the answer is too large to be kept whole, so that only a window of it is kept."""
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
        """How many callers read this flight."""
        return len(self._readers)

    @property
    def over(self) -> bool:
        """Whether no more bytes will come."""
        return self.stage is Stage.DONE or self.stage is Stage.FAILED

    @property
    def stuck(self) -> bool:
        """Whether its call has been silent for too long, and no reader has received any of its answer."""
        return self._pulse is not None and self._pulse.stuck and self.opening is None

    def fits(self, fields: Fields) -> bool:
        """Whether the answer is for a request with these *fields*, as far as is known now."""
        return self._fits is None or self._fits(fields)

    def taken_by(self, purged: frozenset[Scope]) -> bool:
        """Whether a purge of *purged* removes the answer."""
        if ALL in purged or not purged.isdisjoint(self.scopes()):
            return True
        return any(scope_of(tag) in purged for tag in (*self.tags, *self.inherits()))

    # ---- the reading side: a Reader calls these ----

    def add(self, reader: Seat) -> None:
        """
        Let *reader* have the answer, from its first byte. The first reader is the owner: its request is sent, and the
        call's cost is booked in its draft. If it leaves early, another reader's draft takes over the cost.
        """
        reader.owner = not self._owned
        if self.draft is None:
            self.draft = reader.draft
        self._owned = True
        self._readers[reader] = None

    def take(self, reader: Seat) -> bytes:
        """The bytes that *reader* has not received, at most about 128 KiB; ``b""`` if there are none."""
        at = reader.at
        chunk, reader.at = self._buffer.next(at)
        if chunk and self._buffer.windowed and self._buffer.left_behind(at):
            self._trim()
        return chunk

    def ahead(self, reader: Seat) -> bool:
        """Whether there are bytes that *reader* has not received."""
        return reader.at < self._buffer.end

    def remove(self, reader: Seat) -> None:
        """*reader* stops reading. May be called twice."""
        if reader not in self._readers:
            return
        del self._readers[reader]
        if self._readers:
            self._bequeath(reader.draft)
        if self._buffer.windowed and self._buffer.left_behind(reader.at):
            self._trim()
        self._desert()

    # ---- the feeding side: the fetch calls these ----

    def mark_sent(self) -> None:
        """The whole request has been sent, so its cost is spent."""
        self.sent = True

    def watch(self, patience: Callable[[], float], tell: Callable[[bool], None]) -> None:
        """After its first sign of life the call must show more; see ``Pulse``. Before that it may wait for its turn."""

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
        """*second* tries to bring the answer, also to the readers of this flight that join it."""
        self.second = second
        self._wake()

    def rest(self) -> None:
        """Nothing can be done about its silence now, so wait for the same time again."""
        if self._pulse is not None and not self.over:
            self._pulse.rest()

    def on_verdict(self, act: Callable[[Entry | None], None]) -> None:
        """Call *act*, once, when it is known which entry is stored; None: no entry."""
        self._on_verdict = act

    def judged(self, kept: Entry | None) -> None:
        """It is known now which entry is stored (*kept*), if any."""
        act, self._on_verdict = self._on_verdict, None
        if act is not None:
            act(kept)

    def rewind(self) -> None:
        """Drop the beginning of an answer that no reader has received: another answer comes in its place."""
        assert self.opening is None, "nobody has been told"
        self._buffer.rewind()

    def open(self, opening: Opening) -> None:
        """The answer's head is known and final."""
        self.stage = Stage.OPEN
        self.opening = opening
        self._wake()

    def release(self, keep: Callable[[Seat], bool], *, together: bool = False) -> None:
        """
        The answer is not for all readers: release those that are neither the owner nor to *keep*. *together*: one
        answer of another call may be for all of them.
        """
        self.close()
        self._let_go([reader for reader in self._readers if not reader.owner and not keep(reader)], together=together)

    def narrow(self, fits: Callable[[Fields], bool]) -> None:
        """The answer is only for requests that it *fits*: release the other readers, and let no such reader join."""
        self._fits = fits
        strange = [reader for reader in self._readers if not reader.owner and not fits(reader.fields)]
        if strange:  # without such readers the flight goes on unchanged
            self._let_go(strange)

    def close(self) -> None:
        """No caller can join any more."""
        if self.joinable:
            self.joinable = False
            self._on_close(self)

    def supersede(self) -> None:
        """A newer answer is wanted: this one is only for the callers that already wait for it."""
        if not self.superseded:
            self.superseded = True
            self.close()
            if self._on_supersede is not None:
                self._on_supersede()
            self._desert()

    def on_supersede(self, act: Callable[[], None]) -> None:
        """Call *act* when a newer answer is wanted, or at once if that is so already."""
        self._on_supersede = act
        if self.superseded:
            act()

    async def push(self, chunk: bytes) -> None:
        """
        Add bytes of the body; they may come before the head is known. Past the limit this waits while the slowest
        reader is more than a window behind.
        """
        self._append(chunk)
        buffer = self._buffer
        while buffer.windowed and buffer.held > WINDOW and self._readers and self.opening is not None:
            self._room = asyncio.get_running_loop().create_future()
            try:
                await self._room
            finally:
                self._room = None

    def fill(self, body: bytes) -> None:
        """Add a whole *body*, or outgrow. Waits for no reader: those of an operation read nothing before its end."""
        if self.windowed or not self._buffer.take(len(body)):
            self.outgrow()
            return
        self._buffer.add(body)
        self._wake()

    def body(self) -> bytes | None:
        """The whole body so far, or None if its beginning was dropped."""
        return self._buffer.whole()

    def outgrow(self) -> None:
        """The answer is too large to be kept whole, and no byte of it comes."""
        self._open_window()

    def finish(self) -> None:
        """The answer is complete."""
        assert self.opening is not None, "an answer has a head"
        self._end(Stage.DONE, None)

    def fail(self, error: SidecarError) -> None:
        """The answer will never be complete."""
        self._end(Stage.FAILED, error)

    # ---- shared state: each of these is one synchronous step ----

    def _let_go(self, readers: list[Seat], *, together: bool = False) -> None:
        for reader in readers:
            del self._readers[reader]
            self._bequeath(reader.draft)
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
        self._desert()  # too large to store, so not worth finishing without readers

    def _trim(self) -> None:
        """Drop the bytes that every reader has received."""
        if not self.windowed:
            return
        self._buffer.trim([reader.at for reader in self._readers])
        if self._room is not None and not self._room.done() and (self._buffer.held <= WINDOW or not self._readers):
            self._room.set_result(None)

    def _bequeath(self, left: Draft | None) -> None:
        """*left* was a reader's draft: if it bears the cost of the call, another reader's draft takes that over."""
        if left is None or left is not self.draft or self.over or self.settled:
            return
        heir = next((other.draft for other in self._readers if other.draft is not None), None)
        if heir is not None:
            heir.inherit(left)
            self.draft = heir

    def _desert(self) -> None:
        """If no reader is left: drop an answer that is over; else the table decides whether the call goes on."""
        if self._readers:
            return
        if self.over:
            self._drop()
        elif self.task is not None and self._on_abandon(self):
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
            if reader.waiter is not None:
                reader.wake()
