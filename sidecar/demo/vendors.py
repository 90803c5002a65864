"""
What the three vendors put around their answers: how they ask for a key, their headers, their errors.

The rule: header names and error shapes are those of the real services; every value is made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Vendor(StrEnum):
    """Whose API a call speaks."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"


_KEYS: Final = {
    Vendor.OPENAI: ("authorization",),
    Vendor.AZURE: ("api-key", "authorization"),
    Vendor.ANTHROPIC: ("x-api-key", "authorization"),
}

_NO_KEY: Final = {
    Vendor.OPENAI: "You didn't provide an API key. Send it as a bearer token; the demo provider takes any.",
    Vendor.AZURE: "Access denied due to invalid subscription key. Send any api-key to the demo provider.",
    Vendor.ANTHROPIC: "x-api-key header is required. The demo provider takes any key.",
}

_TYPES: Final = {
    Vendor.OPENAI: {429: "requests", 500: "server_error", 503: "server_error"},
    Vendor.AZURE: {},
    Vendor.ANTHROPIC: {
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "api_error",
        503: "api_error",
        529: "overloaded_error",
    },
}

_CODES: Final = {401: "invalid_api_key", 429: "rate_limit_exceeded"}

_WORDS: Final = {
    429: "Rate limit reached: a canned failure of the demo provider. Please retry after {retry_after} seconds.",
    500: "The server had an error: a canned failure of the demo provider.",
    503: "The engine is unavailable: a canned failure of the demo provider.",
    529: "Overloaded: a canned failure of the demo provider.",
}


def refusal(vendor: Vendor, headers: Mapping[str, str]) -> str | None:
    """Why the caller gets 401: no key, or one with ``invalid`` in it; None for every other key."""
    keys = [key for name in _KEYS[vendor] if (key := headers.get(name, "").removeprefix("Bearer ").strip())]
    if not keys:
        return _NO_KEY[vendor]
    return "Incorrect API key provided." if "invalid" in keys[0] else None


def failure_words(status: int, retry_after: int) -> str:
    """The message of a canned failure."""
    return _WORDS[status].format(retry_after=retry_after)


def error(vendor: Vendor, status: int, message: str, request_id: str) -> dict[str, Any]:
    """The body of an error answer."""
    match vendor:
        case Vendor.OPENAI:
            kind = _TYPES[vendor].get(status, "invalid_request_error")
            return {"error": {"message": message, "type": kind, "param": None, "code": _CODES.get(status)}}
        case Vendor.AZURE:
            return {"error": {"code": str(status), "message": message}}
        case Vendor.ANTHROPIC:
            kind = _TYPES[vendor].get(status, "invalid_request_error")
            return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def error_event(vendor: Vendor, request_id: str) -> bytes:
    """The event with which a stream reports an error."""
    body = json.dumps(error(vendor, 500, failure_words(500, 0), request_id)).encode()
    return (b"event: error\n" if vendor is Vendor.ANTHROPIC else b"") + b"data: " + body + b"\n\n"


def headers(vendor: Vendor, fresh: str, milliseconds: int, *, remaining: int) -> dict[str, str]:
    """The headers of every answer: it has an id of its own, and each call leaves less of the rate limit."""
    common = {
        "server": "sidecar-demo",
        "set-cookie": f"__cf_bm={fresh}; path=/; HttpOnly; Secure; SameSite=None",
        "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    }
    match vendor:
        case Vendor.OPENAI:
            return common | {
                "x-request-id": f"req_{fresh}",
                "openai-organization": "demo",
                "openai-processing-ms": str(milliseconds),
                "openai-version": "2020-10-01",
                "x-ratelimit-limit-requests": "10000",
                "x-ratelimit-limit-tokens": "200000",
                "x-ratelimit-remaining-requests": str(remaining),
                "x-ratelimit-remaining-tokens": "199000",
                "x-ratelimit-reset-requests": "6ms",
                "x-ratelimit-reset-tokens": "1.2s",
            }
        case Vendor.AZURE:
            return common | {
                "apim-request-id": fresh,
                "azureml-model-session": "demo",
                "cache-control": "no-cache, must-revalidate",
                "x-ms-region": "Nowhere",
                "x-ms-rai-invoked": "true",
                "x-ratelimit-remaining-requests": str(remaining),
                "x-ratelimit-remaining-tokens": "199000",
                "x-request-id": fresh,
            }
        case Vendor.ANTHROPIC:
            return common | {
                "request-id": f"req_{fresh}",
                "anthropic-organization-id": "demo",
                "anthropic-ratelimit-requests-limit": "10000",
                "anthropic-ratelimit-requests-remaining": str(remaining),
                "anthropic-ratelimit-requests-reset": "2030-01-01T00:00:00Z",
            }
