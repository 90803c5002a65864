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
from sidecar.core.request.operation import LIFE_SECONDS, Started
from sidecar.proxy.flight.reader import Reader

MOST = 16_384
"""The most ids; the oldest beyond are known to the fleet alone."""

HELD_SECONDS = 60.0
"""How long the result of an operation that has ended waits here for its caller."""


class KnownOperation:
    """
    One id here: what was *started*, and where its result comes from: a *reader* of the flight that polls for it, or a
    stored *entry*. Both are None once the caller has fetched it. *until* is when they are dropped, monotonic seconds.
    """

    __slots__ = ("born", "entry", "reader", "started", "until")

    def __init__(
        self, started: Started, born: float, *, reader: Reader | None = None, entry: Entry | None = None
    ) -> None:
        self.started = started
        self.born = born
        self.reader = reader
        self.entry = entry
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
    """The known operations, the oldest first. *clock* is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[str, KnownOperation] = OrderedDict()

    def __repr__(self) -> str:
        return f"<OperationTable {len(self._known)} ids>"

    def __len__(self) -> int:
        return len(self._known)

    def add(self, started: Started, *, reader: Reader | None = None, entry: Entry | None = None) -> None:
        """Know an operation by its id."""
        self.drop(started.id)
        self._known[started.id] = KnownOperation(started, self._clock(), reader=reader, entry=entry)
        while len(self._known) > MOST:
            self.drop(next(iter(self._known)))

    def find(self, id_: str) -> KnownOperation | None:
        """The operation of that id, if this process knows it."""
        return self._known.get(id_)

    def drop(self, id_: str) -> None:
        """Forget an id."""
        known = self._known.pop(id_, None)
        if known is not None:
            known.let_go()

    def forget(self, purged: tuple[Scope, ...]) -> None:
        """*purged* are gone: let go of their results. A caller that has not fetched its own yet asks the service."""
        for known in self._known.values():
            started = known.started
            running = known.reader is not None and not known.reader.flight.over
            own = scopes(started.key, started.service, started.route, started.tags, started.partition)
            if not (running or frozenset(purged).isdisjoint(own)):
                known.let_go()

    def sweep(self) -> None:
        """Let results go that have waited long enough, and forget ids whose time is over."""
        now = self._clock()
        for id_, known in list(self._known.items()):
            if now - known.born >= LIFE_SECONDS:
                self.drop(id_)
            elif known.reader is not None and not known.reader.flight.over:
                known.until = now + HELD_SECONDS
            elif now >= known.until:
                known.let_go()
