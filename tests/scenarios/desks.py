"""A service of several regions, each a scripted upstream, and what the sidecar says of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from sidecar.core.rules import BreakerRule, Region, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import completion, whole
from tests.scenarios.conftest import CHAT, Lab, Script

NAMES = ("first", "second", "third")

AS_BROKEN = whole(b'{"error":{"message":"Broken.","type":"server_error","code":null}}', status="500 Broken")

AS_THROTTLED = whole(
    b'{"error":{"message":"Rate limit reached.","type":"requests","param":null,"code":"rate_limit_exceeded"}}',
    status="429 Too Many Requests",
    extra=b"Retry-After: 30\r\n",
)


class Desk:
    """
    A region's handler, which says its name. *says*: what it answers instead to a request whose head has these bytes,
    the first that it has; ``b""`` is in every head. While *go* is clear it holds its answers back.
    """

    def __init__(self, name: str = "here", says: Mapping[bytes, bytes] | None = None) -> None:
        self.name = name
        self.says = dict(says or {})
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        found = [answer for word, answer in self.says.items() if word in head]
        await self.go.wait()
        writer.write(found[0] if found else whole(completion(self.name)))


def services(
    *urls: str | Region, name: str = "openai", breaker: BreakerRule | None = None, **more: Any
) -> tuple[Service, ...]:
    """One service with its regions in this order of priority; those given as addresses are of one credential domain."""
    found = tuple(
        place if isinstance(place, Region) else Region(NAMES[index], place, priority=index + 1)
        for index, place in enumerate(urls)
    )
    path = {"openai": "/openai", "anthropic": "/anthropic", "azure-openai": "/azure"}[name]
    more = {"path": path, "resource": name == "azure-openai", "breaker": breaker or BreakerRule(), **more}
    return (Service(name, DIALECTS[name], found, **more),)


def question(number: int, **more: Any) -> dict[str, Any]:
    """A chat that is no other's."""
    return {**CHAT, "messages": [{"role": "user", "content": f"What is in box {number}?"}], **more}


def counted(upstream: Script, word: str) -> int:
    """How many requests an upstream saw with *word* in their head."""
    return sum(word.encode() in head for head, _ in upstream.seen)


async def standings(lab: Lab) -> dict[str, dict[str, Any]]:
    """What ``/api/regions`` says, by region."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{lab.sidecar.admin_port}/api/regions") as answer,
    ):
        return {one["region"]: one for one in (await answer.json())["regions"]}


def transitions(lab: Lab) -> list[tuple[str, str, str]]:
    """What the log has of breakers: region, state and cause."""
    lines = [json.loads(line) for line in lab.logs if b'"breaker"' in line]
    return [(line["region"], line["after"], line["cause"]) for line in lines if line["event"] == "breaker"]


def metric(lab: Lab, name: str) -> dict[str, float]:
    """A metric's samples, by their labels as they stand in the exposition."""
    found = {}
    for line in lab.sidecar.metrics.exposition().decode().splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == f"sidecar_{name}":
            found[sample.removeprefix(f"sidecar_{name}").strip("{}")] = float(value)
    return found
