"""Operations as tests have them."""

from __future__ import annotations

from msgspec import structs

from sidecar.core.cache.policy import Freshness
from sidecar.core.key.fingerprint import key_of_id
from sidecar.core.model import Position
from sidecar.core.request.operation import OperationOrigin, Started
from sidecar.core.rules import Share

PATH = "/documentintelligence/documentModels/prebuilt-layout:analyze"
QUERY = b"pages=1&api-version=2024-11-30"
RESULTS = b"/documentintelligence/documentModels/prebuilt-layout/analyzeResults/"
AT = RESULTS + b"7f?api-version=2024-11-30"

STARTED = Started(
    id="7f",
    key=key_of_id("a document"),
    partition=b"p" * 16,
    owner=b"o" * 16,
    share=Share("header", "x-team"),
    service="documents",
    resource="contoso",
    path=PATH,
    query=QUERY,
    route="invoices",
    model="prebuilt-layout",
    origin=OperationOrigin("weu", "7f", AT),
    at=1_000.0,
    fresh=Freshness(3600.0, 60.0, 30.0),
    tags=("ocr",),
    position=Position(b"i" * 16, 7),
)


def started(id_: str) -> Started:
    """The same under another id."""
    return structs.replace(STARTED, id=id_)
