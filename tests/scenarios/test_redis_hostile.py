"""What stands where Redis should answers what no Redis does: every call is answered all the same."""

from __future__ import annotations

import json

import pytest

from sidecar.cli.keygen import line
from sidecar.core.rules import RedisRule, Route, RouteLimits, SealRule
from tests.fleet.pods import impostor
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.processes import resident

MIB = 1024 * 1024

BOMB, LONG = b"*1000000000\r\n", b"*1\r\n$10000000000\r\n" + b"x" * 65536

PONG = b"+PONG\r\n"

HOSTS = {
    "arrays without end": lambda _: BOMB,
    "strings without end": lambda _: LONG,
    "arrays without end, but for probes": lambda command: PONG if command[0] == b"PING" else BOMB,
    "numbers": lambda _: b":7\r\n",
    "numbers, but for probes": lambda command: PONG if command[0] == b"PING" else b":7\r\n",
    "nothing": lambda _: b"$-1\r\n",
    "errors within": lambda _: b"*3\r\n$5\r\nvalue\r\n:5\r\n-ERR x\r\n",
    "a web server": lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "two answers": lambda _: b":1\r\n:1\r\n",
}


@pytest.fixture
def seal(tmp_path):
    """The secret without which nobody asks Redis."""
    (tmp_path / "cache.key").write_text(line() + "\n")
    return SealRule(str(tmp_path / "cache.key"))


@pytest.mark.parametrize("host", HOSTS)
async def test_calls_are_answered(build_lab, script, seal, host):
    """From upstream and memory; Redis is left after three commands, which one line tells, and no memory is taken."""

    async def answer(_head, body, writer):
        writer.write(whole(completion(f"Box {json.loads(body)['seed']}.")))

    upstream = await script(answer)
    before = resident()
    async with impostor(HOSTS[host]) as url:
        lab = await build_lab(upstream.url, redis=RedisRule(url, timeout=1.0, warm=10), seal=seal)
        for seed in [*range(20), *range(20)]:
            reply = await lab.ask({**CHAT, "seed": seed})

            assert (200, f"Box {seed}.") == (reply.status, said(reply.body))
        assert 20 == upstream.calls
        await lab.until(lambda: lab.sidecar.fleet.link.breaker.openings)
        events = [json.loads(entry) for entry in lab.logs]

        assert [("redis-away", "malformed")] == [
            (event["event"], event["reason"]) for event in events if event["event"].startswith("redis-")
        ]
        assert [] == [event for event in events if event["event"] == "bug"]
        assert resident() < before + 64 * MIB


async def test_rates_without_it(build_lab, script, seal):
    """A route whose rates the fleet holds goes by its own share where what answers makes no sense."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("Box.")))

    upstream = await script(answer)
    async with impostor(lambda _: b"*6\r\n:99999\r\n:0\r\n:0\r\n:0\r\n:0\r\n:0\r\n") as url:
        lab = await build_lab(
            upstream.url,
            routes=(Route("limited", limits=RouteLimits(requests_per_minute=600, queue=10)),),
            redis=RedisRule(url, timeout=1.0),
            seal=seal,
        )
        statuses = [(await lab.ask({**CHAT, "seed": seed})).status for seed in range(5)]

    assert [200] * 5 == statuses
