"""Bodies of equal, certain pieces have equal readings: what was read of one may be said of the other."""

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Answers, BodyForm, Endpoint, Kind, Shape
from sidecar.core.key.body_memo import certain, split_body
from sidecar.core.key.canonical import SMALL, Unsafe, read
from sidecar.core.model import Facts
from sidecar.dialects import DIALECTS

KEY = b"k" * 32
JSON = b"application/json"


def unasked(*_):
    """Nobody asks a request's reader about answers."""
    raise AssertionError


def facts_of(members):
    """All that a reader can see: a dialect whose facts differ whenever the telling members or their types do."""
    bypass = "server-tools" if members.get("tools") == ["search"] else ""
    deciding_fields = sorted(
        (name, value) for name, value in members.items() if name not in SILENT or type(value) is not str
    )
    return Facts(model=repr(deciding_fields), bypass=bypass)


FLAT = Shape()
SILENT = frozenset({"user", "", "b"})


def endpoint(shape=FLAT, body=BodyForm.JSON):
    answers = Answers(unasked, unasked, unasked, unasked, unasked, unasked)
    shape = Shape(shape.drop | SILENT, {name: inner for name, inner in shape.inside.items() if name not in SILENT})
    return Endpoint("own", Kind.CHAT, body, facts_of, answers, shape, SILENT)


def located(dialect, path):
    found = DIALECTS[dialect].locate(b"POST", path)

    assert found is not None, path

    return found


MESSAGE = Shape(inside={"content": Shape(), "tools": Shape(inside={"": Shape()})})
ENDPOINTS = {
    "chat-like": endpoint(Shape(frozenset({"user", "stream"}), {"messages": MESSAGE, "": Shape(), "tools": Shape()})),
    "other-shape": endpoint(Shape(frozenset({"messages", ""}), {"model": MESSAGE, "tools": MESSAGE})),
    "flat": endpoint(),
    "openai-chat": located("openai", "/v1/chat/completions"),
    "openai-responses": located("openai", "/v1/responses"),
    "openai-embeddings": located("openai", "/v1/embeddings"),
    "azure-chat": located("azure-openai", "/openai/deployments/d/chat/completions"),
    "anthropic-messages": located("anthropic", "/v1/messages"),
    "anthropic-count": located("anthropic", "/v1/messages/count_tokens"),
}


class Recalling:
    """Reads a body once for all that have the same pieces, as the line does."""

    def __init__(self):
        self._known = {}

    def read(self, body, one, content_type):
        pieces = split_body(body, one.ignored)
        found = self._known.get((id(one), pieces))
        if found is None:
            found = read(body, one, content_type, KEY)
            if certain(pieces, one.ignored):
                self._known[(id(one), pieces)] = found
        return found


WARM = Recalling()  # has read every body of this file, for every endpoint


def agree(body, *, forms=WARM, endpoints=ENDPOINTS):
    """The remembering reader and the other say the same of *body*, the first time and when it is warm."""
    for one in endpoints.values():
        expected = read(body, one, JSON, KEY)

        assert expected == Recalling().read(body, one, JSON)
        assert [expected, expected] == [forms.read(body, one, JSON), forms.read(body, one, JSON)]


