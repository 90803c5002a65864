"""Reading the members of a large object while it passes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.key.json_scanner import CONTENT, DEEPEST, KEEP, KEEP_ALL, Scanner
from sidecar.core.key.unsafe import Unsafe


def scan(body, size=0):
    """A scanner that was fed *body* in pieces of *size*, 0 for all at once."""
    scanner = Scanner()
    for start in range(0, len(body), size or len(body) or 1):
        scanner.feed(body[start : start + (size or len(body))])
    return scanner


def seen(scanner):
    return scanner.fault, scanner.short, scanner.long, scanner.remote


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"{}", {}, id="empty"),
        pytest.param(b' {"a" : 1 , "b":-2.5e3,"c":null}\n', {"a": 1, "b": -2500.0, "c": None}, id="scalars"),
        pytest.param(b'{"a":"x\\"y\\\\"}', {"a": 'x"y\\'}, id="escapes"),
        pytest.param(b'{"a":[{"b":"]}"},[[]]],"c":{}}', {"a": [{"b": "]}"}, [[]]], "c": {}}, id="brackets"),
        pytest.param(b'{"a\\"":{"a":{"a":1}}}', {'a"': {"a": {"a": 1}}}, id="names again further down"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_short_members(body, expected, size):
    """Short members come out as they were written."""
    scanner = scan(body, size)

    assert (None, expected, set()) == (scanner.fault, json.loads(scanner.short), scanner.long)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", Unsafe.INVALID_JSON, id="nothing"),
        pytest.param(b"[]", Unsafe.NOT_AN_OBJECT, id="array"),
        pytest.param(b"{", Unsafe.INVALID_JSON, id="open"),
        pytest.param(b"{,}", Unsafe.INVALID_JSON, id="no name"),
        pytest.param(b'{"a"', Unsafe.INVALID_JSON, id="no colon"),
        pytest.param(b'{"a",1}', Unsafe.INVALID_JSON, id="comma for a colon"),
        pytest.param(b'{"a":}', Unsafe.INVALID_JSON, id="no value"),
        pytest.param(b'{"a":1', Unsafe.INVALID_JSON, id="cut in a number"),
        pytest.param(b'{"a":"', Unsafe.INVALID_JSON, id="cut in a string"),
        pytest.param(b'{"a":1,}', Unsafe.INVALID_JSON, id="comma at the end"),
        pytest.param(b'{"a":1 2}', Unsafe.INVALID_JSON, id="two values"),
        pytest.param(b'{"a":[}]}', Unsafe.INVALID_JSON, id="crossed brackets"),
        pytest.param(b'{"a":1}}', Unsafe.INVALID_JSON, id="trailing bracket"),
        pytest.param(b'{"a":1} x', Unsafe.INVALID_JSON, id="trailing garbage"),
        pytest.param(b'{"a\n":1}', Unsafe.INVALID_JSON, id="control character in a name"),
        pytest.param(b'{"\xff":1}', Unsafe.INVALID_UTF8, id="no utf-8 in a name"),
        pytest.param(b'{"a":1,"\\u0061":2}', Unsafe.DUPLICATE_KEY, id="a name twice"),
        pytest.param(b'{"a":' + b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1) + b"}", None, id="deepest"),
        pytest.param(b'{"a":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", Unsafe.NESTING, id="too deep"),
        pytest.param(b'{"a":' + b"[" * 10_000, Unsafe.NESTING, id="far too deep"),
        pytest.param(b'{"' + b"a" * 1100 + b'":1}', Unsafe.UNREADABLE_MEMBER, id="long name"),
        pytest.param(b'{"' + b"a" * 1100, Unsafe.UNREADABLE_MEMBER, id="long name without end"),
        pytest.param(b'{"a":' + b"1" * 1100 + b"}", Unsafe.UNREADABLE_MEMBER, id="long number"),
        pytest.param(
            b"{" + b",".join(b'"%d":1' % n for n in range(1025)) + b"}", Unsafe.UNREADABLE_MEMBER, id="many members"
        ),
        pytest.param(b'{"a":[{"file_id":"f"}]}', Unsafe.FILE_ID, id="file id"),
        pytest.param(b'{"a":"file_id"}', Unsafe.FILE_ID, id="what only looks like a file id"),
        pytest.param(b'{"a":[{"file_id":"f"}]', Unsafe.INVALID_JSON, id="file id in what is invalid"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 7])
def test_faults(body, expected, size):
    """What is wrong with a body as a whole."""
    assert expected == scan(body, size).fault


@pytest.mark.parametrize("filling", [b"x", b"\\\\", b'\\"', b"\\n", b"[", b"{"], ids=repr)
@pytest.mark.parametrize("size", [0, 4099, KEEP])
def test_long_content(filling, size):
    """Long content is followed and not kept; what comes after it is."""
    text = filling * (KEEP // len(filling) + 1)
    scanner = scan(b'{"model":"m","messages":[{"content":"' + text + b'"}],"n":1}', size)

    assert (None, b'{"model":"m","n":1}', {"messages"}, False) == seen(scanner)


FILLING = b'{"content":"' + b"x" * KEEP + b'"}'


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        pytest.param(b"messages", b'{"file_id":"f"}', Unsafe.FILE_ID, id="file id"),
        pytest.param(b"messages", b'{"type":"file_id"}', Unsafe.FILE_ID, id="what only looks like a file id"),
        pytest.param(b"messages", b'{"audio":{"id":"a"}}', Unsafe.UNREADABLE_MEMBER, id="sound of an earlier answer"),
        pytest.param(b"messages", b'{"tool":{"definition":{}}}', Unsafe.UNREADABLE_MEMBER, id="tool on the way"),
        pytest.param(b"messages", b'{"type":"container_upload"}', Unsafe.UNREADABLE_MEMBER, id="container"),
        pytest.param(b"input", b'{"type":"item_reference"}', Unsafe.UNREADABLE_MEMBER, id="item"),
        pytest.param(b"input", b'{"id":"msg_1"}', Unsafe.UNREADABLE_MEMBER, id="item by its id alone"),
        pytest.param(b"prompt", b'{"id":"pmpt_1"}', Unsafe.UNREADABLE_MEMBER, id="hosted prompt"),
        pytest.param(b"messages", b'{"file\\u005fid":"f"}', Unsafe.UNREADABLE_MEMBER, id="escaped underscore"),
        pytest.param(b"messages", b'{"\\u0066ile_id":"f"}', Unsafe.UNREADABLE_MEMBER, id="escaped letter"),
        pytest.param(b"messages", b'{"tool_calls":[{"id":"call_1"}]}', None, id="ids of tool calls"),
        pytest.param(b"messages", b'{"type":"input_audio"}', None, id="sound as it is"),
        pytest.param(b"messages", b'{"content":"say \\"audio\\" \\"file_id\\""}', None, id="words of the text"),
        pytest.param(b"messages", b'{"content":"\\u00e9\\u0026\\u0060\\ud83d\\ude02"}', None, id="escapes of a text"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("size", [0, 997, KEEP + 20])
def test_references_in_long_content(name, part, expected, first, size):
    """A long member is not read, so what might be a reference in it is enough."""
    items = [part, FILLING] if first else [FILLING, part]
    scanner = scan(b'{"%b":[%b],"n":1}' % (name, b",".join(items)), size)

    assert (expected, {name.decode()}) == (scanner.fault, scanner.long)


@pytest.mark.parametrize("cut", range(24))
def test_references_across_a_cut(cut):
    """Wherever a reference is cut, it is found."""
    head = b'{"messages":[' + FILLING + b',{"file_id":"https:","url":"h'
    tail = b'ttps://x"}]}'
    scanner = Scanner()
    scanner.feed(head[: len(head) - cut])
    scanner.feed(head[len(head) - cut :] + tail)

    assert (Unsafe.FILE_ID, True) == (scanner.fault, scanner.remote)


def test_invalid_before_reference():
    """What is no JSON is called so, whatever is found in it."""
    assert Unsafe.INVALID_JSON == scan(b'{"messages":[' + FILLING + b',{"file_id":"f"}]').fault


def test_references_where_there_is_no_room():
    """A member counts as long, and is searched, where the others have taken the room."""
    value = b'"' + b"x" * (KEEP - 2) + b'"'
    names = sorted(CONTENT - {"messages"})[: KEEP_ALL // KEEP]
    kept = b",".join(b'"%b":%b' % (name.encode(), value) for name in names)
    scanner = scan(b"{" + kept + b',"messages":[{"file_id":"f"}]}', 10_000)

    assert (Unsafe.FILE_ID, {"messages"}) == (scanner.fault, scanner.long)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (b'{"type":"image_url","image_url":{"url":"https://x/a.png"}}', True),
        (b'{"type": "image_url",\n  "image_url" :\t{ "url" : "HTTPS://x/a.png" } }', True),
        (b'{"type":"input_file","file_url":"https://x"}', True),
        (b'{"source":{"url":"https://x","type":"url"}}', True),
        (b'{"url"' + b" " * 70 + b':"data:,x"}', True),
        (b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}', False),
        (b'{"type": "image_url",\n  "image_url" :\t{ "url" : "data:," } }', False),
        (b'{"type":"input_image","image_url":null}', False),
        (b'{"content":"see https://x and \\"url\\": \\"https://x\\""}', False),
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("size", [0, 997, KEEP + 20])
def test_links_in_long_content(part, expected, first, size):
    """A link is told apart from an image that is within, and from a text that speaks of links."""
    items = [part, FILLING] if first else [FILLING, part]
    scanner = scan(b'{"messages":[%b]}' % b",".join(items), size)

    assert (None, expected) == (scanner.fault, scanner.remote)


def test_long_text_that_ends_like_a_link():
    """The end of a text is not the end of a name."""
    assert not scan(b'{"prompt":"' + b"x" * KEEP + b' curl"}', 1000).remote


@given(
    st.lists(
        st.sampled_from([
            b'"url"', b":", b" ", b'"data:"', b'"https:"', b"null", b"{", b"}", b",", b'"file_id"', b'"id"',
            b'"\\u0061"',
        ]),
        max_size=30,
    ).map(b"".join),
    st.integers(1, 60),
)  # fmt: skip
def test_cuts_inside_of_long_content_never_count(text, size):
    """What is found in a long member does not depend on where the bytes were cut."""
    body = b'{"input":[' + b" " * KEEP + text + b"]}"
    whole, cut = scan(body), Scanner()
    cut.feed(body[:KEEP])
    for start in range(KEEP, len(body), size):
        cut.feed(body[start : start + size])

    assert seen(whole) == seen(cut)


@pytest.mark.parametrize(
    ("extra", "kept"), [pytest.param(0, True, id="at the limit"), pytest.param(1, False, id="above it")]
)
def test_limit_of_a_member(extra, kept):
    """A value of exactly 64 KiB is kept."""
    scanner = scan(b'{"input":"' + b"x" * (KEEP - 2 + extra) + b'"}', 1000)

    assert (None, set() if kept else {"input"}) == (scanner.fault, scanner.long)


def test_limit_of_all_members():
    """Kept values have a common bound; one that does not fit any more counts as long."""
    value = b'"' + b"x" * (KEEP - 2) + b'"'
    content = sorted(CONTENT)[: KEEP_ALL // KEEP + 1]
    scanner = scan(b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name in content) + b"}", 10_000)

    assert (None, {content[-1]}) == (scanner.fault, scanner.long)
    assert len(scanner.short) < KEEP_ALL + KEEP


def test_long_member_that_decides():
    """A long member other than content can't be judged, and so the body can't."""
    body = b'{"tools":["' + b"x" * KEEP + b'"],"n":1}'

    assert scan(body).fault == Unsafe.UNREADABLE_MEMBER
    assert scan(body, 5000).fault == Unsafe.UNREADABLE_MEMBER


def test_repr():
    """The state in one line."""
    scanner = scan(b'{"a":1}')

    assert repr(scanner) == "<Scanner sound, 1 members, 0 long>"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), values, max_size=5), st.integers(1, 40), st.booleans())
def test_reads_what_a_parser_reads(document, size, ascii_only):
    """Members of any valid object come out whole, however it was cut."""
    scanner = scan(json.dumps(document, ensure_ascii=ascii_only).encode(), size)

    assert scanner.fault in {None, Unsafe.FILE_ID}
    assert document == json.loads(scanner.short)


@given(st.text('{}[]",:\\a1 \n', max_size=60).map(str.encode) | st.binary(max_size=60), st.integers(1, 20))
def test_cuts_never_count(body, size):
    """What is found, faults included, does not depend on where the bytes were cut."""
    assert seen(scan(body)) == seen(scan(body, size))


@given(st.text('{}[]",:\\a1 \n', max_size=60).map(lambda text: f'{{"a":{text}}}'.encode()), st.integers(1, 20))
def test_cuts_inside_of_a_value_never_count(body, size):
    """As above, for what lies deeper."""
    assert seen(scan(body)) == seen(scan(body, size))
