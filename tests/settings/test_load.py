"""A configuration as a whole: where it is found, what it means, and every problem at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sidecar.settings
from sidecar.core.http.headers import CREDENTIALS
from sidecar.core.rules import (
    NO_LIMITS,
    AzureIdentity,
    BreakerRule,
    CacheMode,
    FallbackRule,
    Limits,
    MemoryRule,
    Mode,
    RedisRule,
    Region,
    RetryRule,
    Route,
    RouteLimits,
    SealRule,
    Share,
    StoredCredential,
    Timeouts,
)
from sidecar.errors import ConfigError
from sidecar.settings import load
from sidecar.settings.builtin import ROUTES, SERVICES

ROOT = Path(__file__).parents[2]
REDIS = "https://redis.azure.com/.default"
REGION = "regions: [{name: a, url: 'https://a.example'}]"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No test reads the machine's own configuration."""
    monkeypatch.setattr(sidecar.settings, "DEFAULT_FOLDER", str(tmp_path / "none"))


def rules_of(tmp_path, text, *, strict=True, environ=None):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return load(str(path), environ=environ or {}, overrides={}, strict=strict)


def problems_of(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        rules_of(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.problems]


def test_without_anything_the_built_in_settings_hold():
    """No file is needed."""
    rules = load(None, environ={}, overrides={}, strict=True)

    assert tuple(SERVICES.values()) == rules.services
    assert ROUTES == rules.routes
    assert (Mode.NORMAL, 7400, 7491, 7490) == (rules.mode, rules.listen.port, rules.health.port, rules.admin.port)
    assert (Limits(), MemoryRule(), ()) == (rules.limits, rules.memory, rules.warnings)


def test_an_empty_file_says_nothing(tmp_path):
    """A file of comments, and tables left empty, mean the built-in settings."""
    empty = rules_of(tmp_path, "# nothing\nversion: 1\nlisten:\nservices: {openai: }\nroutes:\n")
    bare = load(None, environ={}, overrides={}, strict=True)

    assert (bare.services, bare.routes, bare.listen) == (empty.services, empty.routes, empty.listen)


def test_a_built_in_written_out_is_the_built_in(tmp_path):
    """Saying what holds anyway changes nothing."""
    rules = rules_of(
        tmp_path,
        """
services:
  openai: {dialect: openai, path: /openai, hosts: [api.openai.com],
           regions: [{name: default, url: "https://api.openai.com"}]}
  anthropic: {dialect: anthropic, path: /anthropic, hosts: [api.anthropic.com],
           regions: [{name: default, url: "https://api.anthropic.com/"}]}
  azure-openai: {dialect: azure-openai, path: /azure/,
           regions: [{name: default, url: "https://{resource}.openai.azure.com"}]}
""",
    )

    assert tuple(SERVICES.values()) == rules.services


def test_a_service_and_a_route_whole(tmp_path):
    """Each key reaches its place in the rules."""
    rules = rules_of(
        tmp_path,
        """
mode: cache-off
upstream: {proxy: none, ca_file: /ca.pem, nameservers: [10.0.0.10, "10.0.0.11:5353"]}
cache: {memory: {max_bytes: 2Mi, max_entries: 10, eviction: lru}}
services:
  docs:
    dialect: azure-openai
    port: 7401
    regions:
      - {name: weu, url: "https://weu.example"}
      - {name: neu, url: "https://neu.example/base/", priority: 2, credential_domain: shared,
         credential: {header: API-Key, file: /key}}
routes:
  - name: r
    owner: some team
    match: {service: docs, path: "*/x", header: {X-Team: no}, model: "gpt*"}
    cache: {mode: off, ttl: 12h, share: "header:X-Tenant", tags: [t, t], seed: trusted}
    timeouts: {connect: 1s, first_byte: 60s}
""",
    )

    service, route = rules.services[0], rules.routes[0]
    assert ("docs", "azure-openai", "", (), 7401, False) == (
        service.name, service.dialect.name, service.path, service.hosts, service.port, service.resource
    )  # fmt: skip
    weu, neu = service.regions
    assert (1, "docs/weu", None) == (weu.priority, weu.credential_domain, weu.credential)
    assert ("https://neu.example/base", 2, "shared") == (neu.url, neu.priority, neu.credential_domain)
    assert StoredCredential("api-key", "/key") == neu.credential
    assert ["docs", "openai", "anthropic", "azure-openai"] == [service.name for service in rules.services]
    assert ("r", "some team", {"x-team": "no"}, "gpt*") == (
        route.name, route.owner, route.match.header, route.match.model
    )  # fmt: skip
    cache = route.cache
    assert (CacheMode.OFF, 43200.0, Share("header", "x-tenant"), ("t",), True) == (
        cache.mode, cache.ttl, cache.share, cache.tags, cache.trust_seed
    )  # fmt: skip
    assert Timeouts(connect=1.0, first_byte=60.0, stream_first_byte=60.0) == route.timeouts
    assert (Mode.CACHE_OFF, "none", "/ca.pem") == (rules.mode, rules.upstream.proxy, rules.upstream.ca_file)
    assert ("10.0.0.10:53", "10.0.0.11:5353") == rules.upstream.nameservers
    assert MemoryRule(2 * 1024**2, 2 * 1024**2, 10, "lru") == rules.memory


def test_regions_and_what_calls_may_take_whole(tmp_path):
    """Each key of regions, breakers, limits, retries and fallbacks reaches its place in the rules."""
    rules = rules_of(
        tmp_path,
        """
cache: {redis: {url: "redis://cache"}, secret_file: /s}
services:
  openai:
    regions:
      - {name: us, url: "https://us.example", weight: 3, residency: usa, credential_domain: x, deployments: {gpt-4o: g}}
      - {name: eu, url: "https://eu.example", weight: 0, credential: {header: X-Key, file: /f, prefix: "Key "}}
      - {name: weu, url: "https://weu.openai.azure.com", priority: 2, credential: {managed_identity: }}
      - {name: neu, url: "https://gateway.example", priority: 2, credential_domain: microsoft,
         credential: {workload_identity: {client_id: c, tenant_id: t, token_file: /t, scope: "api://a/.default"}}}
    breaker: {consecutive_unanswered: 2, consecutive_errors: 4, failure_rate: 40%, window: 30, minimum_calls: 5,
              open: 2s, slow_call: 30s, slow_rate: 12.5%, shared: true}
    balance: latency
  anthropic: {breaker: {window: 6}}
routes:
  - name: r
    allow: [usa, eu, usa]
    limits: {concurrency: 32, tokens_per_minute: 200k, requests_per_minute: 600, queue: 5, replicas: 10, adaptive: true}
    retry: {on_timeout: true, hedge: on}
    fallback: [stale, {model: gpt-4o-mini}, stale, {answer_file: busy.json}]
""",
    )
    openai, anthropic, route = *rules.services[:2], rules.routes[0]

    assert (
        Region("us", "https://us.example", 1, "x", None, 3, "usa", {"gpt-4o": "g"}),
        Region("eu", "https://eu.example", 1, "openai", StoredCredential("x-key", "/f", "Key "), 0, "eu"),
        Region("weu", "https://weu.openai.azure.com", 2, "openai", AzureIdentity("managed")),
        Region(
            "neu",
            "https://gateway.example",
            2,
            "microsoft",
            AzureIdentity("workload", "c", "t", "/t", "api://a/.default"),
        ),
    ) == openai.regions
    assert BreakerRule(2, 4, 0.4, 30, 5, 2.0, 30.0, 0.125, shared=True) == openai.breaker
    assert ("latency", "weight") == (openai.balance, anthropic.balance)
    assert BreakerRule(window=6, minimum_calls=6) == anthropic.breaker
    assert {"usa", "eu"} == route.allow
    assert RouteLimits(32, 200_000, 600, 5, 10, adaptive=True) == route.limits
    assert RetryRule(on_timeout=True, hedge=True) == route.retry
    assert (
        FallbackRule("stale"),
        FallbackRule("model", "gpt-4o-mini"),
        FallbackRule("answer_file", "busy.json"),
    ) == route.fallback


def test_what_is_not_said_of_regions_and_routes(tmp_path):
    """The defaults are those of the rules; a route without limits has the very object that says so."""
    rules = rules_of(tmp_path, "services: {openai: {breaker: {}, " + REGION + "}}\nroutes: [{name: r, limits: {}}]")
    service, route = rules.services[0], rules.routes[0]

    assert (Region("a", "https://a.example", credential_domain="openai"),) == service.regions
    assert (BreakerRule(), "weight") == (service.breaker, service.balance)
    assert Route("r") == route
    assert route.limits is NO_LIMITS


@pytest.mark.parametrize("word", ["off", "no", "0", "0s"])
def test_no_call_is_slow_unless_said(tmp_path, word):
    """``slow_call`` has ways to say no."""
    rules = rules_of(tmp_path, f"services: {{openai: {{breaker: {{slow_call: {word}}}}}}}")

    assert BreakerRule() == rules.services[0].breaker


@pytest.mark.parametrize("said", ["{}", "", "~"], ids=["empty", "nothing", "null"])
@pytest.mark.parametrize("kind", ["managed", "workload"])
def test_an_identity_left_empty_is_meant(tmp_path, kind, said):
    """Unlike other empty tables it says something: whose credential goes there."""
    text = "services: {openai: {regions: [{name: a, url: 'https://a.azure.com', credential: {%s_identity: %s}}]}}"
    rules = rules_of(tmp_path, text % (kind, said))

    assert AzureIdentity(kind) == rules.services[0].regions[0].credential


def test_a_fleet_whole(tmp_path):
    """Each key of what the fleet shares reaches its place in the rules."""
    rules = rules_of(
        tmp_path,
        """
admin: {host: 0.0.0.0, port: 1, token_file: /token}
cache:
  redis: {url: "rediss://cache:6380/2", timeout: 80ms, namespace: team-a, max_connections: 4, lease_wait: 0s, warm: 50,
          username_file: /user, password_file: /password, ca_file: /ca, cert_file: /cert, key_file: /key}
  secret_file: /secret
  encrypt: false
  compress_above: 4Ki
routes:
  - {name: r, cache: {stale_while_revalidate: 1h, stale_if_error: 7d}}
""",
    )

    assert RedisRule(
        url="rediss://cache:6380/2",
        timeout=0.08,
        namespace="team-a",
        max_connections=4,
        lease_wait=0.0,
        warm=50,
        username_file="/user",
        password_file="/password",  # pragma: allowlist secret
        ca_file="/ca",
        cert_file="/cert",
        key_file="/key",
    ) == (rules.redis)
    assert SealRule("/secret", encrypt=False, compress_above=4096) == rules.seal
    assert ("0.0.0.0", 1, "/token") == (rules.admin.host, rules.admin.port, rules.admin_token_file)
    assert (3600.0, 604800.0) == (rules.routes[0].cache.stale_while_revalidate, rules.routes[0].cache.stale_if_error)
    assert () == rules.warnings


def test_a_fleet_that_is_hardly_said(tmp_path):
    """The address and the secret are enough; the rest has defaults."""
    rules = rules_of(tmp_path, "cache: {redis: {url: 'redis://cache'}, secret_file: /secret}")

    assert (RedisRule("redis://cache"), SealRule("/secret"), "") == (rules.redis, rules.seal, rules.admin_token_file)


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("{workload_identity: {}}", AzureIdentity("workload", scope=REDIS)),
        ("{workload_identity: }", AzureIdentity("workload", scope=REDIS)),
        ("{managed_identity: {client_id: c, username: u}}", AzureIdentity("managed", "c", scope=REDIS, username="u")),
        (
            "{workload_identity: {tenant_id: t, token_file: /t, scope: 'https://other.azure.com/.default'}}",
            AzureIdentity("workload", "", "t", "/t", "https://other.azure.com/.default"),
        ),
    ],
)
@pytest.mark.parametrize(
    "url", ["rediss://cache:10000", "rediss+cluster://cache", "redis://localhost", "redis://[::1]"]
)
def test_a_redis_by_identity(tmp_path, text, identity, url):
    """The token is for Redis unless something else is said; in clear it goes only to this machine."""
    rules = rules_of(tmp_path, f"cache: {{redis: {{url: '{url}', credential: {text}}}, secret_file: /s}}")

    assert RedisRule(url, credential=identity) == rules.redis


