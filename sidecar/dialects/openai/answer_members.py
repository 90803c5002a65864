"""
A completion as it is read: the members by which an answer is judged, whole or in chunks.

The rule: an answer is decoded once. What is asked of it (is it whole, what did it cost, which model gave it) is found
in what was read then.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import events
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Form, Usage
from sidecar.dialects.openai import choice_content
from sidecar.dialects.plain import NULL, ErrorMembers, denies, is_null, tokens

DONE: Final = b"[DONE]"


class Choice(Struct, gc=False):
    """A choice, whole or in pieces; *message*, *delta* and *text* are what endpoints call what it says."""

    index: int = 0
    finish_reason: str | None = None
    message: Raw = NULL
    delta: Raw = NULL
    text: Raw = NULL
    error: Raw = NULL


class Completion(ErrorMembers, gc=False):
    """The members needed for judging, of a whole answer or a chunk."""

    object: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Raw | UnsetType = UNSET


ANSWER: Final = msgspec.json.Decoder(Completion)


class CompletionParts(Struct, gc=False):
    """
    An answer as far as it can be read: itself, or its chunks. The first *end* of these came before the stream's end;
    *wrong* is what is wrong with it as a whole, None where nothing is.
    """

    answers: list[Completion]
    end: int
    wrong: Completeness | None


def read(body: bytes, form: Form) -> CompletionParts:
    """Read an answer; what cannot be read is told in the parts."""
    if form is Form.EVENTS:
        return _read_stream(body)
    try:
        answer = ANSWER.decode(body)
        wrong = Completeness.FAILED if denies(answer) else None
    except UNREADABLE:
        return CompletionParts([], 0, Completeness.UNREADABLE)
    return CompletionParts([answer], 1, wrong)


def _read_stream(body: bytes) -> CompletionParts:
    answers: list[Completion] = []
    end: int | None = None
    wrong: Completeness | None = None
    for event in events(body):
        data = event.data
        if data.startswith(DONE):
            end = len(answers) if end is None else end
            continue
        if event.name == "error" and end is None:
            wrong = wrong or Completeness.FAILED
        if not data:
            continue
        try:
            answer = ANSWER.decode(data)
            plain = answer.error is answer.base_resp is answer.success is answer.status is NULL  # as almost all are
            if end is None and not plain and denies(answer):
                wrong = wrong or Completeness.FAILED
        except UNREADABLE:
            if end is None:
                wrong = wrong or Completeness.UNREADABLE
            continue
        answers.append(answer)
    if end is None:
        return CompletionParts(answers, len(answers), wrong or Completeness.TRUNCATED)
    return CompletionParts(answers, end, wrong)


def usage_member(parts: CompletionParts) -> Raw | None:
    """The usage that was told last."""
    for answer in reversed(parts.answers):
        if answer.usage is not UNSET and not is_null(answer.usage):
            return answer.usage
    return None


def usage_in(parts: CompletionParts) -> Usage:
    """The token counts, ``Usage()`` where there are none."""
    member = usage_member(parts)
    return Usage() if member is None else tokens(member)


def model_in(parts: CompletionParts) -> str:
    """The model that was named last."""
    for answer in reversed(parts.answers):
        if answer.model:
            return answer.model
    return ""


def speaks(pieces: list[Choice]) -> int:
    """What a choice of a chat says, whole or in pieces."""
    said = choice_content.of_deltas([piece.delta for piece in pieces])
    for piece in pieces:
        if piece.message is not NULL:  # what is absent is that very value
            said |= choice_content.of_message(piece.message)
    return said


def reads(pieces: list[Choice]) -> int:
    """What a choice of the older completions says, whole or in pieces."""
    said = 0
    for piece in pieces:
        said |= choice_content.of_text(piece.text)
    return said
