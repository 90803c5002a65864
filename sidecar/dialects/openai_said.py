"""
What a choice of an answer says: words, a call of a tool, or what no answer of this API is.

The rule: a choice is an answer only by a member that the API, or a service that speaks it, documents for that. An
empty text is an answer; a message that has none is not.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.dialects.plain import NULL, begins, is_null


class Said:
    """
    What a choice, or a piece of one, says: bits. ODD stands beside the others: a member has a type that none documents.
    """

    NOTHING: Final = 0
    WORDS: Final = 1
    CALL: Final = 2
    ODD: Final = 4


class _Message(Struct, gc=False):
    """
    A message, or a delta. Beside OpenAI's members: how services show what a model thought (``reasoning`` and its kind;
    ``thinking_blocks`` of LiteLLM), and the ``images`` of OpenRouter.
    """

    role: Raw = NULL
    content: Raw = NULL
    tool_calls: Raw = NULL
    function_call: Raw = NULL
    refusal: Raw = NULL
    audio: Raw = NULL
    images: Raw = NULL
    reasoning: Raw = NULL
    reasoning_content: Raw = NULL
    reasoning_details: Raw = NULL
    thinking_blocks: Raw = NULL


_MESSAGE: Final = msgspec.json.Decoder(_Message)

_EMPTY: Final = frozenset({b"null", b'""', b"[]", b"{}", b"false"})


def of_message(message: Raw) -> int:
    """What a whole message says."""
    if not begins(message, b"{"):
        return Said.NOTHING
    return _of(_MESSAGE.decode(message))


def of_delta(delta: Raw) -> int:
    """What a piece of a message says. The first often names the speaker alone, and the answer may be empty."""
    if not begins(delta, b"{"):
        return Said.NOTHING
    read = _MESSAGE.decode(delta)
    return _of(read) | (Said.WORDS if begins(read.role, b'"') else Said.NOTHING)


def of_text(text: Raw) -> int:
    """What a text of the older completions says, be it empty: it is the answer for whatever reason it ended."""
    if begins(text, b'"'):
        return Said.WORDS | Said.CALL
    return Said.NOTHING if is_null(text) else Said.ODD


def _of(read: _Message) -> int:
    said = Said.NOTHING
    typed = (
        _is_one_of(read.content, b'"[')  # parts of a content: Mistral
        and _is_one_of(read.tool_calls, b"[")
        and _is_one_of(read.function_call, b"{")
    )
    if not typed:
        said |= Said.ODD
    if _tells(read.tool_calls) or _tells(read.function_call):
        said |= Said.CALL
    if begins(read.content, b'"') or any(map(_tells, _words(read))):
        said |= Said.WORDS
    return said


def _words(read: _Message) -> tuple[Raw, ...]:
    return (
        read.content, read.refusal, read.audio, read.images, read.reasoning, read.reasoning_content,
        read.reasoning_details, read.thinking_blocks,
    )  # fmt: skip


def _is_one_of(member: Raw, firsts: bytes) -> bool:
    """Whether a member is absent, null, or begins with one of the bytes *firsts*."""
    return memoryview(member)[0] in firsts or is_null(member)


def _tells(member: Raw) -> bool:
    return bytes(member) not in _EMPTY
