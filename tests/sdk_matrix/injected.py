"""
The applications of ``applications.py`` in the environment that injection gives their containers, before a sidecar.

The rule: one configuration is what injection reads and what the sidecar runs by, with the services' real names. A
program gets the variables of its container and nothing of this machine's but ``PATH``. It cannot reach the stand-in
services itself, so an answer shows that its call came through the sidecar.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sidecar.cli.inject import inject, injection
from sidecar.demo.provider import DemoProvider
from sidecar.inject.files import ManifestText
from sidecar.inject.manifests import read
from sidecar.settings import load
from tests.scenarios.processes import Process, launch, run_by
from tests.sdk_matrix.applications import ANSWERED, DOCUMENTS, RESOURCE, Application
from tests.sdk_matrix.documents import Documents
from tests.sdk_matrix.internet import Internet

ROOT = Path(__file__).parents[2]
NODE_PACKAGES = ROOT / ".node-sdks"
NODE = shutil.which("node") if (NODE_PACKAGES / "node_modules").is_dir() else None

KEY = "key-of-the-container"

USUAL_PORT = 7400

HOSTS = ("api.openai.com", "api.anthropic.com", *(url.removeprefix("https://") for url in (RESOURCE, DOCUMENTS)))
"""The services, by their real names."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

_LONGEST = 120.0


def manifest(application: Application, *, proxy: str = "") -> dict[str, Any]:
    """The pod of *application*: its keys come from a Secret. *proxy*: the egress proxy that the container is told."""
    variables: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": "keys", "key": name}}} for name in application.keys
    ]
    variables += [{"name": name, "value": value} for name, value in application.literals.items()]
    variables += [{"name": name, "value": proxy} for name in PROXIES if proxy]
    container = {"name": "app", "image": "app:1", "env": variables}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": [container]}}


class Trap:
    """A proxy that answers nothing. *asked* are the targets that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname())

    async def stop(self) -> None:
        """Close the port."""
        assert self._server is not None
        self._server.close()

    @property
    def caught(self) -> list[str]:
        """Targets at the sidecar or at a service: calls that the sidecar should have got."""
        return [target for target in self.asked if any(host in target for host in ("127.0.0.1", *HOSTS))]

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await reader.readline()).decode("latin-1").split()
        self.asked += words[1:2]
        writer.close()


class Stage:
    """A sidecar in a process of its own, what stands behind it, and its configuration; files lie in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.provider = DemoProvider()
        self.documents = Documents(DOCUMENTS.removeprefix("https://"), KEY)
        self.trap = Trap()
        self.port = self.documents_port = 0
        self._folder = folder
        self._config = folder / "sidecar.yaml"
        self._internet: Internet | None = None
        self._sidecar: Process | None = None

    async def start(self, port: int = 0) -> None:
        """Start everything. *port*: where the sidecar is to listen; 0 for one that is free."""
        at = await self.provider.start()
        await self.documents.start()
        await self.trap.start()
        hosts = {**dict.fromkeys(HOSTS, at), DOCUMENTS.removeprefix("https://"): self.documents.port}
        self._internet = Internet(hosts, self._folder)
        await self._internet.start()
        self.port, self.documents_port, health = ports(port)
        documents = {
            "dialect": "azure-documents",
            "port": self.documents_port,
            "regions": [{"name": "here", "url": DOCUMENTS}],
        }
        state = self._folder / "state"
        state.mkdir()
        rules = {
            "version": 1,
            "listen": {"port": self.port},
            "health": {"port": health},
            "admin": {"port": 0},
            "state": {"dir": str(state)},
            "upstream": {
                "proxy": f"http://127.0.0.1:{self._internet.port}",
                "ca_file": str(self._internet.certificate),
            },
            "services": {"documents": documents},
            # a program is run twice, and each run has to arrive
            "routes": [{"name": "off", "match": {"service": "documents"}, "cache": {"mode": "off"}}],
        }  # fmt: skip
        self._config.write_text(yaml.safe_dump(rules))
        self._sidecar = launch(self._folder, *run_by(self._config))
        await self._sidecar.started()

    async def stop(self) -> None:
        """Stop everything."""
        if self._sidecar is not None:
            self._sidecar.terminate()
            await self._sidecar.ended()
        for each in (self._internet, self.trap, self.documents, self.provider):
            if each is not None:
                await each.stop()

    def environment(self, application: Application, *, proxy: str = "") -> dict[str, str]:
        """
        What the container of *application* finds in its environment once it is injected; ``KEY`` is what its Secret
        holds. *proxy*: the egress proxy that the container is told.
        """
        rules = load(str(self._config), environ={}, overrides={}, strict=True)
        pod = ManifestText("pod.yaml", yaml.safe_dump(manifest(application, proxy=proxy)))
        text, _ = inject([pod], injection(rules, image="ai-sidecar:1", version=""))
        [container] = read(text, "pod.yaml")[0]["spec"]["containers"]
        return {each["name"]: each.get("value", KEY) for each in container["env"]}

    @property
    def calls(self) -> int:
        """How many calls have arrived at the services; polls of documents are no calls."""
        return self.provider.calls + self.documents.counts["analyze"]

    async def look(self, application: Application, python: str = sys.executable) -> str:
        """
        Run *application* as it is, and told an egress proxy. ``""`` if both arrived by the sidecar and by its variable;
        else what went wrong, in one line. *python* has its packages.
        """
        for proxy in ("", self.trap.url):
            environment = self.environment(application, proxy=proxy)
            if application.by and not environment.get(application.by, "").startswith("http://127.0.0.1:"):
                return f"injection has not set {application.by}"
            calls, caught = self.calls, len(self.trap.caught)
            fault = await run(application, environment, python)
            if fault or self.calls == calls:
                return fault or "its calls go past the sidecar"
            if self.trap.caught[caught:]:
                return "its calls go to the egress proxy"
        return ""


def ports(first: int) -> list[int]:
    """
    Three ports that nobody listens at, *first* among them if it is one. They lie below those that the system gives to
    connections, so none is taken before the sidecar listens there.
    """
    begin = 20000 + os.getpid() % 100 * 100  # processes of tests, which run at the same time, don't share any
    found: list[int] = []
    for port in (*([first] if first else []), *range(begin, begin + 100)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
        if len(found) == 3:
            break
    return found


async def run(application: Application, environment: Mapping[str, str], python: str = sys.executable) -> str:
    """
    Run the program of *application*: ``""`` if it was answered, else the line with its error. *python* has its
    packages.
    """
    if application.node:
        assert NODE
        command = [NODE, "--input-type=module", "--eval", application.program]
    else:
        command = [python, "-c", application.program]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], **environment},
        cwd=NODE_PACKAGES if application.node else ROOT,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), _LONGEST)
    except TimeoutError:
        process.kill()
        return "took too long"
    lines = said.decode(errors="replace").strip().splitlines() or ["said nothing"]
    answered = any(line.startswith(f"{ANSWERED} ") for line in lines)
    if answered and process.returncode == 0:
        return ""
    errors = [line for line in lines if "Error" in line]
    return errors[0 if application.node else -1] if errors else lines[-1]
