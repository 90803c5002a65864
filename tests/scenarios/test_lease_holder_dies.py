"""A process is killed while it fetches for the fleet: another takes over."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.cli.keygen import line
from tests.redis_servers import RedisServer
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY
from tests.scenarios.test_process import Process

STREAM = {**CHAT, "stream": True}
TEXT = "It is a box."


def begin(config: Path, log: Path, output: Path) -> subprocess.Popen[bytes]:
    """A sidecar that has been started."""
    with log.open("wb") as stderr, output.open("wb") as stdout:
        command = (sys.executable, "-m", "sidecar", "run", "--config", str(config))
        return subprocess.Popen(command, stdout=stdout, stderr=stderr)


def configured(folder: Path, server: RedisServer, upstream: str) -> Path:
    """The file of a sidecar at *server*, with its secret beside it, before *upstream*."""
    (folder / "cache.key").write_text(line() + "\n")
    config = folder / "sidecar.yaml"
    config.write_text(f"""
version: 1
listen: {{port: 0}}
health: {{port: 0}}
admin: {{port: 0}}
upstream: {{proxy: none}}
cache:
  redis: {{url: "{server.url}", namespace: team-a, timeout: 1s, lease_wait: 60s}}
  secret_file: {folder / "cache.key"}
services:
  openai:
    dialect: openai
    path: /openai
    regions: [{{name: here, url: "{upstream}"}}]
""")
    return config


@pytest.fixture
async def run(tmp_path, redis_server: RedisServer):
    """Runs sidecars over one Redis, each in a process of its own."""
    running = []

    async def start(upstream: str, count: int) -> list[Process]:
        config = configured(tmp_path, redis_server, upstream)
        for number in range(count):
            log, output = Path(tmp_path, f"log-{number}"), Path(tmp_path, f"output-{number}")
            running.append(Process(begin(config, log, output), log, output))
        await asyncio.gather(*(process.started() for process in running))
        return running

    yield start
    for process in running:
        process.child.kill()
        process.child.wait()


async def until(holds):
    """Wait until *holds* is true; a story that never gets there fails here."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  what is looked at has no events for tests
            await asyncio.sleep(0.02)


async def ask(process: Process, body: object, *, after: Caller | None = None) -> Caller:
    """A caller of *process* whose request is sent; on the connection of the one that it comes *after*."""
    if after is None:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", process.port))
    else:
        caller = Caller(after._reader, after._writer)
    data = json.dumps(body).encode()
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {KEY}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    caller._writer.write(head.encode() + data)
    return caller


async def test_another_takes_over(run, script, redis_server):
    """Killed in mid-call, the holder of a lease is followed by another; no other process's caller fails."""

    async def answer(_head, body, writer):
        if upstream.calls == 1:
            await asyncio.Event().wait()  # until its caller is gone
        if b'"stream": true' in body:
            writer.write(STREAM_HEAD + chunks(chat_events(TEXT)) + LAST_CHUNK)
        else:
            writer.write(whole(completion(TEXT)))

    upstream = await script(answer)
    first, *others = await run(upstream.url, 3)
    lost = await ask(first, CHAT)
    await until(lambda: upstream.calls)
    callers = [await ask(process, body) for process in others for body in (CHAT, STREAM)]
    for process in others:
        while b"sidecar_lease_waits_total 1.0" not in await process.metrics():  # noqa: ASYNC110  as in until
            await asyncio.sleep(0.02)
    first.child.kill()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [(200, False, TEXT)] * 4 == [(reply.status, reply.broken, said(reply.body)) for reply in replies]
    assert 2 == upstream.calls
    assert (await lost.reply()).broken
    assert [] == [key for key in redis_server.call("KEYS", "*") if int(redis_server.call("PTTL", key)) < 0]
    told = [await process.metrics() for process in others]
    assert [False, True] == sorted(b"sidecar_lease_takeovers_total 1.0" in one for one in told)
    await until(lambda: not redis_server.call("KEYS", "*:l"))
    for caller in (lost, *callers):
        caller.close()
