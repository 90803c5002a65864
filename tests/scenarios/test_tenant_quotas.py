"""What one caller's credential brings on itself is no other caller's, and nothing of the region's."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheRule, Region, Share, StoredCredential
from tests.scenarios.answers import said, whole
from tests.scenarios.conftest import CHAT
from tests.scenarios.desks import (
    AS_BROKEN,
    AS_THROTTLED,
    Desk,
    counted,
    metric,
    question,
    services,
    standings,
    transitions,
)

POOR, RICH = "sk-tenant-a", "sk-tenant-b"


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def refusal(status, code, message="No.", fields=b""):
    """An error in OpenAI's form."""
    body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
    return whole(json.dumps(body).encode(), status=f"{status} Refused", extra=fields)


FREE_TIER = "Out of call volume quota for OpenAI F0 pricing tier. Please retry after 3 days."

SPENT = {
    "rate": (AS_THROTTLED, 30.0),
    "no wait said": (refusal(429, "rate_limit_exceeded"), 5.0),
    "insufficient_quota": (refusal(429, "insufficient_quota"), 600.0),
    "402": (refusal(402, "billing_error"), 600.0),
    "F0": (refusal(403, "403", FREE_TIER, b"Retry-After: 259200\r\n"), 600.0),
}


@pytest.fixture
async def pair(script):
    """Two regions, each a desk."""
    desks = Desk("first"), Desk("second")
    upstreams = [await script(desk) for desk in desks]
    for upstream, desk in zip(upstreams, desks, strict=True):
        upstream.desk = desk
    return upstreams


@pytest.mark.parametrize(("answer", "seconds"), SPENT.values(), ids=SPENT)
async def test_one_tenant_has_spent_its_quota(build_lab, pair, answer, seconds):
    """A's calls go to the second region after one refusal; B's go on as ever, to the first, each by one attempt."""
    first, second = pair
    first.desk.says[POOR.encode()] = answer
    lab = await build_lab("", services=services(first.url, second.url))
    poor = [await lab.ask(question(number), headers=bearer(POOR)) for number in range(5)]
    rich = await asyncio.gather(*(lab.ask(question(number), headers=bearer(RICH)) for number in range(5)))
    poor += [await lab.ask(question(5), headers=bearer(POOR))]
    standing = (await standings(lab))["first"]

    assert [(200, "second")] * 6 == [(reply.status, said(reply.body)) for reply in poor]
    assert [(200, "first")] * 5 == [(reply.status, said(reply.body)) for reply in rich]
    assert (1, 5) == (counted(first, POOR), counted(first, RICH))
    assert (6, 0) == (counted(second, POOR), counted(second, RICH))
    assert ("closed", 1.0, 1) == (standing["state"], standing["share"], standing["windows"])
    assert seconds - 5.0 < standing["window_seconds"] <= seconds
    assert [] == transitions(lab)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini"])
async def test_a_quota_is_of_one_deployment(build_lab, pair, model):
    """A window that one model's quota has opened says nothing of another model's."""
    first, second = pair
    lab = await build_lab("", services=services(first.url, second.url))
    first.desk.says[b""] = AS_THROTTLED
    await lab.ask(question(0))
    first.desk.says.clear()
    reply = await lab.ask(question(1, model=model))

    assert ("second" if model == "gpt-4o" else "first") == said(reply.body)


async def test_where_its_key_may_not_go(build_lab, pair):
    """A key stays in its domain: where the other region is of another one, its owner gets the refusal, undoctored."""
    first, second = pair
    first.desk.says[POOR.encode()] = AS_THROTTLED
    places = (
        Region("first", first.url, credential_domain="ours"),
        Region("second", second.url, 2, credential_domain="theirs"),
    )
    lab = await build_lab("", services=services(*places))
    poor = [await lab.ask(question(number), headers=bearer(POOR)) for number in range(3)]
    rich = await lab.ask(question(0), headers=bearer(RICH))

    assert [(429, "30")] * 3 == [(reply.status, reply.headers["retry-after"]) for reply in poor]
    assert {"rate_limit_exceeded"} == {reply.json()["error"]["code"] for reply in poor}
    assert {None} == {reply.headers.get("x-should-retry") for reply in poor}
    assert (200, "first") == (rich.status, said(rich.body))
    assert (3, 0) == (counted(first, POOR), second.calls)
    assert [] == transitions(lab)
    assert {'by="service"': 3.0} == metric(lab, "throttled_total")


