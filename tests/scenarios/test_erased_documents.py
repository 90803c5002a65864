"""After one person's document is erased, no process of the fleet and no value in Redis holds a byte of it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.redis_servers import RedisServer
from tests.scenarios.document_desks import raw as ask
from tests.scenarios.document_sdks import document
from tests.scenarios.searched_pods import CANARY, Pod, clear_texts, files, fleet, raw, stored

SERVICE = "azure-documents"
ANALYZE = f"/{SERVICE}/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30"
CALLER = {"ocp-apim-subscription-key": "key-1"}
FORMS = ("octets", "base64", "form")
FILLING = b"\n%" + b"." * 1_500_000
"""Makes a document larger than what a pod keeps of an upload in memory."""


def in_form(form: str, data: bytes) -> tuple[bytes, str]:
    """The body and the media type of an upload of *data*."""
    match form:
        case "base64":
            return json.dumps({"base64Source": base64.b64encode(data).decode()}).encode(), "application/json"
        case "form":
            head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
            return head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    return data, "application/pdf"


def request_file(form: str, data: bytes) -> bytes:
    """An upload as a request file has it."""
    body, media = in_form(form, data)
    lines = [f"POST {ANALYZE} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in CALLER.items())]
    lines += [f"Content-Type: {media}", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def upload(pod: Pod, data: bytes, form: str = "octets") -> tuple[str, str]:
    """Upload a document: where its result is, below any pod, and the ``Cache-Status``."""
    body, media = in_form(form, data)
    status, headers, said = await ask(
        "POST", f"http://127.0.0.1:{pod.port}{ANALYZE}", body=body, headers={**CALLER, "content-type": media}
    )
    assert 202 == status, said
    place = headers["operation-location"].partition(f"/{SERVICE}/")[2]
    return f"/{SERVICE}/{place}", headers["cache-status"]


async def poll(pod: Pod, place: str, method: str = "GET") -> tuple[int, Any]:
    """Ask once."""
    status, _, said = await ask(method, f"http://127.0.0.1:{pod.port}{place}", headers=CALLER)
    return status, json.loads(said) if said else None


async def result(pod: Pod, place: str) -> Any:
    """Ask until there is one."""
    async with asyncio.timeout(60):
        while True:
            status, said = await poll(pod, place)
            if status != 200 or said["status"] not in {"notStarted", "running"}:
                return said


async def analyse(pod: Pod, data: bytes, form: str = "octets") -> tuple[str, str]:
    """Upload a document and fetch its result: the text, and the ``Cache-Status`` of the upload."""
    place, how = await upload(pod, data, form)
    return (await result(pod, place))["analyzeResult"]["content"], how


async def purge(folder: Path, pod: Pod, *by: str) -> tuple[int, str]:
    """``sidecar purge --erase`` by way of *pod*: exit code, and what it printed."""
    return await command(folder, pod, "purge", "--erase", *by)


async def command(folder: Path, pod: Pod, *given: str) -> tuple[int, str]:
    """A command with the configuration of *pod*: exit code, and what it printed."""
    config = folder / "asking.yaml"
    config.write_text((folder / "sidecar.yaml").read_text().replace("admin: {port: 0", f"admin: {{port: {pod.admin}"))
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", *given, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asking.communicate()
    assert CANARY not in out.decode() + err.decode()
    return asking.returncode or 0, out.decode() + err.decode()


def kinds(server: RedisServer, secrets: Path) -> dict[str, int]:
    """How many answers, running operations and operations Redis has."""
    found = [kind.decode() for kind, _, _ in stored(server, secrets)]
    return {kind: found.count(kind) for kind in "eop"}


@pytest.mark.parametrize("by", FORMS)
async def test_one_document(by, provider, redis_server, tmp_path):
    """
    It came in three forms, small and large, to three pods; one caller has not fetched its result. By a request file of
    any form everything of it goes, from memory, from Redis, and from disk. Another document stays.
    """
    small, large, other = document(CANARY), document(CANARY + " again") + FILLING, document("Somebody else")
    upstream = f"http://127.0.0.1:{provider.port}"
    secrets = tmp_path / "cache.key"
    async with fleet(tmp_path, redis_server, upstream, 3, SERVICE, MALLOC_PERTURB_="165") as pods:
        for data in (small, large, other):
            for pod in pods:
                for form in FORMS:
                    await analyse(pod, data, form)
        waiting, _ = await upload(pods[1], small)
        before = kinds(redis_server, secrets)
        held = [bool(await pod.holders(tmp_path)) for pod in pods]
        printed = []
        for number, data in enumerate((small, large)):
            file = tmp_path / "request.http"
            file.write_bytes(request_file(by, data))
            printed.append(await purge(tmp_path, pods[number], "--request", str(file)))
        after, texts = kinds(redis_server, secrets), clear_texts(redis_server, secrets)
        left_in_redis = stored(redis_server, secrets)
        holders = [await pod.holders(tmp_path) for pod in pods]
        left = [files(pod, tmp_path / "state") for pod in pods]
        async with asyncio.timeout(60):
            while any(map(raw, pods)):  # noqa: ASYNC110  the memory of other processes
                await asyncio.sleep(0.5)
        fetched = await result(pods[1], waiting)
        analyses = provider.documents.analyses.total()
        _, hit = await analyse(pods[2], other, "base64")
        again, miss = await analyse(pods[2], small, "form")

    assert ([True] * 3, 3, 28) == (held, before["e"], before["p"])
    assert [0, 0] == [code for code, _ in printed]
    for _, out in printed:
        assert ["pod-0", "pod-1", "pod-2"] == sorted(re.findall(r"^  pod (pod-.).*, confirmed 2", out, re.MULTILINE))
        assert "\n  Redis: 1 value\n" in out
    assert (1, 9) == (after["e"], after["p"])
    owners = {key for _, key, _ in left_in_redis}
    assert 1 == len(owners)
    assert CANARY.encode() not in texts
    assert ([[], [], []], [[], [], []]) == (holders, left)
    assert CANARY in fetched["analyzeResult"]["content"]  # the service has it still
    assert "hit" in hit
    assert (True, CANARY in again, analyses + 1) == ("fwd=miss" in miss, True, provider.documents.analyses.total())


@pytest.mark.parametrize("filling", [b"", FILLING], ids=["small", "large"])
async def test_while_it_runs(filling, provider, redis_server, tmp_path):
    """
    Once the service has taken the document, no pod has it, in memory or on disk. The pods confirm when the operation
    has ended; its callers have their results, and nobody keeps them.
    """
    data = document(CANARY) + filling
    (tmp_path / "request.http").write_bytes(request_file("base64", data))
    by = "--request", str(tmp_path / "request.http")
    provider.documents.faults.paused = True
    secrets = tmp_path / "cache.key"
    async with fleet(tmp_path, redis_server, f"http://127.0.0.1:{provider.port}", 2, SERVICE) as pods:
        places = [(await upload(pod, data, form))[0] for pod in pods for form in FORMS]
        running = [(await pod.holders(tmp_path), files(pod, tmp_path / "state")) for pod in pods]
        before = kinds(redis_server, secrets)
        early, said = await purge(tmp_path, pods[1], *by, "--wait", "1s")
        after = kinds(redis_server, secrets)
        provider.documents.faults.paused = False
        late, _ = await purge(tmp_path, pods[1], *by)
        holders = [await pod.holders(tmp_path) for pod in pods]
        texts = clear_texts(redis_server, secrets)
        fetched = [await result(pods[0], place) for place in places[:3]]
        fetched += [await result(pods[1], place) for place in places[3:]]
        stored_anew = kinds(redis_server, secrets)

    assert [([], []), ([], [])] == running
    assert (0, 1, 6) == (before["e"], before["o"], before["p"])
    assert (1, True) == (early, "NOT COMPLETE" in said)
    assert {"e": 0, "o": 0, "p": 0} == after == stored_anew
    assert (0, [[], []], False) == (late, holders, CANARY.encode() in texts)
    assert [True] * 6 == [CANARY in each["analyzeResult"]["content"] for each in fetched]
    assert 1 == provider.documents.analyses.total()


async def test_deleted_by_its_owner(provider, redis_server, tmp_path):
    """
    DELETE of one caller's result erases it everywhere, for all who have it. What is known of the others' operations
    holds nothing of it.
    """
    data, other = document(CANARY), document("Somebody else")
    secrets = tmp_path / "cache.key"
    upstream = f"http://127.0.0.1:{provider.port}"
    async with fleet(tmp_path, redis_server, upstream, 2, SERVICE) as pods:
        for pod in pods:
            for form in FORMS:
                await analyse(pod, data, form)
            await analyse(pod, other)
        mine, _ = await upload(pods[0], data)
        status, _ = await poll(pods[1], mine, "DELETE")
        async with asyncio.timeout(60):
            while (  # noqa: ASYNC110  other processes let go
                any([await pod.holders(tmp_path) for pod in pods])
                or CANARY.encode() in clear_texts(redis_server, secrets)
            ):
                await asyncio.sleep(0.2)
        after = kinds(redis_server, secrets)
        gone, _ = await poll(pods[0], mine)
        _, hit = await analyse(pods[1], other, "form")
        _, miss = await analyse(pods[1], data, "form")

    assert (204, 404, 1) == (status, gone, provider.documents.deleted)
    assert (1, 8) == (after["e"], after["p"])
    assert (True, True) == ("hit" in hit, "fwd=miss" in miss)


@pytest.mark.parametrize("scope", ["all", "service", "route", "tag", "partition"])
async def test_scopes(scope, provider, redis_server, tmp_path):
    """Every scope reaches the operations, too."""
    secrets = tmp_path / "cache.key"
    async with fleet(tmp_path, redis_server, f"http://127.0.0.1:{provider.port}", 2, SERVICE) as pods:
        CALLER["x-sidecar-tags"] = "round"
        try:
            await analyse(pods[0], document(CANARY))
        finally:
            del CALLER["x-sidecar-tags"]
        [entry] = [entry for kind, _, entry in stored(redis_server, secrets) if kind == b"e"]
        before = kinds(redis_server, secrets)
        said = {"service": SERVICE, "route": entry.route, "tag": "round", "partition": entry.partition.hex()}
        code, _ = await purge(tmp_path, pods[1], f"--{scope}", said.get(scope, "--yes"))
        after = kinds(redis_server, secrets)

    assert (0, 1, 1) == (code, before["e"], before["p"])
    assert {"e": 0, "o": 0, "p": 0} == after


async def test_a_large_request_file(provider, redis_server, tmp_path):
    """A document that is too large for ``--request`` is erased by the key that ``explain`` shows."""
    data = document(CANARY) + b"\n%" + b"." * 17 * 1024 * 1024
    file = tmp_path / "request.http"
    file.write_bytes(request_file("base64", data))
    async with fleet(tmp_path, redis_server, f"http://127.0.0.1:{provider.port}", 2, SERVICE) as pods:
        for pod in pods:
            await analyse(pod, data)
        refused, _ = await purge(tmp_path, pods[0], "--request", str(file))
        _, shown = await command(tmp_path, pods[0], "explain", str(file))
        [key] = re.findall(r"^key: +([0-9a-f]{32})", shown, re.MULTILINE)
        code, said = await purge(tmp_path, pods[0], "--key", key)
        holders = [await pod.holders(tmp_path) for pod in pods]
        after = kinds(redis_server, tmp_path / "cache.key")

    assert (True, 0, True) == (refused > 0, code, said.count(": 1 entry in memory, confirmed") == 2)
    assert ([[], []], {"e": 0, "o": 0, "p": 0}) == (holders, after)
