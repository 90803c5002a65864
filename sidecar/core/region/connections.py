"""
Why connections to services are opened (to replace a lost one, or because there are more calls at once), and when a
connection is old enough to be replaced.

The rule: every opened connection has one reason, and every lost one is the reason for at most one other. The age of a
connection is checked only between two calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from enum import StrEnum

from msgspec import Struct, field

DESTINATIONS = 256
"""For so many destinations the lost connections are known; for any other, a new connection counts as the first."""


OLD = 300.0
"""Average use of a connection, in seconds: so a name that moves is followed, however busy its connections are."""

SPREAD = 0.2
"""The part by which terms differ up or down, so that connections opened together are not replaced together."""


class Opened(StrEnum):
    """Why a connection was opened. A closed set: it labels a metric."""

    FIRST = "first"
    """There was no connection to the destination."""
    BUSY = "busy"
    """Each existing connection had a call on it."""
    IDLE = "idle"
    """The previous connection was unused for long."""
    AGED = "aged"
    """The previous connection was open for long."""
    MOVED = "moved"
    """The previous connection led to an address that its host's name no longer has."""
    CLOSED = "closed"
    """The service closed the previous connection, or asked for that."""
    DIED = "died"
    """The previous connection broke under a call."""
    DROPPED = "dropped"
    """The previous connection was given up with its call: the caller left, or the answer came before all was sent."""


class ConnectionTerm(Struct, frozen=True):
    """
    How long a connection is used: until *ends*, monotonic seconds. *host* is the name for which it was opened,
    *address* the address that the name had.
    """

    host: str
    address: str
    ends: float


def term(host: str, address: str, now: float, old: float, draw: float) -> ConnectionTerm:
    """The term of a connection opened *now*; connections last for *old* seconds. *draw* is uniform in [0, 1)."""
    return ConnectionTerm(host, address, now + old * (1 - SPREAD + 2 * SPREAD * draw))


def outlived(of: ConnectionTerm, now: float, old: float, missing: float) -> Opened | None:
    """
    Why a connection should no longer be used; None if it should. *missing*: for how many seconds the answers for its
    host have come without its address. A short time is no reason, because many names have more addresses than one
    answer shows.
    """
    if missing >= old:
        return Opened.MOVED
    return Opened.AGED if now >= of.ends else None


class _Destination(Struct):
    """*opened*: open connections, and those being opened. *lost*: closed ones without a replacement, latest last."""

    opened: int = 0
    lost: list[Opened] = field(default_factory=list)


class Census:
    """
    Counts the connections opened, by reason, in *counts*.

    Call ``opening`` before each attempt to open one, then ``failed``, or ``lost`` when the connection is closed.
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
        """The connection is open."""
        self.counts[reason] += 1

    def failed(self, key: Hashable, reason: Opened) -> None:
        """The connection could not be opened: the lost one that it was to replace still needs a replacement."""
        known = self._gone(key)
        if known is not None and reason not in {Opened.FIRST, Opened.BUSY}:
            known.lost.append(reason)

    def lost(self, key: Hashable, reason: Opened) -> None:
        """A connection is closed."""
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
        """Make room: forget a destination without connections, otherwise the oldest."""
        unused = next((key for key, known in self._known.items() if not known.opened), None)
        del self._known[next(iter(self._known)) if unused is None else unused]
