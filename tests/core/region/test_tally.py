"""The latest calls: which of them count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.tally import MEMORY, Tally


def test_latest():
    """The oldest of too many no longer counts."""
    tally = Tally(3)
    for failed, slow in [(True, False), (True, True), (False, True), (False, False)]:
        tally.add(0.0, failed=failed, slow=slow)

    assert (3, 1, 2) == (len(tally), tally.failed, tally.slow)
    assert "<Tally 1 of 3 failed>" == repr(tally)

    tally.clear()

    assert (0, 0, 0) == (len(tally), tally.failed, tally.slow)


def test_old():
    """Nor does one that was long ago, from the next call on."""
    tally = Tally(10)
    tally.add(0.0, failed=True, slow=True)
    tally.add(MEMORY, failed=False, slow=False)

    assert (2, 1, 1) == (len(tally), tally.failed, tally.slow)

    tally.add(MEMORY + 0.1, failed=False, slow=False)

    assert (2, 0, 0) == (len(tally), tally.failed, tally.slow)


calls = st.lists(st.tuples(st.floats(0.0, 200.0), st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(size=st.integers(0, 8), calls=calls)
def test_counts_add_up(size, calls):
    """The counts are those of the calls that a list of them would have kept."""
    tally, now, kept = Tally(size), 0.0, []
    for seconds, failed, slow in calls:
        now += seconds
        tally.add(now, failed=failed, slow=slow)
        kept = [call for call in [*kept, (now, failed, slow)][-max(1, size) :] if call[0] >= now - MEMORY]

    assert len(kept) == len(tally)
    assert sum(failed for _, failed, _ in kept) == tally.failed
    assert sum(slow for _, _, slow in kept) == tally.slow
