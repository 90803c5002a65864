"""
The clock that runs on, by which everything in this process is measured.

The rule: nobody sets it, and it counts the time for which the machine slept. The wall clock does not have the first of
these, and Python's monotonic clock on Linux not the second.
"""

from __future__ import annotations

import time
from functools import partial

running = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Seconds since the machine started. Where the system has no such clock, those for which the machine was awake."""
