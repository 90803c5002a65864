"""
The log of purges in Redis, and the fleet's mode beside it.

The rule: one script reads and writes the log in one step, so no two processes do it at the same time, and a process can
apply what it reads in that order. A note that none of our secrets made purges everything if it stands among the purges,
and is ignored as a mode.

The log is a hash (``incarnation``, 16 random bytes; ``number`` and ``last``, that of the latest purge; ``node``, the
run id of the server that holds it; ``before``, the incarnations that it continues, each with its last number in 16
digits), a sorted set of sealed scopes by number, in which an equal scope that is purged again moves up, and a sealed
text that is the mode. All expire when no process has asked for 30 days. An entry that outlives its log belongs to no
known incarnation, so no process uses it.

``INFO server`` within the script tells whether another server has taken the first one's place. Where the ACL forbids it
(``+info`` grants it), a missing log counts as flushed, and only numbers that go backwards show a failover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sidecar.core.cache.purges import ALL, Due, Scope, ScopeKind, Tail
from sidecar.core.model import Position
from sidecar.core.rules import Mode
from sidecar.fleet.scope_notes import ScopeNotes
from sidecar.fleet.tagged import digest
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import Notes, RedisNames
from sidecar.redis_link.shapes import misshapen, number, one_of, pairs, texts

EXCHANGE_SECONDS = 0.5
"""The time for one reading or writing of the log."""

LIFE_SECONDS = 30 * 24 * 3600
"""How long the log stays after the last process that asked for it."""

LONGEST_MODE = 30 * 86400.0
"""Seconds. No mode holds for longer; a note that says so is ignored."""

SKEW_SECONDS = 600.0
"""How far the clock of the process that set a mode may be ahead of ours."""

LONGEST_TAG = 64
"""Characters. No call can send a longer one, and no route's name is longer."""

_NOTED = frozenset({ScopeKind.TAG, ScopeKind.ROUTE})
"""The scopes under which served answers are noted, besides those that the answers carry themselves."""

MOST_PURGES = 1000
"""The most purges in the log. If there are more, the oldest become one purge of everything."""


class _JournalReply(NamedTuple):
    """The answer of ``_LOG``."""

    incarnation: bytes
    number: int
    before: bytes
    node: bytes
    purges: list[bytes]
    mode: bytes | None
    full: bool
    moved: list[bytes]


def _reply_of(reply: Any) -> _JournalReply:
    match reply:
        case [bytes(log), text, bytes(before), bytes(node), purges, bytes() | None as mode, 0 | 1 as full, moved]:
            return _JournalReply(log, number(text), before, node, pairs(purges), mode, bool(full), texts(moved))
        case _:
            raise misshapen()


