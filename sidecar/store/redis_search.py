"""
One look-up in Redis: for an answer, for the lease to fetch it, or for another process's answer.

The rule: what a search has found stands in its fields, so nothing is lost when Redis goes away in the middle.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from sidecar.core.cache.beside import Asked
from sidecar.core.key.keyring import Keyring
from sidecar.core.key.keyring import name as name_of
from sidecar.core.model import Entry, Key
from sidecar.errors import FleetAway
from sidecar.store.base import Suffices
from sidecar.store.ports import FetchLeases

FIRST_PAUSE = 0.01
"""Seconds between the first two looks of a waiting call; doubled from look to look."""

JITTER = 0.1
"""Processes spread their own upstream calls over so many seconds after a fetch without an answer to share."""

TAIL = 32
"""Bytes at the end of an envelope that differ in every envelope, because the authentication tag is among them."""


class SearchedRemote(Protocol):
    """What a search needs of the remote store that it looks into; ``store/redis.RedisRemote`` is one."""

    hits: int
    waits: int
    takeovers: int

    @property
    def leases(self) -> FetchLeases:
        """The fleet's leases."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def draw(self) -> float:
        """Uniform in [0, 1)."""

    async def open(self, name: bytes, key: Key, value: bytes, seconds: float) -> Entry | None:
        """The entry in *value*, if it may serve."""

    async def read(self, name: bytes, budget: Any) -> tuple[bytes, float] | None:
        """What stands under *name*, and how many seconds it has to live."""

    async def hand_in(self, grant: Any, key: Key, entry: Entry) -> None:
        """Store *entry* and give *grant* back."""


class RedisLease:
    """A ``Lease`` of *remote*."""

    __slots__ = ("_grant", "_key", "_remote")

    def __init__(self, remote: SearchedRemote, key: Key, grant: Any) -> None:
        self._remote = remote
        self._key = key
        self._grant = grant

    def __repr__(self) -> str:
        return f"<RedisLease {self._grant or 'given back'}>"

    def keep(self, entry: Entry) -> None:
        """Begin to store *entry* and give the lease back."""
        grant, self._grant = self._grant, None
        if grant is not None:
            self._remote.leases.begin(self._remote.hand_in(grant, self._key, entry))

    def stall(self, *, stuck: bool) -> None:
        """Begin to tell those who wait whether the call is *stuck*."""
        if self._grant is not None:
            self._remote.leases.stall(self._grant, stuck=stuck)

    def release(self, *, failed: bool) -> None:
        """Begin to give the lease back without an answer."""
        grant, self._grant = self._grant, None
        if grant is not None:
            self._remote.leases.release(grant, failed=failed)


class Search:
    """
    One fetch: look until there is an entry that suffices, the lease, or the news that there will be neither.

    The entry is looked for under the name that *keyring*'s first secret gives it, and once under that by the secret
    which is being replaced. What was found so far stays in the fields, so it is not lost if Redis goes away in the
    middle. *verdict*: what *suffices* said of the *entry*, if that suffices; then nothing was waited for since.
    """

    __slots__ = (
        "_beside", "_budget", "_elsewhere", "_key", "_name", "_remote", "_seen", "_suffices", "entry", "lease",
        "second", "verdict", "waited",
    )  # fmt: skip

    def __init__(self, remote: SearchedRemote, key: Key, suffices: Suffices, keyring: Keyring, beside: Asked) -> None:
        self._beside = beside
        self._remote = remote
        self._key = key
        self._suffices = suffices
        first, *self._elsewhere = keyring.keys
        self._name = name_of(first, key)
        self._budget = remote.leases.budget()
        self._seen = b""
        self.entry: Entry | None = None
        self.lease: RedisLease | None = None
        self.verdict: Any = None
        self.waited = False
        self.second = False

    async def run(self, patience: float) -> None:
        """Look, and wait up to *patience* seconds while another process fetches. Raises ``FleetAway``."""
        remote = self._remote
        until = remote.clock() + patience
        pause = FIRST_PAUSE
        note = b"1" if patience > 0 else b""
        while True:
            done, seconds = await self._look(note)
            left = until - remote.clock()
            if done or left <= 0:
                return
            if not self.waited:
                self.waited = True
                remote.waits += 1
            await remote.leases.wait(self._name, min(pause * (0.5 + remote.draw()), left, seconds + FIRST_PAUSE))
            pause = min(pause * 2, remote.leases.ceiling)
            note = b"0"
            # A wait may take minutes and hundreds of looks, so each look has its own deadline; the first failure ends
            # the wait.
            self._budget = remote.leases.budget()

    async def _look(self, note: bytes) -> tuple[bool, float]:
        """Whether the search is over; and for how many seconds another process holds the lease."""
        remote, name = self._remote, self._name
        try:
            while True:
                sight = await remote.leases.look(name, self._budget, seen=self._seen, note=note, beside=self._beside())
                if sight.value is None:
                    break
                if await self._take(name, sight.value, sight.seconds):
                    return True, 0.0
                self._seen = sight.value[-TAIL:]
        except FleetAway as away:
            if self.waited and away.reason == "busy":
                return False, remote.leases.ceiling  # so many calls wait here that this look had no turn; Redis works
            raise
        if sight.grant is not None:
            self.lease = RedisLease(remote, self._key, sight.grant)
            self.second = sight.grant.second
            remote.takeovers += self.waited and not self.second
        if self.entry is None and await self._move():
            return True, 0.0
        if sight.held:
            return False, sight.seconds
        if self.waited and self.lease is None:
            await asyncio.sleep(remote.draw() * JITTER)
        return True, 0.0

    async def _take(self, name: bytes, value: bytes, seconds: float) -> bool:
        """Note what was found under *name*. Returns whether it suffices."""
        entry = await self._remote.open(name, self._key, value, seconds)
        if entry is None:
            return False
        self.entry = entry
        verdict = self._suffices(entry)
        if not verdict:
            return False
        self._remote.hits += 1
        self.verdict = verdict
        return True

    async def _move(self) -> bool:
        """
        Look once under the name by the secret that is being replaced, and store a sufficient entry under the first
        secret's name. Otherwise every process would look here, one after the other.
        """
        while self._elsewhere:
            elsewhere = name_of(self._elsewhere.pop(), self._key)
            found = await self._remote.read(elsewhere, self._budget)
            if found is not None and await self._take(elsewhere, *found):
                if self.lease is not None and self.entry is not None:
                    self.lease.keep(self.entry)
                    self.lease = None
                return True
        return False
