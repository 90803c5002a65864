"""
The dialect of services that we know nothing about.

The rule: nothing is taken for granted. Method, path, query, every byte of the body and every header field count, less
what is noise everywhere (``core/request/noise``) and what tells who is asking (``credentials``, ``scopes``). No answer
is called deterministic, so only a route whose owner says ``always`` caches any of it.
"""

from __future__ import annotations

from msgspec import json

from sidecar.core.dialect import BodyForm, Dialect, Endpoint, Kind, Members
from sidecar.core.model import Facts, Head
from sidecar.dialects.plain import OPAQUE


def read(members: Members) -> Facts:
    """Nothing."""
    del members
    return Facts()


_CALL = Endpoint("call", Kind.OTHER, BodyForm.RAW, read, OPAQUE)

_METHODS = frozenset({b"GET", b"POST"})
"""Methods that fetch an answer; the others change something at the service, or ask for no content."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The one endpoint there is, for every path."""
    del path
    return _CALL if method in _METHODS else None


def error(status: int, code: str, message: str) -> bytes:
    """An error answer's body, in the form that most APIs share."""
    del status
    return json.encode({"error": {"code": code, "message": message}})


def error_event(code: str, message: str) -> bytes:
    """Nothing: how a stream of this API tells an error is not known."""
    del code, message
    return b""


def misdirected(head: Head, path: str, query: str) -> str | None:
    """Nothing: no form of a call is foreign here."""
    del head, path, query
    return None


GENERIC = Dialect(
    name="generic",
    locate=locate,
    error=error,
    error_event=error_event,
    misdirected=misdirected,
    credentials=(b"authorization", b"api-key", b"x-api-key", b"ocp-apim-subscription-key", b"x-goog-api-key"),
    scopes=(b"cookie",),
    counting=(b"accept", b"accept-language", b"content-type"),
    credential_query=frozenset({"api-key", "key", "subscription-key"}),
    knows_query=False,
    one_credential_domain=False,
    honours=True,
)
