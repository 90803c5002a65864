"""After an erasure, no process of the fleet holds a byte of the document: each of them is searched, and so is Redis."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.cli.keygen import line
from sidecar.core.key.keyring import parse
from sidecar.core.rules import SealRule
from sidecar.store.seal import Seal
from tests.redis_servers import RedisServer
from tests.scenarios.answers import completion, whole
from tests.scenarios.lab import CHAT_PATH, KEY, TOKEN
from tests.scenarios.processes import Process, launch, listening

CANARY = "canary-of-one-person-5e1d"
SEARCHED = Path(__file__).parent / "searched.py"


class Pod(Process):
    """A sidecar in a process of its own, with its admin port."""

    admin = 0

    async def erase(self, request: bytes, **more: Any) -> tuple[int, Any]:
        """Ask it to erase the answer to *request*."""
        body = {"scope": "request", "value": base64.b64encode(request).decode(), **more}
        headers = {"authorization": f"Bearer {TOKEN}"}
        url = f"http://127.0.0.1:{self.admin}/api/erase"
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def holders(self, folder: Path) -> list[str]:
        """The kinds of objects in its memory that hold the canary."""
        found = folder / f"found-{self.child.pid}"
        found.unlink(missing_ok=True)
        self.child.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(60):
            while not found.exists():  # noqa: ASYNC110  another process writes it
                await asyncio.sleep(0.02)
        return found.read_text().splitlines()


@asynccontextmanager
async def fleet(
    folder: Path, server: RedisServer, upstream: str, count: int, **environ: str
) -> AsyncIterator[list[Pod]]:
    """*count* sidecars, each in a process that can be searched; *environ* is added to its environment."""
    (folder / "sought").write_bytes(CANARY.encode()[::-1])
    (folder / "cache.key").write_text(line() + "\n")
    (folder / "token").write_text(TOKEN + "\n")
    config = folder / "sidecar.yaml"
    config.write_text(f"""
version: 1
listen: {{port: 0}}
health: {{port: 0}}
admin: {{port: 0, token_file: {folder / "token"}}}
upstream: {{proxy: none}}
state: {{dir: {folder / "state"}}}
limits: {{inflight_memory: 1Mi}}
cache:
  redis: {{url: "{server.url}", namespace: team-a, timeout: 1s}}
  secret_file: {folder / "cache.key"}
services:
  openai: {{dialect: openai, path: /openai, regions: [{{name: here, url: "{upstream}"}}]}}
""")
    pods: list[Pod] = []
    try:
        for number in range(count):
            command = (sys.executable, str(SEARCHED), str(folder), "run", "--config", str(config))
            root = str(SEARCHED.parents[2])
            started = launch(
                folder,
                *command,
                mark=str(number),
                environ={"HOSTNAME": f"pod-{number}", "PYTHONPATH": root, **environ},
            )
            pods.append(Pod(started.child, started.log, started.output))
        for pod in pods:
            await pod.started()
            [pod.admin] = listening(pod.child.pid) - {pod.port, pod.health_port}
        yield pods
    finally:
        for pod in pods:
            pod.child.send_signal(signal.SIGCONT)
            pod.terminate()
        for pod in pods:
            await pod.ended()


def body_of(size: int) -> bytes:
    """A document of about *size* bytes with the canary in it."""
    text = f"{CANARY} {'.' * size} {CANARY}"
    return json.dumps({"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": text}]}).encode()


def request_of(body: bytes) -> bytes:
    """The request as it goes over the wire, with all fields that count in its key."""
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
    """The text of the document."""
    writer.write(whole(completion(f"It reads: {CANARY} {'-' * 3000}")))


async def call(pod: Pod, body: bytes, times: int = 2) -> asyncio.StreamWriter:
    """Send *body* some times on one connection, which stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pod.port, limit=1 << 22)
    for _ in range(times):
        writer.write(request_of(body))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
        assert b" 200 " in head.splitlines()[0]
    return writer


def clear_texts(server: RedisServer, secrets: Path) -> bytes:
    """All that stands in Redis, as it is and opened."""
    keyring = parse(secrets.read_bytes())
    seal = Seal(lambda: keyring, SealRule(str(secrets)), random=os.urandom, limit=1 << 24)
    found = bytearray()
    for key in server.call("KEYS", "*"):
        kind = server.call("TYPE", key)
        parts = {b"string": ["GET", key], b"zset": ["ZRANGE", key, 0, -1], b"hash": ["HGETALL", key]}[kind]
        read = server.call(*parts)
        for each in read if isinstance(read, list) else [read]:
            found += each
            opened = seal.unseal(key.partition(b"{")[2].partition(b"}")[0], each)
            found += opened[1].body if opened is not None else seal.open_note(each) or b""
    return bytes(found)


