"""What makes two calls the same call, and what does not: one thing is changed between two of them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from sidecar.core.rules import Region, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.caller import Caller, Reply
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY
from tests.scenarios.tokens import AZURE_PATH, token


class Ask(NamedTuple):
    """One call as a story makes it."""

    body: Any = CHAT
    path: str = CHAT_PATH
    headers: dict[str, str | None] | None = None


ANTHROPIC_PATH = "/anthropic/v1/messages"

CLAUDE = {**CHAT, "model": "claude-sonnet-4-5", "max_tokens": 64}

WARM = {"model": "m", "max_tokens": 9, "temperature": 0, "messages": [{"role": "user", "content": "warm"}]}

V1 = {"authorization": None, "x-api-key": "sk-one", "anthropic-version": "2023-06-01"}


def chat(**members: Any) -> Ask:
    """A chat call with more members, or others, than the plain one."""
    return Ask({**CHAT, **members})


def raw(text: str) -> Ask:
    """A chat call of exactly these bytes."""
    return Ask(text.encode())


def told(**headers: str | None) -> Ask:
    """A chat call with more headers."""
    return Ask(headers={name.replace("_", "-"): value for name, value in headers.items()})


def claude(headers: dict[str, str | None], **members: Any) -> Ask:
    """A call to Anthropic."""
    return Ask({**CLAUDE, **members}, ANTHROPIC_PATH, V1 | headers)


def azure(headers: dict[str, str | None] | None = None, *, path: str = AZURE_PATH, **members: Any) -> Ask:
    """A call to Azure OpenAI."""
    given: dict[str, str | None] = {"authorization": None, "api-key": "sk-one"}
    return Ask({**CHAT, **members}, path, given | (headers or {}))


def schema(*names: str) -> dict[str, Any]:
    """A JSON Schema with its properties in this order."""
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}}


def answer_format(*names: str) -> Ask:
    """A chat call for structured output."""
    return chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema(*names)}})


def tool(*names: str) -> Ask:
    """A chat call with a tool."""
    return chat(tools=[{"type": "function", "function": {"name": "f", "parameters": schema(*names)}}])


def image(url: str) -> Ask:
    """A chat call about a picture."""
    part = {"type": "image_url", "image_url": {"url": url}}
    return chat(messages=[{"role": "user", "content": [{"type": "text", "text": "What?"}, part]}])


def large(**members: Any) -> Ask:
    """A chat call past the size up to which a body has a canonical form."""
    return chat(messages=[{"role": "user", "content": "x" * 300_000}], **members)


def bearer(value: str) -> dict[str, str | None]:
    """The headers of a caller with this token or key, and no other."""
    return {"authorization": f"Bearer {value}", "api-key": None, "x-api-key": None}


PLAIN = Ask()
TURNED = Ask(dict(reversed(CHAT.items())))
BIG = 9007199254740993
SUBJECT = {"iss": "https://sts.windows.net/t1/", "tid": "t1", "sub": "job"}

HITS = {
    "the same": (PLAIN, PLAIN),
    "member order": (PLAIN, TURNED),
    "member order inside a message": (
        PLAIN,
        chat(messages=[{"content": CHAT["messages"][0]["content"], "role": "user"}]),  # type: ignore[index]
    ),
    "whitespace": (PLAIN, raw(json.dumps(CHAT, indent=3) + "\n")),
    "escapes": (PLAIN, raw(json.dumps(CHAT).replace("box", "b\\u006fx"))),
    "user": (chat(user="one"), chat(user="two")),
    "user or none": (PLAIN, chat(user="two")),
    "traceparent": (PLAIN, told(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    "x-stainless": (PLAIN, told(x_stainless_retry_count="2", x_stainless_os="Linux", x_stainless_timeout="600")),
    "x-client-request-id": (told(x_client_request_id="1"), told(x_client_request_id="2")),
    "user-agent": (told(user_agent="one/1"), told(user_agent="two/2")),
    "accept-encoding": (told(accept_encoding="gzip"), told(accept_encoding="br, zstd")),
    "stream second": (PLAIN, chat(stream=True)),
    "stream first": (chat(stream=True), PLAIN),
    "stream with usage": (chat(stream=True, stream_options={"include_usage": True}), chat(stream=True)),
    "stream said off": (PLAIN, chat(stream=False)),
    "scheme's case": (PLAIN, told(authorization="bearer sk-story")),
    "content-type's parameters": (PLAIN, told(content_type="application/json; charset=utf-8")),
    "azure: api-key, then bearer": (azure(), azure(bearer("sk-one"))),
    "azure: bearer, then api-key": (azure(bearer("sk-one")), azure()),
    "azure: resource's case": (azure(), azure(path=AZURE_PATH.replace("contoso", "CONTOSO"))),
    "azure: x-ms-client-request-id": (azure({"x-ms-client-request-id": "1"}), azure({"x-ms-client-request-id": "2"})),
    "anthropic: x-api-key, then bearer": (claude({}), claude(bearer("sk-one"))),
    "anthropic: bearer, then x-api-key": (claude(bearer("sk-one")), claude({})),
    "anthropic: stream": (claude({}), claude({}, stream=True)),
    "anthropic: metadata": (claude({}, metadata={"user_id": "1"}), claude({}, metadata={"user_id": "2"})),
    "large": (large(), large()),
    "token of another time": (azure(bearer(token(**SUBJECT, iat=1))), azure(bearer(token(**SUBJECT, iat=2)))),
}

MISSES = {
    "key": (PLAIN, told(authorization="Bearer sk-other")),
    "key's case": (PLAIN, told(authorization="Bearer SK-STORY")),
    "azure: key": (azure(), azure({"api-key": "sk-two"})),
    "azure: a second key": (azure(), azure({"authorization": "Bearer sk-two"})),
    "anthropic: key": (claude({}), claude({"x-api-key": "sk-two"})),
    "anthropic: a second key": (claude({}), claude({"authorization": "Bearer sk-two"})),
    "schema's property order": (answer_format("a", "b"), answer_format("b", "a")),
    "tool's property order": (tool("a", "b"), tool("b", "a")),
    "unknown member": (PLAIN, chat(thinking_hard=True)),
    "unknown member's value": (chat(depth=1), chat(depth=2)),
    "unknown member's order": (chat(extra={"a": 1, "b": 2}), chat(extra={"b": 2, "a": 1})),
    "1 and 1.0": (chat(depth=1), chat(depth=1.0)),
    "1 and true": (chat(depth=1), chat(depth=True)),
    "null and nothing": (chat(seed=None), PLAIN),
    "seed": (chat(seed=BIG), chat(seed=BIG - 1)),
    "array order": (chat(stop=["a", "b"]), chat(stop=["b", "a"])),
    "message order": (
        chat(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
        chat(messages=[{"role": "user", "content": "b"}, {"role": "user", "content": "a"}]),
    ),
    "whitespace in a message": (PLAIN, raw(json.dumps(CHAT).replace("the box", "the  box"))),
    "unicode's two forms": (
        chat(messages=[{"role": "user", "content": "\u00e9"}]),
        chat(messages=[{"role": "user", "content": "e\u0301"}]),
    ),
    "large: user": (large(user="one"), large(user="two")),
    "large: whitespace": (large(), raw(json.dumps(large().body) + " ")),
    "large: last byte": (large(seed=1), large(seed=2)),
    "picture": (image("data:image/png;base64,AAAA"), image("data:image/png;base64,AAAB")),
    "model": (PLAIN, chat(model="gpt-4o-mini")),
    "organisation": (told(openai_organization="org-1"), told(openai_organization="org-2")),
    "organisation or none": (PLAIN, told(openai_organization="org-1")),
    "project": (told(openai_project="p-1"), told(openai_project="p-2")),
    "organisation as project": (told(openai_organization="x"), told(openai_project="x")),
    "openai-beta": (PLAIN, told(openai_beta="assistants=v2")),
    "query": (PLAIN, Ask(path=f"{CHAT_PATH}?beta=true")),
    "anthropic-version": (claude({}), claude({"anthropic-version": "2023-01-01"})),
    "anthropic-beta": (claude({"anthropic-beta": "a"}), claude({"anthropic-beta": "b"})),
    "anthropic-beta or none": (claude({}), claude({"anthropic-beta": "a"})),
    "azure: api-version": (azure(), azure(path=AZURE_PATH.replace("2024-10-21", "2025-01-01"))),
    "azure: deployment": (azure(), azure(path=AZURE_PATH.replace("/gpt-4o/", "/gpt-4o-eu/"))),
    "azure: resource": (azure(), azure(path=AZURE_PATH.replace("contoso", "fabrikam"))),
    "tenant": (azure(bearer(token(**SUBJECT))), azure(bearer(token(**{**SUBJECT, "tid": "t2"})))),
    "issuer": (azure(bearer(token(**SUBJECT))), azure(bearer(token(**{**SUBJECT, "iss": "https://sts.windows.net/"})))),
    "subject": (azure(bearer(token(**SUBJECT))), azure(bearer(token(**{**SUBJECT, "sub": "other"})))),
}

TABLE = [(*pair, True) for pair in HITS.values()] + [(*pair, False) for pair in MISSES.values()]


class Line:
    """One kept connection, on which each call goes out in one piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, ask: Ask, body: Any = None) -> Reply:
        """Make the call, or one with another *body*."""
        asked = ask.body if body is None else body
        data = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        given = {
            "host": "localhost", "authorization": KEY, "content-type": "application/json",
            "content-length": str(len(data)), **(ask.headers or {}),
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
        self._writer.write(f"POST {ask.path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        return await Caller(self._reader, self._writer).reply()


@pytest.fixture
async def line() -> AsyncIterator[Callable[[int], Awaitable[Line]]]:
    """Connects to a port."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(port: int) -> Line:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        return Line(reader, writer)

    yield connect
    for writer in writers:
        writer.close()


@pytest.mark.parametrize(("first", "second", "hit"), TABLE, ids=[*HITS, *MISSES])
async def test_one_thing_changed(first, second, hit, lab, provider, line):
    """The second call is a hit exactly where nothing that counts was changed, however well known the first is."""
    one = await line(lab.sidecar.port)
    for ask in (first, second):  # both callers are known to the service, so that only the change decides
        assert 200 == (await one.ask(ask, WARM)).status
    calls = provider.calls

    stored, *again, changed = [await one.ask(ask) for ask in (first, first, first, second)]

    assert "sidecar; fwd=miss; stored" == stored.cache
    assert {"sidecar; hit"} == {reply.cache.partition("; ttl")[0] for reply in again}
    assert calls + (1 if hit else 2) == provider.calls
    assert ("sidecar; hit" if hit else "sidecar; fwd=miss; stored") == changed.cache.partition("; ttl")[0]
    assert 200 == changed.status


async def test_port_counts(build_lab, script, line):
    """The same bytes sent to the ports of two services are two calls, also where the Host field names no port."""

    async def answer(head, _body, writer):
        writer.write(whole(completion(head.partition(b" HTTP")[0].decode())))

    upstream = await script(answer)
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    services = [
        Service(f"at-{port}", DIALECTS["openai"], (Region("here", f"{upstream.url}/{port}"),), port=port)
        for port in ports
    ]
    lab = await build_lab(upstream.url, services=tuple(services))
    lines = [await line(port) for port in ports]
    ask = Ask(path="/v1/chat/completions")

    replies = [await one.ask(ask) for _ in range(4) for one in lines]

    assert [f"POST /{port}/v1/chat/completions" for port in ports] * 4 == [said(reply.body) for reply in replies]
    assert 2 == upstream.calls
    assert len(replies) == len(lab.records)


REFUSED = {
    "azure's form": Ask(path=f"{CHAT_PATH}?api-version=1"),
    "azure's key": told(authorization=None, api_key="sk-one"),
    "unknown service": Ask(path="/nobody/v1/chat/completions"),
    "unknown resource": Ask(path="/azure/-/openai/v1/chat/completions"),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("known", [False, True], ids=["first", "after-another"])
async def test_refused_again(refused, known, lab, line):
    """A call that is refused for its head is refused each time, whatever came before it on its connection."""
    one = await line(lab.sidecar.port)
    for _ in range(3 if known else 0):
        assert 200 == (await one.ask(PLAIN)).status

    first = await one.ask(refused)
    replies = [await (await line(lab.sidecar.port)).ask(refused) for _ in range(3)]

    assert first.status in {404, 421}
    assert [first.status] * 3 == [reply.status for reply in replies]
    assert {first.body} == {reply.body for reply in replies}
    assert not any("hit" in reply.cache for reply in replies)


FORBIDDING = [
    {"cache-control": "no-store"}, {"cache-control": "no-cache"}, {"cache-control": "max-age=0, x"},
    {"x-sidecar-ttl": "0s"}, {"range": "bytes=0-9"}, {"content-encoding": "identity"}, {"connection": "authorization"},
    {"Cache-Control": "NO-STORE"}, {"CACHE-CONTROL": "foo,no-cache"}, {"expect": "100-continue", "range": "bytes=0-"},
]  # fmt: skip


@pytest.mark.parametrize("fields", FORBIDDING, ids=lambda fields: " ".join(map(": ".join, fields.items())))
async def test_known_call_with_a_word_more(fields, build_lab, script, line):
    """However often a call was a hit: with a field that rules the cache out it goes upstream, each time."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("A box.")))

    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    one = await line(lab.sidecar.port)
    for _ in range(4):
        await one.ask(PLAIN)

    replies = [await one.ask(Ask(headers=fields)) for _ in range(2)]

    assert not any("hit" in reply.cache for reply in replies)
    assert 1 + 2 == upstream.calls
    assert (await one.ask(PLAIN)).cache.startswith("sidecar; hit")
