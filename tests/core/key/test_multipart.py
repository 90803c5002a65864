"""Reading multipart bodies: what counts, and what is too odd to be sure of."""

import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Answers, BodyForm, Endpoint, Kind, Shape
from sidecar.core.key.canonical import Unsafe, observer, read
from sidecar.core.key.multipart import KEEP_ALL, Multipart
from sidecar.core.model import Facts

KEY = b"k" * 32
TYPE = b"multipart/form-data; boundary=x"


def unasked(*_):
    """Nobody asks a request's reader about answers."""
    raise AssertionError


def facts_of(members):
    return Facts(model=str(members.get("model", "")), bypass="server-tools" if "tools" in members else "")


AUDIO = Endpoint(
    "transcription",
    Kind.TRANSCRIPTION,
    BodyForm.MULTIPART,
    facts_of,
    Answers(unasked, unasked, unasked, unasked, unasked, unasked),
    Shape(drop=frozenset({"stream"})),
)


def part(name, value, filename=None, extra=()):
    """One part, as most clients write it."""
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return "\r\n".join([f"Content-Disposition: {disposition}", *extra, "", ""]).encode() + value


def form(*parts, boundary=b"x"):
    return b"".join(b"--" + boundary + b"\r\n" + item + b"\r\n" for item in parts) + b"--" + boundary + b"--\r\n"


def parse(body, content_type=TYPE, size=0):
    """A scanner that was fed *body* in pieces of *size*, 0 for all at once."""
    parts = Multipart(content_type, KEY)
    for start in range(0, len(body), size or len(body) or 1):
        parts.feed(body[start : start + (size or len(body))])
    return parts


def seen(parts):
    return parts.fault, parts.fields(frozenset()), parts.members()


AUDIO_FILE = part("file", b"RIFF\r\n--y\r\n\r\n\x00", "Talk.WAV", ["Content-Type: audio/wav"])
MODEL = part("model", b"whisper-1")
BODY = form(MODEL, AUDIO_FILE, part("t[]", b"word"), part("t[]", b"segment"), part("temperature", b"0"))


@pytest.mark.parametrize("size", [0, 1, 2, 5, 64])
def test_fields(size):
    """Fields sort by name, repeated ones keep their order, and files stand as their digest and extension."""
    parts = parse(BODY, size=size)
    names = [name for name, _ in parts.fields(frozenset({"model"}))]

    assert parts.fault is None
    assert ["file", "t[]", "t[]", "temperature"] == names
    assert parts.members() == {"model": "whisper-1", "t[]": ["word", "segment"], "temperature": "0"}


def test_three_of_a_name():
    """A third value joins the list."""

    parts = parse(form(*(part("t", value) for value in (b"b", b"a", b"c"))))

    assert parts.members() == {"t": ["b", "a", "c"]}


def test_reading():
    """The material is readable JSON; dropped fields are not in it."""
    reading = read(form(MODEL, part("stream", b"true"), part("file", b"x", "a.b.Mp3")), AUDIO, TYPE, KEY)
    fields = json.loads(reading.material)

    assert (b"multipart", "whisper-1") == (reading.tag, reading.facts.model)
    assert ["file", "model"] == [name for name, _ in fields]
    assert fields[0][1]["extension"] == "mp3"
    assert len(fields[0][1]["digest"]) == 64


def test_bypass_of_the_dialect():
    """What the dialect bypasses needs no material."""
    reading = read(form(MODEL, part("tools", b"x")), AUDIO, TYPE, KEY)

    assert (b"", "server-tools") == (reading.material, reading.facts.bypass)


