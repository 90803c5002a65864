"""Why connections are opened: each either replaces a lost one, or is one more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.connections import DESTINATIONS, OLD, SPREAD, Census, Opened, outlived, term


def replay(census, *steps, key="a"):
    """Take *steps* at *key*: ``open``, ``fail`` (open one in vain), or how one is lost."""
    for step in steps:
        if step in {"open", "fail"}:
            reason = census.opening(key)
            if step == "open":
                census.succeeded(reason)
            else:
                census.failed(key, reason)
        else:
            census.lost(key, Opened(step))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["open"], {"first": 1}),
        (["open", "open", "open"], {"first": 1, "busy": 2}),
        (["open", "closed", "open"], {"first": 1, "closed": 1}),
        (["open", "open", "closed", "died", "open", "open"], {"first": 1, "busy": 1, "closed": 1, "died": 1}),
        (["open", "closed", "open", "open"], {"first": 1, "closed": 1, "busy": 1}),
        (["fail", "open"], {"first": 1}),
        (["open", "idle", "fail", "fail", "open", "open"], {"first": 1, "idle": 1, "busy": 1}),
        (["open", "fail", "open"], {"first": 1, "busy": 1}),
        (["died", "open"], {"first": 1}),
    ],
)
def test_reasons(steps, expected):
    """A lost connection is replaced once, whatever fails in between; without one lost, another is one more."""
    census = Census()
    replay(census, *steps)

    assert expected == census.counts


def test_destinations_are_separating():
    """What is lost at one destination is no reason for a connection to another."""
    census = Census()
    replay(census, "open", "died")
    replay(census, "open", key="b")
    replay(census, "open")

    assert {"first": 2, "died": 1} == census.counts
    assert "<Census of 2 destinations, 3 connections>" == repr(census)


def test_destinations_have_a_bound():
    """Past it, one is forgotten: one without connections first. Its connections may still be lost."""
    census = Census()
    replay(census, "open", key=0)
    replay(census, "open", "idle", key=1)
    for key in range(2, DESTINATIONS + 1):
        replay(census, "open", key=key)
    replay(census, "open", "died", key=1)
    replay(census, "died", "open", key=0)

    assert {"first": DESTINATIONS + 3} == census.counts
    assert f"<Census of {DESTINATIONS} destinations, {DESTINATIONS + 3} connections>" == repr(census)


LOST = [reason.value for reason in Opened if reason not in {Opened.FIRST, Opened.BUSY}]


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["open", "fail", *LOST])), max_size=80))
def test_counts_add_up(steps):
    """Each connection is counted once, and none is the replacement of more than was lost."""
    census = Census()
    for key, step in steps:
        replay(census, step, key=key)
    counts = census.counts

    assert sum(step == "open" for _, step in steps) == counts.total()
    assert all(counts[reason] <= sum(step == reason for _, step in steps) for reason in LOST)


@pytest.mark.parametrize(
    ("age", "missing", "expected"),
    [
        (0.0, 0.0, None),
        (299.0, 299.0, None),
        (299.0, 300.0, Opened.MOVED),
        (300.0, 0.0, Opened.AGED),
        (300.0, 299.0, Opened.AGED),
        (900.0, 300.0, Opened.MOVED),
    ],
)
def test_terms(age, missing, expected):
    """A connection ends by its age, or when its address has been missing for as long."""
    assert expected == outlived(term("a", "192.0.2.1", 50.0, 300.0, 0.5), 50.0 + age, 300.0, missing)


@given(draw=st.floats(0.0, 1.0, exclude_max=True))
def test_terms_differ(draw):
    """Connections that are opened together end within a span of time, not at once; none lasts much longer."""
    ends = term("a", "192.0.2.1", 0.0, OLD, draw).ends

    assert OLD * (1 - SPREAD) <= ends <= OLD * (1 + SPREAD)
    assert ends == pytest.approx(OLD * (0.8 + 0.4 * draw))
