"""
Requests like those before: heads that need not be parsed again to be answered from memory.

The rule: a head is familiar only if the strict reader has accepted each of its telling lines, byte for byte and in this
order, in one head before. A line that is new must be a well-formed field that no decision reads (a trace id, say).
Whatever is not clearly so is left to the strict reader, from its first byte; and what is found here is only ever used
to answer from memory, so nothing goes upstream on the word of this file.
"""

from __future__ import annotations

import re
from typing import Any

from sidecar.net.http1 import SINGLE

LONGEST_HEAD = 8 * 1024
LONGEST_BODY = 32 * 1024
LINES = 4096
"""So many lines are remembered; then all are forgotten, and learnt again as they come."""

_FRAMING = SINGLE | {
    b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade",
}  # fmt: skip
_END = b"\r\n\r\n"
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch
_LENGTH = re.compile(rb"[Cc]ontent-[Ll]ength: ?(0|[1-9][0-9]{0,6})").fullmatch
_NOISE = 0


class Familiar:
    """
    *telling* are the fields, by lower-case name, that some decision of the line reads; those that frame the request
    are always among them.
    """

    def __init__(self, telling: frozenset[bytes]) -> None:
        self._telling = telling | _FRAMING
        # A line's mark: its number where it tells something, 0 where it doesn't, -1 - size for a Content-Length.
        self._marks: dict[bytes, int] = {}
        self._plans: dict[tuple[int, ...], Any] = {}
        self._numbers = 0

    def __repr__(self) -> str:
        return f"<Familiar {len(self._plans)} heads, {len(self._marks)} lines>"

    def find(self, data: bytes) -> tuple[Any, bytes] | None:
        """The plan and the body of *data*, if that is one whole request with a familiar head."""
        end = data.find(_END, 0, LONGEST_HEAD)
        if end < 0:
            return None
        lines = data[:end].split(b"\r\n")
        marks: list[Any] = list(map(self._marks.get, lines))  # numbers, once ``_look`` has been
        if None in marks and not self._look(lines, marks):
            return None
        sizes = [mark for mark in marks if mark < 0]
        if len(sizes) != 1 or len(data) - end - 3 != -sizes[0]:
            return None
        plan = self._plans.get(tuple([mark for mark in marks if mark > 0]))
        return None if plan is None else (plan, data[end + 4 :])

    def learn(self, head: bytes, plan: Any) -> None:
        """The strict reader has accepted *head*, empty line included, of a kept HTTP/1.1 request with a length."""
        lines = head[:-4].split(b"\r\n")
        if len(head) > LONGEST_HEAD or not all(map(_is_plain, lines)):
            return
        if len(self._marks) > LINES:
            self._marks.clear()
            self._plans.clear()
        marks = [self._mark(line, first=at == 0) for at, line in enumerate(lines)]
        self._plans[tuple([mark for mark in marks if mark > 0])] = plan

    def _mark(self, line: bytes, *, first: bool) -> int:
        mark = self._marks.get(line)
        if mark is None:
            size = _LENGTH(line)
            if size is not None and not first:
                mark = -1 - int(size[1])
            elif first or line.partition(b":")[0].lower() in self._telling:
                self._numbers += 1
                mark = self._numbers
            else:
                mark = _NOISE
            self._marks[line] = mark
        return mark

    def _look(self, lines: list[bytes], marks: list[int | None]) -> bool:
        """Mark the lines that are new; False where one of them tells something."""
        for at, mark in enumerate(marks):
            if mark is not None:
                continue
            line = lines[at]
            if (size := _LENGTH(line)) is not None and at:
                marks[at] = -1 - int(size[1])
            elif at and (field := _FIELD(line)) is not None and field[1].lower() not in self._telling:
                marks[at] = _NOISE
            else:
                return False
        return True


def _is_plain(line: bytes) -> bool:
    return bool(line) and line[0] > 0x20 and b"\n" not in line and b"\r" not in line
