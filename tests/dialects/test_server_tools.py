"""The names by which services are asked to do more than answer, whoever is called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.key import canonical
from sidecar.core.key.json_scanner import CONTENT
from sidecar.dialects import DIALECTS, server_tools
from sidecar.dialects.openai import facts as openai_facts

CHAT = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}
COMPLETE = {"model": "gpt-4o", "prompt": "hi"}
RESPOND = {"model": "gpt-5", "input": "hi", "store": False}
MESSAGE = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
NAMES = [*server_tools.MEMBERS, *sorted(server_tools.SONAR_MEMBERS), *sorted(server_tools.KEPT_MEMBERS), "preset"]
MESSAGES = DIALECTS["anthropic"].locate(b"POST", "/v1/messages")

SPEAKERS = {
    "chat": (openai_facts.chat, CHAT),
    "completions": (openai_facts.completions, COMPLETE),
    "responses": (openai_facts.responses, RESPOND),
    "messages": (MESSAGES.read, MESSAGE),
}


def bypass(speaker, **members):
    read, usual = SPEAKERS[speaker]
    return read(usual | members).bypass


@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        # OpenAI, Azure
        ({"web_search_options": {}}, "server-tools"),
        ({"web_search_options": {"search_context_size": "low"}}, "server-tools"),
        ({"web_search_options": None}, ""),
        ({"data_sources": [{"type": "azure_search"}]}, "server-tools"),
        ({"data_sources": []}, ""),
        ({"model": "gpt-4o-search-preview"}, "server-tools"),
        ({"model": "gpt-4o-mini-search-preview-2025-03-11"}, "server-tools"),
        ({"model": "gpt-5-search-api"}, "server-tools"),
        ({"model": "o3-deep-research"}, "server-tools"),
        ({"model": "o4-mini-deep-research-2025-06-26"}, "server-tools"),
        # OpenRouter
        ({"plugins": [{"id": "web"}]}, "server-tools"),
        ({"plugins": [{"id": "web", "enabled": False}]}, "server-tools"),
        ({"plugins": []}, ""),
        ({"plugins": None}, ""),
        ({"model": "openai/gpt-4o:online"}, "server-tools"),
        ({"model": "OpenAI/GPT-4o:Online"}, "server-tools"),
        ({"model": "openai/gpt-4o:online@preset/x"}, "prompt-template"),
        ({"model": "openai/gpt-4o:free"}, ""),
        ({"model": "openai/gpt-4o", "models": ["a/b", "c/d:online"]}, "server-tools"),
        ({"model": "openai/gpt-4o", "models": ["a/b", 7, None]}, ""),
        ({"models": "a/b"}, ""),
        ({"preset": "mail"}, "prompt-template"),
        ({"preset": None}, ""),
        ({"model": "@preset/mail"}, "prompt-template"),
        ({"model": "openai/gpt-4o@preset/mail"}, "prompt-template"),
        ({"models": ["@preset/mail"]}, "prompt-template"),
        # xAI
        ({"search_parameters": {}}, "server-tools"),
        ({"search_parameters": {"mode": "auto"}}, "server-tools"),
        ({"search_parameters": {"mode": "on"}}, "server-tools"),
        ({"search_parameters": {"mode": "off"}}, ""),
        ({"search_parameters": None}, ""),
        # DashScope
        ({"enable_search": True}, "server-tools"),
        ({"enable_search": "true"}, "server-tools"),
        ({"enable_search": False}, ""),
        ({"search_options": {"forced_search": True}}, "server-tools"),
        ({"enable_code_interpreter": True}, "server-tools"),
        ({"enable_code_interpreter": False}, ""),
        ({"model": "qwen-deep-research"}, "server-tools"),
        # Perplexity
        ({"model": "sonar"}, "server-tools"),
        ({"model": "sonar-pro"}, "server-tools"),
        ({"model": "perplexity/sonar-reasoning-pro"}, "server-tools"),
        ({"model": "llama-3.1-sonar-large-128k-online"}, "server-tools"),
        ({"model": "sonar", "disable_search": True}, ""),
        ({"model": "sonar", "disable_search": False}, "server-tools"),
        ({"model": "sonar", "disable_search": "true"}, "server-tools"),
        ({"model": "sonar-deep-research", "disable_search": True}, "server-tools"),
        ({"model": "sonar", "disable_search": True, "enable_search": True}, "server-tools"),
        ({"model": "r1-1776"}, ""),
        ({"search_mode": "academic"}, "server-tools"),
        ({"search_domain_filter": ["example.org"]}, "server-tools"),
        ({"search_recency_filter": "week"}, "server-tools"),
        ({"return_related_questions": True}, "server-tools"),
        ({"return_related_questions": False}, ""),
        ({"search_mode": "web", "disable_search": True}, ""),
        ({"use_threads": True}, "stateful"),
        ({"thread_id": "t"}, "stateful"),
        ({"file_workspace_id": "w"}, "stateful"),
        # Groq
        ({"model": "groq/compound"}, "server-tools"),
        ({"model": "groq/compound-mini"}, "server-tools"),
        ({"model": "compound-beta"}, "server-tools"),
        ({"model": "compounds"}, ""),
        ({"search_settings": {"include_domains": []}}, "server-tools"),
        ({"compound_custom": {"tools": {"enabled_tools": []}}}, "server-tools"),
        ({"include_domains": ["example.org"]}, "server-tools"),
        ({"exclude_domains": []}, ""),
        ({"search_language_filter": ["en"]}, "server-tools"),
        ({"image_domain_filter": ["example.org"]}, "server-tools"),
        ({"image_format_filter": ["png"]}, "server-tools"),
        ({"media_response": {"overrides": {"return_videos": True}}}, "server-tools"),
        ({"search_type": "pro"}, "server-tools"),
        ({"search_not_yet_invented": 1}, "server-tools"),
        ({"search_not_yet_invented": False}, ""),
        ({"search_not_yet_invented": 1, "disable_search": True}, ""),
        ({"extra_body": {"search_not_yet_invented": 1}}, "server-tools"),
        # Baidu
        ({"web_search": {"enable": True}}, "server-tools"),
        ({"web_search": {"enable": True, "search_mode": "auto"}}, "server-tools"),
        ({"web_search": {"search_mode": "required"}}, "server-tools"),
        ({"web_search": True}, "server-tools"),
        ({"web_search": {"enable": False, "enable_trace": True}}, ""),
        ({"web_search": {}}, ""),
        ({"web_search": None}, ""),
        ({"extra_body": {"web_search": {"enable": True}}}, "server-tools"),
        # Hunyuan
        ({"enable_enhancement": True}, "server-tools"),
        ({"enable_enhancement": False}, ""),
        ({"force_search_enhancement": True}, "server-tools"),
        ({"enable_deep_search": True}, "server-tools"),
        ({"enable_speed_search": True}, "server-tools"),
        # Venice
        ({"venice_parameters": {"enable_web_search": "auto"}}, "server-tools"),
        ({"venice_parameters": {"enable_web_search": "on"}}, "server-tools"),
        ({"venice_parameters": {"enable_web_scraping": True}}, "server-tools"),
        ({"venice_parameters": {"not_yet_invented": True}}, "server-tools"),
        ({"venice_parameters": {"enable_web_search": "off", "enable_web_scraping": False}}, ""),
        ({"venice_parameters": {"include_venice_system_prompt": True, "disable_thinking": True}}, ""),
        ({"venice_parameters": {"enable_web_citations": True}}, ""),
        ({"venice_parameters": {}}, ""),
        ({"venice_parameters": {"character_slug": "x"}}, "prompt-template"),
        ({"extra_body": {"venice_parameters": {"enable_web_search": "on"}}}, "server-tools"),
        ({"extra_body": {"venice_parameters": {"character_slug": "x"}}}, "prompt-template"),
        ({"model": "default:enable_web_search=auto"}, "server-tools"),
        ({"model": "qwen3-4b:disable_thinking=true&enable_web_scraping=true"}, "server-tools"),
        ({"model": "default:enable_web_search=off"}, ""),
        ({"model": "default:enable_web_scraping=false"}, ""),
        ({"model": "default:character_slug=x"}, "prompt-template"),
        # Cohere, Anthropic
        ({"connectors": [{"id": "web-search"}]}, "server-tools"),
        ({"mcp_servers": [{"type": "url"}]}, "server-tools"),
        # Gemini's compatible endpoints
        ({"extra_body": {"google": {"cached_content": "cachedContents/1"}}}, "stateful"),
        ({"google": {"cached_content": "cachedContents/1"}}, "stateful"),
        ({"extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}}, ""),
        ({"google": {"thinking_config": {}, "google_search": {}}}, "server-tools"),
        # what gateways take for members
        ({"extra_body": {"enable_search": True}}, "server-tools"),
        ({"extra_body": {"search_parameters": {"mode": "off"}}}, ""),
        ({"extra_body": {"tools": [{"google_search": {}}]}}, "server-tools"),
        ({"extra_body": {"top_k": 1}}, ""),
        ({"extra_body": "x"}, ""),
        # what only looks like it
        ({"model": "text-search"}, ""),
        ({"model": "research"}, ""),
        ({"model": "sonarium"}, ""),
        ({"model": "resonar"}, ""),
        ({"search": "x"}, ""),
    ],
    ids=str,
)
def test_names(speaker, members, expected):
    """Each service's names count wherever they are said, and what is switched off as its service says does not."""

    assert expected == bypass(speaker, **members)


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (FUNCTION, ""),
        ({"type": "function", "name": "f"}, ""),
        ({"type": "function"}, ""),
        ({"type": "custom", "custom": {"name": "f"}}, ""),
        ({"type": "openrouter:web_search"}, "server-tools"),
        ({"type": "openrouter:datetime"}, "server-tools"),
        ({"type": "web_search"}, "server-tools"),
        ({"type": "x_search"}, "server-tools"),
        ({"type": "code_execution"}, "server-tools"),
        ({"type": "collections_search"}, "server-tools"),
        ({"type": "live_search"}, "server-tools"),
        ({"type": "browser_search"}, "server-tools"),
        ({"type": "code_interpreter"}, "server-tools"),
        ({"type": "builtin_function", "function": {"name": "$web_search"}}, "server-tools"),
        ({"type": "web_search", "web_search": {"enable": True}}, "server-tools"),
        ({"type": "retrieval", "retrieval": {"knowledge_id": "k"}}, "server-tools"),
        ({"type": "document_library"}, "server-tools"),
        ({"google_search": {}}, "server-tools"),
        ({"function": {"name": "f"}}, "server-tools"),
        ({"type": "function", "function": {"name": "litellm_web_search"}}, "server-tools"),
        ({"type": "function", "name": "litellm_web_search"}, "server-tools"),
        ({"type": "function", "function": "litellm_web_search"}, ""),
    ],
    ids=str,
)
def test_tools(tool, expected):
    """A tool is the caller's own only where it is known as that."""

    assert [expected] * 2 == [bypass(speaker, tools=[FUNCTION, tool]) for speaker in ("chat", "responses")]


