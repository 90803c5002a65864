"""
Which calls of a container will not arrive at the sidecar, as far as its manifest tells.

The rule: only hosts are shown. What stands around them in a manifest (users, keys, queries) is nobody's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.core.pods.services import Reachable, host_in, on_loopback, urls_in

_BASE = re.compile(r"BASE|URL|URI|ENDPOINT|HOST", re.IGNORECASE)
_VENDOR = re.compile(
    r"OPENAI|ANTHROPIC|CLAUDE|AZURE_AI|AZURE_INFERENCE|GEMINI|COHERE|CO_API|MISTRAL|OLLAMA|BEDROCK|VOYAGE|COGNITIVE|"
    r"FORM_?RECOGNIZER|DOCUMENT_?INTELLIGENCE|CONTENT_?(SAFETY|UNDERSTANDING)|TRANSLATOR|\bLLM|_LLM",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"api\.openai\.com|api\.anthropic\.com|generativelanguage\.googleapis\.com|api\.cohere\.(com|ai)|api\.mistral\.ai|"
    r"api\.voyageai\.com|bedrock-runtime[.-].*\.amazonaws\.com|"
    r".*\.(openai|cognitiveservices|services\.ai|api\.cognitive)\.(azure|microsoft)\.(com|us|cn)"
)

_STRANGE = "which is no configured service"


def looks_like_base(name: str) -> bool:
    """Whether a variable may hold a base URL, by its name."""
    return _BASE.search(name) is not None


def foreign(container: str, literals: Mapping[str, str], services: Sequence[Reachable]) -> Iterator[str]:
    """A line for each of the variables *literals* that sends AI calls to a place that is no configured service."""
    known = {host_in(url) for service in services for url in service.urls}
    for name, text in literals.items():
        host = host_in(text)
        if not host or any(service.has(text) for service in services):
            continue
        if (_VENDOR.search(name) and looks_like_base(name)) or _HOST.fullmatch(host):
            why = "by another scheme, port or path than the configured service" if host in known else _STRANGE
            yield f"{container}: {name} goes elsewhere: to {host}, {why}"


def mentions(container: Mapping[str, Any], literals: Mapping[str, str], services: Sequence[Reachable]) -> Iterator[str]:
    """A line for each place of *container* that holds the URL of a service where it cannot be rewritten."""
    name = container.get("name", "")
    places: list[tuple[str, Sequence[Any]]] = [
        (f"the variable {each}", [text]) for each, text in literals.items() if not host_in(text)
    ]
    places += [(f"its {each}", container.get(each) or ()) for each in ("command", "args")]
    for place, texts in places:
        urls = [url for text in texts if isinstance(text, str) for url in urls_in(text)]
        hosts = dict.fromkeys(host_in(url) for url in urls if on_loopback(url, services) is not None)
        for host in hosts:
            yield f"{name}: a URL of {host} stands in {place}, where it is not rewritten; calls to it do not arrive"
