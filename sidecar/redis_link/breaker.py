"""
When Redis is asked, and when it is left alone.

The rule: calls find out that Redis is down; only probes find out that it is back. So at most a few calls pay for an
outage, however long it lasts.
"""

from __future__ import annotations

FAILURES = 3
"""So many failures in a row open the breaker."""

FIRST_PAUSE = 0.1
LAST_PAUSE = 3.0
"""The longest time between probes; it doubles from the first value to the last."""

STEADY = 10.0
"""If Redis fails again within so many seconds of its return, the pauses go on from where they were."""


class LinkBreaker:
    """Closed while Redis is asked. *openings* counts how often it opened."""

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
        """A call was answered, even if by an error: Redis works. A late answer does not close an open breaker."""
        self._failures = 0

    def failed(self, now: float, *, refused: bool = False) -> bool:
        """
        A call got no answer, or was *refused* for missing rights, which does not pass without action.

        Returns whether this opened the breaker.
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
