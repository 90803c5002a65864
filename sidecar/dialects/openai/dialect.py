"""
The dialect of OpenAI, and of the many services that speak it.

The rule: everything lies below ``/v1/``. Sources: the OpenAPI description of OpenAI (github.com/openai/openai-openapi)
and what the ``openai`` SDK does.
"""

from __future__ import annotations

from msgspec import json

from sidecar.core.dialect import Dialect, Endpoint
from sidecar.core.model import Head
from sidecar.core.site.base_url import address
from sidecar.dialects.openai.endpoints import find

_ROOT = "/v1/"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    return find(method, path.removeprefix(_ROOT)) if path.startswith(_ROOT) else None


def error(status: int, code: str, message: str) -> bytes:
    """An error answer's body, as the SDKs turn it into an exception."""
    return json.encode({"error": _error(status, code, message)})


def error_event(code: str, message: str) -> bytes:
    """An error inside a stream: once the head is out, the only signal that SDKs raise on."""
    return b"data: " + json.encode({"error": _error(500, code, message)}) + b"\n\n"


def misdirected(head: Head, path: str, query: str) -> str | None:
    """
    The right address for a call of Azure's form. An ``api-key`` beside an ``Authorization`` does not mean Azure: OpenAI
    would answer such a call.
    """
    fields = head.fields
    of_azure = (
        "/deployments/" in path
        or any(member.partition("=")[0] == "api-version" for member in query.split("&"))
        or (b"api-key" in fields and b"authorization" not in fields)
    )
    if not of_azure:
        return None
    return (
        "This call has the form of Azure OpenAI, and this is the base URL of OpenAI: set "
        f"AZURE_OPENAI_ENDPOINT=http://{address(head)}/azure/RESOURCE, where RESOURCE is the first part of "
        "RESOURCE.openai.azure.com."
    )


def _error(status: int, code: str, message: str) -> dict[str, str | None]:
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    return {"message": message, "type": kind, "param": None, "code": code}


OPENAI = Dialect(
    name="openai",
    locate=locate,
    error=error,
    error_event=error_event,
    misdirected=misdirected,
    credentials=(b"authorization",),
    scopes=(b"openai-organization", b"openai-project", b"cookie"),
    counting=(b"openai-beta", b"azureml-model-deployment"),
    one_credential_domain=True,
    own_hosts=("api.openai.com",),
    root="/v1",
    base="/v1",
    setting="OPENAI_BASE_URL",
    request_id=b"x-request-id",
)
