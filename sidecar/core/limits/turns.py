"""
Which call of a route is next, and when.

The rule: a turn is bought for the line, not for a call. The call that is first when the turn comes takes it, and its
difference in tokens is booked as a correction.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from sidecar.core.limits.rates import BRIMFUL, Account, Pair, Worth


class Queued(Protocol):
    """What the line needs to know of a call: whether it lets others go first, and the tokens that it is charged."""

    batch: bool
    charge: int


T = TypeVar("T", bound=Queued)


class Line(Generic[T]):
    """The calls that wait for a turn, in the order in which they came, with batch calls after all others."""

    __slots__ = ("_batch", "_direct", "_tokens")

    def __init__(self) -> None:
        self._direct: OrderedDict[T, None] = OrderedDict()
        self._batch: OrderedDict[T, None] = OrderedDict()
        self._tokens = [0, 0]

    def __repr__(self) -> str:
        return f"<Line {len(self._direct)}, {len(self._batch)} of batches>"

    def __len__(self) -> int:
        return len(self._direct) + len(self._batch)

    def __iter__(self) -> Iterator[T]:
        yield from self._direct
        yield from self._batch

    @property
    def first(self) -> T | None:
        """The call that is next."""
        return next(iter(self), None)

    @property
    def last(self) -> T | None:
        """The call that must leave if there are too many: the last batch call, or the last of all."""
        return next(reversed(self._batch or self._direct), None)

    def join(self, call: T) -> None:
        """Add *call* at the end of its kind."""
        (self._batch if call.batch else self._direct)[call] = None
        self._tokens[call.batch] += call.charge

    def remove(self, call: T) -> bool:
        """*call* stops waiting; False if it did not wait."""
        line = self._batch if call.batch else self._direct
        if call not in line:
            return False
        del line[call]
        self._tokens[call.batch] -= call.charge
        return True

    def ahead(self, *, batch: bool) -> tuple[int, int]:
        """How many calls would be before a new one, and the tokens that they are charged."""
        return (len(self), sum(self._tokens)) if batch else (len(self._direct), self._tokens[0])


class Taken(NamedTuple):
    """
    What several calls got of a shared rate. The first *admitted* may go at once. The next call, if there is one, has
    its turn after *wait*; *reserved*: it has been charged, and goes then without asking again. *fill*: how full the
    buckets are after that.
    """

    admitted: int
    wait: Pair
    reserved: bool
    fill: Pair


class Reservation:
    """Room in the rates, already charged: *charge* tokens and one request, each usable from its own instant on."""

    __slots__ = ("charge", "requests_at", "tokens_at")

    def __init__(self, charge: int, now: float, wait: Pair) -> None:
        self.charge = charge
        self.requests_at = now + wait.requests
        self.tokens_at = now + wait.tokens

    def __repr__(self) -> str:
        return f"<Turn of {self.charge} tokens at {self.at:.3f}>"

    @property
    def at(self) -> float:
        """From when on it can be used."""
        return max(self.requests_at, self.tokens_at)


class Reservations:
    """
    The turns that were bought for a line and not used yet, and how full the buckets are as far as this process knows.

    *alone*: they are bought from this process's own share, because the fleet cannot be asked.
    """

    __slots__ = ("_account", "_bought", "alone")

    def __init__(self) -> None:
        self._account = Account()
        self._bought: deque[Reservation] = deque()
        self.alone = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._bought)} bought{', alone' if self.alone else ''} {self._account!r}>"

    @property
    def next(self) -> Reservation | None:
        """The next turn."""
        return self._bought[0] if self._bought else None

    def use(self) -> Reservation:
        """Take the next turn out."""
        return self._bought.popleft()

    def wait(self, now: float, price: Worth, charge: int, ahead: int, ahead_tokens: int) -> float:
        """
        Seconds until there is room for a call behind *ahead* others; turns already bought for these are not counted
        twice.
        """
        ahead = max(0, ahead - len(self._bought))
        ahead_tokens = max(0, ahead_tokens - sum(turn.charge for turn in self._bought))
        return max(self._account.wait(now, price, charge, ahead=ahead, ahead_tokens=ahead_tokens))

    def buy(self, now: float, price: Worth, charge: int, patience: float) -> float:
        """Buy a turn within *patience* seconds. Returns how long it takes; if that is longer, no turn was bought."""
        wait = self._account.wait(now, price, charge)
        if max(wait) <= patience:
            self._account.take(now, price, charge)
            self._bought.append(Reservation(charge, now, wait))
        return max(wait)

    def hear(self, now: float, taken: Taken, charges: Sequence[int]) -> None:
        """The fleet was asked for *charges*, and gave *taken*."""
        self.alone = False
        self._account.set(now, taken.fill)
        self._bought.extend(Reservation(charge, now, Pair(0.0, 0.0)) for charge in charges[: taken.admitted])
        if taken.reserved:
            self._bought.append(Reservation(charges[taken.admitted], now, taken.wait))

    def give(self, now: float, price: Worth, tokens: int, requests: int = 0) -> None:
        """
        Give so much back; below 0 take it in addition. Room that this process gives back goes to its own line first:
        turns that wait for tokens come so much earlier.
        """
        self._account.take(now, price, -tokens, -requests)
        for turn in self._bought:
            turn.tokens_at -= max(0, tokens) * price.token

    def ceiling(self, now: float, parts: int) -> Pair:
        """
        How full the fleet's buckets can be. A process that has spent its own share, one of *parts*, in the meantime
        gets nothing of what the fleet has saved on top of that, and brings along its part of an overdraft.
        """
        if not self.alone:
            return BRIMFUL
        requests, tokens = self._account.fill(now)
        return Pair(max(requests, requests / parts), max(tokens, tokens / parts))
