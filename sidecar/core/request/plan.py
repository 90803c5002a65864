"""
What a request's head means, worked out once for all requests whose deciding fields are the same.

The rule: every header field that one of our decisions reads is a deciding field, and plans are found by these fields.
Any other field cannot matter.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

from msgspec import Struct

from sidecar.core.cache.policy import CONDITIONAL, Bypass, Reason, admit_head, head_obstacles
from sidecar.core.http.directives import Directives, read_directives
from sidecar.core.http.headers import LONGEST_NAME
from sidecar.core.key.fingerprint import partition_of, prefix
from sidecar.core.memo import Memo
from sidecar.core.model import Fields, Head, Pairs
from sidecar.core.request.principal import Pod, Principal, counted_query, identify
from sidecar.core.request.roles import MOST_NAMES, TOKEN_START, Role, Roles
from sidecar.core.request.splits import Splits
from sidecar.core.request.token import Claims
from sidecar.core.rules import HeaderRule, Mode, Region, Route, Rules, Service, Share, TokenRule, host_of
from sidecar.core.site.base_url import astray
from sidecar.core.site.recognise import Site, Stray, recognise
from sidecar.errors import Refused

_ALWAYS = frozenset({
    b"host", b"connection", b"cache-control", b"pragma", b"x-sidecar-ttl", b"x-sidecar-tags", b"content-encoding",
    b"content-type", b"range", b"origin", b"sec-fetch-site", b"cookie", b"signature", b"signature-input", b"dpop",
    *CONDITIONAL,
})  # fmt: skip

_APPROACHES = 1024
_APPROACH_BYTES = 2 * 1024 * 1024
_APPROACH_WEIGHT = 1024
_USUAL_HEAD = 4096

_MICROSOFT = (".azure.com", ".azure.us", ".azure.cn", ".azure-api.net", ".microsoft.com", ".windows.net")
_SAME_PAGE = frozenset({b"none", b"same-origin"})
_PORT = re.compile(r":[0-9]*\Z")
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound

VerifyToken: TypeAlias = Callable[[str, bytes], Claims | None]
"""Gives the claims of a token sent to the service of that name, if the token was verified; otherwise None."""


def unverified(_service: str, _token: bytes) -> Claims | None:
    """Returns None: no token is verified here."""
    return None


class Caller(Struct, frozen=True, gc=False):
    """Who asks on one route, and the part of the key material before the body."""

    principal: Principal
    prefix: bytes


class RequestPlan(Struct, gc=False, eq=False):
    """
    All requests with one method, target, port and set of deciding header fields, under one revision of the rules: a
    request that has its plan finishes by these rules. Compared by identity.

    *head* is the first such head; other heads have only the deciding fields in common with it. *bypass*: the head alone
    rules a look-up out. *callers* collects the principals, one for each way in which the routes share. *noted*: the
    fields that count have been checked for values that split keys. *excess*: bytes of the head beyond a usual one, for
    memos that are keyed by the plan.
    """

    head: Head
    site: Site
    asked: Directives
    bypass: Bypass | None
    identities: Identities
    callers: dict[Share, Caller]
    noted: bool = False
    excess: int = 0


class DecidingFields(dict[bytes, bool]):
    """
    Which header fields some decision under *rules* reads, by lower-case name: fields that count or identify the caller
    at some service, that choose or share a route, or that speak to the sidecar.
    """

    def __init__(self, rules: Rules, roles: Iterable[Roles]) -> None:
        super().__init__(dict.fromkeys(_ALWAYS, True))
        self._roles = tuple(roles)
        for route in rules.routes:
            self |= dict.fromkeys((name.lower().encode("latin-1") for name in route.match.header), True)
            if route.cache.share.name:
                self[route.cache.share.name.lower().encode("latin-1")] = True

    def __missing__(self, name: bytes) -> bool:
        tells = any(roles.of(name) is not Role.NOISE for roles in self._roles)
        if len(self) < MOST_NAMES and len(name) <= LONGEST_NAME:
            self[name] = tells
        return tells


class Identities:
    """
    Who asks, under one revision of the rules. *secret* keys every digest. *pod* is who asks where a region has its own
    credential. *verify* checks the tokens of services that say how theirs are verified.
    """

    def __init__(self, rules: Rules, secret: bytes, pod: Pod, verify: VerifyToken) -> None:
        self._secret = secret
        self._pod = pod
        self._verify = verify
        self._roles = {service.name: Roles(service) for service in rules.services}
        self.splits = Splits()

    def __repr__(self) -> str:
        return f"<Identities at {len(self._roles)} services>"

    def roles(self, service: Service) -> Roles:
        """The role of each field for *service*."""
        return self._roles[service.name]

    def counted(self, plan: RequestPlan) -> Pairs:
        """The fields of a head that are part of the question."""
        endpoint = plan.site.endpoint
        roles = self._roles[plan.site.service.name]
        return roles.counted(plan.head.fields, frozenset() if endpoint is None else endpoint.uncounted)

    def caller(self, plan: RequestPlan, route: Route) -> Caller:
        """The principal of a call on *route*."""
        if not plan.noted:
            plan.noted = True
            self.splits.note(route.name, self.counted(plan))
        return plan.callers.get(route.cache.share) or self.first(plan, route)

    def first(self, plan: RequestPlan, route: Route) -> Caller:
        """As ``caller``, before it is known on which route the call will be."""
        return self._shared(plan, route.cache.share)

    def shared_as(self, plan: RequestPlan, share: Share) -> Principal:
        """The principal of a call, as a route that shares so has it."""
        return self._shared(plan, share).principal

    def _shared(self, plan: RequestPlan, share: Share) -> Caller:
        caller = plan.callers.get(share)
        if caller is None:
            caller = plan.callers[share] = self._identify(plan, share)
        return caller

    def _identify(self, plan: RequestPlan, share: Share) -> Caller:
        site, head = plan.site, plan.head
        service, fields = site.service, head.fields
        dialect, roles = service.dialect, self._roles[service.name]
        separating = separation(service)
        principal = identify(
            lambda *parts: partition_of(self._secret, *separating, *parts),
            service,
            roles,
            share,
            fields,
            site.query,
            pod=self._pod if all(region.credential is not None for region in site.regions) else None,
            verify=lambda token: self._verify(service.name, token),
        )
        endpoint = site.endpoint
        if endpoint is None:
            return Caller(principal, b"")
        path, mark, query = site.target.partition(b"?")
        counted = counted_query(
            query,
            dialect.ignored_query | dialect.credential_query,
            None if dialect.knows_query else lambda value: partition_of(self._secret, b"query", value).hex().encode(),
        )
        if endpoint.query is not None:
            counted = endpoint.query(counted)
            query = counted  # where the order of members has no meaning, a question mark alone has none either
            mark = b"?" if counted else b""
        material = prefix(
            partition=principal.partition,
            service=service.name,
            resource=site.resource,
            endpoint=endpoint.name,
            method=head.method,
            path=endpoint.path or path.decode("latin-1"),  # doubled slashes may have a meaning for the service
            query=mark + counted if counted or not query else b"",
            # a digest stands for each value, because some are credentials, too
            headers=tuple((name, partition_of(self._secret, b"field", value)) for name, value in self.counted(plan)),
        )
        return Caller(principal, material)


def separation(service: Service) -> tuple[bytes, ...]:
    """
    The rules by which *service* tells its callers and their questions apart, as parts of every partition; nothing for
    the usual rules. So no answer that was stored under other rules is found: a field that did not count then may have
    been another caller's.
    """
    headers, tokens = service.headers, service.tokens
    if headers == HeaderRule() and not service.credential_headers and tokens == TokenRule():
        return ()
    return (
        b"separation", *_listed(headers.count), *_listed(headers.ignore), *_listed(service.credential_headers),
        *_listed(name.encode() for name in tokens.ignore_claims), tokens.issuer.encode(), tokens.audience.encode(),
    )  # fmt: skip


def _listed(names: Iterable[bytes]) -> tuple[bytes, ...]:
    listed = sorted(names)
    return (b"%d" % len(listed), *listed)


class RequestPlans:
    """Finds the plan of a head under one revision of the rules; *secret*, *pod*, *verify*: see ``Identities``."""

    def __init__(self, rules: Rules, secret: bytes, pod: Pod, verify: VerifyToken = unverified) -> None:
        self.rules = rules
        self._secret = secret
        self._pod = pod
        self._verify = verify
        self._identities = Identities(rules, secret, pod, verify)
        self._names = _names(rules)
        self._memo: Memo[tuple[object, ...], RequestPlan] = Memo(_APPROACHES, _APPROACH_BYTES)
        self.deciding_fields = DecidingFields(rules, map(self._identities.roles, rules.services))
        self.splits = self._identities.splits

    def __repr__(self) -> str:
        return f"<Approaches {self._memo!r}>"

    def find(self, head: Head) -> RequestPlan:
        """The plan of *head*. Raises ``Refused`` for a head that is answered with an error."""
        tells = self.deciding_fields
        fields = [pair for pair in head.fields.items() if tells[pair[0]] or pair[1].find(TOKEN_START) >= 0]
        deciding = (head.method, head.target, head.port, *fields)
        plan = self._memo.get(deciding)
        if plan is None:
            plan = self._consider(head)
            weight = len(head.target) + sum(len(name) + len(value) for name, value in fields)
            whole = len(head.target) + sum(len(name) + len(value) for name, value in head.pairs)
            plan.excess = max(2 * whole - _USUAL_HEAD, 0)  # the head has its fields twice: as they came, and by name
            self._memo.put(deciding, plan, _APPROACH_WEIGHT + weight + plan.excess)
        return plan

    def switched(self, mode: Mode) -> RequestPlans:
        """The same plans in *mode*."""
        return self.revised(replace(self.rules, mode=mode), self._verify)

    def revised(self, rules: Rules, verify: VerifyToken) -> RequestPlans:
        """The plans of other *rules*, for the same workload."""
        return RequestPlans(rules, self._secret, self._pod, verify)

    def forget(self) -> None:
        """Forget all plans, because other tokens are verified from now on."""
        self._memo = Memo(_APPROACHES, _APPROACH_BYTES)

    @staticmethod
    def caller(plan: RequestPlan, route: Route) -> Caller:
        """The principal of a call on *route*."""
        return plan.identities.caller(plan, route)

    def _consider(self, head: Head) -> RequestPlan:
        fields = head.fields
        site = recognise(self.rules, head.port, fields.get(b"host", b""), head.method, head.target)
        if isinstance(site, Stray):
            raise Refused(site.status, site.code, site.message)
        dialect = site.service.dialect
        meant = dialect.misdirected(head, site.path, site.query.decode("latin-1")) or astray(head, site)
        if meant is not None:
            raise Refused(421, "misdirected", meant)
        asked = read_directives(fields)
        lent = any(region.credential is not None for region in site.regions)
        page = next(self._led_here(fields), "")
        if page and lent:
            raise _not_from_there(page, self.rules)
        bypass = admit_head(self.rules.mode, site, fields, asked) or (Bypass(page) if page else None)
        plan = RequestPlan(head, site, asked, bypass, self._identities, {})
        self._guard(plan)
        return plan

    def obstacles(self, plan: RequestPlan) -> tuple[str, ...]:
        """All reasons why the head of *plan* rules a look-up out; the first is its ``bypass``."""
        fields = plan.head.fields
        own = head_obstacles(self.rules.mode, plan.site, fields, plan.asked)
        return (*own, *self._led_here(fields))

    def _led_here(self, fields: Fields) -> Iterator[str]:
        """
        Why a web page may have made its reader's browser send this call; nothing if it cannot have. It can do that by a
        name of its own that leads to this address (DNS rebinding), or from its own origin (Fetch, "Origin header" and
        "Sec-Fetch-Site"). The other fields of Fetch Metadata prove nothing: Node.js sends ``Sec-Fetch-Mode`` from any
        program.
        """
        host = _PORT.sub("", fields.get(b"host", b"").decode("latin-1").lower())
        if host and host not in self._names and not _is_loopback(host):
            yield Reason.FOREIGN_HOST
        if b"origin" in fields or fields.get(b"sec-fetch-site", b"none").strip().lower() not in _SAME_PAGE:
            yield Reason.FOREIGN_ORIGIN

    def _guard(self, plan: RequestPlan) -> None:
        """
        A Microsoft-issued token never goes to another vendor's host. A host that speaks Azure's API is not another
        vendor.
        """
        region = plan.site.regions[0]
        taken = plan.site.service.dialect.microsoft_tokens
        if region.credential is not None or taken or may_have_tokens(region):
            return
        if self._identities.first(plan, plan.site.routes[0]).principal.microsoft:
            raise Refused(
                421,
                "foreign-token",
                f"This call carries a token issued by Microsoft, and {plan.site.service.name} is not a Microsoft "
                "service. Use the base URL of the Azure service, or a key of this one; where it is a gateway taking "
                "such tokens, give its region `credential_domain: microsoft`.",
            )


def _names(rules: Rules) -> frozenset[str]:
    """The values of ``Host`` that name this sidecar, or a service whose calls it takes."""
    here = {"localhost", *rules.listen.names, *(host for service in rules.services for host in service.hosts)}
    return frozenset(here if rules.listen.host in _WILDCARDS else here | {rules.listen.host})


def _is_loopback(host: str) -> bool:
    """Whether *host* is a loopback address: no name server can make it lead elsewhere."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _not_from_there(page: str, rules: Rules) -> Refused:
    """The refusal of a call that a web page may have sent, and that would use a credential of the region."""
    if page == Reason.FOREIGN_HOST:
        return Refused(
            421,
            page,
            "The Host of this call is no name of this sidecar, so a web page may have led a browser here. Call it at "
            f"127.0.0.1:{rules.listen.port}, or add the name to `listen.names`.",
        )
    return Refused(
        403,
        page,
        "This call comes from a web page (its Origin or Sec-Fetch-Site says so), and the sidecar would add a "
        "credential to it. Call the sidecar from a program on the server.",
    )


def may_have_tokens(region: Region) -> bool:
    """Whether Microsoft-issued tokens may go to *region*: it is Microsoft's, configured so, or on this machine."""
    host = host_of(region.url)
    return region.credential_domain == "microsoft" or host.endswith(_MICROSOFT) or host in {"localhost", "127.0.0.1"}
