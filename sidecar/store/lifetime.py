"""
How long an entry has to live in a tier behind memory, and what that means to another process's clock.

The rule: nothing lives longer by being handed on.
"""

from __future__ import annotations

from msgspec.structs import replace

from sidecar.core.model import Entry


def life(entry: Entry, now: float) -> float:
    """
    Seconds for which *entry* may serve yet, stale or not; whole milliseconds, 0 where it may no more. Where the clock
    has been set back since it was made, no more than it had then.
    """
    return _left(entry, max(now, entry.at))


def aligned(entry: Entry, seconds: float, now: float) -> Entry:
    """
    *entry* in this process's time: where its writer's clock is ahead of ours it would live longer here than the
    *seconds* that it has there, so it becomes older by the difference.
    """
    excess = _left(entry, now) - seconds
    return replace(entry, at=entry.at - excess) if excess > 0 else entry


def _left(entry: Entry, now: float) -> float:
    return max(0, int((entry.dead - now) * 1000)) / 1000
