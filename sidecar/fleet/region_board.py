"""
The board on which the fleet's processes pin what they know of regions, in Redis.

The rule: it is written and read in one step, by Redis' own clock alone, and what is not by one of our secrets is not
there. What follows from it is decided elsewhere.

In Redis stand two sorted sets of notes, by the time at which each ends, in milliseconds since the epoch: operators'
orders, and the openings and closings of breakers. A note is a label, the same for all with the same word of the same
subject, and sealed behind it namespace, word, subject and end: copied, it holds for no longer than it said, and nowhere
else. Among the orders one member without end, random bytes, marks the set: where it is another, what the set had was
lost. Besides, a string for each probe, which says whose it is.

``TIME`` within the script needs a right of its own (``+time``); where the ACL forbids it there is no board.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, TypeVar

from msgspec import json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.region.regions import Place
from sidecar.errors import FleetAway
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from sidecar.redis_link.names import Notes, RedisNames
from sidecar.redis_link.shapes import misshapen, number, one_of, pairs

EXCHANGE_SECONDS = 0.5
"""How long one reading or writing may take."""

LONGEST_ORDER = 30 * 86400.0
LONGEST_OPENING = 600.0
LONGEST_PROBE = 600.0
"""Seconds; nothing that is written or read holds for longer, whatever it says."""

LIFE_SECONDS = 31 * 24 * 3600
"""How long the sets outlive the last process that asked for them."""

MOST_NOTES = 256
"""In each set; beyond them what ends soonest goes."""

MOST_REMOVED = 10_000
"""Of what is over, or too much, by one exchange: whatever others have written into a set, none takes long."""

GRAIN_MILLISECONDS = 10_000
"""To multiples of it the sealed ends of findings are rounded up: what many find out at the same time is one note."""

LABEL_SIZE = 16
"""Bytes; the script has it, too."""

_FORBIDDEN, _UNTIMELY = 0, 2

ORDERS = ("open", "close", "auto")
FINDINGS = ("opened", "closed")


class _BoardReply(NamedTuple):
    """The answer of ``_EXCHANGE``; *done* is why there is nothing else in it, or whether it was timely."""

    done: int
    now: int = 0
    full: bool = False
    sets: tuple[list[bytes], ...] = ()


def _reply_of(reply: Any) -> _BoardReply:
    match reply:
        case [0]:
            return _BoardReply(_FORBIDDEN)
        case [1 | 2 as done, now, 0 | 1 as full, first, *others] if len(others) <= 1:
            return _BoardReply(done, number(now), bool(full), (pairs(first), *map(pairs, others)))
        case _:
            raise misshapen()


_EXCHANGE = Script(
    """
-- KEYS: the orders; where breakers are shared these, too, and then probes that are over. ARGV: the channel of news, a
-- mark for a new set, seconds to live, most notes, most to remove, whose probes are ours, what the caller takes for the
-- time: where that is wrong nothing is changed. Then for each change: the number of its set, when its note ends, 1 to
-- leave alone what is there, the number of its probe's key or 0, how many notes and labels go for it, these, and its
-- note, '' for none.
local time = redis.pcall('TIME')
if time.err then return {0} end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local function label(note) return string.sub(note, 1, 16) end
local most, sets, changed, full = tonumber(ARGV[4]), math.min(#KEYS, 2), {}, 0
local function trim(i, over)
  over = math.min(math.max(over, redis.call('ZCARD', KEYS[i]) - most), tonumber(ARGV[5]))
  if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[i], 0, over - 1) end
end
for i = 1, sets do
  local ended = redis.pcall('ZCOUNT', KEYS[i], '-inf', text(now))
  if type(ended) ~= 'table' then trim(i, ended)
  elseif string.find(ended.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[i])  -- none of ours
  else return ended end
end
local function standing(i, ...)
  return redis.call('ZREVRANGEBYSCORE', KEYS[i], '+inf', '(' .. text(now), 'LIMIT', 0, most, ...)
end
local function put(i, ...)
  local done = redis.pcall('ZADD', KEYS[i], ...)
  if type(done) == 'table' then full = 1 else changed[i] = true end  -- no memory left
  return type(done) ~= 'table'
