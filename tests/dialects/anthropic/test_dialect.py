"""Anthropic's requests: which calls are known, what they say, what counts in their key; and errors."""

import msgspec
import pytest
from anthropic import Anthropic

from sidecar.core.dialect import BodyForm, Kind
from sidecar.core.key import canonical
from sidecar.core.model import Facts, Head, View
from sidecar.core.request.principal import presented
from sidecar.core.request.roles import Roles
from sidecar.core.rules import Region, Service
from sidecar.dialects.anthropic.dialect import ANTHROPIC

MESSAGES = ANTHROPIC.locate(b"POST", "/v1/messages")
COUNT = ANTHROPIC.locate(b"POST", "/v1/messages/count_tokens")
HELLO = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


def said(*content, role="user"):
    """A question with these content blocks."""
    return {"messages": [{"role": role, "content": list(content)}]}


@pytest.mark.parametrize(
    ("method", "path", "name", "bypass"),
    [
        (b"POST", "/v1/messages", "messages", ""),
        (b"POST", "/v1/messages/count_tokens", "count_tokens", ""),
        (b"GET", "/v1/models", "models", ""),
        (b"GET", "/v1/models/claude-sonnet-4-6", "models", ""),
        (b"POST", "/v1/messages/batches", "batches", "stateful"),
        (b"GET", "/v1/messages/batches/msgbatch_01/results", "batches", "stateful"),
        (b"DELETE", "/v1/files/file_01", "files", "stateful"),
        (b"GET", "/v1/files/../messages", "files", "stateful"),
        (b"POST", "/v1/skills", "skills", "stateful"),
        (b"GET", "/v1/sessions/s/events/stream", "sessions", "stateful"),
    ],
)
def test_known_calls(method, path, name, bypass):
    """The tables know the API's calls; whatever is the account's state is never looked up."""
    endpoint = ANTHROPIC.locate(method, path)

    assert (name, bypass) == (endpoint.name, endpoint.bypass)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (b"GET", "/v1/messages"),
        (b"POST", "/v1/messages/"),
        (b"POST", "/v1/messages/x.css"),
        (b"POST", "/v1/messages.json"),
        (b"POST", "/v1%2Fmessages"),
        (b"POST", "/V1/messages"),
        (b"POST", "/v1/messages;x"),
        (b"POST", "/v1/messages\n"),
        (b"POST", "/v1/complete"),
        (b"POST", "/v1/chat/completions"),
        (b"GET", "/v1/models/.."),
        (b"GET", "/v1/models/a/b"),
        (b"GET", "/v1/models/a\n"),
        (b"POST", "/v1/models"),
        (b"GET", "/v1/filesystem"),
        (b"GET", "/"),
    ],
)
def test_unknown_calls(method, path):
    """What is not exactly in the tables passes through untouched."""
    assert ANTHROPIC.locate(method, path) is None


def test_kinds_and_forms():
    """Messages generate and have two forms; counts and lists have one and cost nothing."""
    models = ANTHROPIC.locate(b"GET", "/v1/models")

    assert [(endpoint.kind, endpoint.body, endpoint.generating) for endpoint in (MESSAGES, COUNT, models)] == [
        (Kind.CHAT, BodyForm.JSON, True),
        (Kind.COUNT, BodyForm.JSON, False),
        (Kind.MODELS, BodyForm.NONE, False),
    ]
    assert [endpoint.answers.streams for endpoint in (MESSAGES, COUNT, models)] == [True, False, False]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, Facts(model="claude-sonnet-4-6")),
        ({"temperature": 0}, Facts(model="claude-sonnet-4-6", deterministic=True)),
        ({"temperature": 0.0}, Facts(model="claude-sonnet-4-6", deterministic=True)),
        ({"temperature": 0.1}, Facts(model="claude-sonnet-4-6")),
        ({"temperature": None}, Facts(model="claude-sonnet-4-6")),
        ({"top_k": 1}, Facts(model="claude-sonnet-4-6")),
        ({"stream": True}, Facts(model="claude-sonnet-4-6", view=View(stream=True))),
        ({"stream": False}, Facts(model="claude-sonnet-4-6")),
    ],
    ids=str,
)
def test_facts(members, expected):
    """Only temperature 0 said aloud is deterministic, and a stream always shows its usage."""
    assert expected == MESSAGES.read(HELLO | members)


