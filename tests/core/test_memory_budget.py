"""The memory ledger: it never holds more than its limit, and refusing changes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.memory_budget import Ledger


@given(st.integers(0, 100), st.lists(st.integers(0, 60)))
def test_ledger(limit, sizes):
    """Takes are all or nothing; what is given back can be taken again."""
    ledger, taken, refused = Ledger(limit), [], 0
    for size in sizes:
        if ledger.take(size):
            taken.append(size)
        else:
            refused += 1

            assert sum(taken) + size > limit

            if taken:
                ledger.give(taken.pop(0))

        assert sum(taken) == ledger.held <= ledger.peak <= limit
        assert refused == ledger.refused

    for size in taken:
        ledger.give(size)

    assert 0 == ledger.held


def test_repr():
    """Its state is told."""
    ledger = Ledger(10)
    ledger.take(7)
    ledger.take(7)
    ledger.give(3)

    assert "<Ledger 4 of 10 bytes, peak 7, 1 refused>" == repr(ledger)
