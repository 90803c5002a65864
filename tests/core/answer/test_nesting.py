"""A JSON text that comes in pieces is known to be cut wherever it ends before its end, however it is divided."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.answer.nesting import Nesting
from sidecar.core.answer.truncation import is_cut

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\{}[]ü\n')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def followed(*chunks, **how):
    nesting = Nesting(**how)
    for chunk in chunks:
        nesting.feed(chunk)
    return nesting.incomplete


@given(
    st.lists(JSON) | st.dictionaries(st.text(), JSON), st.booleans(), st.sampled_from([None, 1]),
    st.lists(st.integers(0, 60), max_size=5), st.data(),
)  # fmt: skip
def test_as_of_the_whole_text(value, plain, indent, cuts, data):
    """In pieces it is what it is in one."""
    text = b" " + json.dumps(value, ensure_ascii=plain, indent=indent).encode()
    text = text[: data.draw(st.integers(0, len(text)))]
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]

    assert is_cut(text) == followed(*pieces) == followed(text) == followed(*[bytes([byte]) for byte in text])


@pytest.mark.parametrize(
    ("chunks", "cut"),
    [
        pytest.param([b'{"a":"\\', b'"}'], True, id="an escaped quote"),
        pytest.param([b'{"a":"\\', b'\\"}'], False, id="an escaped backslash"),
        pytest.param([b'{"a":"\\', b"", b'"', b'"}'], False, id="an escape over nothing"),
        pytest.param([b" \n", b" ", b"[", b"]"], False, id="after blanks"),
        pytest.param([b"Bad gateway {"], False, id="text"),
        pytest.param([b"", b" "], False, id="blanks"),
        pytest.param([b'{"a":1}\n{"a":'], True, id="the second document"),
    ],
)
def test_pieces(chunks, cut):
    """Escapes are known over the bounds of pieces."""

    assert cut is followed(*chunks)


@pytest.mark.parametrize(("chunks", "cut"), [([], True), ([b" \n"], True), ([b"x"], False), ([b"{}"], False)], ids=str)
def test_blank(chunks, cut):
    """Where there has to be a document, blanks alone are none."""

    assert cut is followed(*chunks, blank=False)
