"""Whoever reads along with Redis, or has a copy of all it holds, learns nothing of what was asked and answered."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

import pytest

from sidecar.admin.actions import ModeRequest, PurgeRequest
from sidecar.core.dialect import Kind
from sidecar.core.model import Outcome
from sidecar.core.rules import CacheMode, CacheRule, Match, Mode, Region, Route, SealRule, Service, Share
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole

CANARIES = {
    "prompt": "canary-prompt-7f1",
    "answer": "canary-answer-2d9",
    "credential": "sk-canary-credential-51c",
    "tenant": "canary-tenant-0aa",
    "service": "canary-service-e03",
    "route": "canary-route-b68",
    "tag": "canary-tag-944",
    "callers tag": "canary-own-tag-31f",
    "model": "canary-model-c77",
}

HEADERS = {
    "authorization": f"Bearer {CANARIES['credential']}",
    "x-tenant": CANARIES["tenant"],
    "x-sidecar-tags": CANARIES["callers tag"],
}

_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')

LONGEST_WORD = 300
"""Bytes of a command's argument that is no envelope of one of these answers."""


@asynccontextmanager
async def monitor(server):
    """All arguments of all commands that *server* executes while the block runs."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
    writer.write(b"MONITOR\r\n")

    assert b"+OK\r\n" == await reader.readline()
    words = []
    yield words
    server.call("ECHO", "the end")
    while b'"the end"' not in (line := await reader.readline()):
        words += [word.decode("unicode_escape").encode("latin-1") for word in _WORD.findall(line)]
    writer.close()


def dump(server):
    """Names, and by name what stands there: a list of byte strings."""
    found = {}
    for key in server.call("KEYS", "*"):
        match server.call("TYPE", key):
            case b"string":
                found[key] = [server.call("GET", key)]
            case b"zset":
                found[key] = server.call("ZRANGE", key, 0, -1)
            case b"hash":
                found[key] = server.call("HGETALL", key)
            case other:
                pytest.fail(f"{key} is a {other}")
    return found


async def answer(_head, body, writer):
    """Answer in the form that is asked for."""
    text = CANARIES["answer"]
    if json.loads(body).get("stream"):
        writer.write(STREAM_HEAD + chunks(chat_events(text)) + LAST_CHUNK)
    else:
        writer.write(whole(completion(text * 40), extra=f"X-Request-Id: {text}\r\n".encode()))


async def run(build_fleet, upstream, server, seal):
    """A varied run on two sidecars, which leaves entries, a log and a mode in Redis. Returns the sidecars."""
    region = Region("here", upstream.url)
    service = Service(CANARIES["service"], DIALECTS["openai"], (region,), path="/openai")
    cache = CacheRule(
        mode=CacheMode.ALWAYS,
        share=Share("header", "x-tenant"),
        tags=(CANARIES["tag"],),
        stale_while_revalidate=60.0,
    )
    match = Match(kinds=frozenset(Kind) - {Kind.OTHER, Kind.MODELS, Kind.MODERATION})
    route = Route(CANARIES["route"], match, cache)
    labs = one, two = await build_fleet(upstream.url, services=(service,), routes=(route,), **seal)

    async def ask(lab, number, *, stream=False, headers=None):
        prompt = f"{CANARIES['prompt']} {number}"
        body = {"model": CANARIES["model"], "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        reply = await lab.ask(body, headers=HEADERS | (headers or {}))

        assert 200 == reply.status
        assert CANARIES["answer"] in said(reply.body)

    async def purge(scope, value=""):
        asked = PurgeRequest(scope, value, b"", dry_run=False, fleet=True)

        assert "done" == (await one.sidecar.operations.purge(asked)).fleet

    for lab in labs:
        await ask(lab, 0)  # the credential is accepted
    for number in range(1, 6):
        await ask(one, number, stream=number % 2 == 0)
    await one.until(lambda: len(server.call("KEYS", "*:e")) >= 6)
    for number in range(1, 6):
        await ask(two, number, stream=number % 2 == 1)

    assert Outcome.HIT_REDIS in {record.outcome for record in two.records}
    await asyncio.gather(*(ask(lab, 50, stream=stream) for lab in labs for stream in (True, False)))
    await ask(two, 1, headers={"cache-control": "no-cache"})
    await ask(two, 2, headers={"authorization": f"Bearer {CANARIES['credential']}-2"})
    key, held = next(pair for page in one.sidecar.memory.walk() for pair in page)
    await purge("key", key.address.hex())
    await purge("partition", held.entry.partition.hex())
    for scope, value in (("tag", "tag"), ("tag", "callers tag"), ("route", "route"), ("service", "service")):
        await purge(scope, CANARIES[value])
    for lab in labs:
        await ask(lab, 60)
        await ask(lab, 61, stream=True)
    changed = await one.sidecar.operations.change(ModeRequest(Mode.CACHE_OFF, 600.0, fleet=True))

    assert "done" == changed.fleet
    await two.until(lambda: two.sidecar.operations.mode is Mode.CACHE_OFF)
    await ask(two, 62)
    await one.until(lambda: not server.call("KEYS", "*:l"))
    return labs, (key, held.entry)


def traces(texts, known):
    """What of the secrets stands in *texts*."""
    key, entry = known
    whole = b"\0".join(texts)
    lower = whole.lower()
    found = [name for name, canary in CANARIES.items() if canary.encode() in lower]
    digests = {"proof": key.proof, "address": key.address, "partition": entry.partition}
    return found + [name for name, digest in digests.items() if digest in whole or digest.hex().encode() in lower]


@pytest.mark.parametrize(
    "encrypt", [pytest.param(True, id="encrypted"), pytest.param(False, id="signed", marks=pytest.mark.in_clear)]
)
async def test_nothing_is_told(build_fleet, script, redis_server, tmp_path, encrypt):
    """Neither commands nor keys tell anything; where answers are not encrypted, they alone do."""
    upstream = await script(answer)
    seal = {} if encrypt else {"seal": SealRule(str(tmp_path / "cache.key"), encrypt=False, compress_above=1 << 20)}
    async with monitor(redis_server) as words:
        _, known = await run(build_fleet, upstream, redis_server, seal)
    stored = dump(redis_server)
    names = list(stored)
    values = [value for key, found in stored.items() for value in found if key.endswith(b":e")]
    notes = [value for key, found in stored.items() for value in found if not key.endswith(b":e")]

    assert {b"team-a"} == {name.partition(b":")[0] for name in names}
    assert len(values) >= 4
    assert len(stored[b"team-a:{log}:purges"]) >= 6
    assert b"team-a:{log}:mode" in stored
    assert any(value in words for value in values)
    assert b"team-a:news" in words
    if encrypt:
        assert [] == traces([*words, *names, *values, *notes], known)
    else:
        assert [] == traces([*names, *notes], known)
        assert [] == traces([word for word in words if len(word) < LONGEST_WORD], known)
        assert "answer" in traces(values, known)
        assert not {"credential", "tenant", "prompt"} & set(traces(values, known))
