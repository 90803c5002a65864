"""
The end of something that holds for a limited time.

The rule: setting the wall clock back never makes anything last longer than was said.
"""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """*until* by the wall clock, which the fleet shares; *end* by the clock that runs on. The earlier one counts."""

    until: float
    end: float

    def left(self, now: float, clock: float) -> float:
        """Seconds until the end, 0 or less after it; *now* by the wall clock, *clock* by the one that runs on."""
        return min(self.until - now, self.end - clock)


def term(until: float, now: float, clock: float) -> Term:
    """The term of something that ends at *until*, wall clock; *now* and *clock* are the time at which it was said."""
    return Term(until, clock + (until - now))
