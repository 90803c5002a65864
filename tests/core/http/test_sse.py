from __future__ import annotations

import json
import re
from functools import reduce
from operator import or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.sse import Event, EventSign, EventWatch, Splitter, events, frame

ALPHABET = [
    "\r",
    "\n",
    "\r\n",
    "\n\n",
    "data: ",
    "data:",
    "event: ping",
    ": note",
    "id: 7",
    "data",
    "x",
    "é",
    "{}",
    "\ufeff",
]
STREAMS = st.lists(st.sampled_from(ALPHABET), max_size=40).map(lambda parts: "".join(parts).encode())


def simplified(stream: bytes) -> list[tuple[str, bytes]]:
    """The events that carry something, read line by line as the standard describes it."""
    found = []
    name, data = "", []
    lines = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            found.append((name, b"\n".join(data)))
            name, data = "", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    field, _, value = lines[-1].partition(b":")
    if field == b"data":
        data.append(value.removeprefix(b" "))
    if is_json(b"\n".join(data)):
        found.append((value.removeprefix(b" ").decode() if field == b"event" else name, b"\n".join(data)))
    return [each for each in found if each != ("", b"")]


def is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode())
    except ValueError:
        return False
    return True


@st.composite
def cut(draw) -> tuple[bytes, list[bytes]]:
    """A stream and the same stream in pieces."""
    stream = draw(STREAMS)
    at = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return stream, [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: a\n\n", [("", b"a")], id="LF"),
        pytest.param(b"data: a\r\n\r\n", [("", b"a")], id="CRLF"),
        pytest.param(b"data: a\r\r", [("", b"a")], id="CR"),
        pytest.param(b"data: a\r\n\ndata: b\n\r\ndata: c\n\r", [("", b"a"), ("", b"b"), ("", b"c")], id="mixed"),
        pytest.param(b"data:a\n\n", [("", b"a")], id="no space"),
        pytest.param(b"data:  a\n\n", [("", b" a")], id="one space is taken"),
        pytest.param(b"data: a\ndata: b\n\n", [("", b"a\nb")], id="two data lines"),
        pytest.param(b"event: ping\ndata: {}\n\n", [("ping", b"{}")], id="named"),
        pytest.param(b"event: ping\n\n", [("ping", b"")], id="named, no data"),
        pytest.param(b": note\n\n", [("", b"")], id="comment"),
        pytest.param(b": note\ndata: a\n\n", [("", b"a")], id="comment before data"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [("", b"a")], id="byte order mark"),
        pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("", b"a"), ("", b"")], id="mark elsewhere"),
        pytest.param(b"id: 1\nretry: 5\ndata\n\n", [("", b"")], id="other fields"),
        pytest.param(b"data: a\n\ndata: b\n", [("", b"a")], id="unfinished"),
        pytest.param(b'data: a\n\ndata: {"b":1', [("", b"a")], id="cut off"),
        pytest.param(b'data: a\n\ndata: {"b":1}\n', [("", b"a"), ("", b'{"b":1}')], id="no blank line"),
        pytest.param(b"data: a\n\ndata: [DONE]", [("", b"a"), ("", b"[DONE]")], id="no line end"),
        pytest.param(b"data: a\n\ndata: [DON", [("", b"a")], id="cut off in its last word"),
        pytest.param(b"data: a\n\nevent: b\n", [("", b"a")], id="cut off before its data"),
        pytest.param(b"\ndata: a\n\n", [("", b"a")], id="blank line first"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_events(stream, expected):
    """Line ends, fields, comments and marks are read as the standard has them."""
    found = events(stream)

    assert expected == [(event.name, event.data) for event in found]


@given(cut())
def test_cuts_do_not_matter(cuts):
    """Any cutting gives the same events; raw bytes and rest are the stream; what is read is what the standard says."""
    stream, pieces = cuts
    splitter = Splitter()
    found = [event for piece in pieces for event in splitter.feed(piece)]
    boundary = splitter.boundary
    late = splitter.close()
    found += late

    assert events(stream) == found
    assert stream == b"".join(event.raw for event in found) + splitter.rest
    assert simplified(stream) == [(e.name, e.data) for e in found if e.name or e.data]
    cut_off = splitter.rest + b"".join(event.raw for event in late if not re.search(rb"(?:\n|\r\n?+){2}\Z", event.raw))
    assert boundary == (not cut_off.strip(b"\r\n"))


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"", True, id="nothing"),
        pytest.param(b"data: a", False, id="in a line"),
        pytest.param(b"data: a\n", False, id="after a line"),
        pytest.param(b"data: a\n\n", True, id="after an event"),
        pytest.param(b"data: a\n\n\n", True, id="a blank line more"),
        pytest.param(b"data: a\r\n\r", True, id="held for LF"),
        pytest.param(b"data: a\n\n:", False, id="in a comment"),
    ],
)
def test_boundary(stream, expected):
    """A stream stands between events when nothing has begun that is not finished."""
    splitter = Splitter()
    splitter.feed(stream)

    assert expected == splitter.boundary


