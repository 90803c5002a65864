"""
``sidecar explain``: how a request would be decided, without sending anything.

The rule: it asks the very functions that the line asks, in the same order, and shows what they say. Credentials are
never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.core import canonical
from sidecar.core.approach import Approach, Approaches
from sidecar.core.failover import Candidate, eligible
from sidecar.core.fingerprint import KEY_VERSION, fleet_secret, seal
from sidecar.core.limits import limited
from sidecar.core.model import Head
from sidecar.core.policy import Bypass, Observe, admit, freshness
from sidecar.core.principal import Pod
from sidecar.core.recognise import Site, choose_route
from sidecar.core.routing import choose_model
from sidecar.core.rules import AzureIdentity, Region, Route, RouteLimits, Rules
from sidecar.errors import Refused
from sidecar.net.request_file import read_request

_SECRET = b"sidecar explain: a fixed secret"
_SHOWN = 2000


def explain(rules: Rules, raw: bytes) -> tuple[str, bool]:
    """The report on *raw*, a request as it goes over the wire (lone LF are fine), and whether it was readable."""
    lines: list[str] = []
    head, body = read_request(raw)
    if head is None:
        return (
            "This is not an HTTP request. Expected a request line, header lines, an empty line, and the body, as in:\n"
            '  POST /openai/v1/chat/completions HTTP/1.1\n  Host: 127.0.0.1:7400\n\n  {"model": ...}'
        ), False

    def say(name: str, value: object) -> None:
        lines.append(f"{name + ':':<12} {value}")

    secret = _SECRET if rules.redis is None else fleet_secret(rules.redis.namespace)
    approaches = Approaches(rules, secret, Pod(process=b"explain"))
    try:
        approach = approaches.find(head)
    except Refused as refusal:
        say("answer", f"{refusal.status} {refusal.code}: {refusal.message}")
        return "\n".join(lines), True
    site = approach.site
    say("service", f"{site.service.name} (dialect {site.service.dialect.name})")
    say("endpoint", site.endpoint.name if site.endpoint is not None else "not known: passes through untouched")
    model = ""
    if approach.bypass is not None or site.endpoint is None:
        route = choose_route(site, head.fields, model)
        say("route", route.name)
        say("decision", f"bypass ({approach.bypass.reason if approach.bypass else ''}); the body is not read")
    else:
        route, model = _explain_body(approaches, approach, head, body, secret, say)
    _explain_regions(site, route, model, say)
    _explain_rules(route, head, say)
    return "\n".join(lines), True


def _explain_body(
    approaches: Approaches, approach: Approach, head: Head, body: bytes, secret: bytes, say: Any
) -> tuple[Route, str]:
    """What the body decides; the route and the model that it leads to."""
    site = approach.site
    endpoint = site.endpoint
    assert endpoint is not None
    reading = canonical.read(body, endpoint, head.fields.get(b"content-type", b""), secret)
    facts = reading.facts
    model = choose_model(endpoint, facts)
    route = choose_route(site, head.fields, model)
    caller = approaches.caller(approach, route)
    decision = admit(facts, route, anonymous=caller.principal.anonymous)
    say(
        "route",
        f"{route.name} (mode {route.cache.mode}, share {route.cache.share.kind} {route.cache.share.name}".rstrip()
        + ")",
    )
    say("model", model or "(none)")
    say("stream", "yes" if facts.view.stream else "no")
    if caller.principal.needs_proof:
        say("caller", "reads stored answers only once the service has accepted its credential")
    if isinstance(decision, Bypass):
        say("decision", f"bypass ({decision.reason})")
        return route, model
    key = seal(secret, caller.prefix, model, reading)
    say("decision", "observe: never served, only measured" if isinstance(decision, Observe) else "look-up")
    fresh = freshness(endpoint, route, approach.asked)
    say("ttl", f"{fresh.ttl:g} s")
    if fresh.while_revalidate or fresh.if_error:
        say("stale", f"{fresh.while_revalidate:g} s while revalidated, {fresh.if_error:g} s if that fails")
    shown = (
        reading.material[:_SHOWN].decode("utf-8", "replace")
        if reading.tag == b"json"
        else reading.material.hex()[:_SHOWN]
    )
    say("canonical", f"{reading.tag.decode()}, {len(reading.material)} bytes")
    say("", shown)
    if secret != _SECRET:
        say("partition", caller.principal.partition.hex())
    say(
        "key",
        f"{key.address.hex()} (version {KEY_VERSION}"
        + ("; under a fixed secret: compare keys of two requests with it)" if secret == _SECRET else ")"),
    )
    return route, model


def _explain_regions(site: Site, route: Route, model: str, say: Any) -> None:
    """The regions in the order in which they are asked, and those that are not."""
    candidates = sorted(eligible(site.regions, route.allow), key=lambda c: (c.region.priority, not c.region.weight))
    say("candidates", f"\n{'':13}".join(_candidate(candidate, model) for candidate in candidates) or "(none)")
    taken = {candidate.region.name for candidate in candidates}
    left = [f"{region.name}: {_obstacle(region, route)}" for region in site.regions if region.name not in taken]
    if left:
        say("left out", f"\n{'':13}".join(left))


def _candidate(candidate: Candidate, model: str) -> str:
    region = candidate.region
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


def _obstacle(region: Region, route: Route) -> str:
    if route.allow and region.residency not in route.allow:
        return f"residency {region.residency or '(none)'}, and the route allows {', '.join(sorted(route.allow))}"
    return f"credential domain {region.credential_domain}, where the caller's own credential does not go"


def _explain_rules(route: Route, head: Head, say: Any) -> None:
    """What else holds for the route's calls, where it is not what always holds."""
    if limited(route.limits):
        say("limits", ", ".join(_limits(route.limits)))
    timeout, hedge = route.retry.on_timeout, route.retry.hedge
    if timeout or hedge:
        say("retry", ", ".join([*["after a timeout"] * timeout, *["hedged"] * hedge]))
    if route.fallback:
        unwanted = head.fields.get(b"x-sidecar-fallback", b"").strip().lower() == b"none"
        ways = ", ".join(f"{way.kind.replace('_', ' ')} {way.value}".rstrip() for way in route.fallback)
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
