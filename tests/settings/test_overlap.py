"""Whether two routes may take the same call: in doubt, they may."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.rules import Match
from sidecar.settings.overlap import may_overlap


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/chat/*", "/documents/*:analyze", False),
        ("*/prebuilt-invoice:analyze", "/documents/*:analyze", True),
        ("*:read", "/documents/*:analyze", False),
        ("/documents/*", "/documents/*:analyze", True),
        ("/doc[uv]ments/*", "/documents/*:analyze", True),
        ("/doc[u]x", "/documents/*:analyze", False),
        ("", "/documents/*", True),
        ("/documents/a", "/documents/*", True),
        ("/chat", "/documents/*", False),
    ],
)
def test_paths(one, other, expected):
    """Patterns that begin or end differently have no text in common."""
    assert (
        expected == may_overlap(Match(path=one), Match(path=other)) == may_overlap(Match(path=other), Match(path=one))
    )


PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=5).map("".join)


@given(PATTERNS, PATTERNS, st.text("ab", max_size=6))
def test_no_overlap_is_missed(one, other, text):
    """Where a text matches both, they overlap."""
    if fnmatchcase(text, one) and fnmatchcase(text, other):
        assert may_overlap(Match(path=one), Match(path=other))
