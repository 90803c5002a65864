"""Another admission webhook, as a service mesh has one: it puts a container of its own into each pod."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.redis_servers import write_certificates

ENDPOINT = {"name": "AZURE_OPENAI_ENDPOINT", "value": "https://mesh.openai.azure.com"}
PROXY = {"name": "mesh-proxy", "image": "registry.example/mesh:1", "env": [ENDPOINT]}


class Mesh:
    """The webhook, listening on the loopback; ``registration`` tells the API server of it. Used as a context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner: web.AppRunner | None = None
        self.calls = 0

    async def __aenter__(self) -> Self:
        write_certificates(self._folder)
        trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trust.load_cert_chain(self._folder / "cert.pem", self._folder / "key.pem")
        app = web.Application()
        app.router.add_post("/mutate", self._on_pod)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=trust).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def registration(self, name: str, namespace: str) -> dict[str, Any]:
        """The registration *name*, for pods of *namespace*. API servers call webhooks in the order of these names."""
        assert self._runner is not None
        port = self._runner.addresses[0][1]
        authority = base64.b64encode((self._folder / "ca.pem").read_bytes()).decode()
        webhook = {
            "name": "mesh.example.com",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate", "caBundle": authority},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"mesh": namespace}},
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
        }
        return {"metadata": {"name": name}, "webhooks": [webhook]}

    async def _on_pod(self, request: web.Request) -> web.Response:
        self.calls += 1
        asked = (await request.json())["request"]
        change = [{"op": "add", "path": "/spec/containers/-", "value": PROXY}]
        patch = base64.b64encode(json.dumps(change).encode()).decode()
        response = {"uid": asked["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
