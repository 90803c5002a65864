"""The webhook as a cluster runs it: the manifests applied, replicas as processes, their Service before them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.cluster.client import Client
from tests.cluster.manifests import command, listed, only
from tests.cluster.servers import NAMESPACE, RealApiServer
from tests.cluster.service import Service
from tests.scenarios.processes import Process, launch

PATIENCE = 60.0
"""Seconds that a part may take to do what it is to do; only a broken one takes them."""

WEBHOOK = "ai-sidecar-webhook"
"""The name of its Deployment and its Service."""

APPLICATION = {"name": "app", "image": "registry.example/app:1"}


def pod(name: str, inject: str = "", revision: str = "", *, owner: str = "", **env: str) -> dict[str, Any]:
    """A pod of one container with *env*, whose labels say *inject* and *revision*; *owner* is the kind of its owner."""
    said = {"inject": inject, "revision": revision}
    labels = {f"ai-sidecar.dev/{key}": value for key, value in said.items() if value}
    owned = {"apiVersion": "batch/v1", "kind": owner, "name": "owner", "uid": "6f3c", "controller": True}
    return {
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owned] if owner else []},
        "spec": {"containers": [{**APPLICATION, "env": [{"name": key, "value": env[key]} for key in env]}]},
    }


def containers(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers of a pod, by their names."""
    return {each["name"]: each for each in item["spec"]["containers"]}


def is_injected(item: dict[str, Any]) -> bool:
    """Whether a pod has the sidecar."""
    return "ai-sidecar" in containers(item)


def image(deployment: str) -> str:
    """The image that the replicas of *deployment* run, as a container runtime names it."""
    return f"registry.example/{deployment}@sha256:{'5' * 64}"


def pods(namespace: str) -> str:
    """The path of a namespace's pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


class Installation:
    """
    The *objects* of manifests, and the replicas that run by them, in *folder*. *api* is the administrator, who applies
    them. Whoever made an installation calls ``remove``.
    """

    def __init__(self, server: RealApiServer, api: Client, folder: Path, objects: list[dict[str, Any]]) -> None:
        self.server, self.api = server, api
        self.objects = objects
        self.replicas: dict[str, list[Process]] = {}
        self.folder = folder
        self._made: list[str] = []
        self._launched = 0
        self.services: dict[str, Service] = {}
        for number, each in enumerate(each for each in self.objects if each["kind"] == "Service"):
            address = each["spec"]["clusterIP"] = f"{server.services}.{100 + number}"
            self.services[each["metadata"]["name"]] = Service(address, each["spec"]["ports"][0]["port"])

    async def apply(self, *options: str) -> None:
        """Apply the manifests. Fields that came after 1.20 are dropped by the API server."""
        await self.kubectl("apply", "--validate=false", *options, "-f", "-", stdin=listed(self.objects))

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """What kubectl prints; it has to succeed."""
        done = await self.server.kubectl(*arguments, stdin=stdin)
        assert 0 == done.returncode, done.stderr
        return done.stdout

    async def namespace(self, name: str, inject: str = "", **labels: str) -> str:
        """Create a namespace whose name begins with *name* and whose label says *inject*; returns its name."""
        name = f"{name}-{secrets.token_hex(3)}"
        said = {f"ai-sidecar.dev/{key}": value for key, value in {"inject": inject, **labels}.items() if value}
        await self.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": said}})
        self._made.append(name)
        return name

    async def start(self, *options: str, count: int = 1, deployment: str = WEBHOOK, revision: str = "") -> None:
        """
        Start *count* replicas of *deployment* with further *options*, and wait until pods that ask for its *revision*
        are injected.
        """
        running = self.replicas.setdefault(deployment, [])
        for _ in range(count):
            self._launched += 1
            running.append(await self._started(deployment, f"{deployment}-{self._launched}", options))
        await self.services[deployment].route(*(each.port for each in running))
        probe = await self.namespace("probe")
        asking = pod("probe", inject="enabled", revision=revision)

        async def injects() -> bool:
            return is_injected(await self.api.create(pods(probe), asking, dryRun="All"))

        await until(injects)  # the API server hears of a new registration a moment later

    async def stop(self) -> None:
        """Stop all replicas as a rollout does."""
        processes = [each for those in self.replicas.values() for each in those]
        self.replicas.clear()
        for each in processes:
            each.terminate()
        for each in processes:
            assert 0 == await each.ended(), each.log.read_text()
        for service in self.services.values():
            await service.route()

    async def remove(self) -> None:
        """Stop what runs, and leave the API server as it was, but for pods in namespaces that have no label now."""
        await self.stop()
        spaces = [each["metadata"]["name"] for each in self.objects if each["kind"] == "Namespace"]
        others = listed([each for each in self.objects if each["kind"] != "Namespace"])
        await self.kubectl("delete", "--wait=false", "--ignore-not-found", "-f", "-", stdin=others)
        for kind in ("pods", "secrets", "configmaps"):
            await self.api.delete(f"/api/v1/namespaces/{NAMESPACE}/{kind}")
        for name in (*self._made, *spaces):
            await self.api.patch(
                f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"ai-sidecar.dev/inject": None}}}
            )

    async def _started(self, deployment: str, name: str, options: Sequence[str]) -> Process:
        """Do what controllers, the scheduler and kubelet do for one pod of *deployment*."""
        template = only(self.objects, "Deployment", deployment)["spec"]["template"]
        path = pods(NAMESPACE)
        metadata = {**template["metadata"], "name": name}
        await self.api.create(path, {"metadata": metadata, "spec": template["spec"]})
        [container] = template["spec"]["containers"]
        running = {"name": container["name"], "image": container["image"], "imageID": image(deployment)}
        status = {"containerStatuses": [{**running, "ready": True, "restartCount": 0}]}
        await self.api.patch(f"{path}/{name}/status", {"status": status})
        folder = self.folder / name
        folder.mkdir()
        account = self.server.account(template["spec"]["serviceAccountName"], folder / "serviceaccount")
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.server.port),
            "POD_NAME": name,
        }
        begun = command(self.objects, deployment, self.folder / "config")
        process = launch(folder, *begun, f"--service-account={account}", *options, environ=environ)
        await process.started()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{process.health_port}") as session:

            async def ready() -> bool:
                async with session.get("/readyz") as answer:
                    return answer.status == 200

            await until(ready)
        return process


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Wait until *holds*."""
    async with asyncio.timeout(PATIENCE):
        while not await holds():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.05)
