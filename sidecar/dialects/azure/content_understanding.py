"""
Operations of Content Understanding.

The rule: as in ``documents``. One bare document is the same question to ``:analyze`` and ``:analyzeBinary``: what else
these can say stands in the body of the one and in the query of the other, and separates. Source: REST reference of
Content Understanding 2025-11-01, and what ``azure-ai-contentunderstanding`` sends.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from msgspec import Raw, Struct

from sidecar.core.dialect import BodyForm, Documents, Endpoint, Kind, LongOperation, Members, Poll
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure import operations
from sidecar.dialects.azure.ai_services import CONTENT_TYPE, CUSTOM_MODEL, STATEFUL, bypassed
from sidecar.dialects.azure.query import canonical

DOCUMENTS: Final = Documents(
    embedded=frozenset({"data"}),
    linked=frozenset({"url"}),
    inside=frozenset({"inputs"}),
)

ANALYZERS: Final = bypassed("model-management")
"""Calls about analyzers of one's own."""

_ROOT: Final = "/contentunderstanding"
_PREBUILT: Final = "prebuilt-"

_ANALYZE: Final = re.compile(rf"({_ROOT}/analyzers/([A-Za-z0-9][A-Za-z0-9._-]{{0,127}})):analyze(Binary)?", re.ASCII)
_RESULT: Final = re.compile(
    rf"{_ROOT}/analyzerResults/({operations.ID})(?:/(files(?:/[A-Za-z0-9][A-Za-z0-9._-]*)+))?", re.ASCII
)
_ANALYZERS: Final = re.compile(rf"{_ROOT}/(?:analyzers|classifiers)(?:[/:].*)?|{_ROOT}/defaults", re.DOTALL)
_FILES: Final = re.compile(rb'"[kK]eyFrameTimesMs"\s*+:\s*+\[\s*+[0-9]|\]\((?:figures/|key[fF]rames?[./])')
"""How a result refers to images that the service keeps: key frames of a video, figures of a document."""


class _UnderstoodContent(Struct, gc=False, rename="camel"):
    pages: list[Raw] = []
    start_page_number: int = 1
    end_page_number: int = 0
    start_time_ms: int = 0
    end_time_ms: int = 0


class _Understood(Struct, gc=False, rename="camel"):
    analyzer_id: str = ""
    contents: list[_UnderstoodContent] = []


def _usage(result: Raw) -> Usage:
    """Pages of documents, seconds of audio and video."""
    found = operations.decoded(result, _Understood)
    if found is None:
        return Usage()
    pages = sum(len(each.pages) or max(each.end_page_number - each.start_page_number + 1, 0) for each in found.contents)
    milliseconds = sum(max(each.end_time_ms - each.start_time_ms, 0) for each in found.contents)
    return Usage(pages=pages, seconds=-(-milliseconds // 1000))


def _model(result: Raw) -> str:
    found = operations.decoded(result, _Understood)
    return "" if found is None else found.analyzer_id


def _has_files(result: Raw) -> bool:
    return _FILES.search(memoryview(result)) is not None


def _read(_members: Members) -> Facts:
    return Facts(deterministic=True)


def _read_custom(_members: Members) -> Facts:
    return Facts(deterministic=True, needs=(CUSTOM_MODEL,))


def _poll(_path: str, query: bytes, operation: str) -> bytes:
    return operations.target(f"{_ROOT}/analyzerResults/{operation}", query)


OPERATION: Final = LongOperation(
    poll=_poll,
    progress=operations.progress,
    present=operations.present("id"),
    running=operations.running(id="{id}", status="Running"),
)

ANALYSIS: Final = Endpoint(
    "content-analysis",
    Kind.OCR,
    BodyForm.DOCUMENT,
    _read,
    operations.answers(lambda poll: poll.result, usage=_usage, model=_model, parts=_has_files),
    generating=False,
    operation=OPERATION,
    documents=DOCUMENTS,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)


def find(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None where these tables do not know it."""
    if not path.startswith(f"{_ROOT}/"):
        return None
    if method == b"POST" and (asked := _ANALYZE.fullmatch(path)) is not None:
        prebuilt = asked[2].startswith(_PREBUILT)
        endpoint = replace(
            ANALYSIS, path=f"{asked[1]}:analyze", model=asked[2], read=_read if prebuilt else _read_custom
        )
        # what :analyzeBinary gets is always the bytes of one document
        return replace(endpoint, documents=None) if asked[3] else endpoint
    if method in {b"GET", b"DELETE"} and (result := _RESULT.fullmatch(path)) is not None:
        return replace(operations.POLL, poll=Poll(result[1], result[2] or ""))
    return ANALYZERS if _ANALYZERS.fullmatch(path) else STATEFUL
