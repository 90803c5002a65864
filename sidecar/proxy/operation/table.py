"""
The operations that this process has started or joined, by the ids that their callers have.

The rule: an operation holds its result until its caller has fetched it, or for a minute after its end; then the result
is found in the store, or at the service. So ids cost little, and no caller loses a result that was promised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from sidecar.core.cache.purges import Scope, scopes
from sidecar.core.model import Entry
from sidecar.core.request.operation import LIFE_SECONDS, OperationOrigin, Started
from sidecar.proxy.flight.reader import Reader

MOST = 16_384
"""The most ids; beyond that those that have been asked for, then the oldest, are known to the fleet alone."""

HELD_SECONDS = 60.0
"""How long the result of an operation that has ended waits here for its caller."""

HELD_BYTES = 64 * 1024 * 1024
"""Stored results that wait here, at most; the oldest beyond are found in the store, or at the service."""


class KnownOperation:
    """
    One id here: what was *started*, and where its result comes from: a *reader* of the flight that polls for it, or a
    stored *entry*. Both are None once the caller has *fetched* it. *until* is when they are dropped, monotonic seconds.
    *purged*: the result has been purged, so it must not be stored anew for this caller.
    """

    __slots__ = ("born", "entry", "fetched", "purged", "reader", "started", "until")

    def __init__(self, started: Started, born: float, *, reader: Reader | None = None) -> None:
        self.started = started
        self.born = born
        self.reader = reader
        self.entry: Entry | None = None
        self.fetched = self.purged = False
        self.until = born + HELD_SECONDS

    def __repr__(self) -> str:
        return f"<KnownOperation{' running' * (self.reader is not None)}{' stored' * (self.entry is not None)}>"

    def let_go(self) -> None:
        """The result need not wait here any longer."""
        self.entry = None
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.leave()


class OperationTable:
    """
    The known operations: those that have been asked for, then the others, the oldest first. *clock* is monotonic
    seconds. *held*: bytes of stored results that wait for their callers.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, KnownOperation] = OrderedDict()
        self._held: dict[KnownOperation, int] = {}
        self.held = 0

    def __repr__(self) -> str:
        return f"<OperationTable {len(self._known)} ids>"

    def __len__(self) -> int:
        return len(self._known)

    def add(self, started: Started, *, reader: Reader | None = None, entry: Entry | None = None) -> None:
        """Know an operation by its id."""
        earlier = self._known.get(started.id)
        self.drop(started.id)
        self._known[started.id] = known = KnownOperation(started, self._clock(), reader=reader)
        known.purged = earlier is not None and earlier.purged
        if entry is not None:
            self._hold(known, entry)
        elif reader is not None and reader.flight.task is not None:
            reader.flight.task.add_done_callback(lambda _: self._ended(known, reader))
        while len(self._known) > MOST:
            self._retire(next(iter(self._known)))

    def find(self, id_: str) -> KnownOperation | None:
        """The operation of that id, if this process knows it."""
        return self._known.get(id_)

    def waits(self, origin: OperationOrigin) -> bool:
        """Whether some caller has not yet fetched the result of *origin*, and may still come for it."""
        now = self._clock()
        return any(
            known.started.origin == origin
            and not known.fetched
            and (now < known.until or (known.reader is not None and not known.reader.flight.over))
            for known in self._known.values()
        )

    def fetched(self, id_: str) -> None:
        """The caller has the result of this operation."""
        known = self._known.get(id_)
        if known is not None:
            known.fetched = True
            self._let_go(known)
            self._known.move_to_end(id_, last=False)

    def drop(self, id_: str) -> None:
        """Forget an id."""
        known = self._known.pop(id_, None)
        if known is not None:
            self._let_go(known)

    def forget(self, purged: tuple[Scope, ...]) -> None:
        """*purged* are gone: let go of their results. A caller that has not fetched its own yet asks the service."""
        for known in self._known.values():
            started = known.started
            running = known.reader is not None and not known.reader.flight.over
            own = scopes(started.key, started.service, started.route, started.tags, started.partition)
            if frozenset(purged).isdisjoint(own):
                continue
            known.purged = True
            if not running:
                self._let_go(known)

    def sweep(self) -> None:
        """Let results go that have waited long enough, and forget ids whose time is over."""
        now = self._clock()
        for id_, known in list(self._known.items()):
            if now - known.born >= LIFE_SECONDS:
                self.drop(id_)
            elif known.reader is not None and not known.reader.flight.over:
                known.until = now + HELD_SECONDS
            elif now >= known.until:
                self._let_go(known)

    def _retire(self, id_: str) -> None:
        """Forget an id, but do not abandon its operation: that has been paid for."""
        known = self._known[id_]
        reader = known.reader
        if reader is not None and not reader.flight.over and (task := reader.flight.task) is not None:
            known.reader = None
            task.add_done_callback(lambda _: reader.leave())
        self.drop(id_)

    def _ended(self, known: KnownOperation, reader: Reader) -> None:
        """
        The operation has ended. If its result is stored, the stored one waits for the caller: bytes in a flight are
        taken from what the calls under way may have.
        """
        kept = reader.flight.kept
        if known.reader is reader and kept is not None and not reader.flight.superseded:
            self._let_go(known)
            self._hold(known, kept)

    def _hold(self, known: KnownOperation, entry: Entry) -> None:
        known.entry = entry
        self._held[known] = len(entry.body)
        self.held += len(entry.body)
        while self.held > HELD_BYTES:
            self._let_go(next(iter(self._held)))

    def _let_go(self, known: KnownOperation) -> None:
        """The result need not wait here any longer."""
        self.held -= self._held.pop(known, 0)
        known.let_go()
