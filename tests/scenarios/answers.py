"""Answers of the services as bytes on the wire, whole and in pieces."""

from __future__ import annotations

import json


def whole(body: bytes, *, status: str = "200 OK", extra: bytes = b"", kind: bytes = b"application/json") -> bytes:
    """An answer with a Content-Length, as bytes on the wire."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
        status.encode(),
        kind,
        len(body),
        extra,
    ) + body  # fmt: skip


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def delta(text: str | None, *, finish: str | None = None, index: int = 0) -> bytes:
    """One event of a chat stream."""
    content = {} if text is None else {"content": text}
    event = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": index, "delta": content, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }
    return b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode()


USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
)


DONE = b"data: [DONE]\n\n"


def completion(text: str, *, number: int = 1) -> bytes:
    """A whole chat completion."""
    return json.dumps({
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "gpt-4o",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None,
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }).encode()  # fmt: skip


ROLE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,'
    b'"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
)


def chat_events(*texts: str) -> list[bytes]:
    """A whole chat stream that says *texts*, with its usage."""
    return [ROLE, *map(delta, texts), delta(None, finish="stop"), USAGE, DONE]


def chunks(events: list[bytes]) -> bytes:
    """Events as the chunks of a body, each in one of its own."""
    return b"".join(map(chunk, events))


def said(body: bytes) -> str:
    """The text of a chat answer in either form."""
    if body.startswith(b"{"):
        return json.loads(body)["choices"][0]["message"]["content"]
    found = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content") or "" for event in found for choice in event["choices"])


CLAUDE_PATH = "/anthropic/v1/messages"

CLAUDE = {
    "model": "claude-sonnet-4", "max_tokens": 64, "temperature": 0, "messages": [{"role": "user", "content": "Box?"}],
}  # fmt: skip


def claude_event(name: str, **members: object) -> bytes:
    """One event of Anthropic's."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **members}).encode())


CLAUDE_START = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4", "content": [],
    "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
}  # fmt: skip

CLAUDE_EVENTS = [
    claude_event("message_start", message=CLAUDE_START),
    claude_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    claude_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "It is a box."}),
    claude_event("content_block_stop", index=0),
    claude_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
    claude_event("message_stop"),
]