REFUSED_LOGINS = {
    "redis://cache": "url: a token would go there in clear; start it with rediss",
    "redis+cluster://127.0.0.1,cache": "url: a token would go there in clear; start it with rediss",
    "redis+sentinel://cache/name": "url: a token would go there in clear; start it with rediss",
    "rediss://a', password_file: '/p": "password_file: is of no use beside credential, whose token is the password; "
    "remove one of the two",
    "rediss://a', username_file: '/u": "username_file: is of no use beside credential, whose token is the password; "
    "remove one of the two",
}


@pytest.mark.parametrize(("url", "text"), REFUSED_LOGINS.items(), ids=REFUSED_LOGINS)
def test_a_redis_by_identity_that_is_none(tmp_path, url, text):
    """A token neither travels in clear nor has a second password beside it."""
    config = f"cache: {{redis: {{credential: {{managed_identity: }}, url: '{url}'}}, secret_file: /s}}"

    assert [f"c.yaml:1: cache.redis.{text}"] == problems_of(tmp_path, config)


@pytest.mark.parametrize("text", ["cache: {redis: }", "cache: {redis: {}, secret_file: /s}"], ids=["null", "empty"])
def test_a_redis_left_empty_is_none(tmp_path, text):
    """As any table that was left empty."""
    assert rules_of(tmp_path, text).redis is None


