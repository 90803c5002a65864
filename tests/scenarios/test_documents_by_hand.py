"""Clients written by hand: they cut the id out of a header, and build the address of their polls themselves."""

from __future__ import annotations

import base64
import json

import pytest

from tests.scenarios.document_desks import DocumentDesks, raw
from tests.scenarios.document_sdks import KEY, document

ONE = document("one")
READ = "/vision/v3.2/read/analyze"
BY_KEY = {"ocp-apim-subscription-key": KEY}
BYTES = {**BY_KEY, "content-type": "application/octet-stream"}
IN_JSON = {**BY_KEY, "content-type": "application/json"}


@pytest.fixture
async def base(provider, build_lab):
    """Where a sidecar has Vision."""
    provider.documents.faults.running = 0
    desk = await DocumentDesks(provider, build_lab).open()
    return f"http://127.0.0.1:{desk.ports['azure-vision']}"


async def read(base, query="", body=ONE, headers=BYTES):
    """The result of a reading, and whether it was a hit."""
    status, head, _ = await raw("POST", f"{base}{READ}{query}", body=body, headers=headers)
    assert 202 == status
    number = head["operation-location"].rpartition("/")[2]
    status, polled, found = await raw("GET", f"{base}/vision/v3.2/read/analyzeResults/{number}", headers=BY_KEY)
    assert (200, "retry-after" in polled) == (status, False)
    return json.loads(found), head["cache-status"].startswith("sidecar; hit")


async def test_vision_read(base, provider):
    """The second reading is a hit with the same result at a later time."""
    first, second = [await read(base) for _ in range(2)]

    assert (False, True) == (first[1], second[1])
    assert "succeeded" == first[0]["status"] == second[0]["status"]
    assert first[0]["analyzeResult"] == second[0]["analyzeResult"]
    assert "one, page 1" == first[0]["analyzeResult"]["readResults"][0]["lines"][0]["text"]
    assert 1 == provider.documents.asked


async def test_vision_read_is_apart(base, provider):
    """Pages, language, reading order and model version each make another reading; the order of the query does not."""
    queries = ["", "?pages=1", "?language=de", "?readingOrder=natural", "?model-version=2022-04-30"]
    hits = [(await read(base, query))[1] for query in (*queries, "?pages=1&language=de", "?language=de&pages=1")]

    assert [False] * 6 + [True] == hits
    assert 6 == provider.documents.asked


async def test_urls_are_not_looked_up(base, provider):
    """What a URL leads to can change: such a call goes to the service each time."""
    body = b'{"url": "https://store.example/a.pdf?sv=1&sig=secret"}'
    hits = [(await read(base, body=body, headers=IN_JSON))[1] for _ in range(2)]

    assert [False, False] == hits
    assert 2 == provider.documents.asked


async def test_another_document_as_json(base, provider):
    """JSON that is sent as bytes is no document: the service's refusal reaches the caller each time."""
    body = json.dumps({"base64Source": base64.b64encode(ONE).decode()}).encode()
    refused = [await raw("POST", f"{base}{READ}", body=body, headers=BYTES) for _ in range(2)]

    assert [400, 400] == [status for status, *_ in refused]
    assert "InvalidContent" in refused[0][2].decode()
    assert 2 == provider.documents.asked
