"""
Which purges each process of the fleet has carried out completely, as they tell each other in Redis.

The rule: a process says so only when it holds nothing any more that a purge up to that place in the log removes. What
it says is sealed. Without a readable note, nothing counts as confirmed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sidecar.core.model import Position
from sidecar.fleet.presence import Presence
from sidecar.redis_link.names import Notes, RedisNames

_TEXT = re.compile(r"([0-9a-f]*):([0-9]{1,18}) ([0-9]{1,18}) (.{1,256})\Z")


class Confirmation(NamedTuple):
    """
    A process called *name* has carried out the purges up to *position*. *dropped*: how many entries purges have taken
    from its memory since it started.
    """

    name: str
    position: Position
    dropped: int

    def covers(self, position: Position) -> bool:
        """Whether the purge at *position* is among them. Places in two different logs cannot be compared."""
        return self.position.incarnation == position.incarnation and self.position.number >= position.number


class Peer(NamedTuple):
    """A process that counts at present: seconds since its last sign of life, and what it says, if that is readable."""

    quiet_seconds: float
    says: Confirmation | None


class Confirmations:
    """Reads the notes of *presence*. *names* bind them to their namespace."""

    def __init__(self, presence: Presence, names: RedisNames, notes: Notes) -> None:
        self._presence = presence
        self._notes = Confirmed(names, notes)

    def __repr__(self) -> str:
        return f"<Confirmations {self._presence!r}>"

    @property
    def own(self) -> bytes:
        """The name of this process among the peers."""
        return self._presence.member

    async def peers(self) -> dict[bytes, Peer]:
        """The processes of the fleet. Raises ``FleetAway``."""
        found = await self._presence.members()
        return {
            name: Peer(member.quiet_seconds, None if member.note is None else self._notes.read(member.note))
            for name, member in found.items()
        }


class Confirmed:
    """Seals and opens confirmations of the fleet of *names*."""

    def __init__(self, names: RedisNames, notes: Notes) -> None:
        self._before = b"confirmed " + names.news.removesuffix(b"news") + b" "
        self._notes = notes

    def __repr__(self) -> str:
        return f"<Confirmed {self._before!r}>"

    def write(self, said: Confirmation) -> bytes:
        """The note of a confirmation."""
        place = f"{said.position.incarnation.hex()}:{said.position.number}"
        return self._notes.seal_note(self._before + f"{place} {said.dropped} {said.name[:256]}".encode())

    def read(self, note: bytes) -> Confirmation | None:
        """The confirmation in a note; None if none of our secrets made it, or another namespace did."""
        text = self._notes.open_note(note)
        if text is None or not text.startswith(self._before):
            return None
        found = _TEXT.match(text.removeprefix(self._before).decode("utf-8", "replace"))
        if found is None:
            return None
        return Confirmation(found[4], Position(bytes.fromhex(found[1]), int(found[2])), int(found[3]))
