"""
An API server that keeps objects in a table, for tests of what asks it. ``test_api_server`` holds it to what the real
one does.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from sidecar.core.pods.settings import CONTAINER
from sidecar.inject.api_server import ApiServer

NAMESPACES = "/api/v1/namespaces"


class SmallApiServer:
    """Objects by path. *refused* maps a path to the status that it is refused with; *asked* is what was asked for."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, int] = {}
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.answers: dict[str, bytes] = {}
        self.before_write: Callable[[str], None] = lambda _: None
        self._version = 0
        self._runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def put(self, path: str, item: Mapping[str, Any]) -> None:
        """Keep *item* at *path* under a new version."""
        self._version += 1
        name = path.rpartition("/")[2]
        metadata = {"name": name, **item.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**item, "metadata": metadata}

    def namespace(self, name: str, label: str = "") -> None:
        self.put(f"{NAMESPACES}/{name}", {"metadata": {"labels": {"ai-sidecar.dev/inject": label} if label else {}}})

    def pod(self, namespace: str, name: str, phase: str = "Running", **metadata: Any) -> None:
        item = {"metadata": {"namespace": namespace, **metadata}, "status": {"phase": phase}}
        self.put(f"{NAMESPACES}/{namespace}/pods/{name}", item)

    def data(self, path: str, name: str) -> bytes:
        return base64.b64decode(self.objects[path]["data"][name])

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path
        self.asked.append(f"{request.method} {path}")
        self.tokens.append(request.headers.get("authorization", ""))
        if path in self.answers:
            return web.Response(body=self.answers[path], content_type="application/json")
        if path in self.refused:
            return _refusal(self.refused[path], "refused by the story")
        body = await request.read()
        match request.method:
            case "GET":
                return self._get(request, path)
            case "POST":
                item = json.loads(body)
                path = f"{path}/{item['metadata']['name']}"
                self.before_write(path)
                if path in self.objects:
                    return _refusal(409, f"{path} already exists")
                self.put(path, item)
            case "PUT":
                self.before_write(path)
                item = json.loads(body)
                if path not in self.objects:
                    return _refusal(404, f"{path} not found")
                if item["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
                    return _refusal(409, "the object has been modified")
                self.put(path, item)
            case _:
                return self._patch(path, json.loads(body))
        return web.json_response(self.objects[path])

    def _get(self, request: web.Request, path: str) -> web.Response:
        metadata_only = "PartialObjectMetadata" in request.headers["accept"]
        if path in self.objects:
            found = self.objects[path]
            return web.json_response({"metadata": found["metadata"]} if metadata_only else found)
        kind = path.rpartition("/")[2]
        if path.startswith("/api/v1/") and kind in {"namespaces", "pods", "nodes"}:
            return self._list(request, path, kind, metadata_only=metadata_only)
        return _refusal(404, f"{path} not found")

    def _list(self, request: web.Request, path: str, kind: str, *, metadata_only: bool) -> web.Response:
        query = request.query
        depth = path.count("/") + 1
        found = [
            item
            for where, item in sorted(self.objects.items())
            if (where.startswith(f"{path}/") and where.count("/") == depth)
            or (path == "/api/v1/pods" and "/pods/" in where)
        ]
        found = [item for item in found if _labelled(item, query.get("labelSelector", ""))]
        if "fieldSelector" in query:
            found = [item for item in found if item["status"]["phase"] not in {"Succeeded", "Failed"}]
        first, limit = int(query.get("continue") or 0), int(query.get("limit") or len(found))
        page = found[first : first + limit]
        items = [{"metadata": item["metadata"]} if metadata_only else item for item in page]
        more = {"continue": str(first + limit)} if first + limit < len(found) else {}
        nothing = None if metadata_only else []  # as the real one has it
        return web.json_response({"kind": f"{kind}List", "metadata": more, "items": items or nothing})

    def _patch(self, path: str, operations: list[dict[str, Any]]) -> web.Response:
        self.before_write(path)
        if path not in self.objects:
            return _refusal(404, f"{path} not found")
        item = json.loads(json.dumps(self.objects[path]))
        for operation in operations:
            *steps, last = operation["path"].strip("/").split("/")
            place: Any = item
            for step in steps:
                place = place[int(step)] if isinstance(place, list) else place[step]
            if operation["op"] == "test" and place[last] != operation["value"]:
                return _refusal(422, "the server rejected our request due to an error in our request")
            place[last] = operation["value"]
        if item["metadata"]["resourceVersion"] != self.objects[path]["metadata"]["resourceVersion"]:
            return _refusal(409, "the object has been modified")
        self.put(path, item)
        return web.json_response(self.objects[path])


def account(folder: Path, authority: bytes, token: str = "t1") -> str:
    """A folder with a service account of the namespace ``ai-sidecar``, as kubelet makes it."""
    for name, content in (("token", token.encode()), ("ca.crt", authority), ("namespace", CONTAINER.encode())):
        (folder / name).write_bytes(content)
    return str(folder)


def api_at(address: str, folder: str) -> ApiServer:
    return ApiServer(address, folder)


def _labelled(item: Mapping[str, Any], selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    name, unequal, value = selector.partition("!=")
    if unequal:
        return labels.get(name) != value
    name, equal, value = selector.partition("=")
    return not equal or labels.get(name) == value


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": message, "code": status}, status=status)
