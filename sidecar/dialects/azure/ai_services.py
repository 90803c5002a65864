"""
What Azure's AI services have in common: hosts, credentials, errors, and calls that are never looked up.

The rule: a service's dialect is this with its own tables of operations. Paths are matched whole and as they were sent,
as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import json

from sidecar.core.dialect import BodyForm, Dialect, Endpoint, Kind, Members
from sidecar.core.model import Facts, Head
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


def nothing(_members: Members) -> Facts:
    """No facts."""
    return Facts()


def bypassed(reason: str) -> Endpoint:
    """The endpoint of calls that are never looked up, for this reason."""
    return Endpoint(reason, Kind.OTHER, BodyForm.RAW, nothing, OPAQUE, bypass=reason, generating=False)


STATEFUL: Final = bypassed("stateful")
"""Calls that create, change or read something that the service keeps."""


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
        credential_query=frozenset({"subscription-key", "api-key"}),
        one_credential_domain=False,
        microsoft_tokens=True,
        own_hosts=(*RESOURCES, *hosts),
    )
