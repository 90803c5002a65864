"""What may not go somewhere never goes there: not a byte of a call, nor a caller's credential."""

from __future__ import annotations

import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule, FallbackRule, RetryRule, Share, StoredCredential
from tests.scenarios.answers import CLAUDE, CLAUDE_PATH, said
from tests.scenarios.clocks import WallClock
from tests.scenarios.conftest import KEY
from tests.scenarios.oracle import refreshed
from tests.scenarios.paces import MARKED, know_the_pace
from tests.scenarios.regions import (
    HASTY,
    PATIENT,
    Region,
    Way,
    chat,
    hangs,
    mixed,
    order,
    route,
    running,
    seen_by,
    service,
)

EU = frozenset({"eu"})
SECRET = b"sk-story"
OWN = b"sk-of-the-region"

AZURE_PATH = "/azure/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"


@pytest.fixture
async def us_eu():
    """Two regions, the first of which would be asked first."""
    async with running("us", "eu") as regions:
        yield regions


@pytest.fixture
def own_key(tmp_path):
    """A region's own credential."""
    file = tmp_path / "own"
    file.write_bytes(OWN + b"\n")
    return StoredCredential("authorization", str(file), "Bearer ")


def tagged(us: Region, eu: Region) -> tuple:
    return service(us.rule(residency="us"), eu.rule(residency="eu", priority=2))


# ---- residency ----


async def test_allowed_region_alone(build_lab, us_eu):
    """A route that allows one residency never asks another region, whatever comes first."""
    us, eu = us_eu
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=EU))
    replies = [await lab.ask(mixed(number)) for number in range(8)]

    assert ["eu"] * 8 == seen_by(replies)
    assert (0, 8) == (us.attempts, eu.calls)
    assert 0 == us.open


@pytest.mark.parametrize("way", sorted(set(Way) - {Way.WELL, Way.BROKEN_AFTER, Way.HALF, Way.SLOW}))
async def test_allowed_region_is_down(way, build_lab, us_eu):
    """Also where the allowed region fails, the others get nothing, not even a connection."""
    us, eu = us_eu
    await eu.become(way)
    rule = route(allow=EU, fallback=(FallbackRule("model", "gpt-4o-mini"),), timeouts=HASTY if hangs(way) else PATIENT)
    lab = await build_lab("", services=tagged(us, eu), routes=rule)
    replies = [await lab.ask(mixed(number)) for number in range(8)]

    assert {429, 500, 502, 503, 504} >= {reply.status for reply in replies}
    assert all("error" in reply.json() for reply in replies)
    assert (0, 0) == (us.attempts, us.open)


async def test_allowed_region_is_taken_out(build_lab, us_eu):
    """Not even an operator's order moves a call to where it may not go."""
    us, eu = us_eu
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=EU))
    assert 200 == await order(lab, "eu", "stop")
    reply = await lab.ask(mixed(1))

    assert (503, "upstream-no-region") == (reply.status, reply.json()["error"]["code"])
    assert (0, 0) == (us.attempts, eu.attempts)


@pytest.mark.parametrize("bypassed", [False, True], ids=["looked-up", "bypassed"])
async def test_no_allowed_region(bypassed, build_lab, us_eu):
    """Where there is none, the caller reads what to look at, and is not told to try again."""
    us, eu = us_eu
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=frozenset({"ch"})))
    reply = await lab.ask(chat(1, bypassed=bypassed))
    error = reply.json()["error"]

    assert (403, "no-region-allowed", "permission_error") == (reply.status, error["code"], error["type"])
    assert "ch" in error["message"]
    assert "cached" in error["message"]
    assert "false" == reply.headers["x-should-retry"]
    assert (0, 0) == (us.attempts, eu.attempts)


async def test_refresh_stays(build_lab, us_eu):
    """A refresh, which nobody waits for, is bound as well."""
    us, eu = us_eu
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, ttl=60.0, stale_while_revalidate=600.0)
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=EU, cache=rule))
    wall = WallClock([lab])
    await lab.ask(chat(1))
    await lab.settle()
    wall.later(70.0)
    await eu.become(Way.DOWN)
    stale = await lab.ask(chat(1))
    await refreshed(lab)

    assert "stale" in stale.cache
    assert 2 == eu.calls
    assert 0 == us.attempts


