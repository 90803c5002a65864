"""What services really say about caching costs no hit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from sidecar.core.rules import CacheMode, CacheRule, Region, Route, Service
from sidecar.dialects import DIALECTS

DATA = Path(__file__).parents[2] / "../shared/data"
ROUTES = (Route("all", cache=CacheRule(mode=CacheMode.ALWAYS)),)
SAYING = frozenset({"vary", "cache-control", "expires", "age", "pragma"})
FRAMING = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection", "keep-alive"})
UNSENT = FRAMING | {"host", "accept-encoding", "authorization"}
HOSTS = {
    "api.openai.com": "openai",
    "openrouter.ai": "openai",
    "api.anthropic.com": "anthropic",
    "openai.azure.com": "azure-openai",
}
"""The dialect by the end of a host's name; the others are of one that is not known."""


class Exchange:
    """One recorded call and its answer, and the dialect that it is of."""

    def __init__(
        self, name: str, method: str, uri: str, sent: dict[str, str], body: bytes, got: dict[str, str], answer: bytes
    ) -> None:
        url = urlsplit(uri)
        self.name = name
        self.method = method
        self.dialect = next((found for end, found in HOSTS.items() if url.netloc.endswith(end)), "generic")
        self.target = url.path + (f"?{url.query}" if url.query else "")
        if url.netloc == "openrouter.ai":
            self.target = self.target.removeprefix("/api")
        self.sent = {key: value for key, value in sent.items() if key.lower() not in UNSENT}
        self.body = body
        self.got = {key: value for key, value in got.items() if key.lower() not in FRAMING}
        self.answer = answer

    def __repr__(self) -> str:
        return self.name

    def on_the_wire(self, without: frozenset[str] = frozenset()) -> bytes:
        kept = {key: value for key, value in self.got.items() if key.lower() not in without}
        lines = "".join(f"{key}: {value}\r\n" for key, value in kept.items())
        return f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(self.answer)}\r\n\r\n".encode("latin-1") + self.answer


def _joined(values: list[str | bytes]) -> str:
    return ", ".join(value.decode("latin-1") if isinstance(value, bytes) else value for value in values)


def _text(part: dict[str, Any]) -> bytes:
    if "parsed_body" in part:
        return json.dumps(part["parsed_body"]).encode()
    body = part.get("body", "")
    body = body.get("string", "") if isinstance(body, dict) else body
    return body if isinstance(body, bytes) else (body or "").encode()


def _streams() -> list[Exchange]:
    found = []
    for path in sorted((DATA / "streams").glob("*.yaml")):
        for number, each in enumerate(yaml.safe_load(path.read_text())["interactions"]):
            asked, said = each["request"], each["response"]
            heads = [{key: _joined(values) for key, values in part["headers"].items()} for part in (asked, said)]
            name = f"{path.stem}-{number}"
            found.append(Exchange(name, asked["method"], asked["uri"], heads[0], _text(asked), heads[1], _text(said)))
    return found


def _documents() -> list[Exchange]:
    found = []
    for path in sorted((DATA / "documents").glob("*.json")):
        for number, each in enumerate(json.loads(path.read_text())["Entries"]):
            if each["StatusCode"] != 200:
                continue
            body, answer = (
                part if isinstance(part, str) else json.dumps(part) if part is not None else ""
                for part in (each["RequestBody"], each["ResponseBody"])
            )
            heads = [
                {key: str(value) for key, value in each[part].items()} for part in ("RequestHeaders", "ResponseHeaders")
            ]
            name = f"{path.stem}-{number}"
            found.append(
                Exchange(
                    name, each["RequestMethod"], each["RequestUri"], heads[0], body.encode(), heads[1], answer.encode()
                )
            )
    return found


EXCHANGES = [*_streams(), *_documents()]


NEVER = frozenset(
    {
        "test_anthropic_native_tool_search_streaming-0", "test_anthropic_native_tool_search_streaming-1",
        "test_openai_responses_stream-0", "test_openai_responses_stream-1",  # the service keeps them
        "test_google_model_iter_stream-0", "test_google_model_iter_stream-1", "test_google_model_iter_stream-2",
        "test_openrouter_stream_error-0",
    }
)  # fmt: skip
"""Of the 15 recorded streams, the 8 that are no hit when they are asked again; all other recordings are."""


def test_the_recordings_say_something():
    """Among the recordings there are answers that say something about caching."""
    if not EXCHANGES:
        pytest.skip("the recordings are not here: ../shared/data")

    said = {(key.lower(), value) for each in EXCHANGES for key, value in each.got.items() if key.lower() in SAYING}
    assert {("vary", "Origin, X-Origin, Referer"), ("vary", "Accept-Encoding"), ("cache-control", "no-cache")} <= said


@pytest.mark.parametrize("exchange", EXCHANGES, ids=repr)
async def test_hits_as_if_nothing_were_said(exchange, build_lab, script):
    """A call that is repeated is a hit, or none, just as it would be with an answer that says nothing of caching."""
    found = []
    for without in (SAYING, frozenset()):
        wire = exchange.on_the_wire(without)

        async def handler(_head, _body, writer, wire=wire):
            writer.write(wire)

        upstream = await script(handler)
        service = Service("api", DIALECTS[exchange.dialect], (Region("here", upstream.url),), path="/api")
        lab = await build_lab(upstream.url, services=(service,), routes=ROUTES)
        for _ in range(3):
            reply = await lab.ask(
                exchange.body, path="/api" + exchange.target, method=exchange.method, headers=exchange.sent
            )
            found.append((reply.cache.partition(" ttl")[0], reply.body))
        await lab.settle()

    assert found[:3] == found[3:]
    assert (exchange.name not in NEVER) == found[2][0].startswith("sidecar; hit")


@pytest.mark.parametrize("vary", ["Origin, X-Origin, Referer", "Accept-Encoding", "Origin, Accept-Encoding, X-Api-Key"])
@pytest.mark.parametrize("name", ["test_run_stream_sync_streams_real_model-0", "test_azure_provider_call-0"])
async def test_recorded_vary_with_what_is_kept(name, vary, build_lab, script):
    """Answers that are kept go on hitting with the ``Vary`` that services send."""
    exchange = next((each for each in EXCHANGES if each.name == name), None)
    if exchange is None:
        pytest.skip("the recordings are not here: ../shared/data")
    exchange.got["Vary"] = vary

    async def handler(_head, _body, writer):
        writer.write(exchange.on_the_wire())

    upstream = await script(handler)
    service = Service("api", DIALECTS[exchange.dialect], (Region("here", upstream.url),), path="/api")
    lab = await build_lab(upstream.url, services=(service,), routes=ROUTES)
    replies = [
        await lab.ask(exchange.body, path="/api" + exchange.target, method=exchange.method, headers=exchange.sent)
        for _ in range(4)
    ]

    assert ["sidecar; fwd=miss; stored"] == [reply.cache for reply in replies[:1]]
    assert {exchange.answer} == {reply.body for reply in replies}
    assert 1 == upstream.calls
