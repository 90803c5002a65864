"""The calls of Azure's document services: which are analyses, which ask about one, and why the others are not kept."""

from __future__ import annotations

import json

import pytest

from sidecar.core.dialect import BodyForm, Kind, Poll
from sidecar.core.key.canonical import read
from sidecar.dialects.azure.documents import AZURE_DOCUMENTS

DI, FR, CU = "/documentintelligence", "/formrecognizer", "/contentunderstanding"
RID = "e73344b8-e58f-4752-a911-f13c5c07e875"
KEY = b"k"
BINARY = b"application/pdf"

ANALYSES = [
    (f"{DI}/documentModels/prebuilt-read:analyze", "prebuilt-read", ()),
    (f"{DI}/documentModels/prebuilt-tax.us.w2:analyze", "prebuilt-tax.us.w2", ()),
    (f"{DI}/documentModels/invoices-2024_b:analyze", "invoices-2024_b", ("custom-model",)),
    (f"{DI}/documentModels/Prebuilt-read:analyze", "Prebuilt-read", ("custom-model",)),
    (f"{DI}/documentClassifiers/sorter:analyze", "sorter", ("custom-model",)),
    (f"{DI}/documentClassifiers/prebuilt-sorter:analyze", "prebuilt-sorter", ("custom-model",)),
    (f"{FR}/documentModels/prebuilt-layout:analyze", "prebuilt-layout", ()),
    (f"{FR}/documentModels/own:analyze", "own", ("custom-model",)),
    (f"{FR}/documentClassifiers/own:analyze", "own", ("custom-model",)),
    (f"{CU}/analyzers/prebuilt-documentSearch:analyze", "prebuilt-documentSearch", ()),
    (f"{CU}/analyzers/own_analyzer.1:analyze", "own_analyzer.1", ("custom-model",)),
    (f"{CU}/analyzers/prebuilt-read:analyzeBinary", "prebuilt-read", ()),
    (f"{CU}/analyzers/own:analyzeBinary", "own", ("custom-model",)),
]


def found(method: str, path: str, query: bytes = b""):
    endpoint = AZURE_DOCUMENTS.locate(method.encode(), path)
    if endpoint is not None and endpoint.by_query is not None:
        endpoint = endpoint.by_query(endpoint, query)
    return endpoint


@pytest.mark.parametrize(("path", "model", "needs"), ANALYSES)
def test_analyses(path, model, needs):
    """One document, by one model; a model that can be trained again needs a route that allows it."""
    endpoint = found("POST", path)

    assert (Kind.OCR, BodyForm.DOCUMENT, "", False) == (
        endpoint.kind, endpoint.body, endpoint.bypass, endpoint.generating,
    )  # fmt: skip
    assert model == endpoint.model
    assert endpoint.operation is not None
    facts = read(b"%PDF", endpoint, BINARY, KEY).facts
    assert (True, needs) == (facts.deterministic, facts.needs)


POLLS = [
    (f"{DI}/documentModels/prebuilt-read/analyzeResults/{RID}", Poll(RID)),
    (f"{DI}/documentModels/prebuilt-read/analyzeResults/{RID}/pdf", Poll(RID, "pdf")),
    (f"{DI}/documentModels/prebuilt-layout/analyzeResults/{RID}/figures/1.1", Poll(RID, "figures/1.1")),
    (f"{DI}/documentClassifiers/own/analyzeResults/{RID}", Poll(RID)),
    (f"{FR}/documentModels/own/analyzeResults/{RID}", Poll(RID)),
    (f"{CU}/analyzerResults/{RID}", Poll(RID)),
    (f"{CU}/analyzerResults/{RID}/files/keyFrames/733", Poll(RID, "files/keyFrames/733")),
]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(("path", "poll"), POLLS)
def test_polls(method, path, poll):
    """What asks about an operation, or deletes its result, has the operation's id."""
    endpoint = found(method, path)

    assert (poll, "", None) == (endpoint.poll, endpoint.bypass, endpoint.operation)


