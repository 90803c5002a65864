"""Behind a gateway: whose answer it is stands in any field, and so does what is asked."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

import pytest

from sidecar.core.request.noise import NOISE
from sidecar.core.rules import CacheMode, CacheRule, HeaderRule, Region, Route, Service, Share, StoredCredential
from sidecar.dialects import DIALECTS
from tests.core.request.credentials import SECRETIVE
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT, VENDORS

ALWAYS = CacheRule(mode=CacheMode.ALWAYS)
DUMMY = {"authorization": "Bearer sk-the-same-for-all"}
PATH = "/gateway/v1/chat/completions"


@pytest.fixture
async def numbered(script):
    """An upstream whose every answer is another one."""
    numbers = count(1)

    async def answer(head, body, writer):
        writer.write(whole(completion(f"answer {next(numbers)}")))

    return await script(answer)


def gateway(url: str, dialect: str = "openai", **more: Any) -> dict[str, Any]:
    """What a lab is built with that stands before a gateway."""
    service = Service("gateway", DIALECTS[dialect], (Region("here", url),), path="/gateway", **more)
    return {"services": (service,), "routes": (Route("all", cache=ALWAYS),)}


def names(*left: str) -> list[str]:
    """Names of credentials that a caller can send in a field of its own."""
    return [name for name in SECRETIVE if name not in {"authorization", "proxy-authorization", *left}]


@pytest.mark.parametrize("name", names())
async def test_tenants_behind_one_key(name, build_lab, numbered):
    """All send one key to the gateway and their own beside it: each has its own answers, by the fast path too."""
    lab = await build_lab(numbered.url, **gateway(numbered.url))

    async def ask(tenant: str) -> str:
        return said((await lab.ask(path=PATH, headers=DUMMY | {name: tenant})).body)

    for _ in range(3):  # the first learns the head, the others are found by it
        assert ["answer 1", "answer 2"] == [await ask("tenant-1"), await ask("tenant-2")]
    assert 2 == numbered.calls


@pytest.mark.parametrize("name", names())
async def test_tenants_in_the_fleet(name, build_fleet, numbered):
    """One tenant's answer in Redis is not another's."""
    labs = await build_fleet(numbered.url, **gateway(numbered.url))

    async def ask(lab: Any, tenant: str) -> str:
        reply = await lab.ask(path=PATH, headers=DUMMY | {name: tenant})
        await lab.settle()
        return said(reply.body)

    assert ["answer 1", "answer 2"] == [await ask(labs[0], "tenant-1"), await ask(labs[1], "tenant-2")]
    assert "answer 1" == await ask(labs[1], "tenant-1")
    assert 2 == numbered.calls


@pytest.mark.parametrize("name", names())
async def test_tenants_in_flight(name, build_lab, script, dial):
    """Equal calls of two tenants at the same time are two calls."""
    go, numbers = asyncio.Event(), count(1)

    async def answer(head, body, writer):
        number = next(numbers)
        await go.wait()
        writer.write(whole(completion(f"answer {number}")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url, **gateway(upstream.url))
    first = await dial(lab, path=PATH, headers=DUMMY | {name: "tenant-1"})
    await lab.until(lambda: upstream.calls == 1)
    second = await dial(lab, path=PATH, headers=DUMMY | {name: "tenant-2"})
    await lab.until(lambda: upstream.calls == 2)
    joined = await dial(lab, path=PATH, headers=DUMMY | {name: "tenant-1"})
    await lab.until(lambda: lab.waiting == 3)
    go.set()
    replies = [await caller.reply() for caller in (first, second, joined)]

    assert ["answer 1", "answer 2", "answer 1"] == [said(reply.body) for reply in replies]


@pytest.mark.parametrize(
    "name",
    ["x-portkey-provider", "x-portkey-config", "helicone-target-url", "extra-parameters", "x-amz-target", "soapaction",
     "mcp-session-id", "x-tenant", "accept-language", "x-made-up"],
)  # fmt: skip
@pytest.mark.parametrize("dialect", ["openai", "generic"])
async def test_what_is_asked_in_a_field(name, dialect, build_lab, numbered):
    """A gateway chooses by it, so its value counts, by the fast path too; at the vendor's own host it doesn't."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, dialect))

    async def ask(value: str | None) -> str:
        return said((await lab.ask(path=PATH, headers={name: value})).body)

    for _ in range(3):
        assert ["answer 1", "answer 2", "answer 3"] == [await ask("a"), await ask("b"), await ask(None)]


