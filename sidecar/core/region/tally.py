"""
The latest calls of a region, counted.

The rule: a call counts while it is among the latest and not too old, and never twice.
"""

from __future__ import annotations

from collections import deque

MEMORY = 300.0
"""Seconds after which a call no longer counts."""


class Tally:
    """The latest calls, at most *size*, none older than ``MEMORY``, and how many of them failed or were slow."""

    __slots__ = ("_calls", "_size", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._calls: deque[tuple[float, bool, bool]] = deque()
        self._size = max(1, size)
        self.failed = 0
        self.slow = 0

    def __repr__(self) -> str:
        return f"<Tally {self.failed} of {len(self)} failed>"

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """A call has ended, *now* in seconds that run on."""
        calls = self._calls
        calls.append((now, failed, slow))
        self.failed += failed
        self.slow += slow
        while len(calls) > self._size or calls[0][0] < now - MEMORY:
            _, failed, slow = calls.popleft()
            self.failed -= failed
            self.slow -= slow

    def resize(self, size: int) -> None:
        """Count at most *size* calls from now on; the oldest leave."""
        self._size = max(1, size)
        while len(self._calls) > self._size:
            _, failed, slow = self._calls.popleft()
            self.failed -= failed
            self.slow -= slow

    def clear(self) -> None:
        """Forget them all."""
        self._calls.clear()
        self.failed = self.slow = 0
