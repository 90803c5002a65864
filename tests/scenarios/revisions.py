"""Former states of the program, out of the project's history, and processes that run them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.redis_servers import free_port
from tests.scenarios.answers import said
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY, TOKEN
from tests.scenarios.processes import Process

ROOT = Path(__file__).parents[2]

NO_HISTORY = "the history of the project is not here: this is no clone, or a shallow one, or there is no git"


def git(*words: str) -> str:
    """What git says of the project; nothing where it cannot say it."""
    return _output(words).decode()


def unpacked(commit: str, folder: Path) -> Path:
    """The program as it was at *commit*, in *folder*. Skips where it cannot be had."""
    archive = _output(("archive", commit, "sidecar"))
    if not commit or not archive:
        pytest.skip(NO_HISTORY)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


def _output(words: Sequence[str]) -> bytes:
    try:
        found = subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return found.stdout if found.returncode == 0 else b""


class Pod:
    """A sidecar of the program in *folder* by *config*, with its log in *where* under *name*."""

    def __init__(self, name: str, folder: Path, where: Path, config: Path) -> None:
        self.admin = free_port()
        log, output = where / f"{name}.log", where / f"{name}.out"
        command = (sys.executable, "-P", "-m", "sidecar", "run", "--config", str(config))
        environ = {**os.environ, "PYTHONPATH": str(folder), "SIDECAR_ADMIN_PORT": str(self.admin)}
        with log.open("wb") as stderr, output.open("wb") as stdout:
            child = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=folder, env=environ)
        self.process = Process(child, log, output)

    async def ask(self, session: aiohttp.ClientSession, question: int) -> tuple[int, str, str]:
        """Status, text and what the sidecar did."""
        body = CHAT | {"messages": [{"role": "user", "content": f"Question {question}"}]}
        headers = {"authorization": KEY, "x-sidecar-tags": "box", "x-stainless-retry-count": "0"}
        url = f"http://127.0.0.1:{self.process.port}{CHAT_PATH}"
        async with session.post(url, json=body, headers=headers) as response:
            return response.status, said(await response.read()), response.headers["cache-status"]

    async def act(self, session: aiohttp.ClientSession, what: str, **body: object) -> Any:
        """Do to the fleet what ``/api`` offers."""
        url = f"http://127.0.0.1:{self.admin}/api/{what}"
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        async with session.post(url, data=json.dumps(body), headers=headers) as response:
            assert 200 == response.status, await response.text()
            return await response.json()


async def end(pods: Sequence[Pod]) -> None:
    """End them, and look whether one of them has met a bug or an error."""
    for pod in pods:
        pod.process.terminate()
    for pod in pods:
        assert 0 == await pod.process.ended()
    events = [event for pod in pods for event in pod.process.events]
    assert [] == [event for event in events if event["level"] == "error" or event["event"] == "bug"]
