"""A fleet in the middle of a roll-out: pods of this version of keys and of the last share one Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from sidecar.cli.keygen import line
from sidecar.core.key.fingerprint import KEY_VERSION
from tests.redis_servers import RedisServer
from tests.scenarios.answers import completion, whole
from tests.scenarios.conftest import TOKEN
from tests.scenarios.revisions import ROOT, Pod, end, git, unpacked

CALLERS = 40
QUESTIONS = 5


@pytest.fixture(scope="module")
def last_version(tmp_path_factory) -> Path:
    """The program as it was before its keys changed, out of the project's history."""
    change = git("log", "--format=%H", f"-SKEY_VERSION = {KEY_VERSION}", "--", "sidecar").split()
    folder = unpacked(f"{change[-1]}^" if change else "", tmp_path_factory.mktemp("last"))
    [module] = folder.rglob("fingerprint.py")
    assert f"KEY_VERSION = {KEY_VERSION - 1}" in module.read_text()
    return folder


async def forgets(pod: Pod, session: aiohttp.ClientSession, question: int, texts: set[str]) -> None:
    """Wait until a question has none of the answers *texts* any more."""
    async with asyncio.timeout(10):
        while (await pod.ask(session, question))[1] in texts:  # noqa: ASYNC110  another pod tells it
            await asyncio.sleep(0.05)


def configured(where: Path, redis: RedisServer, upstream: str) -> Path:
    """The file of all."""
    (where / "token").write_text(TOKEN + "\n")
    (where / "cache.key").write_text(line() + "\n")
    config = where / "sidecar.yaml"
    config.write_text(f"""
version: 1
listen: {{port: 0}}
health: {{port: 0}}
admin: {{token_file: {where / "token"}}}
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
    return config


async def test_they_share_no_answer_and_every_purge(last_version, tmp_path, script, redis_server: RedisServer):
    """Under load nobody fails, each version reads its own answers only, and a purge at one takes those of both."""
    numbers = iter(range(1, 10_000))

    async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        writer.write(whole(completion(f"answer {next(numbers)}")))

    upstream = await script(answer)
    config = configured(tmp_path, redis_server, upstream.url)
    folders = {"last-1": last_version, "last-2": last_version, "this-1": ROOT, "this-2": ROOT}
    pods = {name: Pod(name, folder, tmp_path, config) for name, folder in folders.items()}
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
                assert "done" == (await pods[by].act(session, "purge", scope=scope, value=value))["fleet"]
                await asyncio.gather(*(forgets(pod, session, 0, texts[0] | texts[1]) for pod in pods.values()))
                between = {(await pod.ask(session, 1))[1] for pod in pods.values()}  # what the next purge takes
                await pods["this-1"].act(session, "purge", scope="all", value="")
                await asyncio.gather(*(forgets(pod, session, 1, between) for pod in pods.values()))
    finally:
        await end(list(pods.values()))
