"""What counts in a request body, and which bodies have no canonical form."""

import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Answers, BodyForm, Endpoint, Kind, Shape
from sidecar.core.key import json_rule
from sidecar.core.key.canonical import SMALL, Unsafe, observer, parse, read
from sidecar.core.model import Facts

KEY = b"k" * 32
DATA = Path(__file__).parents[3] / "../shared/data/jcs"

MESSAGE = Shape(inside={"content": Shape(), "tool_calls": Shape(inside={"function": Shape()})})
CHAT = Shape(drop=frozenset({"user", "stream"}), inside={"messages": MESSAGE, "response_format": Shape()})


def unasked(*_):
    """Nobody asks a request's reader about answers."""
    raise AssertionError


NO_ANSWERS = Answers(unasked, unasked, unasked, unasked, unasked, unasked)


def facts_of(members):
    """A dialect that knows a model's name, and that tools named "search" are the service's own."""
    bypass = "server-tools" if members.get("tools") == ["search"] else ""
    return Facts(model=str(members.get("model", "")), bypass=bypass)


def endpoint(body=BodyForm.JSON, shape=CHAT):
    return Endpoint("chat", Kind.CHAT, body, facts_of, NO_ANSWERS, shape)


def material(text, shape=CHAT):
    reading = read(text, endpoint(shape=shape), b"application/json", KEY)

    assert reading.facts.bypass == ""

    return reading.material


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"b":1,"a":2}', b'{"a":2,"b":1}', id="members of the top level are sorted"),
        pytest.param(b' { "a" : [ 1 , 2 ] } ', b'{"a":[1,2]}', id="white space goes"),
        pytest.param(b'{"user":"u","stream":true,"a":1}', b'{"a":1}', id="dropped members go"),
        pytest.param(b'{"a":{"user":"u"}}', b'{"a":{"user":"u"}}', id="a dropped name elsewhere counts"),
        pytest.param(b'{"x":{"b":1,"a":2}}', b'{"x":{"b":1,"a":2}}', id="unnamed objects keep their order"),
        pytest.param(
            b'{"messages":[{"role":"user","content":"hi"}]}',
            b'{"messages":[{"content":"hi","role":"user"}]}',
            id="envelope objects in arrays are sorted",
        ),
        pytest.param(
            b'{"messages":[{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\\"b\\":1,\\"a\\":2}"}}]}]}',
            b'{"messages":[{"tool_calls":[{"function":{"arguments":"{\\"b\\":1,\\"a\\":2}","name":"f"},"id":"c"}]}]}',
            id="a tool call's arguments are text",
        ),
        pytest.param(
            b'{"response_format":{"type":"json_schema","json_schema":{"z":1,"a":2}}}',
            b'{"response_format":{"json_schema":{"z":1,"a":2},"type":"json_schema"}}',
            id="a schema keeps its order",
        ),
        pytest.param(b'{"messages":["b",{"b":1,"a":2},3]}', b'{"messages":["b",{"a":2,"b":1},3]}', id="mixed array"),
        pytest.param(b'{"messages":"text"}', b'{"messages":"text"}', id="an envelope that is none"),
        pytest.param(b'{"seed":9007199254740993}', b'{"seed":9007199254740993}', id="integers beyond 53 bits"),
        pytest.param(b'{"seed":%d}' % 10**30, b'{"seed":%d}' % 10**30, id="integers beyond 64 bits"),
        pytest.param(b'{"n":1.0}', b'{"n":1.0}', id="1.0 stays a float"),
        pytest.param(b'{"n":1e0}', b'{"n":1.0}', id="a float in shortest form"),
        pytest.param(b'{"n":-0.0}', b'{"n":-0.0}', id="a negative zero that stays one"),
        pytest.param(b'{"s":"A\\u030a \\u003a\\/"}', '{"s":"A\u030a :/"}'.encode(), id="strings are never normalised"),
        pytest.param(b'{"s":" -0, "}', b'{"s":" -0, "}', id="what looks like a negative zero in a string"),
        pytest.param(b"{}", b"{}", id="an empty object"),
    ],
)
def test_form(body, expected):
    """The canonical form, byte for byte."""
    assert expected == material(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"a":1,"a":1}', Unsafe.DUPLICATE_KEY, id="duplicate at the top"),
        pytest.param(b'{"a":[{"b":{"c":1,"d":2,"c":3}}]}', Unsafe.DUPLICATE_KEY, id="duplicate deep down"),
        pytest.param(b'{"a":1,"\\u0061":2}', Unsafe.DUPLICATE_KEY, id="duplicate in another spelling"),
        pytest.param(b'{"a":1, "a":"\\u003a"}', Unsafe.DUPLICATE_KEY, id="duplicate beside an escaped colon"),
        pytest.param(b'{"a":"\\u003A", "a":1}', Unsafe.DUPLICATE_KEY, id="duplicate of an escaped colon"),
        pytest.param(b'{"user":1,"user":2}', Unsafe.DUPLICATE_KEY, id="duplicate of a dropped member"),
        pytest.param(b"", Unsafe.INVALID_JSON, id="empty"),
        pytest.param(b"{", Unsafe.INVALID_JSON, id="cut"),
        pytest.param(b'{"a":1}x', Unsafe.INVALID_JSON, id="trailing garbage"),
        pytest.param(b'{"a":1,}', Unsafe.INVALID_JSON, id="trailing comma"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', Unsafe.INVALID_JSON, id="byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), Unsafe.INVALID_UTF8, id="utf-16"),
        pytest.param(b'{"a":"\xff"}', Unsafe.INVALID_UTF8, id="no utf-8"),
        pytest.param(b'{"\xff":1}', Unsafe.INVALID_UTF8, id="no utf-8 in a name"),
        pytest.param(b'{"a":"\xed\xa0\x80"}', Unsafe.INVALID_UTF8, id="a surrogate as bytes"),
        pytest.param(b'{"a":"\\ud800"}', Unsafe.LONE_SURROGATE, id="a high surrogate alone"),
        pytest.param(b'{"a":"\\udc00 "}', Unsafe.LONE_SURROGATE, id="a low surrogate alone"),
        pytest.param(b'{"a":1e400}', Unsafe.NUMBER_OUT_OF_RANGE, id="too large a float"),
        pytest.param(b'{"a":NaN}', Unsafe.NUMBER_OUT_OF_RANGE, id="not a number"),
        pytest.param(b'{"a":[-Infinity]}', Unsafe.NUMBER_OUT_OF_RANGE, id="infinity"),
        pytest.param(b'{"a":' + b"1" * 20_000 + b"}", Unsafe.NUMBER_OUT_OF_RANGE, id="too many digits"),
        pytest.param(b'{"a":-0}', Unsafe.NEGATIVE_ZERO, id="negative zero"),
        pytest.param(b'{"a":[1, -0 ]}', Unsafe.NEGATIVE_ZERO, id="negative zero in an array"),
        pytest.param(b"[]", Unsafe.NOT_AN_OBJECT, id="an array"),
        pytest.param(b'"a"', Unsafe.NOT_AN_OBJECT, id="a string"),
        pytest.param(b'{"a":' + b"[" * 128 + b"]" * 128 + b"}", Unsafe.NESTING, id="129 levels"),
        pytest.param(b'{"a":' * 129 + b"1" + b"}" * 129, Unsafe.NESTING, id="129 levels of objects"),
        pytest.param(b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", Unsafe.NESTING, id="10 000 levels"),
        pytest.param(b'{"a":NaN,"b":' + b"[" * 100_000, Unsafe.NESTING, id="levels beyond what is no number"),
        pytest.param(b"[" * 200_000, Unsafe.NESTING, id="200 000 levels that never end"),
    ],
)
def test_unsafe(body, expected):
    """Such a body has no material and no facts but the reason."""
    reading = read(body, endpoint(), b"application/json", KEY)

    assert (b"json", b"", Facts(bypass=expected)) == (reading.tag, reading.material, reading.facts)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a":' + b"[" * 127 + b"]" * 127 + b"}", id="128 levels"),
        pytest.param(b'{"a":[' + b",".join([b"[]"] * 500) + b"]}", id="many brackets side by side"),
        pytest.param(b'{"a":"' + b"[{" * 500 + b'"}', id="brackets in a string"),
    ],
)
def test_not_too_deep(body):
    """The limit is one of levels, not of brackets."""
    assert body == material(body)


