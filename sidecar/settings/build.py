"""
Turns the values of a configuration into rules.

The rule: defaults are set only here, and nothing here can fail after the checks have passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from sidecar.core.dialect import Dialect
from sidecar.core.rules import (
    NO_LIMITS,
    AzureIdentity,
    BreakerRule,
    CacheRule,
    FallbackRule,
    HeaderRule,
    Limits,
    Listen,
    LogRule,
    Match,
    MemoryRule,
    RedisRule,
    Region,
    RetryRule,
    Route,
    RouteLimits,
    Rules,
    SealRule,
    Service,
    StoredCredential,
    Timeouts,
    TokenRule,
    UpstreamRule,
)
from sidecar.settings.builtin import ROUTES, SERVICES

RESOURCE = "{resource}"

REDIS_SCOPE = "https://redis.azure.com/.default"
"""What tokens for a Redis of Azure's are for."""

_BARE = Rules((), ())
_SEAL_FIELDS = frozenset(field.name for field in fields(SealRule))
_IDENTITIES = {"managed_identity": "managed", "workload_identity": "workload"}
_LIMIT_FIELDS = {field.name.removesuffix("_seconds"): field.name for field in fields(Limits)}


class Ways(NamedTuple):
    """How calls reach a service: path prefix (``""`` for none), host names, own port (0 for none)."""

    path: str
    hosts: tuple[str, ...]
    port: int


def ways(name: str, said: Mapping[str, Any]) -> Ways:
    """How calls reach a service. Without any of these keys it is like its built-in, or has the prefix ``/NAME``."""
    if said.keys() & {"path", "hosts", "port"}:
        return Ways(said.get("path", ""), tuple(dict.fromkeys(said.get("hosts", ()))), said.get("port", 0))
    if (builtin := SERVICES.get(name)) is not None:
        return Ways(builtin.path, builtin.hosts, builtin.port)
    return Ways(f"/{name}", (), 0)


def dialect_of(name: str, said: Mapping[str, Any]) -> Dialect | None:
    """The dialect of a service; if it names none, that of its built-in; None if there is neither."""
    builtin = SERVICES.get(name)
    dialect: Dialect | None = said.get("dialect", None if builtin is None else builtin.dialect)
    return dialect


def domains(service: str, regions: Sequence[Mapping[str, Any]], dialect: Dialect) -> list[str]:
    """The credential domain of each of a service's regions."""
    # If the path names the resource, the resource's name is the domain, and is filled in with it.
    named_by_path = len(regions) == 1 and RESOURCE in regions[0]["url"]
    return [
        region["credential_domain"] if "credential_domain" in region
        else service if dialect.one_credential_domain
        else "" if named_by_path
        else f"{service}/{region['name']}"
        for region in regions
    ]  # fmt: skip


def build(values: Mapping[str, Any], *, state_dir: str) -> Rules:
    """The rules for *values* that passed the checks. *state_dir* is used if the configuration names no other folder."""
    said = values.get("services", {})
    allowed = frozenset(tag for route in values.get("routes", ()) for tag in route.get("allow", ()))
    services = [_service(name, said[name], allowed) for name in said]
    services += [service for name, service in SERVICES.items() if name not in said]
    limits = {_LIMIT_FIELDS[name]: value for name, value in values.get("limits", {}).items()}
    cache = values.get("cache", {})
    upstream = values.get("upstream", {})
    return Rules(
        services=tuple(services),
        routes=(*map(_route, values.get("routes", ())), *ROUTES),
        mode=values.get("mode", _BARE.mode),
        listen=listen(values, "listen"),
        log=LogRule(**values.get("log", {})),
        health=listen(values, "health"),
        admin=listen(values, "admin"),
        admin_token_file=values.get("admin", {}).get("token_file", ""),
        state_dir=values.get("state", {}).get("dir", state_dir),
        limits=Limits(**limits),
        memory=_memory(cache.get("memory", {})),
        redis=_redis(cache["redis"]) if has_redis(values) and "secret_file" in cache else None,
        seal=SealRule(**{name: cache[name] for name in _SEAL_FIELDS & cache.keys()}),
        upstream=UpstreamRule(**{**upstream, "nameservers": tuple(upstream.get("nameservers", ()))}),
    )


