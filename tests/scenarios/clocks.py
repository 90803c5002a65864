"""The clocks of labs, which stories put forward, set and stop; nobody waits for time to pass."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sidecar.app.clocks import Clocks, running


class LabClocks:
    """
    The clocks and draws of one lab, the fleet's parts apart: Redis lives in real time, and so does what asks it.

    *wall*, *draw* and *pause* are what the lab reads; *ahead* is how far its clock that runs on has been put forward.
    """

    def __init__(self) -> None:
        self.wall: Callable[[], float] = time.time
        self.draw: Callable[[], float] = random.random
        self.pause: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.ahead: Callable[[], float] = float

    def running(self) -> float:
        return running() + self.ahead()

    def stand_still(self) -> None:
        """Have the clock that runs on show what it shows now."""
        now = self.running()
        self.ahead = lambda: now - running()

    def handed_out(self) -> Clocks:
        """As the sidecar takes them: they follow what a story says later."""
        return Clocks(
            wall=lambda: self.wall(),  # noqa: PLW0108  stories change these
            running=self.running,
            pause=lambda seconds: self.pause(seconds),  # noqa: PLW0108  as above
            draw=lambda: self.draw(),  # noqa: PLW0108  as above
        )

    def without_pauses(self) -> list[float]:
        """Have the lab not wait before it asks a region again; fills up with the seconds that it would have."""
        slept: list[float] = []

        async def pause(seconds: float) -> None:
            slept.append(seconds)
            await asyncio.sleep(0)

        self.pause = pause
        return slept


class WallClock:
    """The wall clock of *labs*, set by hand. What is held in memory is judged by it alone."""

    def __init__(self, labs: Sequence[Any]) -> None:
        self.now = time.time()
        self.passed = 0.0
        for lab in labs:
            lab.clocks.wall = lambda: self.now
            lab.sidecar.memory._clock = lambda: running() + 1e6  # so that this one tells nothing
            if lab.sidecar.fleet is not None:
                lab.sidecar.fleet.remote._now = lambda: time.time() + self.passed

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


class BothClocks:
    """The wall clock of *lab*, set by hand; the clock that runs on goes along with it."""

    def __init__(self, lab: Any) -> None:
        self.now = began = 1_800_000_000.0
        lab.clocks.wall = lambda: self.now
        lab.clocks.ahead = lambda: self.now - began

    def later(self, seconds: float) -> None:
        self.now += seconds


class RunningClock:
    """The clock that runs on, of *lab*: *later* puts it forward."""

    def __init__(self, lab: Any) -> None:
        self._ahead = 0.0
        self.now = lab.clocks.running
        lab.clocks.ahead = lambda: self._ahead

    def later(self, seconds: float) -> None:
        self._ahead += seconds