LONG = b'"' + b"long enough to be remembered " * 4 + b'"'
ATOMS = [
    b"0", b"-0", b"-0.0", b"0e-5", b"1", b"1.0", b"1E2", b"1e400", b"-1e400", b"1e-400", b"01", b"1.", b"NaN",
    b"Infinity", b"9007199254740993", b"9" * 30, b"1" * 400, b"1" * 5000, b"-", b"+1", b"tru", b"true", b"false",
    b"null", b"nul", b'""', b'"a"', b'"\\u0061"', b'"\\u003a"', b'"-0,"', b'" : , "', b'"\\ud800"',
    b'"\\ud83d\\ude02"', b'"\\udc00\\ud800"', b'"\xff"', b"\xff", b'"\xc3\xa9"', b'"\xed\xa0\x80"', b'"\\x"',
    b'"\n"', b'"\\n"', b'"\x00"', b'"', b"", b" ", b"[]", b"{}", b"[ ]", b"{ }", LONG, LONG[:-1] + b'\\u003a"',
    b'"search"', b'"user"',
]  # fmt: skip
NAMES = [
    b'""', b'"a"', b'"\\u0061"', b'"b"', b'"model"', b'"mod\\u0065l"', b'"messages"', b'"content"', b'"role"',
    b'"tools"', b'"user"', b'"stream"', b'"input"', b'"system"', b'"metadata"', b'"temperature"', b'"\xc3\xa9"',
    b'"\\u00e9"', b'"\\/"', b'"/"', b'"\\""', b'"\xff"', b'"\\ud800"', b"a", b'"file_id"', b'"type"',
    b'"\\u001F"', b'"\\u001f"',
]  # fmt: skip
GAPS = [(b",", b":", b""), (b", ", b": ", b""), (b" ,\n", b"\t:  ", b"\r\n"), (b", ", b":", b""), (b",", b": ", b" ")]

sound = st.sampled_from([atom for atom in ATOMS if read(b'{"a":%b}' % atom, endpoint(), JSON, KEY).material])
atoms = st.one_of(
    sound,
    sound,
    st.sampled_from(ATOMS),
    st.integers(120, 132).map(lambda levels: b"[" * levels + b"]" * levels),
    st.text(max_size=90).map(json.dumps).map(str.encode),
    st.floats().map(repr).map(str.encode),
)
names = st.sampled_from(NAMES[:17]) | st.sampled_from(NAMES)


def arrays(inner):
    return st.builds(
        lambda items, gaps: b"[" + gaps[2] + gaps[0].join(items) + gaps[2] + b"]",
        st.lists(inner, max_size=3),
        st.sampled_from(GAPS),
    )


def objects(inner, most=4):
    return st.builds(
        lambda pairs, gaps: b"{" + gaps[2] + gaps[0].join([n + gaps[1] + v for n, v in pairs]) + gaps[2] + b"}",
        st.lists(st.tuples(names, inner), max_size=most),
        st.sampled_from(GAPS),
    )


values = st.recursive(atoms, lambda inner: arrays(inner) | objects(inner), max_leaves=8)


@given(objects(values, most=6))
def test_of_any_object(body):
    """Members of any kind, sound or not, doubled or not, with any white space."""
    agree(body)


@given(values | st.binary(max_size=60), st.sampled_from([b"", b" ", b"\n", b"x", b"\x00", b"\xef\xbb\xbf"]))
def test_of_anything(body, around):
    """What is no object at all, or stands among other bytes."""
    agree(body + around)
    agree(around + body)


conversations = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "claude-sonnet-4"]), "messages": st.lists(
        st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=80) | st.lists(
            st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=20)}), max_size=2)}),
        max_size=3)},
    optional={"temperature": st.sampled_from([0, 0.0, 1, 1e22]), "user": st.text(max_size=3), "max_tokens": st.just(9),
              "stream": st.booleans(), "input": st.text(max_size=9), "seed": st.integers(), "": st.text(max_size=9),
              "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": 2}}}]),
              "metadata": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2)},
)  # fmt: skip


@given(
    st.data(),
    conversations,
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    st.booleans(),
)
def test_of_conversations(data, document, separators, ascii_only):
    """What clients send, their members in any order; one form for all orders."""
    found = set()
    for _ in range(2):
        order = data.draw(st.permutations(sorted(document)))
        shuffled = {name: document[name] for name in order}
        body = json.dumps(shuffled, separators=separators, ensure_ascii=ascii_only).encode()
        agree(body)
        found.add(WARM.read(body, ENDPOINTS["openai-chat"], JSON).material)

    assert 1 == len(found)


