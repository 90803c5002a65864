"""What is inside an envelope: an entry and its key as MessagePack."""

import pickle
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.core.key.fingerprint import address
from sidecar.core.model import BILLED, Entry, Form, Key, Position, Usage
from sidecar.store.envelope import (
    BILLED_SCHEMA,
    LONGEST_TIME,
    MOST_PAIRS,
    MOST_TAGS,
    MOST_VARIED,
    SCHEMA,
    EnvelopeFault,
    pack,
    unpack,
)

PROOF = bytes(range(32))
KEY = Key(address(PROOF), PROOF)
ENTRY = Entry(
    status=200,
    headers=((b"content-type", b"application/json"), (b"OpenAI-Model", b"gpt-4o")),
    body=b'{"object":"chat.completion"}',
    form=Form.WHOLE,
    service="openai",
    route="chat",
    model="gpt-4o-mini",
    at=1.7e9,
    ttl=3600.0,
    usage=Usage(12, 34, 5, 6),
    stale_while_revalidate=60.0,
    stale_if_error=600.0,
    region="eu",
    seconds=1.25,
    tags=("ocr", "team:a"),
    partition=b"P" * 16,
    position=Position(b"I" * 16, 7),
    vary=((b"origin", b"D" * 16), (b"x-a", b"")),
    strict=True,
    age=3.5,
    target=b"T" * 16,
)

texts = st.text(st.characters(exclude_categories=()), max_size=20)
times = st.floats(0, LONGEST_TIME)
counts = st.integers(0, 2**63 - 1)
marks = st.one_of(st.just(b""), st.binary(min_size=16, max_size=16))
pairs = st.tuples(
    st.from_regex(rb"[A-Za-z0-9!#_-]{1,12}", fullmatch=True),
    st.binary(max_size=20).map(lambda value: value.translate(None, b"\r\n\0")),
)
entries = st.builds(
    Entry,
    status=st.integers(200, 599),
    headers=st.lists(pairs, max_size=5).map(tuple),
    body=st.binary(max_size=3000),
    form=st.sampled_from(Form),
    service=texts,
    route=texts,
    model=texts,
    at=times,
    ttl=times,
    usage=st.builds(Usage, *[counts] * 4) | st.builds(Usage, *[counts] * 9),
    stale_while_revalidate=times,
    stale_if_error=times,
    region=texts,
    seconds=times,
    tags=st.lists(texts, max_size=MOST_TAGS).map(tuple),
    partition=marks,
    position=st.builds(Position, marks, counts),
    vary=st.lists(st.tuples(st.binary(max_size=12), marks), max_size=MOST_VARIED).map(tuple),
    strict=st.booleans(),
    age=times,
    target=marks,
)


def fields(**changes):
    """The map of ENTRY with some numbers' values changed (``n4=…``)."""
    values = msgpack.unpackb(pack(KEY, ENTRY), strict_map_key=False)
    return values | {int(number[1:]): value for number, value in changes.items()}


def read(values):
    return unpack(msgpack.packb(values))


@given(entries, st.binary(min_size=32, max_size=32))
def test_round_trip(entry, proof):
    """What was packed comes back, value for value and type for type."""
    key, found = unpack(pack(Key(address(proof), proof), entry))

    assert (Key(address(proof), proof), entry) == (key, found)
    assert (Form, Position, Usage, bytes) == tuple(
        map(type, (found.form, found.position, found.usage, found.body)),
    )


def test_every_field():
    """No field of an entry is left behind, also none that is added to the model later."""
    plain = Entry(0, (), b"", Form.EVENTS, "", "", "", 0.0, 0.0)

    assert [] == [field for field in Entry.__struct_fields__ if getattr(ENTRY, field) == getattr(plain, field)]
    assert (KEY, ENTRY) == unpack(pack(KEY, ENTRY))


