"""
The clock that runs on; everything in this process is measured by it.

The rule: nobody can set it, and it counts the time for which the machine slept. The wall clock can be set, and Python's
monotonic clock on Linux does not count sleep.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

running = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Seconds since the machine started. If the system has no such clock: seconds for which the machine was awake."""


@dataclass(frozen=True)
class Clocks:
    """
    What one sidecar measures, pauses and draws by: *wall* and *running* clock, seconds; *pause* waits some seconds
    before a region is asked again; *draw* is uniform in [0, 1).
    """

    wall: Callable[[], float] = time.time  # noqa: TID251  the clocks are handed out from here
    running: Callable[[], float] = running
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Callable[[], float] = random.random


CLOCKS = Clocks()
"""The machine's own."""
