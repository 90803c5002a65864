"""The real process, started with closed descriptors or by a terminal that goes, and told to read its rules anew."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from pathlib import Path

import aiohttp
import pytest

from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, said, whole
from tests.scenarios.conftest import CHAT

EVENTS = chat_events("One", " two", " three.")
COMMAND = (sys.executable, "-m", "sidecar")


def free() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def linked(pid: int, descriptor: int) -> str:
    """What a process has open as *descriptor*."""
    return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())


@pytest.fixture
def config(tmp_path):
    """Writes a configuration for an upstream; its path, and the ports that calls and probes go to."""

    def write(upstream: str) -> tuple[str, int, int]:
        port, health = free(), free()
        regions = [{"name": "here", "url": upstream}, {"name": "gone", "url": "http://127.0.0.1:9", "priority": 2}]
        rules = {
            "version": 1,
            "listen": {"port": port},
            "health": {"port": health},
            "admin": {"port": 0},
            "upstream": {"proxy": "none"},
            "state": {"dir": str(tmp_path / "state")},
            "services": {"openai": {"dialect": "openai", "path": "/openai", "regions": regions}},
        }
        (tmp_path / "sidecar.yaml").write_text(json.dumps(rules))
        return str(tmp_path / "sidecar.yaml"), port, health

    return write


def switch_off(file: str) -> None:
    """The configuration in *file* says ``mode: cache-off`` from now on."""
    rules = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps(rules | {"mode": "cache-off"}))


@pytest.fixture
def spawn():
    """Starts processes, and kills those that are left."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **how) -> subprocess.Popen[bytes]:
        running.append(subprocess.Popen(command, **how))
        return running[-1]

    yield start
    for child in running:
        child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


async def alive(child: subprocess.Popen[bytes], health: int) -> None:
    """Wait until it is ready."""
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        while True:
            assert child.poll() is None, child.returncode
            try:
                async with session.get(f"http://127.0.0.1:{health}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


CLOSED = {"no input": "0<&-", "no output": "1>&-", "no errors": "2>&-", "none": "0<&- 1>&- 2>&-", "nothing": ""}


@pytest.mark.parametrize("closing", CLOSED.values(), ids=CLOSED)
async def test_closed_descriptors(closing, config, spawn, script, dial, tmp_path):
    """It runs as ever, and no line of its log is written into a connection."""

    async def handler(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"fail" in body:
            writer.write(whole(b'{"error":{}}', status="500 Oh"))  # is told in the log
        else:
            writer.write(whole(completion("One two three.")))

    upstream = await script(handler)
    file, port, health = config(upstream.url)
    log = (tmp_path / "log").open("wb")
    line = f'exec "$@" {closing}'
    child = spawn("sh", "-c", line, "sh", *COMMAND, "run", "--config", file, stdout=log, stderr=log)
    log.close()
    await alive(child, health)
    for descriptor, opened in ((0, "0<&-"), (1, "1>&-"), (2, "2>&-")):
        link = linked(child.pid, descriptor)
        assert not link.startswith("socket:")
        if opened in closing:
            assert "/dev/null" == link
    for number in range(20):
        failing = {**CHAT, "seed": number, "user": "fail"}
        assert 500 <= (await (await dial(port, failing)).reply()).status
        reply = await (await dial(port, {**CHAT, "seed": number})).reply()
        assert (200, "One two three.") == (reply.status, said(reply.body))
    for head, body in upstream.seen:
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert json.loads(body)["messages"] == CHAT["messages"]
    child.send_signal(signal.SIGTERM)

    assert 0 == await asyncio.to_thread(child.wait, 20)
    if "2>&-" not in closing:
        assert '"event":"stopped"' in (tmp_path / "log").read_text()


@pytest.mark.parametrize("arguments", [("check", "/nowhere"), ("run", "--config", "/nowhere"), ("run", "--what")])
def test_a_command_that_fails_with_nobody_to_tell(arguments, spawn, tmp_path):
    """What is for people stays out of the output, where scripts read."""
    with (tmp_path / "out").open("wb") as out:
        child = spawn("sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, *arguments, stdout=out)

        assert 2 == child.wait(20)
    assert b"" == (tmp_path / "out").read_bytes()


async def test_hangup_reads_the_rules_again(config, spawn, script, dial, tmp_path):
    """SIGHUP: the rules are read at once; streams go on, new calls are answered by the new rules."""
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
        await writer.drain()
        await go.wait()
        writer.write(chunks(EVENTS[2:]) + LAST_CHUNK)

    upstream = await script(handler)
    file, port, health = config(upstream.url)
    with (tmp_path / "log").open("wb") as log:
        child = spawn(*COMMAND, "run", "--config", file, stderr=log)
    await alive(child, health)
    callers = [await dial(port, {**CHAT, "stream": True, "seed": number}) for number in range(5)]
    for caller in callers:
        await caller.until(b'"One"')

    def told() -> list[dict]:
        lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [event for event in events if event["event"] == "config-reloaded" and event["by"] == "SIGHUP"]

    for count in (1, 2):
        if count == 2:
            switch_off(file)
        child.send_signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while len(told()) < count:  # noqa: ASYNC110  a file has no event to wait for
                await asyncio.sleep(0.01)
    go.set()
    replies = [await caller.reply() for caller in callers]
    later = await (await dial(port, {**CHAT, "stream": True, "seed": 9})).reply()

    assert [(200, "One two three.", False)] * 6 == [
        (reply.status, said(reply.body), reply.broken) for reply in (*replies, later)
    ]
    assert ["nothing that counts", "mode: normal → cache-off"] == [event["changes"] for event in told()]
    assert "bypass" in later.headers["cache-status"]
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert 0 == await asyncio.to_thread(child.wait, 20)


@pytest.mark.parametrize("demo", [False, True], ids=["run", "demo"])
async def test_a_terminal_that_goes(demo, config, spawn, tmp_path):
    """Whoever closes the terminal that it was started in leaves nothing behind."""
    file, _, health = config("http://127.0.0.1:9")
    ours, theirs = pty.openpty()

    def lead() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    more = ("--demo",) if demo else ()
    with (tmp_path / "log").open("wb") as log:
        child = spawn(
            *COMMAND, "run", "--config", file, *more,
            stdin=theirs, stdout=log, stderr=log, start_new_session=True, preexec_fn=lead,
        )  # fmt: skip
    os.close(theirs)
    await alive(child, health)
    os.close(ours)

    assert 0 == await asyncio.to_thread(child.wait, 20)
    assert ("Stopping" if demo else '"event":"stopped"') in (tmp_path / "log").read_text()