CUSTOM = {"name": "f", "input_schema": {"type": "object"}}
FILE = {"type": "document", "source": {"type": "file", "file_id": "file_01"}}
ADDITION = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"type": "web_fetch_20260318"}}}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"container": "container_01"}, "container"),
        ({"container": None}, ""),
        ({"mcp_servers": [{"type": "url"}]}, "server-tools"),
        ({"diagnostics": {"previous_message_id": None}}, "diagnostics"),
        ({"thread": {"type": "create"}}, "stateful"),
        ({"fallback_credit_token": "t"}, "stateful"),
        ({"tools": [CUSTOM, CUSTOM | {"type": "custom"}, CUSTOM | {"type": None}]}, ""),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, ""),
        ({"tools": [{"type": "text_editor_20250728", "name": "e"}]}, ""),
        ({"tools": [{"type": "computer_toolset_20260801"}, {"type": "browser_toolset_20260801"}]}, ""),
        ({"tools": [{"type": "memory_20250818", "name": "memory"}]}, ""),
        ({"tools": [CUSTOM, {"type": "web_search_20250305", "name": "web_search"}]}, "server-tools"),
        ({"tools": [{"type": "web_fetch_20260318"}]}, "server-tools"),
        ({"tools": [{"type": "code_execution_20250825"}]}, "server-tools"),
        ({"tools": [{"type": "tool_search_tool_bm25"}]}, "server-tools"),
        ({"tools": [{"type": "advisor_20260301"}]}, "server-tools"),
        ({"tools": [{"type": "mcp_toolset"}]}, "server-tools"),
        ({"tools": [{"type": "tool_of_tomorrow_20300101"}]}, "server-tools"),
        (said(ADDITION, role="system"), "server-tools"),
        (said(FILE), "file-id"),
        (said({"type": "image", "source": {"type": "file", "file_id": "file_01"}}), "file-id"),
        (said({"type": "container_upload", "file_id": "file_01"}), "file-id"),
        (said({"type": "tool_result", "tool_use_id": "t", "content": [FILE]}), "file-id"),
        (said({"type": "document", "source": {"type": "content", "content": [FILE]}}), "file-id"),
        (said({"type": "image", "source": {"type": "base64", "data": "aGk="}}), ""),
        (said({"type": "text", "text": "x", "citations": [{"file_id": None}]}, role="assistant"), ""),
        (said({"type": "tool_use", "id": "t", "name": "f", "input": {"file_id": "mine"}}), ""),
        ({"model": None}, "unreadable"),
        ({"stream": "yes"}, "unreadable"),
        ({"stream": None}, "unreadable"),
        ({"temperature": "0"}, "unreadable"),
        ({"temperature": False}, "unreadable"),
        ({"tools": {"f": 1}}, "unreadable"),
        ({"tools": ["f"]}, "unreadable"),
        ({"tools": [{"type": 5}]}, "unreadable"),
        ({"messages": "Hello"}, "unreadable"),
        ({"messages": ["Hello"]}, "unreadable"),
        ({"messages": [{"role": "user"}]}, "unreadable"),
    ],
    ids=str,
)
def test_bypass(members, reason):
    """State, effects, the account's files and what cannot be read are never looked up; a count neither."""
    facts = MESSAGES.read(HELLO | members)

    assert reason == facts.bypass
    assert reason == COUNT.read(HELLO | members).bypass
    assert not (reason == "unreadable" and facts.deterministic)


def test_further_reasons():
    """All of them, each once, after the one that is told."""
    tools = {"tools": [{"type": "web_search_20250305"}, {"type": "web_fetch_20260318"}]}
    several = HELLO | said(FILE) | tools | {"container": "c", "thread": "t", "stream": "yes"}
    facts, none = MESSAGES.read(several), MESSAGES.read(HELLO)

    assert ("unreadable", ("container", "stateful", "server-tools", "file-id")) == (facts.bypass, facts.further)
    assert ("", ()) == (none.bypass, none.further)


def test_a_large_body_is_read_without_its_messages():
    """Above 256 KiB only short members are read: facts and tools, and file ids wherever they stand."""
    large = HELLO | said({"type": "image", "source": {"type": "base64", "data": "A" * 300_000}}) | {"temperature": 0}

    def facts(members):
        return canonical.read(msgspec.json.encode(members), MESSAGES, b"application/json", b"key").facts

    assert Facts(model="claude-sonnet-4-6", deterministic=True) == facts(large)
    assert facts(large | {"tools": [{"type": "web_search_20250305"}]}).bypass == "server-tools"
    assert facts(large | {"system": [FILE]}).bypass == "file-id"


LINK = {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (LINK, False),
        ({"type": "tool_result", "content": [LINK]}, False),
        ({"type": "document", "source": {"type": "content", "content": [LINK]}}, False),
        ({"type": "image", "source": {"type": "base64", "data": "AAAA"}}, True),
        ({"type": "text", "text": "https://x"}, True),
    ],
    ids=str,
)
def test_what_stands_behind_a_link_changes(block, expected):
    """A message with a link has no one answer, and no one count; small or large."""
    members = HELLO | said(block) | {"temperature": 0}
    large = HELLO | said(block, {"type": "text", "text": "x" * 300_000}) | {"temperature": 0}
    found = canonical.read(msgspec.json.encode(large), MESSAGES, b"application/json", b"key").facts

    assert (expected, "") == (MESSAGES.read(members).deterministic, MESSAGES.read(members).bypass)
    assert (expected, "") == (found.deterministic, found.bypass)
    assert expected == COUNT.read(members).deterministic


