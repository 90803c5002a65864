"""
What is known of host names: their addresses, how long these are valid, and which addresses a name no longer has.

The rule: an answer is valid for its time to live. While look-ups fail, the last answer goes on serving. That a name has
no address is an answer, too, and replaces what was known.
"""

from __future__ import annotations

from msgspec import Struct, field

NAMES = 512
"""The most names that are remembered; services with a resource in their host can have any number."""

SHORTEST = 1.0
"""The shortest time that an answer is valid, seconds: the hosts file gives none, and some servers say 0."""

LONGEST = 300.0
"""The longest time that an answer is valid, seconds, whatever its server says: so a moved name is noticed."""

ABSENT_SECONDS = 2.0
"""How long it is remembered that a name has no address, or that its look-up failed."""

KEPT_SECONDS = 5.0
"""After a failed look-up, the previous answer serves for so long until the next look-up."""

LEFT = 256
"""The most former addresses of a name that are remembered."""


class Known(Struct):
    """
    What is known of a name. *fault* says why it has no *addresses*. Both are valid *until* then. *left*: for each
    former address, when an answer first came without it.
    """

    addresses: tuple[str, ...] = ()
    fault: str = ""
    until: float = 0.0
    left: dict[str, float] = field(default_factory=dict)
    turns: int = 0

    def turn(self) -> tuple[str, ...]:
        """
        The addresses, each time beginning with another one, so that connections are spread over them. Those of the
        family that came first stay before the others.
        """
        self.turns += 1
        preferred = ":" in self.addresses[0]
        first = [address for address in self.addresses if (":" in address) is preferred]
        rest = [address for address in self.addresses if (":" in address) is not preferred]
        return (*self._turned(first), *self._turned(rest))

    def _turned(self, addresses: list[str]) -> list[str]:
        start = (self.turns - 1) % len(addresses) if addresses else 0
        return addresses[start:] + addresses[:start]


class HostNames:
    """What is known of each name. *now* is monotonic seconds throughout."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}

    def __repr__(self) -> str:
        return f"<HostNames {len(self._known)}>"

    def known(self, name: str) -> Known | None:
        """What is known of *name*, valid or not."""
        known = self._known.pop(name, None)
        if known is not None:
            self._known[name] = known  # the name used last is forgotten last
        return known

    def learn(self, name: str, addresses: tuple[str, ...], ttl: float, now: float) -> Known:
        """An answer has come: at least one address, valid for *ttl* seconds."""
        known = self._room(name)
        for address in known.addresses:
            if address not in addresses:
                known.left.setdefault(address, now)
        for address in addresses:
            known.left.pop(address, None)
        while len(known.left) > LEFT:
            del known.left[next(iter(known.left))]
        known.addresses, known.fault = addresses, ""
        known.until = now + min(max(ttl, SHORTEST), LONGEST)
        return known

    def absent(self, name: str, fault: str, now: float) -> Known:
        """An answer has come: there is no address; *fault* says why."""
        known = self._room(name)
        for address in known.addresses:
            known.left.setdefault(address, now)
        known.addresses, known.fault = (), fault
        known.until = now + ABSENT_SECONDS
        return known

    def failed(self, name: str, fault: str, now: float) -> Known:
        """No answer has come: what was known goes on serving."""
        known = self._room(name)
        if not known.addresses:
            known.fault = fault
        known.until = now + (KEPT_SECONDS if known.addresses else ABSENT_SECONDS)
        return known

    def missing(self, name: str, address: str, now: float) -> float:
        """For how many seconds the answers for *name* have come without *address*; 0 where they have it."""
        known = self._known.get(name)
        since = None if known is None else known.left.get(address)
        return 0.0 if since is None else now - since

    def _room(self, name: str) -> Known:
        known = self.known(name)
        if known is None:
            while len(self._known) >= NAMES:
                del self._known[next(iter(self._known))]
            known = self._known[name] = Known()
        return known
