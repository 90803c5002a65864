"""
The two forms of Anthropic's messages, a document and a stream of events, each made from the other.

The rule: nothing is invented. Members keep their bytes (numbers, escapes and the order of tool inputs included). What
this file cannot express in the other form is not converted: it raises one of ``ODD``. The event types and how they add
up are those of the API's SDK (anthropic-py 2.12, ``lib/streaming``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from sidecar.core.http.sse import events, frame
from sidecar.core.key.json_rule import UNREADABLE

ODD: Final = (*UNREADABLE, LookupError)
"""Exceptions for foreign JSON of an unexpected form. Such an answer has no second form."""

Raws = dict[str, Raw]
"""The members of a JSON object, each still as it was written."""

Index = Annotated[int, Meta(ge=0)]

_NULL: Final = Raw(b"null")
_EMPTY_TEXT: Final = Raw(b'""')
_EMPTY_LIST: Final = Raw(b"[]")
_EMPTY_OBJECT: Final = Raw(b"{}")

_GROWN: Final = {
    "text": {"text": _EMPTY_TEXT, "citations": _EMPTY_LIST},
    "thinking": {"thinking": _EMPTY_TEXT, "signature": _EMPTY_TEXT},
    "tool_use": {"input": _EMPTY_OBJECT},
    "server_tool_use": {"input": _EMPTY_OBJECT},
    "mcp_tool_use": {"input": _EMPTY_OBJECT},
}
"""What a block of each type starts with in a stream; deltas bring the rest. Other known types start whole."""

_LATE: Final = ("stop_reason", "stop_sequence", "stop_details", "container")
"""Members of a message that a stream tells at its end, in ``message_delta.delta``."""

_CUMULATIVE: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)
"""Members of a usage that ``message_delta.usage`` tells, as totals that replace those of the start."""


class _BlockStart(Struct):
    index: Index
    content_block: Raws


class _BlockDelta(Struct):
    index: Index
    delta: Raws


def stream(body: bytes) -> bytes:
    """The event stream of a whole message, with each block in one piece. Raises if that would not be faithful."""
    message = msgspec.json.decode(msgspec.json.format(body, indent=-1), type=Raws)
    usage = msgspec.json.decode(message["usage"], type=Raws)
    blocks = msgspec.json.decode(message["content"], type=list[Raws])
    late = {name: message[name] for name in _LATE if name in message}
    aside = {name: message[name] for name in ("context_management",) if name in message}

    first = {name: value for name, value in usage.items() if name not in ("output_tokens_details", "server_tool_use")}
    start = message | {"content": _EMPTY_LIST} | dict.fromkeys((*late, *aside), _NULL)
    start |= {"usage": Raw(msgspec.json.encode(first | {"output_tokens": 1}))}
    totals = {name: usage[name] for name in _CUMULATIVE if name in usage}

    frames = [_event("message_start", message=start)]
    for index, block in enumerate(blocks):
        frames += _block_frames(index, block)
    frames += [_event("message_delta", delta=late, usage=totals, **aside), _event("message_stop")]
    return b"".join(frames)


def _block_frames(index: int, block: Raws) -> Iterator[bytes]:
    """The events of one content block."""
    kind = _text(block["type"])
    if kind not in _GROWN and kind != "redacted_thinking" and not kind.endswith("_tool_result"):
        raise ValueError(kind)
    grown = {name: empty for name, empty in _GROWN.get(kind, {}).items() if block.get(name, _NULL) != _NULL}
    yield _event("content_block_start", index=index, content_block=block | grown)
    for name, empty in grown.items():
        value = block[name]
        if name == "citations":
            for citation in msgspec.json.decode(value, type=list[Raw]):
                yield _delta(index, "citations_delta", citation=citation)
        elif name == "input":
            written = "" if value == empty else bytes(value).decode()
            yield _delta(index, "input_json_delta", partial_json=written)
        elif value != empty:
            yield _delta(index, f"{name}_delta", **{name: value})
    yield _event("content_block_stop", index=index)


def _delta(index: int, kind: str, **members: Raw | str) -> bytes:
    return _event("content_block_delta", index=index, delta={"type": kind, **members})


def _event(name: str, **members: object) -> bytes:
    return frame(msgspec.json.encode({"type": name, **members}), name)


def document(body: bytes) -> bytes:
    """The whole message that a stream adds up to. Raises where an event is not known."""
    message: Raws = {}
    usage: Raws = {}
    blocks: list[Raws] = []
    deltas: list[dict[str, list[Raws]]] = []
    for event in events(body):
        match event.name:
            case "" | "ping" | "content_block_stop" | "message_stop":
                pass
            case "message_start":
                message = _members(_members(event.data)["message"])
                usage = _members(message["usage"])
            case "content_block_start":
                begun = msgspec.json.decode(event.data, type=_BlockStart)
                if begun.index != len(blocks):
                    raise ValueError(begun.index)
                blocks.append(begun.content_block)
                deltas.append({})
            case "content_block_delta":
                grown = msgspec.json.decode(event.data, type=_BlockDelta)
                deltas[grown.index].setdefault(_text(grown.delta["type"]), []).append(grown.delta)
            case "message_delta":
                members = _members(event.data)
                _replace(message, _members(members.pop("delta", _EMPTY_OBJECT)))
                _replace(usage, _members(members.pop("usage", _EMPTY_OBJECT)))
                members.pop("type")
                _replace(message, members)
            case unknown:
                raise ValueError(unknown)
    for block, pieces in zip(blocks, deltas, strict=True):
        _grow(block, pieces)
    return msgspec.json.encode(message | {"content": blocks, "usage": usage})


def _grow(block: Raws, deltas: dict[str, list[Raws]]) -> None:
    """Add the deltas, by their type, to *block*."""
    for kind, pieces in deltas.items():
        match kind:
            case "text_delta" | "thinking_delta":
                name = kind.removesuffix("_delta")
                grown = "".join((_text(block.get(name, _EMPTY_TEXT)), *(_text(piece[name]) for piece in pieces)))
                block[name] = Raw(msgspec.json.encode(grown))
            case "signature_delta":
                block["signature"] = pieces[-1]["signature"]
            case "citations_delta":
                given = msgspec.json.decode(block.get("citations", _NULL), type=list[Raw] | None) or []
                block["citations"] = Raw(msgspec.json.encode([*given, *(piece["citation"] for piece in pieces)]))
            case "input_json_delta":
                written = "".join(_text(piece["partial_json"]) for piece in pieces).encode()
                if written:
                    # Parsed only to check that it is JSON (an answer cut at max_tokens may hold half of it).
                    msgspec.json.decode(written, type=dict[str, object])
                    block["input"] = Raw(msgspec.json.format(written, indent=-1))
            case unknown:
                raise ValueError(unknown)


def _replace(members: Raws, later: Raws) -> None:
    """Take over the members of *later*, except nulls."""
    members |= {name: value for name, value in later.items() if value != _NULL or name not in members}


def _members(value: Raw | bytes) -> Raws:
    return msgspec.json.decode(value, type=Raws)


def _text(value: Raw) -> str:
    return msgspec.json.decode(value, type=str)
