"""
The stand-in for Anthropic's messages: text, thinking and tool use, whole and as named events.

The rule: a question has the same answer as a document and as a stream, because the stream is cut from the document.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Final

from sidecar.demo.canned import Ask, Json, clip, last_words, pieces, prose, sample, tokens, wants_tool

MODELS: Final = ("claude-opus-4-6", "claude-sonnet-4-6", "claude-haiku-4-5")

_PADDING: Final = 14
"""The real service pads its events with a varying number of blanks."""


def message(ask: Ask) -> Json:
    """A message: thinking if the request asks for it, then a tool call if the request demands one, else text."""
    source = ask.seed()
    content: list[Json] = []
    if (ask.members.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        signature = b64encode(ask.seed("signature") * 3).decode()
        content.append({"type": "thinking", "thinking": prose(ask.seed("thought")), "signature": signature})
    if tool := _chosen_tool(ask):
        call = {"type": "tool_use", "id": f"toolu_{ask.fresh()[:24]}", "name": tool["name"]}
        content.append(call | {"input": sample(tool.get("input_schema") or {}, source) or {}})
        reason = "tool_use"
    else:
        form = (ask.members.get("output_config") or {}).get("format") or {}
        said = json.dumps(sample(form.get("schema"), source)) if form.get("type") == "json_schema" else prose(source)
        text, short = clip(said, ask.members.get("max_tokens"))
        content.append({"type": "text", "text": text})
        reason = "max_tokens" if short else "end_turn"
    return {
        "model": ask.model,
        "id": f"msg_{ask.fresh()}",
        "type": "message",
        "role": "assistant",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": count(ask)["input_tokens"],
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": tokens(content),
            "service_tier": "standard",
        },
    }


def message_frames(ask: Ask, document: Json) -> Iterator[bytes]:
    """The events of a message, with a ping after the first block has begun."""
    for name, members in _events(document):
        event = json.dumps({"type": name, **members}, separators=(",", ":"), ensure_ascii=False)
        padding = " " * (int(ask.fresh()[:2], 16) % _PADDING)
        yield f"event: {name}\ndata: {event[:-1]}{padding}}}\n\n".encode()


def count(ask: Ask) -> Json:
    """The number of tokens that a message would read."""
    asked = {name: ask.members.get(name) for name in ("messages", "system", "tools")}
    return {"input_tokens": tokens(asked)}


def models() -> Json:
    """The models that the demo lists. It also answers calls of other models."""
    return {"data": [model(name) for name in MODELS], "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def model(name: str) -> Json:
    """One model."""
    return {"type": "model", "id": name, "display_name": f"{name} (canned)", "created_at": "2026-01-01T00:00:00Z"}


def _chosen_tool(ask: Ask) -> Json | None:
    choice = ask.members.get("tool_choice") or {"type": "auto"}
    tools: dict[str, Json] = {tool["name"]: tool for tool in ask.members.get("tools") or [] if "name" in tool}
    if not tools:
        return None
    match choice.get("type"):
        case "none":
            return None
        case "any":
            return next(iter(tools.values()))
        case "tool":
            return tools.get(str(choice.get("name")))
        case _:
            return tools.get(wants_tool(list(tools), last_words(ask.members.get("messages"))) or "")


def _events(document: Json) -> Iterator[tuple[str, Json]]:
    usage = document["usage"]
    begun = document | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield "message_start", {"message": begun}
    for index, block in enumerate(document["content"]):
        empty, deltas = _parts(block)
        yield "content_block_start", {"index": index, "content_block": block | empty}
        if index == 0:
            yield "ping", {}
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    delta = {"stop_reason": document["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": usage["output_tokens"]}}
    yield "message_stop", {}


def _parts(block: Json) -> tuple[Json, list[Json]]:
    """The members of a block that are empty at its start, and the deltas that fill them."""
    match block["type"]:
        case "thinking":
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {"thinking": "", "signature": ""}, [*thoughts, signed]
        case "tool_use":
            written = json.dumps(block["input"])
            cuts = ["", *(written[start : start + 7] for start in range(0, len(written), 7))]
            return {"input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in cuts]
        case _:
            return {"text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
