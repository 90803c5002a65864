"""
The dialect of services about which nothing is known.

The rule: nothing is assumed. Method, path, query, every byte of the body and every header field count, except what is
noise everywhere (``core/request/noise``) and what identifies the caller (``credentials``, ``scopes``). No answer counts
as deterministic, so a route caches some of them only if its owner says ``always``.
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
"""Methods that fetch an answer; the others may change something at the service, or ask for no content."""


def locate(method: bytes, path: str) -> Endpoint | None:
    """The one endpoint, for every path."""
    del path
    return _CALL if method in _METHODS else None


def error(status: int, code: str, message: str) -> bytes:
    """An error answer's body, in the form that most APIs share."""
    del status
    return json.encode({"error": {"code": code, "message": message}})


def error_event(code: str, message: str) -> bytes:
    """Empty: it is not known how a stream of this API reports an error."""
    del code, message
    return b""


def misdirected(head: Head, path: str, query: str) -> str | None:
    """None: no form of a call is foreign here."""
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
