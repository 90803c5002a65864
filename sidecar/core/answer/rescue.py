"""
Turns errors into answers. No other place does.

The rule: one table maps each cause to a status and a code; the dialect gives the body its form. A 4xx or 5xx of the
service itself is an answer, not an error, and never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from types import MappingProxyType

from msgspec import Struct, json

from sidecar.core.dialect import Dialect
from sidecar.core.http.headers import LONGEST_RETRY_AFTER, NO_RETRY
from sidecar.core.model import Pairs
from sidecar.errors import Cause, ClientGone, Refused, SlowReader, UpstreamFailed


class Rescued(Struct, frozen=True, gc=False):
    """An error as an answer: *pairs* are its header fields, without framing."""

    status: int
    code: str
    message: str
    pairs: Pairs
    body: bytes


_FAILURES: Mapping[Cause, tuple[int, str]] = MappingProxyType({
    Cause.CONNECT: (502, "The AI service could not be reached: no connection."),
    Cause.DNS: (502, "The AI service could not be reached: its name was not found."),
    Cause.TLS: (502, "The AI service could not be reached: its certificate or TLS settings were not accepted."),
    Cause.CONNECT_TIMEOUT: (504, "The AI service could not be reached: connecting took too long."),
    Cause.FIRST_BYTE_TIMEOUT: (504, "The AI service did not begin to answer in time."),
    Cause.IDLE_TIMEOUT: (504, "The AI service stopped in the middle of its answer."),
    Cause.DISCONNECTED: (502, "The AI service closed the connection without an answer."),
    Cause.TRUNCATED: (502, "The AI service broke off in the middle of its answer."),
    Cause.MALFORMED: (502, "The AI service sent something that is not HTTP."),
    Cause.NO_REGION: (503, "No region of the AI service takes calls now."),
    Cause.DRAINING: (503, "The sidecar is shutting down."),
    Cause.INTERNAL: (500, "The sidecar failed; this is a bug in it, and is in its log."),
})  # fmt: skip

_LASTING: Mapping[str, float] = MappingProxyType({"no-credential": 30.0})
"""Refusals that last longer than an SDK keeps trying, by code: seconds after which a new try makes sense."""

_JSON: Pairs = ((b"content-type", b"application/json"),)


def plain_error(status: int, code: str, message: str) -> bytes:
    """The body of an error for callers whose API is not known."""
    return json.encode({"error": {"message": message, "type": _kind(status), "param": None, "code": code}})


def rescue(error: Exception, dialect: Dialect | None) -> Rescued:
    """The answer to *error*, in the dialect's own form."""
    shape: Callable[[int, str, str], bytes] = dialect.error if dialect is not None else plain_error
    pairs = _JSON
    if isinstance(error, Refused):
        status, code, message = error.status, error.code, error.message
        if code in _LASTING:
            pairs += (_retry_after(_LASTING[code]), NO_RETRY)
        elif error.retry_after:
            pairs += (_retry_after(error.retry_after),)
        elif status < 500 or status in {501, 504}:
            pairs += (NO_RETRY,)
    elif isinstance(error, UpstreamFailed):
        status, message = _FAILURES[error.cause]
        code = f"upstream-{error.cause}"
        if error.cause is Cause.INTERNAL or error.final:
            pairs += (NO_RETRY,)
        if error.cause is Cause.DRAINING:
            pairs += ((b"retry-after", b"1"),)
        if error.retry_after:
            pairs += (_retry_after(error.retry_after),)
        if error.detail:
            message = f"{message} ({error.detail})"
    else:
        status, message = _FAILURES[Cause.INTERNAL]
        code = "internal"
        pairs += (NO_RETRY,)
    return Rescued(status, code, message, pairs, shape(status, code, message))


def is_callers(error: BaseException) -> bool:
    """Whether the caller itself ended the call, so that nobody waits for an answer."""
    return isinstance(error, ClientGone | SlowReader)


def cause_of(error: BaseException) -> str:
    """The short word for *error* in records."""
    if isinstance(error, UpstreamFailed):
        return error.cause
    if isinstance(error, Refused):
        return error.code
    if isinstance(error, ClientGone):
        return "client-gone"
    if isinstance(error, SlowReader):
        return "slow-reader"
    return "internal"


def _retry_after(seconds: float) -> tuple[bytes, bytes]:
    return b"retry-after", b"%d" % ceil(min(seconds, LONGEST_RETRY_AFTER))


def _kind(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"
