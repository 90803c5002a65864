"""What was recorded of Document Intelligence, and what the stand-in says in the same conversations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from sidecar.demo.documents.pages import pdf
from sidecar.demo.provider import DemoProvider

DATA = Path(__file__).parents[3] / "../shared/data/documents"
if not DATA.is_dir():
    pytest.skip("the recordings of ../shared/data/documents are not there", allow_module_level=True)

CONVERSATIONS = {
    "js_invoice_invalid_locale": "a locale that does not exist",
    "js_invoice_url": "a document by its URL",
    "net_receipt_blank_page": "a receipt",
    "python_analyze_empty_model_id": "no model",
    "python_classify_document": "a classifier, and JSON that was sent as a document",
    "python_layout_figures": "a layout with figures",
}
OTHERS = {
    "net_build_model_error": "training",
    "net_read_batch_delete": "a batch; its deletion is as that of any result",
}
"""Recordings of what the stand-in does not do."""

OLD_PREVIEW = "2024-02-29-preview"
"""Its polls had no Retry-After."""

ALWAYS = {"apim-request-id", "date", "strict-transport-security", "x-content-type-options"}
FRAMING = {"transfer-encoding", "content-length"}
UNTOLD = {"x-ms-error-code", "x-ms-region", "x-envoy-upstream-service-time"}
"""Headers that not every one of these answers has; clients read none of them."""


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; header names in lower case."""

    method: str
    target: str
    sent: Any
    kind: str
    status: int
    headers: dict[str, str]
    document: Any

    @property
    def state(self) -> str:
        return self.document.get("status", "") if isinstance(self.document, dict) else ""


def recorded(name: str) -> list[Exchange]:
    """The exchanges of a recording."""
    found = []
    for entry in json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["Entries"]:
        url = urlsplit(entry["RequestUri"])
        headers = {key.lower(): value for key, value in entry["ResponseHeaders"].items()}
        kind = entry["RequestHeaders"].get("Content-Type", "")
        target = f"{url.path}?{url.query}"
        method, sent = entry["RequestMethod"], entry["RequestBody"]
        found.append(Exchange(method, target, sent, kind, entry["StatusCode"], headers, entry["ResponseBody"]))
    return found


def members(value: Any, where: str = "") -> Iterator[str]:
    """The path of each member; the names of fields don't count, nor which element of a list it is."""
    if isinstance(value, list):
        for each in value:
            yield from members(each, f"{where}[]")
    elif isinstance(value, dict):
        for name, each in value.items():
            inner = f"{where}.*" if where.endswith(".fields") else f"{where}.{name}"
            yield inner
            yield from members(each, inner)


EVER_RECORDED = {path for name in CONVERSATIONS for one in recorded(name) for path in members(one.document)}


def of_analyses(exchanges: list[Exchange]) -> list[Exchange]:
    """Those that start an analysis, ask about it or delete it."""
    return [one for one in exchanges if re.search(r":analyze\?|/analyze(Batch)?Results/", one.target)]


def check(one: Exchange) -> None:
    """What holds for every exchange, by what it is."""
    assert ALWAYS <= one.headers.keys()
    match one.method, one.status:
        case "POST", 202:
            check_started(one)
        case "GET", 200:
            check_polled(one)
        case "DELETE", 204:
            assert one.headers.get("content-length", "0") == "0"  # aiohttp cannot send one with a 204
            assert not one.document
            assert "content-type" not in one.headers
        case _, status:
            assert status in {400, 401, 404}
            check_refused(one)


def check_started(one: Exchange) -> None:
    path, _, query = one.target.partition("?")
    where = urlsplit(one.headers["operation-location"])
    results = path.replace(":analyzeBatch", "/analyzeBatchResults").replace(":analyze", "/analyzeResults")

    assert where.scheme
    assert where.netloc
    assert f"{results}/{one.headers['apim-request-id']}" == where.path
    assert re.search(r"api-version=[^&]+", query)[0] == where.query
    assert "0" == one.headers["content-length"]
    assert not {"retry-after", "content-type"} & one.headers.keys()
    assert not one.document