BYPASSED = {
    "model-management": [
        *((method, f"{root}/{kind}{rest}")
          for root in (DI, FR)
          for kind in ("documentModels", "documentClassifiers")
          for method, rest in (
              ("POST", ":build"), ("POST", ":authorizeCopy"), ("POST", "/own:copyTo"), ("GET", ""), ("GET", "/own"),
              ("DELETE", "/own"),
          )),
        ("POST", f"{DI}/documentModels:compose"),
        ("POST", f"{DI}/documentModels/:analyze"),
        ("POST", f"{DI}/documentModels/a%2Fb:analyze"),
        ("GET", f"{DI}/documentModels/own:analyze"),
        *((method, f"{CU}/analyzers/own") for method in ("GET", "PUT", "PATCH", "DELETE")),
        ("GET", f"{CU}/analyzers"),
        ("POST", f"{CU}/analyzers/own:copy"),
        ("POST", f"{CU}/analyzers/own:grantCopyAuthorization"),
        ("GET", f"{CU}/analyzers/own/operations/{RID}"),
        ("GET", f"{CU}/defaults"),
        ("PATCH", f"{CU}/defaults"),
        ("PUT", f"{CU}/classifiers/own"),
        ("POST", f"{CU}/classifiers/own:classify"),
    ],
    "writes-results": [
        ("POST", f"{DI}/documentModels/prebuilt-read:analyzeBatch"),
        ("GET", f"{DI}/documentModels/prebuilt-read/analyzeBatchResults"),
        ("GET", f"{DI}/documentModels/prebuilt-read/analyzeBatchResults/{RID}"),
        ("DELETE", f"{DI}/documentModels/prebuilt-read/analyzeBatchResults/{RID}"),
    ],
    "stateful": [
        ("GET", f"{DI}/operations"),
        ("GET", f"{DI}/operations/31432227594_{RID}"),
        ("GET", f"{FR}/operations/{RID}"),
        ("GET", f"{DI}/info"),
        ("POST", f"{DI}/made:up"),
        ("GET", f"{CU}/classifierResults/{RID}"),
        ("POST", f"{CU}/personDirectories/d/persons"),
        ("GET", f"{CU}/analyzerResults/{RID}/files/a/../../x"),
    ],
    "retired-version": [
        ("POST", f"{FR}/v2.1/prebuilt/invoice/analyze"),
        ("POST", f"{FR}/v2.1/layout/analyze"),
        ("GET", f"{FR}/v2.1/layout/analyzeResults/{RID}"),
        ("POST", f"{FR}/v2.0/custom/models"),
        ("POST", f"{FR}/v2.1-preview.3/layout/analyze"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "method", "path"), [(reason, *call) for reason, calls in BYPASSED.items() for call in calls]
)
def test_what_is_never_looked_up(reason, method, path):
    """Each call that writes, or reads what can change, says why."""
    assert reason == found(method, path).bypass


@pytest.mark.parametrize(
    "path",
    ["/", "/documentintelligence", "/DocumentIntelligence/documentModels/a:analyze", "/vision/v3.2/read/analyze",
     "/openai/v1/chat/completions", "/x/documentintelligence/documentModels/a:analyze"],
)  # fmt: skip
def test_other_paths(path):
    """What these services do not have passes through untouched."""
    assert found("POST", path) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"api-version=2024-11-30&output=pdf", "extra-output"),
        (b"output=figures&api-version=2024-11-30", "extra-output"),
        (b"Output=PDF", "extra-output"),
        (b"output=pdf%2Cfigures", "extra-output"),
        (b"o%75tput=pdf", "extra-output"),
        (b"output=of-a-later-version", "extra-output"),
        (b"output=", ""),
        (b"outputContentFormat=markdown", ""),
        (b"features=output", ""),
        (b"", ""),
    ],
)
def test_extra_output(query, expected):
    """A PDF and figures stay at the service, so such a call is not looked up; it is an operation anyway."""
    endpoint = found("POST", ANALYSES[0][0], query)

    assert expected == endpoint.bypass
    assert endpoint.operation is not None


def test_one_bare_document():
    """Base64 and bytes are one document, to the two calls of Content Understanding, too."""
    by_json, by_bytes = (found("POST", f"{CU}/analyzers/prebuilt-read:{call}") for call in ("analyze", "analyzeBinary"))
    body = json.dumps({"inputs": [{"data": "JVBERg=="}]}).encode()
    linked = read(b'{"inputs":[{"url":"https://a.example/d"}]}', by_json, b"application/json", KEY)
    direct = read(b'{"urlSource":"https://a.example/d"}', found("POST", ANALYSES[0][0]), b"application/json", KEY)

    assert read(body, by_json, b"application/json", KEY) == read(b"%PDF", by_bytes, BINARY, KEY)
    assert (by_json.name, by_json.path) == (by_bytes.name, by_bytes.path)
    assert "no-document" == read(body, by_bytes, b"application/json", KEY).facts.bypass
    assert ("url-source",) == linked.facts.needs == direct.facts.needs


def test_errors():
    """An error of ours has the service's form; there are no streams."""
    assert {"error": {"code": "NotFound", "message": "m"}} == json.loads(AZURE_DOCUMENTS.error(404, "NotFound", "m"))
    assert b"" == AZURE_DOCUMENTS.error_event("c", "m")
    assert AZURE_DOCUMENTS.is_own("x.cognitiveservices.azure.com")
    assert AZURE_DOCUMENTS.is_own("westeurope.api.cognitive.microsoft.com")
    assert not AZURE_DOCUMENTS.is_own("cognitiveservices.azure.com.example")
