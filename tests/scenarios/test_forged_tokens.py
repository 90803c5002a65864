"""Who makes up a token reads nobody's answers, whatever a host answers to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar.core.dialect import Kind
from sidecar.core.rules import CacheMode, CacheRule, Match, Region, Route, Service, TokenRule
from sidecar.dialects import DIALECTS
from sidecar.identity.rotated import RECHECK_SECONDS
from tests.scenarios.answers import DONE, completion, delta, said, whole
from tests.scenarios.conftest import CHAT, CHAT_PATH, LAST_CHUNK, STREAM_HEAD, VENDORS, chunk
from tests.scenarios.tokens import FORGED, bearer, token

VICTIM = token(iss="https://issuer", sub="victim", exp=4_000_000_000)
MADE_UP = token(iss="https://issuer", sub="victim", exp=4_000_000_001, jti="made up")
OTHER = {**CHAT, "messages": [{"role": "user", "content": "Something else."}]}
ALWAYS = CacheRule(mode=CacheMode.ALWAYS)

TO_EVERYBODY = {
    "sign-in page": whole(b"<html>Sign in</html>", kind=b"text/html"),
    "sign-in page as JSON": whole(b"<html>Sign in</html>"),
    "an error with 200": whole(b'{"code":401,"message":"who are you?"}'),
    "an error object with 200": whole(b'{"error":{"message":"who are you?"}}'),
    "empty body": whole(b""),
    "empty object": whole(b"{}"),
    "no choices": whole(b'{"id":"x","object":"chat.completion","choices":[]}'),
    "202": whole(completion("queued"), status="202 Accepted"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "content filter": whole(completion("no").replace(b'"stop"', b'"content_filter"')),
    "unfinished": whole(completion("no").replace(b'"stop"', b"null")),
    "a stream without its end": STREAM_HEAD + chunk(delta("no")) + LAST_CHUNK,
    "a stream of nothing": STREAM_HEAD + chunk(DONE) + LAST_CHUNK,
}


class Door:
    """A service that answers the victim, and to everybody else says *what*."""

    def __init__(self, what: bytes) -> None:
        self.what = what

    async def __call__(self, head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"GET /v1/models" in head:
            writer.write(whole(b'{"object":"list","data":[{"id":"gpt-4o","object":"model"}]}'))
        else:
            writer.write(whole(completion("the victim's")) if VICTIM.encode() in head else self.what)


@pytest.mark.parametrize("name", TO_EVERYBODY)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_what_a_host_says_to_everybody(name, stream, build_lab, script):
    """Nothing but a whole answer of the asked shape shows that a vendor has accepted a token."""
    upstream = await script(Door(TO_EVERYBODY[name]))
    lab = await build_lab(upstream.url, cache=ALWAYS)
    assert "the victim's" == said((await lab.ask(headers=bearer(VICTIM))).body)
    for question in (OTHER, CHAT, OTHER, CHAT):
        reply = await lab.ask({**question, "stream": stream}, headers=bearer(MADE_UP))

        assert b"the victim's" not in reply.body
    assert (await lab.ask(headers=bearer(VICTIM))).cache.startswith("sidecar; hit")


async def test_lists_of_models(build_lab, script):
    """Some hosts show them to everybody, also where a route keeps them."""
    upstream = await script(Door(whole(b'{"error":{"code":"401"}}', status="401 Unauthorized")))
    every = Route("every", Match(kinds=frozenset({*Kind})), ALWAYS)
    lab = await build_lab(upstream.url, routes=(every,))
    await lab.ask(headers=bearer(VICTIM))
    for _ in range(2):
        listed = await lab.ask(b"", path="/openai/v1/models", method="GET", headers=bearer(MADE_UP))

        assert 200 == listed.status
        assert 401 == (await lab.ask(headers=bearer(MADE_UP))).status


async def accept_everything(head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
    """A host that checks nothing: what it answers shows by whom it was asked."""
    whose = head.lower().split(b"authorization: bearer ")[1].split(b"\r\n")[0][-24:]
    writer.write(whole(completion(f"for {whose.decode()}")))


@pytest.mark.parametrize("fleet", [False, True], ids=["memory", "Redis"])
@pytest.mark.parametrize("dialect", ["openai", "anthropic", "azure-openai", "generic"])
async def test_a_host_that_checks_nothing(dialect, fleet, build_lab, build_fleet, script):
    """At a gateway a token is what it says byte for byte, in every pod; each reads its own and no other's."""
    upstream = await script(accept_everything)
    service = Service("gateway", DIALECTS[dialect], (Region("here", upstream.url),), path="/gateway")
    path = {
        "openai": "/v1/chat/completions", "azure-openai": "/openai/v1/chat/completions", "generic": "/chat",
        "anthropic": "/v1/messages",
    }[dialect]  # fmt: skip
    more = {"services": (service,), "routes": (Route("all", cache=ALWAYS),)}
    labs = await build_fleet(upstream.url, **more) if fleet else [await build_lab(upstream.url, **more)] * 2

    async def ask(lab: Any, value: str) -> tuple[bytes, bool]:
        reply = await lab.ask({**CHAT, "max_tokens": 5}, path=f"/gateway{path}", headers=bearer(value))
        return reply.body, reply.cache.startswith("sidecar; hit")

    victims, _ = await ask(labs[0], VICTIM)
    for lab in labs:
        for value in (MADE_UP, MADE_UP, FORGED):
            body, _ = await ask(lab, value)

            assert victims != body
    if dialect != "anthropic":  # whose answers these are not
        await labs[0].settle()

        assert (victims, True) == await ask(labs[0], VICTIM)


