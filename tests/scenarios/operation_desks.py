"""Callers of long-running operations that speak HTTP themselves, and the services that they ask."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sidecar.core.rules import CacheMode, CacheRule, Region, Service
from sidecar.demo.provider import DemoProvider
from sidecar.dialects import DIALECTS
from tests.scenarios.lab import Lab

START = "/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30"
KEY = {"ocp-apim-subscription-key": "k-1", "content-type": "application/pdf"}
OTHER = {"ocp-apim-subscription-key": "k-2", "content-type": "application/pdf"}
IMPATIENT = {"x-stainless-read-timeout": "0.2"}
"""A caller that gives up soon is told soon that the operation runs."""

KEPT = CacheRule(CacheMode.DETERMINISTIC)
OFF = CacheRule(CacheMode.OFF)


def service(*urls: str) -> Service:
    """The documents' service in so many regions, the first before the others."""
    regions = tuple(
        Region(f"r{number}", url, priority=number, credential_domain="same") for number, url in enumerate(urls, 1)
    )
    return Service("documents", DIALECTS["azure-documents"], regions, path="/docs")


@dataclass
class Desk:
    """A sidecar with callers that speak HTTP themselves."""

    lab: Lab

    async def start(self, data: bytes = b"%PDF-1 one", **more: Any) -> Any:
        """Begin an analysis."""
        headers = {"authorization": None, **KEY, **more.pop("headers", {})}
        return await self.lab.ask(data, path=f"/docs{START}", headers=headers, **more)

    async def poll(self, started: Any, *, part: str = "", method: str = "GET", headers: Any = KEY) -> Any:
        """Ask about an operation, at the address that its start has named."""
        where = started.headers["operation-location"].removeprefix(self.lab.url)
        path, _, query = where.partition("?")
        given = {"authorization": None, "content-type": None, **headers}
        return await self.lab.ask(b"", path=f"{path}{part}?{query}", method=method, headers=given)

    async def result(self, started: Any, headers: Any = KEY) -> Any:
        """The answer to the last poll."""
        while True:
            reply = await self.poll(started, headers=headers)
            if reply.status != 200 or json.loads(reply.body)["status"].lower() not in {"running", "notstarted"}:
                return reply
            assert "1" == reply.headers["retry-after"]

    async def analyse(self, data: bytes = b"%PDF-1 one", headers: Any = KEY) -> Any:
        started = await self.start(data, headers=headers)
        assert 202 == started.status, started.body
        return json.loads((await self.result(started, headers)).body)["analyzeResult"]


@asynccontextmanager
async def standing() -> AsyncIterator[tuple[DemoProvider, str]]:
    """One more stand-in: another region, which knows no operation of the first."""
    there = DemoProvider()
    port = await there.start()
    try:
        yield there, f"http://127.0.0.1:{port}"
    finally:
        await there.stop()
