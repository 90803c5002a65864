"""What the webhook asks of an API server, and how it takes the answers."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from sidecar.errors import ConfigError
from sidecar.inject.api_server import PAGE, ApiServer, ApiServerError, address_of
from sidecar.inject.certificates import issue
from sidecar.inject.own_certificate import load
from tests.inject.small_api_server import SmallApiServer, account, api_at


class Item(Struct):
    data: dict[str, str] = {}


async def test_objects(small_api):
    """Created once, read, replaced under its version only, patched."""
    _, api = small_api
    list_path, path = "/api/v1/namespaces/n/secrets", "/api/v1/namespaces/n/secrets/s"
    item: dict[str, Any] = {"metadata": {"name": "s"}, "data": {"a": "1"}}
    await api.create(list_path, item)

    assert {"a": "1"} == (await api.get(path, Item)).data

    with pytest.raises(ApiServerError) as twice:
        await api.create(list_path, item)

    assert 409 == twice.value.status

    version = (await api.metadata(path)).version
    await api.replace(path, {"metadata": {"name": "s", "resourceVersion": version}, "data": {"a": "2"}})
    with pytest.raises(ApiServerError) as late:
        await api.replace(path, {"metadata": {"name": "s", "resourceVersion": version}, "data": {"a": "3"}})

    assert 409 == late.value.status

    await api.patch(path, [{"op": "add", "path": "/data/b", "value": "4"}])

    assert {"a": "2", "b": "4"} == (await api.get(path, Item)).data


async def test_lists(small_api):
    """All pages, of metadata alone."""
    server, api = small_api
    for number in range(2 * PAGE + 1):
        server.pod("n", f"p{number:04}")
    names = [each.name async for each in api.listed("/api/v1/namespaces/n/pods")]

    assert [f"p{number:04}" for number in range(2 * PAGE + 1)] == names
    assert 3 == len(server.asked)


async def test_an_empty_list(small_api):
    """Its items are null where only metadata is asked for; that is no error."""
    _, api = small_api

    assert [] == [each async for each in api.listed("/api/v1/namespaces/n/pods")]


async def test_the_token_is_read_each_time(small_api, tmp_path: Path):
    """Kubelet replaces it; so the next request has the new one."""
    server, api = small_api
    server.namespace("n")
    for token in ("t1", "t2"):
        (tmp_path / "token").write_text(f"{token}\n")
        await api.metadata("/api/v1/namespaces/n")

    assert ["Bearer t1", "Bearer t2"] == server.tokens


async def test_another_authority(tmp_path: Path):
    """The cluster's certificates are rotated; what is no certificate meanwhile changes nothing."""
    old, new = (issue(("127.0.0.1", "localhost"), datetime.now(UTC)) for _ in range(2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(context, new)
    server = SmallApiServer()
    address = (await server.start(context)).replace("http://127.0.0.1", "https://localhost")
    server.namespace("n")
    async with api_at(address, account(tmp_path, old.authority)) as api:
        with pytest.raises(ApiServerError, match="cannot be asked"):
            await api.metadata("/api/v1/namespaces/n")
        (tmp_path / "ca.crt").write_bytes(b"no certificate")
        with pytest.raises(ApiServerError, match="cannot be asked"):
            await api.metadata("/api/v1/namespaces/n")
        (tmp_path / "ca.crt").write_bytes(new.authority)

        assert "n" == (await api.metadata("/api/v1/namespaces/n")).name
    await server.stop()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"<html>", "the answer is not what was asked for"),
        (b'{"data": 3}', "the answer is not what was asked for"),
        (b"[" * 100_000, "the answer is not what was asked for"),
        (b" " * (9 * 1024 * 1024), "the API server cannot be asked"),
    ],
    ids=["no-json", "other-form", "deep", "long"],
)
async def test_answers_that_are_none(small_api, answer: bytes, text: str):
    """They are errors like others, and their text quotes nothing."""
    server, api = small_api
    server.answers["/x"] = answer
    with pytest.raises(ApiServerError, match=f"GET /x: {text}") as error:
        await api.get("/x", Item)

    assert 0 == error.value.status


async def test_refusals(small_api):
    """The server's own words, and its status."""
    server, api = small_api
    server.refused["/x"] = 403
    with pytest.raises(ApiServerError, match="GET /x: 403 refused by the story") as error:
        await api.get("/x", Item)

    assert 403 == error.value.status


async def test_nobody_listens(small_api):
    """That is an error too."""
    server, api = small_api
    await server.stop()
    with pytest.raises(ApiServerError, match="cannot be asked"):
        await api.get("/x", Item)


def test_no_account(tmp_path: Path):
    """The folder and the remedy are named."""
    with pytest.raises(ConfigError, match=r"--service-account: .*automountServiceAccountToken"):
        ApiServer("https://127.0.0.1:1", str(tmp_path))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.0.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
    ],
)
def test_where_it_is(environ: dict[str, str], expected: str):
    """Kubelet tells each pod."""
    assert expected == address_of(environ)
