"""What a running process takes on, and what waits for a restart: every key is one or the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.rules import (
    AzureIdentity,
    BreakerRule,
    CacheRule,
    Limits,
    Listen,
    MemoryRule,
    Mode,
    RedisRule,
    Region,
    Route,
    Rules,
    SealRule,
    Service,
)
from sidecar.dialects import DIALECTS
from sidecar.settings.difference import changes
from sidecar.settings.restart import effective, waiting

OTHER = "https://other.example"


def rules(*, ttl: float | None = None, url: str = "https://gateway.example") -> Rules:
    service = Service("openai", DIALECTS["openai"], (Region("here", url),), path="/openai")
    return Rules((service,), (Route("all", cache=CacheRule(ttl=ttl)),))


def test_every_key_is_adopted_or_named():
    """Whatever differs between the rules in use and those that are wanted is named as waiting; and nothing else is."""
    started = replace(rules(), redis=RedisRule("redis://a"), seal=SealRule("/secret"))
    wanted = replace(
        rules(ttl=5.0, url=OTHER),
        listen=Listen("0.0.0.0", 1, ("name",)),
        health=Listen("0.0.0.0", 2),
        admin=Listen("0.0.0.0", 3),
        state_dir="/elsewhere",
        redis=RedisRule(
            "redis://b",
            1.0,
            "other",
            3,
            2.0,
            7,
            "/u",
            "/p",
            "/ca",
            "/c",
            "/k",
            AzureIdentity("workload", username="user"),
        ),
        seal=SealRule("/another", False, 7),
        mode=Mode.CACHE_OFF,
        limits=Limits(collect=1),
    )
    wanted = replace(wanted, services=tuple(replace(s, breaker=BreakerRule(shared=True)) for s in wanted.services))
    used = effective(started, wanted)
    waits = {change.path for change in waiting(started, wanted)}

    assert waits == {change.path for change in changes(used, wanted)}
    assert {
        "listen.host", "listen.port", "health.host", "health.port", "admin.host", "admin.port", "state.dir",
        "cache.redis.url", "cache.redis.namespace", "cache.redis.max_connections", "cache.redis.warm",
        "cache.redis.username_file", "cache.redis.password_file", "cache.redis.ca_file", "cache.redis.cert_file",
        "cache.redis.key_file", "cache.redis.credential.workload_identity.scope",
        "cache.redis.credential.workload_identity.username", "cache.secret_file", "services.openai.breaker.shared",
    } == waits  # fmt: skip
    assert {"routes.all.cache.ttl", "mode", "limits.collect", "listen.names", "cache.redis.timeout",
            "cache.redis.lease_wait", "cache.encrypt", "cache.compress_above", "services.openai.regions.here.url"} <= {
        change.path for change in changes(started, used)
    }  # fmt: skip


@pytest.mark.parametrize("there", [True, False])
def test_a_redis_that_comes_or_goes(there):
    """It waits as a whole, and the other keys don't."""
    started = replace(rules(), redis=RedisRule("redis://a") if not there else None)
    wanted = replace(rules(ttl=5.0), redis=RedisRule("redis://a") if there else None)

    assert ["cache.redis"] == [change.path for change in waiting(started, wanted)]
    assert started.redis is effective(started, wanted).redis
    assert 5.0 == effective(started, wanted).routes[0].cache.ttl


@pytest.mark.parametrize(("redis", "size", "expected"), [(True, 8, True), (True, 2, False), (False, 8, False)])
def test_larger_entries(redis, size, expected):
    """Redis takes them after a restart only; memory at once."""
    started = replace(rules(), redis=RedisRule("redis://a") if redis else None)
    wanted = replace(started, memory=MemoryRule(max_entry_bytes=size * 1024 * 1024))

    assert expected == ("cache.memory.max_entry_bytes: 4Mi → 8Mi" in map(str, waiting(started, wanted)))
    assert wanted.memory == effective(started, wanted).memory