async def test_other_model_stays(build_lab, us_eu):
    """A fallback model is asked where the model was allowed."""
    us, eu = us_eu
    eu.way, eu.takes = Way.DOWN, frozenset({"gpt-4o-mini"})
    other = (FallbackRule("model", "gpt-4o-mini"),)
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=EU, fallback=other))
    replies = [await lab.ask(mixed(number)) for number in range(8)]

    assert {"eu says gpt-4o-mini"} == {said(reply.body) for reply in replies}
    assert 0 == us.attempts


async def test_hedge_stays(build_lab, us_eu):
    """A second attempt is made where the first one was allowed."""
    us, eu = us_eu
    eu.hold = MARKED
    lab = await build_lab("", services=tagged(us, eu), routes=route(allow=EU, retry=RetryRule(hedge=True)))
    know_the_pace(lab)
    asking = lab.ask(chat(1000))
    caller = lab.sidecar.tasks.spawn(asking, name="caller")
    await lab.until(lambda: eu.calls == 2)
    eu.go.set()
    await caller

    assert 0 == us.attempts


# ---- what a model is called there ----


async def test_names_in_the_body(build_lab, us_eu):
    """Each region gets the model by its own name, and the answer is kept under the caller's."""
    us, eu = us_eu
    regions = service(
        us.rule(deployments={"gpt-4o": "gpt4o-us"}), eu.rule(priority=2, deployments={"gpt-4o": "gpt4o-eu"})
    )
    lab = await build_lab("", services=regions, routes=route())
    asked = chat(1)
    first = await lab.ask(asked)
    await us.become(Way.DOWN)
    failed_over = await lab.ask(chat(2, stream=True, bypassed=True))

    assert json.loads(us.seen[0][1]) == {**asked, "model": "gpt4o-us"}
    assert json.dumps(asked).replace("gpt-4o", "gpt4o-us").encode() == us.seen[0][1]
    assert "sidecar; fwd=miss; stored" == first.cache
    assert "eu says gpt4o-eu" == said(failed_over.body)
    assert ["gpt4o-us", "gpt4o-us", "gpt4o-eu"] == [json.loads(body)["model"] for _, body in (*us.seen, *eu.seen)]
    again = await lab.ask(asked)
    assert again.cache.startswith("sidecar; hit; ")
    assert 2 == us.calls
    other = await lab.ask(chat(1, model="gpt4o-us"))
    assert "sidecar; fwd=miss; stored" == other.cache
    assert "gpt-4o" == lab.records[0].model


async def test_names_in_the_path(build_lab, us_eu):
    """Azure has the deployment in the path, and it is there that each region finds its own."""
    us, eu = us_eu
    await us.become(Way.DOWN)
    own = {"credential_domain": "shared"}
    regions = service(
        us.rule(deployments={"gpt-4o": "us 4o"}, **own),
        eu.rule(priority=2, deployments={"gpt-4o": "gpt4o-eu"}, **own),
        name="azure-openai",
        path="/azure",
    )
    lab = await build_lab("", services=regions, routes=route())
    headers = {"authorization": None, "api-key": "k"}
    asked = {key: value for key, value in chat(1).items() if key != "model"}
    first = await lab.ask(asked, path=AZURE_PATH, headers=headers)
    again = await lab.ask(asked, path=AZURE_PATH, headers=headers)

    assert (200, 200) == (first.status, again.status)
    line = b"POST /openai/deployments/%b/chat/completions?api-version=2024-10-21 HTTP/1.1"
    assert line % b"us%204o" == us.seen[0][0].partition(b"\r\n")[0]
    assert line % b"gpt4o-eu" == eu.seen[0][0].partition(b"\r\n")[0]
    assert json.dumps(asked).encode() == us.seen[0][1] == eu.seen[0][1]
    assert again.cache.startswith("sidecar; hit; ")
    assert (1, 1) == (us.calls, eu.calls)


async def test_fallback_by_its_name_there(build_lab, us_eu):
    """A fallback model, too, is called what the region calls it."""
    us, eu = us_eu
    us.way = eu.way = Way.DOWN
    eu.takes = frozenset({"mini-eu"})
    regions = service(us.rule(), eu.rule(priority=2, deployments={"gpt-4o-mini": "mini-eu"}))
    lab = await build_lab("", services=regions, routes=route(fallback=(FallbackRule("model", "gpt-4o-mini"),)))
    reply = await lab.ask(chat(1))

    assert (200, "eu says mini-eu") == (reply.status, said(reply.body))
    assert "gpt-4o-mini" == reply.headers["x-sidecar-model"]


# ---- credentials ----


