"""
What Azure is asked for a token, and what its answers mean.

The rule: requests are made from a rule and the environment, and decisions from answers; only ``fetch`` waits. A reason
names the status and the error's code, never other text of an endpoint, because it may quote the assertion.

The Azure SDK is not used: these are two small, documented requests, and the SDK would put azure-core, msal, requests
and cryptography's wrappers on the path of every process, with threads, retries and caches of their own.

- Managed identity: the machine's endpoint (IMDS,
  https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token), or that of App
  Service and Container Apps where ``IDENTITY_ENDPOINT`` and ``IDENTITY_HEADER`` name one.
- Workload identity: the service account's token is exchanged
  (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, third case).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.pasted import is_plain
from sidecar.core.rules import KIB, AzureIdentity
from sidecar.identity.access_tokens import Denial, GrantedToken
from sidecar.net.plain_file import open_plain

MACHINE = "http://169.254.169.254"
MACHINE_PATH = "/metadata/identity/oauth2/token"
AUTHORITY = "https://login.microsoftonline.com"

MACHINE_SECONDS = 10.0
AUTHORITY_SECONDS = 20.0
"""Seconds for one request, connecting included."""

LONGEST_LIFE = 86400.0
"""The longest life of a token that is believed; Azure's tokens last a day at most."""

LONGEST_TOKEN = 16 * KIB

PASSING = frozenset({404, 408, 410, 429})
"""Statuses besides 5xx that pass without action: an endpoint starts, is updated (410, up to 70 s) or is overloaded."""

HeaderFields = Mapping[str, str]


class TokenFetch(Protocol):
    """The way to an endpoint: see ``identity/client``."""

    async def __call__(
        self, method: str, url: str, headers: HeaderFields, body: bytes, *, seconds: float, proxy: bool
    ) -> tuple[int, HeaderFields, bytes]:
        """
        Status, fields and body of the answer, within *seconds*; redirects are not followed. *proxy*: an egress proxy
        may be used. Fields are found by their lower-case names. Raises ``OSError`` whose text says what went wrong.
        """


class Question(Struct, frozen=True, gc=False):
    """A request for a token. Its headers and body are secrets."""

    method: str
    url: str
    headers: HeaderFields
    body: bytes
    seconds: float
    proxy: bool

    def __repr__(self) -> str:
        return f"<Question {self.method} {urlsplit(self.url).netloc}>"


class _TokenResponse(Struct):
    access_token: str
    expires_in: int | float | str | None = None
    expires_on: int | float | str | None = None
    token_type: str | None = None


_NUMBER = re.compile(r"\s*[0-9]{1,15}(?:\.[0-9]*)?\s*\Z")
_PRINTABLE = re.compile(r"[!-~]+\Z")
_CODE = re.compile(r"[a-z_]{1,64}\Z")
_NUMBERED = re.compile(r"AADSTS[0-9]{1,9}(?![0-9])")
_TENANT = re.compile(r"[A-Za-z0-9.-]{1,253}\Z")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def asker(
    identity: AzureIdentity, *, environ: Mapping[str, str], fetch: TokenFetch, now: Callable[[], float]
) -> Callable[[], Awaitable[GrantedToken | Denial]]:
    """A function that asks once for a token of *identity*. *now* is wall-clock seconds, for answers without a time."""
    question = managed if identity.kind == "managed" else workload

    async def ask() -> GrantedToken | Denial:
        asked = question(identity, environ)
        if isinstance(asked, Denial):
            return asked
        host = urlsplit(asked.url).netloc
        try:
            status, fields, body = await fetch(
                asked.method, asked.url, asked.headers, asked.body, seconds=asked.seconds, proxy=asked.proxy
            )
        except OSError as error:
            return Denial(f"{host}: {error}", passing=True)
        found = read(status, fields, body, now())
        return (
            found
            if isinstance(found, GrantedToken)
            else msgspec.structs.replace(found, reason=f"{host} {found.reason}")
        )

    return ask


def describe(identity: AzureIdentity, environ: Mapping[str, str]) -> str:
    """*identity* in words, for people."""
    client = identity.client_id or environ.get("AZURE_CLIENT_ID", "")
    return f"{identity.kind} identity {client or 'of the system'}"


def managed(identity: AzureIdentity, environ: Mapping[str, str]) -> Question | Denial:
    """The request to this machine's endpoint. It never leaves through a proxy."""
    query = {"resource": identity.scope.removesuffix("/.default")}
    if client := identity.client_id or environ.get("AZURE_CLIENT_ID", ""):
        query["client_id"] = client
    endpoint, secret = environ.get("IDENTITY_ENDPOINT", ""), environ.get("IDENTITY_HEADER", "")
    if endpoint and secret:
        headers, version = {"X-IDENTITY-HEADER": secret}, "2019-08-01"
    else:
        base = environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "").strip() or MACHINE
        endpoint, headers, version = base.rstrip("/") + MACHINE_PATH, {"Metadata": "true"}, "2018-02-01"
    if not _is_address(endpoint, {"http", "https"}):
        return Denial("the identity endpoint that the environment names is no http address")
    url = f"{endpoint}?{urlencode({'api-version': version, **query})}"
    return Question("GET", url, headers, b"", MACHINE_SECONDS, proxy=False)


