"""
Whether a flight's call shows signs of life: its answer's head, or any byte.

The rule: a call is stuck if it is silent for longer than three times the usual time of its route's calls. It is stuck
until its next sign. Other modules decide what to do about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LEAST = 2.0
"""Seconds of silence that are always normal, even on a quick route."""

TIMES = 3.0
"""A call is stuck when it is silent for this many times the usual time."""

COLD = 1 / 3
"""The allowed silence while a route's usual time is unknown, as a part of its time for the first byte."""


def patience(usual: float | None, first_byte: float) -> float:
    """Seconds that a call may be silent. *usual*: the usual time of its route, None if too little is known."""
    return max(LEAST, first_byte * COLD if usual is None else usual * TIMES)


class Pulse:
    """
    Watches one call, from now on. *patience*: the seconds that it may be silent, asked for only after ``LEAST``
    seconds. *tell* is called with True when the call gets stuck, and with False when it goes on after all.
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
        """The call has shown a sign of life."""
        if self.stuck:
            self.rest()
            self._tell(False)
        else:
            self._at = asyncio.get_running_loop().time()

    def rest(self) -> None:
        """Start the waiting time again, although there was no sign."""
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
