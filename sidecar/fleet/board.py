"""
The board on which the fleet's processes pin what they know of regions, in Redis.

The rule: it is written and read in one step, by Redis' own clock alone, and what is not by one of our secrets is not
there. What follows from it is decided elsewhere.

In Redis stand two sorted sets of sealed notes, by the time at which each ends, in milliseconds since the epoch:
operators' orders, and the openings and closings of breakers. Among the orders one member without end, random bytes,
marks the set: where it is another, what the set had was lost. Besides, a string for each probe, which says whose it is.

``TIME`` within the script needs a right of its own (``+time``); where the ACL forbids it there is no board.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol, TypeVar

from msgspec import DecodeError, ValidationError, json

from sidecar.core.regions import Place
from sidecar.fleet.link import Budget, Link, Script
from sidecar.fleet.names import Names

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

ORDERS = ("open", "close", "auto")
FINDINGS = ("opened", "closed")

_EXCHANGE = Script(
    """
-- KEYS: the orders; where breakers are shared these, too, and then probes that are over. ARGV: the channel of news, a
-- mark for a new set, seconds to live, most notes, whose probes are ours; then for each change: the number of its set,
-- the milliseconds for which its note is to hold, 1 to leave alone what is there, the number of its probe's key or 0,
-- how many notes go for it, these, and its note, '' for none.
local time = redis.pcall('TIME')
if time.err then return {0} end
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local sets, changed, full = math.min(#KEYS, 2), {}, 0
for i = 1, sets do
  local ended = redis.pcall('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now))
  if type(ended) == 'table' and ended.err then redis.call('DEL', KEYS[i]) end  -- another type is none of ours
end
local function put(i, ...)
  local done = redis.pcall('ZADD', KEYS[i], ...)
  if type(done) == 'table' and done.err then full = 1 else changed[i] = true end  -- no memory left
end
if not redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')[1] then put(1, '+inf', ARGV[2]) end
local at = 6
while ARGV[at] do
  local i, life, unless, probe, gone = unpack(ARGV, at, at + 4)
  i, probe, gone = tonumber(i), tonumber(probe), tonumber(gone)
  local first, last = at + 5, at + 4 + gone
  local note, present = ARGV[last + 1], {}
  for n = first, last do
    if redis.call('ZSCORE', KEYS[i], ARGV[n]) then present[#present + 1] = ARGV[n] end
  end
  if unless == '0' or (#present == 0 and not redis.call('ZSCORE', KEYS[i], note)) then
    for _, old in ipairs(present) do put(i, '0', old) end  -- which is over, and goes below
    if note ~= '' and i == 2 then put(i, 'GT', text(now + life), note)  -- many may find out the same
    elseif note ~= '' then put(i, text(now + life), note) end
  end
  if probe > 0 and redis.pcall('GET', KEYS[probe]) == ARGV[5] then redis.call('DEL', KEYS[probe]) end
  at = last + 2
end
local answer = {1, text(now), full}
for i = 1, sets do
  if changed[i] then
    redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', text(now))
    local over = redis.call('ZCARD', KEYS[i]) - ARGV[4]
    if over > 0 then redis.call('ZPOPMIN', KEYS[i], over) end
  end
  if changed[i] or redis.call('TTL', KEYS[i]) < ARGV[3] / 2 then redis.call('EXPIRE', KEYS[i], ARGV[3]) end
  answer[i + 3] = redis.call('ZRANGEBYSCORE', KEYS[i], '(' .. text(now), '+inf', 'WITHSCORES')
end
if ARGV[6] and next(changed) then redis.pcall('PUBLISH', ARGV[1], 'r') end  -- else it is read a little later
return answer
""",
    "regions",
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
)

_OURS = b"region "


class Notes(Protocol):
    """Short texts that are sealed for Redis; equal texts are equal notes while the secret stays."""

    def seal_note(self, text: bytes) -> bytes:
        """The note of *text*."""

    def open_note(self, data: bytes) -> bytes | None:
        """The text of a note, or None where it is not by one of our secrets."""


class Ordered(NamedTuple):
    """What an order is about."""

    service: str
    region: str


Subject = Ordered | Place
About = TypeVar("About", Ordered, Place)


class Change(NamedTuple):
    """
    From now on a note with *word* of *subject* is there for *seconds*, and no other of it, ``""``: none. *unless*:
    where there is one, that stays. *silent*: no note is touched, only the place's probe is over, if it is ours.
    """

    subject: Subject
    word: str
    seconds: float = 0.0
    unless: bool = False
    silent: bool = False


class Said(NamedTuple):
    """What a note says: a word of ``ORDERS`` or ``FINDINGS``, when it ends (Redis' milliseconds), and in how long."""

    word: str
    ends: int
    seconds: float


class Answer(NamedTuple):
    """What is on the board, and the *mark* of its set of orders."""

    mark: bytes
    orders: Mapping[Ordered, Said]
    findings: Mapping[Place, Said]


class Board:
    """
    The board of *names*; *findings*: what is found out of breakers is read as well as orders. *timeout* is how long a
    claim may take, seconds; *random* gives as many random bytes as it is asked for.

    Whatever is asked raises ``FleetAway`` where Redis does not answer. ``counts``: ``unreadable`` notes.
    """

    def __init__(
        self,
        link: Link,
        names: Names,
        notes: Notes,
        *,
        findings: bool,
        timeout: float,
        random: Callable[[int], bytes],
    ) -> None:
        self._link = link
        self._channel = names.news
        prefix = names.news.removesuffix(b"news") + b"{regions}:"
        self._sets = (prefix + b"orders", prefix + b"breakers") if findings else (prefix + b"orders",)
        self._probes = prefix + b"probe:"
        self._notes = notes
        self._timeout = timeout
        self._random = random
        self._token = random(16)
        self._held: dict[Subject, tuple[bytes, ...]] = {}
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Board of {len(self._held)} subjects>"

    async def exchange(self, changes: Iterable[Change] = ()) -> Answer | str:
        """Make *changes*, and read what there is then; or why Redis won't have it."""
        keys = list(self._sets)
        words: list[bytes | int] = [self._channel, self._random(16), LIFE_SECONDS, MOST_NOTES, self._token]
        for change in changes:
            words += self._words(change, keys)
        allowed, *answer = await self._link.evaluate(_EXCHANGE, keys, words, Budget(EXCHANGE_SECONDS))
        if not allowed:
            return "Redis forbids TIME to this user; grant +time"
        now, full, *sets = answer
        return "Redis takes no writes" if full else self._read(int(now), sets)

    async def claim(self, place: Place, seconds: float) -> bool:
        """Whether the probe of *place* is ours, for *seconds* or until it is over."""
        words = [self._token, _milliseconds(min(seconds, LONGEST_PROBE)), _milliseconds(LONGEST_PROBE)]
        return bool(await self._link.evaluate(_CLAIM, [self._probe(place)], words, Budget(self._timeout)))

    def _words(self, change: Change, keys: list[bytes]) -> Sequence[bytes | int]:
        """*change* as the script has it; its probe's key, where it has one, is added to *keys*."""
        subject, probe = change.subject, 0
        kind, known = ("breaker", FINDINGS) if isinstance(subject, Place) else ("order", ORDERS)
        try:
            notes = {} if change.silent else {word: self._sealed(kind, word, *subject) for word in known}
            if isinstance(subject, Place):
                keys.append(self._probe(subject))
                probe = len(keys)
        except ValueError:  # only the name of a resource, which a caller may choose, can be too long for a note
            return ()
        note = notes.pop(change.word, b"")
        # What else there is of it: by the secret that writes, or as it was seen, by whichever.
        seen = () if change.silent else self._held.get(subject, ())
        others = tuple(dict.fromkeys(old for old in (*notes.values(), *seen) if old != note))
        which = 2 if isinstance(subject, Place) else 1
        return (which, _milliseconds(change.seconds), int(change.unless), probe, len(others), *others, note)

    def _read(self, now: int, sets: Sequence[Sequence[bytes]]) -> Answer:
        mark = b""
        orders: dict[Ordered, Said] = {}
        findings: dict[Place, Said] = {}
        self._held = {}
        for found in sets:
            for note, score in zip(found[::2], found[1::2], strict=True):
                if score == b"inf":
                    mark = mark or note
                    continue
                subject, word = self._opened(note)
                ends = int(float(score))
                if isinstance(subject, Place):
                    _add(findings, subject, Said(word, ends, min((ends - now) / 1000, LONGEST_OPENING)))
                elif subject is not None:
                    _add(orders, subject, Said(word, ends, min((ends - now) / 1000, LONGEST_ORDER)))
        return Answer(mark, orders, findings)

    def _opened(self, note: bytes) -> tuple[Subject | None, str]:
        """What *note* is about, and its word; None where it isn't ours to read, of a later version, or foreign."""
        subject: Subject | None = None
        word = ""
        text = self._notes.open_note(note)
        if text is not None and text.startswith(_OURS):
            try:
                kind, word, *names = json.decode(text.removeprefix(_OURS), type=tuple[str, ...])
            except (DecodeError, ValidationError, UnicodeDecodeError, ValueError):
                kind, names = "", []
            if kind == "order" and word in ORDERS and len(names) == 2:
                subject = Ordered(*names)
            elif kind == "breaker" and word in FINDINGS and len(names) == 3:
                subject = Place(*names)
        if subject is None:
            self.counts["unreadable"] += 1
        else:
            self._held[subject] = (*self._held.get(subject, ()), note)
        return subject, word

    def _probe(self, place: Place) -> bytes:
        return self._probes + blake2b(self._sealed("probe", *place), digest_size=16).hexdigest().encode("ascii")

    def _sealed(self, *words: str) -> bytes:
        return self._notes.seal_note(_OURS + json.encode(words))


def _add(known: dict[About, Said], subject: About, said: Said) -> None:
    """Of two notes, by two secrets, what ends later counts."""
    if subject not in known or known[subject].ends < said.ends:
        known[subject] = said


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))