def test_a_redis_by_variables(tmp_path):
    """What a variable sets counts as said."""
    environ = {"SIDECAR_CACHE_REDIS_URL": "redis://cache", "SIDECAR_CACHE_SECRET_FILE": "/s"}
    rules = rules_of(tmp_path, "cache: {redis: {namespace: a}}", environ=environ)

    assert RedisRule("redis://cache", namespace="a") == rules.redis


def test_a_redis_without_a_secret(tmp_path):
    """``check`` fails with the remedy; ``run`` says so and is memory only."""
    text = "cache:\n  redis: {url: 'redis://cache'}"
    what = (
        "c.yaml:2: cache.redis: is not used without cache.secret_file; make one with `sidecar keygen > FILE`, "
        "mount it in every pod, and name it there"
    )
    rules = rules_of(tmp_path, text, strict=False)

    assert [what] == problems_of(tmp_path, text)
    assert rules.redis is None
    assert (f"{tmp_path}/{what} (the cache is in memory only)",) == rules.warnings
    assert CacheMode.DETERMINISTIC is rules.routes[0].cache.mode


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("services: {openai: {" + REGION + "}}", ("openai", "/openai", ("api.openai.com",), 0)),
        ("services: {openai: {port: 7401}}", ("openai", "", (), 7401)),
        ("services: {mine: {dialect: generic, " + REGION + "}}", ("mine", "/mine", (), 0)),
        ("services: {mine: {dialect: generic, hosts: [a.b, A.B], " + REGION + "}}", ("mine", "", ("a.b",), 0)),
    ],
    ids=["built-in", "built-in with a port", "own", "own with hosts"],
)
def test_ways_to_a_service(tmp_path, said, expected):
    """A service that names no way keeps its built-in's, or gets its name as prefix."""
    service = rules_of(tmp_path, said).services[0]

    assert expected == (service.name, service.path, service.hosts, service.port)


