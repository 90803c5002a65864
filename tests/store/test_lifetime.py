"""How long an entry lives behind memory, and what that says of its age."""

from __future__ import annotations

import pytest

from sidecar.store.lifetime import aligned, life
from tests.store.remotes import entry


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(1000.0, 60.0, id="just-made"),
        pytest.param(1010.0006, 49.999, id="later"),
        pytest.param(1060.0, 0.0, id="over"),
        pytest.param(5000.0, 0.0, id="long-over"),
        pytest.param(-2600.0, 60.0, id="the-clock-was-set-back"),
    ],
)
def test_life(now, expected):
    """What is left, in whole milliseconds, and never more than there was when it was made."""
    assert expected == life(entry(at=1000.0, ttl=60.0), now)


@pytest.mark.parametrize(
    ("now", "seconds", "at"),
    [
        pytest.param(1010.0, 50.0, 1000.0, id="as-it-says"),
        pytest.param(1010.0, 55.0, 1000.0, id="it-is-kept-for-longer"),
        pytest.param(1010.0, 20.0, 970.0, id="the-writer-is-ahead"),
        pytest.param(-2590.0, 50.0, -2600.0, id="we-are-behind"),
    ],
)
def test_aligned(now, seconds, at):
    """An entry is so old that it ends when it does there, if that is sooner than by our clock."""
    assert at == aligned(entry(at=1000.0, ttl=60.0), seconds, now).at
