"""
Operations of Azure's Vision service that look at an image: Image Analysis 4.0 and 3.2, and vectors of images.

The rule: an image is its bytes in any form; by its URL it is cached only where the route says so. Source: REST
reference of Image Analysis 2023-10-01 and Computer Vision 3.2.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from msgspec import Raw, structs

from sidecar.core.dialect import BodyForm, Completeness, Documents, Endpoint, Kind, Members
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure.ai_services import (
    CONTENT_TYPE,
    CUSTOM_MODEL,
    OFFERS,
    STATEFUL,
    charging,
    needing,
)
from sidecar.dialects.azure.answers import IMAGE, Said, has, is_number_of, is_object, shaped
from sidecar.dialects.azure.query import canonical, items, values
from sidecar.dialects.plain import NULL

IMAGES: Final = Documents(embedded=frozenset(), linked=frozenset({"url"}))
"""How a JSON body names an image."""


class _FeatureResults(Said, gc=False, rename="camel"):
    metadata: Raw = NULL
    model_version: str = ""
    caption_result: Raw = NULL
    dense_captions_result: Raw = NULL
    read_result: Raw = NULL
    tags_result: Raw = NULL
    objects_result: Raw = NULL
    people_result: Raw = NULL
    smart_crops_result: Raw = NULL


class _Metadata(Said, gc=False, rename="camel"):
    metadata: Raw = NULL
    regions: Raw = NULL
    model_version: str = ""


class _ImageVector(Said, gc=False, rename="camel"):
    vector: list[float] = []  # noqa: RUF012  a default of msgspec is copied
    model_version: str = ""


def _analysis(found: _FeatureResults, facts: Facts) -> Completeness:
    """A result for each feature that was asked for."""
    results = [
        found.caption_result, found.dense_captions_result, found.read_result, found.tags_result, found.objects_result,
        found.people_result, found.smart_crops_result,
    ]  # fmt: skip
    return has(is_object(found.metadata) and is_number_of(sum(map(is_object, results)), facts))


def _described(found: _Metadata, _facts: Facts) -> Completeness:
    return has(is_object(found.metadata) or bytes(found.regions)[:1] == b"[")


def _vector(found: _ImageVector, _facts: Facts) -> Completeness:
    return has(bool(found.vector))


def _image(_members: Members) -> Facts:
    return Facts(deterministic=True, charged=Usage(images=1))


def _text(_members: Members) -> Facts:
    return Facts(deterministic=True, charged=Usage(records=1))


def _by_features(endpoint: Endpoint, query: bytes) -> Endpoint:
    """Each feature is charged for, and is answered; a model of one's own can be trained again."""
    asked = len({feature.strip().lower() for feature in items(query, "features")})
    own = values(query, "model-name")
    found = charging(endpoint, Usage(images=asked + bool(own) or 1))

    def read(members: Members) -> Facts:
        return structs.replace(found.read(members), expects=0 if own else asked)

    return needing(replace(found, read=read), *([CUSTOM_MODEL] if own else []))


def _by_visual_features(endpoint: Endpoint, query: bytes) -> Endpoint:
    asked = {feature.strip().lower() for name in ("visualfeatures", "details") for feature in items(query, name)}
    return charging(endpoint, Usage(images=len(asked) or 1))


_ANALYZE: Final = Endpoint(
    "image-analysis",
    Kind.OCR,
    BodyForm.DOCUMENT,
    _image,
    shaped(_FeatureResults, _analysis, model=lambda found: found.model_version),
    documents=IMAGES,
    generating=False,
    query=canonical("features"),
    uncounted=CONTENT_TYPE,
    by_query=_by_features,
)

_DESCRIBED: Final = replace(
    _ANALYZE,
    answers=shaped(_Metadata, _described, model=lambda found: found.model_version),
    query=canonical("visualFeatures", "details", "descriptionExclude"),
    by_query=_by_visual_features,
)

_PICTURE: Final = replace(_ANALYZE, answers=IMAGE, query=canonical(), by_query=None)

_VECTORS = shaped(_ImageVector, _vector, model=lambda found: found.model_version)

_VECTOR_OF_IMAGE: Final = replace(
    _ANALYZE, name="vectors", kind=Kind.EMBEDDINGS, answers=_VECTORS, query=canonical(), by_query=None
)

_VECTOR_OF_TEXT: Final = replace(_VECTOR_OF_IMAGE, body=BodyForm.JSON, read=_text, documents=None)

_OPERATIONS: Final = {
    "/computervision/imageanalysis:analyze": _ANALYZE,
    "/computervision/imageanalysis:segment": _PICTURE,
    "/computervision/retrieval:vectorizeImage": _VECTOR_OF_IMAGE,
    "/computervision/retrieval:vectorizeText": _VECTOR_OF_TEXT,
    "/vision/v3.2/analyze": _DESCRIBED,
    "/vision/v3.2/areaOfInterest": _DESCRIBED,
    "/vision/v3.2/describe": _DESCRIBED,
    "/vision/v3.2/detect": _DESCRIBED,
    "/vision/v3.2/ocr": _DESCRIBED,
    "/vision/v3.2/tag": _DESCRIBED,
    "/vision/v3.2/generateThumbnail": _PICTURE,
}

_OF_A_DOMAIN: Final = re.compile(r"/vision/v3\.2/models/(?:celebrities|landmarks)/analyze", re.ASCII)

_KEPT: Final = ("/computervision/", "/customvision/", "/vision/v3.2/read/")
"""Below these lies what the service keeps: models of one's own, data sets, indexes, results of operations."""


def find(method: bytes, path: str) -> Endpoint | None:
    """The operation that looks at an image, None where these tables do not know it."""
    if method == b"POST":
        if (known := _OPERATIONS.get(path)) is not None:
            return known
        if _OF_A_DOMAIN.fullmatch(path):
            return _DESCRIBED
    if method == b"GET" and path == "/vision/v3.2/models":
        return OFFERS
    return STATEFUL if method == b"DELETE" or path.startswith(_KEPT) else None