def test_large():
    """A body of any size has the same form, whole or in pieces."""
    body = form(part("file", b"\r\n--" * 100_000, "a.wav"), MODEL)
    passing = observer(AUDIO, TYPE, KEY)
    for start in range(0, len(body), 65_536):
        passing.feed(body[start : start + 65_536])

    assert read(body, AUDIO, TYPE, KEY) == passing.reading()
    assert not passing.reading().facts.bypass


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(BODY.replace(b"--x", b"--other"), b"multipart/form-data; boundary=other", id="boundary"),
        pytest.param(BODY.replace(b"--x", b"--a b"), b'Multipart/Form-Data;charset=x; BOUNDARY="a b"', id="quoted"),
        pytest.param(BODY.replace(b"audio/wav", b"audio/x-wav"), TYPE, id="type of a part"),
        pytest.param(BODY.replace(b"Talk.WAV", b"other.wav"), TYPE, id="name of a file"),
        pytest.param(BODY.replace(b'filename="Talk.WAV"', b"filename*=UTF-8''t%C3%A4.wav"), TYPE, id="long name"),
        pytest.param(BODY.replace(b'name="model"', b"name=model"), TYPE, id="unquoted name"),
        pytest.param(BODY.replace(b"Content-Disposition", b"content-disposition"), TYPE, id="case of headers"),
        pytest.param(BODY[:-2], TYPE, id="no last line end"),
        pytest.param(BODY.replace(b"audio/wav", b"a/b\r\nContent-Length: 14"), TYPE, id="length of a part"),
        pytest.param(
            BODY.replace(b"audio/wav", b"a/b\r\nContent-Transfer-Encoding: binary"), TYPE, id="identity encoding"
        ),
        pytest.param(
            form(part("temperature", b"0"), part("t[]", b"word"), AUDIO_FILE, part("t[]", b"segment"), MODEL),
            TYPE,
            id="order of distinct fields",
        ),
    ],
)
def test_what_does_not_count(body, content_type):
    """Another way to write the same form has the same material."""

    assert read(BODY, AUDIO, TYPE, KEY) == read(body, AUDIO, content_type, KEY)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BODY.replace(b"RIFF", b"RIFG"), id="bytes of a file"),
        pytest.param(BODY.replace(b".WAV", b".mp3"), id="extension"),
        pytest.param(BODY.replace(b"Talk.WAV", b"wav"), id="no extension"),
        pytest.param(BODY.replace(b'; filename="Talk.WAV"', b"").replace(b"\x00", b"0"), id="a text, no file"),
        pytest.param(BODY.replace(b"whisper-1", b"whisper-1 "), id="white space"),
        pytest.param(BODY.replace(b"temperature", b"Temperature"), id="case of a name"),
        pytest.param(BODY.replace(b"word", b"-").replace(b"segment", b"word").replace(b"-", b"s"), id="order"),
        pytest.param(form(MODEL, AUDIO_FILE), id="absent fields"),
    ],
)
def test_what_counts(body):
    """A form that differs has another material."""

    assert read(BODY, AUDIO, TYPE, KEY).material != read(body, AUDIO, TYPE, KEY).material


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"multipart/form-data",
        b"multipart/mixed; boundary=x",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=x; boundary=y",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="x "',
    ],
)
def test_unusable_content_type(content_type):
    """Without one certain boundary nothing can be read."""

    assert parse(BODY, content_type).fault == Unsafe.INVALID_MULTIPART


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", Unsafe.INVALID_MULTIPART, id="nothing"),
        pytest.param(b"--", Unsafe.INVALID_MULTIPART, id="almost nothing"),
        pytest.param(b"preamble\r\n" + BODY, Unsafe.INVALID_MULTIPART, id="preamble"),
        pytest.param(BODY + b"epilogue", Unsafe.INVALID_MULTIPART, id="epilogue"),
        pytest.param(BODY[:-4], Unsafe.INVALID_MULTIPART, id="cut"),
        pytest.param(form(part("a", b"\r\n--xy")), Unsafe.INVALID_MULTIPART, id="almost a delimiter"),
        pytest.param(BODY.replace(b"--x\r\n", b"--x \r\n"), Unsafe.INVALID_MULTIPART, id="padding"),
        pytest.param(form(b"\r\nx"), Unsafe.INVALID_MULTIPART, id="no headers"),
        pytest.param(form(b"\r\nx\r\n\r\ny"), Unsafe.INVALID_MULTIPART, id="empty line for headers"),
        pytest.param(form(b"Content-Type: a/b\r\n\r\nx"), Unsafe.INVALID_MULTIPART, id="no disposition"),
        pytest.param(form(b"no header\r\n\r\nx"), Unsafe.INVALID_MULTIPART, id="no header line"),
        pytest.param(form(b"Content-Disposition: form-data\r\n\r\nx"), Unsafe.INVALID_MULTIPART, id="no name"),
        pytest.param(form(b"Content-Disposition: file; name=a\r\n\r\nx"), Unsafe.INVALID_MULTIPART, id="no form-data"),
        pytest.param(form(part('a"; name="b', b"x")), Unsafe.INVALID_MULTIPART, id="two names"),
        pytest.param(form(part('a"; x="b', b"x")), Unsafe.INVALID_MULTIPART, id="odd parameter"),
        pytest.param(form(part('a"b', b"x")), Unsafe.INVALID_MULTIPART, id="quote in a name"),
        pytest.param(form(part("a", b"x", 'b.c"; filename*="d.e')), Unsafe.INVALID_MULTIPART, id="two extensions"),
        pytest.param(BODY.replace(b'"model"', b'"\xff"'), Unsafe.INVALID_MULTIPART, id="name is no utf-8"),
        pytest.param(form(part("a", b"x", extra=["X: y"])), Unsafe.INVALID_MULTIPART, id="unknown header"),
        pytest.param(
            form(part("a", b"x", extra=["Content-Type: text/plain; charset=utf-16"])),
            Unsafe.INVALID_MULTIPART,
            id="text in another character set",
        ),
        pytest.param(
            form(part("a", b"x", extra=["Content-Type: application/json"])), Unsafe.INVALID_MULTIPART, id="no text"
        ),
        pytest.param(
            form(part("a", b"x", extra=["Content-Type: a/b", "Content-Type: a/b"])),
            Unsafe.INVALID_MULTIPART,
            id="repeated header",
        ),
        pytest.param(
            form(part("a", b"x", extra=["Content-Transfer-Encoding: base64"])),
            Unsafe.INVALID_MULTIPART,
            id="encoded part",
        ),
        pytest.param(
            form(part("a", b"x", extra=["Content-Type: " + "x" * 9000])), Unsafe.INVALID_MULTIPART, id="long headers"
        ),
        pytest.param(form(*[part("a", b"")] * 1025), Unsafe.INVALID_MULTIPART, id="too many parts"),
        pytest.param(form(part("a", b"\xff")), Unsafe.INVALID_UTF8, id="text is no utf-8"),
        pytest.param(form(part("a", b"x" * (KEEP_ALL + 1))), Unsafe.UNREADABLE_MEMBER, id="long text"),
        pytest.param(form(*[part("a" * 4000, b"", "f")] * 66), Unsafe.UNREADABLE_MEMBER, id="long names"),
    ],
)
@pytest.mark.parametrize("size", [0, 7])
def test_unsafe(body, expected, size):
    """What cannot be taken apart with certainty has no form, and says why."""
    passing = observer(AUDIO, TYPE, KEY)
    for start in range(0, len(body), size or len(body) or 1):
        passing.feed(body[start : start + (size or len(body))])

    assert Facts(bypass=expected) == passing.reading().facts
    assert not passing.reading().material


