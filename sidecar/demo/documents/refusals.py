"""
How Azure's document services refuse a call: statuses, codes, words and headers.

The rule: they are the recorded ones where there is a recording.
"""

from __future__ import annotations

from typing import Any

Inner = tuple[str, str]


class ServiceRefusal(Exception):
    """A call that gets an error answer. *inner*: code and message of the inner error."""

    def __init__(
        self, status: int, code: str, message: str, inner: Inner | None = None, *, retry_after: int = 0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.retry_after = retry_after

    @property
    def document(self) -> dict[str, Any]:
        """The body."""
        return {"error": error_of(self.code, self.message, self.inner)}

    @property
    def headers(self) -> dict[str, str]:
        """What the head says beside the usual; the gateway's own errors have a number for a code."""
        if self.code.isdigit():
            named = {"Content-Type": "application/json"}
        else:
            named = {"ms-azure-ai-errorcode": self.code}
        return named | ({"Retry-After": str(self.retry_after)} if self.retry_after else {})


def error_of(code: str, message: str, inner: Inner | None) -> dict[str, Any]:
    """The object ``error`` of a refusal, and of an operation that failed."""
    found: dict[str, Any] = {"code": code, "message": message}
    if inner is not None:
        found["innererror"] = {"code": inner[0], "message": inner[1]}
    return found


def no_resource() -> ServiceRefusal:
    """For a path that the gateway does not know: an empty model, an operation of another service."""
    return ServiceRefusal(404, "404", "Resource not found")


def no_operation() -> ServiceRefusal:
    """For an operation that never was, was deleted, or is older than a day."""
    return ServiceRefusal(404, "NotFound", "Resource not found.", ("OperationNotFound", "The operation was not found."))


def no_model() -> ServiceRefusal:
    """For a model whose name nobody gave."""
    return ServiceRefusal(
        404, "NotFound", "Resource not found.", ("ModelNotFound", "The requested model was not found.")
    )


def bad_parameter(name: str, why: str) -> ServiceRefusal:
    """For a query parameter with a value that it cannot have."""
    return ServiceRefusal(
        400, "InvalidArgument", "Invalid argument.", ("InvalidParameter", f"The parameter {name} is invalid: {why}")
    )


_UNSUPPORTED = (
    "The file is corrupted or format is unsupported. Refer to documentation for the list of supported formats."
)


def bad_content() -> ServiceRefusal:
    """For bytes that are no document."""
    return ServiceRefusal(
        400, "InvalidRequest", "Invalid request.",
        ("InvalidContent", _UNSUPPORTED),
    )  # fmt: skip


def bad_body(why: str) -> ServiceRefusal:
    """For a JSON body that does not say what to analyse."""
    return ServiceRefusal(400, "InvalidArgument", "Invalid argument.", ("InvalidParameter", why))


def no_key() -> ServiceRefusal:
    """For a call without a key, or with one that has ``invalid`` in it."""
    return ServiceRefusal(
        401, "401", "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid "
        "key for an active subscription and use a correct regional API endpoint for your resource.",
    )  # fmt: skip


def too_busy(status: int) -> ServiceRefusal:
    """A fault as told: 429 for too many calls, any other status for a service that is unwell."""
    if status == 429:
        return ServiceRefusal(
            429, "429", "Requests have exceeded the call rate limit of your current pricing tier. Please retry after 1 "
            "second.", retry_after=1,
        )  # fmt: skip
    return ServiceRefusal(status, "InternalServerError", "An unexpected error occurred.", retry_after=1)
