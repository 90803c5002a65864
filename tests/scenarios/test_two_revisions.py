"""A fleet in the middle of an upgrade: a former revision of the program and this one, on one Redis and ConfigMap."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from sidecar.cli.keygen import line
from tests.mounted import mount
from tests.redis_servers import RedisServer
from tests.scenarios.answers import completion, whole
from tests.scenarios.conftest import TOKEN
from tests.scenarios.lab import Script
from tests.scenarios.revisions import NO_HISTORY, ROOT, Pod, end, git, unpacked

BACK = 50
"""So many commits of the main line lie between the two, unless what they must have in common is younger."""

COMMON = ("KEY_VERSION = ", "^VERSION = ", "^class Reloads:")
"""Lines that both have: the versions of keys and of entries in Redis, and what reads a changed configuration again."""

BOTH_WAYS = [("former", "present"), ("present", "former")]


def common(*commit: str) -> set[str]:
    """These lines, in the files or at *commit*."""
    words = [word for pattern in COMMON for word in ("-e", pattern)]
    return set(git("grep", "-h", *words, *commit, "--", "sidecar/core/key", "sidecar/store", "sidecar/app").split("\n"))


@pytest.fixture(scope="module")
def former(tmp_path_factory) -> Path:
    """The oldest of the last commits that has all this in common with the files."""
    commits = git("log", "--first-parent", "--format=%H", f"-{BACK + 1}").split()
    present = common()
    found = next((commit for commit in reversed(commits) if common(commit) == present), "")
    if not commits:
        pytest.skip(NO_HISTORY)
    if found in {"", commits[0]}:
        pytest.skip("no former commit has the keys and the entries of the files")
    return unpacked(found, tmp_path_factory.mktemp("former"))


class Fleet:
    """Two pods by name, before two regions, whose texts tell which of them has answered, and as which call."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.pods: dict[str, Pod] = {}
        self.config = folder / "etc"
        self.calls = 0
        self._folder = folder
        self._server = server
        self._urls: list[str] = []
        self._questions = itertools.count(1)

    async def start(self, script: Callable[..., Awaitable[Script]], former: Path) -> None:
        """Start both."""
        self._urls = [(await script(self._answers(name))).url for name in ("first", "second")]
        (self._folder / "cache.key").write_text(line() + "\n")
        (self._folder / "token").write_text(TOKEN + "\n")
        self.mount("1h")
        folders = {"former": former, "present": ROOT}
        self.pods = {name: Pod(name, folder, self._folder, self.config) for name, folder in folders.items()}
        await asyncio.gather(*(pod.process.started() for pod in self.pods.values()))
        self.session = aiohttp.ClientSession()

    def mount(self, ttl: str) -> None:
        """The configuration of both."""
        first, second = self._urls
        mount(self.config, f"""
version: 1
listen: {{port: 0}}
health: {{port: 0}}
admin: {{token_file: {self._folder / "token"}}}
upstream: {{proxy: none}}
cache:
  redis: {{url: "{self._server.url}", namespace: team-a, timeout: 1s, lease_wait: 60s}}
  secret_file: {self._folder / "cache.key"}
services:
  openai:
    dialect: openai
    path: /openai
    breaker: {{shared: true}}
    regions: [{{name: first, url: "{first}"}}, {{name: second, url: "{second}", priority: 2}}]
routes:
  - {{name: all, cache: {{mode: always, ttl: {ttl}}}}}
""")  # fmt: skip

    def fresh(self) -> int:
        """A question that nobody has asked."""
        return next(self._questions)

    async def ask(self, name: str, question: int) -> tuple[str, str]:
        """The answer of the pod *name*: its text, and what the sidecar did."""
        status, text, cache = await self.pods[name].ask(self.session, question)
        assert 200 == status
        return text, cache

    async def kept(self) -> None:
        """Wait until what was answered is in Redis, and nobody holds a lease."""
        await self.until(self._is_kept)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something is so that one pod tells the other."""
        async with asyncio.timeout(20):
            while not await holds():  # noqa: ASYNC110  another process tells it
                await asyncio.sleep(0.05)

    def reloads(self) -> dict[str, int]:
        """How often each has taken on a configuration."""
        return {
            name: sum(event["event"] == "config-reloaded" for event in pod.process.events)
            for name, pod in self.pods.items()
        }

    async def _is_kept(self) -> bool:
        return bool(self._server.call("KEYS", "*:e")) and not self._server.call("KEYS", "*:l")

    def _answers(self, region: str) -> Callable[..., Awaitable[None]]:
        async def answer(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
            self.calls += 1
            text = f"{region} {self.calls}"
            await asyncio.sleep(0.02)
            writer.write(whole(completion(text)))

        return answer


@pytest.fixture
async def fleet(former, tmp_path, script, redis_server: RedisServer) -> AsyncIterator[Fleet]:
    """Both, running; in the end neither has met an error."""
    async with AsyncExitStack() as stack:
        found = Fleet(tmp_path, redis_server)
        await found.start(script, former)
        stack.push_async_callback(end, list(found.pods.values()))
        stack.push_async_callback(found.session.close)
        yield found


async def test_hits_cross(fleet: Fleet):
    """What one has fetched, the other finds in Redis; what both are asked at once is fetched once."""
    for one, other in BOTH_WAYS:
        await _hits_cross(fleet, one, other)
    assert 2 * len(BOTH_WAYS) == fleet.calls


async def _hits_cross(fleet: Fleet, one: str, other: str) -> None:
    question = fleet.fresh()
    text, cache = await fleet.ask(one, question)
    await fleet.kept()
    again, found = await fleet.ask(other, question)

    assert "fwd=miss" in cache
    assert (text, True, True) == (again, "; hit;" in found, "detail=redis" in found)

    question = fleet.fresh()
    answers = await asyncio.gather(*(fleet.ask(name, question) for name in (one, other) * 20))

    assert 1 == len({text for text, _ in answers})


async def test_purges_cross(fleet: Fleet):
    """A purge by one takes what the other has in memory, and what is in Redis."""
    for one, other in BOTH_WAYS:
        await _purges_cross(fleet, one, other, {"scope": "all"})
        await _purges_cross(fleet, one, other, {"scope": "tag", "value": "box"})


async def _purges_cross(fleet: Fleet, one: str, other: str, scope: dict[str, str]) -> None:
    question = fleet.fresh()
    text, _ = await fleet.ask(one, question)
    await fleet.kept()

    assert text == (await fleet.ask(other, question))[0]
    assert "detail=memory" in (await fleet.ask(other, question))[1]

    done = await fleet.pods[one].act(fleet.session, "purge", **scope)

    async def forgotten() -> bool:
        return (await fleet.ask(other, question))[0] != text

    await fleet.until(forgotten)

    assert "done" == done["fleet"]
    assert text != (await fleet.ask(one, question))[0]


async def test_orders_cross(fleet: Fleet):
    """A region that is stopped by one gets no calls of the other, until the other ends that for both."""
    for one, other in BOTH_WAYS:
        await _orders_cross(fleet, one, other)


async def _orders_cross(fleet: Fleet, one: str, other: str) -> None:
    async def order(name: str, action: str, region: str = "first") -> None:
        asked = {"service": "openai", "region": region, "action": action}
        await fleet.pods[name].act(fleet.session, "regions", **asked)

    async def answered(name: str, region: str) -> bool:
        return (await fleet.ask(name, fleet.fresh()))[0].startswith(region)

    for name in (one, other):
        await fleet.until(lambda name=name: answered(name, "first"))
    await order(one, "stop")
    await fleet.until(lambda: answered(other, "second"))

    assert await answered(one, "second")

    await order(other, "auto")
    for name in (one, other):
        await fleet.until(lambda name=name: answered(name, "first"))  # its share of the calls grows from little


async def test_modes_cross(fleet: Fleet):
    """Where one is told to look nothing up, the other does so, too, until the other is told otherwise."""
    for one, other in BOTH_WAYS:
        await _modes_cross(fleet, one, other)


async def _modes_cross(fleet: Fleet, one: str, other: str) -> None:
    question = fleet.fresh()

    async def hits(name: str) -> bool:
        return "; hit;" in (await fleet.ask(name, question))[1]

    async def misses(name: str) -> bool:
        return not await hits(name)

    await fleet.until(lambda: hits(other))
    await fleet.pods[one].act(fleet.session, "mode", mode="cache-off")
    await fleet.until(lambda: misses(other))
    await fleet.pods[other].act(fleet.session, "mode", mode="normal")
    await fleet.until(lambda: hits(one))


async def test_a_reload_reaches_both(fleet: Fleet):
    """The file that they share changes: both take it on, and what each of them stores from then on, the other finds."""
    fleet.mount("30s")

    async def reloaded() -> bool:
        return fleet.reloads() == {"former": 1, "present": 1}

    await fleet.until(reloaded)
    for one, other in BOTH_WAYS:
        question = fleet.fresh()
        text, _ = await fleet.ask(one, question)
        await fleet.kept()
        again, found = await fleet.ask(other, question)

        assert text == again
        assert int(found.partition("ttl=")[2].partition(";")[0]) <= 30
