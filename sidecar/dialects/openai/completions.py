"""
The answers of the older ``/completions``: how a text becomes pieces, and pieces a text.

The rule: text and log probabilities are put together from their pieces; everything else a stream must give at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.core.dialect import Answers
from sidecar.dialects.openai.answer_members import reads
from sidecar.dialects.openai.forms import Layout, Piece, agree, extend

_OWN: Final = frozenset({"text", "index", "logprobs", "finish_reason"})


def _spread(choice: Piece) -> Iterator[Piece]:
    """A choice of a whole answer as two pieces: the text, and why it finished."""
    ignored: Piece = {"logprobs": None} if "logprobs" in choice else {}
    marks: Piece = {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}
    yield {"text": choice["text"], "index": choice["index"], **marks, "finish_reason": None}
    yield {
        "text": "",
        "index": choice["index"],
        **ignored,
        "finish_reason": choice["finish_reason"],
        **{name: value for name, value in choice.items() if name not in _OWN},
    }


def _gather(pieces: list[Piece]) -> Piece:
    """A choice of the whole answer out of its pieces."""
    choice: Piece = {"text": "", "index": pieces[0].get("index", 0)}
    for piece in pieces:
        for name, value in piece.items():
            if name == "text":
                choice[name] += value or ""
            elif name == "logprobs":
                extend(choice, value)
            elif name == "finish_reason":
                choice[name] = value or choice.get(name)
            elif name not in {"index", "content_filter_offsets"}:
                agree(choice, name, value)
    return choice


ANSWERS: Final[Answers] = Layout("text_completion", "text_completion", reads, _spread, _gather).answers
