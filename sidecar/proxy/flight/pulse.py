"""
Whether the call of a flight shows signs of life: its answer's head, or any byte.

The rule: a call that has been silent for longer than its route's calls usually take, three times over, is stuck, until
it shows another sign. What is done about that is others' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LEAST = 2.0
"""Seconds of silence that say nothing, however quick the route is."""

TIMES = 3.0
"""By how much a silence is longer than what is usual."""

COLD = 1 / 3
"""Part of the time that a route gives a call for its first byte, which is waited for while nothing is known of it."""


def patience(usual: float | None, first_byte: float) -> float:
    """Seconds of silence up to which a call is well: *usual* for its route, None where too little is known."""
    return max(LEAST, first_byte * COLD if usual is None else usual * TIMES)


class Pulse:
    """
    Of one call, from now on. *patience*: the seconds that it may be silent, asked for only once ``LEAST`` are over;
    *tell* hears of it when the call gets stuck (True), and when it goes on after all.
    """

    __slots__ = ("_at", "_patience", "_tell", "_timer", "stuck")

    def __init__(self, patience: Callable[[], float], tell: Callable[[bool], None]) -> None:
        self.stuck = False
        self._patience = patience
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None
        self.rest()

    def __repr__(self) -> str:
        return f"<Pulse {'stuck' if self.stuck else 'over' if self._timer is None else 'well'}>"

    def sign(self) -> None:
        """A sign of life."""
        if self.stuck:
            self.rest()
            self._tell(False)
        else:
            self._at = asyncio.get_running_loop().time()

    def rest(self) -> None:
        """Begin to wait anew, without a sign."""
        self.end()
        loop = asyncio.get_running_loop()
        self._at = loop.time()
        self._timer = loop.call_later(LEAST, self._look)

    def end(self) -> None:
        """The call is over."""
        self.stuck = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._at + self._patience() - loop.time()
        if left > 0.0:
            self._timer = loop.call_later(left, self._look)
        else:
            self._timer = None
            self.stuck = True
            self._tell(True)
