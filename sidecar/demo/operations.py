"""
The operations of the stand-in provider, by vendor and path, and what each demands of a request.

The rule: this file uses no sockets and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.demo import anthropic, openai_chat, openai_lists, openai_responses
from sidecar.demo.canned import Ask, Json
from sidecar.demo.vendors import Vendor, refusal


class RequestError(Exception):
    """A request that gets an error answer: *status* and a message; *retry_after* in seconds, 0 for none."""

    def __init__(self, status: int, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One operation: its *name* for counting, the document that it answers, and the stream of that document where there
    is one. *needs* are the members without which it is refused.
    """

    name: str
    answer: Callable[[Ask], Json]
    frames: Callable[[Ask, Json], Iterator[bytes]] | None = None
    needs: tuple[str, ...] = ()


def _filtered_chat(ask: Ask) -> Json:
    return openai_chat.filtered(openai_chat.chat(ask))


def _openai_models(ask: Ask) -> Json:
    return openai_lists.model(ask.model, ask.now) if ask.model else openai_lists.models(ask.now)


def _anthropic_models(ask: Ask) -> Json:
    return anthropic.model(ask.model) if ask.model else anthropic.models()


def _unknown(_ask: Ask) -> Json:
    raise RequestError(404, "The demo provider does not know this path.")


_CHAT = Operation("chat", openai_chat.chat, openai_chat.chat_frames, ("model", "messages"))
_AZURE_CHAT = Operation("chat", _filtered_chat, openai_chat.chat_frames, ("messages",))
_COMPLETIONS = Operation("completions", openai_chat.completion, openai_chat.completion_frames)
_EMBEDDINGS = Operation("embeddings", openai_lists.embeddings, needs=("input",))

_VERSION_1: Final = {
    "chat/completions": _CHAT,
    "completions": _COMPLETIONS,
    "embeddings": _EMBEDDINGS,
    "moderations": Operation("moderations", openai_lists.moderations, needs=("input",)),
    "responses": Operation("responses", openai_responses.response, openai_responses.response_frames, ("model",)),
}
_AZURE: Final = {"chat/completions": _AZURE_CHAT, "completions": _COMPLETIONS, "embeddings": _EMBEDDINGS}
_ANTHROPIC: Final = {
    "messages": Operation("messages", anthropic.message, anthropic.message_frames, ("model", "messages", "max_tokens")),
    "messages/count_tokens": Operation("count_tokens", anthropic.count, needs=("model", "messages")),
}

OPERATIONS: Final[Mapping[str, tuple[Vendor, Operation]]] = {
    **{f"/v1/{path}": (Vendor.OPENAI, operation) for path, operation in _VERSION_1.items()},
    **{f"/openai/v1/{path}": (Vendor.AZURE, operation) for path, operation in (_VERSION_1 | _AZURE).items()},
    **{f"/openai/deployments/{{model}}/{path}": (Vendor.AZURE, operation) for path, operation in _AZURE.items()},
    **{f"/v1/{path}": (Vendor.ANTHROPIC, operation) for path, operation in _ANTHROPIC.items()},
}
"""What POST does, by path; ``{model}`` stands for a deployment's name."""

MODELS: Final = {
    Vendor.OPENAI: Operation("models", _openai_models),
    Vendor.AZURE: Operation("models", _openai_models),
    Vendor.ANTHROPIC: Operation("models", _anthropic_models),
}

UNKNOWN: Final = Operation("unknown", _unknown)


def vendor_of(path: str, headers: Mapping[str, str]) -> Vendor:
    """The vendor whose API a call speaks, for paths that do not show it."""
    if path.startswith("/openai/"):
        return Vendor.AZURE
    return Vendor.ANTHROPIC if "anthropic-version" in headers else Vendor.OPENAI


def check(vendor: Vendor, operation: Operation, headers: Mapping[str, str], *, versioned: bool) -> None:
    """Refuse a call as the vendor does without a key or version. *versioned*: the target has the version it needs."""
    if operation is UNKNOWN:
        return
    if words := refusal(vendor, headers):
        raise RequestError(401, words)
    if not versioned:
        raise RequestError(404, "Resource not found: the api-version query parameter is missing.")
    if vendor is Vendor.ANTHROPIC and "anthropic-version" not in headers:
        raise RequestError(400, "anthropic-version: header is required")


def members(body: bytes, operation: Operation) -> Json:
    """The members of a request's body; none for an empty one."""
    try:
        found = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise RequestError(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(found, dict):
        raise RequestError(400, "The JSON body of your request must be an object.")
    if missing := [name for name in operation.needs if found.get(name) is None]:
        raise RequestError(400, f"Missing required parameter: '{missing[0]}'.")
    return found


def reply(operation: Operation, ask: Ask) -> tuple[Json, list[bytes] | None]:
    """The document, and its frames if the request asks for a stream."""
    try:
        document = operation.answer(ask)
        return document, list(operation.frames(ask, document)) if operation.frames and ask.streams else None
    except (AttributeError, LookupError, TypeError, ValueError) as reason:
        raise RequestError(400, f"The demo provider cannot read this request ({reason!r}).") from reason