def test_numbers():
    """Each value stands under its number; a number once given is never given to another."""

    assert {
        0: SCHEMA, 1: PROOF, 2: 200, 3: [[b"content-type", b"application/json"], [b"OpenAI-Model", b"gpt-4o"]],
        4: b'{"object":"chat.completion"}', 5: "whole", 6: "openai", 7: "chat", 8: "gpt-4o-mini", 9: 1.7e9,
        10: 3600.0, 11: 60.0, 12: 600.0, 13: [12, 34, 5, 6], 14: "eu", 15: 1.25, 16: ["ocr", "team:a"],
        17: b"P" * 16, 18: [b"I" * 16, 7], 19: [[b"origin", b"D" * 16], [b"x-a", b""]], 20: True, 21: 3.5,
        22: b"T" * 16,
    } == fields()  # fmt: skip


def test_billed_quantities():
    """
    An entry that counts something else than tokens is of a schema of its own, which the release before knows it cannot
    read; all other entries it reads.
    """
    for number, quantity in enumerate(BILLED):
        entry = structs.replace(ENTRY, usage=Usage(12, 34, 5, 6, **{quantity: 7}))
        values = msgpack.unpackb(pack(KEY, entry), strict_map_key=False)

        assert (KEY, entry) == unpack(pack(KEY, entry))
        assert fields() | {0: BILLED_SCHEMA, 13: [12, 34, 5, 6, *[0] * number, 7, *[0] * (4 - number)]} == values
        assert EnvelopeFault.PAYLOAD == read(values | {0: SCHEMA})
        for counts in ([12, 34, 5, 6], [*values[13][:-1], -1], [*values[13], 0]):
            assert EnvelopeFault.PAYLOAD == read(values | {13: counts})


def test_every_count():
    """A count that is added to the usage of calls gets a place in an envelope."""

    assert ("prompt", "completion", "cached", "reasoning", *BILLED) == Usage.__struct_fields__


def test_whole_times():
    """A time given as an integer is a time."""
    entry = Entry(200, (), b"", Form.EVENTS, "s", "r", "m", 1000, 60)

    assert (KEY, entry) == unpack(pack(KEY, entry))


def test_impossible_counts():
    """What a provider reports beyond any count doesn't cost the answer."""
    entry = Entry(200, (), b"", Form.WHOLE, "s", "r", "m", 1.0, 1.0, Usage(-1, 10**30, pages=10**30))

    assert Usage(0, 2**63 - 1, pages=2**63 - 1) == unpack(pack(KEY, entry))[1].usage


WRONG = {
    1: [b"p" * 31, b"p" * 33, "p" * 32, None],
    2: [199, 600, 100, 200.0, True, "200", -200],
    3: [
        None, b"", {}, [[b"a"]], [[b"a", b"b", b"c"]], [["a", b"b"]], [[b"a", "b"]], [[b"a", None]], [b"ab"],
        [[b"a", b"b\r\nset-cookie: x"]], [[b"a", b"b\n"]], [[b"a", b"\0"]], [[b"a\r", b"b"]], [[b"", b"b"]],
        [[b"a b", b"c"]], [[b"a:", b"c"]], [[b"a\n", b"c"]], [[b"a", b"b"]] * (MOST_PAIRS + 1),
    ],
    4: ["text", None, [b"body"], 7],
    5: ["", "WHOLE", b"whole", 0, None, ["whole"]],
    6: [b"openai", None, 1, "x" * 4097],
    7: [b"chat", None, []],
    8: [b"gpt", None, {}],
    9: [float("nan"), float("inf"), float("-inf"), -1.0, 1e11, 1700000000, "now", True, None],
    10: [float("nan"), float("inf"), -0.5, 60],
    11: [float("nan"), float("inf"), -0.5, False],
    12: [float("nan"), float("inf"), -0.5, None],
    13: [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, -1], [1, 2, 3, 2**63], [1, 2, 3, 4.0], [True, 2, 3, 4], None, {}],
    14: [b"eu", None],
    15: [float("nan"), float("inf"), -1.0, 3],
    16: [None, "ocr", [b"ocr"], [["ocr"]], ["t"] * (MOST_TAGS + 1), ["x" * 4097]],
    17: [b"p", b"p" * 15, b"p" * 17, "p" * 16, None],
    18: [[], [b"", 0, 0], [b"short", 1], ["", 1], [b"", -1], [b"", 2**63], [b"", 1.0], [b"", True], None, 7],
    19: [
        None, b"", {}, [[b"a"]], [[b"a", b"", b""]], [["a", b""]], [[b"a", b"short"]], [[b"a", "d" * 16]],
        [[b"a", None]], [b"ab"], [[b"a", b""]] * (MOST_VARIED + 1), [[b"x" * 4097, b""]],
    ],
    20: [None, 0, 1, "true", b""],
    21: [float("nan"), float("inf"), -1.0, 3, None],
    22: [b"t", b"t" * 15, b"t" * 17, "t" * 16, None],
}  # fmt: skip


