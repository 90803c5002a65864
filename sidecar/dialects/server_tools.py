"""
The names by which services are asked to search, to run code, or to use what they store: members of a request, and
models.

The rule: an answer that depends on more than its question is never looked up. Services that speak one API use names of
their own, so the names of all services stand in one table, whichever service is called. A member that is switched off
does not count if its service documents that value as off; in doubt it counts. The dialects judge tools in ``tools``:
any tool that is not known as the caller's own is the service's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from sidecar.core.dialect import Members

SERVER_TOOLS: Final = "server-tools"
PRESET: Final = "prompt-template"
KEPT: Final = "stateful"


def _is_off(value: object) -> bool:
    """Missing, or switched off."""
    return value is None or value is False


def _is_none(value: object) -> bool:
    """As ``_is_off``, or an empty list of what is to run."""
    return _is_off(value) or value == []


def _is_mode_off(value: object) -> bool:
    """As ``_is_off``, or a mode that is off."""
    return _is_off(value) or (isinstance(value, Mapping) and value.get("mode") == "off")


def _is_not_enabled(value: object) -> bool:
    """Empty, or an object that is not enabled."""
    return not value or (isinstance(value, Mapping) and value.get("enable") is False)


def _is_venice_off(value: object) -> bool:
    """As ``_is_off``, or all members that do more than shape the answer are switched off."""
    if not isinstance(value, Mapping):
        return _is_off(value)
    return all(_is_off(value[name]) or value[name] == "off" for name in value.keys() - _VENICE)


_VENICE: Final = frozenset({
    "include_venice_system_prompt", "strip_thinking_response", "disable_thinking", "enable_web_citations",
    "include_search_results_in_stream", "return_search_results_as_documents",
})  # fmt: skip
"""Members of ``venice_parameters`` that do nothing without a search (Venice, API reference, "Chat completions")."""

_CHARACTER: Final = "character_slug"
"""Venice, "Characters": instructions that the service keeps, by their name."""

MEMBERS: Final[Mapping[str, Callable[[object], bool]]] = MappingProxyType({
    # OpenAI, "Web search" with chat completions; OpenRouter and Perplexity take the same.
    "web_search_options": _is_off,
    # Azure OpenAI, "On your data": the service searches an index of the caller's.
    "data_sources": _is_none,
    # OpenRouter, "Plugins": each one in the list runs once.
    "plugins": _is_none,
    # xAI, "Live Search": mode "off" switches it off.
    "search_parameters": _is_mode_off,
    # Alibaba Cloud Model Studio (DashScope), "Web search" and "Code interpreter".
    "enable_search": _is_off, "search_options": _is_off, "enable_code_interpreter": _is_off,
    # Groq, "Compound systems" and its search settings, new and old.
    "compound_custom": _is_off, "search_settings": _is_off, "include_domains": _is_none, "exclude_domains": _is_none,
    # Cohere, chat: connectors search on the service's side.
    "connectors": _is_none,
    # Baidu, Qianfan, "Web search": ``enable`` is what switches it on.
    "web_search": _is_not_enabled,
    # Tencent, Hunyuan, ChatCompletions and its form compatible with OpenAI's.
    "enable_enhancement": _is_off, "force_search_enhancement": _is_off, "enable_deep_search": _is_off,
    "enable_speed_search": _is_off,
    # Venice, "Chat completions".
    "venice_parameters": _is_venice_off,
    # Anthropic, "MCP connector": servers of tools that the service calls.
    "mcp_servers": _is_none,
})  # fmt: skip
"""Members that ask a service to do more than answer, with the values that mean off."""

SONAR_MEMBERS: Final = frozenset({
    "search_mode", "search_domain_filter", "search_recency_filter", "search_after_date_filter",
    "search_before_date_filter", "last_updated_after_filter", "last_updated_before_filter", "num_search_results",
    "search_language_filter", "image_domain_filter", "image_format_filter", "media_response",
    "enable_search_classifier", "return_images", "return_related_questions",
})  # fmt: skip
"""
Perplexity, "Sonar API": how its models search. ``disable_search`` switches that off ("Search control"). What else
begins with ``search_`` counts as one of these.
"""

_SEARCH: Final = "search_"

KEPT_MEMBERS: Final = frozenset({"cached_content", "file_workspace_id", "thread_id", "use_threads"})
"""
What the service keeps: Gemini's ``cached_content`` ("OpenAI compatibility"), in ``google``; the rest Perplexity's (its
SDK's parameters of chat completions).
"""

_GOOGLE: Final = frozenset({"thinking_config", "safety_settings", "model_safety_settings", "thought_tag_marker"})
"""Members of ``google`` that only shape the answer (the same, and Vertex AI, "OpenAI compatibility")."""

MODELS: Final[tuple[tuple[str, str], ...]] = (
    (r"-search-", "OpenAI, models: gpt-4o-search-preview, gpt-5-search-api"),
    (r"deep-research", "OpenAI, o3-deep-research; Perplexity, sonar-deep-research; Gemini and Qwen, deep research"),
    (r":online(?![a-z0-9])", "OpenRouter, the online variant of any model"),
    (r"[:&]enable_(?:web_search|web_scraping|x_search)=(?!off(?![a-z])|false)", 'Venice, "Model feature suffix"'),
    (r"(?:\A|/)compound(?![a-z0-9])", "Groq, groq/compound and compound-beta"),
)
"""What in a model's name means that it searches or runs code, and who says so."""

SONAR: Final = re.compile(r"(?:\A|[/-])sonar(?![a-z0-9])")
"""Perplexity, models: all of them search, unless ``disable_search`` is true."""

FUNCTIONS: Final = frozenset({"litellm_web_search"})
"""Functions that a gateway runs although they look like the caller's (LiteLLM, "Web Search Integration")."""

_SEARCHING: Final = re.compile("|".join(f"(?:{pattern})" for pattern, _ in MODELS))

_PRESETS: Final = ("@preset/", f":{_CHARACTER}=", f"&{_CHARACTER}=")

_TELLING: Final = re.compile("|".join((_SEARCHING.pattern, SONAR.pattern, *_PRESETS)), re.IGNORECASE)

_WORDS: Final = frozenset({*MEMBERS, *SONAR_MEMBERS, *KEPT_MEMBERS, "preset", "models", "google", "extra_body"})
"""All member names that matter here."""


def of(members: Members) -> tuple[str, ...]:
    """
    All reasons why a call with these members is never looked up. A reference to something that one region has stored
    stands first, because such a call goes to that region.
    """
    model = members.get("model")
    if (
        _WORDS.isdisjoint(members)
        and (type(model) is not str or _TELLING.search(model) is None)
        and _SEARCH not in "\n".join(members)  # in one go: a member in which it stands elsewhere is judged below
    ):
        return ()  # almost every call ends here
    tests = ((PRESET, _names_preset), (KEPT, _names_kept), (SERVER_TOOLS, _is_asked))
    return tuple([reason for reason, holds in tests if holds(members)])


def _names_preset(members: Members) -> bool:
    """
    OpenRouter, "Presets": instructions, model and tools that are stored at the service, by their name. So are Venice's
    characters.
    """
    return (
        not _is_off(members.get("preset"))
        or any(preset in name for name in _models(members) for preset in _PRESETS)
        or any(not _is_off(_object(one, "venice_parameters").get(_CHARACTER)) for one in _levels(members))
    )


def _names_kept(members: Members) -> bool:
    """Whether something that the service keeps is part of the question."""
    return any(
        not _is_off(one.get(name))
        for one in (*_levels(members), *_google(members))
        for name in KEPT_MEMBERS & one.keys()
    )


def _is_asked(members: Members) -> bool:
    """Whether the service is asked, by a member or by the model's name, to do more than answer."""
    return (
        any(map(_asks, _levels(members)))
        or any(not one.keys() <= _GOOGLE for one in _google(members))
        or _names_searching_model(members)
        or not _is_none(_extra(members).get("tools"))
    )


def _asks(members: Members) -> bool:
    names = members.keys()
    return any(not MEMBERS[name](members[name]) for name in MEMBERS.keys() & names) or (
        members.get("disable_search") is not True
        and any(not _is_off(members[name]) for name in names if _is_sonar(name))
    )


def _is_sonar(name: str) -> bool:
    return name in SONAR_MEMBERS or (_begins_search(name) and name not in MEMBERS)


def _begins_search(name: str) -> bool:
    return name.startswith(_SEARCH)


def _names_searching_model(members: Members) -> bool:
    offline = members.get("disable_search") is True
    return any(
        _SEARCHING.search(name) is not None or (not offline and SONAR.search(name) is not None)
        for name in _models(members)
    )


def _models(members: Members) -> list[str]:
    """The models that may answer, in lower case; ``models`` are further ones (OpenRouter, "Model fallbacks")."""
    further = members.get("models")
    names = [members.get("model"), *(further if isinstance(further, list) else ())]
    return [name.lower() for name in names if isinstance(name, str)]


def _levels(members: Members) -> Iterator[Members]:
    """The members, and those in ``extra_body``, which gateways take for members (LiteLLM; Gemini's endpoint)."""
    yield members
    if extra := _extra(members):
        yield extra


def _extra(members: Members) -> Members:
    return _object(members, "extra_body")


def _object(members: Members, name: str) -> Members:
    """The object that a member is, an empty one where it is none."""
    found = members.get(name)
    return found if isinstance(found, Mapping) else {}


def _google(members: Members) -> list[Mapping[str, Any]]:
    return [found for level in _levels(members) if isinstance(found := level.get("google"), Mapping)]