@pytest.mark.parametrize("dialect", ["openai", "generic"])
async def test_what_is_preferred(dialect, build_lab, numbered):
    """What goes upstream of ``Prefer`` counts; the wish to wait for nothing is spoken to the sidecar."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, dialect))

    async def ask(value: str | None) -> str:
        return said((await lab.ask(path=PATH, headers={"prefer": value})).body)

    for _ in range(2):
        assert ["answer 1", "answer 2", "answer 3", "answer 1", "answer 2"] == [
            await ask("return=minimal"), await ask("return=representation"), await ask(None),
            await ask("respond-async, return=minimal"), await ask("return=representation,respond-async;x=1"),
        ]  # fmt: skip
    assert "answer 3" == await ask("respond-async")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("?key=DE", "?key=FR"), ("?key=", ""), ("?key", ""), ("?subscription-key=", "?key="),
        ("?key=DE&key=FR", "?key=FR&key=DE"), ("?key=DE", "?key=DE&key=DE"), ("?key=DE", "?subscription-key=DE"),
        ("?key=DE&a=1", "?a=1&key=DE"), ("?k%65y=DE", "?key=DE"),
    ],
)  # fmt: skip
async def test_a_key_that_may_be_a_records(one, two, build_lab, numbered):
    """Nobody knows what ``key`` is to a generic service: it counts as it is written, beside being the caller's."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, "generic"))

    async def ask(query: str) -> str:
        return said((await lab.ask(path=PATH + query)).body)

    for _ in range(2):
        assert ["answer 1", "answer 2"] == [await ask(one), await ask(two)]


async def test_at_the_vendors_own_host(build_lab, numbered):
    """What the vendor passes over splits nothing there."""
    lab = await build_lab(numbered.url)
    replies = [await lab.ask(headers={"x-portkey-provider": value}) for value in ("a", "b")]

    assert ["answer 1", "answer 1"] == [said(reply.body) for reply in replies]


@pytest.mark.parametrize("kind", sorted(NOISE))
async def test_noise_splits_nothing(kind, build_lab, numbered):
    """Whatever documented noise says, the answer is found again."""
    lab = await build_lab(numbered.url, **gateway(numbered.url))
    own = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "http2-settings",
           "proxy-connection", "proxy-authenticate", "content-length", "host", "content-encoding", "origin",
           "cache-control", "pragma", "sec-fetch-site", "prefer"}  # fmt: skip
    fields = [name.replace("*", "x") for name in NOISE[kind] if name not in own]
    first = await lab.ask(path=PATH, headers={})
    for value in ("1", "2"):
        reply = await lab.ask(path=PATH, headers=dict.fromkeys(fields, value))

        assert (first.body, True) == (reply.body, reply.cache.startswith("sidecar; hit"))


