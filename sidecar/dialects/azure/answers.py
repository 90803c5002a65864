"""
The JSON answers of Azure's AI services.

The rule: such an answer is whole if it decodes to the documented form and has one result for each thing that was asked
about. What it does not say of its price, the request does (``Facts.charged``). Forms as in Azure's REST reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, Completeness
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form, Usage
from sidecar.dialects.plain import NULL, begins, document, failure_of, is_null, is_utf8, sound

T = TypeVar("T")


class Said(Struct, gc=False):
    """What each of these answers may have: an error in place of all else."""

    error: Raw = NULL


def shaped(
    kind: type[T],
    judge: Callable[[T, Facts], Completeness],
    *,
    usage: Callable[[T], Usage] = lambda _: Usage(),
    model: Callable[[T], str] = lambda _: "",
    finish: Callable[[T], str] = lambda _: "",
) -> Answers:
    """Answers that decode to *kind*, of which *judge* tells whether they are what was asked for."""
    decode = msgspec.json.Decoder(kind).decode

    def found(body: bytes, form: Form) -> T | None:
        try:
            return decode(body) if form is Form.WHOLE else None
        except UNREADABLE:
            return None

    def complete(body: bytes, form: Form, facts: Facts, _media: str = "") -> Completeness:
        if form is not Form.WHOLE:
            return Completeness.UNREADABLE
        answer = found(body, form)
        if answer is None:
            return failure_of(body)
        if isinstance(answer, Said) and not is_null(answer.error):
            return Completeness.FAILED
        return judge(answer, facts) if is_utf8(body) else Completeness.UNREADABLE

    def read(body: bytes, form: Form) -> Usage:
        answer = found(body, form)
        return Usage() if answer is None else usage(answer)

    def named(body: bytes, form: Form) -> str:
        answer = found(body, form)
        return "" if answer is None else model(answer)

    def ended(body: bytes, form: Form) -> str:
        answer = found(body, form)
        return "" if answer is None else finish(answer)

    return replace(document(complete), usage=read, model=named, finish=ended, documents=True)


def has(holds: bool) -> Completeness:  # noqa: FBT001  the one thing it is about
    """Whole if the answer *holds* what was asked for."""
    return Completeness.WHOLE if holds else Completeness.MISSHAPEN


def is_number_of(count: int, facts: Facts) -> bool:
    """Whether there are as many results as were asked for; at least one where that is not known."""
    return count == facts.expects if facts.expects else count > 0


def is_object(member: Raw) -> bool:
    """Whether a member is an object."""
    return begins(member, b"{")


def is_list(member: Raw) -> bool:
    """Whether a member is a list."""
    return begins(member, b"[")


def _media(kind: str) -> Callable[[bytes, Form, Facts, str], Completeness]:
    def complete(body: bytes, form: Form, _facts: Facts, media: str) -> Completeness:
        if form is not Form.WHOLE:
            return Completeness.UNREADABLE
        if not body:
            return Completeness.TRUNCATED
        return Completeness.WHOLE if media.startswith(kind) else failure_of(body)

    return complete


IMAGE: Final = sound(_media("image/"))
"""A picture, by its type."""


def _anything(_answer: Raw, _facts: Facts) -> Completeness:
    return Completeness.WHOLE


LISTING: Final = shaped(Raw, _anything)
"""What a service offers: any JSON."""
