"""A process that did not run for a while serves nothing from memory that was purged meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from sidecar.core.rules import CacheMode, CacheRule
from sidecar.fleet.purge_log import CURRENT_SECONDS
from tests.scenarios.answers import said
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import CHAT
from tests.scenarios.operating import purge
from tests.scenarios.processes import ask, configured, launch, run_by
from tests.scenarios.redis_contents import released, written

STREAM = {**CHAT, "stream": True}


async def stop(lab) -> None:
    """From now on *lab* does not look at the log of purges, as if its process were stopped."""
    await lab.sidecar.fleet.log._following.stop()


def wake(lab, seconds: float) -> None:
    """It runs again, *seconds* later."""
    lab.clocks.ahead = lambda: seconds
    lab.sidecar.fleet.log._clock = lab.clocks.running


@pytest.mark.parametrize(
    "call",
    [
        pytest.param({}, id="known-head"),
        pytest.param({"headers": {"x-sidecar-ttl": "1h"}}, id="new-head"),
        pytest.param({"body": STREAM}, id="converted"),
        pytest.param({"headers": {"cache-control": "only-if-cached"}}, id="only-if-cached"),
    ],
)
async def test_purged_meanwhile(call, build_fleet, oracle):
    """The first call after that waits until the log has been read; those that come with it wait for the same one."""
    one, two = await build_fleet(oracle.url)
    for _ in range(2):
        await one.ask()
    await stop(one)
    await purge(two)
    kept = await one.ask()
    reads = one.sidecar.fleet.log.counts["tails"]
    wake(one, 10.0)
    replies = await asyncio.gather(*[one.ask(**call) for _ in range(5)])
    told = {reply.status if reply.status != 200 else said(reply.body) for reply in replies}

    assert "answer 1" == said(kept.body)
    assert told == ({504} if "cache-control" in call.get("headers", {}) else {"answer 2"})
    assert reads + 1 == one.sidecar.fleet.log.counts["tails"]


async def test_nothing_purged(build_fleet, oracle):
    """What has not been purged serves on from memory."""
    one, _ = await build_fleet(oracle.url)
    await one.ask()
    await stop(one)
    wake(one, 10.0)
    replies = [await one.ask() for _ in range(2)]

    assert ["sidecar; hit; detail=memory"] * 2 == [
        "; ".join(part for part in reply.cache.split("; ") if "ttl" not in part) for reply in replies
    ]


async def test_redis_away(build_fleet, oracle, redis_server):
    """Where Redis does not answer in time memory goes on serving, and the next call does not wait again."""
    one, two = await build_fleet(oracle.url, redis={"timeout": 0.05})
    await one.ask()
    await stop(one)
    await purge(two)
    redis_server.pause()
    wake(one, 10.0)
    log = one.sidecar.fleet.log
    replies = [await one.ask()]
    failures = log.counts["failures"], one.sidecar.fleet.link.commands["ok"]
    replies += [await one.ask() for _ in range(3)]

    assert {"answer 1"} == {said(reply.body) for reply in replies}
    assert failures == (log.counts["failures"], one.sidecar.fleet.link.commands["ok"])
    redis_server.resume()


async def test_spare(build_fleet, oracle, redis_server):
    """Nor does an old answer take the place of an error, where it was purged while the process was stopped."""
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_if_error=600.0)
    one, two = await build_fleet(oracle.url, cache=rule)
    clock = WallClock([one, two])
    await one.ask()
    await written(redis_server)
    await released(redis_server)
    clock.later(70.0)
    oracle.oracle.way = "500"
    oracle.oracle.go.clear()
    asking = asyncio.ensure_future(one.ask())
    await one.until(lambda: oracle.calls == 2)
    await stop(one)
    await purge(two)
    wake(one, 10.0)
    oracle.oracle.go.set()

    assert (500, 0) == ((await asking).status, one.sidecar.memory.entries)


async def test_stopped_by_a_signal(build_fleet, oracle, redis_server, tmp_path):
    """So it is with a real process, which finds the calls in its sockets when it goes on."""
    process = launch(tmp_path, *run_by(configured(tmp_path, redis_server, oracle.url)))
    try:
        await process.started()
        (lab,) = await build_fleet(oracle.url, 1)
        callers = [await ask(process, CHAT)]
        first = said((await callers[0].reply()).body)
        callers.append(await ask(process, CHAT))
        again = said((await callers[1].reply()).body)
        process.child.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(os.waitpid, process.child.pid, os.WUNTRACED)
        await asyncio.sleep(CURRENT_SECONDS + 0.2)  # the one thing that takes its time: nobody can turn its clock
        await purge(lab)
        callers += [await ask(process, CHAT, after=caller) for caller in callers]
        callers += [await ask(process, body) for body in (CHAT, STREAM)]
        process.child.send_signal(signal.SIGCONT)
        after = [said((await caller.reply()).body) for caller in callers[2:]]
        for caller in callers:
            caller.vanish()
    finally:
        process.child.kill()
        process.child.wait()

    assert ("answer 1", "answer 1", {"answer 2"}) == (first, again, set(after))