@pytest.mark.parametrize(
    ("number", "value"), [(number, value) for number, values in WRONG.items() for value in values]
)  # fmt: skip
def test_wrong_values(number, value):
    """A value of another type or beyond its range makes the whole no entry."""

    assert EnvelopeFault.PAYLOAD == read(fields(**{f"n{number}": value}))


@pytest.mark.parametrize("number", range(1, 23))
def test_left_out(number):
    """No value may be missing."""
    values = fields()
    del values[number]

    assert EnvelopeFault.PAYLOAD == read(values)


def test_most():
    """The bounds themselves are within bounds."""
    values = fields(n2=599, n3=[[b"a", b"b"]] * MOST_PAIRS, n9=0.0, n10=LONGEST_TIME, n16=["t"] * MOST_TAGS)

    assert read(values)[1].tags == ("t",) * MOST_TAGS


@pytest.mark.parametrize("version", [0, 1, 4, 10**9, -1])
def test_other_schemas(version):
    """Of another schema nothing else is looked at: it may be anything."""

    assert EnvelopeFault.VERSION == read(fields(n0=version))
    assert EnvelopeFault.VERSION == read({0: version})


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"not msgpack",
        pickle.dumps(ENTRY.body),
        msgpack.packb([]),
        msgpack.packb(1),
        msgpack.packb({}),
        msgpack.packb(fields(n0=True)),
        msgpack.packb(fields(n0="1")),
        msgpack.packb(fields(n23=0)),
        msgpack.packb({str(number): value for number, value in fields().items()}),
        msgpack.packb({float(number): value for number, value in fields().items()}),
        msgpack.packb(fields())[:-1],
        msgpack.packb(fields()) + b"\0",
        msgpack.packb(fields() | {4: msgpack.ExtType(4, b"body")}),
        msgpack.packb(fields() | {9: msgpack.Timestamp(1)}),
        b"\x81\x91\x00\x00",
        b"\x81\x80\x00",
        b"\x91" * 5000,
        b"\x81\x00" * 5000,
        b"\x81\x04\xc6\x40\x00\x00\x00body",
        b"\xdf\x40\x00\x00\x00\x00",
        b"\xdd\x40\x00\x00\x00\x00",
        b"\x81\x08\xdb\x40\x00\x00\x00model",
        b"\x81\x08\xa2\xff\xff",
    ],
    ids=[
        "empty", "never used byte", "text", "pickle", "list", "number", "empty map", "version true", "version text",
        "another number", "numbers as text", "numbers as floats", "cut short", "more behind it", "extension type",
        "timestamp", "list as key", "map as key", "deep list", "deep map", "1 GB body", "1 G members", "1 G items",
        "1 GB text", "text not UTF-8",
    ],
)  # fmt: skip
def test_no_envelope(packed):
    """Whatever else is there is no entry, and no exception."""

    assert EnvelopeFault.PAYLOAD == unpack(packed)


@pytest.mark.parametrize("many", [dict.fromkeys(range(200_000)), [None] * 200_000], ids=["members", "items"])
def test_nothing_large_is_built(many):
    """More members or items than an entry has are refused before a table for them is made."""
    packed = msgpack.packb(many)
    tracemalloc.start()
    try:
        assert EnvelopeFault.PAYLOAD == unpack(packed)

        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 64 * 1024 > peak
