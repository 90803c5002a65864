"""
The fleet's log of purges, as this process reads and writes it; the fleet's mode travels the same way.

The rule: one script reads and writes the log, in one step and never two at a time, so that what it says can be taken
in as it comes. A purge holds here at once, whether Redis answers or not, and waits until it is in the log.

The log is a hash (``incarnation``, 16 random bytes; ``number`` and ``last``, that of the latest purge; ``node``, the
run id of the server that holds it; ``before``, the incarnations that it goes on from, each with its last number in 16
digits), a sorted set of sealed scopes by number, in which an equal scope purged again moves up by itself, and a sealed
text that is the mode. All expire when no process has asked for 30 days; an entry that outlives its log is of no
incarnation that holds, and is admitted by nobody.

``INFO server`` within the script tells the server apart from one that has taken its place. Where the ACL forbids it
(``+info`` grants it), a log that is gone counts as flushed, and of a failover only numbers that go backwards tell.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from sidecar.core.model import Position
from sidecar.core.purges import ALL, Due, Purges, Scope, Tail, read_scope, write_scope
from sidecar.core.rules import Mode
from sidecar.errors import FleetAway
from sidecar.fleet.client import Spawn
from sidecar.fleet.link import Budget, Link, Script, Tell
from sidecar.fleet.names import Names

POLL_SECONDS = 1.0
"""The log is read at least this often."""

SPREAD_SECONDS = 0.05
"""Over how much the fleet's reads are spread when news comes to all at once; so one process reads no more often."""

CURRENT_SECONDS = 3.0
"""How old what is known of purges may be for entries from Redis to be judged by it."""

EXCHANGE_SECONDS = 0.5
"""How long one reading or writing of the log may take."""

LIFE_SECONDS = 30 * 24 * 3600
"""How long the log outlives the last process that asked for it."""

LONGEST_MODE = 30 * 86400.0
"""Seconds; no mode holds for longer, and one that says so is none."""

SKEW_SECONDS = 600.0
"""So far the wall clock of who set a mode may be ahead of ours."""

MOST_PURGES = 1000
"""Purges in the log; the oldest beyond are one of all."""

_LOG = Script(
    """
-- KEYS: the log's hash, its purges, the mode. ARGV: the channel of news, an incarnation for a new log, the incarnation
-- and number that are known, seconds to live, most purges, the note of all; then for each purge
-- its note, and the number above which it need not be written again.
-- What is new is read before they are written: an equal purge by somebody else must not be taken for ours.
local function text(number) return string.format('%.0f', number) end
local told = redis.pcall('INFO', 'server')
local node = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
local log = redis.pcall('HMGET', KEYS[1], 'incarnation', 'number', 'last', 'node', 'before')
if log.err then redis.call('DEL', KEYS[1]) end  -- what is of another type is none of ours
local incarnation, number, last, before = log[1], tonumber(log[2] or ''), log[3], log[5]
local top = redis.pcall('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
if top.err then redis.call('DEL', KEYS[2]) end
local highest = top[2] or '0'
local changed = false
if not incarnation or not number or highest ~= last then  -- there is none, or part of it was evicted
  redis.call('DEL', KEYS[1], KEYS[2])
  incarnation, number, last, before, changed = ARGV[2], 0, '0', '', true
elseif (node ~= '' and log[4] and node ~= log[4])
    or (incarnation == ARGV[3] and tonumber(ARGV[4]) > number) then  -- what came last may be lost
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
local added, full = false, 0
for i = 8, #ARGV, 2 do
  local score = redis.call('ZSCORE', KEYS[2], ARGV[i])
  if not score or tonumber(score) <= tonumber(ARGV[i + 1]) then
    local put = redis.pcall('ZADD', KEYS[2], text(number + 1), ARGV[i])
    if type(put) == 'table' and put.err then  -- no memory left: what is there can be read all the same
      full = 1
      break
    end
    added = true
  end
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
    if incarnation ~= log[1] then return put end  -- there is no log, and none can be made
    full = 1
  elseif node ~= '' then redis.call('HSET', KEYS[1], 'node', node) end
end
if changed or redis.call('TTL', KEYS[1]) < ARGV[5] / 2 then
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('EXPIRE', KEYS[2], ARGV[5])
end
if added then redis.pcall('PUBLISH', ARGV[1], 'p') end  -- where that is forbidden, the log is read a little later
local mode = redis.pcall('GET', KEYS[3])
if type(mode) == 'table' then
  redis.call('DEL', KEYS[3])
  mode = false
end
return {incarnation, text(number), before, node, purges, mode, full}
""",
    "purge-log",
)

_MODE = Script(
    """
-- KEYS: the mode. ARGV: the channel of news, the mode's note or nothing, milliseconds, 1 to leave one that is there.
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[4] == '1' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3], 'NX')
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.pcall('PUBLISH', ARGV[1], 'p')
return 1
""",
    "mode",
)


