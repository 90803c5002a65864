"""Whoever runs a fleet can switch its caches off, or switch to passing calls through, everywhere at once."""

from __future__ import annotations

import asyncio
import base64

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import Mode
from tests.redis_servers import RedisServer
from tests.scenarios.answers import said
from tests.scenarios.operating import RAW, act, in_mode
from tests.scenarios.redis_contents import released


@pytest.mark.parametrize("mode", ["cache-off", "passthrough"])
async def test_everywhere_and_back(mode, build_fleet, oracle, token_file, redis_server):
    """All sidecars follow, say why they look nothing up, and go on with what they had when it is over."""
    labs = await build_fleet(oracle.url, 3, admin_token_file=token_file)
    for lab in labs:
        await lab.ask()
        await lab.ask()  # its head is familiar by now
        await released(redis_server)
    done = await act(labs[0], "mode", {"mode": mode, "for": "10m"})
    await in_mode(labs, Mode(mode))
    off = [await lab.ask() for lab in labs]
    back = await act(labs[1], "mode", {"mode": "normal"})
    await in_mode(labs, Mode.NORMAL)
    on = [await lab.ask() for lab in labs]

    assert (200, {"mode": mode, "seconds": pytest.approx(600.0, abs=60.0), "fleet": "done"}) == done
    assert (200, {"mode": "normal", "seconds": None, "fleet": "done"}) == back
    assert [f"sidecar; fwd=bypass; detail={mode}"] * 3 == [reply.cache for reply in off]
    assert [f"answer {number}" for number in (2, 3, 4)] == [said(reply.body) for reply in off]
    assert [("answer 1", "detail=memory")] * 3 == [(said(reply.body), reply.cache.rpartition("; ")[2]) for reply in on]
    assert 4 == oracle.calls


async def test_recalled_heads(build_lab, oracle, dial):
    """A head that was familiar before the switch is judged anew, on the very connection that it was familiar on."""
    lab = await build_lab(oracle.url)
    for _ in range(3):
        await lab.ask()
    await act(lab, "mode", {"mode": "cache-off"}, token="")
    off = [await lab.ask() for _ in range(3)]
    await act(lab, "mode", {"mode": "normal"}, token="")
    on = [await lab.ask() for _ in range(3)]

    assert {"sidecar; fwd=bypass; detail=cache-off"} == {reply.cache for reply in off}
    assert {"detail=memory"} == {reply.cache.rpartition("; ")[2] for reply in on}
    assert 4 == oracle.calls


async def test_head_before_body_after(build_lab, oracle, dial):
    """A call whose head came before the switch goes on as it began, and the heads after it do not."""
    lab = await build_lab(oracle.url)
    await lab.ask()
    caller = await dial(lab, cut=-10)
    await lab.until(lambda: any(connection._intake.opened for connection in lab.sidecar.listener._open))
    await act(lab, "mode", {"mode": "cache-off"}, token="")
    caller._writer.write(b'the box?"}]}'[-10:])
    reply = await caller.reply()
    after = await lab.ask()

    assert "detail=memory" == reply.cache.rpartition("; ")[2]
    assert "detail=cache-off" == after.cache.rpartition("; ")[2]


async def test_running_calls_go_on(build_lab, oracle):
    """What flies when the mode changes is finished as it began, and kept."""
    lab = await build_lab(oracle.url)
    oracle.oracle.go.clear()
    asking = [asyncio.ensure_future(lab.ask()) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3)
    await act(lab, "mode", {"mode": "passthrough"}, token="")
    later = asyncio.ensure_future(lab.ask())
    await lab.until(lambda: oracle.calls == 2)
    oracle.oracle.go.set()
    replies = await asyncio.gather(*asking, later)
    await act(lab, "mode", {"mode": "normal"}, token="")
    again = await lab.ask()

    assert ["answer 1"] * 3 + ["answer 2"] == [said(reply.body) for reply in replies]
    assert ("answer 1", "detail=memory") == (said(again.body), again.cache.rpartition("; ")[2])
    assert 1 == [record.outcome for record in lab.records].count(Outcome.BYPASS)


