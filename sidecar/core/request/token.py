"""
Tokens (JWT, RFC 7519) as names of callers: which of their claims identify the caller.

The rule: a token whose claims could be read in two ways names nobody. Every claim counts, except those that are
documented to change from token to token although the caller is the same.
"""

from __future__ import annotations

import binascii
import re
from typing import Any

from msgspec import Struct, json

from sidecar.core.key.canonical import parse

LONGEST = 16_384
"""The longest token that is read, in bytes."""

CHANGING = frozenset({"exp", "iat", "nbf", "jti", "nonce", "auth_time", "uti", "aio", "rh", "sid", "ipaddr"})
"""
Claims that change from token to token: times and numbers of RFC 7519 and OpenID Connect Core 1.0, and what Entra ID
calls internal to its own tracking ("Access token claims reference").
"""

CHANGING_PREFIX = "xms_"
"""How Entra ID's internal claims begin."""

KUBERNETES = "kubernetes.io"
CHANGING_IN_KUBERNETES = frozenset({"pod.uid", "warnafter"})
"""What changes between pods, or with time, in the Kubernetes claim of service account tokens."""

_SEGMENT = re.compile(rb"[A-Za-z0-9_-]+\Z")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_MICROSOFT = frozenset({
    "sts.windows.net", "login.microsoftonline.com", "login.microsoftonline.us", "login.chinacloudapi.cn",
    "sts.chinacloudapi.cn", "login.partner.microsoftonline.cn",
})  # fmt: skip
"""Hosts in ``iss``: Entra ID in its two token versions, and its national clouds."""

Claims = dict[str, Any]


class CallerToken(Struct, frozen=True, gc=False):
    """
    What a token says about its bearer. *subject*: all claims that count, as text; two tokens with the same text name
    the same caller. *names*: the names of these claims. *expires*: seconds since the epoch, 0 for never.
    """

    subject: bytes
    names: tuple[str, ...]
    expires: float


def read_claims(value: bytes) -> Claims | None:
    """The claims of the token *value*, whoever issued it; None if it is no token, or can be read in two ways."""
    parts = value.split(b".")
    if len(parts) != 3 or len(value) > LONGEST:
        return None
    header, claims = _members(parts[0]), _members(parts[1])
    return claims if header is not None and "alg" in header else None


def read(value: bytes, ignored: frozenset[str] = frozenset()) -> CallerToken | None:
    """
    What the token *value* says about its bearer; None if it does not name an issuer and a subject. The claims *ignored*
    change from token to token, too.
    """
    claims = read_claims(value)
    return None if claims is None else token_of(claims, ignored)


def token_of(claims: Claims, ignored: frozenset[str] = frozenset()) -> CallerToken | None:
    """What *claims* say about a bearer; None if they name nobody."""
    issuer, subject, expires = claims.get("iss"), claims.get("sub"), claims.get("exp", 0)
    if not isinstance(issuer, str) or not isinstance(subject, str) or not issuer or not subject:
        return None
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        return None
    try:
        end = float(expires)
    except OverflowError:  # JSON has integers of any length
        return None
    counted = {
        name: _less_kubernetes(value) if name == KUBERNETES else value
        for name, value in claims.items()
        if name not in CHANGING and name not in ignored and not name.startswith(CHANGING_PREFIX)
    }
    return CallerToken(_text(counted), tuple(sorted(counted)), end)


def is_microsofts(value: bytes) -> bool:
    """Whether the token *value* says that Microsoft has issued it."""
    parts = value.split(b".")
    claims = _members(parts[1]) if len(parts) == 3 else None
    issuer = claims.get("iss") if claims is not None else None
    return isinstance(issuer, str) and issuer.partition("://")[2].partition("/")[0].lower() in _MICROSOFT


def _members(segment: bytes) -> Claims | None:
    if not _SEGMENT.match(segment):
        return None
    try:
        text = binascii.a2b_base64(segment.translate(_URL_SAFE) + b"=" * (-len(segment) % 4))
    except binascii.Error:
        return None
    members = parse(text)
    return members if isinstance(members, dict) else None


def _less_kubernetes(claim: Any) -> Any:
    if not isinstance(claim, dict):
        return claim
    kept = {}
    for name, value in claim.items():
        if name in CHANGING_IN_KUBERNETES:
            continue
        inner = value
        if isinstance(value, dict):
            inner = {key: said for key, said in value.items() if f"{name}.{key}" not in CHANGING_IN_KUBERNETES}
        kept[name] = inner
    return kept


def _text(value: Any) -> bytes:
    """*value* as text: arrays are compared as sets, the order of members is ignored; any other difference counts."""
    if isinstance(value, dict):
        return b"{%b}" % b",".join(json.encode(name) + b":" + _text(value[name]) for name in sorted(value))
    if isinstance(value, list):
        return b"[%b]" % b",".join(sorted({_text(item) for item in value}))
    return json.encode(value)
