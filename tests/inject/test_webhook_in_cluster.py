"""The command as a process in a pod: what it was not told it asks its API server for."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.inject.certificates import issue
from sidecar.inject.own_certificate import KINDS, load
from tests.inject.small_api_server import NAMESPACES, SmallApiServer, account
from tests.redis_servers import free_port

IMAGE = "registry.example/ai-sidecar@sha256:12"
MUTATING = f"/apis/admissionregistration.k8s.io/v1/{KINDS[0]}/ai-sidecar-webhook"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}]}}
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {"uid": "u", "object": POD, "namespace": "a"},
}


@pytest.fixture
async def cluster(tmp_path: Path):
    """An API server by TLS; and the environment of a pod in its cluster."""
    issued = issue(("localhost",), datetime.now(UTC))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(tls, issued)
    server = SmallApiServer()
    port = (await server.start(tls)).rpartition(":")[2]
    (tmp_path / "account").mkdir()
    folder = account(tmp_path / "account", issued.authority)
    server.put("/version", {"gitVersion": "v1.31.2"})
    server.put("/api/v1/nodes/n1", {"status": {"nodeInfo": {"kubeletVersion": "v1.28.1"}}})
    server.put(MUTATING, {"webhooks": [{"clientConfig": {}}, {"clientConfig": {}}]})
    status = {"containerStatuses": [{"name": "webhook", "imageID": IMAGE}]}
    server.put(f"{NAMESPACES}/ai-sidecar/pods/me", {"spec": {"containers": [{"name": "webhook"}]}, "status": status})
    server.namespace("a", "enabled")
    server.pod("a", "missed")
    environ = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": port, "POD_NAME": "me"}
    yield server, environ, folder
    await server.stop()


class Running:
    """The webhook as a process, and what can be asked of it."""

    def __init__(self, environ: dict[str, str], arguments: list[str], log: Path) -> None:
        self.port, self.health = free_port(), free_port()
        self._log = log
        ports = ["--host", "127.0.0.1", "--port", str(self.port), "--health-port", str(self.health)]
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "sidecar", "webhook", *ports, *arguments],
                env={**os.environ, **environ},
                stderr=output,
            )

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_bytes().splitlines()]

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"http://127.0.0.1:{self.health}{path}") as reply:
                    return reply.status, await reply.text()
            except aiohttp.ClientConnectorError:
                return 0, ""

    async def until_ready(self) -> None:
        async with asyncio.timeout(30):
            while (await self.get("/readyz"))[0] != 200:
                assert self.child.poll() is None, self._log.read_text()
                await asyncio.sleep(0.05)

    async def until(self, path: str, text: str) -> None:
        """Until the page at *path* holds *text*."""
        async with asyncio.timeout(30):
            while True:
                if text in (await self.get(path))[1]:
                    return
                await asyncio.sleep(0.05)

    async def review(self, trust: ssl.SSLContext) -> dict[str, Any]:
        """The pod as the webhook changes it."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"https://localhost:{self.port}/mutate", json=REVIEW, ssl=trust) as reply,
        ):
            assert 200 == reply.status

            operations = json.loads(base64.b64decode((await reply.json())["response"]["patch"]))
            return {operation["path"]: operation.get("value") for operation in operations}


@pytest.fixture
def run(cluster, tmp_path: Path):
    """Starts webhooks, and ends them."""
    _, environ, folder = cluster
    running: list[Running] = []

    def start(*arguments: str) -> Running:
        log = tmp_path / f"log{len(running)}"
        given = ["--service-account", folder, "--hostname", "localhost", "--drain", "0s", *arguments]
        running.append(Running(environ, given, log))
        return running[-1]

    yield start
    for one in running:
        one.child.kill()
        one.child.wait()


def trust(server: SmallApiServer) -> ssl.SSLContext:
    """As the API server trusts the webhook: by what its configuration says."""
    text = base64.b64decode(server.objects[MUTATING]["webhooks"][1]["clientConfig"]["caBundle"])
    return ssl.create_default_context(cadata=text.decode())


async def test_all_is_asked_for(cluster, run):
    """Its image, the version, its certificate; then it is ready, counts missed pods, and ends cleanly."""
    server, *_ = cluster
    webhook = run("--revision", "canary")
    await webhook.until_ready()
    changed = await webhook.review(trust(server))
    added = changed["/spec/containers/0"]

    assert (IMAGE, "ai-sidecar") == (added["image"], added["name"])  # classic, for a kubelet is older than 1.29
    assert "canary" == json.loads(changed["/metadata/annotations"]["ai-sidecar.dev/status"])["revision"]

    await webhook.until("/metrics", 'sidecar_admission_missed_pods{namespace="a"} 1.0')
    text = (await webhook.get("/metrics"))[1]

    assert "sidecar_admission_certificate_expiry_timestamp_seconds 1." in text
    assert "sidecar_admission_namespaces_without_secret" not in text

    webhook.child.send_signal(signal.SIGTERM)

    assert 0 == webhook.child.wait(20)
    reviewed = next(line for line in webhook.events() if line["event"] == "reviewed")

    assert ("injected", "a", "p") == (reviewed["result"], reviewed["namespace"], reviewed["name"])
    assert {"started", "image-known", "cluster-known", "reviewed", "stopped"} <= {
        line["event"] for line in webhook.events()
    }


