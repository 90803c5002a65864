"""
An entry in the memory of one process.

The rule: no clock that is set makes an entry younger. The clock of its writer may be ahead of ours, and ours may be set
back; so an entry is at least as old as the time since this process got it.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.model import Entry

MOST_NOTED = 32
"""The most tags noted beside an entry."""


class Held(Struct, frozen=True, gc=False):
    """
    *born* is when the answer was complete, by the clock that runs on, as far as the wall clock told when this process
    got the entry. *noted* are tags of calls that it answered, in addition to its own, and the marks of their routes
    (``purges.mark_of``).
    """

    entry: Entry
    born: float
    noted: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """When the entry can no longer serve anybody, by the clock that runs on."""
        return self.born + self.entry.dead - self.entry.at

    def time(self, now: float, clock: float) -> float:
        """The time by which the entry is judged at *now*, wall clock, and *clock*, the one that runs on."""
        return max(now, self.entry.at + clock - self.born)


def hold(entry: Entry, now: float, clock: float, noted: tuple[str, ...] = ()) -> Held:
    """Hold *entry* from *now* on. An entry from a time ahead of our clock counts as made now."""
    return Held(entry, clock - max(now - entry.at, 0.0), noted)
