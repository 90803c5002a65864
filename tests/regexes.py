"""
Counts what a regular expression costs: each pattern is run by a small backtracking matcher that goes the way of ``re``
and counts the characters it looks at. Counts don't depend on the machine, as times do.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from itertools import product
from re import _constants as c  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]

MANY = 1000
"""A repeat that may go on for so long is as good as one without a bound."""

_SIZE = 128
_MOST = 100_000
_CHEAP = 40
_RATIO = 3.0

Then = Callable[[int], bool]
Step = Callable[[int, Then], bool]

_CATEGORIES = {
    c.CATEGORY_DIGIT: r"\d", c.CATEGORY_NOT_DIGIT: r"\D", c.CATEGORY_SPACE: r"\s", c.CATEGORY_NOT_SPACE: r"\S",
    c.CATEGORY_WORD: r"\w", c.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_LETTERS = [chr(code) for code in range(256)]
_LOOPS = (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT)


class TooManySteps(Exception):
    pass


class Counter:
    """One pattern, as ``re`` would run it on *text*: ``steps`` are the characters looked at, over all runs."""

    def __init__(self, pattern: re.Pattern) -> None:
        source, flags = pattern.pattern, pattern.flags
        if isinstance(source, bytes):
            source, flags = source.decode("latin-1"), flags | re.ASCII
        self.tree = parser.parse(source, flags & ~re.DEBUG)
        self._flags = self.tree.state.flags
        self.steps = 0
        self.text = ""
        self._run = self._sequence(self.tree, self._flags)

    def cost(self, text: str, how: str) -> int:
        """The steps that *how*, a method of patterns, takes for *text*."""
        self.steps = 0
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(50_000)  # a repeat is a call within a call
        try:
            self.found(text, how)
        except TooManySteps:
            return _MOST
        finally:
            sys.setrecursionlimit(limit)
        return self.steps

    def found(self, text: str, how: str) -> bool:
        """Whether *how* finds anything; ways to search all go on to the end of *text*."""
        self.text = text
        if how == "match":
            return self._run(0, lambda _: True)
        if how == "fullmatch":
            return self._run(0, lambda at: at == len(text))
        at, some = 0, False
        while at <= len(text):
            ends: list[int] = []
            if self._run(at, lambda end: not ends.append(end)):  # noqa: B023  called before the next round
                some = True
                at = max(ends[0], at + 1)
            else:
                at += 1
        return some

    def _tick(self) -> None:
        self.steps += 1
        if self.steps > _MOST:
            raise TooManySteps

    def _sequence(self, items, flags: int) -> Step:
        steps = [self._step(op, value, flags) for op, value in items]

        def run(at: int, then: Then, number: int = 0) -> bool:
            if number == len(steps):
                return then(at)
            return steps[number](at, lambda end: run(end, then, number + 1))

        return run

    def _step(self, op, value, flags: int) -> Step:
        if (letters := letters_of(op, value, flags)) is not None:
            return lambda at, then: self._is(letters, at) and then(at + 1)
        if op in _LOOPS:
            return self._loop(op, value, flags)
        if op is c.ATOMIC_GROUP:
            inside = self._sequence(value, flags)
            return lambda at, then: (end := _first(inside, at)) is not None and then(end)
        if op is c.SUBPATTERN:
            _, more, less, items = value
            return self._sequence(items, (flags | more) & ~less)
        if op is c.BRANCH:
            return self._branch([self._sequence(items, flags) for items in value[1]])
        if op is c.AT:
            return lambda at, then: self._holds(value, at) and then(at)
        if op in {c.ASSERT, c.ASSERT_NOT}:
            direction, items = value
            inside = self._sequence(items, flags)
            back = items.getwidth()[1] if direction < 0 else 0
            wanted = op is c.ASSERT

            def look(at: int, then: Then) -> bool:
                found = at >= back and inside(at - back, lambda end: direction > 0 or end == at)
                return found == wanted and then(at)

            return look
        raise NotImplementedError(op)

    @staticmethod
    def _branch(ways: list[Step]) -> Step:
        def branch(at: int, then: Then) -> bool:
            for way in ways:  # noqa: SIM110  ``any`` would take a frame of C for each of these
                if way(at, then):
                    return True
            return False

        return branch

    def _is(self, letters: frozenset[str], at: int) -> bool:
        self._tick()
        return at < len(self.text) and self.text[at] in letters

    def _holds(self, where, at: int) -> bool:
        text = self.text
        if where in {c.AT_BEGINNING, c.AT_BEGINNING_STRING}:
            return at == 0
        if where is c.AT_END_STRING:
            return at == len(text)
        if where is c.AT_END:
            return at == len(text) or (at == len(text) - 1 and text[at] == "\n")
        if where is c.AT_BOUNDARY:
            before, after = (re.match(r"\w", text[n : n + 1]) if n >= 0 else None for n in (at - 1, at))
            return (before is None) != (after is None)
        raise NotImplementedError(where)

    def _loop(self, op, value, flags: int) -> Step:
        least, most, items = value
        letters = letters_of(*items[0], flags) if len(items) == 1 else None
        if op is c.POSSESSIVE_REPEAT:
            inside = self._sequence(items, flags)

            def possessive(at: int, then: Then) -> bool:
                count = 0
                while count < most and (end := _first(inside, at)) is not None:
                    count += 1
                    if end == at:
                        count = max(count, least)
                        break
                    at = end
                return count >= least and then(at)

            return possessive
        if letters is not None:

            def run(at: int, then: Then) -> bool:
                end = at
                while end - at < most and self._is(letters, end):
                    end += 1
                places = range(at + least, end + 1)
                for place in reversed(places) if op is c.MAX_REPEAT else places:
                    self._tick()
                    if then(place):
                        return True
                return False

            return run
        inside = self._sequence(items, flags)

        def loop(at: int, then: Then, count: int = 0) -> bool:
            def more() -> bool:
                return count < most and inside(
                    at, lambda end: (end > at or count < least) and loop(end, then, count + 1)
                )

            if op is c.MIN_REPEAT:
                return (count >= least and then(at)) or more()
            return more() or (count >= least and then(at))

        return loop


def _first(inside: Step, at: int) -> int | None:
    ends: list[int] = []
    return ends[0] if inside(at, lambda end: not ends.append(end)) else None


def letters_of(op, value, flags: int) -> frozenset[str] | None:
    """The characters of which an item takes one; None where it is no such item."""
    if op is c.LITERAL:
        return _cased({chr(value)}, flags)
    if op is c.NOT_LITERAL:
        return frozenset(_LETTERS) - _cased({chr(value)}, flags)
    if op is c.ANY:
        return frozenset(_LETTERS) if flags & re.DOTALL else frozenset(_LETTERS) - {"\n"}
    if op is not c.IN:
        return None
    found: set[str] = set()
    for kind, one in value:
        if kind is c.LITERAL:
            found.add(chr(one))
        elif kind is c.RANGE:
            found |= {letter for letter in _LETTERS if one[0] <= ord(letter) <= one[1]}
        elif kind is c.CATEGORY:
            ascii_only = flags & re.ASCII
            found |= {letter for letter in _LETTERS if re.match(_CATEGORIES[one], letter, ascii_only)}
    taken = _cased(found, flags)
    return frozenset(_LETTERS) - taken if value[0][0] is c.NEGATE else taken


def _cased(letters: set[str], flags: int) -> frozenset[str]:
    if flags & re.IGNORECASE:
        letters = letters | {letter.lower() for letter in letters} | {letter.upper() for letter in letters}
    return frozenset(letters)


def _sample(items, flags: int, dice: random.Random, common: list[str]) -> str:
    """A text that *items* may well match."""
    text = ""
    for op, value in items:
        if (letters := letters_of(op, value, flags)) is not None:
            usual = [letter for letter in common if letter in letters] or sorted(letters)[:1]
            text += dice.choice(usual) if usual else ""
        elif op in _LOOPS:
            for _ in range(min(max(value[0], dice.randrange(3)), value[1])):
                text += _sample(value[2], flags, dice, common)
        elif op is c.SUBPATTERN:
            text += _sample(value[3], (flags | value[1]) & ~value[2], dice, common)
        elif op is c.ATOMIC_GROUP:
            text += _sample(value, flags, dice, common)
        elif op is c.BRANCH:
            text += _sample(dice.choice(value[1]), flags, dice, common)
    return text


def _walk(items, flags: int) -> Iterator[frozenset[str]]:
    for op, value in items:
        if (letters := letters_of(op, value, flags)) is not None:
            yield letters
        elif op in _LOOPS:
            yield from _walk(value[2], flags)
        elif op is c.SUBPATTERN:
            yield from _walk(value[3], (flags | value[1]) & ~value[2])
        elif op is c.ATOMIC_GROUP:
            yield from _walk(value, flags)
        elif op is c.BRANCH:
            for way in value[1]:
                yield from _walk(way, flags)


def _loops(items, flags: int, before: str, dice: random.Random, common: list[str]) -> Iterator[tuple[str, list, int]]:
    """Each repeat without a bound: what may stand before it, what it repeats, and the flags there."""
    for op, value in items:
        inner: list = []
        if op in _LOOPS:
            if value[1] >= MANY:
                yield before, value[2], flags
            inner = [(value[2], flags)]
        elif op is c.SUBPATTERN:
            inner = [(value[3], (flags | value[1]) & ~value[2])]
        elif op is c.ATOMIC_GROUP:
            inner = [(value, flags)]
        elif op is c.BRANCH:
            inner = [(way, flags) for way in value[1]]
        for one, how in inner:
            yield from _loops(one, how, before, dice, common)
        before += _sample([(op, value)], flags, dice, common)


def attacks(tree, flags: int) -> Iterator[tuple[str, str, str]]:
    """A beginning, a piece to be repeated, and an end: texts on which a pattern may run long and fail."""
    sets = list(dict.fromkeys(_walk(tree, flags)))
    common = list(dict.fromkeys(min(letters) if len(letters) < 3 else _usual(letters) for letters in sets))
    foreign = next((letter for letter in "\x00!~\n" if not any(letter in letters for letters in sets)), "\x00")
    dice = random.Random(7)
    seen: set[tuple[str, str]] = set()
    few = common[:6]
    for before, items, there in _loops(tree, flags, "", dice, common):
        pieces = [_sample(items, there, dice, common) for _ in range(6)]
        pieces += few
        pieces += ["".join(pair) for pair in product(few[:4], repeat=2)]
        pieces += [before + piece for piece in pieces[:3]]
        for piece in dict.fromkeys(pieces):
            if piece and (before, piece) not in seen:
                seen.add((before, piece))
                for end in dict.fromkeys(("", foreign, *few[:3])):
                    yield before, piece, end


def _usual(letters: frozenset[str]) -> str:
    return next((letter for letter in " a1\t\n-A" if letter in letters), min(letters, default=""))


def endless(pattern: re.Pattern) -> bool:
    """Whether a pattern has any repeat without a bound; else what it costs at one place has one."""
    counter = Counter(pattern)
    return any(True for _ in _loops(counter.tree, counter.tree.state.flags, "", random.Random(7), ["a"]))


def costly(pattern: re.Pattern, how: str) -> str | None:
    """A text for which *how* takes more than steps in proportion to its length; None where none was found."""
    counter = Counter(pattern)
    for before, piece, end in attacks(counter.tree, counter.tree.state.flags):
        size = _SIZE // len(piece) + 8
        text = before + piece * size + end
        once = counter.cost(text, how)
        if once <= _CHEAP * len(text):
            continue
        twice = counter.cost(before + piece * (2 * size) + end, how)
        if twice >= _MOST or twice > _RATIO * once:
            return f"{before!r} + {piece!r} * n + {end!r}: {once} steps, for twice as much {twice}"
    return None


def agrees(pattern: re.Pattern, how: str) -> bool:
    """Whether the counting matcher finds what ``re`` finds, on short texts of the same kind."""
    counter = Counter(pattern)
    real = getattr(pattern, how if how in {"match", "fullmatch"} else "search")
    for before, piece, end in attacks(counter.tree, counter.tree.state.flags):
        text = before + piece * 2 + end
        said = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
        if counter.found(text, how) != (real(said) is not None):
            return False
    return True