end
if not redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf', 'LIMIT', 0, 1)[1] then put(1, '+inf', ARGV[2]) end
local known = math.abs(now - ARGV[7]) <= 1000
local at = known and 8 or #ARGV + 1
while ARGV[at] do
  local i, ends, unless, probe, gone = unpack(ARGV, at, at + 4)
  i, probe, gone = tonumber(i), tonumber(probe), tonumber(gone)
  local last = at + 4 + gone
  local note, goes, there, less = ARGV[last + 1], {}, {}, {}
  for n = at + 5, last do goes[ARGV[n]] = true end
  if note ~= '' then
    for _, old in ipairs(standing(i)) do
      if label(old) == label(note) or goes[old] or goes[label(old)] then there[#there + 1] = old end
    end
  end
  if note ~= '' and (unless == '0' or #there == 0) then
    for _, old in ipairs(there) do
      -- Many may find out the same: what holds for longer stays.
      local longer = i == 2 and label(old) == label(note) and redis.call('ZSCORE', KEYS[i], old) - ends > 0
      if old ~= note and not longer then less[#less + 1] = old end
    end
    local done
    if i == 2 then done = put(i, 'GT', ends, note) else done = put(i, ends, note) end
    if done and less[1] then redis.call('ZREM', KEYS[i], unpack(less)) end
  end
  if probe > 0 and redis.pcall('GET', KEYS[probe]) == ARGV[6] then redis.call('DEL', KEYS[probe]) end
  at = last + 2
end
local answer = {(known or not ARGV[8]) and 1 or 2, text(now), full}
for i = 1, sets do
  if changed[i] then trim(i, 0) end
  if changed[i] or redis.call('TTL', KEYS[i]) < ARGV[3] / 2 then redis.call('EXPIRE', KEYS[i], ARGV[3]) end
  answer[i + 3] = standing(i, 'WITHSCORES')
end
if ARGV[8] and next(changed) then redis.pcall('PUBLISH', ARGV[1], 'r') end  -- else it is read a little later
return answer
""",
    "regions",
    _reply_of,
)

_CLAIM = Script(
    """
-- KEYS: the probe. ARGV: whose it is to be, milliseconds, the most milliseconds that it may be anybody's.
local holder = redis.pcall('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
local none = left == -2 or left == -1 or left > tonumber(ARGV[3])  -- without an end it is no claim of ours
if not none and holder ~= ARGV[1] then return 0 end
redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])  -- where there is no memory left all may probe
return 1
""",
    "probe",
    one_of(0, 1),
)

_OURS = b"region "
_Text = tuple[str, str, str, int, tuple[str, ...]]
_KINDS = (("order", ORDERS, 1), ("breaker", FINDINGS, GRAIN_MILLISECONDS))


class Ordered(NamedTuple):
    """What an order is about."""

    service: str
    region: str


Subject = Ordered | Place
About = TypeVar("About", Ordered, Place)


class Change(NamedTuple):
    """
    From now on a note with *word* of *subject* is there for *seconds*, and no other of it. *unless*: where there is
    one, that stays. A change of a place says that its probe is over, too, if it is ours, and with ``""`` only that.
    """

    subject: Subject
    word: str
    seconds: float = 0.0
    unless: bool = False


class BoardNote(NamedTuple):
    """What a note says: a word of ``ORDERS`` or ``FINDINGS``, when it ends (Redis' milliseconds), and in how long."""

    word: str
    ends: int
    seconds: float


class BoardState(NamedTuple):
    """What is on the board, and the *mark* of its set of orders. *full*: what was to be written may not be there."""

    mark: bytes
    orders: Mapping[Ordered, BoardNote]
    findings: Mapping[Place, BoardNote]
    full: bool = False


class RegionBoard:
    """
    The board of *names*; *findings*: what is found out of breakers is read as well as orders. *timeout* is how long a
    claim may take, seconds; *clock* is seconds that run on; *random* gives as many random bytes as it is asked for.

    Whatever is asked raises ``FleetAway`` where Redis does not answer. ``counts``: ``unreadable`` notes.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        notes: Notes,
        *,
        findings: bool,
        timeout: float,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._link = link
        self._channel = names.news
        namespace = names.news.removesuffix(b"news")
        self._namespace = namespace.decode("ascii")
        prefix = namespace + b"{regions}:"
        self._sets = (prefix + b"orders", prefix + b"breakers") if findings else (prefix + b"orders",)
        self._probes = prefix + b"probe:"
        self._notes = notes
        self._timeout = timeout
        self._clock = clock
        self._ahead = 0.0
        self._random = random
        self._token = random(16)
        self._held: dict[Subject, tuple[bytes, ...]] = {}
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<RegionBoard of {len(self._held)} subjects>"

    async def exchange(self, changes: Iterable[Change] = ()) -> BoardState | str:
        """Make *changes*, and read what there is then; or why Redis won't have it."""
        changes = tuple(changes)
        for _ in range(2):  # as long as it takes to learn what its clock says, in which ends are sealed
            now, keys = self._redis_now(), list(self._sets)
            words: list[bytes | int] = [self._channel, self._random(16), LIFE_SECONDS, MOST_NOTES, MOST_REMOVED]
            words += (self._token, now)
            for change in changes:
                words += self._words(change, now, keys)
            answered: _BoardReply = await self._link.evaluate(_EXCHANGE, keys, words, TimeBudget(EXCHANGE_SECONDS))
            if answered.done == _FORBIDDEN:
                return "Redis forbids TIME to this user; grant +time"
            self._ahead = answered.now - self._clock() * 1000
            found = self._read(answered.now, answered.sets)
            if answered.done != _UNTIMELY:
                return found._replace(full=answered.full)
        raise FleetAway("error", "Redis' clock leaps")

    async def claim(self, place: Place, seconds: float) -> bool:
        """Whether the probe of *place* is ours, for *seconds* or until it is over."""
        words = [self._token, _milliseconds(min(seconds, LONGEST_PROBE)), _milliseconds(LONGEST_PROBE)]
        return bool(await self._link.evaluate(_CLAIM, [self._probe(place)], words, TimeBudget(self._timeout)))

    def _redis_now(self) -> int:
        """What Redis' clock says, in milliseconds, as far as is known."""
        return round(self._clock() * 1000 + self._ahead)

    def _words(self, change: Change, now: int, keys: list[bytes]) -> Sequence[bytes | int]:
        """*change* as the script has it; its probe's key, where it has one, is added to *keys*."""
        subject, word, ends = change.subject, change.word, now + _milliseconds(change.seconds)
        which, probe, note = 1, 0, b""
        gone: tuple[bytes, ...] = ()
        if isinstance(subject, Place):
            keys.append(self._probe(subject))
            which, probe = 2, len(keys)
        if word:
            kind, known, grain = _KINDS[which - 1]
            text = (self._namespace, kind, word, -(-ends // grain) * grain, subject)
            note = self._label(kind, word, *subject) + self._notes.seal_note(_OURS + json.encode(text))
            # What else there is of it: by the secret that writes, or as it was seen, by whichever.
            labels = (self._label(kind, other, *subject) for other in known if other != word)
            gone = (*labels, *self._held.get(subject, ()))
        return (which, ends, int(change.unless), probe, len(gone), *gone, note)

    def _read(self, now: int, sets: Sequence[Sequence[bytes]]) -> BoardState:
        mark = b""
        orders: dict[Ordered, BoardNote] = {}
        findings: dict[Place, BoardNote] = {}
        self._held = {}
        for found in sets:
            for note, score in zip(found[::2], found[1::2], strict=True):
                if score == b"inf":
                    mark = mark or note
                    continue
                subject, word, ends = self._opened(note)
                ends = min(ends, int(float(score)))  # anybody can have written the score
                if ends <= now:
                    continue
                if isinstance(subject, Place):
                    _add(findings, subject, BoardNote(word, ends, min((ends - now) / 1000, LONGEST_OPENING)))
                elif subject is not None:
                    _add(orders, subject, BoardNote(word, ends, min((ends - now) / 1000, LONGEST_ORDER)))
        return BoardState(mark, orders, findings)

    def _opened(self, note: bytes) -> tuple[Subject | None, str, int]:
        """
        What *note* is about, its word and its end; None where it isn't ours to read, of another namespace or a later
        version, or foreign.
        """
        subject: Subject | None = None
        word, ends = "", 0
        text = self._notes.open_note(note[LABEL_SIZE:])
        if text is not None and text.startswith(_OURS):
            try:
                namespace, kind, word, ends, names = json.decode(text.removeprefix(_OURS), type=_Text)
            except UNREADABLE:
                namespace, kind, names = "", "", ()
            if namespace != self._namespace:
                pass
            elif kind == "order" and word in ORDERS and len(names) == 2:
                subject = Ordered(*names)
            elif kind == "breaker" and word in FINDINGS and len(names) == 3:
                subject = Place(*names)
        if subject is None:
            self.counts["unreadable"] += 1
        else:
            self._held[subject] = (*self._held.get(subject, ()), note)
        return subject, word, ends

    def _probe(self, place: Place) -> bytes:
        return self._probes + self._label("probe", *place).hex().encode("ascii")

    def _label(self, *words: str) -> bytes:
        """What says *words* to those who have the secret, and nothing to others."""
        sealed = self._notes.seal_note(_OURS + json.encode((self._namespace, *words)))
        return blake2b(sealed, digest_size=LABEL_SIZE).digest()


def _add(known: dict[About, BoardNote], subject: About, said: BoardNote) -> None:
    """Of several notes of a subject, by two secrets or copied, what ends last counts."""
    if subject not in known or known[subject].ends < said.ends:
        known[subject] = said


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
