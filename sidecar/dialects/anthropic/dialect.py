"""
Anthropic's API: which calls there are, what in a request changes its answer, and what makes a call stateful.

The rule: tables and pure functions. A call that the tables do not know passes through untouched; a member of a request
that is not named here counts in its key. Facts come from the API's documentation and the types of its SDK (anthropic-py
2.12). ``messages`` reads the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import msgspec

from sidecar.core.dialect import BodyForm, Dialect, Endpoint, Kind, Members, Shape
from sidecar.core.http.sse import frame
from sidecar.core.model import Facts, Head, View
from sidecar.dialects import results, server_tools
from sidecar.dialects.anthropic.messages import ANSWERS
from sidecar.dialects.plain import OPAQUE

# The provider's own prompt cache: it changes the price of an answer, not the answer.
_CACHED: Final = frozenset({"cache_control"})

_ITEM: Final = Shape(drop=_CACHED)
_INNER: Final = Shape(drop=_CACHED, inside={"source": Shape(inside={"content": _ITEM}), "content": _ITEM})
_BLOCK: Final = Shape(drop=_CACHED, inside={"source": Shape(inside={"content": _ITEM}), "content": _INNER})

_SHAPE: Final = Shape(
    # The API's metadata has one member, user_id, which is for the detection of abuse; so metadata does not count at
    # all.
    drop=_CACHED | {"metadata", "service_tier", "speed", "stream"},
    inside={
        "messages": Shape(inside={"content": _BLOCK}),
        "output_config": Shape(inside={"format": Shape()}),
        "system": _ITEM,
        "thinking": Shape(),
        "tool_choice": Shape(),
        "tools": _ITEM,
    },
)
"""
The deepest known place is a block in the content of a document in a tool result. Schemas, tool inputs and examples are
not such objects, so the order of their members counts.
"""

_STATEFUL: Final = (
    ("container", "container"),
    ("mcp_servers", "server-tools"),
    ("diagnostics", "diagnostics"),
    ("thread", "stateful"),
    ("fallback_credit_token", "stateful"),
)
"""Members of a request that mean state or effects on the server, and the reason that each gives."""

_CLIENT_TOOLS: Final = ("bash_", "browser_", "computer_", "memory_", "text_editor_")
"""Prefixes of tools that Anthropic defines and the caller runs. All others run on the server, also new ones."""


_ERROR_TYPES: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The API's word for an error, by status; other 4xx are ``invalid_request_error``, other 5xx ``api_error``."""


def _read(members: Members) -> Facts:
    """The facts of a message request. What is behind a URL may change, so such a question has no single answer."""
    model, stream, temperature = members.get("model"), members.get("stream", False), members.get("temperature")
    warmth = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    readable = isinstance(model, str) and isinstance(stream, bool) and (warmth or temperature is None)
    found = tuple(dict.fromkeys(_reasons(members)))
    if not readable:
        found = ("unreadable", *(reason for reason in found if reason != "unreadable"))
    return Facts(
        model=model if isinstance(model, str) else "",
        view=View(stream=stream is True),
        deterministic=warmth and temperature == 0 and not _is_remote(members.get("messages")),
        bypass=found[0] if found else "",
        further=found[1:],
    )


def _read_count(members: Members) -> Facts:
    """The facts of a token count: the same question has the same answer, in one form, unless a URL is part of it."""
    remote = _is_remote(members.get("messages"))
    return msgspec.structs.replace(_read(members), deterministic=not remote, view=View())


def _read_nothing(_members: Members) -> Facts:
    """For calls whose body does not matter here."""
    return Facts()


def _reasons(members: Members) -> Iterator[str]:
    """Why a message request is never looked up: all reasons, some more than once."""
    for name, reason in _STATEFUL:
        if members.get(name) is not None:
            yield reason
    yield from server_tools.of(members)
    tools = members.get("tools") or []
    # A large body is read without its messages; the scanner looks for file ids there.
    messages = members.get("messages", [])
    if not isinstance(messages, list) or not isinstance(tools, list):
        yield "unreadable"
        return
    yield from _tools(tools)
    yield from _messages(messages)


def _tools(tools: list[Any]) -> Iterator[str]:
    """As ``_reasons``, for a list of tools."""
    for tool in tools:
        kind = tool.get("type", "custom") if isinstance(tool, dict) else None
        if not isinstance(kind, str | None) or not isinstance(tool, dict):
            yield "unreadable"
        elif kind not in (None, "custom") and not kind.startswith(_CLIENT_TOOLS):
            yield "server-tools"