@pytest.mark.parametrize("word", ["off", "Off", "no", "false", '"off"'])
def test_an_unquoted_off_means_off(tmp_path, word):
    """Whatever YAML 1.1 makes of the word."""
    rules = rules_of(tmp_path, f"routes: [{{name: a, cache: {{mode: {word}}}}}]")

    assert CacheMode.OFF is rules.routes[0].cache.mode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 2", 'c.yaml:1: version: "2" is not a version; this program reads version 1'),
        ("listn: {}", "c.yaml:1: listn: unknown key; did you mean listen?"),
        ("listen: {zzz: 1}", "c.yaml:1: listen.zzz: unknown key; use one of host, names, port"),
        ("routes: [{name: a, ttl: 5s}]", "c.yaml:1: routes[0].ttl: unknown key; did you mean cache.ttl?"),
        (
            '"a\\nb": 1',
            (
                'c.yaml:1: "a\\nb": unknown key; use one of admin, cache, health, limits, listen, log, mode, routes, '
                "services, state, upstream, version"
            ),
        ),
        ("listen: {tls_port: 1}", "c.yaml:1: listen.tls_port: not supported by this version; remove it"),
        (
            "services: {openai: {regions: [{name: a, url: 'https://a', billing: payg}]}}",
            "c.yaml:1: services.openai.regions[0].billing: not supported by this version; remove it",
        ),
        (
            "routes: [{name: a, batch: {}}]",
            "c.yaml:1: routes[0].batch: not supported by this version; remove it",
        ),
        (
            "routes: [{name: a, concurrency: 3}]",
            "c.yaml:1: routes[0].concurrency: unknown key; did you mean limits.concurrency?",
        ),
        (
            "services: {openai: {brake: {}}}",
            "c.yaml:1: services.openai.brake: unknown key; did you mean breaker?",
        ),
        (
            "- a",
            (
                "c.yaml:1: the file is not a table of keys; its keys are admin, cache, health, limits, listen, log, "
                "mode, routes, services, state, upstream, version"
            ),
        ),
        ("listen: 7400", "c.yaml:1: listen: is not a table of keys; its keys are host, names, port"),
        ("listen:\n  port: [1]", "c.yaml:2: listen.port: is a list; give a single value (port)"),
        ("listen:\n  port:", "c.yaml:2: listen.port: has no value; give one (port) or remove the key"),
        (
            "routes: {name: a}",
            ("c.yaml:1: routes: is not a list; write its items as [a, b] or on lines that start with a hyphen"),
        ),
        ("routes: [{owner: a}]", "c.yaml:1: routes[0]: has no name; give one"),
        (
            "routes:\n- {name: a}\n- {name: a}",
            ("c.yaml:3: routes[1].name: a is the name of another one above; choose one of its own"),
        ),
        (
            "routes: [{name: a, match: {service: opnai}}]",
            ('c.yaml:1: routes[0].match.service: there is no service "opnai"; did you mean openai?'),
        ),
        (
            "routes: [{name: a, match: {header: {X-A: b, x-a: c}}}]",
            ("c.yaml:1: routes[0].match.header.x-a: is x-a once more; keep one"),
        ),
        (
            "routes: [{name: a, cache: {ttl: 0s}}]",
            ("c.yaml:1: routes[0].cache.ttl: 0s is out of bounds; use 1ms to 365d"),
        ),
        ("services: {mine: {" + REGION + "}}", "c.yaml:1: services.mine: has no dialect; give one"),
        ("services: {mine: {dialect: generic}}", "c.yaml:1: services.mine: has no regions; give at least one"),
        ("services: {openai: {regions: []}}", "c.yaml:1: services.openai.regions: is empty; give at least 1"),
        (
            "services: {openai: {dialect: openia}}",
            ('c.yaml:1: services.openai.dialect: "openia" is not a dialect; did you mean openai?'),
        ),
        (
            "services: {openai: {dialect: gemini}}",
            (
                "c.yaml:1: services.openai.dialect: the dialect gemini is not "
                "supported by this version; use one of anthropic, azure-documents, azure-language, azure-openai, "
                "azure-safety, azure-speech, azure-translator, azure-vision, generic, openai"
            ),
        ),
        (
            "services: {mine: {dialect: generic, path: /openai, " + REGION + "}}",
            (
                "c.yaml:1: services.mine.path: /openai "
                "belongs to the built-in service openai; choose another, or call this service openai"
            ),
        ),
        (
            "services:\n  a: {dialect: generic, port: 1, "
            + REGION
            + "}\n  b: {dialect: generic, port: 1, "
            + REGION
            + "}",
            "c.yaml:3: services.b.port: 1 belongs to the service a already; choose another",
        ),
        (
            "services: {openai: {port: 7400}}",
            ("c.yaml:1: services.openai.port: 7400 is also the port of listen; choose another"),
        ),
        ("health: {port: 7400}", "c.yaml:1: health.port: 7400 is also the port of listen; choose another"),
        ("listen: {port: 7491}", "c.yaml:1: listen.port: 7491 is also the port of health; choose another"),
        (
            "admin: {port: 1}\nhealth: {port: 1}",
            "c.yaml:1: admin.port: 1 is also the port of health; choose another",
        ),
        (
            "services:\n  sidecar: {dialect: generic, " + REGION + "}",
            (
                "c.yaml:2: services.sidecar: has the prefix /sidecar, which is the sidecar's own; give it another path "
                "or name"
            ),
        ),
        (
            "services:\n  sidecar: {dialect: generic, path: /sidecar, " + REGION + "}",
            "c.yaml:2: services.sidecar.path: /sidecar is the sidecar's own; choose another prefix",
        ),
        (
            "services: {openai: {regions: [{name: a, url: 'https://{resource}.x'}, {name: b, url: 'https://y'}]}}",
            (
                "c.yaml:1: services.openai.regions[1].url: has no {resource} as its sisters have; name it "
                "in all urls or in none"
            ),
        ),
        (
            (
                "services: {openai: {regions: [{name: a, url: 'https://a', credential: {header: x, file: /f, "
                "value: s3}}]}}"
            ),
            (
                "c.yaml:1: services.openai.regions[0].credential.value: secrets don't belong here; write "
                "it into a mounted file and name that in credential.file"
            ),
        ),
        (
            (
                "listen: {host: 0.0.0.0}\nservices: {openai: {regions: [{name: a, url: 'https://a', "
                "credential: {header: x, file: /f}}]}}"
            ),
            (
                "c.yaml:2: services.openai.regions[0].credential: would be lent to whoever reaches 0.0.0.0; "
                "set listen.host to 127.0.0.1 or remove the credential"
            ),
        ),
        (
            "cache: {memory: {max_bytes: 1Mi, max_entry_bytes: 2Mi}}",
            ("c.yaml:1: cache.memory.max_entry_bytes: is more than max_bytes; use at most 1Mi, or raise max_bytes"),
        ),
        (
            "cache: {redis: {timeout: 50ms}, secret_file: /s}",
            "c.yaml:1: cache.redis: has no url; give one, or leave the table empty",
        ),
        (
            "cache:\n  secret_file: /s\n  redis:\n    url: redis://u:hunter2@a",  # pragma: allowlist secret
            (
                "c.yaml:4: cache.redis.url: holds a user or password; write them into mounted files, and name these "
                "in username_file and password_file"
            ),
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis+cluster://a', ca_file: /ca}}",
            (
                "c.yaml:1: cache.redis.ca_file: is for TLS, and the url has none; start that with rediss, or remove "
                "the key"
            ),
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'rediss://a', key_file: /k}}",
            "c.yaml:1: cache.redis.key_file: belongs to a certificate; name that in cert_file, or remove the key",
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', password: hunter2}}",
            (
                "c.yaml:1: cache.redis.password: secrets don't belong here; write it into a mounted file and name "
                "that in password_file"
            ),
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', username: hunter2}}",
            (
                "c.yaml:1: cache.redis.username: secrets don't belong here; write it into a mounted file and name "
                "that in username_file"
            ),
        ),
        (
            "cache: {secret: hunter2}",
            (
                "c.yaml:1: cache.secret: secrets don't belong here; write it into a mounted file and name "
                "that in secret_file"
            ),
        ),
        (
            "admin: {token: hunter2}",
            (
                "c.yaml:1: admin.token: secrets don't belong here; write it into a mounted file and name "
                "that in token_file"
            ),
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', timeout: 2m}}",
            "c.yaml:1: cache.redis.timeout: 2m is out of bounds; use 1ms to 1m",
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', namespace: 'a b'}}",
            (
                'c.yaml:1: cache.redis.namespace: "a b" is not a namespace; use up to 64 letters, digits, dots, '
                "hyphens, underscores"
            ),
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', max_connections: 0}}",
            'c.yaml:1: cache.redis.max_connections: "0" is not a number; use 1 to 1000',
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', lease_wait: 1}}",
            'c.yaml:1: cache.redis.lease_wait: "1" is not a duration; write 1s',
        ),
        (
            "cache: {secret_file: /s, redis: {url: 'redis://a', warm: all}}",
            'c.yaml:1: cache.redis.warm: "all" is not a number; use 0 to 1000000',
        ),
        ("cache: {encrypt: maybe}", 'c.yaml:1: cache.encrypt: "maybe" is neither true nor false; use one of them'),
        ("cache: {compress_above: 1k}", 'c.yaml:1: cache.compress_above: "1k" is not a size; write 1Ki'),
        (
            "cache: {secret_file: ''}",
            "c.yaml:1: cache.secret_file: is not the path of a file; write one path on one line",
        ),
        (
            "routes: [{name: a, cache: {stale_if_error: 366d}}]",
            "c.yaml:1: routes[0].cache.stale_if_error: 366d is out of bounds; use 0ms to 365d",
        ),
        (
            "routes: [{name: a, cache: {stale_while_revalidate: yes}}]",
            (
                'c.yaml:1: routes[0].cache.stale_while_revalidate: "yes" is not a duration; write it as 50ms, 30s, '
                "15m, 12h or 30d"
            ),
        ),
        (
            "admin:\n  host: 0.0.0.0",
            (
                "c.yaml:2: admin.host: lets whoever reaches 0.0.0.0 act on the sidecar; set admin.token_file, or "
                "admin.host to 127.0.0.1"
            ),
        ),
    ],
)
def test_one_problem(tmp_path, text, expected):
    """Each mistake is one line with file, line, path and remedy."""
    assert [expected] == problems_of(tmp_path, text)


