"""
The memory ledger: how many bytes of bodies and answers in flight this process holds.

The rule: code that keeps bytes of a request or answer in flight takes them here first, and gives back exactly as many
in a ``finally``. If taking is refused, the bytes go to a file or the call is not collected.
"""

from __future__ import annotations


class Ledger:
    """A counter of bytes with a limit. Not thread-safe: one event loop owns it."""

    __slots__ = ("held", "limit", "peak", "refused")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self.peak = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Ledger {self.held} of {self.limit} bytes, peak {self.peak}, {self.refused} refused>"

    def take(self, size: int) -> bool:
        """Take *size* bytes, or refuse and change nothing."""
        held = self.held + size
        if held > self.limit:
            self.refused += 1
            return False
        self.held = held
        self.peak = max(self.peak, held)
        return True

    def give(self, size: int) -> None:
        """Give back *size* bytes that were taken."""
        self.held -= size
