"""Redis known by tokens of Azure's: they are renewed while calls go on, and missed without harm."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import AzureIdentity, MemoryRule
from tests.redis_servers import RedisCluster, RedisServer, Sentinels
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT, Lab

SCOPE = "https://redis.azure.com/.default"

RIGHTS = ("on", "resetchannels", "~team-a:*", "&team-a:*", "+@all")

ONE_ENTRY = MemoryRule(max_entries=1)
"""So little memory that what is asked in turn comes from Redis."""

LIFE = 6.0
"""Seconds for which a token holds where it is to be renewed: after half of that."""


def encoded(claims: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


class Issuer:
    """
    An identity endpoint, and what a Redis of Azure's makes of its tokens. Token number N is for the user ``pod-N``, so
    that a server tells who has logged in anew; *expire* ends one, with the connections that it logged in.

    The statuses in *ill* are answered instead, one a request, the last one again and again.
    """

    def __init__(self, servers: Sequence[RedisServer], seconds: float) -> None:
        self.servers = servers
        self.seconds = seconds
        self.ill: list[int] = []
        self.issued = 0
        self.asked = 0
        self.tokens: list[str] = []

    async def __call__(self, _head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        if self.ill:
            writer.write(whole(b'{"error":"temporarily_unavailable"}', status=f"{self.ill[0]} Not now"))
            return
        self.issued += 1
        token = f"{encoded({'alg': 'RS256'})}.{encoded({'oid': f'pod-{self.issued}', 'aud': SCOPE})}.c2lnbmF0dXJl"
        self.tokens.append(token)
        for server in self.servers:
            server.call("ACL", "SETUSER", f"pod-{self.issued}", f">{token}", *RIGHTS)
        answer = {"access_token": token, "expires_in": str(self.seconds), "resource": "r", "token_type": "Bearer"}
        writer.write(whole(json.dumps(answer).encode()))

    def expire(self, number: int) -> None:
        """Let token *number* end."""
        for server in self.servers:
            server.call("ACL", "DELUSER", f"pod-{number}")

    def clients(self, number: int, *, subscribed: bool) -> set[tuple[int, str]]:
        """The connections that token *number* has logged in: port of the server, and their ids."""
        found = set()
        for server in self.servers:
            for line in server.call("CLIENT", "LIST").decode().splitlines():
                told = dict(word.partition("=")[::2] for word in line.split(" "))
                if told["user"] == f"pod-{number}" and (told["sub"] != "0") == subscribed:
                    found.add((server.port, told["id"]))
        return found


@contextmanager
def single() -> Iterator[tuple[str, list[RedisServer]]]:
    with RedisServer() as server:
        yield server.url, [server]


@contextmanager
def sentinel() -> Iterator[tuple[str, list[RedisServer]]]:
    with Sentinels() as sentinels:
        yield sentinels.url, [sentinels.primary, *sentinels.replicas]


@contextmanager
def cluster() -> Iterator[tuple[str, list[RedisServer]]]:
    with RedisCluster() as servers:
        yield servers.url, servers.servers


@pytest.fixture
async def box(script):
    """An upstream that tells which question it was asked."""

    async def answer(_head, body, writer):
        writer.write(whole(completion(f"Box {json.loads(body)['seed']}.")))

    return await script(answer)


@pytest.fixture
async def known_by(build_fleet, box, script):
    """Builds sidecars that a Redis knows by tokens, and who issues them."""

    async def build(
        url: str, servers: list[RedisServer], *ill: int, seconds: float = 3600.0, count: int = 1, **identity: str
    ) -> tuple[list[Lab], Issuer]:
        issuer = Issuer(servers, seconds)
        issuer.ill[:] = ill
        endpoint = await script(issuer)
        rule = {"url": url, "credential": AzureIdentity("managed", scope=SCOPE, **identity)}
        labs = await build_fleet(
            box.url, count, redis=rule, memory=ONE_ENTRY, environ={"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url}
        )
        return labs, issuer

    return build


async def ask(lab: Lab, number: int) -> None:
    reply = await lab.ask({**CHAT, "seed": number})

    assert (200, f"Box {number}.") == (reply.status, said(reply.body))


async def use(lab: Lab) -> None:
    """Wait until an answer comes from Redis."""
    async with asyncio.timeout(30):
        while True:
            for number in (1, 2):
                await ask(lab, number)
            if lab.records[-1].outcome is Outcome.HIT_REDIS:
                return


@pytest.mark.parametrize("kind", [single, sentinel, cluster])
async def test_tokens_change_under_load(known_by, kind):
    """
    Tokens end twice while calls go on: all pooled connections log in anew and stay, the subscription is replaced before
    the end, and no command fails.
    """
    with kind() as (url, servers):
        (lab,), issuer = await known_by(url, servers, seconds=LIFE)
        link, news = lab.sidecar.fleet.link, lab.sidecar.fleet.news
        running = True

        async def press(lane: int) -> None:
            number = 0
            while running:
                number += 1
                await ask(lab, lane * 1000 + number % 3)

        lanes = [asyncio.ensure_future(press(lane)) for lane in range(1, 5)]
        await lab.until(lambda: news.up and len(issuer.clients(1, subscribed=False)) > 1)
        pooled = issuer.clients(1, subscribed=False)
        for number, issuer.seconds in ((1, LIFE), (2, 3600.0)):  # the third is for good
            await lab.until(lambda number=number: issuer.issued > number)
            await lab.until(
                lambda number=number: not any(issuer.clients(number, subscribed=each) for each in (False, True))
            )
            issuer.expire(number)
            after = issuer.clients(number + 1, subscribed=False)

            assert pooled <= after
            assert 1 == len(issuer.clients(number + 1, subscribed=True))
            pooled = after
        before = len(lab.records)
        await lab.until(lambda: len(lab.records) > before + 20)
        running = False
        await asyncio.gather(*lanes)

        assert news.up
        assert 3 == news.subscriptions
        assert {"ok"} == set(link.commands)
        assert {} == link.errors
        assert 0 == link.breaker.openings
        assert Outcome.HIT_REDIS in {record.outcome for record in lab.records[before:]}
        assert 3 == issuer.issued
        assert not any(token.encode() in b"".join(lab.logs) for token in issuer.tokens)


async def test_no_token_at_the_start(known_by):
    """Without a token, memory is all there is, and that is said; when one comes, Redis is used by itself."""
    with single() as (url, servers):
        (lab,), issuer = await known_by(url, servers, 503)
        for number in range(5):
            await ask(lab, number)
        told = {line["event"]: line for line in map(json.loads, lab.logs)}
        metrics = lab.sidecar.metrics.exposition()
        parts = {part.name: part for part in lab.sidecar.readiness().parts}

        assert ("credential", "warning") == (told["redis-away"]["reason"], told["redis-away"]["level"])
        assert "answered 503" in told["redis-away"]["detail"]
        assert "answered 503" in told["credential-unusable"]["message"]
        assert "answered 503" in parts["redis"].detail
        assert not parts["redis"].good
        assert b"sidecar_redis_up 0.0" in metrics
        assert b"sidecar_redis_token_seconds 0.0" in metrics
        assert b'sidecar_redis_errors_total{reason="credential"}' in metrics
        assert set() == issuer.clients(1, subscribed=False)
        issuer.ill.clear()
        await use(lab)

        assert "redis-back" in {json.loads(line)["event"] for line in lab.logs}
        await lab.until(lambda: lab.sidecar.fleet.news.up)


async def test_no_token_at_the_renewal(known_by):
    """The endpoint is down when a token is due: that one is used to its end, and the next one as soon as it comes."""
    with single() as (url, servers):
        (lab,), issuer = await known_by(url, servers, seconds=LIFE)
        await use(lab)
        issuer.ill[:] = [500]
        await lab.until(lambda: issuer.asked > 1)
        await use(lab)
        fault = lab.sidecar.fleet.standing

        assert 1 == issuer.issued
        assert "no newer token" in fault
        assert lab.sidecar.fleet.link.up
        issuer.ill.clear()
        await lab.until(lambda: issuer.issued > 1)
        await lab.until(lambda: not issuer.clients(1, subscribed=False) and not issuer.clients(1, subscribed=True))
        issuer.expire(1)
        await use(lab)

        assert {"ok"} == set(lab.sidecar.fleet.link.commands)
        assert "no newer token" not in lab.sidecar.fleet.standing


async def test_a_token_that_redis_refuses(known_by):
    """No user of that name: Redis is away, which is said once, without the token; another token is asked for."""
    with single() as (url, servers):
        (lab,), issuer = await known_by(url, servers, username="stranger")
        for number in range(5):
            await ask(lab, number)
        (line,) = [json.loads(line) for line in lab.logs if b'"redis-away"' in line]

        assert ("refused", "stranger", "managed_identity") == (line["reason"], line["user"], line["credential"])
        await lab.until(lambda: issuer.issued == 2)
        servers[0].call("ACL", "SETUSER", "stranger", *(f">{token}" for token in issuer.tokens), *RIGHTS)
        await use(lab)

        assert 2 == issuer.issued
        assert not any(token.encode() in b"".join(lab.logs) for token in issuer.tokens)