async def test_what_its_owner_knows(build_lab, numbered):
    """A job's number says nothing, a trace decides, and a badge is a credential: where the configuration says so."""
    rule = HeaderRule(count=frozenset({b"traceparent"}), ignore=frozenset({b"x-job-id"}))
    more = {"headers": rule, "credential_headers": frozenset({b"x-badge"})}
    lab = await build_lab(numbered.url, **gateway(numbered.url, **more))

    async def ask(**headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return said((await lab.ask(path=PATH, headers=named)).body)

    assert ["answer 1"] * 2 == [await ask(x_job_id="1"), await ask(x_job_id="2")]
    assert ["answer 2", "answer 3"] == [await ask(traceparent="1"), await ask(traceparent="2")]
    assert ["answer 4", "answer 5"] == [await ask(x_badge="1"), await ask(x_badge="2")]


async def test_a_selector_under_a_shared_partition(build_lab, numbered, tmp_path):
    """Who shares with everybody still gets the answer of the provider that it asks."""
    key = tmp_path / "key"
    key.write_text("sk-region")
    regions = (Region("here", numbered.url, credential=StoredCredential("authorization", str(key), "Bearer ")),)
    service = Service("gateway", DIALECTS["openai"], regions, path="/gateway")
    route = Route("all", cache=CacheRule(mode=CacheMode.ALWAYS, share=Share("service")))
    lab = await build_lab(numbered.url, services=(service,), routes=(route,))
    replies = [
        await lab.ask(path=PATH, headers={"authorization": f"Bearer {who}", "x-portkey-virtual-key": provider})
        for who, provider in (("1", "a"), ("2", "a"), ("2", "b"))
    ]

    assert ["answer 1", "answer 1", "answer 2"] == [said(reply.body) for reply in replies]
    assert not any(b"bearer 1" in head.lower() or b"x-portkey" in head.lower() for head, _ in numbered.seen)


async def test_callers_that_sign(build_lab, numbered, tmp_path):
    """A signature proves nothing that can be checked here; where the region brings the credential, it doesn't count."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, "generic"))
    signed = {"authorization": "AWS4-HMAC-SHA256 Credential=AKID/x, SignedHeaders=host, Signature=abc"}
    replies = [await lab.ask(path="/gateway/model/m/invoke", headers=signed) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=unprovable-signature"] * 2 == [reply.cache for reply in replies]
    key = tmp_path / "key"
    key.write_text("sk-region")
    region = Region("here", numbered.url, credential=StoredCredential("authorization", str(key), "Bearer "))
    service = Service("gateway", DIALECTS["generic"], (region,), path="/gateway")
    environ = {"SIDECAR_POD_NAMESPACE": "team", "SIDECAR_SERVICE_ACCOUNT": "app"}
    lab = await build_lab(
        numbered.url, services=(service,), routes=(Route("all", cache=ALWAYS),), environ=environ
    )  # fmt: skip
    replies = [await lab.ask(path="/gateway/model/m/invoke", headers=signed) for _ in range(2)]

    assert ["answer 3", "answer 3"] == [said(reply.body) for reply in replies]


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Basic", "Basic Og=="])
async def test_an_empty_credential(value, build_lab, numbered):
    """Nobody knows whose such a call is."""
    lab = await build_lab(numbered.url, **gateway(numbered.url))
    replies = [await lab.ask(path=PATH, headers={"authorization": value}) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=no-credential"] * 2 == [reply.cache for reply in replies]


@pytest.mark.parametrize(
    ("one", "two"),
    [("?a=1&%61=2", "?a=1&a=2"), ("?a=1&b=2", "?b=2&a=1"), ("?A=1", "?a=1"), ("?a=1&", "?a=1"), ("?", "?&"),
     ("?x=%2F", "?x=%2f"), ("?a=1;key=1", "?a=1;key=2"), ("?q=a+b", "?q=a%20b")],
)  # fmt: skip
async def test_queries(one, two, build_lab, numbered):
    """A query counts as it is written: what a service makes of it is the service's to say."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, "generic"))
    replies = [await lab.ask(path=f"/gateway/x{query}") for query in (one, two, one)]

    assert ["answer 1", "answer 2", "answer 1"] == [said(reply.body) for reply in replies]


@pytest.mark.parametrize("charset", ["utf-7", "latin-1", "utf-16", '"shift_jis"', "utf-8; charset=utf-7"])
@pytest.mark.parametrize("dialect", ["openai", "generic"])
async def test_another_charset(charset, dialect, build_lab, numbered):
    """The same bytes mean something else there, so such a call goes its way as it came."""
    lab = await build_lab(numbered.url, **gateway(numbered.url, dialect))
    body = json.dumps(CHAT).encode()
    headers = {"content-type": f"application/json; charset={charset}"}
    replies = [await lab.ask(body, path=PATH, headers=headers) for _ in range(2)]

    assert ["sidecar; fwd=bypass; detail=charset"] * 2 == [reply.cache for reply in replies]
    assert [body] * 2 == [sent for _, sent in numbered.seen]
    assert b"charset=" + charset.encode() in numbered.seen[0][0]


@pytest.mark.parametrize("lent", [True, False], ids=["region's credential", "caller's own"])
@pytest.mark.parametrize(
    "fields",
    [{"host": "attacker.example"}, {"origin": "https://attacker.example"}, {"sec-fetch-site": "cross-site"}],
    ids=["host", "origin", "site"],
)
async def test_a_page_in_a_browser(fields, lent, build_lab, numbered, tmp_path):
    """A page can have its reader's browser send anything here, as text/plain; it spends no credential of ours."""
    key = tmp_path / "key"
    key.write_text("sk-region")
    credential = StoredCredential("authorization", str(key), "Bearer ") if lent else None
    service = Service(
        "openai", VENDORS["openai"], (Region("here", numbered.url, credential=credential),), path="/openai"
    )
    lab = await build_lab(numbered.url, services=(service,))
    replies = [await lab.ask(headers={"content-type": "text/plain", **fields}) for _ in range(2)]

    if lent:
        assert [421 if "host" in fields else 403] * 2 == [reply.status for reply in replies]
        assert 0 == numbered.calls
        assert b"attacker" not in replies[0].body
    else:
        assert ["answer 1", "answer 2"] == [said(reply.body) for reply in replies]
        assert {"sidecar; fwd=bypass; detail=foreign-" + ("host" if "host" in fields else "origin")} == {
            reply.cache for reply in replies
        }