async def test_by_the_regions_own_key(build_lab, pair, tmp_path):
    """A region of another domain that has a key of its own takes A's calls over, and never sees A's key."""
    first, second = pair
    (tmp_path / "key").write_text("sk-region\n")
    first.desk.says[POOR.encode()] = AS_THROTTLED
    stored = StoredCredential("authorization", str(tmp_path / "key"), "Bearer ")
    places = (
        Region("first", first.url, credential_domain="ours"),
        Region("second", second.url, 2, credential_domain="theirs", credential=stored),
    )
    lab = await build_lab("", services=services(*places))
    poor = [await lab.ask(question(number), headers=bearer(POOR)) for number in range(3)]
    rich = await lab.ask(question(0), headers=bearer(RICH))

    assert ["second"] * 3 == [said(reply.body) for reply in poor]
    assert "first" == said(rich.body)
    assert (1, 0, 3) == (counted(first, POOR), counted(second, POOR), counted(second, "sk-region"))


@pytest.mark.parametrize("regions", [1, 2], ids=["one region", "two regions"])
@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_refusal_in_a_flight(build_lab, pair, dial, status, regions):
    """
    Two credentials wait for one answer: what refuses the one that was sent doesn't reach the other. Where another
    region answers, that is for both.
    """
    first, second = pair
    urls = (first.url, second.url)[:regions]
    lab = await build_lab("", services=services(*urls), cache=CacheRule(share=Share("service")))
    for number, key in enumerate((POOR, RICH)):
        await lab.ask(question(number), headers=bearer(key))  # who shares has to be accepted first
    first.desk.says[POOR.encode()] = refusal(status, "no")
    first.desk.go.clear()
    poor = await dial(lab, headers=bearer(POOR))
    await lab.until(lambda: first.calls == 3)
    rich = [await dial(lab, headers=bearer(RICH)) for _ in range(2)]
    await lab.until(lambda: lab.waiting == 3)
    first.desk.go.set()
    refused, *good = await asyncio.gather(*(caller.reply() for caller in (poor, *rich)))

    if regions == 2 and status in {402, 429}:
        assert [(200, "second")] * 3 == [(reply.status, said(reply.body)) for reply in (refused, *good)]
        assert (2, 1, 1) == (counted(first, POOR), counted(first, RICH), second.calls)
    else:
        assert [(200, "first")] * 2 == [(reply.status, said(reply.body)) for reply in good]
        assert status == refused.status
        assert 0 == second.calls
        assert (2, 3) == (counted(first, POOR), counted(first, RICH))  # who is released asks alone
    assert [] == transitions(lab)
    await lab.settle()


CONTENT_FILTER = whole(
    json.dumps({
        "error": {
            "message": "The response was filtered: the system is experiencing high demand, server overloaded.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation"},
        }
    }).encode(),
    status="400 Bad Request",
)  # fmt: skip

HARMLESS = {
    "content filter": CONTENT_FILTER,
    "400": refusal(400, "invalid_value"),
    "401": refusal(401, "invalid_api_key"),
    "403": refusal(403, "permission_denied"),
    "404": refusal(404, "model_not_found"),
    "409": refusal(409, "conflict"),
    "413": refusal(413, "request_too_large"),
    "422": refusal(422, "unprocessable"),
}


@pytest.mark.parametrize("answer", HARMLESS.values(), ids=HARMLESS)
async def test_what_a_caller_brings_on_itself(build_lab, pair, answer):
    """Twenty-five refused calls are twenty-five attempts at the first region, whose breaker stands as it stood."""
    first, second = pair
    first.desk.says[POOR.encode()] = answer
    lab = await build_lab("", services=services(first.url, second.url))
    poor = [await lab.ask(question(number), headers=bearer(POOR)) for number in range(25)]
    rich = await lab.ask(question(0), headers=bearer(RICH))
    standing = (await standings(lab))["first"]

    assert {int(answer[9:12])} == {reply.status for reply in poor}
    assert {answer.partition(b"\r\n\r\n")[2]} == {reply.body for reply in poor}
    assert (25, 0) == (counted(first, POOR), second.calls)
    assert (200, "first") == (rich.status, said(rich.body))
    assert ("closed", 1.0, 0) == (standing["state"], standing["share"], standing["windows"])
    assert [] == transitions(lab)
    assert {} == metric(lab, "failovers_total")


async def test_what_is_the_regions_fault(build_lab, pair):
    """For comparison: five errors of the region open its breaker for everybody."""
    first, second = pair
    first.desk.says[POOR.encode()] = AS_BROKEN
    lab = await build_lab("", services=services(first.url, second.url))
    poor = [await lab.ask(question(number), headers=bearer(POOR)) for number in range(7)]
    rich = await lab.ask(CHAT, headers=bearer(RICH))

    assert [(200, "second")] * 8 == [(reply.status, said(reply.body)) for reply in (*poor, rich)]
    assert (5, 8) == (first.calls, second.calls)
    assert [("first", "open", "errors")] == transitions(lab)
    assert "open" == (await standings(lab))["first"]["state"]
    assert {'reason="5xx",service="openai"': 5.0} == metric(lab, "failovers_total")
