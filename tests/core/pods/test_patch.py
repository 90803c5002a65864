"""The difference between two documents as a JSON patch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.pods.patch import diff
from tests.core.pods.applied import applied


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [{"op": "replace", "path": "/a", "value": 2}]),
        ({}, {"a/b~": 1}, [{"op": "add", "path": "/a~1b~0", "value": 1}]),
        ({"a": 1}, {}, [{"op": "remove", "path": "/a"}]),
        ({"a": [1]}, {"a": [1, 2]}, [{"op": "replace", "path": "/a", "value": [1, 2]}]),
        (
            {"c": [{"name": "a"}, {"name": "b"}]},
            {"c": [{"name": "new"}, {"name": "a", "x": 1}, {"name": "b"}]},
            [{"op": "add", "path": "/c/0", "value": {"name": "new"}}, {"op": "add", "path": "/c/1/x", "value": 1}],
        ),
        ({"c": [{"name": "a"}, {"name": "b"}]}, {"c": [{"name": "b"}]}, [{"op": "remove", "path": "/c/0"}]),
        (
            {"c": [{"name": "a"}, {"name": "b"}]},
            {"c": [{"name": "b"}, {"name": "a"}]},
            [{"op": "replace", "path": "/c", "value": [{"name": "b"}, {"name": "a"}]}],
        ),
    ],
)
def test_operations(before, after, expected):
    """Nothing equal is mentioned; what is added to a list of names replaces nothing."""
    assert expected == diff(before, after)


values = st.integers(0, 3) | st.sampled_from(["x", "a/b", "~"])
named = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcde")}, optional={"v": values}),
    unique_by=lambda entry: entry["name"],
)
documents = st.recursive(
    values | named, lambda inner: st.dictionaries(st.sampled_from(["a", "b/c", "~d"]), inner, max_size=3), max_leaves=8
)


@given(documents, documents)
def test_it_leads_from_one_to_the_other(before, after):
    """Whatever they are."""
    assert after == applied(before, diff(before, after))
