"""Why a JSON text cannot be taken: one reason for each, in one order, whatever library reads it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from itertools import pairwise
from math import isfinite
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import sidecar
from sidecar.core.dialect import Answers, BodyForm, Endpoint, Kind
from sidecar.core.key import canonical, json_members
from sidecar.core.key import json_scanner as members
from sidecar.core.key.canonical import observer, parse
from sidecar.core.key.json_rule import DEEPEST, LONGEST_INTEGER, OTHER_VALUES, Encoding, Levels, fault, first
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.model import Facts
from tests.nasty import NASTY, ODD

ENDPOINT = Endpoint("x", Kind.CHAT, BodyForm.JSON, lambda _: Facts(), Answers)


class Foreign(msgspec.MsgspecError):
    """An error of a class that no version has."""


def standard(text: bytes) -> object:
    """What the standard library reads of *text*, kept to what a double and our longest integer can hold."""

    def integer(digits: str) -> int:
        if len(digits) > LONGEST_INTEGER:
            raise ValueError("too long")
        return int(digits)

    def number(digits: str) -> float:
        if not isfinite(found := float(digits)):
            raise ValueError("too large")
        return found

    read = json.loads(text.decode(), parse_int=integer, parse_float=number, parse_constant=number)
    json.dumps(read, ensure_ascii=False).encode()  # halves of surrogate pairs
    return read


def refusing(error: Exception) -> Callable[[bytes], object]:
    """A library that raises *error* for all that it cannot read."""

    def read(text: bytes) -> object:
        try:
            return standard(text)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            raise error from None

    return read


LIBRARIES = {
    "the standard library": standard,
    "one that finds all malformed": refusing(msgspec.DecodeError("JSON is malformed")),
    "one that finds all out of range": refusing(msgspec.ValidationError("Number out of range")),
    "one that finds all of it no utf-8": refusing(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")),
    "one that finds all too deep": refusing(RecursionError("maximum recursion depth exceeded")),
    "one with an error of its own": refusing(Foreign("Ungültig")),
}


@pytest.fixture(params=["msgspec", *LIBRARIES])
def library(request, monkeypatch):
    """Each library in turn is what reads bodies."""
    if read := LIBRARIES.get(request.param):
        monkeypatch.setattr(json_members, "_decode", read)
    return request.param


def pieces(body: bytes, size: int) -> Unsafe | str:
    """The reason of a body that is read while it passes, in pieces of *size*."""
    passing = observer(ENDPOINT, b"", b"k" * 32)
    for start in range(0, len(body), size):
        passing.feed(body[start : start + size])
    return passing.reading().facts.bypass


@pytest.mark.parametrize("name", NASTY)
def test_one_reason(name, library):
    """A body's reason is the same whatever the library that reads it says."""
    body, expected = NASTY[name]

    assert expected == parse(body)


@pytest.mark.parametrize("name", ODD)
def test_no_reason(name, library):
    """What is JSON has no reason, and is read as it stands."""
    assert json.loads(ODD[name]) == parse(ODD[name])


LONG = {"the integer that is too long", "the integer below zero that is too long", "the longest integer"}
"""A large body's numbers are kept up to 1 KiB only."""


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", [name for name in NASTY if name not in LONG])
def test_one_reason_at_any_size(name, size):
    """A large body, read while it passes, has the reason that a small one has."""
    body, expected = NASTY[name]

    assert expected == pieces(body, size)


@pytest.mark.parametrize("name", [name for name in ODD if name not in LONG])
def test_no_reason_at_any_size(name):
    """As above, for what is sound."""
    assert "" == pieces(ODD[name], 11)


FILLING = b'{"messages":"' + b"x" * canonical.SMALL + b'",'


@pytest.mark.parametrize("name", [name for name, (body, _) in NASTY.items() if body[:1] == b"{" and name not in LONG])
def test_one_reason_behind_a_long_member(name):
    """So it is when a long member has passed before."""
    body, expected = NASTY[name]

    assert expected == pieces(FILLING + body[1:], 65_536)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        pytest.param(b"\xff", Unsafe.INVALID_UTF8, id="no utf-8"),
        pytest.param(b"\xed\xa0\x80", Unsafe.INVALID_UTF8, id="a surrogate as bytes"),
        pytest.param(b'",' + b"[" * DEEPEST + b'"', Unsafe.NESTING, id="too deep"),
        pytest.param(b'"},"', Unsafe.INVALID_JSON, id="crossed brackets"),
    ],
)
def test_one_reason_within_a_long_member(inside, expected):
    """A long member is not read, but its encoding, its nesting and its brackets are followed."""
    assert expected == pieces(b'{"messages":["' + b"x" * canonical.SMALL + inside + b'"]}', 65_536)


def test_what_parsers_do_not_both_read_is_unsafe(monkeypatch):
    """A library that cannot read what we find sound leaves the body without a safe reading."""

    def refuse(_text):
        raise msgspec.DecodeError("a bug")

    monkeypatch.setattr(json_members, "_decode", refuse)
    monkeypatch.setattr(members.msgspec.json, "decode", lambda _text, **_: refuse(_text))

    assert Unsafe.INVALID_JSON == parse(b'{"a":1}')
    assert Unsafe.INVALID_JSON == pieces(b'{"a":1}', 100)


