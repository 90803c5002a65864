"""When Redis is asked, and when it is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.redis_link.breaker import FAILURES, LAST_PAUSE, STEADY, LinkBreaker

DRAWS = st.floats(0.0, 1.0, exclude_max=True)


def opened(now=0.0):
    breaker = LinkBreaker()
    breaker.failed(now, refused=True)
    return breaker


def test_the_third_failure_in_a_row_opens():
    """Two are bad luck."""
    breaker = LinkBreaker()

    assert [False, False, True] == [breaker.failed(0.0) for _ in range(FAILURES)]
    assert not breaker.closed
    assert 1 == breaker.openings


def test_an_answer_between_starts_the_count_anew():
    """Failures count in a row."""
    breaker = LinkBreaker()
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.answered()

    assert breaker.closed
    assert 0 == breaker.openings


def test_a_refusal_opens_at_once():
    """Want of rights doesn't pass by itself."""
    breaker = LinkBreaker()

    assert breaker.failed(0.0, refused=True)
    assert not breaker.closed


def test_what_was_on_its_way_changes_nothing():
    """Calls that were sent before the opening end after it: they neither open again nor close."""
    breaker = opened()
    breaker.answered()

    assert not breaker.failed(0.0, refused=True)
    assert not breaker.closed
    assert 1 == breaker.openings


def test_a_probe_that_is_answered_closes():
    """And the next opening needs three failures again."""
    breaker = opened()
    breaker.close(1.0)

    assert breaker.closed
    assert [False, False, True] == [breaker.failed(2.0) for _ in range(FAILURES)]
    assert 2 == breaker.openings


@given(st.lists(DRAWS, min_size=8, max_size=40))
def test_pauses_grow_to_a_bound(draws):
    """No pause is longer than what brings Redis back within five seconds, and the late ones aren't short."""
    breaker = opened()
    pauses = [breaker.pause(draw) for draw in draws]

    assert all(0.0 < pause <= LAST_PAUSE for pause in pauses)
    assert all(LAST_PAUSE / 2 <= pause for pause in pauses[6:])


@pytest.mark.parametrize(
    ("lasted", "expected"),
    [pytest.param(STEADY - 0.1, 0.4, id="not for long"), pytest.param(STEADY, 0.1, id="steady")],
)
def test_a_return_has_to_last(lasted, expected):
    """Where Redis comes and goes, it is probed less and less often all the same."""
    breaker = opened()
    pauses = [breaker.pause(1.0), breaker.pause(1.0)]
    breaker.close(100.0)
    breaker.failed(100.0 + lasted, refused=True)

    assert [0.1, 0.2, expected] == [*pauses, breaker.pause(1.0)]
