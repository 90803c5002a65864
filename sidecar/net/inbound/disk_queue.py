"""
How many bytes of bodies wait for the disk, all bodies together.

The rule: when they are too many, every body writes what it has, and all senders wait until the disk has caught up. Then
those that came first go on first, so that they are done first.
"""

from __future__ import annotations

from collections.abc import Callable

HIGH = 8 * 1024 * 1024
LOW = 2 * 1024 * 1024
"""The queue is full when more than ``HIGH`` bytes wait, until no more than ``LOW`` do."""

Notify = Callable[[], None]


class DiskQueue:
    """What waits, by body: each is a function, which is called when another one has changed *full*."""

    __slots__ = ("_bodies", "full", "waiting")

    def __init__(self) -> None:
        self._bodies: dict[Notify, int] = {}
        self.waiting = 0
        self.full = False

    def __repr__(self) -> str:
        return f"<DiskQueue {self.waiting} bytes of {len(self._bodies)} bodies{', full' * self.full}>"

    def add(self, notify: Notify, size: int) -> None:
        """*size* more bytes of a body wait, which is in the queue from now on until it leaves."""
        self._bodies[notify] = self._bodies.get(notify, 0) + size
        self._set(self.waiting + size, notify)

    def written(self, notify: Notify, size: int) -> None:
        """The disk has *size* bytes of a body. Harmless after it has left."""
        if notify in self._bodies:
            self._bodies[notify] -= size
            self._set(self.waiting - size, notify)

    def leave(self, notify: Notify) -> None:
        """A body does not wait any more, whatever it had. Harmless when repeated."""
        self._set(self.waiting - self._bodies.pop(notify, 0), notify)

    def _set(self, waiting: int, by: Notify) -> None:
        self.waiting = waiting
        full = waiting > (LOW if self.full else HIGH)
        if full != self.full:
            self.full = full
            for notify in [notify for notify in self._bodies if notify != by]:
                notify()
