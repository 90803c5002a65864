"""
Checks replies of Redis against bounds while their bytes arrive.

The rule: RESP2 with bounds. A reply has limited levels, elements and bytes, and a reply that announces more is not
passed on, because hiredis makes room for every element that a header announces before any of them has come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import ConnectionError  # noqa: A004  the client's own

MOST_ELEMENTS = 128 * 1024
"""In one reply, arrays within it included. The most that is asked for is a Cluster's list of commands, some 40 000."""

DEEPEST = 12
"""Arrays within arrays. That list has eight levels."""

LONGEST_LINE = 16 * 1024
"""Bytes of a status or an error; a header has less than 16."""

ROOM = 4 * 1024 * 1024
"""The most bytes of a reply besides the largest value: the log of purges, the list of commands."""

_KINDS = frozenset(b"+-:$*")
_SIZED = frozenset(b"$*")
_BULK, _ARRAY = b"$*"


class Garbled(ConnectionError):
    """What came is not a valid reply, so the connection is useless. The text quotes nothing of it."""


@contextmanager
def making_sense() -> Iterator[None]:
    """Turns errors of the library about the form of a reply into ``Garbled``."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Garbled("a reply does not fit its command") from None


class Meter:
    """Counts the replies of one connection, none of which may have more than *most* bytes."""

    __slots__ = ("_bulk", "_elements", "_left", "_line", "_most", "_outer", "_size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._line = b""
        self._bulk = 0
        self._left = 1  # members that are still to come, at the level that is being read; a reply is one
        self._outer: list[int] = []  # the same of the levels around it
        self._elements = 0
        self._size = 0

    def __repr__(self) -> str:
        return f"<Meter {self._size} bytes, {self._elements} elements, {len(self._outer)} levels>"

    def count(self, data: bytes) -> None:
        """Go through *data*, the next bytes. Raises ``Garbled``, after which nothing of them is to be read."""
        if self._line:
            data, self._line = self._line + data, b""
        at, end = 0, len(data)
        if self._bulk:
            at = min(self._bulk, end)
            self._bulk -= at
            if self._bulk:
                return
            self._left -= 1
            if not self._left:
                self._leave()
        while at < end:
            stop = data.find(b"\r\n", at)
            if (stop if stop >= 0 else end) - at > LONGEST_LINE:
                raise Garbled("a line of a reply is too long")
            if stop < 0:
                self._line = data[at:]
                return
            at = self._read(data[at], data[at + 1 : stop], stop + 2)
            if at > end:
                self._bulk = at - end
                return
            self._left -= 1
            if not self._left:
                self._leave()

    def _read(self, kind: int, text: bytes, at: int) -> int:
        """
        Read one line, which ends *at*: a whole member, or the header of a string or an array. Returns where what it
        announces ends.
        """
        try:
            length = int(text) if kind in _SIZED else 0  # what int takes and hiredis doesn't is refused there
        except ValueError:
            raise Garbled("a number in a reply is malformed") from None
        self._size += len(text) + 3
        if kind == _BULK and length >= 0:
            self._size += length + 2
            at += length + 2
        elif kind == _ARRAY and length > 0:
            self._enter(length)
        elif kind not in _KINDS:
            raise Garbled("a reply has an unexpected type")
        if self._size > self._most:
            raise Garbled("a reply is too large")
        return at

    def _enter(self, length: int) -> None:
        self._elements += length
        self._outer.append(self._left)
        self._left = length + 1  # its header counts as a member
        if self._elements > MOST_ELEMENTS:
            raise Garbled("a reply has too many elements")
        if len(self._outer) > DEEPEST:
            raise Garbled("a reply has too many levels")

    def _leave(self) -> None:
        """The last member of an array has come, and so has the array; so have those of which it is the last."""
        while self._outer and not self._left:
            self._left = self._outer.pop() - 1
        if not self._left:
            self._left, self._elements, self._size = 1, 0, 0
