"""
How many extra attempts a service gets: enough to hide a short failure, too few to make an outage worse.

The rule: every attempt beyond a call's first is taken from one budget, or not made. After Finagle's RetryBudget: a
share of the latest calls, and a floor, so that a service with few calls has some as well. Three attempts are not
counted: once on a new connection where the old one had died of age; once with a newer credential; and the first attempt
of a fallback, which its route has asked for.

*now* is monotonic seconds.
"""

from __future__ import annotations

SECONDS = 10
"""How many counts of one second each make up "the last 10 s", the present second included."""


class Budget:
    """Extra attempts of the last 10 s: at most *share* of that time's calls, and *floor*, available at once."""

    __slots__ = ("_calls", "_extras", "_floor", "_second", "_share", "calls", "extras")

    def __init__(self, share: float = 0.2, floor: float = 100.0) -> None:
        self._share = share
        self._floor = floor
        self._calls = [0] * SECONDS
        self._extras = [0] * SECONDS
        self._second = 0
        self.calls = 0
        self.extras = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.extras} extra to {self.calls} calls>"

    def call(self, now: float) -> None:
        """Count a call: its first attempt, which is always made."""
        if now >= self._second + 1:
            self._pass(int(now))
        self._calls[self._second % SECONDS] += 1
        self.calls += 1

    def take(self, now: float) -> bool:
        """Whether an extra attempt may be made; it counts as made."""
        if self.left(now) < 1.0:
            return False
        self._extras[self._second % SECONDS] += 1
        self.extras += 1
        return True

    def give_back(self) -> None:
        """An attempt that was just taken was not made after all."""
        if self._extras[self._second % SECONDS]:
            self._extras[self._second % SECONDS] -= 1
            self.extras -= 1

    def left(self, now: float) -> float:
        """How many extra attempts are left, not below 0."""
        if now >= self._second + 1:
            self._pass(int(now))
        return max(0.0, self._allowance() - self.extras)

    def _allowance(self) -> float:
        return self._share * self.calls + self._floor

    def _pass(self, second: int) -> None:
        """Drop the counts of the seconds that are past at *second*."""
        for passed in range(self._second + 1, min(second, self._second + SECONDS) + 1):
            at = passed % SECONDS
            self.calls -= self._calls[at]
            self.extras -= self._extras[at]
            self._calls[at] = self._extras[at] = 0
        self._second = second


class HedgeBudget(Budget):
    """
    Second attempts beside a slow first one: at most *share* of all calls so far, and one; and in the last 10 s at most
    *share* of that time's calls, or one, so that a service with few calls gets some, too.
    """

    __slots__ = ("_all_calls", "_all_extras")

    def __init__(self, share: float = 0.05) -> None:
        super().__init__(share, 0.0)
        self._all_calls = 0
        self._all_extras = 0

    def call(self, now: float) -> None:
        """As of any budget."""
        super().call(now)
        self._all_calls += 1

    def take(self, now: float) -> bool:
        """As of any budget."""
        taken = super().take(now)
        self._all_extras += taken
        return taken

    def give_back(self) -> None:
        """As of any budget."""
        before = self.extras
        super().give_back()
        self._all_extras -= before - self.extras

    def left(self, now: float) -> float:
        """As of any budget."""
        ever = 1.0 + self._share * self._all_calls - self._all_extras
        return max(0.0, min(super().left(now), ever))

    def _allowance(self) -> float:
        return max(1.0, super()._allowance())
