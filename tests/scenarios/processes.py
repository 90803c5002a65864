"""Sidecars in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.cli.keygen import line
from tests.redis_servers import RedisServer
from tests.scenarios.caller import Caller
from tests.scenarios.lab import CHAT_PATH, KEY


@dataclass
class Process:
    """A sidecar in a process of its own; *log* and *output* are the files of its standard error and output."""

    child: subprocess.Popen[bytes]
    log: Path
    output: Path
    port: int = 0
    health_port: int = 0

    async def started(self) -> None:
        """Wait until it listens, which its log tells."""
        async with asyncio.timeout(60):
            told: list[dict[str, Any]] = []
            while not told:
                assert self.child.poll() is None, self.log.read_text()
                told = [line for line in self.events if line["event"] == "started"]
                await asyncio.sleep(0.01)
        self.port, self.health_port = told[0]["port"], told[0]["health_port"]

    async def ended(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.child.wait, 60)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of its log that are whole."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    def terminate(self) -> None:
        """Ask it to end, as a kubelet does."""
        self.child.send_signal(signal.SIGTERM)

    async def refuses(self) -> None:
        """Wait until it takes no new connection."""
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except ConnectionRefusedError:
                    return
                except ConnectionResetError:  # it was in the queue of those not yet accepted
                    continue
                writer.close()
                await asyncio.sleep(0.01)

    async def metrics(self) -> bytes:
        """What Prometheus would read."""
        url = f"http://127.0.0.1:{self.health_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.read()


def launch(folder: Path, *command: str, mark: str = "", environ: Mapping[str, str] | None = None) -> Process:
    """
    A sidecar that *command* begins, with its log and its output in *folder*; *mark* ends their names. *environ* is
    added to the environment.
    """
    log, output = folder / f"log{mark}", folder / f"output{mark}"
    env = os.environ | (environ or {})
    with log.open("wb") as stderr, output.open("wb") as stdout:
        return Process(subprocess.Popen(command, stdout=stdout, stderr=stderr, env=env), log, output)


def run_by(config: Path) -> tuple[str, ...]:
    """The command that runs a sidecar by *config*."""
    return sys.executable, "-m", "sidecar", "run", "--config", str(config)


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


SECRET = b"correct-horse-battery"  # pragma: allowlist secret


class Running:
    """A ``sidecar run`` with every port of its own; *more* is said in its configuration besides."""

    def __init__(self, folder: Path, more: Mapping[str, Any] | None = None, **environ: str) -> None:
        (folder / "token").write_bytes(SECRET + b"\n")
        self.file, self.log, self.output = folder / "sidecar.yaml", folder / "log", folder / "output"
        free = {"port": 0}
        rules = {
            "version": 1, "listen": free, "health": free, "admin": {**free, "token_file": str(folder / "token")},
            "upstream": {"proxy": "none"}, "state": {"dir": str(folder / "state")},
            **(more or {}),
        }  # fmt: skip
        self.file.write_text(json.dumps(rules))
        with self.log.open("wb") as stderr, self.output.open("wb") as stdout:
            self.child = subprocess.Popen(run_by(self.file), stdout=stdout, stderr=stderr, env=os.environ | environ)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of its log, each of which has to be JSON."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

    async def ports(self) -> dict[str, int]:
        """Where it listens."""
        async with asyncio.timeout(60):
            while not (told := [event for event in self.events if event["event"] == "started"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        known = {"listen": told[0]["port"], "health": told[0]["health_port"]}
        [admin] = listening(self.child.pid) - set(known.values())
        return {**known, "admin": admin}


def listening(pid: int) -> set[int]:
    """The ports on which a process listens."""
    sockets = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(file.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


def resident() -> int:
    """Bytes of this process that are in memory."""
    fields = Path("/proc/self/status").read_text().split()
    return int(fields[fields.index("VmRSS:") + 1]) * 1024
