"""
Which service, endpoint and routes a request is for, from its head alone.

The rule: a host match beats a path match, the longest prefix wins. Matching uses a copy with doubled slashes collapsed;
the service gets the caller's bytes without the service's prefix. Nothing else of the target is rewritten, but for the
root of an API whose SDKs do not all send it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from msgspec import Struct

from sidecar.core.dialect import BodyForm, Endpoint, Resources
from sidecar.core.model import Fields
from sidecar.core.rules import CacheMode, Region, Route, Rules, Service
from sidecar.core.site.api_root import meant

_RESOURCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_SLASHES = re.compile(r"/{2,}")
_PORT = re.compile(r":[0-9]*\Z")


class Site(Struct, frozen=True, gc=False):
    """
    Where a request goes: the same for every request with this method, target, host and port.

    *target* is what goes upstream, byte for byte; *path* its path for matching, *query* its query without ``?``.
    *routes* are those that may still take it, in order; *cacheable*: one of them caches; *reads*: the body decides
    where the call may go, or what happens to it. *regions* have their resource filled in. *place* is who checks
    credentials: the service, its resource, and all URLs at which it answers.
    """

    service: Service
    resource: str
    target: bytes
    path: str
    query: bytes
    endpoint: Endpoint | None
    routes: tuple[Route, ...]
    cacheable: bool
    reads: bool
    regions: tuple[Region, ...]
    place: str


class Stray(Struct, frozen=True, gc=False):
    """A request for an unknown service: the answer's status, code and message."""

    status: int
    code: str
    message: str


def recognise(rules: Rules, port: int, host: bytes, method: bytes, target: bytes) -> Site | Stray:
    """Find the service by own port, then host, then longest path prefix; then its endpoint and routes."""
    service = _by_port(rules, port) or _by_host(rules, host)
    rest = target
    resource = ""
    if service is None:
        service = _by_path(rules, target)
        if service is None:
            return Stray(404, "unknown-service", _where_to_go(rules))
        rest = target[len(service.path) :]
    if service.resource:
        resource, rest = _split_resource(rest)
        if not resource:
            return _resourceless(rules, service, port)
    if not rest.startswith(b"/"):
        rest = b"/" + rest
    raw_path, _, query = rest.partition(b"?")
    path = _SLASHES.sub("/", raw_path.decode("latin-1"))
    endpoint = service.dialect.locate(method, path)
    if endpoint is None and service.dialect.implied and len(meant(service, method, path) or "") > len(path):
        root = service.dialect.root
        rest, path = root.encode() + rest, root + path
        endpoint = service.dialect.locate(method, path)
    if endpoint is not None and endpoint.by_query is not None:
        endpoint = endpoint.by_query(endpoint, query)
    if endpoint is None and _is_forgotten(service.dialect.resources, resource, path):
        return _resourceless(rules, service, port)
    routes = tuple(route for route in rules.routes if _may_take(route, service, endpoint, path))
    cacheable = endpoint is not None and not endpoint.bypass and any(r.cache.mode != CacheMode.OFF for r in routes)
    regions = tuple(
        sorted((_filled(region, resource) for region in service.regions), key=lambda region: region.priority)
    )
    reads = endpoint is not None and _reads(service, endpoint, routes)
    place = " ".join((f"{service.name}/{resource}", *sorted({region.url for region in regions})))
    return Site(service, resource, rest, path, query, endpoint, routes, cacheable, reads, regions, place)


def choose_route(site: Site, fields: Fields, model: str) -> Route:
    """The first route whose header and model patterns match as well. The last built-in route takes everything."""
    for route in site.routes:
        match = route.match
        if match.model and not fnmatchcase(model.casefold(), match.model.casefold()):
            continue  # services differ in whether case counts, and a rule about regions must not be bypassed
        if match.header and not _headers_match(match.header, fields):
            continue
        return route
    return site.routes[-1]


