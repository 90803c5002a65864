"""
Computed answers: embeddings, moderations, counts of tokens, and lists of models.

The rule: such an answer is whole if it has what was asked for, once for each input. A document of another form is not
whole, even if it can be read. Forms as in the OpenAPI descriptions of OpenAI and of Anthropic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from sidecar.core.dialect import Answers, Completeness
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form
from sidecar.dialects.plain import NULL, ErrorMembers, begins, denies, document, failure_of, is_utf8

_VECTOR: Final = re.compile(rb'\[[ \t\r\n]*+-?[0-9][-+.0-9eE, \t\r\n]*+\]|"(?:[A-Za-z0-9+/_-]|\\/)++=*+"')
"""
A list of numbers, or the base64 of their bytes; neither is empty. The parser has checked the JSON of it, so that it is
not read into millions of numbers for this.
"""

_ANY: Final = Facts()


class _Said(ErrorMembers):
    """What any of these answers may have: an error in place of all else."""


class _Vector(Struct, gc=False):
    embedding: Raw = NULL
    index: int = 0


class _Vectors(_Said, kw_only=True):
    data: list[_Vector]


class _Result(Struct, gc=False):
    flagged: bool | None = None
    categories: Raw = NULL


class _Results(_Said, kw_only=True):
    results: list[_Result]


class _Model(_Said, kw_only=True):
    id: Annotated[str, Meta(min_length=1)]


class _Models(_Said, kw_only=True):
    data: list[_Model]


class _Count(_Said, kw_only=True):
    input_tokens: Annotated[int, Meta(ge=0)]


_T = TypeVar("_T", bound=_Said)


def _shaped(kind: type[_T], holds: Callable[[_T, Facts], bool]) -> Answers:
    """Answers that decode to *kind*, and of which *holds* tells whether that is what was asked for."""
    decode = msgspec.json.Decoder(kind).decode

    def complete(body: bytes, form: Form, facts: Facts = _ANY, _media: str = "") -> Completeness:
        if form is not Form.WHOLE:
            return Completeness.UNREADABLE
        try:
            found = decode(body)
        except UNREADABLE:
            return failure_of(body)
        if denies(found):
            return Completeness.FAILED
        if not is_utf8(body):
            return Completeness.UNREADABLE
        return Completeness.WHOLE if holds(found, facts) else Completeness.MISSHAPEN

    return replace(document(complete), documents=True)


def _vectors(found: _Vectors, facts: Facts) -> bool:
    """One vector for each input, numbered from 0."""
    count = len(found.data)
    return (
        _is_number_of(count, facts)
        and {vector.index for vector in found.data} == set(range(count))
        and all(_VECTOR.fullmatch(vector.embedding) is not None for vector in found.data)
    )


def _results(found: _Results, facts: Facts) -> bool:
    """One judgement for each input."""
    judged = (one.flagged is not None or begins(one.categories, b"{") for one in found.results)
    return _is_number_of(len(found.results), facts) and all(judged)


def _models(found: _Models, _facts: Facts) -> bool:
    """At least one model: a service that has not loaded its models yet answers an empty list."""
    return bool(found.data)


def _anything(_found: _Said, _facts: Facts) -> bool:
    """An answer that decodes is whole."""
    return True


def _is_number_of(count: int, facts: Facts) -> bool:
    return count == facts.expects if facts.expects else count > 0


EMBEDDINGS: Final = _shaped(_Vectors, _vectors)

MODERATIONS: Final = _shaped(_Results, _results)

MODELS: Final = _shaped(_Models, _models)

MODEL: Final = _shaped(_Model, _anything)

COUNT: Final = _shaped(_Count, _anything)
