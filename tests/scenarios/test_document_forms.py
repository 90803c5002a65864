"""One document, one analysis: the service is asked once, in whatever form a document comes, and all get its result."""

from __future__ import annotations

import base64
import json

import pytest

from sidecar.core.rules import Region, Service
from sidecar.demo.documents.pages import pdf
from sidecar.dialects import DIALECTS

ANALYZE = "/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30"
KEY = {"ocp-apim-subscription-key": "key-1", "authorization": None}


@pytest.fixture
async def documents(build_lab, provider):
    """A lab before a stand-in of the document services."""
    url = f"http://127.0.0.1:{provider.port}"
    service = Service("documents", DIALECTS["azure-documents"], (Region("here", url),), path="/documents")
    return await build_lab(url, services=(service,))


def forms(document: bytes) -> dict[str, tuple[bytes, str]]:
    head = b'Content-Disposition: form-data; name="file"; filename="a.pdf"'
    return {
        "octets": (document, "application/octet-stream"),
        "pdf": (document, "application/pdf"),
        "base64": (json.dumps({"base64Source": base64.b64encode(document).decode()}).encode(), "application/json"),
        "form": (b"--x\r\n%b\r\n\r\n%b\r\n--x--\r\n" % (head, document), "multipart/form-data; boundary=x"),
    }


async def analyse(lab, body, media, path=ANALYZE):
    """The result of one analysis, as a client without an SDK asks for it; and how it was come by."""
    accepted = await lab.ask(body, path="/documents" + path, headers={**KEY, "content-type": media})
    assert 202 == accepted.status
    place = accepted.headers["operation-location"].partition("/documents/")[2]
    while True:
        reply = await lab.ask(b"", path=f"/documents/{place}", method="GET", headers={**KEY, "content-type": None})
        said = json.loads(reply.body)
        if said["status"] not in {"notStarted", "running"}:
            return said["analyzeResult"], accepted.headers["cache-status"]


@pytest.mark.parametrize("first", forms(b""))
async def test_one_document_in_all_forms(documents, provider, first):
    """The first call is fetched, in whatever form it comes; the others are hits, and get the same result."""
    document = pdf([["One document"], ["of two pages"]])
    given = forms(document)
    result, how = await analyse(documents, *given.pop(first))
    assert "fwd=miss" in how

    for body, media in given.values():
        again, how = await analyse(
            documents, body, media, ANALYZE.replace("/document", "//document", 1) + "&_overload=x"
        )
        assert result == again
        assert "hit" in how

    assert 1 == provider.documents.analyses.total()


async def test_another_question(documents, provider):
    """Other pages, features or bytes are analysed; the order of features is no other question."""
    document, other = pdf([["A document"], ["of two pages"]]), pdf([["Another one"]])
    for body, query in (
        (document, ""),
        (document, "&pages=1"),
        (document, "&features=languages,barcodes"),
        (document, "&features=barcodes&features=languages"),
        (other, ""),
    ):
        await analyse(documents, body, "application/pdf", ANALYZE + query)

    assert 4 == provider.documents.analyses.total()
