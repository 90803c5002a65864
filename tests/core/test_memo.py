"""The memo: bounded, and never wrong."""

from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.memo import Memo


class Colliding:
    """A key that has the hash of every other."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return self.name == other.name


def test_compared_whole():
    """Keys of one hash are still two keys."""
    memo = Memo(10)
    memo.put(Colliding("a"), 1)
    memo.put(Colliding("b"), 2)

    assert [1, 2, None] == [memo.get(Colliding(name)) for name in "abc"]


def test_oldest_out():
    """Where there are too many, the oldest goes; putting anew makes new."""
    memo = Memo(2)
    for key in "abac":
        memo.put(key, key.upper())

    assert ["A", None, "C"] == [memo.get(key) for key in "abc"]
    assert "<Memo 2 values, weight 0>" == repr(memo)


def test_weight():
    """The weight is bounded as well; a single value of more than an eighth of it is not taken."""
    memo = Memo(100, 80)
    memo.put("heavy", 0, 11)

    assert memo.get("heavy") is None

    for number in range(9):
        memo.put(number, number, 10)

    assert 8 == len(memo)
    assert memo.get(0) is None
    assert "<Memo 8 values, weight 80>" == repr(memo)

    memo.put(8, 8, 5)

    assert "<Memo 8 values, weight 75>" == repr(memo)


@given(
    st.integers(0, 5),
    st.integers(0, 100),
    st.lists(st.tuples(st.integers(0, 8), st.integers(), st.integers(0, 30))),
)
def test_bounds(entries, limit, puts):
    """Whatever is put, both bounds hold, the weight is the sum of what is there, and what is found was put last."""
    memo, latest, weights = Memo(entries, limit), {}, {}
    for key, value, weight in puts:
        if weight and weight * 8 > limit:
            continue
        memo.put(key, value, weight)
        latest[key], weights[key] = value, weight
        there = {key for key in latest if memo.get(key) is not None}

        assert len(memo) == len(there) <= entries
        assert sum(weights[key] for key in there) == memo._weight <= limit
        assert all(latest[key] == memo.get(key) for key in there)
