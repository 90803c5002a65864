"""
The dialect of Azure's Vision service: Read, which is a long-running operation, and what looks at images
(``image_analysis``).

The rule: as in ``documents``. Source: REST reference of Computer Vision 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from msgspec import Raw, Struct

from sidecar.core.dialect import BodyForm, Documents, Endpoint, Kind, LongOperation, Members, Poll
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure import image_analysis, operations
from sidecar.dialects.azure.ai_services import CONTENT_TYPE, bypassed, dialect
from sidecar.dialects.azure.query import canonical

RETIRED: Final = bypassed("retired-version")
"""Calls of versions that the service no longer answers."""

_READ: Final = "/vision/v3.2/read/analyze"
_RESULT: Final = re.compile(rf"/vision/v3\.2/read/analyzeResults/({operations.ID})", re.ASCII)
_RETIRED: Final = re.compile(r"/vision/v(?:[12]\.[0-9]|3\.[01])(?:-preview[.0-9]*)?/.*", re.DOTALL)


class _TextRead(Struct, gc=False, rename="camel"):
    read_results: list[Raw] = []
    model_version: str = ""


def _usage(result: Raw) -> Usage:
    found = operations.decoded(result, _TextRead)
    return Usage() if found is None else Usage(pages=len(found.read_results))


def _model(result: Raw) -> str:
    found = operations.decoded(result, _TextRead)
    return "" if found is None else found.model_version


def _read(_members: Members) -> Facts:
    return Facts(deterministic=True)


def _poll(_path: str, _query: bytes, operation: str) -> bytes:
    return f"{_READ}Results/{operation}".encode()


READ: Final = Endpoint(
    "read",
    Kind.OCR,
    BodyForm.DOCUMENT,
    _read,
    operations.answers(lambda poll: poll.analyze_result, usage=_usage, model=_model),
    generating=False,
    operation=LongOperation(
        poll=_poll,
        progress=operations.progress,
        present=operations.present(),
        running=operations.running(status="running", createdDateTime="{at}", lastUpdatedDateTime="{at}"),
    ),
    documents=Documents(embedded=frozenset(), linked=frozenset({"url"})),
    path=_READ,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)
"""The text of a document. The version of its model, ``latest`` by default, is part of the query."""


def _find_read(method: bytes, path: str) -> Endpoint | None:
    if method == b"POST" and path == _READ:
        return READ
    if method in {b"GET", b"DELETE"} and (result := _RESULT.fullmatch(path)) is not None:
        return replace(operations.POLL, poll=Poll(result[1]))
    return RETIRED if _RETIRED.fullmatch(path) else None


_TABLES: Final[tuple[Callable[[bytes, str], Endpoint | None], ...]] = (_find_read, image_analysis.find)
"""The tables of this dialect; the first that knows a path decides."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    for find in _TABLES:
        if (found := find(method, path)) is not None:
            return found
    return None


AZURE_VISION: Final = replace(
    dialect("azure-vision", locate, words=("VISION",)),
    document_paths=("/vision/v3.2/*", "/computervision/imageanalysis:*"),
)
