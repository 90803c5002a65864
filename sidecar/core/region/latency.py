"""
How quick regions and routes were lately.

The rule: old values count less, and a place that was not tried for long deserves another try. Everything is bounded.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from math import ceil, exp

from sidecar.core.memo import Memo

MEMORY_SECONDS = 60.0
"""After so many seconds a value weighs 1/e of a new one."""

FEWEST = 20
"""The fewest values for a quantile."""


class Latency:
    """
    Mean seconds to the commit point by place; older calls weigh less. At most *limit* places; the one without a call
    for longest is dropped first.

    A place without calls looks quicker as time passes, so that one that was slow once is asked again (as Finagle's peak
    EWMA does): after 3 minutes if it was 20 times slower than the others.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._seen: OrderedDict[Hashable, tuple[float, float, float]] = OrderedDict()  # weighted sum, weights, when

    def __repr__(self) -> str:
        return f"<Latency of {len(self._seen)} places>"

    def note(self, place: Hashable, seconds: float, now: float) -> None:
        """A call to *place* took *seconds*; *now* is monotonic seconds."""
        total, weights, at = self._seen.pop(place, (0.0, 0.0, now))
        kept = _kept(now - at)
        self._seen[place] = (total * kept + seconds, weights * kept + 1.0, now)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def drop(self, is_gone: Callable[[Hashable], bool]) -> None:
        """Forget all places that are gone."""
        for place in [place for place in self._seen if is_gone(place)]:
            del self._seen[place]

    def of(self, place: Hashable, now: float) -> float | None:
        """The seconds that *place* is expected to take; None if it was never asked."""
        seen = self._seen.get(place)
        if seen is None:
            return None
        total, weights, at = seen
        return total / weights * _kept(now - at)


class Quantile:
    """The value that *share* of the last *limit* values do not exceed (nearest rank)."""

    __slots__ = ("_found", "_share", "_stale", "_values")

    def __init__(self, share: float = 0.95, limit: int = 256) -> None:
        self._share = share
        self._values: deque[float] = deque(maxlen=limit)
        self._found: float | None = None
        self._stale = False

    def __repr__(self) -> str:
        return f"<Quantile {self._share:g} of {len(self._values)} values>"

    def add(self, value: float) -> None:
        """Add a value, in place of the oldest."""
        self._values.append(value)
        self._stale = True

    @property
    def value(self) -> float | None:
        """The quantile, None as long as there are fewer than ``FEWEST`` values."""
        if self._stale and len(self._values) >= FEWEST:
            rank = ceil(self._share * len(self._values))
            self._found = sorted(self._values)[max(rank, 1) - 1]
            self._stale = False
        return self._found


class Paces:
    """
    How long an answer of a route takes to its commit point, whole answers and streams apart; at most *limit* routes,
    the oldest are dropped first.
    """

    __slots__ = ("_seen",)

    def __init__(self, limit: int = 256) -> None:
        self._seen: Memo[tuple[str, bool], Quantile] = Memo(limit)

    def __repr__(self) -> str:
        return f"<Paces of {len(self._seen)} routes>"

    def note(self, route: str, seconds: float, *, streaming: bool) -> None:
        """A good answer of *route* took *seconds*."""
        pace = self._seen.get((route, streaming))
        if pace is None:
            pace = Quantile()
            self._seen.put((route, streaming), pace)
        pace.add(seconds)

    def usual(self, route: str, *, streaming: bool) -> float | None:
        """The seconds that 95 % of the last answers of *route* did not exceed, None for fewer than ``FEWEST``."""
        pace = self._seen.get((route, streaming))
        return None if pace is None else pace.value


def _kept(age: float) -> float:
    return exp(-max(age, 0.0) / MEMORY_SECONDS)
