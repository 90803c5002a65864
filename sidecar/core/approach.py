"""
What a request's head says, worked out once for all requests whose telling parts are the same.

The rule: every header field that any decision of ours reads is named by ``telling``, and so is part of what an
approach is found by. A field that isn't cannot matter.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

from msgspec import Struct

from sidecar.core.directives import Directives, read_directives
from sidecar.core.fingerprint import canonical_query, partition_of, prefix
from sidecar.core.headers import CREDENTIALS
from sidecar.core.memo import Memo
from sidecar.core.model import Head
from sidecar.core.policy import CONDITIONAL, Bypass, admit_head
from sidecar.core.principal import Pod, Principal, identify
from sidecar.core.recognise import Site, Stray, recognise
from sidecar.core.rules import Mode, Region, Route, Rules, Share
from sidecar.errors import Refused

_ALWAYS = (
    b"host", b"connection", b"cache-control", b"pragma", b"x-sidecar-ttl", b"x-sidecar-tags", b"content-encoding",
    b"range",
)  # fmt: skip

_APPROACHES = 1024
_APPROACH_BYTES = 2 * 1024 * 1024
_APPROACH_WEIGHT = 1024

_MICROSOFT = (".azure.com", ".azure.us", ".azure.cn", ".azure-api.net", ".microsoft.com", ".windows.net")

Telling: TypeAlias = tuple[object, ...]


class Caller(Struct, frozen=True, gc=False):
    """Who asks by way of one route, and the part of the key material that comes before the body."""

    principal: Principal
    prefix: bytes


class Approach(Struct, gc=False, eq=False):
    """
    All requests with one method, target, port and set of telling header fields. Compared by identity.

    *head* is the first such head; of another one only the telling fields are the same. *bypass*: the head alone rules a
    look-up out. *callers* fills up with the principals, one for each way to share that the routes have.
    """

    head: Head
    site: Site
    asked: Directives
    bypass: Bypass | None
    callers: dict[Share, Caller]


class Approaches:
    """Finds the approach of a head. *secret* keys every digest; *pod* asks where a region has its own credential."""

    def __init__(self, rules: Rules, secret: bytes, pod: Pod) -> None:
        self._rules = rules
        self._secret = secret
        self._pod = pod
        self._telling = telling(rules)
        self._memo: Memo[Telling, Approach] = Memo(_APPROACHES, _APPROACH_BYTES)

    def __repr__(self) -> str:
        return f"<Approaches {self._memo!r}>"

    def find(self, head: Head) -> Approach:
        """The approach of *head*. Raises ``Refused`` for a head that gets no further."""
        get = head.fields.get
        told = (head.method, head.target, head.port, *[get(name) for name in self._telling])
        approach = self._memo.get(told)
        if approach is None:
            approach = self._consider(head)
            self._memo.put(told, approach, _APPROACH_WEIGHT + sum(len(part) for part in told if type(part) is bytes))
        return approach

    def switched(self, mode: Mode) -> Approaches:
        """As this one, in *mode*."""
        return Approaches(replace(self._rules, mode=mode), self._secret, self._pod)

    @property
    def telling(self) -> frozenset[bytes]:
        """The fields by which approaches are told apart."""
        return frozenset(self._telling)

    def caller(self, approach: Approach, route: Route) -> Caller:
        """The principal of a call by way of *route*."""
        caller = approach.callers.get(route.cache.share)
        if caller is None:
            caller = approach.callers[route.cache.share] = self._identify(approach, route.cache.share)
        return caller

    def _consider(self, head: Head) -> Approach:
        fields = head.fields
        site = recognise(self._rules, head.port, fields.get(b"host", b""), head.method, head.target)
        if isinstance(site, Stray):
            raise Refused(site.status, site.code, site.message)
        dialect = site.service.dialect
        meant = dialect.misdirected(head, site.path, site.query.decode("latin-1"))
        if meant is not None:
            raise Refused(421, "misdirected", meant)
        asked = read_directives(fields)
        bypass = admit_head(self._rules.mode, site, fields, asked)
        approach = Approach(head, site, asked, bypass, {})
        self._guard(approach)
        return approach

    def _guard(self, approach: Approach) -> None:
        """A Microsoft-issued token never goes to another vendor's host. Who speaks Azure's API is no other vendor."""
        region = approach.site.regions[0]
        azure = approach.site.service.dialect.name.startswith("azure-")
        if region.credential is not None or azure or may_have_tokens(region):
            return
        if self.caller(approach, approach.site.routes[0]).principal.microsoft:
            raise Refused(
                421,
                "foreign-token",
                f"This call carries a token issued by Microsoft, and {approach.site.service.name} is not a Microsoft "
                "service. Use the base URL of the Azure service, or a key of this one; where it is a gateway taking "
                "such tokens, give its region `credential_domain: microsoft`.",
            )

    def _identify(self, approach: Approach, share: Share) -> Caller:
        site, head = approach.site, approach.head
        fields = head.fields
        dialect = site.service.dialect
        principal = identify(
            lambda *parts: partition_of(self._secret, *parts),
            dialect,
            share,
            fields,
            site.query,
            pod=self._pod if all(region.credential is not None for region in site.regions) else None,
        )
        endpoint = site.endpoint
        if endpoint is None:
            return Caller(principal, b"")
        counting = tuple((name, value) for name in dialect.counting if (value := fields.get(name)) is not None)
        material = prefix(
            partition=principal.partition,
            service=site.service.name,
            resource=site.resource,
            endpoint=endpoint.name,
            method=head.method,
            path=site.target.partition(b"?")[0].decode("latin-1"),  # doubled slashes may mean something to the service
            query=canonical_query(site.query, dialect.ignored_query | dialect.credential_query),
            headers=counting,
            content_type=b"",
        )
        return Caller(principal, material)


def telling(rules: Rules) -> tuple[bytes, ...]:
    """The header fields that some decision under *rules* reads, by lower-case name."""
    names = dict.fromkeys((*_ALWAYS, *CONDITIONAL, b"cookie", *sorted(CREDENTIALS)))
    for service in rules.services:
        dialect = service.dialect
        names |= dict.fromkeys((*dialect.credentials, *dialect.scopes, *dialect.counting))
    for route in rules.routes:
        names |= dict.fromkeys(name.lower().encode("latin-1") for name in route.match.header)
        if route.cache.share.name:
            names[route.cache.share.name.lower().encode("latin-1")] = None
    return tuple(names)


def may_have_tokens(region: Region) -> bool:
    """Whether tokens that Microsoft issued may go to *region*: it is Microsoft's, said to be, or of this machine."""
    host = region.url.partition("://")[2].partition("/")[0].partition(":")[0].lower()
    return region.credential_domain == "microsoft" or host.endswith(_MICROSOFT) or host in {"localhost", "127.0.0.1"}
