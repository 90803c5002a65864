"""
The dialect of Azure's document services: Document Intelligence, also under its older name Form Recognizer, and Content
Understanding (``content_understanding``).

The rule: a path is matched whole and as it was sent, doubled slashes apart. Whatever is not an analysis writes, or
reads what can change, and is never looked up. Source: REST reference of Document Intelligence 2023-07-31 (v3.1) and
2024-11-30 (v4.0), and what the Azure SDKs send.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from msgspec import Raw, Struct

from sidecar.core.dialect import BodyForm, Documents, Endpoint, Kind, LongOperation, Members, Poll
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure import content_understanding, operations
from sidecar.dialects.azure.ai_services import CONTENT_TYPE, CUSTOM_MODEL, STATEFUL, bypassed, dialect
from sidecar.dialects.azure.query import canonical, items

DOCUMENTS: Final = Documents(embedded=frozenset({"base64Source"}), linked=frozenset({"urlSource"}))

MODEL_MANAGEMENT: Final = bypassed("model-management")
"""Calls about models of one's own: they build, change, copy, list or delete what later calls use."""

WRITES_RESULTS: Final = bypassed("writes-results")
"""Calls whose results the service writes into a storage account of the caller's."""

RETIRED: Final = bypassed("retired-version")
"""Calls of versions that the service no longer answers."""

_EXTRA_OUTPUT: Final = "extra-output"

_PREBUILT: Final = "prebuilt-"

_ROOT: Final = r"/(?:documentintelligence|formrecognizer)"
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}"

_ANALYZE: Final = re.compile(rf"({_ROOT}/document(?:Models|Classifiers)/({_NAME})):analyze", re.ASCII)
_RESULT: Final = re.compile(
    rf"{_ROOT}/document(?:Models|Classifiers)/{_NAME}/analyzeResults/({operations.ID})(?:/(pdf|figures/[A-Za-z0-9._-]+))?",
    re.ASCII,
)
_BATCH: Final = re.compile(rf"{_ROOT}/documentModels/[^/]+(?::analyzeBatch|/analyzeBatchResults(?:/[^/]+)?)")
_MODELS: Final = re.compile(rf"{_ROOT}/document(?:Models|Classifiers)(?:[/:].*)?", re.DOTALL)
_RETIRED: Final = re.compile(r"/formrecognizer/v[12]\.[0-9]+(?:-preview[.0-9]*)?/.*", re.DOTALL)
_ROOTS: Final = ("/documentintelligence/", "/formrecognizer/")


class _Analyzed(Struct, gc=False, rename="camel"):
    pages: list[Raw] = []
    model_id: str = ""


def _usage(result: Raw) -> Usage:
    """A page of a document, a sheet, a slide or 3000 characters is a page."""
    found = operations.decoded(result, _Analyzed)
    return Usage() if found is None else Usage(pages=len(found.pages))


def _model(result: Raw) -> str:
    found = operations.decoded(result, _Analyzed)
    return "" if found is None else found.model_id


def _read(_members: Members) -> Facts:
    return Facts(deterministic=True)


def _read_custom(_members: Members) -> Facts:
    return Facts(deterministic=True, needs=(CUSTOM_MODEL,))


def _poll(path: str, query: bytes, operation: str) -> bytes:
    found = _ANALYZE.fullmatch(operations.single_slashes(path))
    assert found is not None
    return operations.target(f"{found[1]}/analyzeResults/{operation}", query)


def _by_query(endpoint: Endpoint, query: bytes) -> Endpoint:
    """A searchable PDF and images of figures stay at the service, under the id of the operation."""
    return replace(endpoint, bypass=_EXTRA_OUTPUT) if items(query, "output") else endpoint


OPERATION: Final = LongOperation(
    poll=_poll,
    progress=operations.progress,
    present=operations.present(),
    running=operations.running(status="running", createdDateTime="{at}", lastUpdatedDateTime="{at}"),
)

ANALYSIS: Final = Endpoint(
    "document-analysis",
    Kind.OCR,
    BodyForm.DOCUMENT,
    _read,
    operations.answers(lambda poll: poll.analyze_result, usage=_usage, model=_model),
    generating=False,
    operation=OPERATION,
    documents=DOCUMENTS,
    query=canonical("features", "queryFields", "output"),
    uncounted=CONTENT_TYPE,
    by_query=_by_query,
)
"""The analysis of one document by a model of Microsoft's, which an api-version pins."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if (found := content_understanding.find(method, path)) is not None:
        return found
    if method == b"POST" and (asked := _ANALYZE.fullmatch(path)) is not None:
        custom = "Classifiers/" in path or not asked[2].startswith(_PREBUILT)
        return replace(ANALYSIS, path=path, model=asked[2], read=_read_custom if custom else _read)
    if method in {b"GET", b"DELETE"} and (result := _RESULT.fullmatch(path)) is not None:
        return replace(operations.POLL, poll=Poll(result[1], result[2] or ""))
    if _RETIRED.fullmatch(path):
        return RETIRED
    if _BATCH.fullmatch(path):
        return WRITES_RESULTS
    if _MODELS.fullmatch(path):
        return MODEL_MANAGEMENT
    return STATEFUL if path.startswith(_ROOTS) else None


AZURE_DOCUMENTS: Final = replace(
    dialect(
        "azure-documents", locate, words=("DOCUMENT", "FORM_RECOGNIZER", "FORMRECOGNIZER", "CONTENT_UNDERSTANDING")
    ),
    ignored_query=frozenset({"_overload"}),  # of the SDKs' own making; the service does not know it
    roots=("/documentintelligence", "/formrecognizer", "/contentunderstanding"),
    document_paths=("*:analyze", "*:analyzeBinary"),
)
