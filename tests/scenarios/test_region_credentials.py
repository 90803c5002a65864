"""Regions with a credential of their own: it changes under load, tokens come and expire, and no call notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sidecar.core.http.headers import CREDENTIAL_QUERY
from sidecar.core.rules import AzureIdentity, Region, StoredCredential
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT_PATH, KEY, Lab
from tests.scenarios.desks import AS_BROKEN, Desk, counted, metric, question, services, transitions

REFUSED = whole(b'{"error":{"code":"401","message":"Access denied."}}', status="401 Unauthorized")

LANES = 8
"""Callers that ask at once, under load."""


class Gatekeeper:
    """A service that takes the credentials in *valid* alone, and counts the calls that it *refused*."""

    def __init__(self, *valid: str) -> None:
        self.valid = list(valid)
        self.refused = 0

    async def __call__(self, head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.002)  # so that calls are under way when something happens
        if presented(head) in self.valid:
            writer.write(whole(completion("It is a box.")))
        else:
            self.refused += 1
            writer.write(REFUSED)


class Issuer:
    """
    An identity endpoint. It issues ``token-1``, ``token-2`` ..., each for *seconds*; the *gate* takes it and the one
    before. The statuses in *ill* are answered before that, one a request.
    """

    def __init__(self, gate: Gatekeeper, seconds: float) -> None:
        self.gate = gate
        self.seconds = seconds
        self.ill: list[int] = []
        self.issued = 0

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        if self.ill:
            status = self.ill.pop(0)
            writer.write(whole(b'{"error":"temporarily_unavailable"}', status=f"{status} Not now"))
            return
        self.issued += 1
        token = f"token-{self.issued}"
        self.gate.valid = [*self.gate.valid[-1:], f"Bearer {token}"]
        answer = {"access_token": token, "expires_in": str(self.seconds), "resource": "r", "token_type": "Bearer"}
        writer.write(whole(json.dumps(answer).encode()))


def presented(head: bytes) -> str:
    """The credential in a request's head: all of its authorization fields."""
    lines = head.decode().split("\r\n")
    return ", ".join(line.partition(": ")[2] for line in lines if line.lower().startswith("authorization:"))


def mount(folder: Path, text: str) -> str:
    """A Secret's volume as kubelet makes and swaps it; the path by which a program knows the key."""
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "key").write_text(text)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").replace(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")
    return str(folder / "key")


@asynccontextmanager
async def load(lab: Lab) -> AsyncIterator[Any]:
    """Fresh questions by several callers at once while the block runs; yields what waits for so many more answers."""
    running, answered = True, 0

    async def press(lane: int) -> None:
        nonlocal answered
        number = 0
        while running:
            number += 1
            reply = await lab.ask(question(1000 * lane + number))
            answered += 1

            assert (200, "It is a box.") == (reply.status, said(reply.body))

    async def more(calls: int) -> None:
        until = answered + calls
        await lab.until(lambda: answered >= until or any(lane.done() for lane in lanes))

    lanes = [asyncio.ensure_future(press(lane)) for lane in range(1, LANES + 1)]
    try:
        yield more
    finally:
        running = False
        await asyncio.gather(*lanes)


async def test_a_key_is_swapped_under_load(build_lab, script, tmp_path):
    """A Secret changes, and its old key is refused from then on: every call is answered, each after one 401 at most."""
    gate = Gatekeeper("Bearer old")
    upstream = await script(gate)
    stored = StoredCredential("authorization", mount(tmp_path, "old\n"), "Bearer ")
    lab = await build_lab("", services=services(Region("here", upstream.url, credential=stored)))
    async with load(lab) as more:
        await more(50)
        for old, new in (("old", "new"), ("new", "newest")):
            before = gate.refused
            mount(tmp_path, f"{new}\n")
            gate.valid = [f"Bearer {new}"]
            await more(50)

            assert gate.refused - before <= LANES
            assert 0 < counted(upstream, f"Bearer {old}\r") < upstream.calls

    assert {1, 2} >= {record.attempts for record in lab.records}
    assert {"unauthorized"} >= {cause for record in lab.records for cause in record.retry_causes}
    assert gate.refused == sum(record.attempts - 1 for record in lab.records)
    assert 0 == counted(upstream, KEY)
    assert [] == transitions(lab)


async def test_a_key_that_is_no_good(build_lab, script, tmp_path):
    """Where the file has no other key, the refusal is the answer, after one attempt, and moves no breaker."""
    upstream = await script(Gatekeeper())
    stored = StoredCredential("authorization", mount(tmp_path, "old\n"), "Bearer ")
    lab = await build_lab("", services=services(Region("here", upstream.url, credential=stored)))
    replies = [await lab.ask(question(number)) for number in range(12)]

    assert {401} == {reply.status for reply in replies}
    assert 12 == upstream.calls
    assert [] == transitions(lab)


