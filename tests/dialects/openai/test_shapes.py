import json

import pytest

from sidecar.core.dialect import Shape
from sidecar.core.key.canonical import read
from sidecar.dialects.openai import shapes as openai_shapes
from sidecar.dialects.openai.endpoints import CHAT, COMPLETIONS, RESPONSES


def at(shape, *names):
    """The shape of a nested object, None where its members keep their order."""
    for name in names:
        shape = shape.inside.get(name)
        if shape is None:
            return None
    return shape


@pytest.mark.parametrize(
    ("name", "dropped", "kept"),
    [
        (
            "CHAT",
            {"user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "stream",
             "prompt_cache_retention", "prompt_cache_options", "stream_options"},
            {"model", "messages", "temperature", "seed", "n", "tools", "top_k", "moderation"},
        ),
        (
            "COMPLETIONS",
            {"user", "stream", "stream_options"},
            {"model", "prompt", "suffix", "metadata", "store"},
        ),
        (
            "RESPONSES",
            {"user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention", "stream"},
            {"model", "input", "instructions", "include", "metadata", "prompt_cache_options"},
        ),
        ("EMBEDDINGS", {"user"}, {"model", "input", "dimensions", "encoding_format", "stream"}),
        ("INPUT_TOKENS", set(), {"model", "input", "user"}),
        ("MODERATIONS", set(), {"model", "input"}),
        ("SPEECH", set(), {"model", "voice", "stream_format"}),
    ],
)  # fmt: skip
def test_what_counts(name, dropped, kept):
    """Members that do not change the answer are left out of the key; all others count."""
    drop = getattr(openai_shapes, name).drop

    assert (dropped, set()) == (dropped & drop, kept & drop)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("CHAT", ("messages",)),
        ("CHAT", ("messages", "content")),
        ("CHAT", ("messages", "content", "image_url")),
        ("CHAT", ("messages", "tool_calls", "function")),
        ("CHAT", ("tools", "function")),
        ("CHAT", ("tool_choice", "function")),
        ("CHAT", ("response_format", "json_schema")),
        ("RESPONSES", ("input", "content")),
        ("RESPONSES", ("tools",)),
        ("RESPONSES", ("text", "format")),
        ("RESPONSES", ("reasoning",)),
        ("MODERATIONS", ("input", "image_url")),
    ],
    ids=lambda value: value if isinstance(value, str) else ".".join(value),
)
def test_envelopes_are_sorted(name, names):
    """The order of members in the API's own objects has no meaning."""
    assert isinstance(at(getattr(openai_shapes, name), *names), Shape)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("CHAT", ("response_format", "json_schema", "schema")),
        ("CHAT", ("response_format", "schema")),
        ("CHAT", ("tools", "function", "parameters")),
        ("CHAT", ("functions", "parameters")),
        ("CHAT", ("messages", "tool_calls", "function", "arguments")),
        ("CHAT", ("guided_json",)),
        ("RESPONSES", ("text", "format", "schema")),
        ("RESPONSES", ("tools", "parameters")),
        ("RESPONSES", ("tools", "tools")),
        ("RESPONSES", ("input", "arguments")),
    ],
    ids=lambda value: value if isinstance(value, str) else ".".join(value),
)
def test_schemas_and_arguments_keep_their_order(name, names):
    """The order of a schema's members is the order of the answer's."""
    *outer, last = names
    shape = at(getattr(openai_shapes, name), *outer)

    assert last not in shape.inside


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS, RESPONSES], ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize(
    ("options", "same"),
    [
        (None, True),
        ({}, True),
        ({"include_usage": True}, True),
        ({"include_usage": False}, True),
        ({"continuous_usage_stats": True}, False),
        ({"include_usage": True, "include_obfuscation": False}, False),
    ],
    ids=str,
)
def test_options_of_a_stream(endpoint, options, same):
    """Only whether usage is sent is no part of the question."""

    def material(more):
        return read(json.dumps({"model": "m", "store": False, "stream": True} | more).encode(), endpoint, b"", b"k")

    asked = material({"stream_options": options}).material

    assert asked
    assert same == (material({}).material == asked)
