"""
Answers that have one form only: JSON documents, text, and bytes that nobody here reads.

The rule: such an answer is shown as it came or not at all. A stream of events is never complete here: what ends it
is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, Completeness, Narrow, Watch
from sidecar.core.json_rule import UNREADABLE
from sidecar.core.model import Form, Usage, View

NULL: Final = Raw(b"null")
"""A member that is absent or null."""


class _Details(Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Tokens(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Document(Struct, gc=False):
    model: Raw = NULL
    usage: Raw = NULL
    error: Raw = NULL


_TOKENS: Final = msgspec.json.Decoder(_Tokens)
_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_NAME: Final = msgspec.json.Decoder(str)


def is_null(member: Raw) -> bool:
    """Whether a member is absent or null."""
    return bytes(member) == b"null"


def tokens(member: Raw) -> Usage:
    """
    The token counts of a ``usage`` member as OpenAI writes it, in either generation of names.

    ``Usage()`` where it counts something else (a transcription's ``duration``) or cannot be read.
    """
    try:
        counts = _TOKENS.decode(member)
    except UNREADABLE:
        return Usage()
    prompt = counts.prompt_tokens_details or counts.input_tokens_details or _Details()
    completion = counts.completion_tokens_details or counts.output_tokens_details or _Details()
    return Usage(
        prompt=counts.prompt_tokens or counts.input_tokens or 0,
        completion=counts.completion_tokens or counts.output_tokens or 0,
        cached=prompt.cached_tokens or 0,
        reasoning=completion.reasoning_tokens or 0,
    )


class OpaqueWatch:
    """The ``Watch`` of a body that nobody reads: committed by its first byte, ended whenever it ends cleanly."""

    __slots__ = ("boundary", "committed", "ended", "failed")

    def __init__(self) -> None:
        self.committed = False
        self.ended = True
        self.failed = False
        self.boundary = True

    def __repr__(self) -> str:
        return f"<OpaqueWatch{' committed' * self.committed}>"

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the body."""
        self.committed |= bool(chunk)

    def close(self) -> None:
        """Nothing more: where such a body ends is no question of its events."""


def _read(body: bytes) -> _Document | None:
    try:
        return _DOCUMENT.decode(body)
    except UNREADABLE:
        return None


def _complete_json(body: bytes, form: Form) -> Completeness:
    document = _read(body) if form is Form.WHOLE else None
    if document is None:
        return Completeness.UNREADABLE
    return Completeness.WHOLE if is_null(document.error) else Completeness.FAILED


def _complete_bytes(body: bytes, form: Form) -> Completeness:
    if form is not Form.WHOLE:
        return Completeness.UNREADABLE
    return Completeness.WHOLE if body else Completeness.TRUNCATED


def _complete_either(body: bytes, form: Form) -> Completeness:
    judge = _complete_json if body.lstrip()[:1] == b"{" else _complete_bytes
    return judge(body, form)


def _usage(body: bytes, form: Form) -> Usage:
    document = _read(body) if form is Form.WHOLE else None
    return tokens(document.usage) if document else Usage()


def _model(body: bytes, form: Form) -> str:
    document = _read(body) if form is Form.WHOLE else None
    try:
        return _NAME.decode(document.model) if document else ""
    except UNREADABLE:
        return ""


def _no_usage(_body: bytes, _form: Form) -> Usage:
    return Usage()


def _no_model(_body: bytes, _form: Form) -> str:
    return ""


def _as_it_came(body: bytes, form: Form, view: View) -> bytes | None:
    return body if view.stream == (form is Form.EVENTS) else None


def _watch() -> Watch:
    return OpaqueWatch()


def _unchanged(_view: View) -> Narrow | None:
    return None


def _answers(
    complete: Callable[[bytes, Form], Completeness],
    usage: Callable[[bytes, Form], Usage] = _usage,
    model: Callable[[bytes, Form], str] = _model,
) -> Answers:
    return Answers(
        complete=complete, usage=usage, model=model, convert=_as_it_came, watch=_watch, narrow=_unchanged, streams=False
    )


WHOLE_JSON: Final = _answers(_complete_json)
"""A JSON object, with ``model`` and ``usage`` in it where OpenAI puts them: embeddings, moderations, model lists."""

TEXT_OR_JSON: Final = _answers(_complete_either)
"""As ``WHOLE_JSON``, or text that is not empty: transcriptions, whose form the caller chooses."""

OPAQUE: Final = _answers(_complete_bytes, _no_usage, _no_model)
"""Any bytes, but not none: sound, images, what an unknown endpoint says."""
