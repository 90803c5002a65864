"""Fleets of sidecars in processes of their own, each of which can be searched for a text; and the search of Redis."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.cli.keygen import line
from sidecar.core.key.keyring import parse
from sidecar.core.model import Entry, Key
from sidecar.core.rules import SealRule
from sidecar.store.seal import Seal
from tests.redis_servers import RedisServer
from tests.scenarios.lab import TOKEN
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
    folder: Path, server: RedisServer, upstream: str, count: int, dialect: str = "openai", **environ: str
) -> AsyncIterator[list[Pod]]:
    """
    *count* sidecars, each in a process that can be searched, with a service of *dialect* at the path of that name;
    *environ* is added to its environment.
    """
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
  {dialect}: {{dialect: {dialect}, path: /{dialect}, regions: [{{name: here, url: "{upstream}"}}]}}
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


def opener(secrets: Path) -> Seal:
    """Opens what the fleet with these *secrets* has sealed."""
    keyring = parse(secrets.read_bytes())
    return Seal(lambda: keyring, SealRule(str(secrets)), random=os.urandom, limit=1 << 24)


def stored(server: RedisServer, secrets: Path) -> list[tuple[bytes, Key, Entry]]:
    """The answers and the operations in Redis, opened, each with the kind that its name ends with: e, o or p."""
    seal, found = opener(secrets), []
    for where in server.call("KEYS", "*}:[eop]"):
        name, kind = where.partition(b"{")[2].partition(b"}")[0], where[-1:]
        opened = seal.unseal(name if kind == b"e" else b"operation " + name, server.call("GET", where))
        assert opened is not None, where
        found.append((kind, *opened))
    return found


def clear_texts(server: RedisServer, secrets: Path) -> bytes:
    """All that stands in Redis, as it is and opened."""
    seal = opener(secrets)
    found = bytearray()
    for key in server.call("KEYS", "*"):
        kind = server.call("TYPE", key)
        parts = {b"string": ["GET", key], b"zset": ["ZRANGE", key, 0, -1], b"hash": ["HGETALL", key]}[kind]
        read = server.call(*parts)
        for each in read if isinstance(read, list) else [read]:
            found += each
            name = key.partition(b"{")[2].partition(b"}")[0]
            opened = seal.unseal(name, each) or seal.unseal(b"operation " + name, each)
            found += opened[1].body if opened is not None else seal.open_note(each) or b""
    return bytes(found)


def files(pod: Pod, folder: Path) -> list[str]:
    """The files that may hold an upload: those in *folder*, and those that *pod* has open without a name."""
    named = [str(file) for file in folder.rglob("*") if file.is_file()]
    links = [str(link.readlink()) for link in Path(f"/proc/{pod.child.pid}/fd").iterdir()]
    return named + [link for link in links if link.endswith("(deleted)")]


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
