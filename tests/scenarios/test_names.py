"""Services whose names are not answered, and the calls to all the others."""

from __future__ import annotations

import asyncio

from sidecar.core.rules import Region, Service, UpstreamRule
from tests.name_server import name_server
from tests.scenarios.conftest import VENDORS, said
from tests.scenarios.oracle import Oracle

HANGING = tuple(f"hangs-{number}" for number in range(8))


async def test_names_that_hang_hold_up_nobody_else(build_lab, script):
    """While eight services' names are not answered, calls to others open connections, and are answered."""
    upstream = await script(Oracle())
    async with name_server() as names:
        names.zone.update({f"{name}.example": None for name in HANGING}, **{"well.example": ["127.0.0.1"]})
        services = tuple(
            Service(name, VENDORS["openai"], (Region("r", f"http://{name}.example:{upstream.port}"),), path=f"/{name}")
            for name in (*HANGING, "well", "absent")
        )
        rule = UpstreamRule(proxy="none", nameservers=(names.at,))
        lab = await build_lab(upstream.url, services=services, upstream=rule)
        stuck = [asyncio.create_task(lab.ask(path=f"/{name}/v1/chat/completions")) for name in HANGING]
        await names.until(lambda: len({name for name, _ in names.asked}) == len(HANGING))
        well = await lab.ask(path="/well/v1/chat/completions")
        absent = await lab.ask(path="/absent/v1/chat/completions")
        waiting = [task.done() for task in stuck]
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        await lab.until(lab.settled)

        assert (200, "answer 1") == (well.status, said(well.body))
        assert [False] * len(HANGING) == waiting
        assert (502, True) == (absent.status, b"upstream-dns" in absent.body)
        assert {"found": 1, "absent": 1} == lab.sidecar.resolver.results


async def test_the_last_answer_outlives_the_name_server(build_lab, script):
    """A name server that is gone takes no service away, also where each call needs a connection of its own."""
    upstream = await script(Oracle())
    async with name_server() as names:
        names.zone["well.example"] = ["127.0.0.1"]
        names.ttl = 0
        service = Service(
            "well", VENDORS["openai"], (Region("r", f"http://well.example:{upstream.port}"),), path="/well"
        )
        rule = UpstreamRule(proxy="none", nameservers=(names.at,))
        lab = await build_lab(upstream.url, services=(service,), upstream=rule)
        first = await lab.ask(path="/well/v1/chat/completions", headers={"authorization": "Bearer sk-one"})
    lab.sidecar.resolver._clock = lambda: 1e12
    await lab.sidecar.upstream.close()
    await lab.sidecar.upstream.start()
    second = await lab.ask(path="/well/v1/chat/completions", headers={"authorization": "Bearer sk-two"})

    assert [200, 200] == [first.status, second.status]
    assert {"found": 1, "failed": 1} == lab.sidecar.resolver.results