def raw(pod: Pod) -> int:
    """How often the canary stands in the writable memory of *pod*, what is free there included."""
    found = 0
    with Path(f"/proc/{pod.child.pid}/mem").open("rb", 0) as memory:
        for entry in Path(f"/proc/{pod.child.pid}/maps").read_text().splitlines():
            bounds, rights, *_ = entry.split()
            start, end = (int(part, 16) for part in bounds.split("-"))
            if "w" in rights and "[v" not in entry:
                memory.seek(start)
                found += memory.read(end - start).count(CANARY.encode())
    return found


async def test_every_process_is_searched(script, redis_server, tmp_path):
    """
    Before, memory and Redis hold it, in several forms; afterwards no object in any process does, and nothing in Redis.
    With glibc told to overwrite what it frees, not even the raw memory of the processes has it any more.
    """
    upstream = await script(answer)
    bodies = [body_of(2000), body_of(700_000)]
    async with fleet(tmp_path, redis_server, upstream.url, 3, MALLOC_PERTURB_="165") as pods:
        calls = [await call(pod, body) for pod in pods for body in bodies]
        before = [bool(raw(pod)) for pod in pods]
        shared = CANARY.encode() in clear_texts(redis_server, tmp_path / "cache.key")
        receipts = [(await pods[0].erase(request_of(body)))[1] for body in bodies]
        left = clear_texts(redis_server, tmp_path / "cache.key")
        async with asyncio.timeout(60):
            while any(map(raw, pods)):  # noqa: ASYNC110  the memory of other processes
                await asyncio.sleep(0.5)
        holders = [await pod.holders(tmp_path) for pod in pods]
        for each in calls:
            each.close()

    assert ([True] * 3, True) == (before, shared)
    assert [True, True] == [receipt["complete"] for receipt in receipts]
    assert {"pod-0", "pod-1", "pod-2"} == {pod["pod"].split(" ")[0] for pod in receipts[0]["pods"]}
    assert CANARY.encode() not in left
    assert [[], [], []] == holders
    assert [] == [str(file) for file in (tmp_path / "state").rglob("*") if file.is_file()]


async def test_the_search_finds(script, redis_server, tmp_path):
    """What a process holds is found by kind: the answer, and the body that is kept to find it faster."""
    upstream = await script(answer)
    async with fleet(tmp_path, redis_server, upstream.url, 1) as [pod]:
        caller = await call(pod, body_of(2000))
        holders = await pod.holders(tmp_path)
        caller.close()

    assert {"sidecar.core.model.Entry bytes", "builtins.tuple bytes"} == set(holders)


async def test_a_stopped_pod(script, redis_server, tmp_path):
    """It is named, and the receipt is not complete. When it goes on, it lets go by itself, and can be asked again."""
    upstream = await script(answer)
    body = body_of(2000)
    async with fleet(tmp_path, redis_server, upstream.url, 3) as pods:
        for pod in pods:
            (await call(pod, body)).close()
        pods[2].child.send_signal(signal.SIGSTOP)
        _, receipt = await pods[0].erase(request_of(body), wait="1s")
        pods[2].child.send_signal(signal.SIGCONT)
        async with asyncio.timeout(60):
            while await pods[2].holders(tmp_path):  # noqa: ASYNC110  as above
                await asyncio.sleep(0.1)
        _, again = await pods[0].erase(request_of(body))

    lacking = [pod["pod"].split(" ")[0] for pod in receipt["pods"] if not pod["confirmed_at"]]

    assert (False, ["pod-2"], True) == (receipt["complete"], lacking, again["complete"])


async def test_the_command(script, redis_server, tmp_path):
    """``sidecar purge --erase --request FILE`` prints the receipt; its exit code says whether it is complete."""
    upstream = await script(answer)
    body = body_of(2000)
    (tmp_path / "request.http").write_bytes(request_of(body))
    async with fleet(tmp_path, redis_server, upstream.url, 2) as pods:
        for pod in pods:
            (await call(pod, body)).close()
        config = tmp_path / "asking.yaml"
        config.write_text(
            (tmp_path / "sidecar.yaml").read_text().replace("admin: {port: 0", f"admin: {{port: {pods[0].admin}")
        )
        command = (sys.executable, "-m", "sidecar", "purge", "--erase", "--request", str(tmp_path / "request.http"))
        asking = await asyncio.create_subprocess_exec(
            *command, "--config", str(config), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asking.communicate()

    assert 0 == asking.returncode, err.decode()
    assert re.search(r"^Erased: the answer of key [0-9a-f]{8}\.\.\. \(by --request\)$", out.decode(), re.MULTILINE)
    assert re.search(r"^  pod pod-1 \(.{6}\): 1 entry in memory, confirmed 20.*Z$", out.decode(), re.MULTILINE)
    assert out.decode().endswith("complete\n")
    assert CANARY not in out.decode() + err.decode()