async def test_a_forged_token_in_the_fleet(build_fleet, script):
    """A token that one pod has seen accepted proves nothing of another one that bears the same name, at any pod."""
    upstream = await script(Door(whole(b"{}")))
    labs = await build_fleet(upstream.url, cache=ALWAYS)
    await labs[0].ask(headers=bearer(VICTIM))
    await labs[0].settle()
    for lab in (labs[1], labs[0], labs[1]):
        reply = await lab.ask(headers=bearer(MADE_UP))

        assert b"the victim's" not in reply.body


async def test_one_region_elsewhere(build_lab, script):
    """A service that may be answered by a gateway is one, whichever region has answered."""
    upstream = await script(accept_everything)
    regions = (Region("vendor", upstream.url), Region("gateway", upstream.url.replace("127.0.0.1", "localhost")))
    lab = await build_lab(upstream.url, services=(Service("openai", VENDORS["openai"], regions, path="/openai"),))
    victims = await lab.ask(headers=bearer(VICTIM))

    assert victims.body != (await lab.ask(headers=bearer(MADE_UP))).body


async def test_verified_here(build_lab, script, tmp_path):
    """Tokens that the sidecar verifies are who they say, at a host that checks nothing; forged ones are nobody."""
    import jwt  # noqa: PLC0415  as the program does
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  as above
    from jwt.algorithms import ECAlgorithm  # noqa: PLC0415  as above

    good, bad = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    keys = tmp_path / "keys.json"

    def publish(*found: ec.EllipticCurvePrivateKey) -> None:
        sets = [json.loads(ECAlgorithm.to_jwk(key.public_key())) | {"alg": "ES256"} for key in found]
        keys.write_text(json.dumps({"keys": sets}))

    def signed(key: ec.EllipticCurvePrivateKey, **more: Any) -> str:
        claims = {"iss": "https://issuer", "aud": "us", "sub": "victim", "exp": 4_000_000_000, **more}
        return jwt.encode(claims, key, algorithm="ES256")

    publish(good)
    upstream = await script(accept_everything)
    rule = TokenRule(issuer="https://issuer", audience="us", jwks_file=str(keys))
    service = Service("openai", DIALECTS["openai"], (Region("here", upstream.url),), path="/openai", tokens=rule)
    lab = await build_lab(upstream.url, services=(service,))

    async def ask(value: str) -> tuple[bytes, bool]:
        reply = await lab.ask(headers=bearer(value))
        return reply.body, reply.cache.startswith("sidecar; hit")

    victims, _ = await ask(signed(good, jti="1"))
    assert (victims, True) == await ask(signed(good, jti="2"))
    for forged in (
        signed(bad), signed(good, iss="https://other"), signed(good, aud="them"), signed(good, sub="another"), MADE_UP,
        signed(good, exp=1_000_000_000), signed(good)[:-6] + "AAAAAA",
    ):  # fmt: skip
        body, hit = await ask(forged)

        assert (body != victims, False) == (True, hit)

    publish(bad)
    lab.clocks.ahead = lambda: RECHECK_SECONDS
    kept = signed(good, jti="2")
    async with asyncio.timeout(10):
        while (await ask(kept))[1]:  # noqa: ASYNC110  the keys are read anew by a sweep
            await asyncio.sleep(0.01)


async def test_the_path_of_a_forged_token_is_the_ordinary_one(build_lab, script):
    """It is sent on as it came: whom a service lets in is the service's to say."""
    upstream = await script(Door(whole(b'{"error":{"code":"401"}}', status="401 Unauthorized")))
    lab = await build_lab(upstream.url)
    reply = await lab.ask(path=CHAT_PATH, headers=bearer(MADE_UP))

    assert (401, b'{"error":{"code":"401"}}') == (reply.status, reply.body)
    assert f"bearer {MADE_UP}".encode().lower() in upstream.seen[0][0].lower()
