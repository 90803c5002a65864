"""What is known of names, on a clock that stands still."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.host_names import ABSENT_SECONDS, KEPT_SECONDS, LEFT, LONGEST, NAMES, SHORTEST, HostNames

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


@pytest.mark.parametrize(
    ("ttl", "holds"), [(0, SHORTEST), (30, 30), (LONGEST, LONGEST), (86_400, LONGEST)], ids=["0", "30", "300", "day"]
)
def test_answers_hold(ttl, holds):
    """For their time to live, within bounds of our own."""
    assert 10.0 + holds == HostNames().learn("a", (A,), ttl, 10.0).until


def test_failures_take_nothing_away():
    """While lookups fail the last answer serves, and is asked for again soon; without one, the failure is kept."""
    names = HostNames()
    names.learn("a", (A,), 30, 0.0)
    kept = names.failed("a", "silent", 100.0)
    none = names.failed("b", "silent", 100.0)

    assert ((A,), "", 100.0 + KEPT_SECONDS) == (kept.addresses, kept.fault, kept.until)
    assert ((), "silent", 100.0 + ABSENT_SECONDS) == (none.addresses, none.fault, none.until)


def test_absence_is_an_answer():
    """A name that has no address any more ends what was known of it; it may come back."""
    names = HostNames()
    names.learn("a", (A,), 30, 0.0)
    gone = names.absent("a", "no address", 100.0)

    assert ((), "no address", 100.0 + ABSENT_SECONDS) == (gone.addresses, gone.fault, gone.until)
    assert 5.0 == names.missing("a", A, 105.0)

    names.learn("a", (A,), 30, 110.0)

    assert 0.0 == names.missing("a", A, 111.0)
    assert "" == names.known("a").fault


def test_missing():
    """An address is missing from the first answer without it, until one has it again."""
    names = HostNames()
    for now, answer in [(0.0, (A, B)), (10.0, (B, C)), (20.0, (C,)), (30.0, (A, C))]:
        names.learn("a", answer, 1, now)

    assert (0.0, 20.0, 0.0) == tuple(names.missing("a", address, 40.0) for address in (A, B, C))
    assert 0.0 == names.missing("a", "192.0.2.9", 40.0)
    assert 0.0 == names.missing("b", A, 40.0)


def test_bounds():
    """Of names and of what has left them only so many are remembered: the latest used."""
    names = HostNames()
    for number in range(NAMES):
        names.learn(str(number), (A,), 1, 0.0)
    names.known("0")
    names.learn("new", (A,), 1, 0.0)
    for number in range(LEFT + 2):
        names.learn("new", (str(number),), 1, float(number))

    assert [True, False, True] == [names.known(name) is not None for name in ("0", "1", "new")]
    assert f"<HostNames {NAMES}>" == repr(names)
    assert [0.0, 0.0] == [names.missing("new", address, 1e6) for address in (A, "0")]
    assert 1e6 - 2 == names.missing("new", "1", 1e6)


addresses = st.lists(
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), min_size=1, max_size=6, unique=True
)


@given(addresses)
def test_turns(found):
    """Each address of the preferred family comes first equally often; none is lost, and families stay together."""
    known = HostNames().learn("a", tuple(found), 1, 0.0)
    preferred = [address for address in found if (":" in address) == (":" in found[0])]
    turns = [known.turn() for _ in preferred]

    assert sorted(preferred) == sorted(turn[0] for turn in turns)
    assert {tuple(sorted(found))} == {tuple(sorted(turn)) for turn in turns}
    assert all(set(preferred) == set(turn[: len(preferred)]) for turn in turns)


@given(st.lists(st.tuples(st.floats(0.1, 100.0), st.sets(st.sampled_from([A, B, C]), min_size=1)), min_size=1))
def test_rotation_is_no_move(answers):
    """An address is never missing for longer than since the last answer that had it."""
    names, now, seen = HostNames(), 0.0, {}
    for pause, answer in answers:
        now += pause
        names.learn("a", tuple(sorted(answer)), 1, now)
        seen.update(dict.fromkeys(answer, now))

    assert all(names.missing("a", address, now) <= now - last for address, last in seen.items())
