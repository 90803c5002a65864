"""
Knows the heads of repeated requests, so that the strict reader need not read them again.

The rule: a head is known only if the strict reader has accepted its request line, and each of its deciding lines, byte
for byte and in this order, in one earlier head. A new line must be a well-formed field that no decision reads (a trace
id, for instance). Everything else is left to the strict reader, from its first byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from msgspec import Struct

from sidecar.core.model import Head
from sidecar.core.request.roles import TOKEN_START
from sidecar.core.rules import Limits
from sidecar.net.base import Admission
from sidecar.net.inbound.http1 import SINGLE, joined, looks_like_framing

LONGEST_HEAD = 8 * 1024
LONGEST_BODY = 32 * 1024
"""Longer heads and bodies are parsed as usual, because parsing is not what makes them slow."""

REMEMBERED = 2 * 1024 * 1024
"""About so many bytes are remembered. Then all heads are forgotten, and learnt again as they come."""

STRAYS = 16
"""After so many known heads with an unusual beginning, the usual beginning is chosen anew."""

_LINE_WEIGHT = 320
_PLAN_WEIGHT = 1536

_FRAMING = SINGLE | {
    b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade",
}  # fmt: skip
_END = b"\r\n\r\n"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_CONTROLS = bytes([*range(0x20), 0x7F]).replace(b"\t", b"")
_LENGTH = re.compile(rb"[Cc]ontent-[Ll]ength: ?(0|[1-9][0-9]{0,6})").fullmatch
_NOISE = 0
_MOST_NAMES = 2048
_LONGEST_NAME = 64


class _Reads(dict[bytes, bool]):
    """
    Whether something reads a field, by its name as written: a decision of the proxy, or the framing. A text that is no
    field name is left to the strict reader, and so counts as read.
    """

    def __init__(self, deciding_fields: Mapping[bytes, bool]) -> None:
        super().__init__()
        self._deciding_fields = deciding_fields

    def __missing__(self, name: bytes) -> bool:
        lower = name.lower()
        reads = _NAME(name) is None or lower in _FRAMING or looks_like_framing(lower) or self._deciding_fields[lower]
        if len(name) <= _LONGEST_NAME and len(self) < _MOST_NAMES:
            self[name] = reads
        return reads


class KnownHead(Struct, frozen=True, gc=False):
    """A head that the strict reader has read, and what the proxy has made of it."""

    head: Head
    admission: Admission


class _Pairs(dict[bytes, tuple[bytes, bytes]]):
    """The fields in lines. Those of lines that are not remembered are cut anew."""

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.partition(b":")
        return name, value.strip(b" \t")


class HeadMemo:
    """
    *deciding_fields* says for a field, by lower-case name, whether a decision of the proxy reads it. Fields that frame
    the request always decide, and so does a value that may hold a token.

    A line has a mark: its number if it decides something, 0 if not, and -1 - size for a Content-Length in its plain
    form. A known head is found by its port and the numbers of its lines. The *opening* is the lines with which
    most heads begin: they are compared in one step, and their marks other than 0 are ready.
    """

    def __init__(self, deciding_fields: Mapping[bytes, bool], limits: Limits) -> None:
        self._reads = _Reads(deciding_fields)
        self._longest_head = min(LONGEST_HEAD, limits.headers)
        self._longest_body = min(LONGEST_BODY, limits.collect)
        self._marks: dict[bytes, int] = {}
        self._pairs = _Pairs()
        self._heads: dict[tuple[int, ...], KnownHead] = {}
        self._opening = b""
        self._opening_numbers: list[int] = []
        self._strayed = 0
        self._numbers = 0
        self._weight = 0

    def __repr__(self) -> str:
        return f"<HeadMemo {len(self._heads)} heads, {len(self._marks)} lines, {self._weight} bytes>"

    def find(self, data: bytes, port: int) -> tuple[KnownHead, bytes] | None:
        """The known head and the body of *data*, if that is one whole request to *port* with such a head."""
        start = len(self._opening) if data.startswith(self._opening) else 0
        end = data.find(_END, max(start - 2, 0), self._longest_head)
        size = len(data) - end - 4
        if end < 0 or size > self._longest_body:
            return None
        if end < start:
            start = 0  # the head is the opening and nothing else
        rest = data[start:end]
        lines = rest.split(b"\r\n")
        marks: list[Any] = list(map(self._marks.get, lines))  # numbers, once ``_look`` has been
        if None in marks and not self._look(rest, lines, marks):
            return None
        # no field may stand before the request line, and one line alone says how long the body is: a second one would
        # stay among the numbers, where no plan has it
        if not start and marks[0] <= 0:
            return None
        numbers = list(filter(None, marks))
        if start:
            numbers = self._opening_numbers + numbers
        if -1 - size not in numbers:
            return None
        numbers.remove(-1 - size)
        known = self._heads.get((port, *numbers))
        if known is None:
            return None
        if not start:
            self._stray(lines)
        return known, data[end + 4 :]

    def read(self, raw: bytes, known: KnownHead) -> Head:
        """The head in *raw*, which ``find`` has found to be like *known*."""
        pairs = tuple(map(self._pairs.__getitem__, raw.split(b"\r\n")[1:]))
        fields = {name.lower(): value for name, value in pairs}
        if len(fields) != len(pairs):
            fields = joined(pairs)
        head = known.head
        return Head(head.method, head.target, head.minor, pairs, fields, head.port)

    def _stray(self, lines: list[bytes]) -> None:
        """A known head with an unusual beginning came: now and then, choose the usual beginning anew."""
        self._strayed += 1
        if (self._strayed - 1) % STRAYS:
            return
        known = list(takewhile(self._marks.__contains__, lines[:-1]))
        pairs = zip(known, self._opening.split(b"\r\n"), strict=False)
        shared = [line for line, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        chosen = shared if 2 * len(shared) >= len(known) else known
        self._opening = b"".join([line + b"\r\n" for line in chosen])
        self._opening_numbers = [mark for line in chosen if (mark := self._marks[line])]

    def learn(self, head: bytes, port: int, known: KnownHead) -> None:
        """The strict reader has accepted *head*, empty line included, of a kept HTTP/1.1 request with a length."""
        lines = head[:-4].split(b"\r\n")
        if len(head) > self._longest_head or not all(map(_is_plain, lines)):
            return
        if self._weight > REMEMBERED:
            self.forget()
        marks = [self._mark(line, first=at == 0) for at, line in enumerate(lines)]
        if sum([mark < 0 for mark in marks]) != 1:
            return  # a length in another form decides, but would go unseen beside a plain one
        numbers = (port, *[mark for mark in marks if mark > 0])
        if numbers not in self._heads:
            self._weight += _PLAN_WEIGHT + 3 * len(head)  # the head is held as well, with its fields and their index
        self._heads[numbers] = known

    def forget(self) -> None:
        """Forget all heads, because there is no more room, or because their plans are no longer valid."""
        self._marks.clear()
        self._pairs.clear()
        self._heads.clear()
        self._opening, self._opening_numbers = b"", []
        self._weight = 0

    def _mark(self, line: bytes, *, first: bool) -> int:
        mark = self._marks.get(line)
        if mark is None:
            size = _LENGTH(line)
            if size is not None and not first:
                mark = -1 - int(size[1])
            elif first or TOKEN_START in line or self._reads[line.partition(b":")[0]]:
                self._numbers += 1
                mark = self._numbers
            else:
                mark = _NOISE
            self._remember(line, mark)
        return mark

    def _look(self, rest: bytes, lines: list[bytes], marks: list[int | None]) -> bool:
        """Mark the new ones among the *lines* of *rest*; False if one of them decides something."""
        if len(rest.translate(None, _CONTROLS)) + 2 * len(lines) - 2 != len(rest):
            return False  # a control character stands in it, other than those that end lines
        # ``in`` asks first whether the other operand is a number, and makes an error of the answer
        tokens = rest.find(TOKEN_START) >= 0
        reads = self._reads
        for at, mark in enumerate(marks):
            if mark is not None:
                continue
            line = lines[at]
            name, colon, _ = line.partition(b":")
            if colon and not reads[name] and not (tokens and TOKEN_START in line):
                marks[at] = _NOISE
            elif (size := _LENGTH(line)) is not None:
                length = -1 - int(size[1])
                marks[at] = length
                if self._weight <= REMEMBERED:
                    self._remember(line, length)
            else:
                return False
        return True

    def _remember(self, line: bytes, mark: int) -> None:
        self._marks[line] = mark
        self._pairs[line] = self._pairs[line]
        self._weight += _LINE_WEIGHT + 2 * len(line)


def _is_plain(line: bytes) -> bool:
    return bool(line) and line[0] > 0x20 and b"\n" not in line and b"\r" not in line
