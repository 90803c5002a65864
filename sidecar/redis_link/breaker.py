"""
When Redis is asked, and when it is left alone.

The rule: calls find out that Redis is sick, probes alone that it is well again; so at most a few calls pay for an
outage, however long it lasts.
"""

from __future__ import annotations

FAILURES = 3
"""Failures in a row, without an answer between, after which Redis is left alone."""

FIRST_PAUSE = 0.1
LAST_PAUSE = 3.0
"""Seconds between probes, at most: a doubling from the first to the last."""

STEADY = 10.0
"""Seconds that a return has to last: where Redis fails again before, the pauses go on from where they were."""


class LinkBreaker:
    """Closed while Redis is asked. *openings* counts how often that ended."""

    __slots__ = ("_closed_at", "_failures", "_probes", "closed", "openings")

    def __init__(self) -> None:
        self.closed = True
        self.openings = 0
        self._failures = 0
        self._probes = 0
        self._closed_at = float("-inf")

    def __repr__(self) -> str:
        return f"<LinkBreaker {'closed' if self.closed else 'open'}, {self.openings} openings>"

    def answered(self) -> None:
        """A call was answered, be it by an error: Redis lives. One that comes late doesn't close an open breaker."""
        self._failures = 0

    def failed(self, now: float, *, refused: bool = False) -> bool:
        """
        A call was not answered, or *refused* for want of rights, which doesn't pass by itself.

        Tells whether this opened the breaker.
        """
        if not self.closed:
            return False
        self._failures += 1
        if self._failures < FAILURES and not refused:
            return False
        self.closed = False
        self.openings += 1
        if now - self._closed_at >= STEADY:
            self._probes = 0
        return True

    def pause(self, draw: float) -> float:
        """
        Seconds until the next probe, never more than ``LAST_PAUSE``.

        *draw*, from [0, 1), spreads the fleet's probes over half of that.
        """
        longest = min(LAST_PAUSE, FIRST_PAUSE * 2.0**self._probes)
        self._probes = min(self._probes + 1, 16)
        return longest * (1.0 + draw) / 2.0

    def close(self, now: float) -> None:
        """A probe was answered."""
        self.closed = True
        self._closed_at = now
        self._failures = 0
