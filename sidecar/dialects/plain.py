"""
Answers with one form only, the common parts of reading them, and bytes that are not read at all.

The rule: such an answer is delivered as it came or not at all. A stream of events is never complete here, because its
last event is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, Completeness, Narrow, Watch
from sidecar.core.key.json_rule import BLANKS, UNREADABLE
from sidecar.core.model import Facts, Form, Usage, View

NULL: Final = Raw(b"null")
"""A member that is absent or null."""


class _TokenDetails(Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Tokens(Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None
    completion_tokens_details: _TokenDetails | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    input_tokens_details: _TokenDetails | None = None
    output_tokens_details: _TokenDetails | None = None


class _Errors(Struct, gc=False):
    errors: Raw = NULL


class _Document(_Errors, gc=False):
    model: Raw = NULL
    usage: Raw = NULL
    error: Raw = NULL


class ErrorMembers(Struct, gc=False):
    """
    Members by which services report a failure beside an answer: ``error``; MiniMax's ``base_resp``; and ``success`` and
    ``status``, of gateways with an envelope of their own.
    """

    error: Raw = NULL
    base_resp: Raw = NULL
    success: Raw = NULL
    status: Raw = NULL


class _Base(Struct, gc=False):
    status_code: Raw = NULL


_TOKENS: Final = msgspec.json.Decoder(_Tokens)
_DOCUMENT: Final = msgspec.json.Decoder(_Document)
_BATCH: Final = msgspec.json.Decoder(list[_Errors])
_BASE: Final = msgspec.json.Decoder(_Base)
_FAILURES: Final = frozenset({b'"failed"', b'"failure"', b'"error"'})
_NAME: Final = msgspec.json.Decoder(str)


def is_null(member: Raw) -> bool:
    """Whether a member is absent or null."""
    return bytes(member) == b"null"


def begins(member: Raw, byte: bytes) -> bool:
    """Whether a member's text begins with *byte*, by which its type is known."""
    return bytes(memoryview(member)[:1]) == byte


def denies(said: ErrorMembers) -> bool:
    """Whether an answer says that it failed."""
    if said.error is NULL and said.base_resp is NULL and said.success is NULL and said.status is NULL:
        return False  # as almost every answer: what is absent is that very value
    if not is_null(said.error) or bytes(said.success) == b"false" or bytes(said.status).lower() in _FAILURES:
        return True
    return begins(said.base_resp, b"{") and bytes(_BASE.decode(said.base_resp).status_code) not in {b"0", b"null"}


def is_utf8(body: bytes) -> bool:
    """Whether a body can be read as text: JSON and streams of events are UTF-8 and nothing else."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def says_json(media: str) -> bool:
    """Whether a media type is that of one JSON document (RFC 8259, RFC 6839)."""
    return media == "application/json" or media.endswith("+json")


def tokens(member: Raw) -> Usage:
    """
    The token counts of a ``usage`` member as OpenAI writes it, in either generation of names.

    A transcription may count the seconds of its sound instead. ``Usage()`` where it cannot be read.
    """
    try:
        counts = _TOKENS.decode(member)
    except UNREADABLE:
        return Usage()
    prompt = counts.prompt_tokens_details or counts.input_tokens_details or _TokenDetails()
    completion = counts.completion_tokens_details or counts.output_tokens_details or _TokenDetails()
    return Usage(
        prompt=counts.prompt_tokens or counts.input_tokens or 0,
        completion=counts.completion_tokens or counts.output_tokens or 0,
        cached=prompt.cached_tokens or 0,
        reasoning=completion.reasoning_tokens or 0,
        seconds=max(ceil(counts.seconds or 0), 0),
    )


class OpaqueWatch:
    """The ``Watch`` of a body that nobody reads: committed by its first byte, and ended by any clean end."""

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
        """Nothing to do: the end of such a body does not depend on events."""


def _read(body: bytes) -> _Document | None:
    try:
        return _DOCUMENT.decode(body)
    except UNREADABLE:
        return None


def failure_of(body: bytes) -> Completeness:
    """What an answer of another form is: an error in its own words, or something else."""
    document = _read(body)
    if document is not None:
        return Completeness.MISSHAPEN if is_null(document.error) else Completeness.FAILED
    broken = body.lstrip()[:1] in {b"{", b"["} and not _is_json(body)
    return Completeness.UNREADABLE if broken else Completeness.MISSHAPEN


def _complete_bytes(body: bytes, form: Form, _facts: Facts, media: str) -> Completeness:
    """
    Bytes are whole if their framing is. JSON, by its type or its first byte, is whole only if it can be read to its
    end, and reports nothing in ``error`` or ``errors``.
    """
    if form is not Form.WHOLE:
        return Completeness.UNREADABLE
    if not body:
        return Completeness.TRUNCATED
    if media.removeprefix("application/") == "json-seq" or media.endswith("+json-seq"):
        return Completeness.WHOLE if _is_sequence(body) else Completeness.UNREADABLE
    if not says_json(media) and body.lstrip()[:1] not in {b"{", b"["}:
        return Completeness.WHOLE
    if not (_is_json(body) and is_utf8(body)):
        return Completeness.UNREADABLE
    document = _read(body)
    failed = _is_failed_batch(body) if document is None else _says(document.error) or _lists(document.errors)
    return Completeness.FAILED if failed else Completeness.WHOLE


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=Raw)
    except UNREADABLE:
        return False
    return True


def _is_sequence(body: bytes) -> bool:
    """
    Whether each text of a JSON text sequence can be read. One whose end does not show, a number say, is whole only
    with the line feed behind it (RFC 7464, 2.4).
    """
    first, *texts = body.split(b"\x1e")
    return (
        not first.strip()
        and is_utf8(body)
        and all(_is_json(text) and (text[-1:].isspace() or text.lstrip()[:1] in {b"{", b"[", b'"'}) for text in texts)
    )


def _says(error: Raw) -> bool:
    """Whether a member reports a failure: services also write ``false``, ``0`` or ``""`` there."""
    if begins(error, b"{") or begins(error, b"["):
        return not _is_empty(error)
    try:
        return bool(msgspec.json.decode(error))
    except UNREADABLE:  # a number that is out of range
        return True


def _lists(errors: Raw) -> bool:
    """
    Whether a member tells what went wrong: a list of errors (GraphQL, "Response format"), or an object of them by
    field. A number or a boolean there counts failures among other things that the answer holds.
    """
    return (begins(errors, b"[") or begins(errors, b"{")) and not _is_empty(errors)


def _is_empty(container: Raw) -> bool:
    return not bytes(container)[1:-1].strip(BLANKS)


def _is_failed_batch(body: bytes) -> bool:
    """Whether a list of GraphQL answers has one in it that has failed."""
    try:
        return any(_lists(answer.errors) for answer in _BATCH.decode(body))
    except UNREADABLE:
        return False


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


def document(complete: Callable[[bytes, Form, Facts, str], Completeness]) -> Answers:
    """The answers of an endpoint that *complete* judges, with ``model`` and ``usage`` where OpenAI puts them."""
    return Answers(
        complete=complete,
        usage=_usage,
        model=_model,
        convert=_as_it_came,
        watch=_watch,
        narrow=_unchanged,
    )


def sound(complete: Callable[[bytes, Form, Facts, str], Completeness]) -> Answers:
    """As ``document``, for answers of which nothing is read."""
    return replace(document(complete), usage=_no_usage, model=_no_model)


OPAQUE: Final = sound(_complete_bytes)
"""Any bytes, but at least one: images, and answers of unknown endpoints."""
