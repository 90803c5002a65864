"""
An entry as one process holds it.

The rule: no clock that is set makes an entry younger. Its writer's clock may be ahead of ours, and ours may be set
back; so an entry is at least as old as the time for which this process has known it.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.model import Entry

MOST_NOTED = 32
"""Tags that stand beside an entry."""


class Held(Struct, frozen=True, gc=False):
    """
    *born* is when the answer was complete by the clock that runs on, as far as the wall clock told when this process
    got the entry. *noted* are tags of calls that it answered, beyond the entry's own, and the marks of their routes
    (``purges.mark_of``).
    """

    entry: Entry
    born: float
    noted: tuple[str, ...] = ()

    @property
    def end(self) -> float:
        """When it can serve nobody any more, by the clock that runs on."""
        return self.born + self.entry.dead - self.entry.at

    def time(self, now: float, clock: float) -> float:
        """The time by which the entry is judged at *now*, wall clock, and *clock*, the one that runs on."""
        return max(now, self.entry.at + clock - self.born)


def hold(entry: Entry, now: float, clock: float, noted: tuple[str, ...] = ()) -> Held:
    """*entry* as it is held from *now* on. One that comes from a time ahead of ours is as old as one of now."""
    return Held(entry, clock - max(now - entry.at, 0.0), noted)
