"""Whether a call shows signs of life."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sidecar.proxy.flight.pulse import LEAST, Pulse, patience


class Loop:
    """An event loop's clock and its timers."""

    def __init__(self):
        self.now = 100.0
        self.timers = []

    def time(self):
        return self.now

    def call_later(self, seconds, call):
        timer = SimpleNamespace(at=self.now + seconds, call=call)
        timer.cancel = lambda: self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def sleep(self, seconds):
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda one: one.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.call()
        self.now = end


@pytest.fixture
def loop(monkeypatch):
    loop = Loop()
    monkeypatch.setattr("sidecar.proxy.flight.pulse.asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return loop


@pytest.mark.parametrize(
    ("usual", "first_byte", "expected"),
    [(0.1, 600.0, 2.0), (1.0, 600.0, 3.0), (60.0, 600.0, 180.0), (None, 600.0, 200.0), (None, 3.0, 2.0)],
    ids=["quick", "ordinary", "slow", "cold", "cold and hasty"],
)
def test_patience(usual, first_byte, expected):
    """Three times what is usual, never less than two seconds; a third of the route's own time where nothing is."""

    assert expected == patience(usual, first_byte)


def test_silence(loop):
    """Stuck is what has been silent for too long, to the moment; and only once."""
    told = []
    pulse = Pulse(lambda: 5.0, told.append)
    loop.sleep(4.9)

    assert ([], False, 1) == (told, pulse.stuck, len(loop.timers))

    loop.sleep(0.2)
    loop.sleep(100.0)

    assert ([True], True, []) == (told, pulse.stuck, loop.timers)


def test_signs(loop):
    """Each sign begins the wait anew, and one that comes late takes it back."""
    told = []
    pulse = Pulse(lambda: 5.0, told.append)
    for _ in range(10):
        loop.sleep(4.0)
        pulse.sign()

    assert [] == told

    loop.sleep(5.0)
    pulse.sign()

    assert ([True, False], False) == (told, pulse.stuck)

    loop.sleep(4.9)
    assert not pulse.stuck
    loop.sleep(0.2)
    assert [True, False, True] == told


def test_what_is_usual_is_asked_late(loop):
    """Most calls are over before that: what is usual costs them nothing, and counts as it is by then."""
    asked = []

    def usual():
        asked.append(loop.now)
        return 3.0 if len(asked) == 1 else 9.0

    pulse = Pulse(usual, lambda _: None)
    loop.sleep(LEAST - 0.1)
    assert [] == asked
    loop.sleep(3.0)
    assert not pulse.stuck
    loop.sleep(6.0)
    assert pulse.stuck


def test_rest_and_end(loop):
    """After a rest it is waited for once more; after the end nothing is told."""
    told = []
    pulse = Pulse(lambda: 5.0, told.append)
    loop.sleep(5.0)
    pulse.rest()

    assert ([True], False) == (told, pulse.stuck)

    loop.sleep(5.0)
    assert [True, True] == told

    pulse.rest()
    pulse.end()
    pulse.sign()
    loop.sleep(100.0)
    assert ([True, True], []) == (told, loop.timers)
