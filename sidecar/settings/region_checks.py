"""
Finds problems between regions, and between routes and regions: regions that no call can reach, and credentials that
would go to the wrong host.

The rule: as in ``checks``, of which this is a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sidecar.core.request.plan import may_have_tokens
from sidecar.core.rules import BreakerRule, Region
from sidecar.settings.build import RESOURCE, dialect_of, domains, has_redis
from sidecar.settings.builtin import SERVICES
from sidecar.settings.problems import Path, listed, nearest, shown
from sidecar.settings.reader import ParsedSettings

_IDENTITIES = ("managed_identity", "workload_identity")

_BREAKER, _REGION = BreakerRule(), Region("", "")


def check_regions(reading: ParsedSettings) -> None:
    """Add the problems of regions, beyond single keys, to the reading's problems."""
    for verdicts in (_weights, _unreachable, _strangers, _credentials, _breakers, _residency):
        for path, text in verdicts(reading):
            reading.blame(path, text)


def _weights(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """A priority whose regions all have no weight."""
    for path, regions in _services(reading):
        for priority in sorted({_priority(region) for region in regions}):
            ats = [at for at, region in enumerate(regions) if _priority(region) == priority]
            if all(regions[at].get("weight", _REGION.weight) == 0 for at in ats):
                text = f"leaves priority {priority} without any weight; give one of its regions at least 1"
                yield (*path, ats[0], "weight"), text


def _unreachable(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """A region that needs the caller's own credential, but is outside the domain to which that goes."""
    for path, regions in _services(reading):
        name = str(path[1])
        dialect = dialect_of(name, reading.values["services"][name])
        wanted = ("name", "url", "credential_domain")
        if dialect is None or any(_refused(reading, path, at, key) for at in range(len(regions)) for key in wanted):
            continue
        if not all(region.keys() >= {"name", "url"} for region in regions):
            continue
        domain = domains(name, regions, dialect)
        first, *others = [at for at in _in_order(regions) if "credential" not in regions[at]] or [0]
        for at in others:
            if domain[at] != domain[first]:
                text = (
                    f"is never used, because callers' credentials go to the domain of {regions[first]['name']} only; "
                    "give it a credential, or both the same credential_domain"
                )
                yield (*path, at), text


def _strangers(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """Azure tokens for a host of another vendor."""
    for path, regions in _services(reading):
        for at, said in enumerate(regions):
            if "url" not in said or _refused(reading, path, at, "credential_domain"):
                continue
            region = Region("", said["url"], credential_domain=said.get("credential_domain", ""))
            for identity in _IDENTITIES:
                if identity in said.get("credential", {}) and not may_have_tokens(region):
                    text = (
                        "a Microsoft-issued token never goes to another vendor's host; correct the url, or where it "
                        "is a gateway taking such tokens, say credential_domain: microsoft"
                    )
                    yield (*path, at, "credential", identity), text


def _credentials(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """Credentials of a region that would go to a host of the caller's choice, or unencrypted."""
    for path, regions in _services(reading):
        for at, said in enumerate(regions):
            url, credential = said.get("url", ""), said.get("credential", {})
            if not credential:
                continue
            if RESOURCE in url:
                text = f"would go to whatever {RESOURCE} a caller names; give each resource a url of its own"
                yield (*path, at, "credential"), text
            elif any(identity in credential for identity in _IDENTITIES) and not is_private(url):
                yield (*path, at, "url"), "a token would go there in clear; use https"


def is_private(url: str) -> bool:
    """Whether nobody can read on the way to *url*: it is encrypted, or ends on this machine."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    return scheme == "https" or host.partition(":")[0] in {"localhost", "127.0.0.1"} or host.startswith("[::1]")


def _breakers(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    redis = has_redis(reading.values) or any(place[:2] == ("cache", "redis") and place[2:] for place in reading.places)
    for name, said in reading.values.get("services", {}).items():
        rule = said.get("breaker", {})
        path: Path = ("services", name, "breaker")
        if rule.get("shared") and not redis:
            yield (*path, "shared"), "needs cache.redis, through which the fleet shares it; set that, or remove the key"
        window = rule.get("window", _BREAKER.window)
        if rule.get("minimum_calls", 0) > window and ("window" in rule or (*path, "window") not in reading.places):
            yield (*path, "minimum_calls"), f"is more than window; use at most {window}, or raise window"


def _residency(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """Routes that allow a residency that no region has, or none that the regions of one of their services have."""
    services = reading.values.get("services", {})
    if any(_refused(reading, path, at, "residency") for path, said in _services(reading) for at in range(len(said))):
        return
    tags = {name: _tags(services.get(name, {}).get("regions", ())) for name in services.keys() | SERVICES.keys()}
    tagged = [name for name, said in services.items() if any("residency" in at for at in said.get("regions", ()))]
    known = frozenset[str]().union(*tags.values())
    for at, route in enumerate(reading.values.get("routes", ())):
        allowed = frozenset(route.get("allow", ()))
        path: Path = ("routes", at, "allow")
        for tag in sorted(allowed - known):
            meant = nearest(tag, known)
            remedy = f"did you mean {meant}?" if meant else f"use one of {listed(known)}" if known else "say it of one"
            yield path, f"no region has the residency {shown(tag)}; {remedy}"
        if not allowed & known:
            continue
        service = route.get("match", {}).get("service")
        for name in sorted(tagged) if service is None else [service]:
            if name in tags and not allowed & tags[name]:
                text = f"leaves route {route.get('name', at)} no region of the service {name}; "
                remedy = f"add one of {listed(tags[name])}" if tags[name] else "say residency in its regions"
                yield path, text + remedy


def _tags(regions: Iterable[Mapping[str, str]]) -> frozenset[str]:
    """The tags by which a route may name them, or their names if they have no tags."""
    tags = (region.get("residency", region.get("name", "")) for region in regions)
    return frozenset(tag for tag in tags if tag)


def _services(reading: ParsedSettings) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """The path and the value of each list of regions."""
    for name, said in reading.values.get("services", {}).items():
        yield ("services", name, "regions"), said.get("regions", [])


def _in_order(regions: list[dict[str, Any]]) -> list[int]:
    """The positions of the regions, the first to be tried first."""
    return sorted(range(len(regions)), key=lambda at: _priority(regions[at]))


def _priority(region: Mapping[str, Any]) -> int:
    priority: int = region.get("priority", _REGION.priority)
    return priority


def _refused(reading: ParsedSettings, path: Path, at: int, key: str) -> bool:
    """Whether a region sets *key* to a wrong value."""
    name = str(path[1])
    said = reading.values["services"][name]["regions"][at]
    return key not in said and (*path, at, key) in reading.places
