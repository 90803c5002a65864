"""
Server-sent events, as AI services stream them (WHATWG HTML, section 9.2).

The rule: no byte is lost or added. However a stream was cut into chunks, the events are the same, and their raw bytes
plus the unfinished rest are the stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from sidecar.core.key.json_rule import UNREADABLE

LIMIT: Final = 8 << 20
"""The most bytes of one unfinished event that are kept for reading it."""

_BOM: Final = b"\xef\xbb\xbf"

# Two line ends in a row. A CR counts as a line end only if no LF follows it.
_BLANK: Final = re.compile(rb"(?:\n|\r\n?+)(?:\n|\r\n?+)")
_LONGEST_BLANK: Final = 4

_DONE: Final = b"[DONE]"

_HEAD: Final = 1024
"""For an event too large to be read, its name is looked for in so many bytes."""


class Event(Struct, frozen=True, gc=False):
    """
    One event: *name* (``""`` if it has none), *data* (its data lines joined by LF), and *raw*, its exact bytes with the
    blank line at its end. A block of comments alone is an event without name and data.
    """

    name: str
    data: bytes
    raw: bytes


class Splitter:
    """
    Cuts a stream into events. Accepts LF, CRLF, CR and any mixture of them, and a byte order mark at the start.

    If a blank line ends in CR at the end of a chunk, the event is held until it is known whether LF follows. An event
    with more than *limit* bytes passes in opaque pieces, as events without name and data, and sets *overflowed*. Only
    the last piece has the event's name, if the name stood at the beginning.
    """

    __slots__ = ("_limit", "_name", "_oversize", "_rest", "_started", "overflowed")

    def __init__(self, limit: int = LIMIT) -> None:
        self.overflowed = False
        self._limit = limit
        self._rest = bytearray()
        self._name = ""
        self._oversize = False
        self._started = False

    def __repr__(self) -> str:
        return f"<Splitter {len(self._rest)} bytes of an unfinished event{', overflowed' * self.overflowed}>"

    @property
    def rest(self) -> bytes:
        """The bytes of an unfinished event."""
        return bytes(self._rest)

    @property
    def boundary(self) -> bool:
        """Whether the stream is between events: no event has begun without its end."""
        if self._oversize:
            return False
        return bytes(self._rest[:3]) in (b"", b"\n", b"\r", b"\r\n") or self._held()

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in *chunk*."""
        scan = 0
        if self._rest:
            scan = max(0, len(self._rest) - _LONGEST_BLANK + 1)
            self._rest += chunk
            if not _BLANK.search(self._rest, scan):
                return self._overflow()
            chunk = bytes(self._rest)
        events, start = self._split(chunk, scan)
        self._rest = bytearray(chunk[start:])
        return events + self._overflow() if len(self._rest) > _LONGEST_BLANK else events

    def close(self) -> list[Event]:
        """
        At the clean end of the stream: its last event, if it was held for an LF that did not come, or if it has no
        blank line behind it although its data is whole.

        Data is whole if it is JSON or ``[DONE]``. The standard drops such an event; but services send it, and SDKs
        accept the stream as finished. Data that was cut off is no event and stays the rest.
        """
        if not self._rest:
            return []
        held = self._held()
        if not held and self._oversize:
            return []
        event = self._event(bytes(self._rest))
        if not held and not _is_whole(event.data):
            return []
        self._rest.clear()
        return [event]

    def _split(self, stream: bytes, scan: int) -> tuple[list[Event], int]:
        """The events of *stream*, and where the rest begins; no blank line ends before *scan*."""
        events = []
        start = 0
        if b"\r" not in stream:
            while (at := stream.find(b"\n\n", scan)) >= 0:
                raw = stream[start : at + 2]
                plain = raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2
                if plain and not self._oversize:  # as almost all are; read here, an event costs no call
                    self._started = True
                    events.append(Event("", raw[6:-2], raw))
                else:
                    events.append(self._event(raw))
                start = scan = at + 2
            return events, start
        while found := _BLANK.search(stream, scan):
            end = found.end()
            if end == len(stream) and stream.endswith(b"\r"):
                break
            events.append(self._event(stream[start:end]))
            start = scan = end
        return events, start

    def _held(self) -> bool:
        tail = self._rest[-_LONGEST_BLANK:]
        return tail.endswith(b"\r") and _BLANK.search(tail) is not None

    def _overflow(self) -> list[Event]:
        if len(self._rest) <= (_LONGEST_BLANK if self._oversize else self._limit):
            return []
        keep = len(self._rest) - _LONGEST_BLANK
        piece = bytes(self._rest[:keep])
        if not self._oversize:
            self._name = _name_of(piece if self._started else piece.removeprefix(_BOM))
        self.overflowed = self._oversize = self._started = True
        del self._rest[:keep]
        return [Event("", b"", piece)]

    def _event(self, raw: bytes) -> Event:
        if self._oversize:
            self._oversize = False
            return Event(self._name, b"", raw)
        if self._started:
            return _parse(raw, raw)
        self._started = True
        return _parse(raw.removeprefix(_BOM), raw)


