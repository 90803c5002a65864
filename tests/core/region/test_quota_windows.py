"""Rate windows: about one place, bounded, the longer one holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.quota_windows import Window, Windows

PLACE = ("openai", "", "us", "gpt4o-us", b"credential")


@pytest.mark.parametrize(
    ("now", "until"),
    [pytest.param(0.0, 7.0, id="open"), pytest.param(6.99, 7.0, id="last moment"), pytest.param(7.0, 0.0, id="over")],
)
def test_until(now, until):
    """A window is there before its end."""
    windows = Windows()

    assert windows.open(PLACE, 7.0) is True
    assert until == windows.until(PLACE, now)


def test_nobody_elses():
    """What one credential or deployment has spent is nobody else's."""
    windows = Windows()
    windows.open(PLACE, 7.0)

    assert 0.0 == windows.until((*PLACE[:4], b"other"), 1.0)
    assert 0.0 == windows.until((*PLACE[:3], "gpt4o-eu", PLACE[4]), 1.0)


@pytest.mark.parametrize(
    ("first", "second", "until", "exhausted"),
    [
        pytest.param((7.0, False), (5.0, False), 7.0, False, id="shorter"),
        pytest.param((5.0, False), (7.0, False), 7.0, False, id="longer"),
        pytest.param((600.0, True), (5.0, False), 600.0, True, id="exhausted stays"),
        pytest.param((5.0, False), (600.0, True), 600.0, True, id="exhausted comes"),
    ],
)
def test_longer_holds(first, second, until, exhausted):
    """Of two windows the longer holds, and only the first is news."""
    windows = Windows()

    assert [True, False] == [windows.open(PLACE, end, exhausted=spent) for end, spent in (first, second)]
    assert until == windows.until(PLACE, 1.0)
    assert [exhausted] == [window.exhausted for window in windows.among(PLACE, 1.0)]


def test_news_again():
    """A window that was found over, or closed by a good answer, is news when it opens again."""
    windows = Windows()
    windows.open(PLACE, 7.0)
    windows.until(PLACE, 8.0)

    assert windows.open(PLACE, 9.0) is True

    windows.good(PLACE)

    assert 0.0 == windows.until(PLACE, 8.0)
    assert [] == windows.among(PLACE, 8.0)
    assert windows.open(PLACE, 9.0) is True


def test_good_of_none():
    """A good answer where there is no window changes nothing."""
    windows = Windows()
    windows.good(PLACE)
    windows.open(PLACE, 7.0)
    windows.good("elsewhere")

    assert 7.0 == windows.until(PLACE, 1.0)


def test_among():
    """What stands open in a region, whatever the deployment and the credential; what is over doesn't."""
    windows = Windows()
    windows.open(("a", "", "us", "x"), 5.0)
    windows.open(("a", "", "us", "y"), 600.0, exhausted=True)
    windows.open(("a", "", "eu", "x"), 5.0)
    windows.open("no tuple", 5.0)

    assert 2 == len(windows.among(("a", "", "us"), 1.0))
    assert 3 == len(windows.among(("a",), 1.0))
    assert [Window(600.0, True)] == windows.among(("a", "", "us"), 5.0)


def test_oldest_out():
    """Of too many the one that was opened longest ago goes; opening again makes new."""
    windows = Windows(2)
    for place in "abac":
        windows.open(place, 7.0)

    assert [7.0, 0.0, 7.0] == [windows.until(place, 1.0) for place in "abc"]
    assert "<Windows 2 of 2>" == repr(windows)


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 6), st.floats(0, 100))))
def test_bounded(limit, openings):
    """Whatever is opened, the bound holds, and the latest is there with the longest end of those that it had."""
    windows = Windows(limit)
    for place, until in openings:
        windows.open(place, until)

        assert len(windows) <= limit
        assert until <= windows._windows[place].until