_LOG = Script(
    """
-- KEYS: the log's hash, its purges, the mode; then sets of tags (see ``tagged``).
-- ARGV: the channel of news, an incarnation for a new log, the incarnation and number that are known, seconds to live,
-- most purges, the note of all; then for each purge
-- its note, the number above which it need not be written again, and how many of the sets it moves to the log.
-- What is new is read before they are written, because an equal purge by another process must not be taken for ours.
local function text(number) return string.format('%.0f', number) end
local told = redis.pcall('INFO', 'server')
local node = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
local function foreign(found)  -- of another type: not ours. Otherwise we may not read it; it may be ours
  return string.find(found.err, 'WRONGTYPE', 1, true)
end
local log = redis.pcall('HMGET', KEYS[1], 'incarnation', 'number', 'last', 'node', 'before')
if log.err and not foreign(log) then return log end
local top = redis.pcall('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if top.err and not foreign(top) then return top end
local mode = redis.pcall('GET', KEYS[3])
if type(mode) == 'table' and not foreign(mode) then return mode end
if log.err then redis.call('DEL', KEYS[1]) end
local incarnation, number, last, before = log[1], tonumber(log[2] or ''), log[3], log[5]
if top.err then redis.call('DEL', KEYS[2]) end
local highest = top[2] or '0'
local changed = false
if not incarnation or not number or highest ~= last then  -- there is no log, or part of it was evicted
  redis.call('DEL', KEYS[1], KEYS[2])
  incarnation, number, last, before, changed = ARGV[2], 0, '0', '', true
elseif (node ~= '' and log[4] and node ~= log[4])
    or (incarnation == ARGV[3] and tonumber(ARGV[4]) > number) then  -- the latest purges may be lost
  before = string.sub(incarnation .. string.format('%016.0f', number) .. before, 1, 256)
  incarnation, changed = ARGV[2], true
elseif node ~= '' and not log[4] then
  changed = true
end
local from = incarnation == ARGV[3] and '(' .. ARGV[4] or '-inf'
for i = 1, #before, 32 do
  if string.sub(before, i, i + 15) == ARGV[3] then
    from = '(' .. text(math.min(tonumber(ARGV[4]), tonumber(string.sub(before, i + 16, i + 31))))
  end
end
local purges = redis.call('ZRANGEBYSCORE', KEYS[2], from, '+inf', 'WITHSCORES')
local added, full, moved, set = false, 0, {}, 4
local function put(note)
  local done = redis.pcall('ZADD', KEYS[2], text(number + 1), note)
  if type(done) == 'table' then full = 1 else added = true end  -- no memory left; what is there can be read
  return full == 0
end
local function move(key)  -- except what has ended since
  local time = redis.pcall('TIME')
  local from = not time.err and text(time[1] * 1000 + math.floor(time[2] / 1000)) or '-inf'
  local notes = redis.pcall('ZRANGEBYSCORE', key, from, '+inf')
  if notes.err then return end  -- of another type, so not ours
  for _, note in ipairs(notes) do
    if not put(note) then return end
    moved[#moved + 1] = note
  end
  redis.call('DEL', key)
end
for i = 8, #ARGV, 3 do
  local score = redis.call('ZSCORE', KEYS[2], ARGV[i])
  local sets = tonumber(ARGV[i + 2])
  if not score or tonumber(score) <= tonumber(ARGV[i + 1]) then
    if not put(ARGV[i]) then break end
    for n = set, set + sets - 1 do move(KEYS[n]) end
    if full == 1 then break end
  end
  set = set + sets
end
if added then
  number, changed = number + 1, true
  last = text(number)
  local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[6])
  if over > 0 then
    local folded = redis.call('ZPOPMIN', KEYS[2], over + 1)
    redis.call('ZADD', KEYS[2], 'GT', folded[#folded], ARGV[7])
  end
  local all = redis.call('ZSCORE', KEYS[2], ARGV[7])
  if all then redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. all) end
end
if changed then
  local put = redis.pcall(
    'HSET', KEYS[1], 'incarnation', incarnation, 'number', text(number), 'last', last, 'before', before)
  if type(put) == 'table' and put.err then
    if incarnation ~= log[1] then return put end  -- there is no log, and it cannot be made
    full = 1
  elseif node ~= '' then redis.call('HSET', KEYS[1], 'node', node) end
end
if changed or redis.call('TTL', KEYS[1]) < ARGV[5] / 2 then
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if added then redis.pcall('PUBLISH', ARGV[1], 'p') end  -- where that is forbidden, the log is read a little later
if type(mode) == 'table' then
  redis.call('DEL', KEYS[3])
  mode = false
end
return {incarnation, text(number), before, node, purges, mode, full, moved}
""",
    "purge-log",
    _reply_of,
)

_MODE = Script(
    """
-- KEYS: the mode. ARGV: the channel of news, the mode's note, milliseconds, 1 to leave one that is there.
if ARGV[4] == '1' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3], 'NX')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.pcall('PUBLISH', ARGV[1], 'p')
return 1
""",
    "mode",
    one_of(1),
)


_ENDED = "ended"


class JournalState(NamedTuple):
    """
    What the log says. *mode* is the fleet's mode, until *until*, wall clock; None where no mode holds. *noted*: Redis
    has a note in the place of the mode. *unreadable*: how many purges we cannot read. *full*: Redis did not store what
    was to be written.
    """

    tail: Tail
    mode: Mode | None
    until: float
    noted: bool
    unreadable: int
    full: bool


