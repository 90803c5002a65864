"""A JSON text that ends before it is over is told from one that is wrong for another reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.answer.truncation import is_cut

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.lists(JSON) | st.dictionaries(st.text(), JSON), st.booleans(), st.sampled_from([None, 1]), st.data()
)  # fmt: skip
def test_every_part_is_cut(value, plain, indent, data):
    """Whatever object or array comes, and wherever it ends before its end: it is cut, and the whole of it is not."""
    text = json.dumps(value, ensure_ascii=plain, indent=indent).encode()
    at = data.draw(st.integers(1, len(text) - 1))

    assert not is_cut(text)
    assert is_cut(text[:at])
    assert is_cut(b" \n" + text[:at])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":1.', True),
        (b'{"a":-', True),
        (b'{"a":"\\', True),
        (b'{"a":"\\"', True),
        (b'{"a":"}', True),
        (b'{"a":"' + b'\\"' * 9, True),
        (b'{"a":"' + b'\\\\"' * 9, True),
        (b'{"a":"\\\\"}x', False),
        (b'{"a":"\\\\\\"}', True),
        (b'{"a":"[{"]', False),
        (b'{"a":x', True),
        ('{"a":"ü'.encode()[:-1], True),
        (b"[[]", True),
        (b"", False),
        (b"  ", False),
        (b"Bad gateway", False),
        (b"<html>{", False),
        (b'"text', False),
        (b'{"a":NaN}', False),
        (b'{"a":1,}', False),
        (b'{"a":1}x', False),
        (b"{'a':1}", False),
        (b'{"a":"\xff"}', False),
        (b"[" * 9000 + b"]" * 9000, False),
    ],
    ids=str,
)
def test_what_is_cut(text, expected):
    """What is no JSON but closed is not cut; what is no object and no array is never known to be."""

    assert expected == is_cut(text)