def test_a_service_of_our_name(tmp_path):
    """Only the prefix is the sidecar's own, not the name."""
    said = ["path: /mine", "hosts: [a.example]", "port: 1"]
    ways = [
        rules_of(tmp_path, f"services: {{sidecar: {{dialect: generic, {way}, {REGION}}}}}").services[0] for way in said
    ]

    assert ["/mine", "", ""] == [service.path for service in ways]


def test_every_problem_at_once_in_the_order_of_lines(tmp_path):
    """Nobody corrects a file one mistake a run."""
    text = """\
routes:
  - name: a
    match: {service: nobody}
    cache: {ttl: 5}
mode: fast
mode: slow
listen: {prot: 1}
services:
  openai: {path: x, dialect: y, regions: [{url: "ftp://a"}]}
"""

    places = [re.match(r"c\.yaml:(\d+): ([^:]+): ", line).groups() for line in problems_of(tmp_path, text)]
    assert [
        ("3", "routes[0].match.service"),
        ("4", "routes[0].cache.ttl"),
        ("5", "mode"),
        ("6", "mode"),
        ("7", "listen.prot"),
        ("9", "services.openai.path"),
        ("9", "services.openai.dialect"),
        ("9", "services.openai.regions[0].url"),
        ("9", "services.openai.regions[0]"),
    ] == places


