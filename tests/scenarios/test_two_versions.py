"""A fleet in the middle of a roll-out: pods of this version of keys and of the last share one Redis."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.cli.keygen import line
from sidecar.core.key.fingerprint import KEY_VERSION
from tests.redis_servers import RedisServer, free_port
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT, CHAT_PATH, KEY, TOKEN
from tests.scenarios.processes import Process

ROOT = Path(__file__).parents[2]
CALLERS = 40
QUESTIONS = 5


def git(*words: str) -> bytes:
    found = subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, check=False)
    return found.stdout if found.returncode == 0 else b""


@pytest.fixture(scope="module")
def last_version(tmp_path_factory) -> Path:
    """The program as it was before its keys changed, out of the project's history."""
    change = git("log", "--format=%H", f"-SKEY_VERSION = {KEY_VERSION}", "--", "sidecar").split()
    archive = git("archive", f"{change[-1].decode()}^", "sidecar") if change else b""
    if not archive:
        pytest.skip("the history of the project is not here: this is no clone, or a shallow one")
    folder = tmp_path_factory.mktemp("last")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    [module] = folder.rglob("fingerprint.py")
    assert f"KEY_VERSION = {KEY_VERSION - 1}" in module.read_text()
    return folder


class Pod:
    """A sidecar of the program in *folder*."""

    def __init__(self, name: str, folder: Path, where: Path, redis: RedisServer, upstream: str) -> None:
        self.admin = free_port()
        (where / "token").write_text(TOKEN + "\n")
        config = where / f"{name}.yaml"
        config.write_text(f"""
version: 1
listen: {{port: 0}}
health: {{port: 0}}
admin: {{port: {self.admin}, token_file: {where / "token"}}}
upstream: {{proxy: none}}
cache:
  redis: {{url: "{redis.url}", namespace: team-a, timeout: 1s}}
  secret_file: {where / "cache.key"}
services:
  openai:
    dialect: openai
    path: /openai
    regions: [{{name: here, url: "{upstream}"}}]
""")
        log, output = where / f"{name}.log", where / f"{name}.out"
        command = (sys.executable, "-P", "-m", "sidecar", "run", "--config", str(config))
        with log.open("wb") as stderr, output.open("wb") as stdout:
            child = subprocess.Popen(
                command, stdout=stdout, stderr=stderr, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}
            )
        self.process = Process(child, log, output)

    async def ask(self, session: aiohttp.ClientSession, question: int) -> tuple[int, str, str]:
        """Status, text and what the sidecar did."""
        body = CHAT | {"messages": [{"role": "user", "content": f"Question {question}"}]}
        headers = {"authorization": KEY, "x-sidecar-tags": "box", "x-stainless-retry-count": "0"}
        url = f"http://127.0.0.1:{self.process.port}{CHAT_PATH}"
        async with session.post(url, json=body, headers=headers) as response:
            return response.status, said(await response.read()), response.headers["cache-status"]

    async def forgets(self, session: aiohttp.ClientSession, question: int, texts: set[str]) -> None:
        """Wait until a question has none of the answers *texts* any more."""
        async with asyncio.timeout(10):
            while (await self.ask(session, question))[1] in texts:  # noqa: ASYNC110  another pod tells it
                await asyncio.sleep(0.05)

    async def purge(self, session: aiohttp.ClientSession, scope: str, value: str) -> Any:
        url = f"http://127.0.0.1:{self.admin}/api/purge"
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        async with session.post(url, data=json.dumps({"scope": scope, "value": value}), headers=headers) as response:
            assert 200 == response.status
            return await response.json()


async def test_they_share_no_answer_and_every_purge(last_version, tmp_path, script, redis_server: RedisServer):
    """Under load nobody fails, each version reads its own answers only, and a purge at one takes those of both."""
    numbers = iter(range(1, 10_000))

    async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(whole(completion(f"answer {next(numbers)}")))

    upstream = await script(answer)
    (tmp_path / "cache.key").write_text(line() + "\n")
    folders = {"last-1": last_version, "last-2": last_version, "this-1": ROOT, "this-2": ROOT}
    pods = {name: Pod(name, folder, tmp_path, redis_server, upstream.url) for name, folder in folders.items()}
    try:
        await asyncio.gather(*(pod.process.started() for pod in pods.values()))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            for scope, value, by in (("service", "openai", "last-1"), ("tag", "box", "this-1"), ("all", "", "last-2")):
                calls = [(name, n % QUESTIONS) for n in range(CALLERS) for name in pods]
                replies = await asyncio.gather(*(pods[name].ask(session, number) for name, number in calls))

                assert {200} == {status for status, _, _ in replies}
                answers: dict[str, set[str]] = {"last": set(), "this": set()}
                for (name, number), (_, text, _) in zip(calls, replies, strict=True):
                    answers[name[:4]].add(f"{number}: {text}")
                assert [QUESTIONS, QUESTIONS] == [len(found) for found in answers.values()]
                texts = [{found.partition(": ")[2] for found in each} for each in answers.values()]
                assert texts[0].isdisjoint(texts[1])

                hits = [await pod.ask(session, 0) for pod in pods.values()]
                assert ["sidecar; hit"] * 4 == [cache.partition("; ttl")[0] for _, _, cache in hits]
                assert "done" == (await pods[by].purge(session, scope, value))["fleet"]
                await asyncio.gather(*(pod.forgets(session, 0, texts[0] | texts[1]) for pod in pods.values()))
                between = {(await pod.ask(session, 1))[1] for pod in pods.values()}  # what the next purge takes
                await pods["this-1"].purge(session, "all", "")
                await asyncio.gather(*(pod.forgets(session, 1, between) for pod in pods.values()))
    finally:
        for pod in pods.values():
            pod.process.terminate()
        for pod in pods.values():
            pod.process.child.wait(20)
    events = [event for pod in pods.values() for event in pod.process.events]
    assert [] == [event for event in events if event["level"] == "error" or event["event"] == "bug"]
