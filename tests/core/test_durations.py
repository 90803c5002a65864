"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.durations import as_duration, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds", "shortest"),
    [
        ("50ms", 0.05, "50ms"),
        ("30s", 30.0, "30s"),
        ("90s", 90.0, "90s"),
        ("15m", 900.0, "15m"),
        ("60m", 3600.0, "1h"),
        ("30d", 2592000.0, "30d"),
        ("0s", 0.0, "0ms"),
    ],
)
def test_read_and_written(text, seconds, shortest):
    """A number and a unit; written in the largest unit that holds it whole."""
    assert seconds == seconds_of(text)
    assert shortest == as_duration(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "1h30m", "1.5h", "5 s", "5s\n", "5S", "\u0667s"])
def test_what_is_none(text):
    """Nothing is guessed."""
    assert seconds_of(text) is None


@given(st.integers(1, 10**12))
def test_nothing_is_lost(milliseconds):
    """What is written is read as the same."""
    assert pytest.approx(milliseconds / 1000) == seconds_of(as_duration(milliseconds / 1000))
