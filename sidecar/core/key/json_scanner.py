"""
Reads the top-level members of a JSON object that is too large to hold, while it passes.

The rule: what is found does not depend on how the bytes were cut. Members of up to 64 KiB are kept as they were
written, and a real parser reads them at the end. Of longer ones only the structure is followed, and references to
something that only the service has are searched for. A reference found where it means nothing costs a miss. Encoding
and nesting are those of the whole body, and faults come in the order of ``json_rule``, as for a small body.
"""

from __future__ import annotations

import re

import msgspec

from sidecar.core.key.json_rule import DEEPEST, OTHER_VALUES, UNREADABLE, Encoding, Levels, fault, first
from sidecar.core.key.unsafe import Unsafe

KEEP = 64 * 1024
"""The most bytes of one member's value that are kept."""

KEEP_ALL = 4 * KEEP
"""The most bytes of all kept values together; a value beyond that counts as long."""

CONTENT = frozenset({
    "analysisInput", "base64Source", "batch", "content", "contents", "document", "documents", "image", "images",
    "input", "inputs", "instructions", "messages", "prompt", "query", "requests", "suffix", "system",
    "systemInstruction", "system_instruction", "text", "texts",
})  # fmt: skip
"""Members that hold the question itself, so long values are normal."""

_TOKEN = 1024
"""Bytes that a name, number or literal may have."""

