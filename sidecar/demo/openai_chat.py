"""
The stand-in for OpenAI's chat completions and completions, and for what Azure adds to them.

The rule: a question has the same answer as a document and as a stream, because the stream is cut from the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from sidecar.demo.canned import Ask, Json, clip, last_words, pieces, prose, sample, seed, tokens, wants_tool

DONE: Final = b"data: [DONE]\n\n"

_MOST: Final = 128
"""How many choices the real service gives at most."""

_FILTERS: Final = {
    name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
}


def data(members: Json) -> bytes:
    """One unnamed event."""
    return b"data: " + json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def chat(ask: Ask) -> Json:
    """A chat completion with ``n`` choices: each is a tool call, JSON if the request asks for it, or text."""
    count = ask.members.get("n") or 1
    if not 1 <= count <= _MOST:
        raise ValueError("n")
    choices = [_choice(ask, index) for index in range(count)]
    return {
        "id": f"chatcmpl-{ask.fresh()}",
        "object": "chat.completion",
        "created": ask.now,
        "model": ask.model,
        "choices": choices,
        "usage": _usage(ask.members.get("messages"), [choice["message"] for choice in choices]),
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def chat_frames(ask: Ask, document: Json) -> Iterator[bytes]:
    """The stream of a chat completion. It ends with ``[DONE]``, and has usage only if the request asks for it."""
    shows_usage = bool((ask.members.get("stream_options") or {}).get("include_usage"))
    common = {name: document[name] for name in ("id", "created", "model", "service_tier", "system_fingerprint")}
    common["object"] = "chat.completion.chunk"
    if "prompt_filter_results" in document:
        blank = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
        yield data(blank | {"prompt_filter_results": document["prompt_filter_results"]})
    for choice in document["choices"]:
        last = len(deltas := list(_deltas(choice))) - 1
        for number, (delta, logprobs) in enumerate(deltas):
            reason = choice["finish_reason"] if number == last else None
            part = {"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": reason}
            if "content_filter_results" in choice:
                part["content_filter_results"] = choice["content_filter_results"] if 0 < number < last else {}
            chunk = common | {"choices": [part]} | ({"usage": None} if shows_usage else {})
            yield data(chunk | {"obfuscation": ask.fresh()[: 1 + number % 9]})
    if shows_usage:
        yield data(common | {"choices": [], "usage": document["usage"]})
    yield DONE


def completion(ask: Ask) -> Json:
    """A completion of each prompt, ``n`` times."""
    prompt = ask.members.get("prompt", "")
    prompts = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    each = ask.members.get("n") or 1
    choices: list[Json] = []
    for index in range(len(prompts) * each):
        text, short = clip(prose(ask.seed(index)), ask.members.get("max_tokens"))
        reason = "length" if short else "stop"
        choices.append({"text": text, "index": index, "logprobs": None, "finish_reason": reason})
    return {
        "id": f"cmpl-{ask.fresh()}",
        "object": "text_completion",
        "created": ask.now,
        "model": ask.model,
        "choices": choices,
        "usage": _usage(prompt, [choice["text"] for choice in choices]),
    }


def completion_frames(ask: Ask, document: Json) -> Iterator[bytes]:
    """The stream of a completion."""
    shows_usage = bool((ask.members.get("stream_options") or {}).get("include_usage"))
    common = {name: document[name] for name in ("id", "object", "created", "model")}
    rest = {"usage": None} if shows_usage else {}
    for choice in document["choices"]:
        for text in pieces(choice["text"]):
            yield data(common | {"choices": [choice | {"text": text, "finish_reason": None}]} | rest)
        yield data(common | {"choices": [choice | {"text": ""}]} | rest)
    if shows_usage:
        yield data(common | {"choices": [], "usage": document["usage"]})
    yield DONE


def filtered(document: Json) -> Json:
    """A document as Azure gives it, with the verdicts of its content filter."""
    choices = [choice | {"content_filter_results": _FILTERS} for choice in document["choices"]]
    verdict = {"prompt_index": 0, "content_filter_results": _FILTERS | {"jailbreak": _UNDETECTED}}
    return document | {"choices": choices, "prompt_filter_results": [verdict]}


_UNDETECTED: Final = {"detected": False, "filtered": False}


def chosen_tool(ask: Ask, functions: list[Json], messages: object) -> Json | None:
    """The function to call: the one that ``tool_choice`` or the user's last words demand."""
    choice = ask.members.get("tool_choice", "auto")
    by_name = {str(function.get("name")): function for function in functions}
    if not by_name or choice == "none":
        return None
    if isinstance(choice, dict):
        named = choice.get("function", choice).get("name")
        return by_name.get(str(named), functions[0])
    if choice == "required":
        return functions[0]
    name = wants_tool(list(by_name), last_words(messages))
    return by_name[name] if name else None


def _choice(ask: Ask, index: int) -> Json:
    source = ask.seed(index)
    functions = [tool["function"] for tool in ask.members.get("tools") or [] if "function" in tool]
    message: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if function := chosen_tool(ask, functions, ask.members.get("messages")):
        arguments = json.dumps(sample(function.get("parameters") or {}, source), separators=(",", ":"))
        call = {"name": function["name"], "arguments": arguments}
        message["tool_calls"] = [{"id": f"call_{ask.fresh()[:24]}", "type": "function", "function": call}]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
    limit = ask.members.get("max_completion_tokens", ask.members.get("max_tokens"))
    message["content"], short = clip(_text(ask, source), limit)
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(ask, message["content"]),
        "finish_reason": "length" if short else "stop",
    }


def _text(ask: Ask, source: bytes) -> str:
    form = ask.members.get("response_format") or {}
    match form.get("type"):
        case "json_schema":
            return json.dumps(sample(form.get("json_schema", {}).get("schema"), source))
        case "json_object":
            return json.dumps({"canned": prose(source)})
        case _:
            return prose(source)


def _logprobs(ask: Ask, text: str) -> Json | None:
    if not ask.members.get("logprobs"):
        return None
    others = ask.members.get("top_logprobs") or 0
    content = []
    for piece in pieces(text):
        tops = [_logprob(piece if rank == 0 else f"{piece}{rank}", rank) for rank in range(others)]
        content.append(_logprob(piece, 0) | {"top_logprobs": tops})
    return {"content": content, "refusal": None}


def _logprob(token: str, rank: int) -> Json:
    return {"token": token, "logprob": -0.125 - rank - seed(token)[0] / 1024, "bytes": list(token.encode())}


def _deltas(choice: Json) -> Iterator[tuple[Json, Json | None]]:
    """The deltas of one choice, each with its logprobs; the last one is empty."""
    message = choice["message"]
    role = {"role": "assistant", "refusal": None}
    if calls := message.get("tool_calls"):
        first = [call | {"index": n, "function": call["function"] | {"arguments": ""}} for n, call in enumerate(calls)]
        yield role | {"content": None, "tool_calls": first}, None
        for index, call in enumerate(calls):
            for start in range(0, len(written := call["function"]["arguments"]), 7):
                yield {"tool_calls": [{"index": index, "function": {"arguments": written[start : start + 7]}}]}, None
    else:
        yield role | {"content": ""}, None
        logprobs = (choice["logprobs"] or {}).get("content")
        for number, piece in enumerate(pieces(message["content"])):
            own = {"content": [logprobs[number]], "refusal": None} if logprobs else None
            yield {"content": piece}, own
    yield {}, None


def _usage(prompt: object, said: list[Any]) -> Json:
    read, written = tokens(prompt), sum(tokens(each) for each in said)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