def test_bypass_of_the_dialect():
    """What the dialect bypasses keeps its facts, and needs no material."""
    reading = read(b'{"model":"m","tools":["search"]}', endpoint(), b"", KEY)

    assert (b"", Facts(model="m", bypass="server-tools")) == (reading.material, reading.facts)


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        pytest.param(b"\x00%PDF", BodyForm.RAW, (b"raw", b"\x00%PDF"), id="raw"),
        pytest.param(b"", BodyForm.RAW, (b"raw", b""), id="raw and empty"),
        pytest.param(b"", BodyForm.NONE, (b"none", b""), id="none"),
        pytest.param(b"x", BodyForm.NONE, (b"raw", b"x"), id="a body where none is expected counts"),
    ],
)
def test_other_forms(body, form, expected):
    """Bodies that are no JSON count as their bytes."""
    reading = read(body, endpoint(form), b"", KEY)

    assert expected == (reading.tag, reading.material)


@pytest.mark.parametrize("form", [BodyForm.RAW, BodyForm.NONE])
def test_large_bytes(form):
    """A large body counts as a keyed digest of its bytes, under a tag of its own."""
    body = b"x" * (SMALL + 1)
    reading = read(body, endpoint(form), b"", KEY)

    assert (reading.tag, len(reading.material)) == (b"raw-digest", 32)
    assert reading == read(body, endpoint(form), b"", KEY)
    assert reading.material != read(body, endpoint(form), b"", b"another").material
    assert reading.material != read(body + b"x", endpoint(form), b"", KEY).material