# Properties.

TOKENS = [
    b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'"b"', b'"\\u0061"', b'"a.b.c"', b'"::"', b"1", b"-0", b"1e400",
    b"NaN", b"null", b'"\\ud800"', b'"\\ud83d\\ude02"', b'"', b"\\", b"\xff", b"\xc3", b"\xa9", b"\x00", b" ", b"\n",
    b"[" * DEEPEST, b"{" * DEEPEST, b'{"a":' * DEEPEST, b"]" * DEEPEST,
]  # fmt: skip
broken = st.lists(st.sampled_from(TOKENS), max_size=25).map(b"".join)
objects = st.lists(st.tuples(st.sampled_from(TOKENS), st.sampled_from(TOKENS)), max_size=6).map(
    lambda pairs: b"{" + b",".join([name + b":" + value for name, value in pairs]) + b"}"
)
texts = broken | objects | st.binary(max_size=60)


def deepest(text: bytes) -> int:
    """The most levels in *text*, a byte at a time."""
    level = most = at = 0
    string = False
    while at < len(text):
        byte = text[at : at + 1]
        at += 2 if string and byte == b"\\" else 1
        if byte == b'"':
            string = not string
        elif not string:
            level += (byte in b"[{") - (byte in b"]}")
            most = max(most, level)
    return most


@given(texts)
@example(b"[" * 129)
@example(b'"\\"' * 129 + b"[" * 129)
def test_the_order(text):
    """Not UTF-8 comes before all, too many levels before the rest, and what is told is what the text is."""
    told = parse(text)
    try:
        text.decode()
    except UnicodeDecodeError:
        assert Unsafe.INVALID_UTF8 == told
        return
    if deepest(text) > DEEPEST:
        assert Unsafe.NESTING == told
        return
    begin = text.lstrip(b" \t\n\r")[:1]
    if begin != b"{":
        assert told is (Unsafe.NOT_AN_OBJECT if begin and begin in OTHER_VALUES else Unsafe.INVALID_JSON)
        return
    try:
        json.loads(text.decode())
    except ValueError:
        assert Unsafe.INVALID_JSON == told
    else:
        assert told not in [Unsafe.INVALID_UTF8, Unsafe.NESTING, Unsafe.NOT_AN_OBJECT, Unsafe.INVALID_JSON]


@given(texts)
def test_any_library_tells_the_same(text):
    """What the hot path tells is what the rule alone tells, whether its library reads the text or refuses it."""
    told = parse(text)

    assert fault(text) == (told if isinstance(told, Unsafe) else None)


@given(texts, st.integers(1, 30))
def test_any_size_tells_the_same(text, size):
    """A body that is read while it passes has the reason of one that is read as a whole."""
    assert (fault(text) or "") == pieces(text, size)


@given(texts, st.lists(st.integers(0, 100), max_size=8))
def test_levels(text, cuts):
    """Levels are counted the same however the text was cut."""
    levels, encoding = Levels(), Encoding()
    for start, end in pairwise([0, *sorted(cuts), max(100, len(text))]):
        levels.feed(text[start:end])
        encoding.feed(text[start:end])

    assert (deepest(text) > DEEPEST) == levels.too_deep
    assert (fault(text) is Unsafe.INVALID_UTF8) == (not encoding.sound or encoding.partial)


def test_a_string_that_never_ends_costs_its_length():
    """Escaped quotes in it are looked at once each."""
    levels = Levels()
    levels.feed(b'"' + b'\\"' * 1_000_000)
    levels.feed(b'[" ' + b"[" * (DEEPEST + 1))

    assert levels.too_deep


def test_readers_wait_for_all():
    """Nobody else names a class of the library's errors: one of them alone is the next version's surprise."""
    named = {
        (path.name, name.attr if isinstance(name, ast.Attribute) else name.id)
        for path in Path(sidecar.__file__).parent.rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(handler, ast.ExceptHandler) and handler.type is not None
        for name in ast.walk(handler.type)
        if isinstance(name, ast.Attribute | ast.Name)
    }

    assert ("sse.py", "UNREADABLE") in named
    assert not {name for _, name in named} & {"DecodeError", "EncodeError", "ValidationError", "MsgspecError"}


def test_every_reason_has_its_place():
    """Of any two reasons of a JSON body one is told."""
    others = {Unsafe.INVALID_MULTIPART, Unsafe.INVALID_BASE64, Unsafe.AMBIGUOUS_DOCUMENT, Unsafe.NO_DOCUMENT}
    reasons = set(Unsafe) - others

    assert all(first({one, other}) in {one, other} for one in reasons for other in reasons)
    assert first(()) is None
    assert Unsafe.INVALID_UTF8 == first(reasons)


def test_repr():
    """The state in one line."""
    levels, encoding = Levels(DEEPEST + 1), Encoding()
    encoding.feed(b"\xc3")

    assert ("<Levels 129, too deep>", "<Encoding sound partial>") == (repr(levels), repr(encoding))