_MOST = 1024
"""How many members an object may have."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_PLAIN = rb'[^"\[\]{}]++|' + _STRING

_SPACE = re.compile(rb"[ \t\n\r]*+")
_NAME = re.compile(_STRING, re.DOTALL)
_SCALAR = re.compile(rb'[^ \t\n\r,:"\[\]{}]*+')
_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_FLAT = re.compile(rb"(?:%b)*+" % _PLAIN, re.DOTALL)
_LEAVES = re.compile(rb"(?:%b|\[(?:%b)*+\]|\{(?:%b)*+\})*+" % (_PLAIN, _PLAIN, _PLAIN), re.DOTALL)
"""Whole strings, innermost objects and arrays, and what is between: one match leaps to the next bracket."""

_FILE_ID = b'"file_id"'

_REFERENCES = (b'"audio"', b'"container_upload"', b'"definition"', b'"item_reference"')
"""Names and types by which long content refers to what the service keeps, or adds tools."""

_BY_ID = frozenset({"input", "prompt"})
"""Members in which any ``id`` may be such a reference."""

# In strings a quote stands behind a backslash, so the text of a message is not taken for a name. A letter may be
# written as an escape, but only a client that wants to hide a name does that.
_ESCAPED_LETTER = re.compile(rb"\\u00(?:5[fF]|6[1-9a-fA-F]|7[0-9aA])")

_LINK = re.compile(rb'url"[ \t\n\r]{0,64}+(?!\Z|[,}\]]|:[ \t\n\r]{0,64}+(?:"data:|[{n]))')
"""A member whose name ends in ``url`` and whose value is neither inline (``data:``), nor an object, nor null."""

_SEAM = 4 + 64 + 1 + 64 + 6
"""Bytes that the longest of these looks at."""

_CLOSER = {ord("{"): ord("}"), ord("["): ord("]")}
_QUOTE = ord('"')

_OPEN, _FIRST, _NEXT_NAME, _COLON, _VALUE, _INSIDE, _COMMA, _DONE = range(8)


class Scanner:
    """
    The scanner of one body.

    ``feed`` takes the body in order, cut anywhere, and never raises. Afterwards ``fault`` says what is wrong with the
    body as a whole (None if nothing is). ``short`` is an object of the kept members, each as it was written. *long* has
    the names of the others, all from ``CONTENT``: a body with another long member is unreadable. *remote*: a long
    member may hold a link, and what is behind a link may change.
    """

    __slots__ = (
        "_closers", "_count", "_encoding", "_faults", "_held", "_kept", "_levels", "_name", "_names", "_pieces",
        "_room", "_seam", "_string", "_tail", "_want", "long", "remote",
    )  # fmt: skip

    def __init__(self) -> None:
        self.long: set[str] = set()
        self.remote = False
        self._faults: set[Unsafe] = set()
        self._encoding = Encoding()
        self._levels: Levels | None = None
        self._count = 0
        self._seam = b""
        self._tail = b""
        self._want = _OPEN
        self._names: set[str] = set()
        self._name = (b"", "")
        self._kept: list[bytes] = []
        self._room = KEEP_ALL
        self._closers = bytearray()
        self._string = False
        self._pieces: list[bytes] = []
        self._held = 0

    def __repr__(self) -> str:
        return f"<Scanner {first(self._faults) or 'sound'}, {len(self._names)} members, {len(self.long)} long>"

    @property
    def fault(self) -> Unsafe | None:
        """What makes the body unsafe, once all of it has been fed."""
        faults = set(self._faults)
        if self._encoding.partial or not self._encoding.sound:
            faults.add(Unsafe.INVALID_UTF8)
        if self._levels is None and self._want != _DONE:
            faults.add(Unsafe.INVALID_JSON)
        if self._levels is not None and self._levels.too_deep:
            faults.add(Unsafe.NESTING)
        return first(faults)

    @property
    def names(self) -> frozenset[str]:
        """The names of all members so far."""
        return frozenset(self._names)

    @property
    def short(self) -> bytes:
        """A JSON object of the kept members; its parser says whether their values are valid."""
        return b"{" + b",".join(self._kept) + b"}"

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes of the body."""
        self._encoding.feed(chunk)
        if not self._encoding.sound:
            self._forget()
            return
        data = self._tail + chunk
        self._tail = b""
        at = 0
        while at < len(data) and self._levels is None:
            at = self._follow(data, at) if self._want == _INSIDE else self._step(data, at)
        if self._levels is not None:
            self._levels.feed(data[at:])

    def _stop(self, unsafe: Unsafe) -> None:
        """
        The members end here. Of what follows, only encoding and nesting matter, because their faults come before this
        one.
        """
        self._faults.add(unsafe)
        self._levels = Levels((self._want not in {_OPEN, _DONE}) + len(self._closers))

    def _forget(self) -> None:
        """Text that is not UTF-8 has no members, even if those before the fault have been read."""
        self.long.clear()
        self.remote = False
        self._kept.clear()

    def _step(self, data: bytes, at: int) -> int:
        """Read one token outside of strings and brackets; returns where the next one begins."""
        at = _end(_SPACE, data, at)
        if at == len(data):
            return at
        byte = data[at]
        want = self._want
        if want == _FIRST and byte != ord("}"):
            want = _NEXT_NAME
        if want == _NEXT_NAME and byte == _QUOTE:
            return self._step_name(data, at)
        if want == _VALUE:
            return self._step_value(data, at)
        if want == _OPEN and byte == ord("{"):
            self._want = _FIRST
        elif want == _COLON and byte == ord(":"):
            self._want = _VALUE
        elif want == _COMMA and byte == ord(","):
            self._want = _NEXT_NAME
        elif want in {_FIRST, _COMMA} and byte == ord("}"):
            self._want = _DONE
        else:
            self._stop(Unsafe.NOT_AN_OBJECT if want == _OPEN and byte in OTHER_VALUES else Unsafe.INVALID_JSON)
            return at
        return at + 1

    def _step_name(self, data: bytes, at: int) -> int:
        found = _NAME.match(data, at)
        end = found.end() if found else len(data)
        if end - at > _TOKEN or self._count == _MOST:
            self._stop(Unsafe.UNREADABLE_MEMBER)
            return at
        if found is None:
            self._tail = data[at:]
        else:
            self._take_name(found.group())
        return end

    def _take_name(self, raw: bytes) -> None:
        try:
            name = msgspec.json.decode(raw, type=str)
        except UNREADABLE:
            if fault(b"{%b:0}" % raw) != Unsafe.LONE_SURROGATE:
                self._stop(Unsafe.INVALID_JSON)
                return
            self._faults.add(Unsafe.LONE_SURROGATE)
            name = raw.decode()
        if name in self._names:
            self._faults.add(Unsafe.DUPLICATE_KEY)
        self._count += 1
        self._names.add(name)
        self._name = (raw, name)
        self._want = _COLON

    def _step_value(self, data: bytes, at: int) -> int:
        byte = data[at]
        self._pieces.clear()
        self._held = 0
        self._seam = b""
        if byte == _QUOTE or byte in _CLOSER:
            self._string = byte == _QUOTE
            self._closers += b"" if self._string else bytes((_CLOSER[byte],))
            self._hold(data[at : at + 1])
            self._want = _INSIDE
            return at + 1
        end = _end(_SCALAR, data, at)
        if end == at or end - at > _TOKEN:
            self._stop(Unsafe.INVALID_JSON if end == at else Unsafe.UNREADABLE_MEMBER)
            return at
        if end == len(data):
            self._tail = data[at:]
        else:
            self._hold(data[at:end])
            self._close_value()
        return end

    def _follow(self, data: bytes, start: int) -> int:
        """Inside a string or brackets: go on to the end of the value, or of *data*."""
        at = start
        while at < len(data):
            if self._string:
                at = self._follow_string(data, at)
            else:
                # On the last allowed level, even a leaf would be too deep.
                at = _end(_LEAVES if len(self._closers) < DEEPEST - 1 else _FLAT, data, at)
                if at == len(data):
                    break
                self._take_bracket(data[at])
                at += 1
            if self._levels is not None:
                return at
            if not (self._string or self._closers):
                self._hold(data[start:at])
                self._close_value()
                return at
        self._hold(data[start : at - len(self._tail)])
        return at

    def _take_bracket(self, byte: int) -> None:
        if byte == _QUOTE:  # a string that this chunk does not close
            self._string = True
        elif byte in _CLOSER:
            self._closers.append(_CLOSER[byte])
            if len(self._closers) >= DEEPEST:
                self._stop(Unsafe.NESTING)
        elif self._closers.pop() != byte:
            self._stop(Unsafe.INVALID_JSON)

    def _follow_string(self, data: bytes, at: int) -> int:
        """Search for the quote: that costs a hundredth of matching what is before it, and images are long strings."""
        end = data.find(b'"', at)
        if end < 0 and data.find(b"\\", at) < 0:
            return len(data)
        if end < 0 or data[end - 1 : end] == b"\\":
            end = _end(_REST, data, at)
        if end == len(data):
            return end
        if data[end] != _QUOTE:  # the last byte of the chunk escapes the first one of the next chunk
            self._tail = b"\\"
        else:
            self._string = False
        return end + 1

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        self._pieces.append(piece)
        if self._held > KEEP:
            self._search()

    def _search(self, *, last: bool = False) -> None:
        """Search the pieces of a long value for references, and drop them; *last*: the value ends here."""
        text = self._seam + b"".join(self._pieces)
        self._pieces.clear()
        self._seam = text[1 - _SEAM :]
        if _FILE_ID in text:
            self._faults.add(Unsafe.FILE_ID)
        elif Unsafe.UNREADABLE_MEMBER not in self._faults and self._refers(text):
            self._faults.add(Unsafe.UNREADABLE_MEMBER)
        if not self.remote and b'url"' in text:
            self.remote = any(last or found.start() + _SEAM <= len(text) for found in _LINK.finditer(text))

    def _refers(self, text: bytes) -> bool:
        return (
            any(reference in text for reference in _REFERENCES)
            or (b'"id"' in text and self._name[1] in _BY_ID)
            or (b"\\u00" in text and _ESCAPED_LETTER.search(text) is not None)
        )

    def _close_value(self) -> None:
        raw, name = self._name
        if self._held <= min(KEEP, self._room):
            self._room -= self._held
            value = b"".join(self._pieces)
            self._kept.append(raw + b":" + value)
            if _FILE_ID in value:
                self._faults.add(Unsafe.FILE_ID)
        elif name in CONTENT:
            self._search(last=True)
            self.long.add(name)
        else:
            self._faults.add(Unsafe.UNREADABLE_MEMBER)
        self._want = _COMMA


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    found = pattern.match(data, at)
    return found.end() if found else at
