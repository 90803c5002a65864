"""Ways in which one caller might get what is another's, or what another asked for."""

from __future__ import annotations

import gzip
from itertools import count

import pytest

from sidecar.core.dialect import Kind
from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Service, Share
from sidecar.dialects import DIALECTS
from tests.scenarios.conftest import CHAT, LAST_CHUNK, STREAM_HEAD, chunk, completion, delta, whole


@pytest.fixture
async def numbered(script):
    """An upstream whose every answer is another one."""
    numbers = count(1)

    async def answer(head, body, writer):
        number = next(numbers)
        writer.write(whole(completion(f"answer {number}", number=number)))

    return await script(answer)


@pytest.mark.parametrize(
    ("name", "bypassed"),
    [
        ("x-api-key", False),
        ("api-key", False),
        ("ocp-apim-subscription-key", False),
        ("x-goog-api-key", False),
        ("cookie", True),
        ("x-portkey-api-key", False),
    ],
)
async def test_key_in_another_field(build_lab, numbered, name, bypassed):
    """A gateway may read keys where the API itself doesn't: whoever sends another one is somebody else."""
    service = Service("gateway", DIALECTS["anthropic"], (Region("here", numbered.url),), path="/gateway")
    lab = await build_lab(numbered.url, services=(service,), cache=CacheRule(mode=CacheMode.ALWAYS))
    call = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}

    replies = [
        await lab.ask(call, path="/gateway/v1/messages", headers={"authorization": None, name: who})
        for who in ("alice", "mallory")
    ]

    assert 2 == numbered.calls
    assert replies[0].body != replies[1].body
    if bypassed:
        assert ["sidecar; fwd=bypass; detail=no-credential"] * 2 == [reply.cache for reply in replies]


async def test_accepted_at_another_resource(build_lab, script):
    """A key that one resource accepts reads nothing of another's."""

    async def answer(head, body, writer):
        accepted = b"alice" in head or b"/mine/" in head.split(b"\r\n")[0]
        writer.write(whole(completion("alice's")) if accepted else whole(b'{"error":{}}', status="401 Unauthorized"))

    upstream = await script(answer)
    region = Region("here", upstream.url + "/{resource}")
    service = Service("azure-openai", DIALECTS["azure-openai"], (region,), path="/azure", resource=True)
    rule = CacheRule(mode=CacheMode.ALWAYS, share=Share("service"))
    lab = await build_lab(upstream.url, services=(service,), cache=rule)
    path = "/openai/deployments/gpt/chat/completions?api-version=1"

    async def ask(resource, who):
        headers = {"authorization": None, "api-key": who}
        return (await lab.ask(path=f"/azure/{resource}{path}", headers=headers)).status

    statuses = [await ask(*one) for one in
                (("victim", "alice"), ("victim", "mallory"), ("mine", "mallory"), ("victim", "mallory"))]  # fmt: skip

    assert [200, 401, 200, 401] == statuses


async def test_route_with_a_short_life(build_lab, numbered):
    """An answer stored by a route with a long life is no older on another route than that route allows."""
    routes = (
        Route("fresh", Match(header={"x-team": "fresh"}), CacheRule(mode=CacheMode.ALWAYS, ttl=60.0)),
        Route("long", Match(kinds=frozenset({Kind.CHAT})), CacheRule(mode=CacheMode.ALWAYS, ttl=86400.0)),
    )
    lab = await build_lab(numbered.url, routes=routes)
    await lab.ask(CHAT)
    reply = await lab.ask(CHAT, headers={"x-team": "fresh"})

    assert "sidecar; hit; ttl=59; detail=memory" == reply.cache


@pytest.mark.parametrize("field", ["if-none-match", "if-modified-since", "if-match", "x-http-method-override"])
async def test_conditional_call(build_lab, numbered, field):
    """A call whose answer is for somebody who knows more than the call says is nobody else's."""
    lab = await build_lab(numbered.url)
    reply = await lab.ask(CHAT, headers={field: '"x"'})

    assert "sidecar; fwd=bypass; detail=conditional" == reply.cache


async def test_coded_stream(build_lab, script):
    """A stream that comes in a coding nobody asked for is handed on to its caller as it is, and not kept."""
    body = gzip.compress(delta("hello") + b"data: [DONE]\n\n")

    async def answer(head, asked, writer):
        coded = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
        writer.write(coded + chunk(body) + LAST_CHUNK)

    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    replies = [await lab.ask({**CHAT, "stream": True}) for _ in range(2)]

    assert [(200, body, False)] * 2 == [(reply.status, reply.body, reply.broken) for reply in replies]
    assert 2 == upstream.calls


async def test_answer_before_the_request_is_whole(build_lab, script):
    """A refusal in the middle of an upload says that the connection ends, so the client doesn't send on it again."""

    async def answer(head, body, writer):
        writer.write(whole(b'{"error":{}}', status="413 Payload Too Large"))

    upstream = await script(answer)
    lab = await build_lab(upstream.url)
    replies = [await lab.ask(b"x" * 900_000, path="/openai/v1/unknown") for _ in range(4)]

    assert [413] * 4 == [reply.status for reply in replies]
