"""
Who is asking, for the purpose of who may read whose answers.

The rule: the partition is derived here, by the server, from what the caller proves, and there is no call without one.
A key is its own proof. A token only names somebody, so what others stored in that name is read only with a token that
the service itself has accepted.
"""

from __future__ import annotations

import binascii
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from sidecar.core.dialect import Dialect
from sidecar.core.headers import CREDENTIALS
from sidecar.core.model import Fields
from sidecar.core.rules import Share

ACCEPTED_SECONDS = 15 * 60.0
"""How long an acceptance by the service counts where many callers share, and for tokens without an expiry."""

Digest = Callable[..., bytes]
"""A keyed digest of length-prefixed parts (``fingerprint.partition_of`` with the process's secret)."""


_MICROSOFT = frozenset({
    "sts.windows.net", "login.microsoftonline.com", "login.microsoftonline.us", "login.chinacloudapi.cn",
    "sts.chinacloudapi.cn", "login.partner.microsoftonline.cn",
})  # fmt: skip
"""Hosts in ``iss``: Entra ID in its two token versions, and its national clouds."""


_SEPARATORS = re.compile(rb"[&;]")
_WORDS = re.compile(rb"[\s,;=&]+")


class Pod(Struct, frozen=True, gc=False):
    """The workload this process stands beside; *process* is random per process, for pods without an identity."""

    namespace: str = ""
    account: str = ""
    process: bytes = b""


class Principal(Struct, frozen=True, gc=False):
    """
    One caller.

    *partition*: whose answers it reads and writes. *credential*: a digest of exactly what it presented, for telling
    callers of one partition apart. *needs_proof*: it may read only after the service has accepted this credential;
    *shared*: and that not long ago, for the partition is not its own.
    *expires*: when a token ends, seconds since the epoch, 0 for none. *microsoft*: it sends a token that Microsoft
    issued, in whatever field. *local*: the partition has no meaning outside this process. *anonymous*: nothing that is
    known to be a credential came with the call, so whose it is cannot be told.
    """

    partition: bytes
    credential: bytes
    needs_proof: bool = False
    shared: bool = False
    expires: float = 0.0
    microsoft: bool = False
    local: bool = False
    anonymous: bool = False


class _Token(Struct, frozen=True, gc=False):
    issuer: str
    tenant: str
    subject: str
    expires: float


def presented(dialect: Dialect, fields: Fields, query: bytes) -> tuple[bytes, ...]:
    """
    Every credential of a request, in whatever field services read keys from, without its scheme, distinct and sorted.

    All of them count: which one a service obeys when there are several is the service's secret, and a caller that
    adds a second key must not read as the owner of the first.
    """
    found = {_bare(value) for name in {*dialect.credentials, *CREDENTIALS} if (value := fields.get(name))}
    if dialect.credential_query and query:
        for member in query.split(b"&"):
            value = member.partition(b"=")[2]
            if value and _carries_key(member, dialect.credential_query):
                found.add(value)
    return tuple(sorted(found))


def without_credentials(target: bytes, names: frozenset[str]) -> bytes:
    """*target* less the query members of *names*, however their names are written; the rest byte for byte."""
    path, _, query = target.partition(b"?")
    members = _SEPARATORS.split(query)  # some services still take `;` for one
    kept = [member for member in members if not _carries_key(member, names)]
    if len(kept) == len(members):
        return target
    return path + b"?" + b"&".join(kept) if kept else path