@pytest.mark.parametrize("atom", ATOMS, ids=lambda atom: repr(atom[:20]))
@pytest.mark.parametrize("name", [b'""', b'"messages"', b'"user"', b'"a"'])
def test_of_every_atom(name, atom):
    """Each value alone, beside another, doubled, and within an envelope."""
    for body in (
        b"{%b:%b}" % (name, atom),
        b"{%b: %b}" % (name, atom),
        b'{%b:%b,"z":1}' % (name, atom),
        b'{%b: %b, "z": 1}' % (name, atom),
        b"{%b:%b,%b:%b}" % (name, atom, name, atom),
        b'{"tools":[{%b:%b,"z":1}]}' % (name, atom),
        b'{"tools":[{"z":1,%b:%b,%b:1}]}' % (name, atom, name),
    ):
        agree(body)


@pytest.mark.parametrize("levels", [1, 126, 127, 128, 129, 130, 10_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_of_deep_bodies(levels, left, right):
    """The limit of nesting is that of the whole body, not of its members."""
    nest = left * levels + (b"" if left == b"[" else b"1") + right * levels
    agree(b'{"a":%b}' % nest)
    agree(b'{"messages":%b, "b":1}' % nest)
    agree(b'{"messages": %b, "b": %b}' % (nest, nest))


CALLS = [
    b'{"model":"m","messages":[{"role":"user","content":"a: \\u0061\xc3\xa9"}],"temperature":0,"tools":[{"b":-1}]}',
    b'{"": {"b": 1, "a": [1.5, "x"]}, "user": "me", "messages": [{"content": [{"type": "text", "text": "-0"}]}]}',
]
BYTES = [b"", *(bytes((byte,)) for byte in b'{}[],:"\\ 0-eu\xff\n')]


@pytest.mark.parametrize("body", CALLS, ids=["compact", "spaced"])
def test_of_mutations(body):
    """A byte taken out, put in or changed, anywhere in a body that is remembered."""
    endpoints = {name: ENDPOINTS[name] for name in ("chat-like", "openai-chat")}
    forms = Recalling()
    agree(body, forms=forms, endpoints=endpoints)
    for at, byte in product(range(len(body) + 1), BYTES):
        for mutation in (body[:at] + byte + body[at:], body[:at] + byte + body[at + 1 :]):
            for one in endpoints.values():
                assert read(mutation, one, JSON, KEY) == forms.read(mutation, one, JSON), mutation


def test_shapes_are_separating():
    """One member, read for one endpoint after the other, has the form that each of them gives it."""
    member = b'[{"z":1,"content":{"b":1,"a":"%b"}}]' % (b"x" * 80)
    body = b'{"user":%b,"messages":%b}' % (member, member)
    forms = Recalling()
    first, second = ENDPOINTS["chat-like"], ENDPOINTS["other-shape"]
    expected = [read(body, one, JSON, KEY).material for one in (first, second)]

    assert 2 == len(set(expected))
    assert expected * 3 == [forms.read(body, one, JSON).material for _ in range(3) for one in (first, second)]


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b'{"a":1', BodyForm.RAW),
        (b"", BodyForm.NONE),
        (b'{"a":1}', BodyForm.NONE),
        (b"--b--", BodyForm.MULTIPART),
        (b'{"messages":"' + b"x" * SMALL + b'"}', BodyForm.JSON),
        (b'{"messages":"' + b"x" * (SMALL - 15) + b'"}', BodyForm.JSON),
    ],
    ids=["raw", "none", "unexpected", "multipart", "large", "just small"],
)
def test_of_other_bodies(body, form):
    """What is no small JSON body is read as it ever was."""
    agree(body, endpoints={"one": endpoint(body=form)})


CHAT = ENDPOINTS["openai-chat"]


