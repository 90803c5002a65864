"""
The rates of a route that the whole fleet shares, in one hash of Redis for each route.

The rule: one script looks, charges and corrects in one step, by Redis' own clock. So the clocks of pods do not matter,
and no two calls take the same room. Its arithmetic is that of ``core/limits/rates.Bucket``: for requests (``r``) and
tokens (``t``) the hash has the instant at which the bucket is empty, in microseconds. A call that can wait is charged
at once for a later turn and does not ask again. So processes take turns, and small calls do not starve a large one.

``TIME`` within the script needs a right of its own (``+time``). Where the ACL forbids it the fleet shares no rates;
this does not count as a failure of Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sidecar.core.limits.rates import BRIMFUL, BURST_SECONDS, MOST_DEBT_SECONDS, Pair, Worth, worth
from sidecar.core.limits.turns import Taken
from sidecar.core.rules import RouteLimits
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.redis_link.shapes import misshapen
from sidecar.tasks import Spawn

BEHIND_SECONDS: Final = 0.05
"""How long a correction waits for more corrections, or for a call that takes it along."""

MOST_CHARGES: Final = 64
"""The most calls that one step charges, because a script blocks everything else in Redis."""

_MICROSECONDS: Final = 1_000_000


def _taken(reply: Any) -> Taken | None:
    """Read the answer of ``_TAKE``; None where Redis does not allow its user to ask the time."""
    match reply:
        case []:
            return None
        case [int(count), int(requests), int(tokens), 0 | 1 as reserved, int(fill_requests), int(fill_tokens)] if (
            0 <= count <= MOST_CHARGES and requests >= 0 and tokens >= 0
        ):
            return Taken(
                count,
                Pair(requests / _MICROSECONDS, tokens / _MICROSECONDS),
                bool(reserved),
                Pair(fill_requests / _MICROSECONDS, fill_tokens / _MICROSECONDS),
            )
        case _:
            raise misshapen()


_TAKE = Script(
    """
-- KEYS: the route's hash. ARGV: a bucket's microseconds, how far it may be overdrawn; what a request and a token are
-- worth, 0 for no limit; how full the buckets are at most; what is taken in addition, of requests and of tokens (below
-- 0 it is given back); how long the next call may wait, and then what each call takes of tokens.
local time = redis.pcall('TIME')
if time.err then return {} end
local now = time[1] * 1000000 + time[2]
local burst, debt, request, token = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function fill(at, most)
  at = tonumber(at or nil)
  if not at or at ~= at or at - now > 2 * debt then return most end  -- missing, or not written by us
  return math.min(now - at, most)
end
local kept = redis.pcall('HMGET', KEYS[1], 'r', 't')
if kept.err then
  if not string.find(kept.err, 'WRONGTYPE', 1, true) then return kept end  -- what is there may be ours
  redis.call('DEL', KEYS[1])
  kept = {}
end
local requests = math.min(burst, fill(kept[1], tonumber(ARGV[5])) - ARGV[7] * request)
local tokens = math.min(burst, fill(kept[2], tonumber(ARGV[6])) - ARGV[8] * token)
local count, wait_requests, wait_tokens, reserved = 0, 0, 0, 0
for index = 10, #ARGV do
  local needed = ARGV[index] * token
  wait_requests = request > 0 and math.max(0, math.ceil(math.min(request, burst) - requests)) or 0
  wait_tokens = token > 0 and math.max(0, math.ceil(math.min(needed, burst) - tokens)) or 0
  local wait = math.max(wait_requests, wait_tokens)
  if wait <= tonumber(ARGV[9]) then
    requests, tokens = requests - request, tokens - needed
  end
  if wait > 0 then
    if wait <= tonumber(ARGV[9]) then reserved = 1 end
    break
  end
  count = count + 1
