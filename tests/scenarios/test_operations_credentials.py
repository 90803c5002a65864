"""Who may ask about an operation: callers of its partition whose credential the service is known to accept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sidecar.core.rules import Route, Share
from tests.scenarios.answers import whole
from tests.scenarios.conftest import VENDORS
from tests.scenarios.operation_desks import KEPT, KEY, OTHER, Desk, service
from tests.scenarios.tokens import SUBJECT, bearer, token

RESULT = "/documentintelligence/documentModels/prebuilt-layout/analyzeResults/7f0c?api-version=2024-11-30"
DONE = json.dumps({"status": "succeeded", "analyzeResult": {"modelId": "prebuilt-layout", "pages": [{}]}}).encode()
NOBODY: dict[str, str | None] = {"ocp-apim-subscription-key": None}


class Guarded:
    """A service that takes only the credentials *good*. *busy*: so many polls are refused for their number."""

    def __init__(self, *good: bytes) -> None:
        self.good = good
        self.busy = 0
        self.asked: list[str] = []

    async def __call__(self, head: bytes, _body: bytes, writer) -> None:
        method = head.split()[0].decode()
        host = head.lower().split(b"host: ")[1].split(b"\r\n")[0]
        self.asked.append(method)
        if not any(one in head for one in self.good):
            writer.write(whole(b'{"error":{"code":"401"}}', status="401 Unauthorized"))
        elif method == "POST":
            where = b"Operation-Location: http://%b%b\r\n" % (host, RESULT.encode())
            writer.write(whole(b"", status="202 Accepted", extra=where))
        elif self.busy:
            self.busy -= 1
            writer.write(whole(b"{}", status="429 Too Many Requests"))
        else:
            writer.write(whole(b"" if method == "DELETE" else DONE))


def given(jti: int) -> dict[str, str | None]:
    """A token of the same caller."""
    return {**bearer(token(**SUBJECT, jti=jti)), "ocp-apim-subscription-key": None}


@pytest.fixture
def build_desk(build_lab, script):
    async def build(guarded: Guarded, rule=KEPT) -> Desk:
        upstream = await script(guarded)
        vendor = replace(service(upstream.url), dialect=VENDORS["azure-documents"])
        lab = await build_lab("", services=(vendor,), routes=(Route("documents", cache=rule),))
        lab.clocks.without_pauses()
        return Desk(lab)

    return build


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_forged(build_desk, method):
    """A token that says the same of its bearer, but that nobody has seen accepted, is the service's to judge."""
    guarded = Guarded(given(1)["authorization"].encode())
    desk = await build_desk(guarded)
    started = await desk.start(headers=given(1))
    await desk.result(started, headers=given(1))
    forged = await desk.poll(started, method=method, headers=given(2))
    hit = await desk.start(headers=given(1))

    assert 401 == forged.status
    assert b"analyzeResult" not in forged.body
    assert hit.headers["cache-status"].startswith("sidecar; hit")
    assert "DELETE" not in guarded.asked


async def test_rotated(build_desk):
    """A token that follows another one is judged once; a service that has no time for that is asked again."""
    guarded = Guarded(given(1)["authorization"].encode(), given(2)["authorization"].encode())
    desk = await build_desk(guarded)
    started = await desk.start(headers=given(1))
    await desk.result(started, headers=given(1))
    before, guarded.busy = len(guarded.asked), 1
    busy = await desk.poll(started, headers=given(2))
    found = [await desk.result(started, headers=given(2)) for _ in range(3)]

    assert ("running", "1") == (json.loads(busy.body)["status"], busy.headers["retry-after"])
    assert [200] * 3 == [reply.status for reply in found]
    assert ["GET"] * 2 == guarded.asked[before:]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("headers", [OTHER, NOBODY])
async def test_shared_by_all(build_desk, headers, method):
    """A route that shares with every caller of a service shares with those that the service accepts."""
    guarded = Guarded(KEY["ocp-apim-subscription-key"].encode())
    desk = await build_desk(guarded, replace(KEPT, share=Share("service")))
    started = await desk.start()
    await desk.result(started)
    reply = await desk.poll(started, method=method, headers=headers)
    hit = await desk.start()

    assert 401 == reply.status
    assert hit.headers["cache-status"].startswith("sidecar; hit")
