"""
How requests of the OpenAI family are brought to canonical form: which members count, and where their order does not.

The rule: only what is named here is dropped or sorted. The answer follows the order of members in a JSON Schema
(OpenAI, "Structured outputs"), and a tool call's arguments reach the model as written. Nothing inside these is named,
so they stay as they came.
"""

from __future__ import annotations

from sidecar.core.dialect import Shape

ATTRIBUTION = frozenset({"user", "safety_identifier", "end_user_id"})
"""Who is behind a call, for the detection of abuse; the answer does not depend on it."""

_PRICE = frozenset({"service_tier", "prompt_cache_key", "prompt_cache_retention"})
"""How fast and at what price the same answer is made."""

_VIEW = frozenset({"stream", "stream_options"})
"""The form in which the answer is sent. It is not part of the question, because each form is made from the other."""

_OPTIONS = {"stream_options": Shape(drop=frozenset({"include_usage"}))}
"""Other options of a stream count: they change what its chunks say."""

_FLAT = Shape()

_PART = Shape(inside={"image_url": _FLAT, "input_audio": _FLAT, "file": _FLAT, "prompt_cache_breakpoint": _FLAT})

_TOOL = Shape(inside={"function": _FLAT, "custom": _FLAT})

_MESSAGE = Shape(inside={"content": _PART, "tool_calls": _TOOL, "function_call": _FLAT, "audio": _FLAT})

_ITEM = Shape(inside={"content": _PART, "output": _PART, "summary": _FLAT})

_CHAT = {
    "messages": _MESSAGE,
    "tools": _TOOL,
    "functions": _FLAT,
    "tool_choice": Shape(inside={"function": _FLAT, "custom": _FLAT, "allowed_tools": Shape(inside={"tools": _TOOL})}),
    "function_call": _FLAT,
    "response_format": Shape(inside={"json_schema": _FLAT}),
    "prediction": Shape(inside={"content": _PART}),
    "audio": _FLAT,
    "reasoning": _FLAT,
}

_RESPONSES = {
    "input": _ITEM,
    "tools": _FLAT,
    "tool_choice": Shape(inside={"tools": _FLAT}),
    "text": Shape(inside={"format": _FLAT}),
    "reasoning": _FLAT,
    "context_management": _FLAT,
    "prompt_cache_options": _FLAT,
    "metadata": _FLAT,
}


CHAT = Shape(drop=ATTRIBUTION | _PRICE | _VIEW | {"prompt_cache_options", "metadata", "store"}, inside=_CHAT | _OPTIONS)
"""``metadata`` and ``store`` change only what the service stores, and calls that are stored are not looked up."""

COMPLETIONS = Shape(drop=ATTRIBUTION | _VIEW, inside=_OPTIONS)

RESPONSES = Shape(drop=ATTRIBUTION | _PRICE | _VIEW, inside=_RESPONSES | _OPTIONS)
"""``metadata`` counts, because the answer repeats it; ``prompt_cache_options`` too, for it can ask for no output."""

INPUT_TOKENS = Shape(inside=_RESPONSES)

EMBEDDINGS = Shape(drop=ATTRIBUTION)

MODERATIONS = Shape(inside={"input": _PART})

SPEECH = Shape(inside={"voice": _FLAT})
