"""
Why connections to the services are opened: each either replaces one that was lost, or is there because there are more
calls at once. And when one has served for long enough.

The rule: every connection opened has one reason, and every one lost is the reason of at most one other. A connection is
judged by its age only between two calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from enum import StrEnum

from msgspec import Struct, field

DESTINATIONS = 256
"""Of so many destinations it is known what was lost there; of others, a new connection is simply the first."""


OLD = 300.0
"""Seconds for which a connection is used, on average: so a name that moves is followed, however busy they are."""

SPREAD = 0.2
"""By so much of that, more or less, connections differ: those opened together are not replaced together."""


class Opened(StrEnum):
    """Why a connection was opened. A closed set: it labels a metric."""

    FIRST = "first"
    """There was none to the destination."""
    BUSY = "busy"
    """Each that there was had a call on it."""
    IDLE = "idle"
    """The one before had been unused for long."""
    AGED = "aged"
    """The one before had been open for long."""
    MOVED = "moved"
    """The one before led to an address that its host's name no longer has."""
    CLOSED = "closed"
    """The service closed the one before, or asked for that."""
    DIED = "died"
    """The one before broke under a call."""
    DROPPED = "dropped"
    """The one before was given up with its call: its caller left, or its answer came before its request was sent."""


class ConnectionTerm(Struct, frozen=True):
    """
    How long a connection is used: until *ends*, monotonic seconds. *host* is the name it was opened for, *address*
    where that led.
    """

    host: str
    address: str
    ends: float


def term(host: str, address: str, now: float, old: float, draw: float) -> ConnectionTerm:
    """The term of a connection opened *now*, where connections last for *old* seconds. *draw* is uniform in [0, 1)."""
    return ConnectionTerm(host, address, now + old * (1 - SPREAD + 2 * SPREAD * draw))


def outlived(of: ConnectionTerm, now: float, old: float, missing: float) -> Opened | None:
    """
    Why a connection should not be used any more, None where it should. *missing*: for how many seconds the answers for
    its host have come without its address. One that is missing for a short time only is no reason: many names have
    more addresses than stand in one answer.
    """
    if missing >= old:
        return Opened.MOVED
    return Opened.AGED if now >= of.ends else None


class _Destination(Struct):
    """*opened*: connections there are, those being opened too. *lost*: those gone and not replaced, latest last."""

    opened: int = 0
    lost: list[Opened] = field(default_factory=list)


class Census:
    """
    Counts the connections opened, by reason, in *counts*.

    ``opening`` before each attempt to open one, and then either ``failed``, or ``lost`` when it is gone.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._known: dict[Hashable, _Destination] = {}

    def __repr__(self) -> str:
        return f"<Census of {len(self._known)} destinations, {self.counts.total()} connections>"

    def opening(self, key: Hashable) -> Opened:
        """Why a connection to *key* has to be opened now."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= DESTINATIONS:
                self._forget()
            known = self._known[key] = _Destination()
        reason = known.lost.pop() if known.lost else Opened.BUSY if known.opened else Opened.FIRST
        known.opened += 1
        return reason

    def succeeded(self, reason: Opened) -> None:
        """It is there."""
        self.counts[reason] += 1

    def failed(self, key: Hashable, reason: Opened) -> None:
        """It could not be opened: what it was to replace is still to be replaced."""
        known = self._gone(key)
        if known is not None and reason not in {Opened.FIRST, Opened.BUSY}:
            known.lost.append(reason)

    def lost(self, key: Hashable, reason: Opened) -> None:
        """One is gone."""
        known = self._gone(key)
        if known is not None:
            known.lost.append(reason)

    def _gone(self, key: Hashable) -> _Destination | None:
        known = self._known.get(key)
        if known is not None and known.opened:
            known.opened -= 1
            return known
        return None

    def _forget(self) -> None:
        """Make room: for one without connections where there is such, else for the oldest."""
        unused = next((key for key, known in self._known.items() if not known.opened), None)
        del self._known[next(iter(self._known)) if unused is None else unused]