def workload(identity: AzureIdentity, environ: Mapping[str, str]) -> Question | Denial:
    """The exchange of the service account's token. That token is read anew each time, because it lives for an hour."""
    client = identity.client_id or environ.get("AZURE_CLIENT_ID", "")
    tenant = identity.tenant_id or environ.get("AZURE_TENANT_ID", "")
    path = identity.token_file or environ.get("AZURE_FEDERATED_TOKEN_FILE", "")
    needed = {"AZURE_CLIENT_ID": client, "AZURE_TENANT_ID": tenant, "AZURE_FEDERATED_TOKEN_FILE": path}
    if missing := ", ".join(name for name, value in needed.items() if not value):
        return Denial(f"{missing} not set; does the pod have the label azure.workload.identity/use?")
    if not _TENANT.match(tenant):
        return Denial("AZURE_TENANT_ID is no tenant")
    authority = environ.get("AZURE_AUTHORITY_HOST", "").strip() or AUTHORITY
    if "://" not in authority:
        authority = f"https://{authority}"
    if not _is_address(authority, {"https"}):
        return Denial("AZURE_AUTHORITY_HOST is no https address")
    assertion = _assertion(path, path if is_plain(path) else "AZURE_FEDERATED_TOKEN_FILE")
    if isinstance(assertion, Denial):
        return assertion
    form = {
        "client_id": client,
        "scope": identity.scope,
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    return Question(
        "POST",
        f"{authority.rstrip('/')}/{tenant}/oauth2/v2.0/token",
        {"Content-Type": "application/x-www-form-urlencoded"},
        urlencode(form).encode("ascii"),
        AUTHORITY_SECONDS,
        proxy=True,
    )


def read(status: int, fields: HeaderFields, body: bytes, now: float) -> GrantedToken | Denial:
    """What an answer means at *now*, wall-clock seconds."""
    if status != 200:
        passing = status in PASSING or status >= 500
        return Denial(f"answered {status}{_code(body)}", passing, _seconds(fields.get("retry-after")) or 0.0)
    try:
        answer = msgspec.json.decode(body, type=_TokenResponse)
    except UNREADABLE:
        return Denial("answered what is no token", passing=True)
    if not _PRINTABLE.match(answer.access_token) or len(answer.access_token) > LONGEST_TOKEN:
        return Denial("answered a token that cannot be sent", passing=True)
    if (answer.token_type or "bearer").lower() != "bearer":
        return Denial("answered a token that is no bearer's")
    seconds = _seconds(answer.expires_in)
    if seconds is None and (expires := _seconds(answer.expires_on)) is not None:
        seconds = expires - now
    if seconds is None:
        return Denial("answered a token without its life's length", passing=True)
    if seconds <= 0.0:
        return Denial("answered a token that has expired", passing=True)
    return GrantedToken(answer.access_token.encode("ascii"), min(seconds, LONGEST_LIFE))


def _assertion(path: str, name: str) -> str | Denial:
    """
    The service account's token: a line of a few KiB on a local file system, replaced as a whole. *name* is shown for
    the file if it cannot be used, because people write the token itself where its path belongs.
    """
    try:
        with open_plain(path) as file:
            text = file.read(LONGEST_TOKEN + 1).strip().decode("ascii", "replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no path"
        return Denial(f"{name}: {reason or type(error).__name__}", passing=True)
    if not _PRINTABLE.match(text) or len(text) > LONGEST_TOKEN:
        return Denial(f"{name}: is no token", passing=True)
    return text


def _is_address(url: str, schemes: set[str]) -> bool:
    """Whether *url* has one of *schemes*, or is on this machine, and has no credentials, query or fragment."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    named = bool(parts.hostname) and "@" not in parts.netloc and not parts.query and not parts.fragment
    return named and (parts.scheme in schemes or (parts.scheme == "http" and parts.hostname in _LOOPBACK))


def _seconds(value: float | str | None) -> float | None:
    """A number, or a number written as a string; None for anything else."""
    if isinstance(value, str):
        return float(value) if _NUMBER.match(value) else None
    return None if value is None else float(value)


def _code(body: bytes) -> str:
    """The error's code, if it has the form of one: `` invalid_client AADSTS700016``."""
    try:
        answer: Any = msgspec.json.decode(body)
    except UNREADABLE:
        return ""
    if not isinstance(answer, dict):
        return ""
    error, text = answer.get("error"), answer.get("error_description")
    codes = [error] if isinstance(error, str) and _CODE.match(error) else []
    if isinstance(text, str) and (found := _NUMBERED.search(text)):
        codes.append(found[0])
    return "".join(f" {code}" for code in codes)
