"""
The fleet's answers, in Redis: the ``Remote`` that all pods of a namespace share.

The rule: no fault of Redis, or of its data, reaches a caller. An entry that cannot be read, opened or admitted counts
as missing; one that cannot be written is not kept. Every look-up is one script that reads the entry, or takes the lease
if there is none. All work around it has the same deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from sidecar.core.cache.beside import Asked, never
from sidecar.core.key.keyring import Keyring
from sidecar.core.key.keyring import name as name_of
from sidecar.core.model import Entry, Key
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.store.base import NOTHING, Fetched, Suffices
from sidecar.store.lifetime import aligned, life
from sidecar.store.ports import FetchLeases
from sidecar.store.redis_search import Search
from sidecar.store.seal import ALLOWANCE, Seal
from sidecar.store.values import Values
from sidecar.store.warm import pages
from sidecar.store.write_behind import WriteBehind
from sidecar.tasks import SCANNED_IN_LOOP, Spawn, in_thread_if_large

FLUSH_SECONDS = 1.0
"""How long leases, and then the delayed writes, may take to finish when the process ends."""

WARM_SECONDS = 2.0
"""How long a warm start may take."""


class RedisRemote:
    """
    The ``Remote`` in Redis. *keyring* is asked anew for each call. *admits* says whether purges allow an entry to serve
    and be kept. *now* is the wall clock, *clock* monotonic seconds, *draw* uniform in [0, 1). *limit* is the largest
    ``Entry.size`` that is kept. *report* gets bugs; *let_go* closes the connections.

    Counters: *hits*, *waits* for another process and *takeovers* of its lease after waiting; *behind* has those of the
    delayed writes, *seal* those of envelopes.
    """

    def __init__(
        self,
        link: RedisLink,
        leases: FetchLeases,
        values: Values,
        names: RedisNames,
        seal: Seal,
        keyring: Callable[[], Keyring],
        *,
        admits: Callable[[Key, Entry], bool],
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        spawn: Spawn,
        report: Callable[[BaseException], None],
        let_go: Callable[[], Awaitable[None]],
        limit: int,
    ) -> None:
        self.link = link
        self.leases = leases
        self.seal = seal
        self.clock = clock
        self.draw = draw
        self.behind = WriteBehind(self._write, spawn=spawn)
        self.hits = 0
        self.waits = 0
        self.takeovers = 0
        self._admits = admits
        self._values = values
        self._names = names
        self._keyring = keyring
        self._now = now
        self._report = report
        self._let_go = let_go
        self._limit = limit

    def __repr__(self) -> str:
        return f"<RedisRemote {self.hits} hits, {self.waits} waits, {self.leases!r}, {self.behind!r}>"

    async def fetch(self, key: Key, suffices: Suffices, *, patience: float, beside: Asked = never) -> Fetched:
        """Read the entry of *key*, or take the lease on it, or wait for the process that has it."""
        try:
            search = Search(self, key, suffices, self._keyring(), beside)
        except Exception as error:  # noqa: BLE001 - a bug here must cost the caller no more than a look-up
            self._report(error)
            return NOTHING
        try:
            await search.run(patience)
        except FleetAway:
            pass
        except Exception as error:  # noqa: BLE001 - as above
            self._report(error)
        except BaseException:
            if search.lease is not None:
                search.lease.release(failed=False)
            raise
        if search.entry is not None and search.verdict is None and not self.admits(key, search.entry):
            search.entry = None  # purged while we waited
        return Fetched(search.entry, search.lease, search.waited, search.second, search.verdict)

    def keep(self, key: Key, entry: Entry) -> None:
        """Put *entry* into the queue of writes; one that is too large counts as dropped."""
        if entry.size > self._limit:
            self.behind.drops += 1
        else:
            self.behind.put(key, entry)

    def delete(self, keys: Iterable[Key]) -> None:
        """Begin to delete the entries of *keys*, under the name that each secret gives them."""
        try:
            names = []
            for key in keys:
                self.behind.cancel(key)
                names += [name_of(secret, key) for secret in self._keyring().keys]
            if names:
                self.leases.begin(self._delete(names))
        except Exception as error:  # noqa: BLE001 - as in fetch
            self._report(error)

    async def warm(self, take: Callable[[Key, Entry], object], most: int) -> int:
        """
        Give *take* up to *most* entries, in no order: one connection, one command at a time, ``WARM_SECONDS`` at most.
        Returns their number; raises only cancellation.
        """
        until = self.clock() + WARM_SECONDS
        taken = 0
        try:
            async with aclosing(pages(self.link, self._names.entry, self.leases.budget)) as found:
                async for names in found:
                    if self.clock() >= until:
                        return taken  # pages without entries of ours take time, too
                    for name in names:
                        if taken >= most or self.clock() >= until:
                            return taken
                        taken += await self._warm_one(name, take)
        except FleetAway:
            pass
        except Exception as error:  # noqa: BLE001 - as in fetch
            self._report(error)
        return taken

    async def settle(self) -> None:
        """
        There are new purges: let go of the waiting entries that they remove, and wait for the writes under way. Each
        later write asks the purges first.
        """
        self.behind.discard(self.admits)
        await self.behind.settle()
        await self.leases.flush()
        self.seal.forget()

    @property
    def unwritten(self) -> int:
        """How many entries, and other writes, are not in Redis yet."""
        return self.leases.unfinished + self.behind.unwritten

    async def flush(self) -> None:
        """Wait until what has been stored so far is in Redis, or dropped."""
        await self.leases.flush()
        await self.behind.flush()

    async def close(self) -> None:
        """Give the leases back, finish the writes, and close the connections."""
        await self.leases.close(FLUSH_SECONDS)
        await self.behind.close(FLUSH_SECONDS)
        await self._let_go()

    def admits(self, key: Key, entry: Entry) -> bool:
        """Whether purges allow *entry* to serve and be kept; False if that is not known."""
        try:
            return self._admits(key, entry)
        except Exception as error:  # noqa: BLE001 - as in fetch
            self._report(error)
            return False

    async def open(self, name: bytes, key: Key, value: bytes, seconds: float) -> Entry | None:
        """The entry in *value*, which has *seconds* to live; None if it is not an entry, or not admitted."""
        entry = await in_thread_if_large(len(value), SCANNED_IN_LOOP, self.seal.open, name, key, value)
        if entry is None:
            return None
        entry = aligned(entry, seconds, self._now())
        return entry if self.admits(key, entry) else None

    async def read(self, name: bytes, budget: TimeBudget) -> tuple[bytes, float] | None:
        """
        What stands under *name*, and how many seconds it has to live. None if it is too large to be ours; its size is
        asked first, because foreign data is no reason to stop using Redis. Raises ``FleetAway``.
        """
        key = self._names.entry(name)

        async def read(client: Any) -> tuple[bytes, float] | None:
            if not 0 < _whole(await client.strlen(key)) <= self._limit + ALLOWANCE:
                return None
            value = await self._values.get(key)
            if value is None:
                return None
            left = _whole(await client.pttl(key))
            return (value, left / 1000) if left > 0 else None

        return await self.link.run(read, budget, op="get")

    async def hand_in(self, grant: Any, key: Key, entry: Entry) -> None:
        """Store *entry* with *grant*; if it cannot be kept, at least give *grant* back."""
        if grant.lost:
            return
        if not self.admits(key, entry):
            self.leases.release(grant, failed=False)  # purged while it was fetched: another process fetches it again
            return
        try:
            if entry.size <= self._limit and (seconds := life(entry, self._now())) > 0:
                sealed = await in_thread_if_large(entry.size, SCANNED_IN_LOOP, self.seal.seal, grant.name, key, entry)
                await self.leases.keep(grant, sealed, seconds)
                return
        except Exception as error:  # noqa: BLE001 - nobody waits for this who could handle it
            self._report(error)
        self.leases.release(grant, failed=True)

    async def _write(self, key: Key, entry: Entry) -> bool:
        try:
            seconds = life(entry, self._now())
            if seconds <= 0 or not self.admits(key, entry):
                return False
            name = name_of(self._keyring().first, key)
            sealed = await in_thread_if_large(entry.size, SCANNED_IN_LOOP, self.seal.seal, name, key, entry)
            where = self._names.entry(name)
            await self.link.run(
                lambda _: self._values.set(where, sealed, seconds), self.leases.budget(len(sealed)), op="set"
            )
        except FleetAway:
            return False
        except Exception as error:  # noqa: BLE001 - as in hand_in
            self._report(error)
            return False
        return True

    async def _delete(self, names: Sequence[bytes]) -> None:
        try:
            for name in names:
                await self._delete_one(self._names.entry(name))
        except FleetAway:
            pass  # other processes use them until their time is over
        except Exception as error:  # noqa: BLE001 - as in hand_in
            self._report(error)

    async def _delete_one(self, where: bytes) -> None:
        await self.link.run(lambda _: self._values.delete(where), self.leases.budget(), op="delete")

    async def _warm_one(self, name: bytes, take: Callable[[Key, Entry], object]) -> bool:
        found = await self.read(name, self.leases.budget())
        if found is None:
            return False
        value, seconds = found
        opened = await in_thread_if_large(len(value), SCANNED_IN_LOOP, self.seal.unseal, name, value)
        if opened is None:
            return False
        key, entry = opened
        if not self.admits(key, entry):
            return False
        take(key, aligned(entry, seconds, self._now()))
        return True


def _whole(reply: Any) -> int:
    if type(reply) is not int:
        raise FleetAway("malformed", "a number is malformed")
    return reply
