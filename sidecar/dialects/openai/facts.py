"""
Reads requests of the OpenAI family: the model, the view, and why a call is never looked up.

The rule: nothing here raises, whatever the JSON is. The service decides about a member of the wrong type, so such a
call goes there (``unreadable``). Any member may be missing, because only the short ones of a large body are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sidecar.core.dialect import Members
from sidecar.core.model import Facts, View
from sidecar.dialects import server_tools
from sidecar.dialects.openai import counts as openai_counts

Reasons = tuple[tuple[str, Callable[[Members], bool | tuple[str, ...]]], ...]
"""Why a call is never looked up, and the test for it, which may name other reasons; the first that holds is shown."""

_WHOLE = View()
_NUMBERS = frozenset({int, float})
_SWITCHES = frozenset({bool, type(None)})

_OWN_TOOLS = frozenset({"custom", "local_shell", "apply_patch"})
"""
Tools, beside functions, that the caller runs itself. Any other may be run by the service, and what it then finds
changes: ``openrouter:*``, xAI's ``x_search``, Groq's ``browser_search``, Moonshot's ``builtin_function``, Zhipu's
``web_search``, and what has no type (Gemini's ``google_search``).
"""


def chat(members: Members) -> Facts:
    """``POST /chat/completions``."""
    deciding_fields = _messages_of(members.get("messages"))
    found = _found(_CHAT, members) + _refers(deciding_fields)
    remote, count = any(map(_is_remote_within, deciding_fields)), openai_counts.choices(members)
    return _generated(members, found, count, remote=remote, usage_on_request=True)


def completions(members: Members) -> Facts:
    """``POST /completions``."""
    found, count = _found(_COMPLETIONS, members), openai_counts.completions(members)
    return _generated(members, found, count, usage_on_request=True)


def responses(members: Members) -> Facts:
    """``POST /responses``. The service stores the answer, so it is stateful, unless ``store`` is false."""
    remote = _input_is_remote(members)
    return _generated(members, _found(_RESPONSES, members), remote=remote, usage_on_request=False)


def input_tokens(members: Members) -> Facts:
    """``POST /responses/input_tokens``: a count, the same whenever it is asked, unless a URL is part of it."""
    return _computed(members, _COUNT)


def embeddings(members: Members) -> Facts:
    """``POST /embeddings``: the same question has the same answer, unless a URL is part of it."""
    return _computed(members, _ANY, openai_counts.inputs(members.get("input")))


def moderations(members: Members) -> Facts:
    """``POST /moderations``: as embeddings, but that tokens are no input."""
    value = members.get("input")
    is_text = type(value) is str or (type(value) is list and all(type(one) is str for one in value))
    return _computed(members, _ANY, openai_counts.inputs(value) if is_text else 0)


def transcription(members: Members) -> Facts:
    """``POST /audio/transcriptions`` and ``/audio/translations``, whose members are text; no temperature means 0."""
    model, stream, found = members.get("model", ""), members.get("stream"), _found(_ANY, members)
    return Facts(
        model=_text(model),
        view=View(stream=isinstance(stream, str) and stream.lower() in {"true", "1"}),
        deterministic=_is_zero_text(members.get("temperature", "0")),
        bypass=next(iter(found), ""),
        further=found[1:],
        format=_text(members.get("response_format")).strip().lower(),
    )


def speech(members: Members) -> Facts:
    """``POST /audio/speech``: each reading of a text sounds a little different."""
    found = _found(_ANY, members)
    return Facts(model=_text(members.get("model")), bypass=next(iter(found), ""), further=found[1:])


def nothing(members: Members) -> Facts:
    """Operations whose body is empty or does not matter."""
    del members
    return Facts()


def _generated(
    members: Members, reasons: tuple[str, ...], expects: int = 0, *, remote: bool = False, usage_on_request: bool
) -> Facts:
    """
    The facts of a generating call that is never looked up for these *reasons*. *remote*: the call has a URL, and what
    is behind it may change.
    """
    stream = members.get("stream") is True
    usage, inject = True, False
    if stream and usage_on_request:
        options = members.get("stream_options", {})
        said = isinstance(options, dict) and "include_usage" in options
        usage = said and options["include_usage"] is True
        inject = isinstance(options, dict) and not said
    return Facts(
        model=_text(members.get("model")),
        view=_WHOLE if not stream else View(stream=True, usage=usage),
        deterministic=_is_zero(members.get("temperature")) and not remote,
        seeded=type(members.get("seed")) in _NUMBERS and not remote,
        bypass=next(iter(reasons), ""),
        further=reasons[1:],
        inject_usage=inject and not reasons,
        expects=expects,
    )


def _computed(members: Members, reasons: Reasons, expects: int = 0) -> Facts:
    found = _found(reasons, members)
    return Facts(
        model=_text(members.get("model")),
        deterministic=not _input_is_remote(members),
        bypass=next(iter(found), ""),
        further=found[1:],
        expects=expects,
    )


def _found(reasons: Reasons, members: Members) -> tuple[str, ...]:
    """All reasons that hold, each once; nearly every call has none."""
    found: tuple[str, ...] = ()
    for reason, holds in reasons:
        if holding := holds(members):
            found += holding if isinstance(holding, tuple) else (reason,)
    return tuple(dict.fromkeys(found)) if found else found


def _given(name: str) -> Callable[[Members], bool]:
    """The member is said and not switched off."""
    return lambda members: members.get(name) is not None and members[name] is not False


def _model_unreadable(members: Members) -> bool:
    return not isinstance(members.get("model", ""), str)


def _unreadable(members: Members) -> bool:
    options, tools = members.get("stream_options"), members.get("tools")
    return (
        _model_unreadable(members)
        or type(members.get("stream")) not in _SWITCHES
        or (options is not None and (type(options) is not dict or type(options.get("include_usage")) not in _SWITCHES))
        or (tools is not None and (type(tools) is not list or not all(type(tool) is dict for tool in tools)))
    )


def _uses_server_tools(members: Members) -> bool:
    tools = members.get("tools")
    return tools is not None and not all(map(_is_own, _objects(tools)))


def _is_own(tool: Mapping[str, Any]) -> bool:
    match tool.get("type"):
        case "function":
            function = tool.get("function")
            name = (function if isinstance(function, Mapping) else tool).get("name")
            return name is None or (type(name) is str and name not in server_tools.FUNCTIONS)
        case str(kind) if kind in _OWN_TOOLS:
            return True
        case "shell":
            environment = tool.get("environment")
            return isinstance(environment, Mapping) and environment.get("type") == "local"
        case "tool_search":
            return tool.get("execution") == "client"
        case "namespace":
            return all(nested.get("type") in ("function", "custom") for nested in _objects(tool.get("tools")))
        case _:
            return False


def _refers(deciding_fields: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The reasons of messages that name what only the service has: a file, or the sound of an earlier answer."""
    if not deciding_fields:
        return ()
    spoken = [audio for message in deciding_fields for audio in _objects(message.get("audio"))]
    named = ("file-id",) if any(map(_names_file_within, deciding_fields)) else ()
    return (*named, "stateful") if any(audio.get("id") is not None for audio in spoken) else named


def _input_names_file(members: Members) -> bool:
    return any(map(_names_file_within, _messages_of(members.get("input"))))


def _input_is_remote(members: Members) -> bool:
    return any(map(_is_remote_within, _messages_of(members.get("input"))))


def _names_item(members: Members) -> bool:
    """Whether an item is named only by its id; the ``type`` of such a reference may be left out."""
    return any(
        item.get("type") == "item_reference" or (item.get("type") is None and "id" in item and "role" not in item)
        for item in _objects(members.get("input"))
    )


def _touches_prompt_cache(members: Members) -> bool:
    """Whether the call is about the provider's prompt cache itself: to warm it, or to report on it for a response."""
    return any(
        options.get("prewarm") not in (None, False) or options.get("comparison_response_id") is not None
        for options in _objects(members.get("prompt_cache_options"))
    )


def _names_file_within(message: Mapping[str, Any]) -> bool:
    parts = (*_objects(message.get("content")), *_objects(message.get("output")))
    return _names_file(message) or any(map(_names_file, parts))


def _names_file(part: Mapping[str, Any]) -> bool:
    if part.get("file_id") is not None:
        return True
    return any(type(value) is dict and value.get("file_id") is not None for value in part.values())


def _is_remote_within(message: Mapping[str, Any]) -> bool:
    return any(map(_is_remote, (message, *_objects(message.get("content")), *_objects(message.get("output")))))


def _is_remote(part: Mapping[str, Any]) -> bool:
    """Whether a URL in the part leads elsewhere: ``image_url``, ``file_url``, and ``url`` in the former's object."""
    for name, value in part.items():
        if type(value) is str and name.endswith("url") and not value.startswith("data:"):
            return True
        if type(value) is dict and any(
            type(url) is str and inner.endswith("url") and not url.startswith("data:") for inner, url in value.items()
        ):
            return True
    return False


def _messages_of(value: object) -> Sequence[Mapping[str, Any]]:
    """The objects with more than a role and its text. Most messages have no more, and this runs on every call."""
    return [
        one
        for one in (value if type(value) is list else (value,))
        if type(one) is dict and (len(one) != 2 or type(one.get("content")) is not str or "role" not in one)
    ]


def _objects(value: object) -> Sequence[Mapping[str, Any]]:
    """The JSON object, or those in the array; of anything else, none."""
    if type(value) is list:
        return [element for element in value if type(element) is dict]
    return (value,) if type(value) is dict else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_zero(value: object) -> bool:
    return type(value) in _NUMBERS and value == 0


def _is_zero_text(value: object) -> bool:
    try:
        return isinstance(value, str) and float(value) == 0
    except ValueError:
        return False


_ANY: Reasons = (("unreadable", _model_unreadable),)

_COMPLETIONS: Reasons = (("unreadable", _unreadable), ("server-tools", server_tools.of))

_CHAT: Reasons = (
    ("unreadable", _unreadable),
    ("server-tools", server_tools.of),
    ("server-tools", _uses_server_tools),
    ("store", _given("store")),
)

_COUNT: Reasons = (
    ("unreadable", _model_unreadable),
    ("previous-response-id", _given("previous_response_id")),
    ("conversation", _given("conversation")),
    ("item-reference", _names_item),
    ("file-id", _input_names_file),
)

# Reasons that need state stand before ``store``, because the caller can remedy ``store`` alone.
_RESPONSES: Reasons = (
    ("unreadable", _unreadable),
    ("previous-response-id", _given("previous_response_id")),
    ("conversation", _given("conversation")),
    ("background", _given("background")),
    ("prompt-template", _given("prompt")),
    ("server-tools", server_tools.of),
    ("server-tools", _uses_server_tools),
    ("item-reference", _names_item),
    ("file-id", _input_names_file),
    ("stateful", _touches_prompt_cache),
    ("store", lambda members: members.get("store") is not False),
)
