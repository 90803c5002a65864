"""The calls of Azure's Vision service."""

from __future__ import annotations

import pytest

from sidecar.core.dialect import BodyForm, Kind, Poll
from sidecar.core.key.canonical import read
from sidecar.dialects.azure.vision import AZURE_VISION, READ

RID = "49a36324-fc4b-4387-aa06-090cfbf0064f"


def test_read():
    """The bytes of a document, or its URL where the route allows that."""
    endpoint = AZURE_VISION.locate(b"POST", "/vision/v3.2/read/analyze")

    assert endpoint is READ
    assert (Kind.OCR, BodyForm.DOCUMENT, "") == (endpoint.kind, endpoint.body, endpoint.bypass)
    assert () == read(b"%PDF", endpoint, b"application/octet-stream", b"k").facts.needs
    assert ("url-source",) == read(b'{"url":"https://a.example"}', endpoint, b"application/json", b"k").facts.needs


@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_polls_of_read(method):
    """What asks about an operation has the operation's id."""
    endpoint = AZURE_VISION.locate(method, f"/vision/v3.2/read/analyzeResults/{RID}")

    assert (Poll(RID), "") == (endpoint.poll, endpoint.bypass)


@pytest.mark.parametrize(
    "path", ["/vision/v3.1/read/analyze", "/vision/v3.0/analyze", "/vision/v2.0/recognizeText", "/vision/v1.0/ocr",
             "/vision/v3.2-preview.3/read/analyze"],
)  # fmt: skip
def test_other_versions(path):
    """Retired versions say so; a version that is not known passes through."""
    endpoint = AZURE_VISION.locate(b"POST", path)

    assert (None if "3.2" in path else "retired-version") == (endpoint and endpoint.bypass)


@pytest.mark.parametrize("path", ["/", "/vision/v4.0/x", "/documentintelligence/documentModels/a:analyze"])
def test_paths_that_it_does_not_have(path):
    """They pass through untouched."""
    assert AZURE_VISION.locate(b"POST", path) is None
