"""
From what a configuration says to the rules that the line reads.

The rule: what was not said gets its default here, and nowhere else; nothing here can fail once the checks have passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

from sidecar.core.rules import (
    CacheRule,
    Limits,
    Listen,
    Match,
    MemoryRule,
    RedisRule,
    Region,
    Route,
    Rules,
    SealRule,
    Service,
    StoredCredential,
    Timeouts,
    UpstreamRule,
)
from sidecar.settings.builtin import ROUTES, SERVICES

RESOURCE = "{resource}"

_BARE = Rules((), ())
_SEAL_FIELDS = frozenset(field.name for field in fields(SealRule))
_LIMIT_FIELDS = {field.name.removesuffix("_seconds"): field.name for field in fields(Limits)}


class Ways(NamedTuple):
    """The ways to a service: path prefix (``""`` for none), host names, own port (0 for none)."""

    path: str
    hosts: tuple[str, ...]
    port: int


def ways(name: str, said: Mapping[str, Any]) -> Ways:
    """A service that names no way keeps its built-in's, else it has the prefix ``/NAME``."""
    if said.keys() & {"path", "hosts", "port"}:
        return Ways(said.get("path", ""), tuple(dict.fromkeys(said.get("hosts", ()))), said.get("port", 0))
    if (builtin := SERVICES.get(name)) is not None:
        return Ways(builtin.path, builtin.hosts, builtin.port)
    return Ways(f"/{name}", (), 0)


def build(values: Mapping[str, Any], *, state_dir: str) -> Rules:
    """The rules for *values* that passed the checks. *state_dir* holds where no other folder is said."""
    said = values.get("services", {})
    services = [_service(name, said[name]) for name in said]
    services += [service for name, service in SERVICES.items() if name not in said]
    limits = {_LIMIT_FIELDS[name]: value for name, value in values.get("limits", {}).items()}
    cache = values.get("cache", {})
    return Rules(
        services=tuple(services),
        routes=(*map(_route, values.get("routes", ())), *ROUTES),
        mode=values.get("mode", _BARE.mode),
        listen=listen(values, "listen"),
        health=listen(values, "health"),
        admin=listen(values, "admin"),
        admin_token_file=values.get("admin", {}).get("token_file", ""),
        state_dir=values.get("state", {}).get("dir", state_dir),
        limits=Limits(**limits),
        memory=_memory(cache.get("memory", {})),
        redis=RedisRule(**cache["redis"]) if has_redis(values) and "secret_file" in cache else None,
        seal=SealRule(**{name: cache[name] for name in _SEAL_FIELDS & cache.keys()}),
        upstream=UpstreamRule(**values.get("upstream", {})),
    )


def listen(values: Mapping[str, Any], name: str) -> Listen:
    """The address *name*: ``listen``, ``health`` or ``admin``."""
    default: Listen = getattr(_BARE, name)
    said = values.get(name, {})
    return Listen(said.get("host", default.host), said.get("port", default.port))


def has_redis(values: Mapping[str, Any]) -> bool:
    """Whether a Redis is asked for; a table that was left empty asks for none."""
    return bool(values.get("cache", {}).get("redis"))


def _memory(said: Mapping[str, Any]) -> MemoryRule:
    rule = MemoryRule(**said)
    return replace(rule, max_entry_bytes=min(rule.max_entry_bytes, rule.max_bytes))


def _service(name: str, said: Mapping[str, Any]) -> Service:
    builtin = SERVICES.get(name)
    dialect = said["dialect"] if "dialect" in said or builtin is None else builtin.dialect
    if "regions" in said or builtin is None:
        regions = tuple(_region(name, region, said["regions"], dialect.one_credential_domain) for region in
                        said["regions"])  # fmt: skip
    else:
        regions = builtin.regions
    path, hosts, port = ways(name, said)
    resource = any(RESOURCE in region.url for region in regions)
    return Service(name, dialect, regions, path, hosts, port, resource)


def _region(service: str, said: Mapping[str, Any], all_said: list[Any], one_domain: bool) -> Region:  # noqa: FBT001
    stored = said.get("credential")
    domain = said.get("credential_domain")
    if domain is None:
        # Where the path names the resource, its name is the domain, filled in with it.
        named_by_path = RESOURCE in said["url"] and len(all_said) == 1
        domain = service if one_domain else "" if named_by_path else f"{service}/{said['name']}"
    return Region(
        name=said["name"],
        url=said["url"],
        priority=said.get("priority", 1),
        credential_domain=domain,
        credential=None if stored is None else StoredCredential(**stored),
    )


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
    )
