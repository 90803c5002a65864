"""For which requests an answer is that depends on their fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.core.cache.variants import fits, fitting, variant
from sidecar.core.model import Entry, Form, Key

KEY = Key(b"a" * 16, b"p" * 32)
ENTRY = Entry(200, (), b"", Form.WHOLE, "s", "r", "m", 0.0, 60.0)


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ({}, {}, True),
        ({}, {b"other": b"x"}, True),
        ({b"origin": b"a"}, {b"origin": b"a"}, True),
        ({b"origin": b"a"}, {b"origin": b" a\t"}, True),
        ({b"origin": b"a, b"}, {b"origin": b"a,b"}, True),
        ({b"origin": b"a"}, {b"origin": b"A"}, False),
        ({b"origin": b"a, b"}, {b"origin": b"b, a"}, False),
        ({b"origin": b"a"}, {}, False),
        ({}, {b"origin": b"a"}, False),
        ({}, {b"origin": b""}, False),
        ({b"origin": b""}, {}, False),
        ({b"origin": b"a", b"x-a": b"1"}, {b"origin": b"a", b"x-a": b"2"}, False),
        ({b"origin": b"a", b"x-a": b"b"}, {b"origin": b"b", b"x-a": b"a"}, False),
    ],
)
def test_fits(then, now, expected):
    """Each field named has to be as it was, or absent as it was (cache-tests ``vary``)."""
    vary = variant(KEY, (b"origin", b"x-a"), then)
    entry = replace(ENTRY, vary=vary)

    assert expected == fits(KEY, vary, now)
    assert (entry if expected else None) is fitting(entry, KEY, now)


def test_fitting_without_vary():
    """An entry that varies by nothing is for everybody; no entry is for nobody."""

    assert ENTRY is fitting(ENTRY, KEY, {b"origin": b"x"})
    assert fitting(None, KEY, {}) is None
    assert () == variant(KEY, (), {b"origin": b"x"})


@given(st.binary(min_size=4, max_size=60))
def test_no_value_in_clear(value):
    """What the request had is not to be read, nor to be compared from one entry or field to another."""
    one = variant(KEY, (b"authorization",), {b"authorization": value})
    other = variant(Key(b"a" * 16, b"q" * 32), (b"authorization",), {b"authorization": value})
    elsewhere = variant(KEY, (b"origin",), {b"origin": value})

    assert 16 == len(one[0][1])
    assert value not in one[0][1]
    assert 3 == len({one[0][1], other[0][1], elsewhere[0][1]})
