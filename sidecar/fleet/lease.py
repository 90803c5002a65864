"""
The fleet's leases: who fetches the answer of a key, so that a thousand processes ask for it once.

The rule: every step is one script on the keys of one slot. Each change carries the token with which the lease was
taken, so a process that has lost its lease changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakSet

from sidecar.core.cache.beside import Beside
from sidecar.errors import FleetAway
from sidecar.fleet.lease_scripts import GIVE_BACK, KEEP, LOOK, RENEW, STALL
from sidecar.fleet.news import News
from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.tasks import Spawn

LEASE_SECONDS = 5.0
"""How long a lease outlives its holder."""

MARK_SECONDS = 1.0
"""How long the mark of a fetch stays that ended without an answer to share."""

SPREAD_SECONDS = 0.0001
"""Waiting processes are woken at different times, spread by so much for each of them: 1000 ask again within 100 ms."""

OWN_SECONDS = 0.5
"""The least time for a command that no call waits for. If such a command were lost, others would wait for the lease."""

WRITE_BYTES_A_SECOND = 16 * 1024 * 1024
"""The least speed at which an answer is written. The time for a command grows with the answer's size accordingly."""

_AT_ONCE = 4
"""Leases that are renewed at a time: half of the default number of connections, because calls need the others."""

_REMEMBERED = 1024
"""The most leases that wait to be given back when Redis answers again; each would end by itself soon after."""


class Grant:
    """
    A lease that this process took. *second*: it is the second lease, taken beside a holder that is stuck. *lost*: this
    process no longer holds it, because it ran out or Redis lost it.
    """

    __slots__ = ("__weakref__", "lost", "name", "second", "token")

    def __init__(self, name: bytes, token: bytes, *, second: bool = False) -> None:
        self.name = name
        self.second = second
        self.token = token
        self.lost = False

    def __repr__(self) -> str:
        return f"<Grant {self.token.decode()}{' lost' if self.lost else ''}>"


class LeaseLook(NamedTuple):
    """
    What a look found. One of: a *value* with the *seconds* it has to live; a *grant*, when this process now has the
    lease; *held*, when another process has the lease for *seconds* more unless it renews it; or nothing: then
    this process fetches, and does not share its answer.
    """

    value: bytes | None = None
    seconds: float = 0.0
    grant: Grant | None = None
    held: bool = False


