"""
Content Understanding, as its SDK reads it; there is no recording of it.

The rule: the state is written with a capital, and the pages are counted in ``usage``.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.demo.canned import Json
from sidecar.demo.documents.forms import inner_members
from sidecar.demo.documents.intelligence import HEIGHT, WIDTH, box_of
from sidecar.demo.documents.pages import ReadDocument, ReadPage, read_document
from sidecar.demo.documents.refusals import bad_parameter, error_of
from sidecar.demo.documents.service import (
    FAILED,
    ID,
    MODEL,
    Analysis,
    AnalysisAsk,
    AnalysisTimes,
    DocumentService,
    check_model,
)

_ANALYZERS: Final = frozenset({
    "prebuilt-read", "prebuilt-layout", "prebuilt-document", "prebuilt-documentSearch", "prebuilt-invoice",
    "prebuilt-receipt", "prebuilt-idDocument",
})  # fmt: skip


def _analyse(data: bytes, ask: AnalysisAsk) -> Analysis:
    wanted = ask.query.get("range") or inner_members(ask.members).get("range") or ""
    try:
        document = read_document(data, str(wanted), "\n\n")
    except ValueError:
        raise bad_parameter("Range", "The range is invalid.") from None
    result: Json = {
        "analyzerId": ask.model,
        "apiVersion": ask.query["api-version"],
        "stringEncoding": ask.query.get("stringEncoding", "codePoint"),
        "warnings": [],
        "contents": [_content(document, ask.model)],
    }
    return Analysis(result, len(document.pages), "content-understanding")


def _content(document: ReadDocument, analyzer: str) -> Json:
    return {
        "path": "input1", "markdown": document.content, "fields": {}, "kind": "document",
        "startPageNumber": document.pages[0].number, "endPageNumber": document.pages[-1].number, "unit": "inch",
        "pages": [_page(page) for page in document.pages], "analyzerId": analyzer,
    }  # fmt: skip


def _page(page: ReadPage) -> Json:
    words, lines = [], []
    for row, line in enumerate(page.lines):
        span = {"offset": line.offset, "length": len(line.text)}
        lines.append({"content": line.text, "source": _source(page, box_of(line, row)), "span": span})
        words += [
            {
                "content": word.text,
                "span": {"offset": word.offset, "length": len(word.text)},
                "confidence": 0.995,
                "source": _source(page, box_of(line, row, word.offset - line.offset, len(word.text))),
            }
            for word in line.words
        ]
    return {
        "pageNumber": page.number, "angle": 0, "width": WIDTH, "height": HEIGHT,
        "spans": [{"offset": page.offset, "length": page.length}], "words": words, "lines": lines,
    }  # fmt: skip


def _source(page: ReadPage, corners: list[float]) -> str:
    return f"D({page.number},{','.join(map(str, corners))})"


def _succeeded(number: str, times: AnalysisTimes, _: AnalysisAsk, result: Json) -> Json:
    pages = len(result["contents"][0]["pages"])
    return {
        "id": number,
        "status": "Succeeded",
        "result": {"createdAt": times.created, **result},
        "usage": {"documentPagesStandard": pages},
    }


_START: Final = re.compile(rf"/contentunderstanding/analyzers/(?P<model>{MODEL}):analyze(?:Binary)?", re.IGNORECASE)
_RESULT: Final = re.compile(rf"/contentunderstanding/analyzerResults/(?P<id>{ID})(?:/(?P<part>.+))?", re.IGNORECASE)

UNDERSTANDING: Final = DocumentService(
    name="content-understanding",
    start=_START,
    result=_RESULT,
    location=lambda path, number: f"{path[: path.lower().index('/analyzers/')]}/analyzerResults/{number}",
    check=lambda ask: check_model(ask.model, _ANALYZERS),
    analyse=_analyse,
    running=lambda number, _, __: {"id": number, "status": "Running"},
    succeeded=_succeeded,
    failed=lambda number, _, __: {"id": number, "status": "Failed", "error": error_of(*FAILED)},
    accepted=lambda number: {"id": number, "status": "NotStarted"},
)
