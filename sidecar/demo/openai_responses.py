"""
The stand-in for OpenAI's responses: the document, and the numbered events that lead to it.

The rule: as in the real stream, the last event holds the whole document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from sidecar.demo.canned import Ask, Json, clip, pieces, prose, sample, tokens
from sidecar.demo.openai_chat import chosen_tool

_ECHOED: Final[Json] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""Members that the answer repeats from the request, with the values that it has if the request has none."""


def response(ask: Ask) -> Json:
    """A response with one message, or one function call."""
    item, short = _item(ask)
    read, written = tokens(ask.members.get("input")), tokens(item)
    return {
        "id": f"resp_{ask.fresh()}",
        "object": "response",
        "created_at": ask.now,
        "status": "incomplete" if short else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if short else None,
        "model": ask.model,
        "output": [item],
        **{name: ask.members.get(name, quiet) for name, quiet in _ECHOED.items()},
        "usage": {
            "input_tokens": read,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + written,
        },
    }


def response_frames(_ask: Ask, document: Json) -> Iterator[bytes]:
    """The events of a response, numbered from 0."""
    for number, (name, members) in enumerate(_events(document)):
        event = {"type": name, "sequence_number": number, **members}
        yield f"event: {name}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def _item(ask: Ask) -> tuple[Json, bool]:
    tools = [tool for tool in ask.members.get("tools") or [] if tool.get("type") == "function"]
    source = ask.seed()
    if function := chosen_tool(ask, tools, ask.members.get("input")):
        arguments = json.dumps(sample(function.get("parameters") or {}, source), separators=(",", ":"))
        call = {"type": "function_call", "id": f"fc_{ask.fresh()}", "call_id": f"call_{ask.fresh()[:24]}"}
        return call | {"name": function["name"], "arguments": arguments, "status": "completed"}, False
    form = (ask.members.get("text") or {}).get("format") or {}
    said = json.dumps(sample(form.get("schema"), source)) if form.get("type") == "json_schema" else prose(source)
    text, short = clip(said, ask.members.get("max_output_tokens"))
    message = {"type": "message", "id": f"msg_{ask.fresh()}", "status": "incomplete" if short else "completed"}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return message | {"role": "assistant", "content": [part]}, short


def _events(document: Json) -> Iterator[tuple[str, Json]]:
    begun = document | {"status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(document["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        if item["type"] == "function_call":
            yield "response.output_item.added", _added(index, item | {"arguments": ""})
            for start in range(0, len(written := item["arguments"]), 7):
                yield "response.function_call_arguments.delta", place | {"delta": written[start : start + 7]}
            yield "response.function_call_arguments.done", place | {"arguments": written}
        else:
            yield "response.output_item.added", _added(index, item | {"content": []})
            part = item["content"][0]
            place["content_index"] = 0
            yield "response.content_part.added", place | {"part": part | {"text": ""}}
            for piece in pieces(part["text"]):
                yield "response.output_text.delta", place | {"delta": piece, "logprobs": []}
            yield "response.output_text.done", place | {"text": part["text"], "logprobs": []}
            yield "response.content_part.done", place | {"part": part}
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{document['status']}", {"response": document}


def _added(index: int, item: Json) -> Json:
    return {"output_index": index, "item": item | {"status": "in_progress"}}
