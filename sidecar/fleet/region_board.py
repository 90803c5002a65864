"""
The board in Redis where the fleet's processes write what they know of regions.

The rule: the board is written and read in one step, by Redis' own clock alone. A note that none of our secrets made is
ignored. What follows from the notes is decided elsewhere.

Redis has two sorted sets of notes, ordered by their end in milliseconds since the epoch: operators' orders, and the
openings and closings of breakers. A note begins with a label, which is the same for all notes with the same word about
the same subject. Behind it, namespace, word, subject and end are sealed. So a copied note holds no longer than it says,
and nowhere else. One member of the orders has no end: random bytes that mark the set. If the mark has changed, the
set's data was lost. Besides, there is one string for each probe, which says whose probe it is.

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
"""The time for one reading or writing."""

LONGEST_ORDER = 30 * 86400.0
LONGEST_OPENING = 600.0
LONGEST_PROBE = 600.0
"""Seconds. No note holds for longer, whatever it says."""

LIFE_SECONDS = 31 * 24 * 3600
"""How long the sets stay after the last process that asked for them."""

MOST_NOTES = 256
"""The most notes in each set. If there are more, those that end soonest are removed."""

MOST_REMOVED = 10_000
"""
The most old or surplus notes that one exchange removes, so that no exchange takes long, whatever others have written.
"""

GRAIN_MILLISECONDS = 10_000
"""
The sealed ends of findings are rounded up to multiples of it, so that processes that find the same write the same note.
"""

LABEL_SIZE = 16
"""Bytes. The script has the same number."""

_FORBIDDEN, _UNTIMELY = 0, 2

ORDERS = ("open", "close", "auto")
FINDINGS = ("opened", "closed")


class _BoardReply(NamedTuple):
    """The answer of ``_EXCHANGE``. *done* says whether the caller's time was right, or why the answer is empty."""

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
-- KEYS: the orders; where breakers are shared also the findings, and then the probes that are over. ARGV: the channel
-- of news, a mark for a new set, seconds to live, most notes, most to remove, the holder of our probes, the time as the
-- caller knows it: if it is wrong, nothing is changed. Then for each change: the number of its set, when its note ends,
-- 1 to leave a note that is there, the number of its probe's key or 0, how many notes and labels it removes, these, and
-- its note, '' for none.
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
  elseif string.find(ended.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[i])  -- not ours
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
      -- Many processes may find out the same: the note that holds for longer stays.
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
if ARGV[8] and next(changed) then redis.pcall('PUBLISH', ARGV[1], 'r') end  -- otherwise others read it later
return answer
""",
    "regions",
    _reply_of,
)

_CLAIM = Script(
    """
-- KEYS: the probe. ARGV: the holder to be, milliseconds, the most milliseconds that a probe may be held.
local holder = redis.pcall('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
local none = left == -2 or left == -1 or left > tonumber(ARGV[3])  -- without an end it is not a claim of ours
if not none and holder ~= ARGV[1] then return 0 end
redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])  -- where there is no memory left, every process may probe
return 1
""",
    "probe",
    one_of(0, 1),
)

_OURS = b"region "
_Text = tuple[str, str, str, int, tuple[str, ...]]
_KINDS = (("order", ORDERS, 1), ("breaker", FINDINGS, GRAIN_MILLISECONDS))


class Ordered(NamedTuple):
    """The region, or all of them, that an order is about."""

    service: str
    region: str


Subject = Ordered | Place
About = TypeVar("About", Ordered, Place)


class Change(NamedTuple):
    """
    A change of the board: a note with *word* about *subject* for *seconds*, and no other note about it. *unless*: an
    existing note stays. A change about a place also ends its probe, if it is ours; with the word ``""`` it does only
    that.
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
    """
    What is on the board, and the *mark* of its set of orders. *full*: notes may be missing, because Redis had no
    memory.
    """

    mark: bytes
    orders: Mapping[Ordered, BoardNote]
    findings: Mapping[Place, BoardNote]
    full: bool = False


class RegionBoard:
    """
    The board of *names*. *findings*: read the findings about breakers as well as orders. *timeout* is how long a claim
    may take, seconds; *clock* is seconds that run on; *random* gives as many random bytes as it is asked for.

    Each method raises ``FleetAway`` where Redis does not answer. ``counts``: ``unreadable`` notes.
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
        self.timeout = timeout
        self._clock = clock
        self._ahead = 0.0
        self._random = random
        self._token = random(16)
        self._held: dict[Subject, tuple[bytes, ...]] = {}
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<RegionBoard of {len(self._held)} subjects>"

    async def exchange(self, changes: Iterable[Change] = ()) -> BoardState | str:
        """Make *changes* and return the board after them; or the reason why Redis refuses."""
        changes = tuple(changes)
        for _ in range(2):  # the first try may only learn Redis' clock, which sealed ends need
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
        """Whether this process may probe *place*, for *seconds* or until the probe is over."""
        words = [self._token, _milliseconds(min(seconds, LONGEST_PROBE)), _milliseconds(LONGEST_PROBE)]
        return bool(await self._link.evaluate(_CLAIM, [self._probe(place)], words, TimeBudget(self.timeout)))

    def _redis_now(self) -> int:
        """What Redis' clock says, in milliseconds, as far as it is known."""
        return round(self._clock() * 1000 + self._ahead)

    def _words(self, change: Change, now: int, keys: list[bytes]) -> Sequence[bytes | int]:
        """*change* in the form of the script; the key of its probe, if any, is added to *keys*."""
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
        What *note* is about, its word and its end; None where we cannot read it: it has another namespace, a later
        version, or is foreign.
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
        """A label for *words*: those who have the secret can tell what it stands for, others cannot."""
        sealed = self._notes.seal_note(_OURS + json.encode((self._namespace, *words)))
        return blake2b(sealed, digest_size=LABEL_SIZE).digest()


def _add(known: dict[About, BoardNote], subject: About, said: BoardNote) -> None:
    """Several notes about one subject, by two secrets or copied: the one that ends last counts."""
    if subject not in known or known[subject].ends < said.ends:
        known[subject] = said


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