@pytest.mark.parametrize("way", [Way.DOWN, Way.KILLED, Way.THROTTLED])
async def test_no_other_domain(way, build_lab, us_eu):
    """A caller's own credential never goes to a region of another domain, whatever happens in its own."""
    us, spy = us_eu
    regions = service(us.rule(credential_domain="ours"), spy.rule(priority=2, credential_domain="theirs"))
    lab = await build_lab("", services=regions, routes=route(fallback=(FallbackRule("model", "gpt-4o-mini"),)))
    assert {200} == {(await lab.ask(mixed(number))).status for number in range(4)}
    await us.become(way)
    replies = [await lab.ask(mixed(10 + number)) for number in range(8)]

    assert {429, 500, 502, 503} >= {reply.status for reply in replies}
    assert (0, 0) == (spy.attempts, spy.open)


@pytest.mark.parametrize("bypassed", [False, True], ids=["looked-up", "bypassed"])
async def test_own_credential_in_place_of_the_callers(bypassed, build_lab, us_eu, own_key):
    """A region with a credential of its own gets that, and no form in which the caller's may have come."""
    us, spy = us_eu
    await us.become(Way.KILLED)
    regions = service(
        us.rule(credential_domain="ours"), spy.rule(priority=2, credential_domain="theirs", credential=own_key)
    )
    lab = await build_lab("", services=regions, routes=route())
    secret = SECRET.decode()
    headers = {"x-api-key": secret, "api-key": secret, "ocp-apim-subscription-key": secret, "x-goog-api-key": secret}
    path = f"/openai/v1/chat/completions?subscription-key={secret}&a=%20b&key={secret}&api_key={secret}&c"
    replies = [await lab.ask(chat(number, bypassed=bypassed), path=path, headers=headers) for number in range(6)]
    fields = [line for head, _ in spy.seen for line in head.split(b"\r\n") if b"authorization:" in line.lower()]

    assert [200] * 6 == [reply.status for reply in replies]
    assert 6 == spy.calls
    assert [b"authorization: Bearer " + OWN] * 6 == fields
    assert not spy.wrote(SECRET)
    assert {b"POST /v1/chat/completions?a=%20b&c HTTP/1.1"} == {head.partition(b"\r\n")[0] for head, _ in spy.seen}
    assert KEY.encode().endswith(SECRET)


async def test_own_credential_of_another_header(build_lab, us_eu, tmp_path):
    """Where the credential's header is another one than the caller's, the caller's is still left out."""
    us, spy = us_eu
    file = tmp_path / "own"
    file.write_bytes(OWN)
    await us.become(Way.KILLED)
    regions = service(
        us.rule(),
        spy.rule(priority=2, credential=StoredCredential("x-api-key", str(file))),
        name="anthropic",
        path="/anthropic",
    )
    lab = await build_lab("", services=regions, routes=route())
    headers = {"x-api-key": SECRET.decode(), "anthropic-version": "2023-06-01"}
    reply = await lab.ask(CLAUDE, path=CLAUDE_PATH, headers=headers)

    assert 200 == reply.status
    assert spy.wrote(b"x-api-key: " + OWN)
    assert not spy.wrote(SECRET)


async def test_missing_credential_is_not_the_callers(build_lab, us_eu, tmp_path):
    """A region whose credential cannot be had is passed by; the caller's doesn't go in its place."""
    us, spy = us_eu
    missing = StoredCredential("authorization", str(tmp_path / "missing"), "Bearer ")
    lab = await build_lab("", services=service(spy.rule(credential=missing), us.rule(priority=2)), routes=route())
    replies = [await lab.ask(mixed(number)) for number in range(8)]
    await us.become(Way.KILLED)
    failed = [await lab.ask(mixed(10 + number)) for number in range(4)]

    assert ["us"] * 8 == seen_by(replies)
    assert {502, 503} >= {reply.status for reply in failed}
    assert 0 == spy.attempts


async def test_own_credential_proves_nothing_of_the_caller(build_lab, us_eu, own_key):
    """An answer that the region's own credential has earned is no proof of the caller's, so nobody shares it."""
    us, spy = us_eu
    rule = CacheRule(mode=CacheMode.DETERMINISTIC, share=Share("service"))
    await us.become(Way.KILLED)
    regions = service(us.rule(), spy.rule(priority=2, credential=own_key))
    lab = await build_lab("", services=regions, routes=route(cache=rule))
    replies = [await lab.ask(chat(1), headers={"authorization": "Bearer sk-made-up"}) for _ in range(2)]

    assert [200, 200] == [reply.status for reply in replies]
    assert ["sidecar; fwd=miss"] * 2 == [reply.cache for reply in replies]
    assert 0 == lab.sidecar.memory.entries