def test_oversize():
    """An event without end passes in opaque pieces, is not kept in memory, and the next event is read again."""
    stream = b"data: first\n\ndata: " + b"x" * 1000 + b"\n\ndata: last\n\n"
    splitter = Splitter(limit=100)
    found, longest = [], 0
    for at in range(0, len(stream), 10):
        found += splitter.feed(stream[at : at + 10])
        longest = max(longest, len(splitter.rest))

    assert stream == b"".join(event.raw for event in found)
    assert {b"first", b"", b"last"} == {event.data for event in found}
    assert splitter.overflowed
    assert splitter.boundary
    assert longest <= 100


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        pytest.param(b"event: response.completed\ndata: ", "response.completed", id="before its data"),
        pytest.param(b": note\r\nevent:a\r\ndata: ", "a", id="after a comment"),
        pytest.param(b"data: ", "", id="none"),
        pytest.param(b"data: y\nevent: a\ndata: ", "", id="after its data"),
        pytest.param(b"event: ", "", id="no end of the name"),
    ],
)
def test_an_oversize_event_ends_with_its_name(beginning, expected):
    """Its pieces have no name but the last one, which tells that an event of that name is over."""
    splitter = Splitter(limit=100)
    found = [event for at in range(30) for event in splitter.feed(beginning * (not at) + b"x" * 10)]
    [last, after] = splitter.feed(b"\n\nevent: b\ndata: {}\n\n")

    assert {("", b"")} == {(event.name, event.data) for event in found}
    assert (expected, b"") == (last.name, last.data)
    assert ("b", b"{}") == (after.name, after.data)


def test_oversize_is_no_boundary():
    """Inside an oversize event there is no boundary, whatever its kept tail looks like."""
    splitter = Splitter(limit=10)
    splitter.feed(b"data: " + b"x" * 20 + b"\n")

    assert splitter.overflowed
    assert not splitter.boundary
    assert repr(splitter) == "<Splitter 4 bytes of an unfinished event, overflowed>"


def test_a_large_whole_event_is_read():
    """The limit is for unfinished events: one that arrives whole is read."""
    splitter = Splitter(limit=10)

    [event] = splitter.feed(b"data: " + b"x" * 50 + b"\n\n")

    assert event.data == b"x" * 50
    assert not splitter.overflowed


@given(st.from_regex(r"[^\r\n]*", fullmatch=True), st.sampled_from(["", "response.completed"]))
def test_frame(text, name):
    """What is framed is read back."""
    data = text.encode()

    assert [Event(name, data, frame(data, name))] == events(frame(data, name))


def signs(found: list[Event]) -> int:
    """The signs of a small made-up protocol."""
    known = {b"a": EventSign.CONTENT, b"z": EventSign.CONTENT | EventSign.END, b"!": EventSign.FAILURE}
    return reduce(or_, [known.get(event.data, EventSign.NOTHING) for event in found])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"", "<EventWatch boundary>", id="nothing"),
        pytest.param(b": note\n\n", "<EventWatch boundary>", id="comment"),
        pytest.param(b"data: a\n", "<EventWatch >", id="unfinished"),
        pytest.param(b"data: a\n\n", "<EventWatch committed boundary>", id="content"),
        pytest.param(b"data: a\n\ndata: z\n\n", "<EventWatch committed ended boundary>", id="end"),
        pytest.param(b"data: !\n\n", "<EventWatch failed boundary>", id="failure"),
        pytest.param(b"data: z\n\ndata: b", "<EventWatch committed ended>", id="more after the end"),
        pytest.param(b"x" * (9 << 20), "<EventWatch committed>", id="too large to read"),
        pytest.param(
            b"x" * (9 << 20) + b"\n\ndata: z\n\n", "<EventWatch committed ended boundary>", id="an end after it"
        ),
    ],
)
def test_watch(stream, expected):
    """A watch adds up the signs of the events that have passed."""
    watch = EventWatch(signs)
    watch.feed(stream[:3])
    watch.feed(stream[3:])

    assert expected == repr(watch)