def check_polled(one: Exchange) -> None:
    if not isinstance(one.document, dict):
        assert one.headers["content-type"] in {"image/png", "application/pdf"}
        assert "chunked" == one.headers["transfer-encoding"]
        return
    running = one.state == "running"

    assert "application/json; charset=utf-8" == one.headers["content-type"]
    assert one.headers["apim-request-id"] not in one.target
    if OLD_PREVIEW not in one.target and "/analyzeBatchResults/" not in one.target:
        assert ("1" if running else None) == one.headers.get("retry-after")
    if "/analyzeBatchResults/" not in one.target:
        more = [] if running else ["error" if one.state == "failed" else "analyzeResult"]
        assert ["status", "createdDateTime", "lastUpdatedDateTime", *more] == list(one.document)
        assert not running or one.headers["content-length"] == "106"


def check_refused(one: Exchange) -> None:
    error = one.document["error"]

    assert {"code", "message"} <= error.keys()
    assert ("innererror" in error) == ("ms-azure-ai-errorcode" in one.headers)
    assert one.headers.get("ms-azure-ai-errorcode", error["code"]) == error["code"]
    assert one.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("name", [*CONVERSATIONS, "net_read_batch_delete"])
def test_what_was_recorded(name):
    """The checks hold for what the service really said."""
    found = of_analyses(recorded(name))

    assert found
    for one in found:
        check(one)


def test_every_recording_is_looked_at():
    """No recording is left out in silence."""

    assert {path.stem for path in DATA.glob("*.json")} == CONVERSATIONS.keys() | OTHERS.keys()


@pytest.fixture
async def say():
    """Has the conversation of a recording with a stand-in, as often running as there; gives the exchanges."""
    provider = DemoProvider()
    port = await provider.start()

    async def replay(exchanges: list[Exchange]) -> list[Exchange]:
        provider.documents.faults.running = sum(one.state == "running" for one in exchanges)
        ids: dict[str, str] = {}
        found = []
        async with aiohttp.ClientSession(headers={"ocp-apim-subscription-key": "k"}) as session:
            for one in exchanges:
                target = one.target
                for theirs, ours in ids.items():
                    target = target.replace(theirs, ours)
                data = body_of(one)
                kind = {"content-type": one.kind} if one.kind else {}
                url = URL(f"http://127.0.0.1:{port}{target}", encoded=True)
                async with session.request(one.method, url, data=data, headers=kind) as response:
                    body = await response.read()
                headers = {key.lower(): value for key, value in response.headers.items()}
                document = json.loads(body) if "json" in headers.get("content-type", "") else body.decode("latin-1")
                if one.status == response.status == 202:
                    ids[one.headers["apim-request-id"]] = headers["apim-request-id"]
                found.append(Exchange(one.method, target, one.sent, one.kind, response.status, headers, document))
        return found

    yield replay
    await provider.stop()


def body_of(one: Exchange) -> bytes | None:
    """The body to send: where the recording was trimmed, a document of ours, or the JSON that was none."""
    if isinstance(one.sent, dict):
        return json.dumps(one.sent).encode()
    if one.sent is None:
        return None
    return b'{"urlSource": "https://x.example/a.pdf"}' if "of JSON" in one.sent else pdf([["Some text"], ["More"]])


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_what_the_stand_in_says(say, name):
    """The same statuses, states, headers and errors, and no member that was never recorded."""
    theirs = of_analyses(recorded(name))
    ours = await say(theirs)

    assert [(one.status, one.state) for one in theirs] == [(one.status, one.state) for one in ours]
    for their, our in zip(theirs, ours, strict=True):
        check(our)
        assert their.headers.keys() - FRAMING - UNTOLD <= our.headers.keys()
        if their.status >= 400:
            assert their.document == our.document
        if isinstance(their.document, dict):
            assert list(their.document) == list(our.document)
            assert set(members(our.document)) <= EVER_RECORDED
        if their.state == "succeeded":
            assert list(their.document["analyzeResult"]) == list(our.document["analyzeResult"])


async def test_deleted(say):
    """A result that was deleted is not found, nor deleted again."""
    [started, *_, succeeded] = of_analyses(recorded("net_receipt_blank_page"))
    [deletion] = [one for one in recorded("net_read_batch_delete") if one.method == "DELETE"]
    gone = Exchange("DELETE", succeeded.target, None, "", 204, {}, None)
    _, deleted, *after = await say([started, gone, succeeded, gone])

    check(deleted)
    assert deletion.headers.keys() - FRAMING - UNTOLD <= deleted.headers.keys()
    assert [404, 404] == [one.status for one in after]
    for one in after:
        check(one)
        assert "NotFound" == one.document["error"]["code"]