async def test_ends_by_itself(build_fleet, oracle, token_file):
    """After its time a mode is over, also in a sidecar that was not asked."""
    labs = await build_fleet(oracle.url, admin_token_file=token_file)
    await act(labs[0], "mode", {"mode": "cache-off", "for": "1s"})
    await in_mode(labs, Mode.CACHE_OFF)
    await in_mode(labs, Mode.NORMAL)
    for _ in range(2):
        await labs[1].ask()

    assert 1 == oracle.calls


async def test_newcomers_know(build_fleet, oracle, token_file):
    """A sidecar that starts while a mode holds is in it from its first call."""
    labs = await build_fleet(oracle.url, 1, admin_token_file=token_file)
    await act(labs[0], "mode", {"mode": "passthrough", "for": "10m"})
    (new,) = await build_fleet(oracle.url, 1, admin_token_file=token_file)

    assert "sidecar; fwd=bypass; detail=passthrough" == (await new.ask()).cache


async def test_without_a_token(build_fleet, oracle):
    """Then it is this process's mode alone."""
    one, two = await build_fleet(oracle.url)
    done = await act(one, "mode", {"mode": "cache-off", "for": "10m"}, token="")
    replies = [await lab.ask() for lab in (one, two)]

    assert (200, {"mode": "cache-off", "seconds": pytest.approx(600.0, abs=60.0), "fleet": "local"}) == done
    assert ["detail=cache-off", "stored"] == [reply.cache.rpartition("; ")[2] for reply in replies]
    assert Mode.NORMAL is two.sidecar.operations.mode


@pytest.mark.parametrize("mode", ["cache-off", "passthrough"])
async def test_purge_by_request(mode, build_lab, oracle):
    """What is stored can be purged by a request also while no request is looked up."""
    lab = await build_lab(oracle.url)
    await lab.ask()
    await act(lab, "mode", {"mode": mode}, token="")
    asked = {"scope": "request", "value": base64.b64encode(RAW).decode()}
    done = await act(lab, "purge", asked, token="")
    await act(lab, "mode", {"mode": "normal"}, token="")
    reply = await lab.ask()

    assert (200, {"entries": 1, "position": "", "fleet": "local"}) == done
    assert "answer 2" == said(reply.body)


async def test_redis_away(build_fleet, oracle, token_file):
    """A switch of the fleet that cannot be told to it holds in this process at once, and in the others later."""
    with RedisServer() as server:
        labs = await build_fleet(oracle.url, admin_token_file=token_file, redis={"url": server.url})
        server.kill()
        status, told = await act(labs[0], "mode", {"mode": "cache-off", "for": "10m"})
        modes = [lab.sidecar.operations.mode for lab in labs]
        replies = [await lab.ask() for lab in labs]
        server.start()
        await in_mode(labs, Mode.CACHE_OFF)

    assert (200, "pending") == (status, told["fleet"])
    assert [Mode.CACHE_OFF, Mode.NORMAL] == modes
    assert ["fwd=bypass", "fwd=miss"] == [reply.cache.split("; ")[1] for reply in replies]


async def test_known_while_redis_is_new(build_fleet, oracle, token_file):
    """A mode outlives the Redis that it was told to: those who know it tell the next."""
    with RedisServer() as server:
        labs = await build_fleet(oracle.url, admin_token_file=token_file, redis={"url": server.url})
        await act(labs[0], "mode", {"mode": "cache-off", "for": "10m"})
        await in_mode(labs, Mode.CACHE_OFF)
        server.restart()
        for lab in labs:
            await lab.until(lambda lab=lab: any(b'"purge-log-lost"' in line for line in lab.logs))
        (new,) = await build_fleet(oracle.url, 1, admin_token_file=token_file, redis={"url": server.url})

        assert [Mode.CACHE_OFF] * 3 == [lab.sidecar.operations.mode for lab in (*labs, new)]
