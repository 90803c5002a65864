"""
How the choices of an answer ended, and which endings are good.

The rule: a word is good only if a provider documents it as the end of a complete answer. With any other word, also an
empty or new one, the answer is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from sidecar.core.dialect import Completeness
from sidecar.dialects.openai.choice_content import ChoiceContent

GOOD: Final = frozenset({
    # OpenAI, API reference; OpenRouter brings the words of others to these, and vLLM has the first two of its own.
    "stop", "length", "tool_calls", "function_call",
    # Mistral, API specification: the model's own bound on the answer was reached.
    "model_length",
    # Together, SDK (types/common.py): the model ended by itself.
    "eos",
    # Hugging Face, text-generation-inference (FinishReason): the model ended by itself, or a stop was met.
    "eos_token", "stop_sequence",
})  # fmt: skip
"""
Reasons of a complete answer. A bound on its length is part of the question, or of the model.

Documented and not good, among others: ``abort``, ``error`` and ``repetition`` (vLLM), ``error`` (Mistral, OpenRouter),
``insufficient_system_resource`` (DeepSeek), ``network_error`` and ``sensitive`` (Zhipu), ``time_limit`` and
``cancelled`` (watsonx), ``SAFETY`` and its kind (Gemini).
"""

FILTERED: Final = "content_filter"

_KNOWN: Final = GOOD | {FILTERED}
_GRAVEST: Final = (
    Completeness.FAILED, Completeness.UNFINISHED, Completeness.UNKNOWN_FINISH, Completeness.MISSHAPEN,
    Completeness.CONTENT_FILTER, Completeness.WHOLE,
)  # fmt: skip
"""The possible judgements of an answer's choices, the worst first."""

CALLING: Final = frozenset({"tool_calls", "function_call"})
"""Reasons for which a tool call is the answer."""


class Ending(Struct, gc=False):
    """What is known of one choice: the *reasons* for its end, what it *said*, and whether it says that it *failed*."""

    reasons: frozenset[str] = frozenset()
    said: int = ChoiceContent.NOTHING
    failed: bool = False

    def add(self, reason: str) -> None:
        """Add a reason. Services write ``""`` while they have none, so it counts only if no other reason comes."""
        if not reason and self.reasons:
            return
        self.reasons = (self.reasons - {""}) | {reason}


def judge(endings: Iterable[Ending]) -> Completeness:
    """Judge by how each choice has ended: the worst decides."""
    return min(map(_judge_one, endings), key=_GRAVEST.index, default=Completeness.UNFINISHED)


def _judge_one(one: Ending) -> Completeness:
    if one.failed:
        return Completeness.FAILED
    if not one.reasons:
        return Completeness.UNFINISHED
    if not one.reasons <= _KNOWN:
        return Completeness.UNKNOWN_FINISH
    if not _has_shape(one):
        return Completeness.MISSHAPEN
    return Completeness.CONTENT_FILTER if FILTERED in one.reasons else Completeness.WHOLE


def _has_shape(one: Ending) -> bool:
    """Whether the choice said what fits its reason; after a filter nothing may be left."""
    if one.said & ChoiceContent.ODD:
        return False
    if one.reasons & CALLING:
        return bool(one.said & ChoiceContent.CALL)
    return one.said != ChoiceContent.NOTHING or FILTERED in one.reasons


def unknown(endings: Iterable[Ending]) -> list[str]:
    """The reasons that no provider documents as good, in order."""
    return sorted({reason for one in endings for reason in one.reasons} - _KNOWN)
