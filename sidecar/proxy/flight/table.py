"""
The flights of this process by key, and the keys whose flights should not be waited for.

The rule: find, then join or lead, with no await in between. So each key has at most one flight that can be joined.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator

from sidecar.core.cache.purges import Scope
from sidecar.core.memory_budget import Ledger
from sidecar.errors import Cause, SidecarError, UpstreamFailed
from sidecar.proxy.flight.flight import Flight, Scopes
from sidecar.tasks import Spawn

FINISHED_FOR_NOBODY = 16
"""Calls without callers that are still finished, at most, because their answers are worth storing."""

FetchWork = Callable[[Flight], Awaitable[None]]


class Flights:
    """
    All flights. *spawn* owns the tasks, *report* gets errors that are bugs. *limit*: bytes of an answer that are kept
    whole for late readers. *marks*: how many unshareable keys are remembered.
    """

    def __init__(
        self,
        *,
        spawn: Spawn,
        ledger: Ledger,
        limit: int,
        report: Callable[[BaseException], None],
        marks: int = 4096,
    ) -> None:
        self._spawn = spawn
        self._ledger = ledger
        self._limit = limit
        self._report = report
        self._joinable: dict[Hashable, Flight] = {}
        self._flying: set[Flight] = set()
        self._for_nobody = 0
        self._marks: OrderedDict[Hashable, float] = OrderedDict()
        self._max_marks = marks

    def __repr__(self) -> str:
        return f"<Flights {len(self._flying)} flying, {len(self._joinable)} joinable, {self._for_nobody} for nobody>"

    def __len__(self) -> int:
        return len(self._flying)

    def __iter__(self) -> Iterator[Flight]:
        return iter(tuple(self._flying))

    def adopt(self, limit: int) -> None:
        """Keep up to *limit* bytes of an answer whole, for flights that begin from now on."""
        self._limit = limit

    def find(self, key: Hashable) -> Flight | None:
        """The flight for *key* that a caller may join."""
        return self._joinable.get(key)

    def reserve(self, key: Hashable | None, *, generating: bool, scopes: Scopes = tuple, target: bytes = b"") -> Flight:
        """
        A flight whose fetch has not begun. Callers find it under *key*, where it replaces an earlier one; if *key* is
        None, no caller finds it. A purge of one of *scopes* detaches it, and so does a change of its *target*.

        The caller joins before its next await, and makes sure that the flight is launched or grounded.
        """
        flight = Flight(
            key,
            limit=self._limit,
            ledger=self._ledger,
            generating=generating,
            on_close=self._close,
            on_abandon=self._abandon,
            scopes=scopes,
            target=target,
        )
        if key is None:
            flight.joinable = False
        else:
            earlier = self._joinable.pop(key, None)
            if earlier is not None:
                earlier.superseded = True
                earlier.close()
            self._joinable[key] = flight
        self._flying.add(flight)
        return flight

    def launch(self, flight: Flight, fetch: FetchWork) -> None:
        """Begin the fetch of a reserved flight, in a task of its own."""
        flight.task = self._spawn(_run(flight, fetch, self._report), name="flight")
        flight.task.add_done_callback(lambda _: self._landed(flight))

    def ground(self, flight: Flight) -> None:
        """A reserved flight needs no fetch: the callers that joined were served otherwise, or have left."""
        flight.joinable = False
        self._close(flight)
        self._flying.discard(flight)

    def lead(
        self, key: Hashable | None, fetch: FetchWork, *, generating: bool, scopes: Scopes = tuple, target: bytes = b""
    ) -> Flight:
        """Reserve a flight and launch it."""
        flight = self.reserve(key, generating=generating, scopes=scopes, target=target)
        self.launch(flight, fetch)
        return flight

    def detach(self, purged: Iterable[Scope]) -> int:
        """
        After a purge of *purged*, the flights it concerns serve only the callers that already wait. No caller can join
        them, and their answers are not stored. Returns how many flights that is.
        """
        purged = frozenset(purged)
        taken = [flight for flight in self._flying if not flight.superseded and flight.taken_by(purged)]
        for flight in taken:
            flight.supersede()
        return len(taken)

    def outdate(self, target: bytes) -> None:
        """*target* has been changed: as ``detach``, for the flights that read it."""
        for flight in [flight for flight in self._flying if flight.target == target and not flight.superseded]:
            flight.supersede()

    def mark(self, key: Hashable, until: float) -> None:
        """
        Remember that answers for *key* cannot be shared, so that no caller waits for one (hit-for-miss), *until* that
        time, monotonic seconds.
        """
        self._marks.pop(key, None)
        self._marks[key] = until
        if len(self._marks) > self._max_marks:
            self._marks.popitem(last=False)

    def unmark(self, key: Hashable) -> None:
        """An answer for *key* could be shared, so forget the mark."""
        self._marks.pop(key, None)

    def marked(self, key: Hashable, now: float) -> bool:
        """Whether flights for *key* should not be waited for at *now*."""
        until = self._marks.get(key)
        if until is None:
            return False
        if until <= now:
            del self._marks[key]
            return False
        return True

    def _landed(self, flight: Flight) -> None:
        if not flight.over:  # a task that is cancelled before its first step runs no code
            flight.fail(UpstreamFailed(Cause.DRAINING))
        self._flying.discard(flight)
        if flight.for_nobody:
            self._for_nobody -= 1

    def _close(self, flight: Flight) -> None:
        if flight.key is not None and self._joinable.get(flight.key) is flight:
            del self._joinable[flight.key]

    def _abandon(self, flight: Flight) -> bool:
        """No caller waits any more: True to cancel the call, False to finish it for the store."""
        if not flight.sent or flight.generating or not flight.joinable:
            return True
        if flight.for_nobody:
            return False
        if self._for_nobody >= FINISHED_FOR_NOBODY:
            return True
        flight.for_nobody = True
        self._for_nobody += 1
        return False


async def _run(flight: Flight, fetch: FetchWork, report: Callable[[BaseException], None]) -> None:
    try:
        await fetch(flight)
        flight.finish()
    except SidecarError as error:
        flight.fail(error)
    except asyncio.CancelledError:
        flight.fail(UpstreamFailed(Cause.DRAINING))
        raise
    except Exception as error:  # noqa: BLE001  a bug must reach the readers and the log, not hang them
        report(error)
        flight.fail(UpstreamFailed(Cause.INTERNAL))
