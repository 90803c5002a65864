"""
Which processes the fleet has at present, by which revisions of the configuration they work, and what each says of
itself.

The rule: a process counts as long as it gives signs of life. Each writes itself every few seconds into one sorted set,
with the time of Redis' own clock, and removes those that have been silent for too long; its revision likewise. What it
says of itself is a sealed note beside the set, which lasts as long as its sign of life. While Redis is away, full, or
answers nonsense, the last count holds.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.redis_link.shapes import misshapen, number, pairs
from sidecar.tasks import Spawn

BEAT_SECONDS: Final = 3.0
"""The longest time between two signs of life; the shortest is three quarters of it."""

LIFE_SECONDS: Final = 10.0
"""A process that is silent for so long counts as gone. After two lost signs in a row it still counts."""

OWN_SECONDS: Final = 0.5
"""The time for one sign of life. No call waits for it."""


MOST_REVISIONS: Final = 16
"""The most revisions that one process hears of."""


def _read(reply: Any) -> tuple[int, tuple[str, ...]]:
    """Read the answer of ``_BEAT``: how many processes (0 where Redis hides the time from its user); revisions."""
    if type(reply) is not list or not reply or len(reply) > MOST_REVISIONS + 1:
        raise misshapen()
    count, *revisions = reply
    if type(count) is not int or count < 0 or not all(type(each) is bytes and len(each) <= 64 for each in revisions):
        raise misshapen()
    return count, tuple(each.decode("ascii", "replace") for each in revisions)


_BEAT = Script(
    """