def identify(
    digest: Digest,
    dialect: Dialect,
    share: Share,
    fields: Fields,
    query: bytes,
    *,
    pod: Pod | None,
) -> Principal:
    """
    The principal of a request. *pod* is given where the region supplies the credential: then the workload is who
    asks, whatever credential the application sent along. A call without the header by which its route shares is as
    if the route did not share.
    """
    credentials = presented(dialect, fields, query)
    credential = digest(b"credential", *credentials)
    token = _read_token(credentials[0]) if len(credentials) == 1 else None
    scopes = [fields.get(name, b"") for name in dialect.scopes]
    local = False
    name = share.name.encode("latin-1")
    shared = share.kind == "service" or (share.kind == "header" and name in fields)
    if share.kind == "service":
        partition = digest(b"service")
    elif shared:
        partition = digest(b"header", share.name.encode(), fields[name])
    elif pod is not None:
        local = not (pod.namespace and pod.account)
        workload = (pod.namespace.encode(), pod.account.encode(), pod.process if local else b"")
        partition = digest(b"pod", *workload, *scopes)
    elif token is not None:
        named = (token.issuer.encode(), token.tenant.encode(), token.subject.encode())
        partition = digest(b"token", *named, *scopes)
    else:
        partition = digest(b"key", *scopes, *credentials)
    return Principal(
        partition=partition,
        credential=credential,
        needs_proof=pod is None and (shared or token is not None),
        shared=shared,
        expires=token.expires if token is not None else 0.0,
        microsoft=any(map(_is_microsofts, _words(fields, query))),
        local=local,
        anonymous=pod is None and not shared and not credentials,
    )


class Accepted:
    """
    The credentials that a service has accepted with a 2xx, and when it last did; at most *limit*, oldest out. A *place*
    is a service or one resource of it (``Site.place``): what one accepts proves nothing at another.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._at: OrderedDict[tuple[str, bytes], float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Accepted {len(self._at)} credentials>"

    def note(self, place: str, principal: Principal, now: float) -> None:
        """The service has just answered this caller with a 2xx."""
        if not principal.needs_proof:
            return
        self._at.pop((place, principal.credential), None)
        self._at[place, principal.credential] = now
        if len(self._at) > self._limit:
            self._at.popitem(last=False)

    def withdraw(self, place: str, principal: Principal) -> None:
        """The service has just refused this credential (401, 403)."""
        self._at.pop((place, principal.credential), None)

    def knows(self, place: str, principal: Principal, now: float) -> bool:
        """Whether the caller may read what is stored in its partition."""
        if not principal.needs_proof:
            return True
        at = self._at.get((place, principal.credential))
        if at is None or (principal.expires and principal.expires <= now):
            return False
        return now - at < ACCEPTED_SECONDS or bool(principal.expires and not principal.shared)


def _words(fields: Fields, query: bytes) -> list[bytes]:
    """What might be a token: of every field that services read keys from, and of the whole query."""
    values = [fields[name] for name in (*CREDENTIALS, b"cookie") if name in fields]
    return [word for value in (*values, query) for word in _WORDS.split(value) if word.count(b".") == 2]


def _bare(value: bytes) -> bytes:
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" and rest else value


def _carries_key(member: bytes, names: frozenset[str]) -> bool:
    """Whether a query's member is one of *names*; services decode the name, and many ignore its case."""
    return unquote_to_bytes(member.partition(b"=")[0]).decode("latin-1").lower() in names


def _read_token(value: bytes) -> _Token | None:
    parts = value.split(b".")
    if len(parts) != 3 or len(value) > 16_384:
        return None
    header = _segment(parts[0])
    claims = _segment(parts[1])
    if header is None or claims is None or "alg" not in header:
        return None
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not isinstance(issuer, str) or not isinstance(subject, str) or not subject:
        return None
    tenant, expires = claims.get("tid", ""), claims.get("exp", 0)
    if not isinstance(tenant, str) or isinstance(expires, bool) or not isinstance(expires, int | float):
        return None
    return _Token(issuer, tenant, subject, float(expires))


def _segment(part: bytes) -> dict[str, Any] | None:
    try:
        text = binascii.a2b_base64(part.translate(bytes.maketrans(b"-_", b"+/")) + b"=" * (-len(part) % 4))
        return msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        return None


def _is_microsofts(value: bytes) -> bool:
    parts = value.split(b".")
    claims = _segment(parts[1]) if len(parts) == 3 else None
    issuer = claims.get("iss") if claims is not None else None
    return isinstance(issuer, str) and issuer.partition("://")[2].partition("/")[0].lower() in _MICROSOFT
