"""When something is over that was said to hold for a time."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.term import term


@pytest.mark.parametrize(
    ("now", "clock", "left"),
    [
        pytest.param(1000.0, 50.0, 60.0, id="at-once"),
        pytest.param(1020.0, 70.0, 40.0, id="later"),
        pytest.param(1060.0, 110.0, 0.0, id="over"),
        pytest.param(-9000.0, 70.0, 40.0, id="the-wall-clock-was-set-back"),
        pytest.param(-9000.0, 111.0, -1.0, id="set-back-and-over"),
        pytest.param(1050.0, 51.0, 10.0, id="set-ahead"),
    ],
)
def test_left(now, clock, left):
    """The sooner of both clocks counts."""
    assert left == term(1060.0, 1000.0, 50.0).left(now, clock)


@pytest.mark.parametrize(("until", "left"), [(inf, inf), (-inf, -inf)])
def test_without_end(until, left):
    """What has no end has none by either clock; what never held doesn't."""
    assert left == term(until, 1000.0, 50.0).left(-9000.0, 1e6)