@given(
    st.lists(st.tuples(names, values), max_size=5),
    st.sampled_from(GAPS[:2]),
    st.integers(0, 5),
    st.lists(st.text(st.characters(codec="ascii"), max_size=9) | st.text(max_size=5), min_size=2, max_size=3),
)
def test_of_end_users(members, gaps, at, users):
    """One call by several end users, among members that may say ``user`` themselves, at any depth."""
    forms = Recalling()
    for user in users:
        own = [name + gaps[1] + value for name, value in members]
        own.insert(at, b'"user"' + gaps[1] + json.dumps(user, ensure_ascii=False).encode("utf-8", "replace"))
        agree(b"{" + gaps[0].join(own) + b"}", forms=forms)


@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (b'{"user":"a"}', (b'{"user":"', b'"}')),
        (b'{"user": "a"}', (b'{"user": "', b'"}')),
        (b'{"user":""}', (b'{"user":"', b'"}')),
        (
            b'{"safety_identifier":"x","m":1,"user":"a","n":1}',
            (b'{"safety_identifier":"', b'","m":1,"user":"', b'","n":1}'),
        ),
        (b'{"user":"a","user":"b"}', (b'{"user":"a","user":"', b'"}')),
        (b'{"user":  "a"}', (b'{"user":  "a"}',)),
        (b'{"user" :"a"}', (b'{"user" :"a"}',)),
        (b'{"user":1}', (b'{"user":1}',)),
        (b'{"user":"\\u0061"}', (b'{"user":"\\u0061"}',)),
        (b'{"user":"\xc3\xa9"}', (b'{"user":"\xc3\xa9"}',)),
        (b'{"user":"a\n"}', (b'{"user":"a\n"}',)),
        (b'{"user":"a', (b'{"user":"a',)),
        (b'{"users":"a"}', (b'{"users":"a"}',)),
        (b'{"m":"\\"user\\":\\"a\\""}', (b'{"m":"\\"user\\":\\"a\\""}',)),
        (b"", (b"",)),
    ],
)
def test_cuts(body, pieces):
    """Only the last plain string after each silent name is cut out."""

    assert pieces == split_body(body, CHAT.ignored)


@pytest.mark.parametrize(
    "body",
    [
        b'{"user":"a","user":"b"',
        b'{"messages":[{"user":"a"}]}',
        b'{"user":"a","tools":[{"user":"a"}]}',
        b'{"user":"a","tools":[{"user":"a"}],"user":"a"',
        b'{"x\\"user":"a"}',
        b'{"user":"a","safety_identifier":"b","m":{"safety_identifier":"b"}}',
        b'[{"user":"a"}]',
        b'{"user":"a"}}',
        b'"user":"a"',
    ],
)
def test_uncertain(body):
    """A cut anywhere but in a member of the body itself may have said something."""
    pieces = split_body(body, CHAT.ignored)

    assert len(pieces) > 1
    assert not certain(pieces, CHAT.ignored)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"model":"m","user":"a"}', b'{"model":"m","user":"b"}', True),
        (b'{"model":"m","user":"a"}', b'{"model":"m","user":"sidecar probe 1"}', True),
        (b'{"model":"m","user":"a"}', b'{"model":"m"}', False),
        (b'{"model":"m","user":"a"}', b'{"model":"m","user":1}', False),
        (b'{"model":"m","user":"a"}', b'{"model":"n","user":"a"}', False),
        (b'{"user":"a","safety_identifier":"b"}', b'{"user":"c","safety_identifier":"d"}', True),
        (b'{"user":"a","safety_identifier":"b"}', b'{"safety_identifier":"b","user":"a"}', False),
    ],
)
def test_told_alike(one, other, same):
    """Only who the end user is tells nothing; bodies that differ otherwise are each read."""

    assert certain(split_body(one, CHAT.ignored), CHAT.ignored)
    assert same == (split_body(one, CHAT.ignored) == split_body(other, CHAT.ignored))


def test_faulty_text_is_not_passed_over():
    """An end user's name that no parser can read still makes its call one that is not looked up."""
    body = b'{"model":"m","user":"\\ud800"}'

    assert (body,) == split_body(body, CHAT.ignored)
    assert Unsafe.LONE_SURROGATE == read(body, CHAT, JSON, KEY).facts.bypass