def test_large_json():
    """Above the limit the raw bytes count, and the short members tell the facts."""
    body = json.dumps({"messages": ["x" * SMALL], "model": "m"}).encode()
    reading = read(body, endpoint(), b"", KEY)

    assert (reading.tag, len(reading.material), reading.facts.model) == (b"json-digest", 32, "m")
    assert reading.material != read(body.replace(b", ", b","), endpoint(), b"", KEY).material


def test_large_json_bypassed():
    """What the dialect bypasses needs no digest."""
    body = json.dumps({"messages": ["x" * SMALL], "tools": ["search"]}).encode()
    reading = read(body, endpoint(), b"", KEY)

    assert (reading.material, reading.facts.bypass) == (b"", "server-tools")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({"messages": "x" * SMALL, "model": {"a": -0.0}}, "", id="sound"),
        pytest.param({"messages": "x" * SMALL, "file": {"file_id": "f"}}, Unsafe.FILE_ID, id="file id"),
        pytest.param({"tools": ["x" * SMALL]}, Unsafe.UNREADABLE_MEMBER, id="long tools"),
        pytest.param(["x" * SMALL], Unsafe.NOT_AN_OBJECT, id="array"),
    ],
)
def test_large_json_unsafe(body, expected):
    """The reasons of a large body."""
    assert expected == read(json.dumps(body).encode(), endpoint(), b"", KEY).facts.bypass


def test_large_json_with_an_unsafe_member():
    """The short members of a large body are read as strictly as a small body."""
    body = b'{"messages":"%b","tools":[{"type":1,"type":2}]}' % (b"x" * SMALL)

    assert read(body, endpoint(), b"", KEY).facts.bypass == Unsafe.DUPLICATE_KEY


def test_parsers_that_disagree(monkeypatch):
    """A text that one parser reads and another does not is unsafe."""

    def refuse(*_, **__):
        raise ValueError

    monkeypatch.setattr(json_rule.json, "loads", refuse)

    assert parse(b'{"a": "\\u003a"}') == Unsafe.INVALID_JSON