@pytest.fixture(params=["managed", "workload"])
async def issuing(request, build_lab, script, tmp_path):
    """A lab before a service that wants tokens, and who issues them: for the machine, or for its service account's."""
    gate = Gatekeeper()
    upstream = await script(gate)
    issuer = Issuer(gate, 86_000)
    endpoint = await script(issuer)
    (tmp_path / "service-account").write_text("aaaa.bbbb.cccc\n")
    environ = {
        "managed": {"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url},
        "workload": {
            "AZURE_CLIENT_ID": "client-1",
            "AZURE_TENANT_ID": "tenant-1",
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "service-account"),
            "AZURE_AUTHORITY_HOST": endpoint.url,
        },
    }[request.param]

    async def build(*ill: int, seconds: float = 86_000) -> tuple[Lab, Gatekeeper, Issuer]:
        issuer.ill[:] = ill
        issuer.seconds = seconds
        region = Region("here", upstream.url, credential=AzureIdentity(request.param))
        return await build_lab("", services=services(region), environ=environ), gate, issuer

    build.kind, build.endpoint, build.upstream = request.param, endpoint, upstream
    return build


async def test_a_token_of_azures(issuing):
    """One request for a token serves all calls; the caller's own credential stays here."""
    lab, gate, issuer = await issuing()
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(20)))
    ((head, body),) = issuing.endpoint.seen
    method, target, _ = head.decode().split(" ", 2)
    query, form = parse_qs(urlsplit(target).query), parse_qs(body.decode())

    assert {200} == {reply.status for reply in replies}
    assert (1, 0) == (issuer.issued, gate.refused)
    assert {"Bearer token-1"} == {presented(head) for head, _ in issuing.upstream.seen}
    if issuing.kind == "managed":
        assert ("GET", ["https://cognitiveservices.azure.com"]) == (method, query["resource"])
        assert b"metadata: true" in head.lower()
    else:
        assert ("POST", "/tenant-1/oauth2/v2.0/token") == (method, target)
        assert (["aaaa.bbbb.cccc"], ["client-1"]) == (form["client_assertion"], form["client_id"])


async def test_tokens_expire_under_load(issuing):
    """Tokens that hold for half a second: each is replaced before its end, by one request, and not used after it."""
    lab, gate, issuer = await issuing(seconds=0.5)
    async with load(lab) as more:
        await lab.until(lambda: issuer.issued > 4)
        await more(LANES)

    assert 0 == gate.refused
    assert 1 == max(record.attempts for record in lab.records)
    assert issuer.issued == len(issuing.endpoint.seen)


async def test_an_endpoint_that_is_being_updated(issuing):
    """The endpoint says 410 at the start: the calls that came wait, and are answered."""
    lab, _, issuer = await issuing(410)
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(10)))

    assert {200} == {reply.status for reply in replies}
    assert (1, 2) == (issuer.issued, len(issuing.endpoint.seen))
    assert 10 == issuing.upstream.calls
    (line,) = [json.loads(line) for line in lab.logs if b'"credential-unusable"' in line]
    assert "answered 410" in line["message"]


async def test_an_endpoint_that_fails(issuing):
    """The endpoint fails when a token is due: that one serves to its end, and whoever comes then waits for the next."""
    lab, gate, issuer = await issuing(seconds=1.0)
    await lab.ask(question(0))
    issuer.ill[:] = [500]
    async with load(lab) as more:
        await lab.until(lambda: not issuer.ill)
        before = issuing.upstream.calls
        await lab.until(lambda: issuer.issued > 1)
        await more(LANES)

    assert before < counted(issuing.upstream, "token-1")
    assert 0 < counted(issuing.upstream, "token-2")
    assert (2, 3, 0) == (issuer.issued, len(issuing.endpoint.seen), gate.refused)
    assert 1 == sum(b'"credential-unusable"' in line for line in lab.logs)


async def test_a_token_is_revoked_under_load(issuing):
    """A valid token is refused: one forced request for another, and every call is answered, by two attempts at most."""
    lab, gate, issuer = await issuing()
    async with load(lab) as more:
        await more(50)
        gate.valid.clear()
        await more(50)

    assert (2, 2) == (issuer.issued, len(issuing.endpoint.seen))
    assert 0 < gate.refused <= LANES
    assert {1, 2} == {record.attempts for record in lab.records}
    assert {'reason="unauthorized",service="openai"': float(gate.refused)} == metric(lab, "failovers_total")
    assert [] == transitions(lab)


async def test_a_right_that_is_missing(issuing):
    """A service that refuses every token is asked twice by the first call, then once by each: no storm of tokens."""
    lab, gate, issuer = await issuing()
    await lab.ask(question(0))
    issuer.gate = Gatekeeper()  # what is issued from now on opens nothing
    gate.valid.clear()
    replies = await asyncio.gather(*(lab.ask(question(number)) for number in range(1, 21)))

    assert {401} == {reply.status for reply in replies}
    assert 2 == issuer.issued
    assert gate.refused <= 40
    before = gate.refused
    await lab.ask(question(100))
    assert (before + 1, 2) == (gate.refused, issuer.issued)