def allowed(site: Site, fields: Fields, model: str, route: Route) -> frozenset[str] | None:
    """
    The residency of a call on *route*: tags, one of which a region must have, none for any region. If the *model* is
    not known, what every route that the call may belong to allows; None if no region satisfies that.
    """
    if model or not [one for one in site.routes if one.match.model and one.allow]:
        return route.allow
    sets: list[frozenset[str]] = []
    for one in site.routes:
        if one.match.header and not _headers_match(one.match.header, fields):
            continue
        if one.allow:
            sets.append(one.allow)
        if not one.match.model:
            break
    common = frozenset.intersection(*sets) if sets else frozenset()
    return None if sets and not common else common


def _reads(service: Service, endpoint: Endpoint, routes: tuple[Route, ...]) -> bool:
    if endpoint.body not in {BodyForm.JSON, BodyForm.MULTIPART}:
        return False
    if not endpoint.model and any(region.deployments for region in service.regions):
        return True
    return any(route.match.model or route.fallback or route.limits.tokens_per_minute for route in routes)


def _may_take(route: Route, service: Service, endpoint: Endpoint | None, path: str) -> bool:
    match = route.match
    if match.service and match.service != service.name:
        return False
    if match.path and not fnmatchcase(path, match.path):
        return False
    return not match.kinds or (endpoint is not None and endpoint.kind in match.kinds)


def _headers_match(wanted: Mapping[str, str], fields: Fields) -> bool:
    """Whether *fields* match. A missing field matches nothing, not even ``*``."""
    for name, pattern in wanted.items():
        value = fields.get(name.lower().encode("latin-1"))
        if value is None or not fnmatchcase(value.decode("latin-1"), pattern):
            return False
    return True


def _by_port(rules: Rules, port: int) -> Service | None:
    return next((service for service in rules.services if service.port and service.port == port), None)


def _by_host(rules: Rules, host: bytes) -> Service | None:
    name = _PORT.sub("", host.decode("latin-1").lower())
    return next((service for service in rules.services if name in service.hosts), None)


def _by_path(rules: Rules, target: bytes) -> Service | None:
    found: Service | None = None
    for service in rules.services:
        prefix = service.path.encode("latin-1")
        if not prefix or not target.startswith(prefix) or target[len(prefix) : len(prefix) + 1] not in b"/?":
            continue
        if found is None or len(service.path) > len(found.path):
            found = service
    return found


def _split_resource(rest: bytes) -> tuple[str, bytes]:
    path = rest.partition(b"?")[0]
    segment = path[1:].partition(b"/")[0]
    name = segment.decode("latin-1")
    if not path.startswith(b"/") or not _RESOURCE.match(name):
        return "", rest
    return name.lower(), rest[1 + len(segment) :]


def _is_forgotten(resources: Resources | None, resource: str, path: str) -> bool:
    """
    Whether the base URL named no resource, so that a part of the API's path stands in its place, and *path* is the
    rest. If a resource really has such a name, the whole API path follows it.
    """
    if resources is None or resource not in resources.parts:
        return False
    return not f"{path}/".lower().startswith(resources.root)


def _resourceless(rules: Rules, service: Service, port: int) -> Stray:
    """The error if no resource is named: there is no region, and the credential must not go to a chance host."""
    resources = service.dialect.resources
    setting = f"{resources.setting}=" if resources is not None else "the base URL "
    prefix = "" if port and service.port == port else service.path
    where = next((region.url for region in service.regions if "{resource}" in region.url), "{resource}")
    return Stray(
        404,
        "unknown-resource",
        f"The path must name a resource: set {setting}http://127.0.0.1:{port or rules.listen.port}{prefix}/RESOURCE, "
        f"where RESOURCE is that of {where.replace('{resource}', 'RESOURCE')}: letters, digits and hyphens only.",
    )


def _filled(region: Region, resource: str) -> Region:
    if "{resource}" not in region.url:
        return region
    url = region.url.replace("{resource}", resource)
    return replace(region, url=url, credential_domain=region.credential_domain or resource)


def _where_to_go(rules: Rules) -> str:
    paths = ", ".join(
        service.path + ("/RESOURCE" if service.resource else "") for service in rules.services if service.path
    )
    ports = ", ".join(f"{service.name} (port {service.port})" for service in rules.services if service.port)
    text = f"No service answers here. This sidecar serves the base paths {paths or '(none)'}; check the base URL."
    return f"{text} With a port of their own: {ports}." if ports else text
