"""
Vision Read 3.2; there is no recording of it.

The rule: its documented members, and no others.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.demo.canned import Json
from sidecar.demo.documents.intelligence import HEIGHT, WIDTH, box_of
from sidecar.demo.documents.pages import PageLine, ReadPage, read_document
from sidecar.demo.documents.refusals import bad_parameter, error_of
from sidecar.demo.documents.service import (
    FAILED,
    ID,
    Analysis,
    AnalysisAsk,
    AnalysisTimes,
    DocumentService,
    check_one_of,
)


def _check(ask: AnalysisAsk) -> None:
    check_one_of(ask, "readingOrder", frozenset({"basic", "natural"}))


def _analyse(data: bytes, ask: AnalysisAsk) -> Analysis:
    try:
        document = read_document(data, ask.query.get("pages", ""))
    except ValueError:
        raise bad_parameter("pages", "The page range is invalid.") from None
    version = ask.query.get("model-version", "latest")
    result: Json = {
        "version": "3.2.0",
        "modelVersion": "2022-04-30" if version == "latest" else version,
        "readResults": [_page(page) for page in document.pages],
    }
    return Analysis(result, len(document.pages), "vision-read")


def _page(page: ReadPage) -> Json:
    lines = [_line(line, row) for row, line in enumerate(page.lines)]
    return {"page": page.number, "angle": 0, "width": WIDTH, "height": HEIGHT, "unit": "inch", "lines": lines}


def _line(line: PageLine, row: int) -> Json:
    words = [
        {
            "boundingBox": box_of(line, row, word.offset - line.offset, len(word.text)),
            "text": word.text,
            "confidence": 0.995,
        }
        for word in line.words
    ]
    return {"boundingBox": box_of(line, row), "text": line.text, "words": words}


def _progress(status: str, times: AnalysisTimes) -> Json:
    return {"status": status, "createdDateTime": times.created, "lastUpdatedDateTime": times.updated}


_START: Final = re.compile(r"/vision/v3\.2/read/analyze(?P<model>)", re.IGNORECASE)
_RESULT: Final = re.compile(rf"/vision/v3\.2/read/analyzeResults/(?P<id>{ID})(?P<part>)", re.IGNORECASE)

VISION_READ: Final = DocumentService(
    name="vision-read",
    start=_START,
    result=_RESULT,
    location=lambda path, number: f"{path}Results/{number}",
    check=_check,
    analyse=_analyse,
    running=lambda _, times, __: _progress("running", times),
    succeeded=lambda _, times, __, result: {**_progress("succeeded", times), "analyzeResult": result},
    failed=lambda _, times, __: {**_progress("failed", times), "error": error_of(*FAILED)},
    versioned=False,
    deletes=False,
)
