"""
How long an entry lives in a tier behind memory, and how another process's clock sees that.

The rule: passing an entry on never makes it live longer.
"""

from __future__ import annotations

from msgspec.structs import replace

from sidecar.core.model import Entry


def life(entry: Entry, now: float) -> float:
    """
    For how many seconds *entry* may still serve, stale or not; whole milliseconds, 0 if it may not. If the clock was
    set back since the entry was made, no more than it had then.
    """
    return _left(entry, max(now, entry.at))


def aligned(entry: Entry, seconds: float, now: float) -> Entry:
    """
    *entry* in this process's time. If its writer's clock is ahead of ours, it would live longer here than the *seconds*
    that it has there, so it becomes older by the difference.
    """
    excess = _left(entry, now) - seconds
    return replace(entry, at=entry.at - excess) if excess > 0 else entry


def _left(entry: Entry, now: float) -> float:
    return max(0, int((entry.dead - now) * 1000)) / 1000
