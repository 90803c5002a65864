"""A service of which nothing is known, as stories about HTTP's own rules have it: fixtures."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.core.rules import CacheMode, CacheRule, HeaderRule, Region, Route, Service, StoredCredential
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import completion, whole

if TYPE_CHECKING:
    from tests.scenarios.conftest import Lab

ALWAYS = CacheRule(mode=CacheMode.ALWAYS)
ITEM = "/api/items/1"
TONELESS = HeaderRule(ignore=frozenset({b"x-tone"}))
"""The services' owner has said that this field does not count; an answer may say that it depends on it all the same."""

STORED = "sidecar; fwd=miss; stored"


@dataclass
class Source:
    """A service whose every answer is another one, with *extra* lines in its head; a reading call waits for *go*."""

    extra: bytes = b""
    status: str = "200 OK"
    count: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        text, extra = f"answer {self.count}", self.extra
        if b"warm" in body:
            writer.write(whole(completion("warm")))
            return
        if not head.startswith((b"PUT", b"PATCH", b"DELETE")):
            await self.go.wait()
        document = completion(text) if b"chat/completions" in head else b'{"item": "%b"}' % text.encode()
        writer.write(whole(document, status=self.status, extra=extra))


@pytest.fixture
def source() -> Source:
    """One that answers at once."""
    source = Source()
    source.go.set()
    return source


@pytest.fixture
async def build_api(build_lab, script, source):
    """
    Builds a sidecar before *source*, as a service of dialect ``generic`` and as one of OpenAI's; its routes are those
    *before* and one for all.
    """

    async def build(
        cache: CacheRule = ALWAYS, *before: Route, credential: StoredCredential | None = None, **more: Any
    ) -> Lab:
        upstream = await script(source)
        region = Region("here", upstream.url, credential=credential)
        services = (
            Service("api", DIALECTS["generic"], (region,), path="/api", headers=TONELESS),
            Service("openai", DIALECTS["openai"], (region,), path="/openai", headers=TONELESS),
        )
        routes = (*before, Route("all", cache=cache))
        return await build_lab(upstream.url, services=services, routes=routes, **more)

    return build


async def get(lab: Lab, path: str = ITEM, **headers: str) -> tuple[str, str]:
    """An item, and where it came from."""
    reply = await lab.ask(
        b"", path=path, method="GET", headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    return json.loads(reply.body)["item"], reply.cache


@pytest.fixture
async def build_pods(build_fleet, script, source):
    """Builds two sidecars over one Redis, before *source* as a service of dialect ``generic``."""

    async def build(cache: CacheRule = ALWAYS) -> list[Lab]:
        upstream = await script(source)
        region = Region("here", upstream.url)
        services = tuple(
            Service(name, DIALECTS[dialect], (region,), path=f"/{name}", headers=TONELESS)
            for name, dialect in (("api", "generic"), ("openai", "openai"))
        )
        return await build_fleet(upstream.url, services=services, routes=(Route("all", cache=cache),))

    return build
