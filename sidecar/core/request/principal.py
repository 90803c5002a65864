"""
Who is asking: this decides who may read whose answers.

The rule: the partition is derived here, by the server, from what the caller proves, and no call is without one. A key
is its own proof. A token only names somebody, so its name counts only if it was verified here, or if the vendor's own
host has accepted it; anywhere else a token is a key like others.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from sidecar.core.dialect import Dialect
from sidecar.core.http.headers import CREDENTIALS
from sidecar.core.model import Fields, Pairs
from sidecar.core.request import token
from sidecar.core.request.noise import without_balancers
from sidecar.core.request.roles import Roles, bare
from sidecar.core.rules import Service, Share

ACCEPTED_SECONDS = 15 * 60.0
"""How long a service's acceptance counts where many callers share, and for tokens without an expiry."""

_NEVER = (-inf, -inf)

Digest = Callable[..., bytes]
"""A keyed digest of length-prefixed parts (``fingerprint.partition_of`` with the process's secret)."""

VerifyBearer = Callable[[bytes], token.Claims | None]
"""The claims of a token that was verified here; otherwise None. An expired token counts as verified, too."""

_SEPARATORS = re.compile(rb"([&;])")
_WORDS = re.compile(rb"[\s,;=&]+")
_NONE = (b"", b"null", b"none", b"undefined", b'""', b"''")
_SCHEMES = frozenset({b"apikey", b"api-key", b"basic", b"bearer", b"key", b"token"})
_EMPTY = frozenset({*_NONE, *_SCHEMES, *(b"%b %b" % (scheme, none) for scheme in _SCHEMES for none in _NONE if none)})
"""
An empty credential: nothing, a scheme alone, or what programs write for a variable that is not set.
"""
_NOBODY = b"basic og=="
"""Basic's colon without name and password."""

_SIGNED = re.compile(
    rb"(?:aws[0-9]?(?:-[a-z0-9-]+)?|goog[14]-[a-z0-9-]+|acs3-[a-z0-9-]+|tc3-[a-z0-9-]+|sdk-[a-z0-9-]+|oss|obs|cos|kss|qiniu"
    rb"|qbox|upyun|hmac|sharedkey(?:lite)?|signature|hawk|digest|dpop|mac|eg1-[a-z0-9-]+|negotiate|ntlm)(?:\s|\Z)"
    rb"|[a-z0-9._-]{0,64}(?:hmac|sha-?(?:1|256|384|512)|signature)[a-z0-9._-]{0,64}\s"
    rb"|bce-auth-v[0-9]+/|q-sign-algorithm=|oauth\s.*oauth_signature",
    re.IGNORECASE | re.DOTALL,
)
"""
Schemes in which the caller signs each request, or answers a challenge: AWS Signature Version 4 and similar ones
(Google, Alibaba, Tencent, Huawei, Baidu, Volcano Engine, Akamai), the older ones of object stores, HMAC and shared
access signatures of Azure, RFC 9421 and its drafts, OAuth 1.0, Hawk, Digest, DPoP, MAC, SPNEGO; and any other scheme
named after its signature.
"""

_SIGNATURES = frozenset({b"signature", b"signature-input", b"dpop"})
_SIGNED_QUERY = re.compile(rb"(?:(?:x-[a-z0-9._-]*|q-)?signature|sig)\Z")
"""Names of query members, in lower case, that hold the signature of a URL; ``sig`` is Azure's."""


class Pod(Struct, frozen=True, gc=False):
    """The workload beside this process; *process* is random for each process, for pods without an identity."""

    namespace: str = ""
    account: str = ""
    process: bytes = b""


class Principal(Struct, frozen=True, gc=False):
    """
    One caller.

    *partition*: whose answers it reads and writes. *credential*: a digest of exactly what it sent, scopes included, to
    tell callers of one partition apart. *needs_proof*: it may read only after the service has accepted this credential.
    *shared*: that acceptance must be recent, because the partition is not its own. *verified*: its token was verified
    here. *expires*: when a token ends, seconds since the epoch, 0 for none. *microsoft*: it sends a token that
    Microsoft issued, in any field. *local*: the partition has no meaning outside this process. *anonymous*: nothing
    like a credential came with the call, so nobody can tell whose call it is. *signed*: the call carries the caller's
    signature, which only the service can check. *claims*: the claims of its token that identify it.
    """

    partition: bytes
    credential: bytes
    needs_proof: bool = False
    shared: bool = False
    expires: float = 0.0
    microsoft: bool = False
    local: bool = False
    anonymous: bool = False
    verified: bool = False
    signed: bool = False
    claims: tuple[str, ...] = ()


