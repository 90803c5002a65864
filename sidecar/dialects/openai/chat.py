"""
The answers of ``/chat/completions``: how a message becomes deltas, and deltas a message.

The rule: ids, names and arguments stay verbatim, because the next turn sends them back. Text is joined from its pieces,
and a tool call from its header and the pieces of its arguments; a stream must give everything else at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sidecar.core.dialect import Answers
from sidecar.dialects.openai.answer_members import speaks
from sidecar.dialects.openai.forms import Layout, Piece, agree, extend

_TEXTS: Final = ("reasoning_content", "reasoning", "content", "refusal")
"""Members of a message that stream in pieces, in the order in which services send them."""

_MARKED: Final = ("content", "refusal")
"""Texts that have log probabilities."""

_CALLS: Final = {"function": "arguments", "custom": "input"}
"""Kinds of tool call, and the member of each that streams in pieces."""

_OWN: Final = frozenset({"index", "message", "delta", "logprobs", "finish_reason"})


def _spread(choice: Piece) -> Iterator[Piece]:
    """A choice of a whole answer as pieces: the role, the content, each tool call, and why it finished."""
    message = choice["message"]
    if message.get("audio") is not None:
        raise ValueError("audio")
    marks: Piece = {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}
    ignored: Piece = dict.fromkeys(marks)
    # Azure has this member in every piece, mostly empty, and its clients read it without a check.
    unjudged: Piece = {"content_filter_results": {}} if choice.get("content_filter_results") is not None else {}

    deltas = list(_deltas(message))
    spoken = next((n for n, delta in enumerate(deltas) if n and not delta.keys().isdisjoint(_MARKED)), None)
    for n, delta in enumerate(deltas):
        yield {
            "index": choice["index"],
            "delta": delta,
            **(marks if n == spoken else ignored),
            "finish_reason": None,
            **unjudged,
        }
    yield {
        "index": choice["index"],
        "delta": {},
        **(marks if spoken is None else ignored),
        "finish_reason": choice["finish_reason"],
        **{name: value for name, value in choice.items() if name not in _OWN},
    }


def _deltas(message: Piece) -> Iterator[Piece]:
    """The deltas of a message; the first has its role and everything that does not come in pieces."""
    texts = {name: message[name] for name in _TEXTS if message.get(name)}
    calls = message.get("tool_calls") or ()
    function = message.get("function_call")
    first = {name: value for name, value in message.items() if name not in texts}
    if "content" in texts:
        first["content"] = ""
    if "refusal" in texts:
        first["refusal"] = None
    if calls:
        del first["tool_calls"]
    if function:
        del first["function_call"]
    yield first

    for name, text in texts.items():
        yield {name: _text(text)}
    for index, call in enumerate(calls):
        [kind] = [kind for kind in _CALLS if call.get(kind)]
        header, piece = _split(call[kind], _CALLS[kind])
        yield {"tool_calls": [{"index": index, **call, kind: header}]}
        if piece:
            yield {"tool_calls": [{"index": index, kind: piece}]}
    if function:
        header, piece = _split(function, "arguments")
        yield {"function_call": header}
        if piece:
            yield {"function_call": piece}


def _split(call: Piece, streamed: str) -> tuple[Piece, Piece]:
    """A call as its header and the one piece that streams, which may be empty."""
    text = _text(call[streamed])
    return {**call, streamed: ""}, {streamed: text} if text else {}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _gather(pieces: list[Piece]) -> Piece:
    """A choice of the whole answer out of its pieces."""
    message: Piece = {}
    calls: dict[int, Piece] = {}
    choice: Piece = {"index": pieces[0].get("index", 0), "message": message}
    for piece in pieces:
        for name, value in (piece.get("delta") or {}).items():
            _add(message, calls, name, value)
        for name, value in piece.items():
            if name == "logprobs":
                extend(choice, value)
            elif name == "finish_reason":
                choice[name] = value or choice.get(name)
            elif name not in {"index", "delta", "content_filter_offsets"}:
                agree(choice, name, value)
    message.setdefault("content", None)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return choice


def _add(message: Piece, calls: dict[int, Piece], name: str, value: Any) -> None:
    """Add one member of a delta to the message."""
    if name in _TEXTS:
        _append(message, name, value)
    elif name == "role":
        agree(message, name, value)
    elif name == "function_call" and value:
        message[name] = message.get(name) or {}
        _call(message[name], value, "arguments")
    elif name == "tool_calls" and value:
        for piece in value:
            _tool_call(calls.setdefault(piece["index"], {}), piece)
    elif value is None:
        message.setdefault(name, None)
    elif name == "audio" or message.get(name) is not None:
        raise ValueError(name)
    else:
        message[name] = value


def _tool_call(call: Piece, piece: Piece) -> None:
    for name, value in piece.items():
        if name in _CALLS and value is not None:
            call[name] = call.get(name) or {}
            _call(call[name], value, _CALLS[name])
        elif name != "index":
            agree(call, name, value)


def _call(call: Piece, part: Piece, streamed: str) -> None:
    for name, value in part.items():
        if name == streamed:
            _append(call, name, value)
        else:
            agree(call, name, value)


def _append(target: Piece, name: str, text: Any) -> None:
    """Put a piece of text behind what is there; null adds nothing."""
    if text is None:
        target.setdefault(name, None)
    else:
        target[name] = (target.get(name) or "") + _text(text)


ANSWERS: Final[Answers] = Layout("chat.completion", "chat.completion.chunk", speaks, _spread, _gather).answers
