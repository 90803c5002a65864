"""Asking for a stream's usage, in the caller's own bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.answer.usage import names_usage, with_usage

SAID = b'"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"stream":true}', b"{" + SAID + b',"stream":true}', id="in front"),
        pytest.param(b' \r\n\t{ "a" : 1.50 }\n', b" \r\n\t{" + SAID + b', "a" : 1.50 }\n', id="white space"),
        pytest.param(b'\xef\xbb\xbf {"a":1}', b"\xef\xbb\xbf {" + SAID + b',"a":1}', id="byte order mark"),
        pytest.param(
            b'{"a":{"stream_options":{}},"b":"stream_options"}',
            b"{" + SAID + b',"a":{"stream_options":{}},"b":"stream_options"}',
            id="the name elsewhere",
        ),
        pytest.param(
            b'{"a": 1.50, "stream_options": {"x": [1, 2]}, "n": 123456789012345678901234567890}',
            b'{"a":1.50,"stream_options":{"x":[1, 2],"include_usage":true},"n":123456789012345678901234567890}',
            id="joins what is there, values as they came",
        ),
        pytest.param(b'{"stream_options":{},"a":1}', b"{" + SAID + b',"a":1}', id="an empty object"),
        pytest.param(b'{"stream\\u005foptions":{},"a":1}', b"{" + SAID + b',"a":1}', id="the name escaped"),
        pytest.param(
            b'\xef\xbb\xbf\n{"stream_options":{"x":1}}', b'{"stream_options":{"x":1,"include_usage":true}}', id="all"
        ),
        pytest.param(b"{}", b"{}", id="no members"),
        pytest.param(b'{"stream_options":null,"a":1}', b'{"stream_options":null,"a":1}', id="null"),
        pytest.param(b'{"stream_options":1}', b'{"stream_options":1}', id="no object"),
        pytest.param(b"[1]", b"[1]", id="an array"),
        pytest.param(b'{"a":', b'{"a":', id="broken"),
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"\xff", b"\xff", id="no text"),
    ],
)
def test_with_usage(body, expected):
    """One member in front; where it is there already, it is said inside; what is no such object stays as it is."""

    assert expected == with_usage(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
MEMBERS = st.dictionaries(st.text(max_size=8), VALUES, max_size=4)


@given(
    members=MEMBERS.filter(lambda members: members and "stream_options" not in members),
    options=st.none() | MEMBERS,
    indent=st.none() | st.integers(0, 2),
)
def test_means_the_same(members, options, indent):
    """Every other member is what it was, in its order; the member is there once, with what else it held."""
    asked = members if options is None else {**members, "stream_options": options}
    found = json.loads(with_usage(json.dumps(asked, indent=indent).encode()), object_pairs_hook=list)
    plain = json.loads(json.dumps(asked), object_pairs_hook=list)

    names = [name for name, _ in found]

    assert 1 == names.count("stream_options")
    assert [pair for pair in plain if pair[0] != "stream_options"] == [
        pair for pair in found if pair[0] != "stream_options"
    ]

    said = dict(dict(found)["stream_options"])

    assert said["include_usage"] is True
    assert {**dict(json.loads(json.dumps(options or {}), object_pairs_hook=list)), "include_usage": True} == said


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        (b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}', True),
        (b'{"error":{"message":"extra fields not permitted","loc":["include_usage"]}}', True),
        (b'{"error":{"message":"model not found"}}', False),
        (b"", False),
    ],
)
def test_names_usage(complaint, expected):
    """Whether a refusal is about what we added."""

    assert expected == names_usage(complaint)