async def test_two_replicas_rotate(cluster, run):
    """Certificates of fifteen seconds: for two of them each review of both is answered and trusted."""
    server, *_ = cluster
    both = [run("--certificate-life", "15s"), run("--certificate-life", "15s")]
    for one in both:
        await one.until_ready()
    seen = set()
    async with asyncio.timeout(120):
        while len(seen) < 2:
            seen.add(server.data("/api/v1/namespaces/ai-sidecar/secrets/ai-sidecar-webhook-tls", "ca.crt"))
            for one in both:
                assert "/spec/containers/0" in await one.review(trust(server))


async def test_copies_are_made(cluster, run):
    """With ``--sync``: the ConfigMap comes into the labelled namespace, and the metric tells that it has no Secret."""
    server, *_ = cluster
    server.put(f"{NAMESPACES}/ai-sidecar/configmaps/ai-sidecar", {"data": {"sidecar.yaml": "mode: normal\n"}})
    webhook = run("--sync")
    await webhook.until_ready()
    await webhook.until("/metrics", "sidecar_admission_namespaces_without_secret 1.0")

    assert {"sidecar.yaml": "mode: normal\n"} == server.objects[f"{NAMESPACES}/a/configmaps/ai-sidecar"]["data"]


async def test_an_api_server_that_refuses(cluster, run):
    """It is not ready while it lacks its image, and says why; then it goes on by itself, without the nodes."""
    server, *_ = cluster
    own = f"{NAMESPACES}/ai-sidecar/pods/me"
    server.refused[own] = 403
    server.refused["/api/v1/nodes"] = 403
    webhook = run()
    await webhook.until("/readyz", "the image of this pod is not known yet")

    assert 503 == (await webhook.get("/readyz"))[0]

    del server.refused[own]
    await webhook.until_ready()
    changed = await webhook.review(trust(server))

    assert "/spec/initContainers" in changed  # by the API server's own version
    assert any(line["event"] == "cluster-error" and "403" in line["message"] for line in webhook.events())


async def test_a_wrong_configuration_at_the_start(cluster, run, tmp_path: Path):
    """It is said, and pods are injected by the built-in services; the right one is taken as soon as it comes."""
    server, *_ = cluster
    (tmp_path / "sidecar.yaml").write_text("mode: odd\n")
    webhook = run("--config", str(tmp_path / "sidecar.yaml"))
    await webhook.until_ready()
    changed = await webhook.review(trust(server))

    assert "http://127.0.0.1:7400/openai/v1" in json.dumps(changed)
    assert "sidecar_admission_config_last_reload_successful 0.0" in (await webhook.get("/metrics"))[1]
    assert any("mode" in line.get("message", "") for line in webhook.events() if line["event"] == "config-problem")

    (tmp_path / "sidecar.yaml").write_text("listen: {port: 7410}\n")
    await webhook.until("/metrics", "sidecar_admission_config_last_reload_successful 1.0")

    assert "http://127.0.0.1:7410/openai/v1" in json.dumps(await webhook.review(trust(server)))


@pytest.mark.parametrize(
    ("arguments", "environ", "texts"),
    [
        ([], {}, ["--image: say which", "--tls-cert, --tls-key: say which"]),
        (["--image", "x", "--sync"], {}, ["--tls-cert", "--sync: there is no cluster here"]),
        (["--image", "x", "--tls-cert", "c"], {}, ["name both, or none"]),
        (["--image", "x"], {"KUBERNETES_SERVICE_HOST": "localhost"}, ["--service-account", "No such file"]),
        (["--image", "x", "--certificate-life", "14s"], {}, ["--certificate-life is a duration, such as 90d"]),
        (["--image", "x", "--drain", "soon"], {}, ["--drain is a duration, such as 5s"]),
    ],
    ids=["nothing", "sync", "half-a-pair", "no-account", "short-life", "drain"],
)
def test_what_cannot_start(tmp_path: Path, arguments: list[str], environ: dict[str, str], texts: list[str]):
    """Each thing that is missing is named, with the remedy."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KUBERNETES_")}
    given = [*arguments, "--service-account", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "webhook", *given],
        env={**clean, **environ},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == done.returncode
    assert [] == [text for text in texts if text not in done.stderr], done.stderr
