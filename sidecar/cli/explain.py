"""
``sidecar explain``: how a request would be decided, without sending anything.

The rule: it calls the same functions as the proxy, in the same order, and shows their results. Credentials are never
shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeAlias

from sidecar.core.cache.policy import Bypass, Observe, Reason, admit, freshness, obstacles
from sidecar.core.dialect import BodyForm
from sidecar.core.http.headers import is_secretive
from sidecar.core.key import canonical
from sidecar.core.key.fingerprint import KEY_VERSION, fleet_secret, seal
from sidecar.core.key.json_rule import faults
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.limits.rates import limited
from sidecar.core.model import Facts, Head, Key, Reading
from sidecar.core.reasons import REASONS
from sidecar.core.region.ordering import eligible
from sidecar.core.region.regions import Regions
from sidecar.core.request.plan import Caller, RequestPlan, RequestPlans, may_have_tokens
from sidecar.core.request.principal import Pod, is_empty
from sidecar.core.request.roles import Role
from sidecar.core.rules import AzureIdentity, CacheMode, Region, Route, RouteLimits, Rules
from sidecar.core.site.recognise import choose_route
from sidecar.core.site.routing import choose_model
from sidecar.errors import Refused
from sidecar.identity.caller_tokens import KeySets
from sidecar.net.base import Request
from sidecar.net.request_file import read_request
from sidecar.proxy.request import Call, upstream_call_of
from sidecar.upstream.call import Hop, UpstreamCall
from sidecar.upstream.candidates import Candidates

_SECRET = b"sidecar explain: a fixed secret"
_SHOWN = 2000
_POD = ("SIDECAR_POD_NAMESPACE", "SIDECAR_SERVICE_ACCOUNT")

_UNIQUE = re.compile(
    rb"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-z])(?:[0-9a-f]{16,}|[0-9]{10,})(?![0-9a-z])"
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}t[0-9]{2}:[0-9]{2}"
)
"""What ids and times look like: a UUID, a long number or digest, a date with a time."""

_UNSAFE = frozenset(Unsafe) - {Unsafe.FILE_ID}

_ILLEGIBLE = frozenset({Reason.CONTENT_ENCODED, Reason.CHARSET})
"""Reasons for which the bytes of a body are not read, because they may mean something else."""

_LEGIBLE = Facts(deterministic=True)
"""Of such a body nothing is said."""

_Say: TypeAlias = Callable[[str, object], None]


def explain(rules: Rules, raw: bytes, environ: Mapping[str, str] = os.environ) -> tuple[str, bool]:
    """
    The report on *raw*, a request as it goes over the wire (lone LF are fine), and whether it was readable. *environ*
    names the pod, as it does for ``run``.
    """
    lines: list[str] = []
    say = partial(_say, lines)
    for warning in rules.warnings:
        say("warning", warning)
    head, body = read_request(raw, rules.listen.port, {service.port for service in rules.services if service.port})
    if head is None:
        lines.append(
            "This is not an HTTP request. Expected a request line, header lines, an empty line, and the body, as in:\n"
            '  POST /openai/v1/chat/completions HTTP/1.1\n  Host: 127.0.0.1:7400\n\n  {"model": ...}'
        )
        return "\n".join(lines), False
    secret = _SECRET if rules.redis is None else fleet_secret(rules.redis.namespace)
    namespace, account = (environ.get(name, "") for name in _POD)
    key_sets = KeySets(
        {service.name: service.tokens for service in rules.services},
        clock=lambda: 0.0,
        report=lambda line: say("warning", line),
    )
    plans = RequestPlans(rules, secret, Pod(namespace, account, b"explain"), key_sets.verify)
    try:
        plan = plans.find(head)
    except Refused as refusal:
        _say_refusal(say, refusal)
        return "\n".join(lines), True
    site = plan.site
    say("service", f"{site.service.name} (dialect {site.service.dialect.name})")
    say("endpoint", site.endpoint.name if site.endpoint is not None else "not known: passes through untouched")
    call = None
    if plan.bypass is not None and not site.reads:
        route = choose_route(site, head.fields, "")
        say("route", route.name)
        say("decision", f"bypass ({plan.bypass.reason}); the body is not read")
    else:
        call = _explain_body(plan, head, body, secret, say)
        route = call.route
    _explain_reasons(_reasons(plans, plan, head, body, secret), say)
    if call is not None and call.key is not None and not call.observe:
        say("hit", _hit(plan, call))
    caller = plan.identities.caller(plan, route)
    _explain_fields(plan, caller, say)
    _explain_regions(Request(head, body, plan), call, route, caller, say)
    _explain_rules(route, head, say)
    return "\n".join(lines), True


def _say(lines: list[str], name: str, value: object) -> None:
    lines.append(f"{name + ':':<12} {value}")


def _say_refusal(say: _Say, refusal: Refused) -> None:
    say("answer", f"{refusal.status} {refusal.code}: {refusal.message}")


def _explain_body(plan: RequestPlan, head: Head, body: bytes, secret: bytes, say: _Say) -> Call:
    """Show what the body decides, in addition to the head."""
    site = plan.site
    endpoint = site.endpoint
    assert endpoint is not None
    reading = canonical.read(body, endpoint, head.fields.get(b"content-type", b""), secret)
    facts = reading.facts
    model = choose_model(endpoint, facts)
    route = choose_route(site, head.fields, model)
    caller = plan.identities.caller(plan, route)
    decision = plan.bypass or admit(facts, route, caller.principal)
    fresh = freshness(endpoint, route, plan.asked)
    shared = f"share {route.cache.share.kind} {route.cache.share.name}".rstrip()
    say("route", f"{route.name} (mode {route.cache.mode}, {shared})")
    say("model", model or "(none)")
    say("stream", "yes" if facts.view.stream else "no")
    if caller.principal.verified:
        say("caller", "its token was verified here")
    elif caller.principal.needs_proof and endpoint.proves:
        say("caller", "reads stored answers only once the service has accepted its credential")
    elif caller.principal.needs_proof:
        say("caller", "reads no stored answer: none of these proves that its credential was accepted; give the region "
            "a credential to share them")  # fmt: skip
    if isinstance(decision, Bypass):
        say("decision", f"bypass ({decision.reason})")
        return Call(endpoint, facts, route, model, caller.principal, fresh, None, decision.reason)
    observe = isinstance(decision, Observe)
    say("decision", "observe: never served, only measured" if observe else "look-up")
    say("ttl", f"{fresh.ttl:g} s")
    if fresh.while_revalidate or fresh.if_error:
        say("stale", f"{fresh.while_revalidate:g} s while revalidated, {fresh.if_error:g} s if that fails")
    key = seal(secret, caller.prefix, model, reading)
    _explain_key(reading, caller, key, say, fixed=secret == _SECRET)
    return Call(endpoint, facts, route, model, caller.principal, fresh, key, observe=observe)


def _reasons(plans: RequestPlans, plan: RequestPlan, head: Head, body: bytes, secret: bytes) -> list[str]:
    """
    Every reason why the call is not looked up; the first is the one that callers see. The body is read for this even if
    the proxy would not read it. Otherwise its reasons would appear only after the others are gone.
    """
    found = [*plans.obstacles(plan)]
    site = plan.site
    endpoint = site.endpoint
    if endpoint is not None and not endpoint.bypass and _ILLEGIBLE & {*found}:
        route = choose_route(site, head.fields, "")
        found += obstacles(_LEGIBLE, route, plan.identities.caller(plan, route).principal)
    elif endpoint is not None and not endpoint.bypass:
        reading = canonical.read(body, endpoint, head.fields.get(b"content-type", b""), secret)
        route = choose_route(site, head.fields, choose_model(endpoint, reading.facts))
        found += obstacles(reading.facts, route, plan.identities.caller(plan, route).principal)
        if reading.facts.bypass in _UNSAFE and endpoint.body is BodyForm.JSON:
            found += sorted(faults(body))
        if route.cache.mode is CacheMode.OBSERVE:
            found.append(Reason.OBSERVE)
    return [*dict.fromkeys(map(str, found))]


def _explain_reasons(reasons: list[str], say: _Say) -> None:
    """Show each of *reasons* with its meaning and its remedy. With all remedies, the call is looked up."""
    if reasons:
        say("why", f"\n{'':13}".join(f"{reason}: {REASONS[reason].meaning}" for reason in reasons))
        say("for a hit", f"\n{'':13}".join(f"{reason}: {REASONS[reason].remedy}" for reason in reasons))


def _hit(plan: RequestPlan, call: Call) -> str:
    """What must happen for a looked-up call to be a hit."""
    asked = plan.asked
    if call.fresh.ttl <= 0:
        return "never, because the caller says `x-sidecar-ttl: 0` or the route has `ttl` 0, so no answer is kept"
    if asked.no_cache:
        return "never, because the caller wants a new answer (`no-cache`); leave that out"
    if asked.max_age == 0:
        return "never, because the caller takes no stored answer (`max-age=0`); leave that out"
    if call.principal.needs_proof and not call.endpoint.proves:
        return "never, because none of these answers proves that the caller's credential was accepted"
    proof = ", once the service has accepted the caller's credential" if call.principal.needs_proof else ""
    return f"a call with this key, within {call.fresh.ttl:g} s of a whole answer to one{proof}"


def _explain_fields(plan: RequestPlan, caller: Caller, say: _Say) -> None:
    """
    Show which fields of the head count in the key, which identify the caller, and which are ignored; never a
    credential.
    """
    head, roles = plan.head, plan.identities.roles(plan.site.service)
    counted = plan.identities.counted(plan)
    names = [name.decode("latin-1") for name, _ in counted]
    where = "the vendor's own host: the dialect's list counts" if roles.own else "not the vendor's own host"
    say("fields", f"{where}" if roles.own else f"{where}: every field counts but credentials and noise")
    say("  count", ", ".join(names) or "(none)")
    credentials = {name for name, value in roles.credentials(head.fields) if not is_empty(value)}
    scopes = [name for name in head.fields if roles.of(name) is Role.SCOPE]
    say("  caller", _words([*credentials, *scopes]) or "(none)")
    rest = [
        name for name in head.fields if name not in credentials and name not in scopes and name not in dict(counted)
    ]
    say("  ignored", _words(rest) or "(none)")
    for name, value in counted:
        if _UNIQUE.search(value) and not is_secretive(name):
            say(
                "hint",
                f"{name.decode('latin-1')} looks as if it had another value on each call; then no answer is ever found "
                "again. If the answer does not depend on it, name it in services.*.headers.ignore",
            )
    if caller.principal.claims:
        say("claims", ", ".join(caller.principal.claims))


def _words(names: Iterable[bytes]) -> str:
    return ", ".join(sorted(name.decode("latin-1") for name in names))


def _explain_key(reading: Reading, caller: Caller, key: Key, say: _Say, *, fixed: bool) -> None:
    """
    Show what the key is made of. *fixed*: this command made up the secret, because each process without Redis has its
    own.
    """
    shown = (
        reading.material[:_SHOWN].decode("utf-8", "replace")
        if reading.tag in {b"json", b"document"}
        else reading.material.hex()[:_SHOWN]
    )
    say("canonical", f"{reading.tag.decode()}, {len(reading.material)} bytes")
    say("", shown)
    note = ""
    if fixed:
        say("partition", "of each process alone, for without Redis each has a secret of its own; purge by `--request`")
        note = "; under a fixed secret: compare keys of two requests with it; purge by `--request`, not by it"
    elif caller.principal.local:
        note = "; of this command alone: compare keys of two requests with it; purge by `--request`, not by it"
        say(
            "partition", f"of each process alone, for the pod has no name here: set {' and '.join(_POD)} as it has them"
        )
    else:
        say("partition", caller.principal.partition.hex())
    say("key", f"{key.address.hex()} (version {KEY_VERSION}{note})")


def _explain_regions(request: Request, call: Call | None, route: Route, caller: Caller, say: _Say) -> None:
    """Show the regions in the order in which they are asked while all work, and those that are not asked."""
    candidates = Candidates(Regions(lambda _, __: None), clock=lambda: 0.0, draw=lambda: 0.5, sharing=None)
    try:
        outgoing = upstream_call_of(
            request, call, route, caller.principal, body=request.body, attempt_logs=[], deadline=None
        )
    except Refused as refusal:
        say("candidates", "(none)")
        _say_refusal(say, refusal)
        return
    hops: list[Hop] = []
    refused = None
    try:
        hops = candidates.hops(outgoing, request.body)
    except Refused as refusal:
        refused = refusal
    say("candidates", f"\n{'':13}".join(_candidate(hop, outgoing.model) for hop in hops) or "(none)")
    taken = {hop.region.name for hop in hops}
    left = [
        f"{region.name}: {_obstacle(region, outgoing)}" for region in outgoing.site.regions if region.name not in taken
    ]
    if left:
        say("left out", f"\n{'':13}".join(left))
    if refused is not None:
        _say_refusal(say, refused)


def _candidate(hop: Hop, model: str) -> str:
    region = hop.region
    facts = [f"priority {region.priority}", f"weight {region.weight}"]
    if region.residency:
        facts.append(f"residency {region.residency}")
    match region.credential:
        case None:
            facts.append("the caller's own credential")
        case AzureIdentity(kind=kind):
            facts.append(f"{kind} identity")
        case _:
            facts.append("a credential from a file")
    if model in region.deployments:
        facts.append(f"deployment {region.deployments[model]}")
    return f"{region.name} {region.url} ({', '.join(facts)})"


def _obstacle(region: Region, outgoing: UpstreamCall) -> str:
    """Why a call does not go to *region*, checked in the order of the proxy."""
    site = outgoing.site
    if outgoing.allow and region.residency not in outgoing.allow:
        return f"residency {region.residency or '(none)'}, and the route allows {', '.join(sorted(outgoing.allow))}"
    if region not in [candidate.region for candidate in eligible(site.regions, outgoing.allow)]:
        return f"credential domain {region.credential_domain}, to which the caller's own credential does not go"
    foreign = region.credential is None and not site.service.dialect.microsoft_tokens
    if outgoing.microsoft and foreign and not may_have_tokens(region):
        return "Microsoft issued the caller's token, which goes to no other vendor"
    if outgoing.pinned:
        return "the call names what one region has stored, so it goes to the first one only"
    return f"the model is {region.deployments.get(outgoing.model, '')} there, which cannot be put into this call"


def _explain_rules(route: Route, head: Head, say: _Say) -> None:
    """Show the other rules for the route's calls, where they differ from the defaults."""
    if limited(route.limits):
        say("limits", ", ".join(_limits(route.limits)))
    timeout, hedge = route.retry.on_timeout, route.retry.hedge
    if timeout or hedge:
        say("retry", ", ".join([*["after a timeout"] * timeout, *["hedged"] * hedge]))
    if route.fallback:
        unwanted = head.fields.get(b"x-sidecar-fallback", b"").strip().lower() == b"none"
        ways = ", ".join(f"{rule.kind.replace('_', ' ')} {rule.value}".rstrip() for rule in route.fallback)
        say("fallback", "none, as the caller says" if unwanted else ways)


def _limits(limits: RouteLimits) -> Iterator[str]:
    if limits.concurrency:
        yield f"{limits.concurrency} at once"
    if limits.adaptive:
        yield "adaptive concurrency"
    if limits.tokens_per_minute:
        yield f"{limits.tokens_per_minute} tokens a minute"
    if limits.requests_per_minute:
        yield f"{limits.requests_per_minute} requests a minute"
    yield f"{limits.queue} may wait"