class Presented(Struct, frozen=True, gc=False):
    """
    Every credential of a request, distinct and sorted. *values* stand in the fields or query members from which
    services read keys, without their scheme: a key is the same key in any of them; empty ones are left out. *fields*
    are all others, by name, as they are written: some only look like credentials. *native* are those of *values* in
    fields that the dialect's own API reads.
    """

    values: tuple[bytes, ...]
    fields: Pairs
    native: tuple[bytes, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is no credential at all."""
        return not self.values and all(is_empty(value) for _, value in self.fields)


def presented(dialect: Dialect, roles: Roles, fields: Fields, query: bytes) -> Presented:
    """
    The credentials of a request.

    All of them count, because nobody outside the service knows which one it obeys. A caller that adds a second key must
    not read as the owner of the first one.
    """
    values: set[bytes] = set()
    native: set[bytes] = set()
    others = []
    for name, value in roles.credentials(fields):
        if name not in dialect.credentials and name not in CREDENTIALS:
            others.append((name, value))
        elif not is_empty(value):
            values.add(bare(value))
            if name in dialect.credentials:
                native.add(bare(value))
    if dialect.credential_query and query:
        for member in query.split(b"&"):
            value = member.partition(b"=")[2]
            if value and _carries_key(member, dialect.credential_query):
                values.add(value)
                native.add(value)
    return Presented(tuple(sorted(values)), tuple(sorted(others)), tuple(sorted(native)))


def without_credentials(target: bytes, names: frozenset[str]) -> bytes:
    """*target* without the query members of *names*, however these are written; the rest byte for byte."""
    path, _, query = target.partition(b"?")
    rest = _without(_SEPARATORS.split(query), names)  # some services still accept `;` as a separator
    if rest == query:
        return target
    return path + b"?" + rest if rest else path


def counted_query(query: bytes, ignored: frozenset[str], seal: Callable[[bytes], bytes] | None = None) -> bytes:
    """
    *query* as it is written, without the members named in *ignored*, for instance those that carry a credential. A
    member without a value is no credential and stays. With *seal*, the members stay in their places, and the result of
    *seal* replaces each value.
    """
    kept = []
    for member in query.split(b"&") if ignored else (query,):
        name, _, value = member.partition(b"=")
        if not value or not _carries_key(member, ignored):
            kept.append(member)
        elif seal is not None:
            kept.append(b"%b=%b" % (name, seal(value)))
    return b"&".join(kept)


def _without(pieces: list[bytes], names: frozenset[str]) -> bytes:
    """The members of a query without those of *names*; *pieces* are the members with separators between them."""
    kept: list[bytes] = []
    for at in range(0, len(pieces), 2):
        if not _carries_key(pieces[at], names):
            kept += (pieces[at - 1], pieces[at]) if kept else (pieces[at],)
    return b"".join(kept)


def identify(
    digest: Digest,
    service: Service,
    roles: Roles,
    share: Share,
    fields: Fields,
    query: bytes,
    *,
    pod: Pod | None,
    verify: VerifyBearer = lambda _: None,
) -> Principal:
    """
    The principal of a request. *pod* is given where the region supplies the credential: then the workload is the
    caller, whatever credential the application sends. If a route shares by a header and the call lacks it, the route
    counts as not sharing for this call.
    """
    dialect = service.dialect
    shown = presented(dialect, roles, fields, query)
    written = [name + b":" + value for name, value in shown.fields]
    scopes = [_scope(name, fields) for name in dialect.scopes]
    # A service may judge by any of it: one that accepts a cookie has not checked the token beside it.
    credential = digest(b"credential", *scopes, *[b"=" + value for value in shown.values], *written)
    local = verified = False
    bearer: token.CallerToken | None = None
    group = share.name.encode("latin-1")
    shared = share.kind == "service" or (share.kind == "header" and group in fields)
    if share.kind == "service":
        partition = digest(b"service")
    elif shared:
        partition = digest(b"header", share.name.encode(), fields[group])
    elif pod is not None:
        local = not (pod.namespace and pod.account)
        workload = (pod.namespace.encode(), pod.account.encode(), pod.process if local else b"")
        partition = digest(b"pod", *workload, *scopes)
    else:
        named = _named(service, roles, shown, verify)
        if named is None:
            partition = digest(b"key", *scopes, *[b"=" + value for value in shown.values], *written)
        else:
            bearer, text, verified = named
            others = [b"=" + value for value in shown.values if value != text]
            others += [name + b":" + value for name, value in shown.fields if bare(value) != text]
            partition = digest(b"token", *scopes, bearer.subject, *others)
    return Principal(
        partition=partition,
        credential=credential,
        needs_proof=pod is None and (shared or bearer is not None),
        shared=shared,
        expires=bearer.expires if bearer is not None else _soonest_end(shown) if shared and pod is None else 0.0,
        microsoft=any(map(token.is_microsofts, _words(roles, fields, query))),
        local=local,
        anonymous=pod is None and not shared and shown.is_empty,
        verified=verified,
        signed=pod is None and _is_signed(roles, fields, query),
        claims=bearer.names if bearer is not None else (),
    )


def _named(
    service: Service, roles: Roles, shown: Presented, verify: VerifyBearer
) -> tuple[token.CallerToken, bytes, bool] | None:
    """
    The token that names the caller, if there is one; its text; and whether it was verified here.

    A token that cannot be verified here counts only at the vendor's own host, and only if it is the one credential that
    the vendor can have judged.
    """
    if service.tokens.issuer:
        for value in (*shown.values, *[bare(value) for _, value in shown.fields]):
            claims = verify(value)
            if claims is not None and (found := token.token_of(claims, service.tokens.ignore_claims)) is not None:
                return found, value, True
    if roles.own and len(shown.native) == 1 and len(shown.values) == 1:
        [value] = shown.native
        if (found := token.read(value, service.tokens.ignore_claims)) is not None:
            return found, value, False
    return None


def _soonest_end(shown: Presented) -> float:
    """When the first of the tokens among the credentials ends, whoever issued it; 0 if none ends."""
    values = (*shown.values, *[bare(value) for _, value in shown.fields])
    ends = [found.expires for value in values if (found := token.read(value)) is not None and found.expires]
    return min(ends, default=0.0)


def is_empty(value: bytes) -> bool:
    """Whether a field's *value* is an empty credential."""
    plain = b" ".join(value.lower().split())
    return plain in _EMPTY or plain == _NOBODY


class Accepted:
    """
    The credentials that a service has accepted, and when it last did; at most *limit*, the oldest are dropped. A
    *place* is a service or one resource of it, at its URLs (``Site.place``): acceptance at one place proves nothing at
    another, nor after the service has moved.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._at: OrderedDict[tuple[str, bytes], tuple[float, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Accepted {len(self._at)} credentials>"

    def note(self, place: str, principal: Principal, now: float, clock: float) -> None:
        """
        The service has just given this caller a whole answer that needs an accepted credential. *now* is the wall
        clock, *clock* seconds that run on: setting a clock never makes an acceptance last longer.
        """
        if not principal.needs_proof:
            return
        end = clock + principal.expires - now if principal.expires else inf
        self._at.pop((place, principal.credential), None)
        self._at[place, principal.credential] = clock, end
        if len(self._at) > self._limit:
            self._at.popitem(last=False)

    def withdraw(self, place: str, principal: Principal) -> None:
        """The service has just refused this credential (401, 403)."""
        self._at.pop((place, principal.credential), None)

    def knows(self, place: str, principal: Principal, now: float, clock: float) -> bool:
        """Whether the caller may read what is stored in its partition."""
        if not principal.needs_proof:
            return True
        if principal.expires and principal.expires <= now:
            return False
        if principal.verified:
            return True
        at, end = self._at.get((place, principal.credential), _NEVER)
        if clock >= end:
            return False
        return clock - at < ACCEPTED_SECONDS or bool(principal.expires and not principal.shared)


def _scope(name: bytes, fields: Fields) -> bytes:
    value = fields.get(name, b"")
    return without_balancers(value) if name == b"cookie" and value else value


def _words(roles: Roles, fields: Fields, query: bytes) -> list[bytes]:
    """Everything that may be a token: in each field with a credential, in the cookies, and in the whole query."""
    values = [value for _, value in roles.credentials(fields)]
    if b"cookie" in fields:
        values.append(fields[b"cookie"])
    return [word for value in (*values, query) for word in _WORDS.split(value) if word.count(b".") == 2]


def _is_signed(roles: Roles, fields: Fields, query: bytes) -> bool:
    """Whether a request carries its own signature, in a field or in the query. Services decode names."""
    names = [unquote_to_bytes(member.partition(b"=")[0]).lower() for member in _SEPARATORS.split(query)]
    if not _SIGNATURES.isdisjoint(fields) or any(map(_SIGNED_QUERY.match, names)):
        return True
    return any(_SIGNED.match(value) for _, value in roles.credentials(fields))


def _carries_key(member: bytes, names: frozenset[str]) -> bool:
    """Whether a query member is one of *names*. Services decode the name, and many ignore its case."""
    return unquote_to_bytes(member.partition(b"=")[0]).decode("latin-1").lower() in names
