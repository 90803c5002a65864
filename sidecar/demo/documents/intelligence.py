"""
Document Intelligence, as it was recorded: v4 below ``/documentintelligence``, v3.1 below ``/formrecognizer``.

The rule: every member that an answer has is one of the recorded ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sidecar.demo.canned import Json
from sidecar.demo.documents.pages import PageLine, ReadDocument, ReadPage, read_document
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
    check_one_of,
)

_MODELS: Final = frozenset({
    "prebuilt-read", "prebuilt-layout", "prebuilt-document", "prebuilt-invoice", "prebuilt-receipt",
    "prebuilt-idDocument", "prebuilt-contract", "prebuilt-businessCard", "prebuilt-healthInsuranceCard.us",
    "prebuilt-tax.us.w2", "prebuilt-creditCard", "prebuilt-bankStatement.us",
})  # fmt: skip

_TABLES: Final = frozenset({"prebuilt-layout", "prebuilt-document", "prebuilt-invoice"})
_PARAGRAPHS: Final = frozenset({"prebuilt-read", "prebuilt-layout", "prebuilt-document"})
"""Models that give paragraphs, and fields only where the query names them."""

_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*\Z")

WIDTH, HEIGHT = 8.5, 11.0
"""Of every page, in inches."""

FIGURE: Final = "1.1"
"""The id of the one figure that a layout has."""


def box(x: float, y: float, width: float, height: float = 0.16) -> list[float]:
    """The four corners of a rectangle, clockwise from the upper left one."""
    right, low = round(x + width, 4), round(y + height, 4)
    return [x, y, right, y, right, low, x, low]


def box_of(line: PageLine, row: int, start: int = 0, length: int | None = None) -> list[float]:
    """The corners of a line, or of *length* of its characters from *start*."""
    wide = len(line.text) if length is None else length
    return box(round(1 + 0.07 * start, 4), round(1 + 0.2 * row, 4), 0.07 * wide)


def _check(ask: AnalysisAsk) -> None:
    check_model(ask.model, _MODELS)
    check_one_of(ask, "outputContentFormat", frozenset({"text", "markdown"}))
    check_one_of(ask, "stringIndexType", frozenset({"textElements", "unicodeCodePoint", "utf16CodeUnit"}))
    if not _LOCALE.match(ask.query.get("locale", "en")):
        raise bad_parameter("Locale", "The language code is invalid or not supported.")


def _analyse(data: bytes, ask: AnalysisAsk) -> Analysis:
    markdown = ask.query.get("outputContentFormat") == "markdown"
    try:
        document = read_document(data, ask.query.get("pages", ""), "\n\n" if markdown else "\n")
    except ValueError:
        raise bad_parameter("Pages", "The page range is invalid.") from None
    result: Json = {
        "apiVersion": ask.query["api-version"],
        "modelId": ask.model,
        "stringIndexType": ask.query.get("stringIndexType", "textElements"),
        "content": document.content,
        "pages": [_page(page) for page in document.pages],
    }
    if ask.model in _TABLES:
        result["tables"] = []
    if ask.model in _PARAGRAPHS:
        result["paragraphs"] = list(_paragraphs(document))
    if "/documentclassifiers/" not in ask.path.lower():
        result["styles"] = []
    fields = ask.listed("queryFields")
    if ask.model not in _PARAGRAPHS or fields:
        result["documents"] = [_fields(document, ask.model, fields)]
    if ask.query["api-version"] >= "2024":
        result["contentFormat"] = "markdown" if markdown else "text"
    if ask.model == "prebuilt-layout" and ask.query["api-version"] >= "2024":
        result |= {"sections": _sections(document), "figures": [_figure(document)]}
    return Analysis(result, len(document.pages), ask.model)


def _page(page: ReadPage) -> Json:
    words, lines = [], []
    for row, line in enumerate(page.lines):
        lines.append({"content": line.text, "polygon": box_of(line, row), "spans": [_span(line)]})
        words += [
            {
                "content": word.text,
                "polygon": box_of(line, row, word.offset - line.offset, len(word.text)),
                "confidence": 0.995,
                "span": {"offset": word.offset, "length": len(word.text)},
            }
            for word in line.words
        ]
    return {
        "pageNumber": page.number, "angle": 0, "width": WIDTH, "height": HEIGHT, "unit": "inch", "words": words,
        "lines": lines, "spans": [{"offset": page.offset, "length": page.length}],
    }  # fmt: skip


def _span(line: PageLine) -> Json:
    return {"offset": line.offset, "length": len(line.text)}


def _paragraphs(document: ReadDocument) -> Iterable[Json]:
    for page in document.pages:
        for row, line in enumerate(page.lines):
            region = {"pageNumber": page.number, "polygon": box_of(line, row)}
            yield {"spans": [_span(line)], "boundingRegions": [region], "content": line.text}


def _sections(document: ReadDocument) -> list[Json]:
    count = sum(len(page.lines) for page in document.pages)
    elements = [f"/paragraphs/{number}" for number in range(count)]
    return [{"spans": [{"offset": 0, "length": len(document.content)}], "elements": elements}]


def _figure(document: ReadDocument) -> Json:
    region = {"pageNumber": document.pages[0].number, "polygon": box(1, 9, 2, 1)}
    return {"id": FIGURE, "boundingRegions": [region], "spans": [{"offset": 0, "length": 0}], "elements": []}


def _fields(document: ReadDocument, model: str, wanted: list[str]) -> Json:
    page = document.pages[0]
    line = page.lines[-1]
    field = {
        "type": "string", "valueString": line.text, "content": line.text, "confidence": 0.9, "spans": [_span(line)],
        "boundingRegions": [{"pageNumber": page.number, "polygon": box_of(line, len(page.lines) - 1)}],
    }  # fmt: skip
    regions = [{"pageNumber": each.number, "polygon": box(0, 0, WIDTH, HEIGHT)} for each in document.pages]
    return {
        "docType": model.removeprefix("prebuilt-"), "boundingRegions": regions,
        "fields": dict.fromkeys([*wanted, "Reference"], field), "confidence": 1,
        "spans": [{"offset": 0, "length": len(document.content)}],
    }  # fmt: skip


def _progress(status: str, times: AnalysisTimes) -> Json:
    return {"status": status, "createdDateTime": times.created, "lastUpdatedDateTime": times.updated}


_START: Final = re.compile(
    rf"/(?:documentintelligence|formrecognizer)/document(?:Models|Classifiers)/(?P<model>{MODEL}):analyze",
    re.IGNORECASE,
)
_RESULT: Final = re.compile(
    rf"/(?:documentintelligence|formrecognizer)/document(?:Models|Classifiers)/{MODEL}/analyzeResults/"
    rf"(?P<id>{ID})(?:/(?P<part>.+))?",
    re.IGNORECASE,
)

INTELLIGENCE: Final = DocumentService(
    name="document-intelligence",
    start=_START,
    result=_RESULT,
    location=lambda path, number: f"{path.removesuffix(':analyze')}/analyzeResults/{number}",
    check=_check,
    analyse=_analyse,
    running=lambda _, times, __: _progress("running", times),
    succeeded=lambda _, times, __, result: {**_progress("succeeded", times), "analyzeResult": result},
    failed=lambda _, times, __: {**_progress("failed", times), "error": error_of(*FAILED)},
)
