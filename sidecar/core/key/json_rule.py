"""
Why a JSON text is refused, by our own rule (RFC 8259), in one fixed order.

The rule: a library only tells that it could not read a text. The reason is found here, from the bytes alone, because
the class and words of a library's error change from one version to the next, and our reasons must not.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from itertools import accumulate
from math import isfinite
from typing import Any, Final

import msgspec

from sidecar.core.key.unsafe import Unsafe

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What reading JSON may raise: the text is not JSON, not UTF-8, too deep, or of another form. Catch all of it."""

DEEPEST: Final = 128
"""Levels of nesting, the object itself being the first."""

LONGEST_INTEGER: Final = 4300
"""Characters of an integer, its sign included."""

_ORDER: Final = (
    Unsafe.INVALID_UTF8,
    Unsafe.NESTING,
    Unsafe.NOT_AN_OBJECT,
    Unsafe.INVALID_JSON,
    Unsafe.NUMBER_OUT_OF_RANGE,
    Unsafe.LONE_SURROGATE,
    Unsafe.DUPLICATE_KEY,
    Unsafe.NEGATIVE_ZERO,
    Unsafe.FILE_ID,
    Unsafe.UNREADABLE_MEMBER,
)

BLANKS: Final = b" \t\n\r"
"""White space of JSON."""

OTHER_VALUES: Final = b'["-0123456789tfn'
"""The first bytes of values that are no object."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+'
_STRINGS = re.compile(rb'%b"|(")%b(\\?)\Z' % (_STRING, _STRING[1:]), re.DOTALL)
"""Whole strings, and a string that the text does not close. The groups hold what shows that it goes on."""

_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_PAIRED = re.compile(rb"(?:[^\\]++|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\(?!u[dD][89a-fA-F]).)*+", re.DOTALL).fullmatch
"""Whether, in a JSON text, both halves of each escaped surrogate pair stand together."""


def first(faults: Iterable[Unsafe]) -> Unsafe | None:
    """The one of *faults* that is told; None if there is none."""
    return min(faults, key=_ORDER.index, default=None)


def fault(text: bytes) -> Unsafe | None:
    """What makes *text* unsafe as a JSON object: the first of ``faults``; None if nothing does."""
    return first(faults(text))


def faults(text: bytes) -> set[Unsafe]:
    """Everything that makes *text* unsafe as a JSON object, as far as it can be read."""
    try:
        said = text.decode()
    except UnicodeDecodeError:
        return {Unsafe.INVALID_UTF8}
    levels = Levels()
    levels.feed(text)
    if levels.too_deep:
        return {Unsafe.NESTING}
    begin = text.lstrip(BLANKS)[:1]
    if begin != b"{":
        return {Unsafe.NOT_AN_OBJECT if begin and begin in OTHER_VALUES else Unsafe.INVALID_JSON}
    return _found(text, said)


def _found(text: bytes, said: str) -> set[Unsafe]:
    """The faults of a text with sound encoding and nesting."""
    found: set[Unsafe] = set()

    def members(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            found.add(Unsafe.DUPLICATE_KEY)

    def integer(digits: str) -> None:
        if digits == "-0":
            found.add(Unsafe.NEGATIVE_ZERO)
        elif len(digits) > LONGEST_INTEGER:
            found.add(Unsafe.NUMBER_OUT_OF_RANGE)

    def number(said: str) -> None:  # NaN and Infinity, too
        if not isfinite(float(said)):
            found.add(Unsafe.NUMBER_OUT_OF_RANGE)

    try:
        json.loads(said, object_pairs_hook=members, parse_int=integer, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError):
        return {Unsafe.INVALID_JSON}
    if not _PAIRED(text):
        found.add(Unsafe.LONE_SURROGATE)
    return found


class Levels:
    """
    How deep the brackets of a passing text nest, however it is cut; *too_deep* once there are more than ``DEEPEST``
    levels.

    The text need not be JSON: outside of strings, an opening bracket is one level more, a closing one is one less.
    *depth* is the depth before this text.
    """

    __slots__ = ("_depth", "_string", "too_deep")

    def __init__(self, depth: int = 0) -> None:
        self.too_deep = depth > DEEPEST
        self._depth = depth
        self._string = b""

    def __repr__(self) -> str:
        return f"<Levels {self._depth}{', too deep' * self.too_deep}>"

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        if self.too_deep or (self._string == b'"' and b'"' not in data and b"\\" not in data):
            return
        text = _STRINGS.sub(rb"\1\2", self._string + data)
        text, quote, backslash = text.partition(b'"')
        self._string = quote + backslash
        opened = text.count(b"[") + text.count(b"{")
        if self._depth + opened > DEEPEST:
            steps = map(_STEPS.__getitem__, text.translate(None, _NO_BRACKET))
            self.too_deep = max(accumulate(steps, initial=self._depth)) > DEEPEST
        self._depth += opened - text.count(b"]") - text.count(b"}")


class Encoding:
    """Whether a passing text, however it is cut, is UTF-8 so far (*sound*), and ends with a whole character."""

    __slots__ = ("_decoder", "partial", "sound")

    def __init__(self) -> None:
        self.sound = True
        self.partial = False
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def __repr__(self) -> str:
        return f"<Encoding{' sound' * self.sound}{' partial' * self.partial}>"

    def feed(self, data: bytes) -> None:
        """Look at the next bytes."""
        if not self.sound or (not self.partial and data.isascii()):
            return
        try:
            self._decoder.decode(data)
        except UnicodeDecodeError:
            self.sound = False
        else:
            self.partial = bool(self._decoder.getstate()[0])