def test_a_secret_is_never_shown(tmp_path):
    """A refused secret stays out of every message."""
    text = """
services:
  openai:
    api_key: hunter2
    regions:
      - {name: a, url: "https://u:hunter2@a", token: hunter2, credential: hunter2}  # pragma: allowlist secret
      - {name: b, url: "https://b", credential: {header: a, file: /f, prefix: Bearer hunter2, key: hunter2}}
upstream: {proxy: "http://u:hunter2@p"}  # pragma: allowlist secret
"""

    lines = problems_of(tmp_path, text)
    assert 7 == len(lines)
    assert "hunter2" not in "\n".join(lines)


MATCHED_CREDENTIALS = [
    "authorization", "Authorization", "api-key", "x-api-key", "cookie", "proxy-authorization",
    "ocp-apim-subscription-key", "x-goog-api-key",
]  # fmt: skip


@pytest.mark.parametrize("strict", [True, False], ids=["check", "run"])
@pytest.mark.parametrize("name", MATCHED_CREDENTIALS)
def test_no_route_matches_on_a_credential(tmp_path, name, strict):
    """The pattern would be the secret, or most of it; no version has a use for it there."""
    with pytest.raises(ConfigError) as caught:
        rules_of(
            tmp_path, f'routes: [{{name: a, match: {{header: {{{name}: "Bearer hunter2*", x-a: b}}}}}}]', strict=strict
        )

    text = "carries a credential, which doesn't belong here; match another header, such as x-team"
    assert (f"{tmp_path}/c.yaml:1: routes[0].match.header.{name}: {text}",) == caught.value.problems