-- KEYS: the set, that of revisions, the note. ARGV: who, milliseconds of life, 1 to leave, revision, the most of them,
-- what this process says of itself ('' for nothing).
local time = redis.pcall('TIME')
if time.err then return {0} end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local sign = ARGV[3] == '1' and '0' or string.format('%.0f', now)
local put = redis.pcall('ZADD', KEYS[1], sign, ARGV[1])
if type(put) == 'table' then
  -- No memory left: keep those that are there. After a DEL Redis would accept us, and would count only us.
  if not string.find(put.err, 'WRONGTYPE', 1, true) then return put end
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], sign, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - ARGV[2]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + ARGV[2]), '+inf')  -- of a clock that went back
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local answer = {redis.call('ZCARD', KEYS[1])}
if ARGV[3] == '1' then redis.call('DEL', KEYS[3])
elseif ARGV[6] ~= '' then redis.pcall('SET', KEYS[3], ARGV[6], 'PX', ARGV[2]) end
if ARGV[3] ~= '1' then redis.pcall('ZADD', KEYS[2], string.format('%.0f', now), ARGV[4]) end
redis.pcall('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('(%.0f', now - ARGV[2]))
redis.pcall('ZREMRANGEBYSCORE', KEYS[2], string.format('(%.0f', now + ARGV[2]), '+inf')
redis.pcall('PEXPIRE', KEYS[2], ARGV[2])
local revisions = redis.pcall('ZREVRANGE', KEYS[2], 0, ARGV[5] - 1)
if not revisions.err then for _, each in ipairs(revisions) do answer[#answer + 1] = each end end
return answer
""",
    "presence",
    _read,
)


_time = re.compile(rb"[0-9]{1,20}\Z").match


class Member(NamedTuple):
    """A process of the fleet: seconds since its last sign of life, and its sealed *note*, None if it has none."""

    quiet_seconds: float
    note: bytes | None


def _members(reply: Any) -> list[bytes]:
    """Read the answer of ``_MEMBERS``: the milliseconds of Redis' clock, then members and their signs of life."""
    if type(reply) is not list or len(reply) % 2 != 1 or any(type(item) is not bytes for item in reply):
        raise misshapen()
    if not all(map(_time, reply[::2])):
        raise misshapen()
    return reply


_MEMBERS = Script(
    """
-- KEYS: the set. Returns the time, then each member and the time of its last sign of life.
local time = redis.call('TIME')
local members = redis.call('ZREVRANGE', KEYS[1], 0, -1, 'WITHSCORES')
table.insert(members, 1, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
return members
""",
    "members",
    _members,
)


class Presence:
    """
    This process as *member*, 12 bytes that no other process has, at present on *revision*. *note* is what it says of
    itself, sealed, ``b""`` for nothing. *clock* is monotonic seconds, *draw* uniform in [0, 1), *spawn* owns the task;
    *life* as ``LIFE_SECONDS``. *failures* counts signs that were not answered well; *revisions* are those by which
    processes worked at the last count, the latest sign first.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        *,
        member: bytes,
        clock: Callable[[], float],
        draw: Callable[[], float],
        spawn: Spawn,
        revision: Callable[[], str] = str,
        note: Callable[[], bytes] = bytes,
        life: float = LIFE_SECONDS,
    ) -> None:
        self._link = link
        self._names = names
        self._member = member.hex()
        self._clock = clock
        self._draw = draw
        self._spawn = spawn
        self._revision = revision
        self._note = note
        self._life = life
        self._counts: deque[tuple[float, int]] = deque()
        self._returned = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._left = False
        self.failures = 0
        self.revisions: tuple[str, ...] = ()
        link.on_return.append(self._returned.set)

    def __repr__(self) -> str:
        return f"<Presence {self.count if self.count is not None else 'not known'}>"

    @property
    def count(self) -> int | None:
        """
        How many processes there are, this one included; None before the first count. It is the highest count within the
        last life before the last count, because a Redis that comes back empty has seen only the first processes. After
        a silence longer than a life, earlier counts are dated to the end of that silence.
        """
        return max((count for _, count in self._counts), default=None)

    def start(self) -> None:
        """Begin to give signs of life."""
        self._beating = self._spawn(self._beat_on(), name="presence")

    def nudge(self) -> None:
        """What this process says of itself is new: give the next sign of life now."""
        self._returned.set()

    @property
    def member(self) -> bytes:
        """The name of this process among the ``members``."""
        return self._member.encode("ascii")

    async def members(self) -> dict[bytes, Member]:
        """The processes that count at present. Raises ``FleetAway``."""
        now, *found = await self._link.evaluate(_MEMBERS, [self._names.pods], [], TimeBudget(OWN_SECONDS))
        signs = pairs(found)
        members: dict[bytes, Member] = {}
        for member, sign in zip(signs[::2], signs[1::2], strict=True):
            quiet = (number(now) - number(sign)) / 1000
            if quiet <= self._life:
                members[member] = Member(quiet, await self._read_note(member))
        return members

    async def _read_note(self, member: bytes) -> bytes | None:
        where = self._names.standing(member)
        note = await self._link.run(lambda client: client.get(where), TimeBudget(OWN_SECONDS), op="get")
        if note is not None and type(note) is not bytes:
            raise misshapen()
        return note

    async def close(self) -> None:
        """Give no more signs, and sign off if Redis can be asked; once is enough."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        if not self._left:
            with suppress(FleetAway):
                await self._sign(leave=True)
                self._left = True

    async def beat(self) -> None:
        """Give one sign of life, and count. Raises ``FleetAway``."""
        count, self.revisions = await self._sign(leave=False)
        now = self._clock()
        if self._counts and self._counts[-1][0] < now - self._life:
            self._counts = deque([(now, self._counts[0][1])])
        while self._counts and (self._counts[0][0] < now - self._life or self._counts[-1][1] <= count):
            if self._counts[-1][1] <= count:
                self._counts.pop()
            else:
                self._counts.popleft()
        self._counts.append((now, count))

    async def _sign(self, *, leave: bool) -> tuple[int, tuple[str, ...]]:
        keys = [self._names.pods, self._names.revisions, self._names.standing(self.member)]
        life = int(self._life * 1000)
        arguments = [self._member, life, int(leave), self._revision(), MOST_REVISIONS, self._note()]
        found: tuple[int, tuple[str, ...]]
        found = await self._link.evaluate(_BEAT, keys, arguments, TimeBudget(OWN_SECONDS))
        if not found[0] and not leave:
            raise FleetAway("refused", "Redis forbids TIME to this user; grant +time")
        return found

    async def _beat_on(self) -> None:
        while True:
            self._returned.clear()
            try:
                await self.beat()
            except Exception:  # noqa: BLE001 - a lost sign: this process counts until its life is over
                self.failures += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS * (0.75 + self._draw() / 4)):
                    await self._returned.wait()
