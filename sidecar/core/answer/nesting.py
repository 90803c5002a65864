"""
Where a JSON text that comes in pieces stands: inside of something, or at an end.

The rule: nothing of the text is kept, so that one too large to be kept is followed as well. What is no JSON may be
judged either way.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\.?", re.DOTALL)


class Nesting:
    """Follows one text. *blank*: one of nothing but blanks counts as whole."""

    __slots__ = ("_begun", "_blank", "_depth", "_escaped", "_is_nested", "_quoted")

    def __init__(self, *, blank: bool = True) -> None:
        self._blank = blank
        self._begun = False
        self._is_nested = False  # by its first byte that is not blank it is an object or an array
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def __repr__(self) -> str:
        return f"<Nesting {self._depth}{', in a string' * self._quoted}>"

    @property
    def incomplete(self) -> bool:
        """Whether the text would end in its middle if it ended here; only an object and an array have one."""
        if not self._begun:
            return not self._blank
        return self._is_nested and (self._quoted or self._depth > 0)

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes of the text."""
        if not self._begun and (first := chunk.lstrip()[:1]):
            self._begun = True
            self._is_nested = first in {b"{", b"["}
        if self._is_nested:
            self._follow(chunk)

    def _follow(self, chunk: bytes) -> None:
        if self._escaped and chunk:
            chunk, self._escaped = chunk[1:], False
        if b"\\" in chunk:
            self._escaped = (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 == 1
            chunk = _ESCAPE.sub(b"", chunk)
        parts = chunk.split(b'"')
        outside = b"".join(parts[1 if self._quoted else 0 :: 2])
        self._depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        if len(parts) % 2 == 0:
            self._quoted = not self._quoted