def test_repr():
    """The state in one line."""

    assert repr(parse(form(MODEL))) == "<Multipart sound, 1 fields>"


texts = st.text(max_size=12)
names = st.sampled_from(["a", "b", "model", "t[]"])


@given(st.lists(st.tuples(names, texts), max_size=5), st.integers(1, 50))
def test_texts_come_out_as_they_went_in(fields, size):
    """Any text, cut anywhere, and the values of one name in their order."""
    parts = parse(form(*(part(name, value.encode()) for name, value in fields)), size=size)

    assert parts.fault is None
    for name, _ in fields:
        assert [value for other, value in fields if other == name] == [
            value for other, value in parts.fields(frozenset()) if other == name
        ]


@given(st.lists(st.sampled_from([b"--x", b"\r\n", b"\r", b"--", b"x", MODEL, AUDIO_FILE, b"\r\n--x\r\n"]), max_size=8))
def test_cuts_never_count(pieces):
    """What is found, faults included, does not depend on where the bytes were cut."""
    body = b"--x\r\n" + b"".join(pieces)

    assert seen(parse(body)) == seen(parse(body, size=1)) == seen(parse(body, size=3))


@pytest.mark.parametrize("kind", ["text/plain", "Text/Plain; charset=UTF-8", 'text/plain;charset="us-ascii"'])
def test_text_that_says_so(kind):
    """A text part may say that it is text."""
    parts = parse(form(part("a", b"x", extra=[f"Content-Type: {kind}"])))

    assert (None, {"a": "x"}) == (parts.fault, parts.members())


@pytest.mark.parametrize("body", [form(AUDIO_FILE), b"no form, and long" * 1000], ids=["sound", "no form"])
def test_nothing_of_a_body_stays(body):
    """The parts hold nothing of what they have read; and who lets go of them frees them at once."""
    parts = parse(body)
    held = [each for each in gc.get_referents(parts) if isinstance(each, bytes)]
    gc.collect()
    gc.disable()
    try:
        before = sum(type(each) is Multipart for each in gc.get_objects())
        del parts
        after = sum(type(each) is Multipart for each in gc.get_objects())
    finally:
        gc.enable()

    assert {b"\r\n", b"\r\n--x", b"", KEY} >= set(held)
    assert (1, 0) == (before, after)