class Notes(Protocol):
    """Short texts that are sealed for Redis; equal texts are equal notes while the secret stays."""

    def seal_note(self, text: bytes) -> bytes:
        """The note of *text*."""

    def open_note(self, data: bytes) -> bytes | None:
        """The text of a note, or None where it is not by one of our secrets."""


class PurgeLog:
    """
    Keeps *purges* in step with the log. *now* is the wall clock, *clock* seconds that run on, *draw* gives [0, 1),
    *random* as many random bytes as it is asked for.

    *on_purge* is called with what has just been purged here, by whomever, in the same step in which *purges* learns
    it; *on_mode* with the fleet's mode when that changes, None where there is none. Nothing raises but for
    cancellation. ``counts``: ``tails`` and ``failures`` of reading, ``purges`` written from here, ``learned`` from the
    log, ``unreadable`` notes (each a purge of everything), ``lost`` logs.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        notes: Notes,
        purges: Purges,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        random: Callable[[int], bytes],
        spawn: Spawn,
        on_purge: Callable[[tuple[Scope, ...]], None],
        on_mode: Callable[[Mode | None], None],
        tell: Tell,
    ) -> None:
        self._link = link
        self._names = names
        # What is sealed says whose it is: nobody can carry it over to another namespace that has the same secret.
        self._namespace = names.news.removesuffix(b"news") + b" "
        self._notes = notes
        self._purges = purges
        self._now = now
        self._clock = clock
        self._draw = draw
        self._random = random
        self._spawn = spawn
        self._on_purge = on_purge
        self._on_mode = on_mode
        self._tell = tell
        self._exchanging = asyncio.Lock()
        self._nudged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._read_at = clock()
        self._away = False
        self._mode: Mode | None = None
        self._until = -math.inf
        self._told_mode: Mode | None = None
        self._told_fault = ""
        self.counts: Counter[str] = Counter()
        link.on_return.append(self._return)

    def __repr__(self) -> str:
        return f"<PurgeLog {self._purges!r}, mode {self.mode or 'unset'}, read {self.lag:.1f} s ago>"

    @property
    def lag(self) -> float:
        """Seconds since the log was read last, or since this was made."""
        return self._clock() - self._read_at

    @property
    def current(self) -> bool:
        """Whether what is known of purges is recent enough for entries from Redis to be judged by it."""
        return not self._away and self.lag <= CURRENT_SECONDS

    @property
    def mode(self) -> Mode | None:
        """The fleet's mode now."""
        return self._mode if self._now() < self._until else None

    async def start(self) -> None:
        """Read the log, if it answers in time, and from now on until ``stop``."""
        await self._exchange()
        self._task = self._spawn(self._follow(), name="purge-log")

    async def stop(self) -> None:
        """Follow the log no more; what still waits for it is written if that can be done in one try."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        if self._purges.pending:
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * EXCHANGE_SECONDS):
                    await self._exchange()

    def _return(self) -> None:
        """Redis was away, and so may purges have been: nothing from there is current until the log has been read."""
        self._away = True
        self.nudge()

    def nudge(self) -> None:
        """There may be news: read the log soon."""
        self._nudged.set()

    async def purge(self, scopes: Iterable[Scope]) -> Position | None:
        """
        Purge *scopes*, here at once and everywhere within a second or two of being in the log. Returns where in the log
        it stands; None: Redis is away, and the purge waits for its return.
        """
        scopes = tuple(scopes)
        self._purges.apply(scopes)
        self._carry_out(scopes)
        await self._exchange()
        pending = self._purges.pending
        if ALL in pending or not pending.keys().isdisjoint(scopes):
            return None
        return self._purges.position

    async def set_mode(self, mode: Mode | None, until: float = 0.0) -> bool:
        """
        Set the fleet's mode until *until*, wall clock, at most for ``LONGEST_MODE``; None, or a time that has passed:
        there is none any more.

        False: Redis is away, and nothing has changed as far as is known.
        """
        if not await self._put_mode(mode, until):
            return False
        await self._exchange()
        return True

    async def _follow(self) -> None:
        while True:
            wait = POLL_SECONDS * (1.0 + self._draw()) / 2
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._nudged.wait()
                    await asyncio.sleep(SPREAD_SECONDS * self._draw())
            self._nudged.clear()
            await self._exchange()

    async def _exchange(self) -> None:
        """Write what is pending, read what is new, and take it in, if Redis answers."""
        async with self._exchanging:
            try:
                await self._try_exchange()
            except FleetAway as away:
                self.counts["failures"] += 1
                if self._link.up and self.lag > CURRENT_SECONDS:  # else the link tells of it
                    self._complain(str(away))
            except Exception as error:  # noqa: BLE001 - a bug, or foreign data under our keys, must not end the following
                self.counts["failures"] += 1
                self._fault(error)
        self._announce_mode()

    async def _try_exchange(self) -> None:
        sent = self._purges.pending
        known = self._purges.position
        answer = await self._link.evaluate(_LOG, self._keys(), self._words(known, sent), Budget(EXCHANGE_SECONDS))
        tail, mode_note, full = self._read(answer)
        if full:
            sent = {}
            self._complain("Redis takes no writes")
        news = self._purges.learn(tail, self._clock(), sent)
        if news:
            self._carry_out(news)
        self._read_at = self._clock()
        self._away = False
        self.counts["tails"] += 1
        self.counts["purges"] += len(sent)
        self.counts["learned"] += len(news)
        changed = bool(known.incarnation) and tail.incarnation != known.incarnation
        if changed and not tail.before:
            self.counts["lost"] += 1
            self._tell("purge-log-lost", level="warning", memory="purged" if ALL in news else "kept")
        if changed and mode_note is None and self.mode is not None:
            await self._put_mode(self._mode, self._until, unless_set=True)
        else:
            self._mode, self._until = self._read_mode(mode_note)

    def _keys(self) -> list[bytes]:
        return [self._names.log_meta, self._names.log_purges, self._names.log_mode]

    def _words(self, known: Position, sent: Mapping[Scope, Due]) -> list[bytes | int]:
        words: list[bytes | int] = [
            self._names.news,
            self._random(16),
            known.incarnation,
            known.number,
            LIFE_SECONDS,
            MOST_PURGES,
            self._note(ALL),
        ]
        for scope, due in sent.items():
            words += (self._note(scope), due.unless)
        return words

    def _note(self, scope: Scope) -> bytes:
        ours = b"purge " + self._namespace
        try:
            return self._notes.seal_note(ours + write_scope(scope))
        except ValueError:  # no name is so long; whatever is meant is purged with all
            return self._notes.seal_note(ours + write_scope(ALL))

    def _read(self, answer: Sequence[Any]) -> tuple[Tail, bytes | None, bool]:
        incarnation, number, before, node, purges, mode_note, full = answer
        pairs = zip(purges[::2], purges[1::2], strict=True)
        read = tuple((self._scope(note), int(score)) for note, score in pairs)
        bases = {before[at : at + 16]: int(before[at + 16 : at + 32]) for at in range(0, len(before), 32)}
        return Tail(incarnation, int(number), bases, node.decode("ascii"), read), mode_note, bool(full)

    def _scope(self, note: bytes) -> Scope:
        """What *note* purges: everything where we cannot tell, for its secret is gone, or newer than ours."""
        text = self._notes.open_note(note)
        ours = b"purge " + self._namespace
        if text is None or not text.startswith(ours):
            self.counts["unreadable"] += 1
            return ALL
        return read_scope(text.removeprefix(ours))

    def _read_mode(self, note: bytes | None) -> tuple[Mode | None, float]:
        text = self._notes.open_note(note) if note is not None else None
        ours = b"mode " + self._namespace
        try:
            if text is not None and text.startswith(ours):
                mode, end = text.removeprefix(ours).decode().split(" ")
                until = float(end)
                if until <= self._now() + LONGEST_MODE + SKEW_SECONDS:
                    return Mode(mode), until
        except ValueError:  # of a later version
            pass
        return None, -math.inf

    async def _put_mode(self, mode: Mode | None, until: float, *, unless_set: bool = False) -> bool:
        until = min(until, self._now() + LONGEST_MODE)
        left = until - self._now()
        try:
            note = b""
            if mode is not None and left > 0:
                text = f"{mode.value} {until!r}".encode()
                note = self._notes.seal_note(b"mode " + self._namespace + text)
            words: list[bytes | int] = [self._names.news, note, max(1, int(left * 1000)), int(unless_set)]
            await self._link.evaluate(_MODE, [self._names.log_mode], words, Budget(EXCHANGE_SECONDS))
        except FleetAway:
            return False
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)
            return False
        return True

    def _carry_out(self, purged: tuple[Scope, ...]) -> None:
        try:
            self._on_purge(purged)
        except Exception as error:  # noqa: BLE001 - the purge is known, and what it forbids is not admitted any more
            self._fault(error)

    def _announce_mode(self) -> None:
        mode = self.mode
        if mode is self._told_mode:
            return
        self._told_mode = mode
        try:
            self._on_mode(mode)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        self._complain(type(error).__name__)  # its text may quote what was read

    def _complain(self, fault: str) -> None:
        """Told once, until something else is wrong."""
        if fault != self._told_fault:
            self._told_fault = fault
            self._tell("purge-log-fault", level="error", fault=fault)
