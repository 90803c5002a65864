"""The ConfigMap is copied into labelled namespaces, and a Secret never."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.inject.api_server import ApiServerError
from sidecar.inject.sync import CONFIG, SYNCED, sync

SOURCE = "/api/v1/namespaces/ai-sidecar/configmaps/ai-sidecar"


def copy_in(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps/ai-sidecar"


async def test_copies(small_api):
    """Made where there is none, replaced when the source changes, and otherwise not written at all."""
    server, api = small_api
    server.put(SOURCE, {"data": {"sidecar.yaml": "mode: normal\n"}, "binaryData": {"x": "AA=="}})

    assert (2, 0) == ((await sync(api, ["a", "b"])).written, (await sync(api, ["a", "b"])).written)

    made = server.objects[copy_in("a")]

    assert {"sidecar.yaml": "mode: normal\n"} == made["data"]
    assert {"x": "AA=="} == made["binaryData"]
    assert {SYNCED: "true", CONFIG: "true"} == made["metadata"]["labels"]

    server.put(SOURCE, {"data": {"sidecar.yaml": "mode: observe\n"}})

    assert 2 == (await sync(api, ["a", "b"])).written
    assert {"sidecar.yaml": "mode: observe\n"} == server.objects[copy_in("b")]["data"]


@pytest.mark.parametrize("labels", [{}, {SYNCED: "false"}, {CONFIG: "true"}], ids=["none", "no", "other"])
async def test_a_team_s_own(small_api, labels: Any):
    """A ConfigMap that a team made stays."""
    server, api = small_api
    server.put(SOURCE, {"data": {"sidecar.yaml": "mode: normal\n"}})
    server.put(copy_in("a"), {"metadata": {"labels": labels}, "data": {"own.yaml": "mode: observe\n"}})

    assert 0 == (await sync(api, ["a"])).written
    assert {"own.yaml": "mode: observe\n"} == server.objects[copy_in("a")]["data"]


async def test_no_source(small_api):
    """Nothing to copy, and copies of before stay: pods may need them."""
    server, api = small_api
    server.put(copy_in("a"), {"metadata": {"labels": {SYNCED: "true"}}, "data": {"sidecar.yaml": ""}})

    assert 0 == (await sync(api, ["a"])).written
    assert copy_in("a") in server.objects


async def test_secrets(small_api):
    """It is seen where one is missing; what a Secret holds is neither read nor written."""
    server, api = small_api
    server.put(SOURCE, {"data": {}})
    server.put("/api/v1/namespaces/ai-sidecar/secrets/ai-sidecar", {"data": {"password": "x"}})
    server.put("/api/v1/namespaces/a/secrets/ai-sidecar", {"data": {"password": "x"}})

    assert ["b"] == (await sync(api, ["a", "b"])).without_secret
    assert [] == [asked for asked in server.asked if "secrets" in asked and not asked.startswith("GET")]


async def test_one_namespace_that_refuses(small_api):
    """The others are served all the same, and it is named; an API server that does not answer ends the round."""
    server, api = small_api
    server.put(SOURCE, {"data": {"sidecar.yaml": ""}})
    server.refused[copy_in("a")] = 403
    done = await sync(api, ["a", "b"])

    assert (1, ["b"]) == (done.written, done.without_secret)
    assert ["a"] == [text.split(":")[0] for text in done.failed]

    await server.stop()
    with pytest.raises(ApiServerError):
        await sync(api, ["a", "b"])
