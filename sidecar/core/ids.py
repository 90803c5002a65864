"""
The ids by which people refer to single requests.

The rule: an id names one request of one process and says nothing about it. The key of the request is remembered for a
while.
"""

from __future__ import annotations

from sidecar.core.model import Key

REMEMBERED = 4096
"""The most requests whose keys are remembered, latest first."""


class Ids:
    """Ids that begin with *instance*, which no other process has. *given* counts them."""

    __slots__ = ("_instance", "_keys", "given")

    def __init__(self, instance: bytes) -> None:
        self._instance = instance
        self._keys: list[Key | None] = [None] * REMEMBERED
        self.given = 0

    def __repr__(self) -> str:
        return f"<Ids {self._instance.decode()}, {self.given} given>"

    def give(self, key: Key | None = None) -> bytes:
        """A new id, for a request of *key* if it has one."""
        self.given += 1
        self._keys[self.given % REMEMBERED] = key
        return b"%b-%08x" % (self._instance, self.given)

    def key(self, text: str) -> Key | None:
        """The key of the request with the id *text*; None if it has none, or is no longer remembered."""
        instance, _, number = text.partition("-")
        try:
            count = int(number, 16)
        except ValueError:
            return None
        if instance.encode() != self._instance or not max(0, self.given - REMEMBERED) < count <= self.given:
            return None
        return self._keys[count % REMEMBERED]