async def test_no_token_is_to_be_had(build_lab, script, tmp_path):
    """A region whose credential cannot be had is passed over; alone, it is a prompt 503, and nobody was called."""
    good = await script(Desk("second"))
    lost = await script(Desk("first"))
    alone = await build_lab("", services=services(Region("first", lost.url, credential=AzureIdentity("workload"))))
    refused = await alone.ask(question(0))
    stored = StoredCredential("api-key", str(tmp_path / "nothing"))
    places = Region("first", lost.url, credential=stored), Region("second", good.url, 2)
    lab = await build_lab("", services=services(*places))
    reply = await lab.ask(question(0))

    assert (503, "no-credential") == (refused.status, refused.json()["error"]["code"])
    assert (200, "second") == (reply.status, said(reply.body))
    assert 0 == lost.calls
    assert [] == transitions(lab) == transitions(alone)


SECRET = "sk-of-the-caller"

HIDDEN = {
    "bearer": ({"authorization": f"Bearer {SECRET}"}, ""),
    "api-key": ({"authorization": None, "api-key": SECRET}, ""),
    "x-api-key": ({"authorization": None, "x-api-key": SECRET}, ""),
    "subscription": ({"authorization": None, "ocp-apim-subscription-key": SECRET}, ""),
    "goog": ({"authorization": None, "x-goog-api-key": SECRET}, ""),
    "several": ({"authorization": f"Bearer {SECRET}", "api-key": SECRET, "x-api-key": SECRET}, f"?key={SECRET}"),
    **{name: ({}, f"?a=1&{name}={SECRET}&b=2") for name in sorted(CREDENTIAL_QUERY)},
    "encoded": ({}, f"?api%2Dkey={SECRET}&Subscription-Key={SECRET}"),
}


@pytest.mark.parametrize("cached", [True, False], ids=["looked up", "bypassed"])
@pytest.mark.parametrize(("headers", "query"), HIDDEN.values(), ids=HIDDEN)
async def test_a_regions_own_credential_is_the_only_one(build_lab, script, tmp_path, headers, query, cached):
    """Nothing of what a caller presents, in whatever field or query form, reaches a region with its own credential."""
    (tmp_path / "key").write_text("sk-of-the-region")
    upstream = await script(Desk())
    stored = StoredCredential("api-key", str(tmp_path / "key"))
    lab = await build_lab("", services=services(Region("here", upstream.url, credential=stored)))
    asked = {} if cached else {"cache-control": "no-store"}
    reply = await lab.ask(question(0), path=CHAT_PATH + query, headers={**headers, **asked})
    ((head, _),) = upstream.seen

    assert 200 == reply.status
    assert 0 == counted(upstream, SECRET)
    assert b"sk-story" not in head
    assert 1 == head.lower().count(b"api-key: sk-of-the-region\r\n")
    assert b"authorization" not in head.lower()
    assert b"a=1" not in query.encode() or b"?a=1&b=2 " in head


@pytest.mark.parametrize(
    "body", [question(0), question(0, stream=True), question(0, temperature=1)], ids=["kept", "stream", "bypassed"]
)
@pytest.mark.parametrize("answer", [AS_BROKEN, None], ids=["broken", "dead"])
async def test_a_spy_in_another_domain(build_lab, script, answer, body):
    """Whatever happens to the first region, one of another credential domain is not even connected to."""

    async def die(_head, _body, writer):
        writer.transport.abort()

    first = await script(die if answer is None else Desk(says={b"": answer}))
    spy = await script(Desk("spy"))
    places = Region("first", first.url, 1, "ours"), Region("second", spy.url, 2, "theirs")
    lab = await build_lab("", services=services(*places))
    for _ in range(12):
        reply = await lab.ask(body)

        assert reply.status in {500, 502, 503}
    assert (0, 0) == (spy.calls, spy.open)


async def test_a_spy_with_a_credential_of_its_own(build_lab, script, tmp_path):
    """A region of another domain takes over with its own credential; the caller's is not among what it sees."""
    (tmp_path / "key").write_text("sk-of-the-region")
    first, spy = await script(Desk(says={b"": AS_BROKEN})), await script(Desk("spy"))
    stored = StoredCredential("api-key", str(tmp_path / "key"))
    places = Region("first", first.url, 1, "ours"), Region("second", spy.url, 2, "theirs", stored)
    lab = await build_lab("", services=services(*places))
    target = f"{CHAT_PATH}?api-key={SECRET}"
    headers = {"x-api-key": SECRET, "api-key": SECRET}
    replies = [await lab.ask(question(number), path=target, headers=headers) for number in range(8)]

    assert ["spy"] * 8 == [said(reply.body) for reply in replies]
    assert (5, 8) == (counted(first, SECRET), spy.calls)
    assert (0, 0) == (counted(spy, SECRET), counted(spy, KEY))