# Properties.

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
)
names = st.sampled_from(["a", "b", "user", "content", "role", "é", "\U0001f602", "דּ"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=10
)
messages = st.lists(st.dictionaries(names, values, max_size=4) | scalars, max_size=3)
documents = st.builds(
    lambda rest, said: rest | said,
    st.dictionaries(names, values, max_size=4),
    st.fixed_dictionaries({}, optional={"messages": messages, "response_format": values, "stream": scalars}),
)


def written(value):
    """A value with the type of each number and the order of each object."""
    if isinstance(value, dict):
        return ("object", *((name, written(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("array", *map(written, value))
    return (type(value).__name__, repr(value))


def meaning(value, shape):
    """What counts in a document, said without sorting or writing anything."""
    if isinstance(value, dict) and shape:
        kept = {name: item for name, item in value.items() if name not in shape.drop}
        return frozenset((name, envelope(item, shape.inside.get(name))) for name, item in kept.items())
    return written(value)


def envelope(value, shape):
    if isinstance(value, list) and shape:
        return ("array", *(meaning(item, shape) for item in value))
    return meaning(value, shape)


@st.composite
def texts(draw, document):
    """A document as some client writes it: its top level in any order, with any white space and escapes."""
    order = draw(st.permutations(sorted(document)))
    shuffled = {name: document[name] for name in order}
    spaces = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:  ")]))
    return json.dumps(shuffled, ensure_ascii=draw(st.booleans()), separators=spaces).encode()


def reordered(draw, value):
    """The same value, with the members of each object in any order, at every depth."""
    if isinstance(value, dict):
        return {name: reordered(draw, value[name]) for name in draw(st.permutations(sorted(value)))}
    if isinstance(value, list):
        return [reordered(draw, item) for item in value]
    return value


@given(st.data(), documents)
def test_equal_forms_mean_the_same(data, document):
    """Two bodies share a form if and only if they mean the same, however they were written."""
    other = reordered(data.draw, document) | data.draw(st.just({}) | documents)
    forms = [material(data.draw(texts(version))) for version in (document, other)]

    assert (meaning(document, CHAT) == meaning(other, CHAT)) == (forms[0] == forms[1])


@given(st.data(), documents)
def test_spelling_never_counts(data, document):
    """Order of the top level, white space and escapes don't change the form; the form is its own form."""
    form = material(json.dumps(document).encode())

    assert form == material(data.draw(texts(document)))
    assert form == material(form)


@given(st.data(), messages.filter(lambda items: len({repr(written(item)) for item in items}) > 1))
def test_array_order_counts(data, items):
    """Arrays are never sorted."""
    other = data.draw(st.permutations(items).filter(lambda order: [*map(written, order)] != [*map(written, items)]))
    forms = [material(json.dumps({"x": value}).encode()) for value in (items, other)]

    assert forms[0] != forms[1]


spelled_names = st.sampled_from([b'"a"', b'"\\u0061"', b'"b"', b'"a:b"', b'"a\\u003ab"', b'"a\\u003Ab"', b'"\\n"'])
spelled_scalars = st.sampled_from(b"0 -0 -0.0 -0e1 1 1.0 1e3 -1 null true".split()) | spelled_names | st.just(b'"-0, "')
spaces = st.sampled_from([b"", b"", b"", b" ", b"\n"])


def spelled_object(inner):
    member = st.builds(lambda name, space, value: name + space + b":" + space + value, spelled_names, spaces, inner)
    return st.builds(
        lambda items, space: b"{" + (space + b"," + space).join(items) + space + b"}",
        st.lists(member, max_size=4),
        spaces,
    )


def spelled_array(inner):
    return st.builds(
        lambda items, space: b"[" + (b"," + space).join(items) + space + b"]", st.lists(inner, max_size=4), spaces
    )


spelled = spelled_object(
    st.recursive(spelled_scalars, lambda inner: spelled_object(inner) | spelled_array(inner), max_leaves=8)
)


@given(spelled)
def test_duplicates_and_negative_zeros_are_found_exactly(text):
    """The quick proof that nothing was lost agrees with a parser that looks at each member and each number."""
    found = set()

    def members(pairs):
        if len(dict(pairs)) < len(pairs):
            found.add(Unsafe.DUPLICATE_KEY)
        return dict(pairs)

    def integer(digits):
        if digits == "-0":
            found.add(Unsafe.NEGATIVE_ZERO)
        return int(digits)

    expected = json.loads(text, object_pairs_hook=members, parse_int=integer)

    if found:
        assert parse(text) in found
    else:
        assert written(expected) == written(parse(text))


@given(st.binary(max_size=200) | spelled.map(lambda text: text[:-1]), st.sampled_from(BodyForm))
def test_any_bytes(body, form):
    """Nothing raises, whole or observed; a bypassed body has no material."""
    content_type = b"multipart/form-data; boundary=x"
    passing = observer(endpoint(form), content_type, KEY)
    passing.feed(body)
    for reading in (read(body, endpoint(form), content_type, KEY), passing.reading()):
        assert not (reading.facts.bypass and reading.material)


@given(spelled, st.lists(st.integers(0, 200), max_size=6))
def test_cuts_of_json_never_count(text, cuts):
    """An observer reads the same however the bytes were cut."""
    whole, passing = observer(endpoint(), b"", KEY), observer(endpoint(), b"", KEY)
    whole.feed(text)
    for start, end in pairwise([0, *sorted(cuts), max(200, len(text))]):
        passing.feed(text[start:end])

    assert whole.reading() == passing.reading()


# RFC 8785's vectors: strings and members byte for byte, floats in our own form.

NESTED = Shape(inside={"1": Shape(inside={"f": Shape()}), "111": Shape(), "v": Shape()})


@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_jcs(name):
    """
    Strings and integers are written as RFC 8785 writes them; names by code points, not by UTF-16 units.

    Floats differ in two ways: they keep their point (``56.0``), and a positive exponent has no sign (``1e30``).
    """
    if not DATA.is_dir():
        pytest.skip("the shared JCS vectors are not here")
    given_text = b'{"v":' + (DATA / f"input/{name}.json").read_bytes() + b"}"
    wanted = (DATA / f"output/{name}.json").read_bytes().replace(b"1e+30", b"1e30").replace(b'"\\n":56', b'"\\n":56.0')
    if name != "arrays":
        given_text = given_text[5:-1]
        members = msgspec.json.decode(wanted, type=dict[str, msgspec.Raw])
        written_names = {member: msgspec.json.encode(member) for member in members}
        assert all(raw + b":" in wanted for raw in written_names.values())
        wanted = b",".join(written_names[member] + b":" + bytes(members[member]) for member in sorted(members))
        wanted = b"{" + wanted + b"}"
    else:
        wanted = b'{"v":' + wanted + b"}"

    assert wanted == material(given_text, NESTED)
