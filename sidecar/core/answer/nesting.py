"""
Whether a JSON text that arrives in pieces is complete so far.

The rule: no text is kept, so a text of any size can be followed. For text that is not JSON, either result is allowed.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\.?", re.DOTALL)


class Nesting:
    """Follows one text. *blank*: a text of nothing but blanks counts as whole."""

    __slots__ = ("_begun", "_blank", "_depth", "_escaped", "_is_nested", "_quoted")

    def __init__(self, *, blank: bool = True) -> None:
        self._blank = blank
        self._begun = False
        self._is_nested = False  # the first byte that is not blank begins an object or an array
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def __repr__(self) -> str:
        return f"<Nesting {self._depth}{', in a string' * self._quoted}>"

    @property
    def incomplete(self) -> bool:
        """Whether the text would be cut if it ended here; only objects and arrays can be cut."""
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