def test_every_credential_header_is_tried_above():
    """The table of credential headers and the test's stay together."""

    assert {name.decode() for name in CREDENTIALS} < set(MATCHED_CREDENTIALS)


def test_nothing_but_later_keys_is_wrong_with_the_design_example(tmp_path):
    """Keys that belong to other versions are named as such; the rest passes."""
    design = ROOT / "../shared/design.md"
    if not design.exists():
        pytest.skip("the shared design page is not there")
    text = re.search(r"```yaml\n(.*?)```", design.read_text(), re.DOTALL)[1]

    lines = problems_of(tmp_path, text)
    later = [line for line in lines if "not supported by this version" in line]
    others = [line for line in lines if line not in later]
    assert {"durable", "billing", "verify", "holdout", "batch", "model", "shape", "slo"} == {
        line.split(": ")[1].rpartition(".")[2] for line in later if "dialect" not in line
    }
    assert [] == others


def test_the_example_passes():
    """The example that users copy is right."""
    rules = load(str(ROOT / "examples/sidecar.yaml"), environ={}, overrides={}, strict=True)

    assert () == rules.warnings
    assert ["invoices", "extraction", "vectors", "drafts"] == [route.name for route in rules.routes[:4]]


def test_what_the_example_leaves_out_passes(tmp_path):
    """Its commented keys are right as well."""
    text = (ROOT / "examples/sidecar.yaml").read_text()
    rules = rules_of(tmp_path, re.sub(r"(?m)^( *)# ((?:redis|secret_file|token_file|  \w+):)", r"\1\2", text))

    assert ("team-a", 1000) == (rules.redis.namespace, rules.redis.warm)
    assert all((rules.redis.password_file, rules.redis.key_file, rules.seal.secret_file, rules.admin_token_file))


