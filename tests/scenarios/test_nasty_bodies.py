"""Whatever a caller sends as a body or as a key goes upstream byte for byte: never is it a fault of ours."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from sidecar.core.key.canonical import SMALL
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.rules import Limits, Match, Mode, Route, RouteLimits
from tests.nasty import NASTY, ODD
from tests.scenarios.conftest import CHAT_PATH, CLAUDE_PATH, completion, whole

PATHS = {"chat": CHAT_PATH, "responses": "/openai/v1/responses", "messages": CLAUDE_PATH}


@pytest.fixture
async def upstream(script):
    """It answers everything."""

    async def answer(_head, _body, writer):
        writer.write(whole(completion("A box.")))

    return await script(answer)


PADDINGS = {"small": b"", "large": b"\n" * SMALL}
"""White space in front changes nothing of a body but how it is read: at once, or while it passes."""

LONG = {"the integer that is too long", "the integer below zero that is too long"}
"""Of a large body's numbers no more than 1 KiB is kept."""


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("path", PATHS)
async def test_bypassed(path, padding, build_lab, upstream):
    """Each is bypassed for its own reason, whatever the endpoint and the size."""
    lab = await build_lab(upstream.url)

    bodies = {name: PADDINGS[padding] + body for name, (body, _) in NASTY.items()}
    reasons = {name: why for name, (_, why) in NASTY.items()}
    if padding == "large":
        reasons |= dict.fromkeys(LONG, Unsafe.UNREADABLE_MEMBER)
    replies = {name: await lab.ask(body, path=PATHS[path]) for name, body in bodies.items()}

    told = {name: (reply.status, reply.cache) for name, reply in replies.items()}
    assert {name: (200, f"sidecar; fwd=bypass; detail={why}") for name, why in reasons.items()} == told
    assert list(bodies.values()) == [body for _, body in upstream.seen]


@pytest.mark.parametrize("mode", Mode)
async def test_forwarded_in_every_mode(mode, build_lab, upstream):
    """So it is where nothing is cached, and where a route counts tokens and asks for the model."""
    limits = RouteLimits(tokens_per_minute=10**9, requests_per_minute=10**6)
    routes = (Route("models", Match(model="no-such-model")), Route("limited", limits=limits))
    lab = await build_lab(upstream.url, mode=mode, routes=routes)
    bodies = [padding + body for body, _ in NASTY.values() for padding in PADDINGS.values()]
    streams = [b'{"stream":true,' + body[1:] for body, _ in NASTY.values() if body[:1] == b"{"]

    statuses = [(await lab.ask(body)).status for body in [*bodies, *ODD.values(), *streams]]

    assert {200} == set(statuses)
    assert [*bodies, *ODD.values(), *streams] == [body for _, body in upstream.seen]


async def test_ten_megabytes_of_digits(build_lab, upstream, dial):
    """A number without end is read by nobody."""
    lab = await build_lab(upstream.url, limits=replace(Limits(), drain_seconds=2.0))
    body = b'{"model":"gpt-4o","seed":' + b"1" * 10_000_000 + b"}"

    reply = await (await dial(lab, body)).reply()

    assert (200, "sidecar; fwd=bypass; detail=unreadable-member") == (reply.status, reply.cache)
    assert [body] == [body for _, body in upstream.seen]


SEGMENTS = {
    "prose": b"a",
    "nothing": b"",
    "halves of pairs": b'{"alg":"\\ud800","iss":"\\udc00","sub":"x"}',
    "no number": b'{"alg":"x","iss":"x","sub":"x","exp":NaN}',
    "too large a number": b'{"alg":"x","iss":"x","sub":"x","exp":1e400}',
    "no utf-8": b'{"alg":"\xff","iss":"\xff","sub":"\xff"}',
    "too deep": b'{"a":' + b"[" * 3000,
    "a list": b"[]",
    "an empty name": b'{"":"","alg":"","iss":"","sub":""}',
}
"""What a key with two dots may hold where a token has its claims."""


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_keys_with_two_dots(header, build_lab, upstream):
    """A key that looks like a token and is none is a key."""
    lab = await build_lab(upstream.url)
    keys = ["a.b.c", "..", "a..c", "..."]
    for segment in SEGMENTS.values():
        encoded = base64.urlsafe_b64encode(segment).decode().rstrip("=")
        keys += [f"{encoded}.{encoded}.x", f"{encoded}==.{encoded}=.x"]

    scheme = "Bearer " if header == "authorization" else ""
    statuses = [(await lab.ask(headers={"authorization": None, header: scheme + key})).status for key in keys]

    assert [200] * len(keys) == statuses
