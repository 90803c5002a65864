"""
A real Prometheus on loopback, for the alerts and dashboards: it scrapes what a story names, and answers queries.

Debian and Ubuntu: ``apt install prometheus`` brings ``prometheus`` and ``promtool``. Where they are missing, the tests
that need them are skipped with that reason.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest
import yaml

from tests.scenarios.processes import listening

ALERTS = Path(__file__).parents[2] / "k8s" / "alerts" / "ai-sidecar.yaml"

Series = tuple[dict[str, str], float]


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``. Skips if there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH (apt install prometheus)")
    return found


def rule_file(folder: Path) -> Path:
    """The rules of the ``PrometheusRule``, as the file that Prometheus and promtool read."""
    file = folder / "ai-sidecar.rules.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(ALERTS.read_text())["spec"]))
    return file


@dataclass
class Prometheus:
    """
    A server in *folder* that reads the *targets*, each with the labels that it gets, every second; it evaluates our
    alerts as often.
    """

    folder: Path
    targets: Mapping[int, Mapping[str, str]]

    async def __aenter__(self) -> Self:
        executable = program("prometheus")
        scrapes = [{"targets": [f"127.0.0.1:{port}"], "labels": dict(labels)} for port, labels in self.targets.items()]
        config = self.folder / "prometheus.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(rule_file(self.folder))],
                    "scrape_configs": [{"job_name": "sidecars", "static_configs": scrapes}],
                }
            )
        )
        self.log = self.folder / "prometheus.log"
        with self.log.open("wb") as output:
            self._child = subprocess.Popen(  # noqa: ASYNC220  it takes milliseconds
                [
                    executable, f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=output, stderr=output,
            )  # fmt: skip
        self._session = aiohttp.ClientSession()
        try:
            await self._started()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        await self._session.close()

    async def _started(self) -> None:
        async with asyncio.timeout(60):
            ports: set[int] = set()
            while not ports:
                assert self._child.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)
                with suppress(FileNotFoundError):  # it opens and closes files while it starts
                    ports = listening(self._child.pid)
            [self._port] = ports
            while (await self._ask("/-/ready"))[0] != 200:  # noqa: ASYNC110  only asking tells
                await asyncio.sleep(0.05)

    async def _ask(self, path: str, **query: str) -> tuple[int, bytes]:
        url = f"http://127.0.0.1:{self._port}{path}"
        async with self._session.get(url, params=query) as reply:
            return reply.status, await reply.read()

    async def _data(self, path: str, **query: str) -> Any:
        status, body = await self._ask(path, **query)
        answer = json.loads(body)

        assert 200 == status, answer
        return answer["data"]

    async def query(self, expression: str) -> list[Series]:
        """What an expression gives now: labels and value of each series."""
        found = (await self._data("/api/v1/query", query=expression))["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    async def alerts(self, name: str) -> list[dict[str, Any]]:
        """The alerts of a name that are pending or firing."""
        found = (await self._data("/api/v1/alerts"))["alerts"]
        return [alert for alert in found if alert["labels"]["alertname"] == name]

    async def until(self, expression: str, holds: Callable[[list[Series]], bool]) -> list[Series]:
        """Wait until what an expression gives is as it should be."""
        found: list[Series] = []
        try:
            async with asyncio.timeout(60):
                while not holds(found := await self.query(expression)):  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{expression} gives {found}")
        return found
