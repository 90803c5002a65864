"""
Which keys a running process does not take on: they wait for a restart.

The rule: a key is adopted unless it stands here, with the reason. A key that waits keeps its value of the start, and is
named wherever somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from sidecar.core.rules import RedisRule, Rules, Service
from sidecar.settings.difference import SettingChange, changes
from sidecar.settings.quantities import as_size

RESTART = (
    "listen.host", "listen.port", "health.host", "health.port", "admin.host", "admin.port",
    "state.dir",
    "cache.redis", "cache.redis.url", "cache.redis.namespace", "cache.redis.max_connections", "cache.redis.warm",
    "cache.redis.*_file", "cache.redis.credential.*", "cache.secret_file",
    "services.*.breaker.shared",
)  # fmt: skip
"""
Patterns of keys that wait: addresses, because the pod's probes and applications name them; the folder, because bodies
lie there; everything that a connection to Redis is made of, and what the fleet agreed on with it.
"""


def waiting(started: Rules, wanted: Rules) -> tuple[SettingChange, ...]:
    """The keys that wait for a restart: their values at the start, and those that are *wanted*."""
    if (started.redis is None) != (wanted.redis is None):
        became = SettingChange("cache.redis", *(_word(rules) for rules in (started, wanted)))
        return (became, *_others(started, replace(wanted, redis=started.redis)))
    return _others(started, wanted)


def effective(started: Rules, wanted: Rules) -> Rules:
    """The *wanted* rules, with the values of the start where they wait."""
    return replace(
        wanted,
        listen=replace(started.listen, names=wanted.listen.names),
        health=replace(started.health, names=wanted.health.names),
        admin=replace(started.admin, names=wanted.admin.names),
        state_dir=started.state_dir,
        redis=_redis(started.redis, wanted.redis),
        seal=replace(wanted.seal, secret_file=started.seal.secret_file),
        services=tuple(_services(started, wanted)),
    )


def _others(started: Rules, wanted: Rules) -> tuple[SettingChange, ...]:
    found = changes(started, wanted)
    known = {service.name for service in started.services}
    new = [each.name for each in wanted.services if each.name not in known and each.breaker.shared]
    return (
        *(change for change in found if any(fnmatchcase(change.path, pattern) for pattern in RESTART)),
        *(SettingChange(f"services.{name}.breaker.shared", "false", "true") for name in new),
        *_half(started, wanted),
    )


def _half(started: Rules, wanted: Rules) -> Iterator[SettingChange]:
    """What memory makes use of at once, and Redis after a restart: larger entries."""
    before, after = started.memory.max_entry_bytes, wanted.memory.max_entry_bytes
    if started.redis is not None and after > before:
        yield SettingChange("cache.memory.max_entry_bytes", as_size(before), as_size(after))


def _redis(started: RedisRule | None, wanted: RedisRule | None) -> RedisRule | None:
    if started is None or wanted is None:
        return started
    return replace(started, timeout=wanted.timeout, lease_wait=wanted.lease_wait)


def _services(started: Rules, wanted: Rules) -> Iterable[Service]:
    shared = {service.name: service.breaker.shared for service in started.services}
    for service in wanted.services:
        breaker = replace(service.breaker, shared=shared.get(service.name, False))
        yield replace(service, breaker=breaker)


def _word(rules: Rules) -> str:
    return "none" if rules.redis is None else rules.redis.url