class Leases:
    """
    The leases of one process. *timeout*: the time for all commands of one call, seconds; *draw* is uniform in [0, 1);
    *random* gives that many random bytes; a value above *largest* bytes cannot be ours. A grant is renewed only while
    somebody holds a reference to it.

    Counters: *lost*, leases that this process no longer held; *granted*, leases that were taken.
    """

    def __init__(
        self,
        link: RedisLink,
        news: News,
        names: RedisNames,
        *,
        timeout: float,
        spawn: Spawn,
        draw: Callable[[], float],
        random: Callable[[int], bytes],
        seconds: float = LEASE_SECONDS,
        largest: int = 64 * 1024 * 1024,
    ) -> None:
        self._link = link
        self._news = news
        self._names = names
        self.timeout = timeout
        self._spawn = spawn
        self._draw = draw
        self._random = random
        self._seconds = seconds
        self._life = _milliseconds(seconds)
        self._largest = largest
        self._grants: WeakSet[Grant] = WeakSet()
        self._forsaken: dict[tuple[bytes, bool], Grant] = {}
        self._waiting: dict[bytes, set[asyncio.Future[float]]] = {}
        self._begun: set[asyncio.Task[None]] = set()
        self._minding: asyncio.Task[None] | None = None
        self.granted = 0
        self.lost = 0
        news.subscribe(b"w", self._hear)
        link.on_return.append(self._return_forsaken)

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Leases {len(self._grants)} held, {waiting} waiting, {len(self._begun)} being given back>"

    @property
    def ceiling(self) -> float:
        """
        The longest time between two looks of a waiting call, seconds. It is longer where news comes, because a look
        costs Redis work.
        """
        return 1.0 if self._news.up else 0.25

    def budget(self, size: int = 0) -> TimeBudget:
        """The time that one call, which writes *size* bytes, gives Redis."""
        return TimeBudget(self.timeout + size / WRITE_BYTES_A_SECOND)

    async def look(
        self, name: bytes, budget: TimeBudget, *, seen: bytes = b"", note: bytes = b"", beside: Beside = Beside.NEVER
    ) -> LeaseLook:
        """
        Read the value of *name* or take its lease. Raises ``FleetAway``; then, and when cancelled, this process has no
        lease.

        *seen*: the last 32 bytes of a value that is of no use. *note*: ``1`` where this process starts to wait for
        another's answer, ``0`` where it goes on waiting. *beside*: when to take the second lease.
        """
        token = self._random(12).hex().encode()
        arguments = [token, self._life, seen, note, self._largest, beside.value]
        try:
            what, seconds, value = await self._link.evaluate(LOOK, self._names.neighbours(name), arguments, budget)
        except FleetAway as away:
            if away.reason in {"timeout", "malformed", "error"}:
                for grant in _perhaps(name, token, beside):
                    self._forsake(grant)
            raise
        except BaseException:
            self.begin(self._give_all_back(_perhaps(name, token, beside)))
            raise
        if what in {"taken", "second"}:
            return LeaseLook(grant=self._grant(name, token, second=what == "second"))
        return LeaseLook(value, seconds, held=what == "held")

    async def wait(self, name: bytes, seconds: float) -> None:
        """Wait until there may be something new about *name*, at most *seconds*."""
        heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, set())
        waiting.add(heard)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(await heard)
        except TimeoutError:
            pass
        finally:
            waiting.discard(heard)
            if not waiting and self._waiting.get(name) is waiting:
                del self._waiting[name]

    async def keep(self, grant: Grant, value: bytes, seconds: float) -> bool:
        """
        Store *value* for *seconds* if *grant* still holds, and give the lease back. Returns whether the value was
        stored. Afterwards this process no longer holds the lease; if Redis is away, the lease is given back when
        Redis returns. Raises only cancellation.
        """
        keys = [self._where(grant), self._names.entry(grant.name), self._names.lease(grant.name)]
        arguments = [grant.token, value, _milliseconds(seconds), self._names.news, b"w:" + grant.name]
        try:
            kept = await self._link.evaluate(KEEP, keys, arguments, self._own_budget(len(value)))
        except FleetAway:
            self._forsake(grant)
            return False
        finally:
            self._grants.discard(grant)
        if kept == 0:
            self._lose(grant)
        return bool(kept == 1)

    def release(self, grant: Grant, *, failed: bool) -> None:
        """Begin to give *grant* back. *failed*: leave the mark that there will be no answer to share."""
        self._grants.discard(grant)
        self.begin(self._give_back(grant, failed=failed))

    def stall(self, grant: Grant, *, stuck: bool) -> None:
        """Begin to tell the waiting processes that the call of *grant* is *stuck*, or that it goes on after all."""
        self.begin(self._stall(grant, stuck=stuck))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* in a task that ``close`` waits for."""
        task = self._spawn(work, name="lease")
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)

    @property
    def unfinished(self) -> int:
        """How much of what was begun still runs."""
        return len(self._begun)

    async def flush(self) -> None:
        """Finish what was begun, such as entries on their way to Redis. Leases that are held stay held."""
        if self._begun:
            await asyncio.wait(self._begun)

    async def close(self, seconds: float) -> None:
        """Finish what was begun, then give back what is still held, within *seconds*."""
        await self._finish(seconds / 2)
        for grant in list(self._grants):
            self.release(grant, failed=False)
        await self._finish(seconds / 2)
        if self._minding is not None:
            self._minding.cancel()

    async def _finish(self, seconds: float) -> None:
        if self._begun:
            await asyncio.wait(self._begun, timeout=seconds)

    def _own_budget(self, size: int = 0) -> TimeBudget:
        return TimeBudget(max(self.timeout, OWN_SECONDS) + size / WRITE_BYTES_A_SECOND)

    def _where(self, grant: Grant) -> bytes:
        return self._names.second(grant.name) if grant.second else self._names.lease(grant.name)

    def _grant(self, name: bytes, token: bytes, *, second: bool) -> Grant:
        grant = Grant(name, token, second=second)
        self._grants.add(grant)
        self.granted += 1
        self._mind()
        return grant

    def _forsake(self, grant: Grant) -> None:
        """Redis is away: give *grant* back when Redis returns. Perhaps it was never ours; then this changes nothing."""
        self._forsaken[grant.token, grant.second] = grant
        if len(self._forsaken) > _REMEMBERED:
            del self._forsaken[next(iter(self._forsaken))]
        self._mind()

    def _return_forsaken(self) -> None:
        forsaken, self._forsaken = self._forsaken, {}
        if forsaken:
            self.begin(self._give_all_back(list(forsaken.values())))

    async def _give_all_back(self, grants: list[Grant]) -> None:
        for grant in grants:
            await self._give_back(grant, failed=False)

    async def _give_back(self, grant: Grant, *, failed: bool) -> None:
        mark = _milliseconds(MARK_SECONDS) if failed else b"0"
        arguments = [grant.token, mark, self._names.news, b"w:" + grant.name]
        try:
            await self._link.evaluate(GIVE_BACK, [self._where(grant)], arguments, self._own_budget())
        except FleetAway:
            self._forsake(grant)

    async def _stall(self, grant: Grant, *, stuck: bool) -> None:
        arguments = [grant.token, b"1" if stuck else b"0", self._names.news, b"w:" + grant.name]
        with suppress(FleetAway):  # if this fails, the others wait until the lease ends
            await self._link.evaluate(STALL, [self._where(grant)], arguments, self._own_budget())

    def _mind(self) -> None:
        if self._minding is None or self._minding.done():
            self._minding = self._spawn(self._renew(), name="leases")

    async def _renew(self) -> None:
        """Renew every lease three times in its life, until there are no more leases."""
        while self._grants or self._forsaken:
            await asyncio.sleep(self._seconds / 3)
            if self._link.up:
                self._return_forsaken()
            grants = list(self._grants)
            for start in range(0, len(grants), _AT_ONCE):
                batch = [self._renew_one(grant) for grant in grants[start : start + _AT_ONCE]]
                results = await asyncio.gather(*batch, return_exceptions=True)
                if any(isinstance(result, FleetAway) and result.reason != "busy" for result in results):
                    break

    async def _renew_one(self, grant: Grant) -> None:
        arguments = [grant.token, self._life]
        ours = await self._link.evaluate(RENEW, [self._where(grant)], arguments, self._own_budget())
        if not ours and grant in self._grants:
            self._grants.discard(grant)
            self._lose(grant)

    def _lose(self, grant: Grant) -> None:
        self.lost += not grant.lost
        grant.lost = True

    def _hear(self, news: bytes) -> None:
        """News of a name, and how many wait for it. The more wait, the longer the time over which they ask again."""
        name, _, count = news.partition(b":")
        waiting = self._waiting.pop(name, None)
        if waiting:
            spread = SPREAD_SECONDS * min(int(count), 4096) if count.isdigit() else 0.0
            for heard in waiting:
                if not heard.done():
                    heard.set_result(spread * self._draw())


def _perhaps(name: bytes, token: bytes, beside: Beside) -> list[Grant]:
    """The leases that a look may have taken, when nobody knows how the look ended."""
    grants = [] if beside is Beside.LOOK else [Grant(name, token)]
    return grants + [Grant(name, token, second=True)] * (beside in {Beside.STUCK, Beside.NOW})


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % int(seconds * 1000)
