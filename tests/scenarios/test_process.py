"""The real process: how it ends, and what it tells while it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chunks, completion, said, whole
from tests.scenarios.caller import Caller
from tests.scenarios.conftest import CHAT, CHAT_PATH
from tests.scenarios.open_streams import CALLS, EVENTS, TEXT, Streaming, opened
from tests.scenarios.processes import Process, launch, run_by

Run = Callable[..., Awaitable[Process]]


@pytest.fixture
async def run(tmp_path) -> AsyncIterator[Run]:
    """Runs ``python -m sidecar run`` with a file that names *upstream* and *more*."""
    running: list[Process] = []

    async def start(upstream: str, *, dead: str = "http://127.0.0.1:9", **more: object) -> Process:
        regions = [{"name": "here", "url": upstream}]
        config = {
            "version": 1,
            "listen": {"port": 0},
            "health": {"port": 0},
            "admin": {"port": 0},
            "upstream": {"proxy": "none"},
            "services": {
                "openai": {"dialect": "openai", "path": "/openai", "regions": regions},
                "azure-openai": {"dialect": "azure-openai", "path": "/direct", "regions": regions},
                "dead": {"dialect": "openai", "path": "/dead", "regions": [{"name": "gone", "url": dead}]},
            },
            **more,
        }
        file = tmp_path / "sidecar.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        process = launch(tmp_path, *run_by(file))
        running.append(process)
        await process.started()
        return process

    yield start
    for process in running:
        process.child.kill()
        process.child.wait()


async def test_finishes_what_runs(run, script, dial):
    """SIGTERM: nobody new is let in, who is in gets the rest of the stream, then the process ends well."""
    service = Streaming()
    upstream = await script(service)
    process = await run(upstream.url, limits={"drain": "30s"})
    idle = await asyncio.open_connection("127.0.0.1", process.port)
    callers = await opened(process, dial)
    process.terminate()
    await process.refuses()

    assert b"" == await idle[0].read()
    assert process.child.poll() is None
    service.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 0 == await process.ended()
    assert [(200, False, TEXT)] * 20 == [(reply.status, reply.broken, said(reply.body)) for reply in replies]
    assert all(reply.body.endswith(b"data: [DONE]\n\n") for reply in replies)
    assert ["started", "draining", "stopped"] == [line["event"] for line in process.events]
    assert 20 == upstream.calls
    idle[1].close()


async def test_cuts_what_does_not_end(run, script, dial):
    """What is not over when the grace is, is cut: it breaks for its caller, at the service too, and all ends well."""
    upstream = await script(Streaming())
    process = await run(upstream.url, limits={"drain": "100ms"})
    callers = await opened(process, dial)
    process.terminate()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 0 == await process.ended()

    assert [True] * 20 == [reply.broken for reply in replies]
    assert not any(b"[DONE]" in reply.body for reply in replies)
    assert ["started", "draining", *["request"] * 20, "stopped"] == [line["event"] for line in process.events]
    async with asyncio.timeout(10):
        while upstream.open:  # noqa: ASYNC110  as in Lab.until
            await asyncio.sleep(0.01)
    assert 20 == upstream.deserted


async def test_second_signal(run, script, dial):
    """A second SIGTERM changes nothing: the grace belongs to those who are in."""
    service = Streaming()
    upstream = await script(service)
    process = await run(upstream.url)
    caller = await dial(process.port, CALLS[1])
    await caller.until(b'"One"')
    process.terminate()
    await process.refuses()
    process.terminate()
    service.go.set()

    assert TEXT == said((await caller.reply()).body)

    assert 0 == await process.ended()


SECRET = "sk-canary-6f1e"

PROMPT = "PROMPT-canary"


class Moody:
    """A service whose mood the seed of a call chooses; its errors quote the call."""

    async def __call__(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        quoted = json.dumps({"error": {"message": f"{SECRET} {PROMPT} {head!r}", "code": "x"}}).encode()
        mood = body.partition(b'"mood": "')[2].partition(b'"')[0]
        match mood:
            case b"401":
                writer.write(whole(quoted, status="401 Unauthorized"))
            case b"500":
                writer.write(whole(quoted, status="500 Oh"))
            case b"hangs up":
                writer.close()
            case b"breaks":
                writer.write(STREAM_HEAD + chunks(EVENTS[:3]) + chunks([PROMPT.encode()]))
                writer.close()
            case b"cut short":
                writer.write(whole(completion(PROMPT))[:-9])
                writer.close()
            case b"babbles":
                writer.write(f"{PROMPT} {SECRET}\r\n\r\n".encode())
                writer.close()
            case b"streams":
                writer.write(STREAM_HEAD + chunks([*EVENTS[:3], f'data: {{"error":"{PROMPT}"}}\n\n'.encode()]))
                writer.write(LAST_CHUNK)
            case b"fields":
                writer.write(whole(completion(PROMPT), extra=f"X-Echo: {SECRET} {PROMPT}\r\n".encode()))
            case _:
                writer.write(whole(completion(PROMPT)))


_POST = "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"

BROKEN = {
    "bad method": "{key} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bad field": _POST + "Authorization: Bearer {key}\r\n{prompt}\r\n\r\n",
    "bad host": "GET /?{prompt} HTTP/1.1\r\nHost: {key}/{prompt}\r\n\r\n",
    "bad version": "GET /{prompt} HTTP/9.9\r\nHost: localhost\r\nAuthorization: {key}\r\n\r\n",
    "two keys": "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\nAuthorization: {key}\r\n\r\n",
    "bad chunk": _POST + "Transfer-Encoding: chunked\r\n\r\n{prompt}\r\n",
    "target": "GET {prompt} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n\r\n",
}


async def test_canary(run, script, dial):
    """No key and no prompt stands in the log, on the standard output or in the metrics, whatever happens to a call."""
    upstream = await script(Moody())
    process = await run(upstream.url)
    headers = {"authorization": f"Bearer {SECRET}"}
    question = {**CHAT, "messages": [{"role": "user", "content": PROMPT}]}
    statuses: list[int] = []

    async def ask(body, path: str = CHAT_PATH, **more: str) -> None:
        reply = await (await dial(process.port, body, path=path, headers=headers | more)).reply()
        statuses.append(reply.status)

    for _ in range(210):  # one call in a hundred is logged
        await ask(question)
    for mood in ("401", "500", "hangs up", "breaks", "cut short", "babbles", "streams", "fields"):
        for stream in (False, True):
            await ask({**question, "mood": mood, "stream": stream})
            await ask({**question, "mood": mood, "stream": stream, "temperature": 1})
    await ask(question, f"/dead/v1/chat/completions?{PROMPT}")
    await ask(question, f"/{PROMPT}/{SECRET}")
    await ask(question, f"/openai/v1/{PROMPT}?api-version={SECRET}")
    await ask(question, f"/direct/openai/v1/chat/completions?api-key={SECRET}&x={PROMPT}")
    await ask(question, f"/direct/openai/v1/{PROMPT}?api-key={SECRET}")
    await ask(question, **{"cache-control": "only-if-cached", "x-sidecar-tags": PROMPT, "openai-project": SECRET})
    await ask(f'{{"messages": "{PROMPT}", "{SECRET}'.encode())
    await ask(f'{{"a": "{PROMPT}", "a": "{SECRET}"}}'.encode())
    for text in BROKEN.values():
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(text.format(key=SECRET, prompt=PROMPT).encode())
        statuses.append((await Caller(reader, writer).reply()).status)
        writer.close()
    left = await dial(process.port, {**question, "mood": "late"}, headers=headers | {"content-length": "999"})
    left.vanish()
    metrics = await process.metrics()
    process.terminate()

    assert 0 == await process.ended()
    log, output = process.log.read_bytes(), process.output.read_bytes()
    assert {200, 400, 401, 404, 421, 500, 502, 504} <= set(statuses)
    assert {"warning", "error", "info"} == {line["level"] for line in process.events}
    assert b'"why":"sample"' in log
    assert b"hit_memory" in metrics
    for secret in (SECRET, PROMPT):
        for told in (log, output, metrics):
            assert secret.encode() not in told
            assert secret.lower().encode() not in told.lower()
    assert b"" == output