def test_a_count_is_deterministic():
    """The same text always has the same number of tokens, whatever the temperature."""
    assert Facts(model="claude-sonnet-4-6", deterministic=True) == COUNT.read(HELLO)


def material(members):
    """The canonical form of a message request."""
    reading = canonical.read(msgspec.json.encode(members), MESSAGES, b"application/json", b"key")
    assert reading.material
    return reading.material


CACHED = {"cache_control": {"type": "ephemeral"}}
TEXT = {"type": "text", "text": "x"}
PAGE = {"type": "document", "source": {"type": "content", "content": [TEXT]}, "title": "t"}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [TEXT, PAGE]}


def reversed_members(value):
    """The same object written from its end."""
    return dict(reversed(value.items()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HELLO, reversed_members(HELLO)),
        (HELLO, HELLO | {"metadata": {"user_id": "u"}}),
        (HELLO, HELLO | {"metadata": {}, "stream": True, "service_tier": "auto", "speed": "fast"}),
        (HELLO, HELLO | CACHED),
        (HELLO | {"system": [TEXT]}, HELLO | {"system": [TEXT | CACHED]}),
        (HELLO | {"tools": [CUSTOM]}, HELLO | {"tools": [reversed_members(CUSTOM | CACHED)]}),
        (HELLO | said(TEXT), HELLO | said(reversed_members(TEXT | CACHED))),
        (HELLO | said(RESULT), HELLO | said(reversed_members(RESULT | CACHED))),
        (HELLO | said(RESULT), HELLO | said(RESULT | {"content": [TEXT | CACHED, reversed_members(PAGE) | CACHED]})),
        (
            HELLO | said(RESULT),
            HELLO
            | said(RESULT | {"content": [TEXT, PAGE | {"source": {"content": [TEXT | CACHED], "type": "content"}}]}),
        ),
        (
            HELLO | {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}}},
            HELLO | {"output_config": {"format": {"schema": {"a": 1}, "type": "json_schema"}, "effort": "low"}},
        ),
    ],
)
def test_one_meaning_is_one_key(one, other):
    """Order in envelopes, attribution, form, price and the provider's own prompt cache change no key."""
    assert material(one) == material(other)


def with_schema(schema):
    """A question with a tool of this schema."""
    return HELLO | {"tools": [CUSTOM | {"input_schema": schema}]}


def with_input(value):
    """A conversation in which a tool was called like this."""
    return HELLO | said({"type": "tool_use", "id": "t", "name": "f", "input": value}, role="assistant")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HELLO, HELLO | {"max_tokens": 10}),
        (HELLO, HELLO | {"tool_of_tomorrow": 1}),
        (HELLO, HELLO | {"thinking": {"type": "adaptive"}}),
        (HELLO, HELLO | {"inference_geo": "us"}),
        (HELLO, HELLO | said(TEXT)),
        (with_schema({"a": 1, "b": 2}), with_schema({"b": 2, "a": 1})),
        (with_schema({"a": 1}), with_schema({"a": 1} | CACHED)),
        (with_input({"a": 1, "b": 2}), with_input({"b": 2, "a": 1})),
        (with_input({"a": 1}), with_input({"a": 1} | CACHED)),
        (HELLO | said(TEXT, PAGE), HELLO | said(PAGE, TEXT)),
    ],
)
def test_other_meanings_are_other_keys(one, other):
    """Anything else counts: unknown members, order inside schemas and tool inputs, order of blocks."""
    assert material(one) != material(other)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (421, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_the_api_form(status, kind):
    """An error says its type by status, our words, and our code where the SDK looks for one."""
    body = ANTHROPIC.error(status, "no-region", "Nobody answers.")

    error = {"type": kind, "message": "Nobody answers.", "details": {"error_code": "no-region"}}
    assert {"type": "error", "error": error} == msgspec.json.decode(body)


def test_who_asks_and_what_counts():
    """The headers that the real SDK sends are where the dialect looks for credentials and versions."""
    with Anthropic(api_key="sk-ant-test") as client:
        sent = {name.lower().encode() for name in client.default_headers | client.auth_headers}

    assert sent & set(ANTHROPIC.credentials)
    assert b"cookie" in ANTHROPIC.scopes
    assert sent & set(ANTHROPIC.counting) == {b"anthropic-version"}
    assert ANTHROPIC.misdirected(Head(b"POST", b"/v1/messages", 1, (), {}), "/v1/messages", "") is None


def test_one_key_is_one_caller_in_either_header():
    """Older SDKs send the key as x-api-key, newer ones as a bearer token."""
    roles = Roles(Service("s", ANTHROPIC, (Region("r", "https://api.anthropic.com"),)))
    older = presented(ANTHROPIC, roles, {b"x-api-key": b"sk-ant-1"}, b"")

    assert older == presented(ANTHROPIC, roles, {b"authorization": b"Bearer sk-ant-1"}, b"")
    assert older != presented(ANTHROPIC, roles, {b"authorization": b"Bearer sk-ant-2"}, b"")
