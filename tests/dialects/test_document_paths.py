"""Each dialect says at which paths its calls take documents, so that settings can find routes that may keep them."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from sidecar.core.dialect import Kind
from sidecar.dialects import DIALECTS

PATHS = (
    "/documentintelligence/documentModels/prebuilt-read:analyze",
    "/documentintelligence/documentClassifiers/mine:analyze",
    "/formrecognizer/documentModels/prebuilt-invoice:analyze",
    "/contentunderstanding/analyzers/prebuilt-documentSearch:analyze",
    "/contentunderstanding/analyzers/prebuilt-documentSearch:analyzeBinary",
    "/vision/v3.2/read/analyze",
    "/vision/v3.2/analyze",
    "/vision/v3.2/ocr",
    "/vision/v3.2/describe",
    "/vision/v3.2/tag",
    "/vision/v3.2/detect",
    "/vision/v3.2/models/landmarks/analyze",
    "/computervision/imageanalysis:analyze",
    "/v1/chat/completions",
    "/v1/ocr",
    "/text/analytics/v3.1/languages",
)


def reads(name: str, path: str) -> bool:
    """Whether a call to *path* takes a document."""
    endpoint = DIALECTS[name].locate(b"POST", path)
    return endpoint is not None and endpoint.kind is Kind.OCR


@pytest.mark.parametrize("name", DIALECTS)
def test_no_path_is_missing(name):
    """Where a call takes a document, one of the patterns matches; a dialect without such calls has no pattern."""
    found = [path for path in PATHS if reads(name, path)]

    assert bool(found) == bool(DIALECTS[name].document_paths)
    assert [] == [path for path in found if not any(fnmatchcase(path, each) for each in DIALECTS[name].document_paths)]