def listen(values: Mapping[str, Any], name: str) -> Listen:
    """The address *name*: ``listen``, ``health`` or ``admin``."""
    default: Listen = getattr(_BARE, name)
    said = values.get(name, {})
    names = tuple(dict.fromkeys(said.get("names", default.names)))
    return Listen(said.get("host", default.host), said.get("port", default.port), names)


def has_redis(values: Mapping[str, Any]) -> bool:
    """Whether a Redis is configured; an empty table configures none."""
    return bool(values.get("cache", {}).get("redis"))


def _memory(said: Mapping[str, Any]) -> MemoryRule:
    rule = MemoryRule(**said)
    return replace(rule, max_entry_bytes=min(rule.max_entry_bytes, rule.max_bytes))


def _redis(said: Mapping[str, Any]) -> RedisRule:
    bare = {key: value for key, value in said.items() if key != "credential"}
    return RedisRule(**bare, credential=_identity(said.get("credential", {}), scope=REDIS_SCOPE))


def _service(name: str, said: Mapping[str, Any], allowed: frozenset[str]) -> Service:
    dialect = dialect_of(name, said)
    assert dialect is not None
    if "regions" in said:
        at = zip(said["regions"], domains(name, said["regions"], dialect), strict=True)
        regions = tuple(_region(region, domain, allowed) for region, domain in at)
    else:
        regions = SERVICES[name].regions
    path, hosts, port = ways(name, said)
    return Service(
        name=name,
        dialect=dialect,
        regions=regions,
        path=path,
        hosts=hosts,
        port=port,
        resource=any(RESOURCE in region.url for region in regions),
        breaker=_breaker(said.get("breaker", {})),
        balance=said.get("balance", "weight"),
        headers=HeaderRule(**{kind: _fields(names) for kind, names in said.get("headers", {}).items()}),
        credential_headers=_fields(said.get("credential_headers", ())),
        tokens=_tokens(said.get("tokens", {})),
    )


def _fields(names: Sequence[str]) -> frozenset[bytes]:
    return frozenset(name.encode("ascii") for name in names)


def _tokens(said: Mapping[str, Any]) -> TokenRule:
    return TokenRule(**{**said, "ignore_claims": frozenset(said.get("ignore_claims", ()))})


def _region(said: Mapping[str, Any], domain: str, allowed: frozenset[str]) -> Region:
    """A region without a residency has its name as one, if a route asks for that."""
    name = said["name"]
    bare = {key: value for key, value in said.items() if key != "credential"}
    return Region(
        **{"residency": name if name in allowed else "", **bare, "credential_domain": domain},
        credential=_credential(said["credential"]) if "credential" in said else None,
    )


def _credential(said: Mapping[str, Any]) -> StoredCredential | AzureIdentity:
    return _identity(said) or StoredCredential(**said)


def _identity(said: Mapping[str, Any], **default: str) -> AzureIdentity | None:
    for key, kind in _IDENTITIES.items():
        if key in said:
            return AzureIdentity(kind, **{**default, **said[key]})
    return None


def _breaker(said: Mapping[str, Any]) -> BreakerRule:
    rule = BreakerRule(**said)
    return replace(rule, minimum_calls=min(rule.minimum_calls, rule.window))


def _route(said: Mapping[str, Any]) -> Route:
    cache = dict(said.get("cache", {}))
    if "tags" in cache:
        cache["tags"] = tuple(dict.fromkeys(cache["tags"]))
    if "seed" in cache:
        cache["trust_seed"] = cache.pop("seed")
    timeouts = Timeouts(**said.get("timeouts", {}))
    if "stream_first_byte" not in said.get("timeouts", {}):
        timeouts = replace(timeouts, stream_first_byte=min(timeouts.stream_first_byte, timeouts.first_byte))
    return Route(
        name=said["name"],
        match=Match(**said.get("match", {})),
        cache=CacheRule(**cache),
        timeouts=timeouts,
        owner=said.get("owner", ""),
        allow=frozenset(said.get("allow", ())),
        limits=RouteLimits(**said["limits"]) if said.get("limits") else NO_LIMITS,
        retry=RetryRule(**said.get("retry", {})),
        fallback=tuple(dict.fromkeys(map(_fallback, said.get("fallback", ())))),
    )


def _fallback(said: FallbackRule | Mapping[str, str]) -> FallbackRule:
    if isinstance(said, FallbackRule):
        return said
    ((kind, value),) = said.items()
    return FallbackRule(kind, value)
