"""A real Prometheus with the alerts of ``k8s/``, which reads everything each second and waits for no alert."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.cluster.installation import until
from tests.cluster.manifests import K8S
from tests.cluster.servers import program
from tests.redis_servers import die_with_parent, free_port


class Prometheus:
    """Reads *targets*, the members of ``scrape_configs``, and keeps its files in *folder*. Used as a context."""

    def __init__(self, folder: Path, targets: Sequence[Mapping[str, Any]]) -> None:
        self._folder = folder
        self._targets = targets
        self._process: subprocess.Popen[bytes] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        executable = program("prometheus", "Debian's package prometheus has it")
        self._folder.mkdir()
        rules, config = self._folder / "rules.json", self._folder / "prometheus.json"
        rules.write_text(json.dumps({"groups": [{**group, "rules": at_once(group)} for group in groups()]}))
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        said = {"global": every, "rule_files": [str(rules)], "scrape_configs": list(self._targets)}
        config.write_text(json.dumps(said))
        address = f"127.0.0.1:{free_port()}"
        options = [f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment, and nothing else runs
                [executable, *options, f"--web.listen-address={address}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - as for the other servers
            )
        self._session = aiohttp.ClientSession(f"http://{address}")
        await until(self._is_ready)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        assert self._process is not None
        await self._session.close()
        self._process.terminate()
        self._process.wait()

    async def query(self, expression: str) -> list[Any]:
        """The samples that *expression* has now."""
        return list((await self._ask("query", query=expression))["result"])

    async def firing(self, **labels: str) -> dict[str, Any]:
        """The alerts with *labels* that fire, by their names. Other stories' namespaces are in the same cluster."""
        alerts = (await self._ask("alerts"))["alerts"]
        return {
            each["labels"]["alertname"]: each
            for each in alerts
            if each["state"] == "firing" and labels.items() <= each["labels"].items()
        }

    async def until_firing(self, name: str, **labels: str) -> Any:
        """The alert *name* with *labels*, as soon as it fires."""

        async def fires() -> bool:
            return name in await self.firing(**labels)

        await until(fires)
        return (await self.firing(**labels))[name]

    async def _ask(self, what: str, **query: str) -> Any:
        assert self._session is not None
        async with self._session.get(f"/api/v1/{what}", params=query) as answer:
            return (await answer.json())["data"]

    async def _is_ready(self) -> bool:
        assert self._session is not None
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            async with self._session.get("/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False


def groups() -> Sequence[Mapping[str, Any]]:
    """The groups of alerts in ``k8s/alerts``."""
    found = yaml.safe_load((K8S / "alerts" / "ai-sidecar.yaml").read_text(encoding="utf-8"))
    return list(found["spec"]["groups"])


def at_once(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules of *group*, none of which waits until it fires."""
    return [{**rule, "for": "0s"} for rule in group["rules"]]