def _messages(messages: list[Any]) -> Iterator[str]:
    """
    As ``_reasons``, for the content of the messages: files of the account, and tools that are added in the
    conversation.
    """
    blocks: list[Any] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | list):
            yield "unreadable"
            return
        blocks.append(message["content"])
    while blocks:
        block = blocks.pop()
        if isinstance(block, list):
            blocks += block
        elif isinstance(block, dict):
            if block.get("file_id") is not None:
                yield "file-id"
            added = block.get("tool")
            if isinstance(added, dict):
                yield from _tools([added.get("definition", {})])
            blocks += (block.get("content"), block.get("source"))


def _is_remote(messages: Any) -> bool:
    """Whether a block of the messages, however deep, has its source behind a URL."""
    found = [messages] if isinstance(messages, list) else []
    while found:
        for value in found.pop():
            block = value if isinstance(value, dict) else {"content": value}
            if block.get("type") == "url":
                return True
            found += [inner for inner in (block.get("content"), block.get("source")) if isinstance(inner, list)]
            found += [[inner] for inner in (block.get("content"), block.get("source")) if isinstance(inner, dict)]
    return False


def _stateful(name: str) -> Endpoint:
    """An endpoint for what the account stores."""
    return Endpoint(name, Kind.OTHER, BodyForm.RAW, _read_nothing, OPAQUE, bypass="stateful", generating=False)


_MODELS: Final = Endpoint("models", Kind.MODELS, BodyForm.NONE, _read_nothing, results.MODELS, generating=False)
_MODEL: Final = replace(_MODELS, answers=results.MODEL)

_ENDPOINTS: Final = {
    (b"POST", "/v1/messages"): Endpoint("messages", Kind.CHAT, BodyForm.JSON, _read, ANSWERS, _SHAPE),
    (b"POST", "/v1/messages/count_tokens"): Endpoint(
        "count_tokens", Kind.COUNT, BodyForm.JSON, _read_count, results.COUNT, _SHAPE, generating=False
    ),
    (b"GET", "/v1/models"): _MODELS,
}

_MODEL_PATH: Final = re.compile(r"/v1/models/[A-Za-z0-9][A-Za-z0-9._:@-]*")

_FAMILIES: Final = {
    path: _stateful(name)
    for name, path in (
        ("batches", "/v1/messages/batches"),
        *(
            (name, f"/v1/{name}")
            for name in (
                "agents",
                "deployments",
                "deployment_runs",
                "dreams",
                "environments",
                "files",
                "memory_stores",
                "organizations",
                "sessions",
                "skills",
                "tunnels",
                "user_profiles",
                "vaults",
            )
        ),
    )
}
"""Paths of the API below which everything is state of the account."""


def _locate(method: bytes, path: str) -> Endpoint | None:
    """The endpoint for a call. Paths that may be looked up are matched exactly, so none is mistaken."""
    if found := _ENDPOINTS.get((method, path)):
        return found
    if method == b"GET" and _MODEL_PATH.fullmatch(path):
        return _MODEL
    for folder, endpoint in _FAMILIES.items():
        if path == folder or path.startswith(f"{folder}/"):
            return endpoint
    return None


def _error(status: int, code: str, message: str) -> bytes:
    """An error document. *code* goes where the API itself names a cause."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return _error_document(kind, code, message)


def _error_event(code: str, message: str) -> bytes:
    """An error inside a stream, on which the API's clients raise."""
    return frame(_error_document("api_error", code, message), "error")


def _error_document(kind: str, code: str, message: str) -> bytes:
    error = {"type": kind, "message": message, "details": {"error_code": code}}
    return msgspec.json.encode({"type": "error", "error": error})


def _misdirected(_head: Head, _path: str, _query: str) -> str | None:
    """None: the API answers OpenAI-shaped calls too, so no call is certainly meant for another service."""
    return None


ANTHROPIC: Final = Dialect(
    name="anthropic",
    locate=_locate,
    error=_error,
    error_event=_error_event,
    misdirected=_misdirected,
    credentials=(b"x-api-key", b"authorization"),
    scopes=(b"anthropic-workspace-id", b"anthropic-user-profile-id", b"cookie"),
    counting=(b"anthropic-version", b"anthropic-beta"),
    own_hosts=("api.anthropic.com",),
    root="/v1",
    setting="ANTHROPIC_BASE_URL",
    implied=True,  # @ai-sdk/anthropic reads the same variable, and wants a base URL that ends with the root
    request_id=b"request-id",
)
"""``api.anthropic.com``, and what speaks like it. ``?beta=true`` counts: it selects other answers."""
