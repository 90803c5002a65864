"""
The sidecar, looked at from inside: ``python -m tests.bench.within gaps|profile FILE ARGUMENT...``.

The rule: the arguments are those of the ``sidecar`` command, and what runs is the sidecar itself; when it has ended,
*FILE* holds what was seen. ``gaps``: when its event loop stood still, and for how long. ``profile``: cProfile's
statistics, from the first second on.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
import time
from functools import partial
from pathlib import Path

import uvloop

from sidecar.cli.main import main

TICK = 0.001
"""Seconds between two looks at the clock."""

FLOOR = 0.002
"""Shorter gaps are not told; a timer of uvloop alone may be off by a millisecond."""

STARTED = 1.0
"""Seconds after which a profile begins, so that imports are not in it."""


class Gaps:
    """
    Times (``time.monotonic``) and lengths in milliseconds of the loop's gaps, and how many milliseconds of processor
    time its thread had in each. The rest of a gap it waited for the disk, or because others had its core.
    """

    def __init__(self) -> None:
        self.found: list[tuple[float, float, float]] = []
        self._due = 0.0
        self._spent = 0.0

    def __repr__(self) -> str:
        return f"<Gaps {len(self.found)} found>"

    def new_event_loop(self) -> uvloop.Loop:
        """A loop that is watched from its first step on."""
        loop = uvloop.Loop()
        self._due = time.monotonic() + 1e9
        loop.call_soon(self._tick, loop)
        return loop

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now, spent = time.monotonic(), time.thread_time()
        if now - self._due > FLOOR:
            self.found.append((now, (now - self._due) * 1e3, (spent - self._spent) * 1e3))
        self._due = now + TICK
        self._spent = spent
        loop.call_later(TICK, self._tick, loop)


def _run(what: str, file: Path, arguments: list[str]) -> int:
    gaps, profiler = Gaps(), cProfile.Profile()
    uvloop.new_event_loop = gaps.new_event_loop if what == "gaps" else partial(_profiled, profiler)
    try:
        return main(arguments)
    finally:
        profiler.disable()
        if what == "gaps":
            file.write_text(json.dumps(gaps.found))
        else:
            profiler.dump_stats(file)


def _profiled(profiler: cProfile.Profile) -> uvloop.Loop:
    loop = uvloop.Loop()
    loop.call_later(STARTED, profiler.enable)
    return loop


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
