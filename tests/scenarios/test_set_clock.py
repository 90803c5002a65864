"""The wall clock is set while the sidecar runs: no answer serves for longer than its ttl."""

from __future__ import annotations

import time

import pytest

from sidecar.core.rules import CacheMode, CacheRule
from tests.scenarios.answers import said
from tests.scenarios.oracle import Oracle
from tests.scenarios.redis_contents import written

RULE = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0)


@pytest.fixture
async def oracle(script):
    """A provider whose every answer is another one."""
    return await script(Oracle())


def set_clocks(lab, *, wall: float, later: float) -> None:
    """*later* seconds have passed, and the wall clock has been set, too, by *wall* in all."""
    lab.clocks.wall, lab.clocks.ahead = lambda: time.time() + wall, lambda: later
    if lab.sidecar.fleet is not None:
        lab.sidecar.fleet.remote._now = lab.clocks.wall
        lab.sidecar.fleet.log._clock = lab.clocks.running
        lab.sidecar.fleet.log._read_at = lab.clocks.running()


@pytest.mark.parametrize(
    ("wall", "later", "expected"),
    [
        pytest.param(-3600.0, 0.5, "answer 1", id="set-back"),
        pytest.param(-3600.0, 61.0, "answer 2", id="set-back-and-over"),
        pytest.param(61.0, 61.0, "answer 2", id="not-set-and-over"),
        pytest.param(3600.0, 0.5, "answer 2", id="set-ahead"),
    ],
)
async def test_ttl(wall, later, expected, build_lab, oracle):
    """Set back it makes an answer no younger; set ahead it makes it older."""
    lab = await build_lab(oracle.url, cache=RULE)
    await lab.ask()
    set_clocks(lab, wall=wall, later=later)

    assert expected == said((await lab.ask()).body)


async def test_back_again(build_lab, oracle):
    """What was stored while the clock was ahead serves its ttl when the clock is right again, and no longer."""
    lab = await build_lab(oracle.url, cache=RULE)
    set_clocks(lab, wall=3600.0, later=0.0)
    await lab.ask()
    found = []
    for later in (1.0, 59.0, 61.0):
        set_clocks(lab, wall=later, later=later)
        found.append(said((await lab.ask()).body))

    assert ["answer 1", "answer 1", "answer 2"] == found


async def test_from_redis(build_fleet, oracle, redis_server):
    """An answer that Redis keeps is no younger to a sidecar whose clock is an hour behind; what it keeps ends there."""
    one, two = await build_fleet(oracle.url, cache=RULE)
    await one.ask()
    await written(redis_server)
    (name,) = redis_server.call("KEYS", "*:e")
    redis_server.call("PEXPIRE", name, 30_000)  # half a minute later
    set_clocks(two, wall=-3600.0, later=0.0)
    found = [await two.ask()]
    set_clocks(two, wall=-3600.0, later=31.0)
    redis_server.call("DEL", name)
    found.append(await two.ask())

    assert ["answer 1", "answer 2"] == [said(reply.body) for reply in found]
    assert redis_server.call("PTTL", redis_server.call("KEYS", "*:e")[0]) <= 60_000
