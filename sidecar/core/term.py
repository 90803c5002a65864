"""
When something ends that was said to hold for a time.

The rule: a wall clock that is set back makes nothing last longer than was said.
"""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """*until* by the wall clock, which the fleet has in common; *end* by the clock that runs on. The sooner counts."""

    until: float
    end: float

    def left(self, now: float, clock: float) -> float:
        """Seconds until it is over, 0 or less when it is; *now* by the wall clock, *clock* by the one that runs on."""
        return min(self.until - now, self.end - clock)


def term(until: float, now: float, clock: float) -> Term:
    """What was said to end at *until*, wall clock, at *now* and *clock*."""
    return Term(until, clock + (until - now))