class Journal:
    """
    The log of *names*. *now* is the wall clock, *random* gives as many random bytes as it is asked for.

    Each method raises ``FleetAway`` where Redis does not answer.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        notes: Notes,
        *,
        now: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._link = link
        self._channel = names.news
        self._keys = [names.log_meta, names.log_purges, names.log_mode]
        self._names = names
        self._scopes = ScopeNotes(names, notes)
        self._mode = b"mode " + names.news.removesuffix(b"news") + b" "  # binds the mode to its namespace
        self._notes = notes
        self._now = now
        self._random = random

    def __repr__(self) -> str:
        return f"<Journal {self._keys[0]!r}>"

    async def exchange(self, known: Position, purges: Mapping[Scope, Due]) -> JournalState:
        """
        Write *purges*, unless they stand there by now, and read what has come since *known*. A purge by a tag or a
        route also writes purges of the answers that have served its calls.
        """
        keys, words = self._request(known, purges)
        answered: _JournalReply = await self._link.evaluate(_LOG, keys, words, TimeBudget(EXCHANGE_SECONDS))
        before, latest = answered.before, b"%d" % answered.number
        read, unreadable = self._read([*answered.purges, *[part for note in answered.moved for part in (note, latest)]])
        bases = {before[at : at + 16]: int(before[at + 16 : at + 32]) for at in range(0, len(before), 32)}
        tail = Tail(answered.incarnation, answered.number, bases, answered.node.decode("ascii"), read)
        return JournalState(tail, *self._read_mode(answered.mode), answered.mode is not None, unreadable, answered.full)

    async def put_mode(self, mode: Mode | None, until: float, *, unless: bool = False) -> None:
        """
        Set the fleet's mode to *mode* until *until*, wall clock, at most for ``LONGEST_MODE``. None, or a time that has
        passed, ends the mode; that is noted for as long, because a process that comes back late would set the mode
        again. *unless*: change nothing if a note is there already.
        """
        now = self._now()
        until = min(until, now + LONGEST_MODE)
        word = mode.value if mode is not None and until > now else _ENDED
        until = until if word != _ENDED else now + LONGEST_MODE
        note, left = self._notes.seal_note(self._mode + f"{word} {until!r}".encode()), until - now
        words: list[bytes | int] = [self._channel, note, max(1, int(left * 1000)), int(unless)]
        await self._link.evaluate(_MODE, self._keys[2:], words, TimeBudget(EXCHANGE_SECONDS))

    def _request(self, known: Position, purges: Mapping[Scope, Due]) -> tuple[list[bytes], list[bytes | int]]:
        """The keys and the arguments of the script."""
        keys = list(self._keys)
        words: list[bytes | int] = [
            self._channel,
            self._random(16),
            known.incarnation,
            known.number,
            LIFE_SECONDS,
            MOST_PURGES,
            self._scopes.seal(ALL),
        ]
        for scope, due in purges.items():
            sets = self._sets(scope)
            keys += sets
            words += (self._scopes.seal(scope), due.unless, len(sets))
        return keys, words

    def _sets(self, scope: Scope) -> list[bytes]:
        """
        The sets that hold what else *scope* purges: one name for each of our secrets, because each may have been used
        for notes.
        """
        if scope.kind not in _NOTED or len(scope.value) > LONGEST_TAG:
            return []
        return [self._names.tagged(digest(note)) for note in self._scopes.seal_by_each(scope)]

    def _read(self, found: Sequence[Any]) -> tuple[tuple[tuple[Scope, int], ...], int]:
        """The purges in *found*, by number, and how many of them we cannot read."""
        read: list[tuple[Scope, int]] = []
        unreadable = 0
        for note, score in zip(found[::2], found[1::2], strict=True):
            scope = self._scopes.open(note)
            unreadable += scope is None
            read.append((ALL if scope is None else scope, int(score)))
        return tuple(read), unreadable

    def _read_mode(self, note: bytes | None) -> tuple[Mode | None, float]:
        text = self._notes.open_note(note) if note is not None else None
        try:
            if text is not None and text.startswith(self._mode):
                mode, end = text.removeprefix(self._mode).decode().split(" ")
                until = float(end)
                if until <= self._now() + LONGEST_MODE + SKEW_SECONDS:
                    return Mode(mode), until
        except ValueError:  # written by a later version
            pass
        return None, -math.inf
