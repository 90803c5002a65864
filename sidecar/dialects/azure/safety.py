"""
The dialect of Azure's Content Safety.

The rule: what is judged by a list or category that can be changed under its name is not looked up, or only where the
route says so. Source: REST reference of Content Safety 2024-09-01 and its previews.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from msgspec import Raw

from sidecar.core.dialect import BodyForm, Completeness, Dialect, Documents, Endpoint, Kind, Members
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure.ai_services import CONTENT_TYPE, CUSTOM_MODEL, STATEFUL, dialect, inner, records
from sidecar.dialects.azure.answers import Said, has, is_list, is_object, shaped
from sidecar.dialects.azure.query import canonical
from sidecar.dialects.plain import NULL


class _Severities(Said, gc=False, rename="camel"):
    categories_analysis: list[Raw] = []  # noqa: RUF012  a default of msgspec is copied


class _Shields(Said, gc=False, rename="camel"):
    user_prompt_analysis: Raw = NULL
    documents_analysis: Raw = NULL


class _Material(Said, gc=False, rename="camel"):
    protected_material_analysis: Raw = NULL


class _Groundedness(Said, gc=False, rename="camel", kw_only=True):
    ungrounded_detected: bool


class _CustomCategory(Said, gc=False, rename="camel"):
    custom_category_analysis: Raw = NULL


def _analysed(found: _Severities, _facts: Facts) -> Completeness:
    return has(bool(found.categories_analysis))


def _shielded(found: _Shields, _facts: Facts) -> Completeness:
    return has(is_object(found.user_prompt_analysis) or is_list(found.documents_analysis))


def _compared(found: _Material, _facts: Facts) -> Completeness:
    return has(is_object(found.protected_material_analysis))


def _grounded(_found: _Groundedness, _facts: Facts) -> Completeness:
    return Completeness.WHOLE


def _custom(found: _CustomCategory, _facts: Facts) -> Completeness:
    return has(is_object(found.custom_category_analysis))


def _text(members: Members) -> Facts:
    """A text record is charged for each begun thousand of characters. Lists can be changed under their names."""
    given = [members.get(name) for name in ("text", "code", "userPrompt", "query")]
    documents = members.get("documents")
    given += documents if isinstance(documents, list) else []
    charged = Usage(records=records([text for text in given if isinstance(text, str)]))
    if members.get("blocklistNames"):
        return Facts(bypass="blocklist")
    return Facts(deterministic=True, charged=charged)


def _grounding(members: Members) -> Facts:
    """A model of one's own may be named, to give the reasons."""
    facts = _text(members)
    if facts.bypass:
        return facts
    own = members.get("reasoning") or inner(members.get("llmResource"))
    return Facts(deterministic=True, needs=(CUSTOM_MODEL,) if own else (), charged=facts.charged)


def _category(members: Members) -> Facts:
    return Facts(deterministic=True, needs=(CUSTOM_MODEL,), charged=_text(members).charged)


def _image(members: Members) -> Facts:
    if members.get("blocklistNames"):
        return Facts(bypass="blocklist")
    return Facts(deterministic=True, charged=Usage(images=1))


_TEXT: Final = Endpoint(
    "analyze-text",
    Kind.MODERATION,
    BodyForm.JSON,
    _text,
    shaped(_Severities, _analysed),
    generating=False,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)

_MATERIAL = replace(_TEXT, name="protected-material", answers=shaped(_Material, _compared))

_OPERATIONS: Final = {
    "/contentsafety/text:analyze": _TEXT,
    "/contentsafety/image:analyze": replace(
        _TEXT,
        name="analyze-image",
        body=BodyForm.DOCUMENT,
        read=_image,
        documents=Documents(frozenset({"content"}), frozenset({"blobUrl"}), frozenset({"image"})),
    ),
    "/contentsafety/text:shieldPrompt": replace(_TEXT, name="shield-prompt", answers=shaped(_Shields, _shielded)),
    "/contentsafety/text:detectProtectedMaterial": _MATERIAL,
    "/contentsafety/text:detectProtectedMaterialForCode": _MATERIAL,
    "/contentsafety/text:detectGroundedness": replace(
        _TEXT, name="groundedness", read=_grounding, answers=shaped(_Groundedness, _grounded)
    ),
    "/contentsafety/text:analyzeCustomCategory": replace(
        _TEXT, name="custom-category", read=_category, answers=shaped(_CustomCategory, _custom)
    ),
}


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if method == b"POST" and (known := _OPERATIONS.get(path)) is not None:
        return known
    return STATEFUL if method == b"DELETE" or path.startswith("/contentsafety/") else None


AZURE_SAFETY: Final[Dialect] = dialect("azure-safety", locate, words=("SAFETY",))
