"""
Which answers have served calls with tags that the answers themselves do not carry.

The mark of a route counts as a tag here (``purges.mark_of``): the route served what another route stored.

The rule: a process that serves such a call notes it, and nobody waits for that. No note is dropped for lack of room:
where there is no room, the note is refused, and then the answer does not serve the call.

For each tag, Redis has a sorted set of the notes that purge such answers (notes of their keys, sealed as in the log),
ordered by the time after which the answer cannot serve. The set's name is a digest of the tag's own sealed note; the
set is in the log's slot. The script that writes a purge of the tag into the log moves the whole set there in the same
step (see ``purge_journal``). So it does not matter which process wrote a note, or whether it still runs. A note that
comes after the purge is reported back, and the process that sent it purges its key.

Beyond ``MOST_KEYS``, a set holds the routes of answers instead of their keys. Redis may evict or lose a set, so each
process writes its notes again after a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

from sidecar.core.cache.purges import Scope, ScopeKind, scope_of
from sidecar.core.model import Entry, Key, Position
from sidecar.fleet.scope_notes import ScopeNotes
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import RedisNames
from sidecar.redis_link.shapes import misshapen, places

NOTE_SECONDS = 0.5
"""How long a process writes notes before it reads the log again; also the time for one command."""

MOST_WAITING = 4096
"""The most notes that wait to be written."""

MOST_AT_ONCE = 100
"""The most notes that are written at once, all of one tag."""

MOST_KEYS = 128
"""
The most keys that are kept apart for a tag; a purge of the tag moves them to the log, which has room for 1000 purges.
"""

AGAIN_SECONDS = 300.0
"""How often a process writes its notes again."""

_NOTE = Script(
    """
-- KEYS: the log's hash, its purges, the tag's set. ARGV: most keys, how many notes the tag has (one by each secret),
-- these; then for each answer the note of its key, that of its route, for how many milliseconds it may still serve, and
-- the incarnation and number that it carries. Returns the places of those whose tag has been purged since.
local log = redis.pcall('HMGET', KEYS[1], 'incarnation')
local incarnation, purged = not log.err and log[1], -1
local first = 3 + ARGV[2]
for i = 3, first - 1 do
  local score = redis.pcall('ZSCORE', KEYS[2], ARGV[i])
  if type(score) == 'string' then purged = math.max(purged, tonumber(score)) end
end
local time = redis.pcall('TIME')
local now = not time.err and time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local count = redis.pcall('ZCARD', KEYS[3])
if type(count) == 'table' then  -- of another type, so not ours; or we have no right to read it
  if not string.find(count.err, 'WRONGTYPE', 1, true) then return count end
  redis.call('DEL', KEYS[3])
end
if now then redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', '(' .. text(now)) end
local late, longest = {}, 0
for i = first, #ARGV, 5 do
  if purged >= 0 and (ARGV[i + 3] ~= incarnation or purged > tonumber(ARGV[i + 4])) then
    late[#late + 1] = (i - first) / 5
  else
    local note = ARGV[i]
    if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[1]) and not redis.call('ZSCORE', KEYS[3], note) then
      note = ARGV[i + 1]
    end
    redis.call('ZADD', KEYS[3], 'GT', now and text(now + ARGV[i + 2]) or '+inf', note)
    longest = math.max(longest, tonumber(ARGV[i + 2]))
  end
end
if redis.call('PTTL', KEYS[3]) < longest then redis.call('PEXPIRE', KEYS[3], text(longest)) end
return late
""",
    "tags",
    places(MOST_AT_ONCE),
)


class _Noted(NamedTuple):
    """An answer that served a call with a tag: its *route*, the time after which it cannot serve, and its position."""

    route: str
    end: float
    position: Position


class Tagged:
    """
    The tags' sets of *names*. *now* is the wall clock, *clock* seconds that run on. Its length is the number of waiting
    notes.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        notes: ScopeNotes,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._link = link
        self._names = names
        self._notes = notes
        self._clock = clock
        self._now = now
        self._waiting: OrderedDict[tuple[str, bytes], _Noted] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Tagged {len(self._waiting)} notes waiting>"

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, key: Key, entry: Entry, tags: Iterable[str]) -> bool:
        """Note that *entry* served a call with *tags*. Returns False where there is no room for all of them."""
        pairs = [(tag, key.address) for tag in tags]
        if len(self._waiting) + sum([pair not in self._waiting for pair in pairs]) > MOST_WAITING:
            return False
        span = entry.dead - entry.at
        noted = _Noted(entry.route, self._clock() + min(entry.dead - self._now(), span), entry.position)
        for pair in pairs:
            # Of two entries of a key the older position counts: a purge since then takes both.
            known = self._waiting.get(pair)
            self._waiting[pair] = noted if known is None else known._replace(end=max(known.end, noted.end))
        return True

    async def write(self) -> list[Scope]:
        """
        Write what waits, as far as there is time. Returns the keys to purge, because their tag has been purged. Raises
        ``FleetAway``.
        """
        late: list[Scope] = []
        until = self._clock() + NOTE_SECONDS
        while self._waiting and self._clock() < until:
            tag = next(iter(self._waiting))[0]
            batch = [(pair, noted) for pair, noted in self._waiting.items() if pair[0] == tag][:MOST_AT_ONCE]
            late += await self._write(tag, batch)
            for pair, noted in batch:
                if self._waiting.get(pair) is noted:
                    del self._waiting[pair]
        return late

    async def _write(self, tag: str, batch: list[tuple[tuple[str, bytes], _Noted]]) -> list[Scope]:
        own = self._notes.seal_by_each(scope_of(tag))
        keys = [self._names.log_meta, self._names.log_purges, self._names.tagged(digest(own[0]))]
        scopes = [Scope(ScopeKind.KEY, address.hex()) for (_, address), _ in batch]
        words: list[Any] = [MOST_KEYS, len(own), *own]
        for scope, (_, noted) in zip(scopes, batch, strict=True):
            left = max(1, round((noted.end - self._clock()) * 1000))
            route = self._notes.seal(Scope(ScopeKind.ROUTE, noted.route))
            words += (self._notes.seal(scope), route, left, *noted.position)
        late: list[int] = await self._link.evaluate(_NOTE, keys, words, TimeBudget(NOTE_SECONDS))
        if any(place >= len(scopes) for place in late):
            raise misshapen()
        return [scopes[place] for place in late]


def digest(note: bytes) -> bytes:
    """The name of the set of a tag; *note* is the tag's sealed purge."""
    return blake2b(note, digest_size=16, person=b"sidecar tag").hexdigest().encode("ascii")