class EventSign:
    """What an event of a live stream means. ``Sign(0)``: nothing; comments and pings have it."""

    NOTHING: Final = 0
    CONTENT: Final = 1
    END: Final = 2
    FAILURE: Final = 4


class EventWatch:
    """
    The ``Watch`` of a stream of events. *read* gives the signs of each event, and never raises.

    An event too large to be read counts as content, not as an end: a stream that ends after it is whole only if its
    last event says so.
    """

    __slots__ = ("_read", "_splitter", "boundary", "committed", "ended", "failed")

    def __init__(self, read: Callable[[list[Event]], int]) -> None:
        self.committed = False
        self.ended = False
        self.failed = False
        self.boundary = True
        self._read = read
        self._splitter = Splitter()

    def __repr__(self) -> str:
        states = [name for name in ("committed", "ended", "failed", "boundary") if getattr(self, name)]
        return f"<EventWatch {' '.join(states)}>"

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the stream."""
        self._take(self._splitter.feed(chunk))

    def close(self) -> None:
        """The stream has ended cleanly: what is left is its last event."""
        self._take(self._splitter.close())

    def _take(self, found: list[Event]) -> None:
        signs = self._read(found) if found else EventSign.NOTHING
        self.committed |= bool(signs & EventSign.CONTENT) or self._splitter.overflowed
        self.ended |= bool(signs & EventSign.END)
        self.failed |= bool(signs & EventSign.FAILURE)
        self.boundary = self._splitter.boundary


def events(body: bytes) -> list[Event]:
    """The events of a whole stream. Bytes after the last blank line are an event if their data is whole."""
    splitter = Splitter(limit=len(body))
    return splitter.feed(body) + splitter.close()


def frame(data: bytes, name: str = "") -> bytes:
    """One event on the wire. *data* has no line ends (JSON has none)."""
    if name:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
    return b"data: %b\n\n" % data


def _is_whole(data: bytes) -> bool:
    if data.startswith(_DONE):
        return True
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except UNREADABLE:
        return False
    return True


def _name_of(beginning: bytes) -> str:
    """The name of an event too large to be read, if it stands before the data, as all services write it."""
    for line in beginning[:_HEAD].splitlines()[:-1]:
        field, _, value = line.partition(b":")
        if field == b"data":
            break
        if field == b"event":
            return value.removeprefix(b" ").decode(errors="replace")
    return ""


def _parse(text: bytes, raw: bytes) -> Event:
    if text.startswith(b"data: ") and text.find(b"\n") == len(text) - 2 and b"\r" not in text:
        return Event("", text[6:-2], raw)
    name = b""
    data = []
    for line in text.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name.decode(errors="replace"), b"\n".join(data), raw)
