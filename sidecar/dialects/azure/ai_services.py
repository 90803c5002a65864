"""
What Azure's AI services have in common: hosts, credentials, errors, and calls that are never looked up.

The rule: a service's dialect is this with its own tables of operations. Paths are matched whole and as they were sent,
as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from msgspec import json, structs

from sidecar.core.dialect import BodyForm, Dialect, Endpoint, Kind, Members
from sidecar.core.model import Facts, Head, Usage
from sidecar.dialects.azure.answers import LISTING
from sidecar.dialects.azure.query import canonical
from sidecar.dialects.plain import OPAQUE

CONTENT_TYPE: Final = frozenset({b"content-type"})
"""What does not count where the form of a body shows in the body itself."""

CUSTOM_MODEL: Final = "custom-model"
URL_SOURCE: Final = "url-source"

_CLOUDS = ("com", "us", "cn")

RESOURCES: Final = (
    *(f"cognitiveservices.azure.{cloud}" for cloud in _CLOUDS),
    *(f"services.ai.azure.{cloud}" for cloud in _CLOUDS),
    "api.cognitive.microsoft.com",
    "api.cognitive.microsoft.us",
    "api.cognitive.azure.cn",
)
"""Hosts of resources and of regions, below which each of these services answers."""

RECORD: Final = 1000
"""Characters of a text record, by which Language and Content Safety charge."""


def nothing(_members: Members) -> Facts:
    """No facts."""
    return Facts()


def bypassed(reason: str) -> Endpoint:
    """The endpoint of calls that are never looked up, for this reason."""
    return Endpoint(reason, Kind.OTHER, BodyForm.RAW, nothing, OPAQUE, bypass=reason, generating=False)


STATEFUL: Final = bypassed("stateful")
"""Calls that create, change or read something that the service keeps."""

OFFERS: Final = Endpoint(
    "models",
    Kind.MODELS,
    BodyForm.NONE,
    lambda _members: Facts(deterministic=True),
    LISTING,
    generating=False,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)
"""Calls that read what a service offers: its languages, voices and models."""


def error(status: int, code: str, message: str) -> bytes:
    """The body of an error answer."""
    del status
    return json.encode({"error": {"code": code, "message": message}})


def error_event(code: str, message: str) -> bytes:
    """Empty: these services have no streams of events."""
    del code, message
    return b""


def misdirected(head: Head, path: str, query: str) -> str | None:
    """None: a resource of Azure serves more than these tables know."""
    del head, path, query
    return None


def dialect(
    name: str,
    locate: Callable[[bytes, str], Endpoint | None],
    *,
    hosts: tuple[str, ...] = (),
    scopes: tuple[bytes, ...] = (),
    counting: tuple[bytes, ...] = (),
    request_id: bytes = b"apim-request-id",
    placed: Callable[[bytes, str], bytes] | None = None,
    words: tuple[str, ...] = (),
) -> Dialect:
    """The dialect of one of these services. *hosts*: its own, beside those of resources."""
    return Dialect(
        name=name,
        locate=locate,
        error=error,
        error_event=error_event,
        misdirected=misdirected,
        credentials=(b"ocp-apim-subscription-key", b"authorization", b"api-key"),
        scopes=(b"cookie", *scopes),
        counting=counting,
        request_id=request_id,
        placed=placed,
        words=words,
        credential_query=frozenset({"subscription-key", "api-key"}),
        one_credential_domain=False,
        microsoft_tokens=True,
        own_hosts=(*RESOURCES, *hosts),
    )


def needing(endpoint: Endpoint, *needs: str) -> Endpoint:
    """*endpoint* for calls that need what a route must allow."""
    if not needs:
        return endpoint

    def read(members: Members) -> Facts:
        facts = endpoint.read(members)
        return structs.replace(facts, needs=tuple(dict.fromkeys((*needs, *facts.needs))))

    return replace(endpoint, read=read)


def charging(endpoint: Endpoint, charged: Usage) -> Endpoint:
    """*endpoint* for calls that are charged so, whatever their body says."""

    def read(members: Members) -> Facts:
        return structs.replace(endpoint.read(members), charged=charged)

    return replace(endpoint, read=read)


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects in *value*, if it is a list; none otherwise."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def inner(value: object) -> Mapping[str, Any]:
    """*value*, if it is an object; otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def records(texts: list[str]) -> int:
    """The text records of *texts*: each begun thousand of characters is one."""
    return sum(max(-(-len(text) // RECORD), 1) for text in texts)
