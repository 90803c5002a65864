"""
What a choice of an answer says: words, a tool call, or something that this API never answers.

The rule: a choice is an answer only by a member that the API, or a service that speaks it, documents for that. An empty
text is an answer; a message without any text is not.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.dialects.plain import NULL, begins, is_null


class ChoiceContent:
    """What a choice, or a piece of one, says, as bits. ODD stands beside others: a member's type is undocumented."""

    NOTHING: Final = 0
    WORDS: Final = 1
    CALL: Final = 2
    ODD: Final = 4


class _ChoiceMessage(Struct, gc=False):
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


_MESSAGE: Final = msgspec.json.Decoder(_ChoiceMessage)

_TEXT_OR_PARTS: Final = frozenset({b'"', b"[", b"n"})
_LIST: Final = frozenset({b"[", b"n"})
_OBJECT: Final = frozenset({b"{", b"n"})
"""How members of a type begin, absent or null ones included."""

_BRACE: Final = ord("{")

_EMPTY: Final = frozenset({b"null", b'""', b"[]", b"{}", b"false"})


def of_message(message: Raw) -> int:
    """What a whole message says."""
    if not begins(message, b"{"):
        return ChoiceContent.NOTHING
    return _of(_MESSAGE.decode(message))


def of_deltas(deltas: list[Raw]) -> int:
    """What the pieces of a message say. The first often names the speaker alone, and the answer may be empty."""
    said = ChoiceContent.NOTHING
    for delta in deltas:
        if memoryview(delta)[0] != _BRACE:
            continue
        read = _MESSAGE.decode(delta)
        if read.tool_calls is NULL and read.function_call is NULL and bytes(read.content)[:1] == b'"':
            said |= ChoiceContent.WORDS  # as almost every piece: what is absent is that very value
        else:
            said |= _of(read) | (ChoiceContent.WORDS if begins(read.role, b'"') else ChoiceContent.NOTHING)
    return said


def of_text(text: Raw) -> int:
    """What a text of the older completions says. Even an empty text is the answer, whatever the reason for its end."""
    if begins(text, b'"'):
        return ChoiceContent.WORDS | ChoiceContent.CALL
    return ChoiceContent.NOTHING if is_null(text) else ChoiceContent.ODD


def _of(read: _ChoiceMessage) -> int:
    content, calls, function = bytes(read.content), bytes(read.tool_calls), bytes(read.function_call)
    # parts of a content: Mistral
    typed = content[:1] in _TEXT_OR_PARTS and calls[:1] in _LIST and function[:1] in _OBJECT
    said = ChoiceContent.NOTHING if typed else ChoiceContent.ODD
    if calls not in _EMPTY or function not in _EMPTY:
        said |= ChoiceContent.CALL
    if content[:1] == b'"' or content not in _EMPTY or not _EMPTY.issuperset(map(bytes, _further(read))):
        said |= ChoiceContent.WORDS
    return said


def _further(read: _ChoiceMessage) -> tuple[Raw, ...]:
    """The members beside ``content`` in which a choice says something."""
    return (
        read.refusal, read.audio, read.images, read.reasoning, read.reasoning_content, read.reasoning_details,
        read.thinking_blocks,
    )  # fmt: skip