@pytest.mark.parametrize("speaker", SPEAKERS)
@given(
    name=st.sampled_from([name for name in NAMES if name != "venice_parameters"]),
    value=st.recursive(
        st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ).filter(lambda value: bool(value) and value not in ({"mode": "off"}, {"enable": False})),
)  # fmt: skip
def test_any_member_that_says_something(speaker, name, value):
    """Whatever is said there, the call is not looked up."""

    assert bypass(speaker, **{name: value})


@given(st.dictionaries(st.sampled_from([*server_tools.MEMBERS, "model", "models", "google", "extra_body", "tools"]),
       st.recursive(st.none() | st.booleans() | st.floats() | st.text(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)))  # fmt: skip
def test_reading_never_raises(members):
    """Whatever JSON comes, there are reasons or none; what names something stored stands first."""
    order = (server_tools.PRESET, server_tools.KEPT, server_tools.SERVER_TOOLS)

    assert [reason for reason in order if reason in server_tools.of(members)] == [*server_tools.of(members)]


@pytest.mark.parametrize("name", NAMES)
def test_large_bodies(name):
    """Above 256 KiB the short members are still known, and none of these is content that may be long."""
    long = {"messages": [{"role": "user", "content": "x" * 300_000}]}
    endpoint = DIALECTS["openai"].locate(b"POST", "/v1/chat/completions")

    def found(value):
        body = json.dumps({**CHAT, **long, name: value}).encode()
        return canonical.read(body, endpoint, b"application/json", b"key").facts.bypass

    assert found(["x"]) == bypass("chat", **{name: ["x"]}) != ""
    assert "" == found(None)
    assert found(["x" * 100_000])
    assert name not in CONTENT


def test_no_member_is_left_out_of_the_key():
    """What is switched off still counts in the key: it is said."""
    endpoint = DIALECTS["openai"].locate(b"POST", "/v1/chat/completions")

    assert endpoint.shape.drop.isdisjoint(NAMES)