class TestFinding:
    """Where a configuration is found."""

    def test_a_mounted_folder_holds_one_file(self, tmp_path):
        """A ConfigMap's own folders and links are looked past."""
        version = tmp_path / "..2026_11"
        version.mkdir()
        (version / "sidecar.yml").write_text("mode: passthrough")
        (tmp_path / "..data").symlink_to(version)
        (tmp_path / "sidecar.yml").symlink_to(tmp_path / "..data/sidecar.yml")
        (tmp_path / ".hidden.yaml").write_text("mode: x")
        (tmp_path / "notes.txt").write_text("x")
        rules = load(str(tmp_path), environ={}, overrides={}, strict=True)

        assert Mode.PASSTHROUGH is rules.mode

    def test_two_files_are_one_too_many(self, tmp_path):
        """Nobody guesses which of two holds."""
        (tmp_path / "a.yaml").touch()
        (tmp_path / "b.yml").touch()
        with pytest.raises(ConfigError) as caught:
            load(str(tmp_path), environ={}, overrides={}, strict=False)

        assert (f"{tmp_path}: holds 2 configurations, a.yaml, b.yml; keep one, or name the file",) == (
            caught.value.problems
        )

    def test_an_empty_folder(self, tmp_path, monkeypatch):
        """A folder that was named must hold a file; the default one need not."""
        monkeypatch.setattr(sidecar.settings, "DEFAULT_FOLDER", str(tmp_path))
        with pytest.raises(ConfigError) as caught:
            load(str(tmp_path), environ={}, overrides={}, strict=True)

        expected = f"{tmp_path}: holds no *.yaml or *.yml; put one configuration there, or name the file"
        assert (expected,) == caught.value.problems
        assert Mode.NORMAL is load(None, environ={}, overrides={}, strict=True).mode

    def test_the_default_folder_is_read(self, tmp_path, monkeypatch):
        """Without a path the default folder counts."""
        monkeypatch.setattr(sidecar.settings, "DEFAULT_FOLDER", str(tmp_path))
        (tmp_path / "a.yaml").write_text("mode: cache-off")

        assert Mode.CACHE_OFF is load(None, environ={}, overrides={}, strict=True).mode

    @pytest.mark.parametrize("strict", [True, False], ids=["check", "run"])
    def test_an_empty_path(self, strict):
        """A variable of a script that isn't set names no file, and is no reason to look elsewhere."""
        with pytest.raises(ConfigError) as caught:
            load("", environ={}, overrides={}, strict=strict)

        expected = "the path of the configuration is empty; name a file or folder (is a variable of a script not set?)"
        assert (expected,) == caught.value.problems

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (None, ": cannot be read: No such file or directory; check the path and its permissions"),
            (b"a: 1\nb: \xff", ":2: is not UTF-8; save the file in that encoding"),
            (b"#" * (1024 * 1024 + 1), ": is larger than 1Mi, more than a ConfigMap holds; name the right file"),
        ],
        ids=["missing", "encoding", "size"],
    )
    def test_unreadable_files(self, tmp_path, data, expected):
        """What cannot be read is one clear line."""
        path = tmp_path / "c.yaml"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            load(str(path), environ={}, overrides={}, strict=False)

        assert (f"{path}{expected}",) == caught.value.problems


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/a"}, "/home/a/.local/state/sidecar"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "/state/"}, "/state/sidecar"),
        ({"HOME": "/home/a", "XDG_STATE_HOME": "relative"}, "/home/a/.local/state/sidecar"),
        ({"HOME": "/"}, "/.local/state/sidecar"),
        ({}, ""),
    ],
    ids=["home", "xdg", "relative xdg", "root", "homeless"],
)
def test_state_folder(environ, expected):
    """Where the state goes when nothing is said."""
    rules = load(None, environ=environ, overrides={}, strict=True)

    assert expected == rules.state_dir


def test_revision_follows_the_content(tmp_path):
    """The same content has the same revision, wherever it lies; any change has another."""
    (tmp_path / "other").mkdir()
    first = rules_of(tmp_path, "mode: normal").revision
    moved = rules_of(tmp_path / "other", "mode: normal").revision
    changed = rules_of(tmp_path, "mode:  normal").revision
    overridden = rules_of(tmp_path, "mode: normal", environ={"SIDECAR_LISTEN_PORT": "1"}).revision

    assert first == moved
    assert 3 == len({first, changed, overridden})
    assert re.fullmatch("[0-9a-f]{12}", first)


KEYS = st.sampled_from([
    "version", "mode", "listen", "port", "cache", "memory", "services", "openai", "regions", "url", "name", "routes",
    "match", "header", "credential", "file", "ttl", "share", "tags", "limits", "collect", "<<", "state", "x",
    "allow", "fallback", "model", "breaker", "window", "weight", "residency", "managed_identity", "deployments",
])  # fmt: skip
SCALARS = st.sampled_from(
    ["stale", "openai", "0", "off", "1", "7400", "64Mi", "5s", "https://a", "*a", "&a", "~", "''", "a b", "[", "/x"]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=60), TREES), strict=st.booleans())
def test_any_text_is_read_or_refused_in_lines(tmp_path, text, strict):
    """Whatever a file holds, it gives rules or problems of one line each."""
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        lines = load(str(path), environ={}, overrides={}, strict=strict).warnings
    except ConfigError as error:
        lines = error.problems

        assert lines

    assert all(line.isprintable() and "; " in line for line in lines)


@pytest.mark.parametrize("text", ["mode: {}", "mode: *{}", "{}: 1", "log: {{by: '{}'}}", "limits: {{{}: 1}}"])
def test_a_key_pasted_anywhere_is_never_shown(tmp_path, text):
    """A message about it says where it stands, and not what it is."""
    [problem] = problems_of(tmp_path, text.format("sk-proj-abcdefghij0123456789"))

    assert "a text that looks like a secret" in problem
    assert "abcdefghij" not in problem


def test_a_running_sidecar_takes_no_file_of_something_else(tmp_path):
    """A manifest put in the place of the configuration would open every route; at the start its keys are named only."""
    path = tmp_path / "c.yaml"
    path.write_text("apiVersion: apps/v1\nkind: Deployment\n")

    with pytest.raises(ConfigError, match="holds no key of a configuration"):
        load(str(path), environ={}, overrides={}, strict=False, running=True)
    assert load(str(path), environ={}, overrides={}, strict=False)
    path.write_text("apiVersion: apps/v1\nversion: 1\n")
    assert load(str(path), environ={}, overrides={}, strict=False, running=True)
