"""An operation that an answer begins is polled through the sidecar, whether or not its route looks calls up."""

from __future__ import annotations

import pytest

from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import whole

RESULT = "/documents/results/1?api-version=1"


@pytest.mark.parametrize("mode", [CacheMode.OFF, CacheMode.ALWAYS])
@pytest.mark.parametrize("status", ["202 Accepted", "201 Created", "200 OK"])
async def test_polled_through_here(mode, status, build_lab, script):
    """The address at the service's own host leads here; one at another host stays."""

    async def begin(head, _body, writer):
        host = head.lower().split(b"host: ")[1].split(b"\r\n")[0]
        extra = b"Operation-Location: http://%b%b\r\nLocation: https://elsewhere.example/\r\n" % (host, RESULT.encode())
        writer.write(whole(b"{}", status=status, extra=extra))

    upstream = await script(begin)
    documents = Service("documents", DIALECTS["generic"], (Region("here", upstream.url),), path="/documents-service")
    route = Route("documents", cache=CacheRule(mode=mode))
    lab = await build_lab(upstream.url, routes=(route,), services=(documents,))

    reply = await lab.ask({"urlSource": "x"}, path="/documents-service/documents/m:analyze", headers={"api-key": "k"})
    await lab.settle()
    polled = await lab.ask(b"", method="GET", path=reply.headers["operation-location"].removeprefix(lab.url))

    assert f"{lab.url}/documents-service{RESULT}" == reply.headers["operation-location"]
    assert "https://elsewhere.example/" == reply.headers["location"]
    assert polled.status == reply.status
    assert {CacheMode.OFF: "bypass", CacheMode.ALWAYS: "miss"}[mode] == lab.records[0].outcome
    assert f"GET {RESULT} HTTP/1.1".encode() == upstream.seen[1][0].split(b"\r\n")[0]
