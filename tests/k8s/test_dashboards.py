"""The dashboards: made by their code, naming what exists, and each query of a panel drawn from a real Prometheus."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.keygen import line
from tests.k8s.names import K8S, commands, metrics, strangers, unknown_words
from tests.k8s.prometheus import Prometheus, program
from tests.redis_servers import RedisServer
from tests.scenarios.answers import completion, whole
from tests.scenarios.lab import CHAT, Script
from tests.scenarios.processes import Process, ask, launch, run_by

FOLDER = K8S / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
BOARDS = {file.stem: json.loads(file.read_text()) for file in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items() for panel in board["panels"] if panel["type"] != "row"
]  # fmt: skip


def drawn(expression: str, *, namespace: str = ".*", route: str = ".*") -> str:
    """A panel's query as Grafana sends it, for short times."""
    values = {"$__rate_interval": "10s", "$__range": "1m", "$namespace": namespace, "$route": route}
    for variable, value in values.items():
        expression = expression.replace(variable, value)

    assert "$" not in expression
    return expression


def queries() -> Iterator[tuple[str, str]]:
    """The title of each panel and its query."""
    for panel in (param.values[0] for param in PANELS):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_files():
    """There is one file for each script, and kustomize puts each into a ConfigMap."""
    scripts = sorted(file.stem for file in FOLDER.glob("*.py"))

    assert scripts == sorted(BOARDS)
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_made_by_code(file: Path):
    """What is checked in is what the script makes."""
    pytest.importorskip("grafana_foundation_sdk", reason="the package grafana-foundation-sdk is missing: make setup")
    spec = importlib.util.spec_from_file_location(f"dashboard_{file.stem}", file.with_suffix(".py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    assert module.text() == file.read_text()


@pytest.mark.parametrize("panel", PANELS)
def test_panel(panel: dict[str, Any]):
    """It names only what exists, takes the variables, and says in whole sentences what to do."""
    advice = panel["description"]

    assert [] == list(unknown_words(advice))
    assert [] == list(strangers(advice))
    assert advice.endswith(".")
    assert len(advice.split()) > 12
    assert [] == [command for command in commands(advice) if command[0] not in {"explain", "region", "inject"}]
    for target in panel["targets"]:
        expression = target["expr"]

        assert [] == list(strangers(expression))
        assert len(re.findall(r"\bsidecar_[a-z_]+", expression)) == expression.count('namespace=~"$namespace"')
        assert expression.count("sidecar_requests_total") == expression.count('route=~"$route"')
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_board(board: dict[str, Any]):
    """Its panels have numbers of their own and do not cover each other; its variables read labels that exist."""
    places = [panel["gridPos"] for panel in board["panels"]]
    cells = [(x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
             for y in range(place["y"], place["y"] + place["h"])]  # fmt: skip
    known = metrics()

    assert list(range(1, len(places) + 1)) == [panel["id"] for panel in board["panels"]]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert ["datasource", "namespace", "route"] == [each["name"] for each in board["templating"]["list"]]
    for variable in board["templating"]["list"][1:]:
        read = re.fullmatch(r"label_values\((\w+)(?:\{[^}]*\})?, (\w+)\)", variable["query"])

        assert read is not None
        assert read[2] in known[read[1]]


def configuration(folder: Path, server: RedisServer, upstream: str) -> Path:
    """The file of a sidecar with a small memory tier, a Redis, and one route of its own."""
    (folder / "cache.key").write_text(SECRET + "\n")
    file = folder / "sidecar.yaml"
    free = {"port": 0}
    cache = {
        "memory": {"max_bytes": "128Ki", "max_entry_bytes": "16Ki"},
        "redis": {"url": server.url, "namespace": "team-a", "timeout": "1s"},
        "secret_file": str(folder / "cache.key"),
    }
    regions = [{"name": "here", "url": upstream}]
    file.write_text(
        json.dumps({
            "version": 1, "listen": free, "health": free, "admin": free, "upstream": {"proxy": "none"},
            "state": {"dir": str(folder / "state")}, "cache": cache,
            "services": {"openai": {"dialect": "openai", "path": "/openai", "regions": regions}},
            "routes": [{
                "name": "invoices", "match": {"path": "*/chat/completions", "model": "invoices"},
                "cache": {"mode": "always", "ttl": "1h"},
            }],
        })
    )  # fmt: skip
    return file


SECRET = line()
"""The same in both sidecars, so that one reads what the other wrote."""


async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    """A service: long answers, and an error where it is asked for one."""
    if b"wrong" in body:
        writer.write(whole(b'{"error": {"message": "no"}}', status="400 Bad Request"))
    else:
        writer.write(whole(completion("a long answer " * 300)))


def calls(turn: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The calls of one turn, and which sidecar gets them."""

    def said(text: str, **more: Any) -> dict[str, Any]:
        return {**CHAT, "messages": [{"role": "user", "content": text}], **more}

    yield 0, said("always the same")
    yield 0, said("always the same")
    yield 0, said(f"new {turn}")
    yield 1, said(f"new {turn}")
    yield 0, said(f"invoice {turn // 4}", model="invoices")
    yield 1, said(f"wrong {turn}")
    yield 0, said(f"every time another {turn}", temperature=1)


@asynccontextmanager
async def traffic(processes: list[Process]) -> AsyncIterator[None]:
    """While this lasts, applications call."""

    over = asyncio.Event()

    async def call() -> None:
        for turn in count():
            for number, body in calls(turn):
                caller = await ask(processes[number], body)
                await caller.reply()
                caller.vanish()
            if over.is_set():
                return

    task = asyncio.create_task(call())
    try:
        yield
    finally:
        over.set()
        await task


async def test_every_query_is_drawn(tmp_path: Path, redis_server: RedisServer):
    """
    A real Prometheus over two real sidecars with traffic: each panel's query returns numbers, and none for a namespace
    or a route that does not exist. Both tiers are told apart, and so are the routes.
    """
    program("prometheus")
    service = Script(answer)
    await service.start()
    running: list[Process] = []
    try:
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            running.append(launch(folder, *run_by(configuration(folder, redis_server, service.url))))
        for process in running:
            await process.started()
        labels = ({"namespace": "team-a"}, {"namespace": "team-b"})
        targets = dict(zip([process.health_port for process in running], labels, strict=True))
        found: dict[str, dict[str, float]] = {}
        async with Prometheus(tmp_path, targets) as prometheus, traffic(running):
            tiers = next(query for title, query in queries() if title == "Hit ratio by tier")
            await prometheus.until(drawn(tiers), lambda series: len(series) >= 2)
            for title, query in queries():
                series = await prometheus.until(
                    drawn(query), lambda series: bool(series) and all(math.isfinite(value) for _, value in series)
                )
                found[title] = {" ".join(labels.values()): value for labels, value in series}

                assert [] == await prometheus.query(drawn(query, namespace="none"))
                if "$route" in query:
                    assert [] == await prometheus.query(drawn(query, route="none"))
                else:
                    assert [] != await prometheus.query(drawn(query, route="none"))
    finally:
        await service.stop()
        for process in running:
            process.child.kill()
            process.child.wait()

    assert 0 < found["Hit ratio"][""] < 1
    assert {"hit_memory", "hit_redis"} <= found["Hit ratio by tier"].keys()
    assert "invoices" in found["Hit ratio by route"]
    assert {"hit_memory", "hit_redis", "miss", "bypass"} <= found["Requests by outcome"].keys()
    assert found["Why calls were not looked up"]
    assert found["Why answers were not stored"]
    assert found["Evictions from memory"]["team-a"] > 0
    assert {"team-a": 1.0, "team-b": 1.0} == found["Sidecars that use Redis"]
