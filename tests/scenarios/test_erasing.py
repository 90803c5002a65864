"""Erasing: what was purged is also deleted, wherever it stands, and a receipt says what, where and when."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import said
from tests.scenarios.conftest import CHAT, TOKEN
from tests.scenarios.operating import RAW, act
from tests.scenarios.redis_contents import noted, released, written

RULE = CacheRule(mode=CacheMode.DETERMINISTIC)
OTHER_PATH = "/other/v1/chat/completions"
OTHERS = {"authorization": "Bearer of another", "x-sidecar-tags": "blue"}


def by_request(**more: Any) -> dict[str, Any]:
    return {"scope": "request", "value": base64.b64encode(RAW).decode(), **more}


def places(receipt: Any) -> dict[str, int]:
    return {each["where"]: each["erased"] for each in receipt["places"]}


async def test_a_receipt(build_fleet, oracle, token_file, redis_server):
    """Every pod confirms, Redis is empty, and who does it again gets zeros. The audit line says the same, in short."""
    labs = await build_fleet(oracle.url, 3, admin_token_file=token_file)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    await written(redis_server)
    status, receipt = await act(labs[0], "erase", by_request())
    left = redis_server.call("KEYS", "*:e")
    _, again = await act(labs[0], "erase", by_request())
    lines = [json.loads(line) for line in labs[0].logs if b'"admin-erase"' in line]

    assert (200, True, []) == (status, receipt["complete"], left)
    assert [1, 1, 1] == [pod["dropped"] for pod in receipt["pods"]]
    assert all(receipt["asked_at"] <= pod["confirmed_at"] <= receipt["finished_at"] for pod in receipt["pods"])
    assert {"Redis": 1, "operations in Redis": 0, "uploads on disk": 0} == places(receipt)
    assert ({"Redis": 0, "operations in Redis": 0, "uploads on disk": 0}, [0, 0, 0], True) == (
        places(again), [pod["dropped"] for pod in again["pods"]], again["complete"]
    )  # fmt: skip
    assert [(receipt["what"], 4, 3, "", True), (again["what"], 0, 3, "", True)] == [
        (line["what"], line["erased"], line["pods"], line["not_confirmed"], line["complete"]) for line in lines
    ]
    assert f"token {lines[0]['token']} from 127.0.0.1" == receipt["by"]
    assert TOKEN not in json.dumps(receipt)
    assert ["answer 2"] * 3 == [said((await lab.ask()).body) for lab in labs]


@pytest.mark.parametrize("scope", ["all", "service", "route", "tag", "key", "partition", "request-id"])
async def test_scopes(scope, build_fleet, oracle, token_file, redis_server):
    """Each takes what it names from Redis, and nothing else; a tag also what has only served a call with it."""
    region = (Region("here", oracle.url),)
    services = (
        Service("openai", DIALECTS["openai"], region, path="/openai"),
        Service("other", DIALECTS["openai"], region, path="/other"),
    )
    routes = (Route("first", Match(service="openai"), RULE), Route("second", Match(service="other"), RULE))
    labs = await build_fleet(oracle.url, 2, services=services, routes=routes, admin_token_file=token_file)
    for lab in labs:
        await lab.ask(path=OTHER_PATH, headers=OTHERS)
        reply = await lab.ask()
        await released(redis_server)
        await lab.ask(headers={"x-sidecar-tags": "round"})
        await noted(lab, redis_server)
    await written(redis_server, 2)
    ((key, entry),) = [
        (key, held.entry)
        for page in labs[-1].sidecar.memory.walk()
        for key, held in page
        if held.entry.service == "openai"
    ]
    value = {
        "all": "", "service": "openai", "route": "first", "tag": "round", "key": key.address.hex(),
        "partition": entry.partition.hex(), "request-id": reply.headers["x-sidecar-request-id"],
    }[scope]  # fmt: skip
    count = 2 if scope == "all" else 1
    _, counted = await act(labs[-1], "erase", {"scope": scope, "value": value, "dry_run": True})
    before = len(redis_server.call("KEYS", "*:e"))
    _, receipt = await act(labs[-1], "erase", {"scope": scope, "value": value})

    assert (2, True, "") == (before, counted["dry_run"], counted["pods"][0]["confirmed_at"])
    assert scope == "tag" or places(counted)["Redis"] == count
    assert (count, [count, count], True) == (
        places(receipt)["Redis"], [pod["dropped"] for pod in receipt["pods"]], receipt["complete"]
    )  # fmt: skip
    assert 2 - count == len(redis_server.call("KEYS", "*:e"))
    assert key.address.hex() not in json.dumps(receipt)


async def test_what_no_secret_opens(build_fleet, oracle, token_file, redis_server):
    """It may be anybody's: it is left alone, counted and named."""
    (lab,) = await build_fleet(oracle.url, 1, admin_token_file=token_file)
    await lab.ask()
    await released(redis_server)
    await written(redis_server)
    name = "x" * 32
    redis_server.call("SET", f"team-a:{{{name}}}:e", b"SCE of another", "PX", "60000")
    _, receipt = await act(lab, "erase", {"scope": "all"})

    assert (1, 1) == (places(receipt)["Redis"], len(redis_server.call("KEYS", "*:e")))
    assert [f"1 values were left alone, because no present secret opens them: {name}"] == [
        each["note"] for each in receipt["places"] if each["where"] == "Redis"
    ]