end
requests, tokens = math.max(-debt, requests), math.max(-debt, tokens)
redis.call('HSET', KEYS[1], 'r', string.format('%.0f', now - requests), 't', string.format('%.0f', now - tokens))
redis.call('PEXPIRE', KEYS[1], math.ceil((burst - math.min(requests, tokens)) / 1000) + 60000)
return {count, wait_requests, wait_tokens, reserved, math.floor(requests), math.floor(tokens)}
""",
    "quota",
    _taken,
)


class _Owed:
    """Corrections of a route on their way to Redis: *tokens* and *requests* to give back; negative ones are taken."""

    __slots__ = ("limits", "requests", "tokens")

    def __init__(self, limits: RouteLimits) -> None:
        self.limits = limits
        self.requests = 0
        self.tokens = 0


class FleetQuota:
    """
    The fleet's rates. *timeout*: of the command of one call, seconds; *spawn* owns the tasks in which corrections are
    sent; *sleep* is asyncio's.

    Counters: *asked*, commands that were answered; *lost*, corrections that were not.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        *,
        timeout: float,
        spawn: Spawn,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._link = link
        self._names = names
        self.timeout = timeout
        self._spawn = spawn
        self._sleep = sleep
        self._owed: dict[str, _Owed] = {}
        self._sending: asyncio.Task[None] | None = None
        self.asked = 0
        self.lost = 0

    def __repr__(self) -> str:
        return f"<FleetQuota {self.asked} asked, {len(self._owed)} corrections on their way, {self.lost} lost>"

    @property
    def up(self) -> bool:
        """Whether the fleet can be asked."""
        return self._link.up

    async def take(
        self,
        route: str,
        limits: RouteLimits,
        charges: Sequence[int],
        *,
        patience: float = 0.0,
        ceiling: Pair = BRIMFUL,
    ) -> Taken:
        """
        Take one request, and the tokens in *charges*, for as many calls as there is room for, in their order and at
        most ``MOST_CHARGES``; and for the next one, if its turn comes within *patience* seconds. Corrections of *route*
        are sent along. *ceiling*: the buckets count as no fuller than this, for a process that has spent without
        asking.

        Raises ``FleetAway``. Then, and when cancelled, the calls may have been charged; the bucket fills again with
        time.
        """
        owed = self._owed.pop(route, None)
        return await self._evaluate(route, limits, owed, charges[:MOST_CHARGES], patience, ceiling)

    def give(self, route: str, limits: RouteLimits, tokens: int, requests: int = 0) -> None:
        """
        Give *tokens* and *requests* of *route* back; negative ones are taken in addition. They are in Redis within 100
        ms, unless it is away: then they stay taken, and the bucket fills again with time.
        """
        owed = self._owed.get(route)
        if owed is None:
            owed = self._owed[route] = _Owed(limits)
        owed.limits = limits
        owed.tokens += tokens
        owed.requests += requests
        if self._sending is None or self._sending.done():
            self._sending = self._spawn(self._send(), name="quota")

    @property
    def unwritten(self) -> int:
        """How many routes have corrections that wait."""
        return len(self._owed)

    async def flush(self) -> None:
        """Send the corrections that wait."""
        await self._send_all()

    async def close(self) -> None:
        """Send the corrections that wait, and no more after them."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._send_all()

    async def _send(self) -> None:
        while self._owed:
            await self._sleep(BEHIND_SECONDS)
            await self._send_all()

    async def _send_all(self) -> None:
        for route in tuple(self._owed):
            owed = self._owed.pop(route, None)
            if owed is not None and (owed.tokens or owed.requests):
                try:
                    await self._evaluate(route, owed.limits, owed, (), 0.0, BRIMFUL)
                except FleetAway:
                    continue

    async def _evaluate(
        self,
        route: str,
        limits: RouteLimits,
        owed: _Owed | None,
        charges: Sequence[int],
        patience: float,
        ceiling: Pair,
    ) -> Taken:
        price = worth(limits)
        arguments = [
            *map(_microseconds, (BURST_SECONDS, MOST_DEBT_SECONDS)),
            *_prices(price),
            *map(_microseconds, ceiling),
            -owed.requests if owed is not None else 0,
            -owed.tokens if owed is not None else 0,
            _microseconds(patience),
            *charges,
        ]
        try:
            taken: Taken | None = await self._link.evaluate(
                _TAKE, [self._names.quota(route)], arguments, TimeBudget(self.timeout)
            )
        except FleetAway as away:
            if owed is not None and away.reason == "busy":  # it was never sent
                self.give(route, owed.limits, owed.tokens, owed.requests)
            elif owed is not None:
                self.lost += 1
            raise
        if taken is None:
            self.lost += owed is not None
            raise FleetAway("refused", "Redis forbids TIME to this user; grant +time")
        self.asked += 1
        return taken._replace(admitted=min(taken.admitted, len(charges)))


def _microseconds(seconds: float) -> int:
    return int(seconds * _MICROSECONDS)


def _prices(price: Worth) -> tuple[str, str]:
    """Prices in microseconds, as text that Lua reads to the last digit."""
    return repr(price.request * _MICROSECONDS), repr(price.token * _MICROSECONDS)