async def test_without_a_token(build_fleet, oracle, redis_server):
    """This process alone; so it is not complete, and says what to do."""
    labs = await build_fleet(oracle.url)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    await written(redis_server)
    _, receipt = await act(labs[0], "erase", by_request(), token="")

    assert (False, [1], {"uploads on disk": 0}) == (
        receipt["complete"], [pod["dropped"] for pod in receipt["pods"]], places(receipt)
    )  # fmt: skip
    assert receipt["notes"][0].endswith("set admin.token_file in every pod")
    assert (1, 1) == (labs[1].sidecar.memory.entries, len(redis_server.call("KEYS", "*:e")))


async def test_without_a_fleet(build_lab, oracle, token_file):
    """There is only this process, and that is said."""
    lab = await build_lab(oracle.url, admin_token_file=token_file)
    await lab.ask()
    _, receipt = await act(lab, "erase", by_request())

    assert (True, 1, 0) == (receipt["complete"], receipt["pods"][0]["dropped"], lab.sidecar.memory.entries)
    assert receipt["notes"][0].startswith("this process only")


async def test_redis_away(build_fleet, oracle, token_file, redis_server):
    """It holds here at once. Redis was not reached, so it is to be done again."""
    labs = await build_fleet(oracle.url, redis={"timeout": 0.05}, admin_token_file=token_file)
    for lab in labs:
        await lab.ask()
        await released(redis_server)
    redis_server.pause()
    _, receipt = await act(labs[0], "erase", by_request())
    redis_server.resume()
    await labs[0].until(lambda: labs[0].sidecar.fleet.link.up and labs[1].sidecar.operations.purged)
    _, again = await act(labs[0], "erase", by_request())

    assert (False, "", 0) == (receipt["complete"], receipt["position"], labs[0].sidecar.memory.entries)
    assert receipt["notes"][0].startswith("Redis is away")
    assert (True, []) == (again["complete"], redis_server.call("KEYS", "*:e"))


@pytest.mark.parametrize("by", [0, 1], ids=["here", "by another"])
async def test_while_a_call_is_under_way(by, build_fleet, oracle, token_file, redis_server):
    """Its pod confirms only when it has ended; its caller has the answer then, and nobody keeps it."""
    labs = await build_fleet(oracle.url, admin_token_file=token_file)
    oracle.oracle.go.clear()
    asking = asyncio.ensure_future(labs[0].ask())
    await labs[0].until(lambda: oracle.calls == 1)
    _, early = await act(labs[by], "erase", by_request(wait="1s"))
    oracle.oracle.go.set()
    reply = await asking
    _, late = await act(labs[by], "erase", by_request())

    (lacking,) = [pod for pod in early["pods"] if not pod["confirmed_at"]]

    assert (False, True, True) == (early["complete"], "under way" in lacking["why"], late["complete"])
    assert ("answer 1", 0, []) == (said(reply.body), labs[0].sidecar.memory.entries, redis_server.call("KEYS", "*:e"))


async def test_a_warm_start(build_fleet, oracle, token_file, redis_server):
    """A process that starts after it finds nothing."""
    (lab,) = await build_fleet(oracle.url, 1, admin_token_file=token_file)
    for body in (CHAT, {**CHAT, "seed": 1}):
        await lab.ask(body)
        await released(redis_server)
    await written(redis_server, 2)
    await act(lab, "erase", by_request())
    (warm,) = await build_fleet(oracle.url, 1, redis={"warm": 10})
    await warm.until(lambda: warm.sidecar.memory.entries == 1)
    reply = await warm.ask()

    assert "answer 3" == said(reply.body)
