"""How a running sidecar lives with keys that its version doesn't know."""

from __future__ import annotations

import pytest

from sidecar.core.rules import CacheMode
from sidecar.errors import ConfigError
from sidecar.settings import load

ROUTES = """
routes:
  - name: a
    match: {service: openai}
    cache: {mode: always}
  - name: b
    cache: {mode: always}
"""


def tolerate(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    rules = load(str(path), environ={}, overrides={}, strict=False)
    warnings = [line.removeprefix(str(tmp_path) + "/") for line in rules.warnings]
    return rules, warnings


def caching(rules, service):
    """The names of the routes that cache for *service*, as the first match decides."""
    names, decided = [], set()
    for route in rules.routes:
        if route.match.service in {"", service} and (kinds := route.match.kinds or {"*"}) - decided:
            decided |= kinds
            if route.cache.mode is not CacheMode.OFF:
                names.append(route.name)
    return names


@pytest.mark.parametrize(
    ("text", "warning", "openai", "anthropic"),
    [
        ("new: 1", "c.yaml:1: new: unknown key; use one of", "chat", "chat"),
        (
            "listen: {tls_port: 1}",
            "c.yaml:1: listen.tls_port: not supported by this version; remove it (ignored)",
            "chat",
            "chat",
        ),
        (
            "cache: {redis: {urls: x}}",
            ("c.yaml:1: cache.redis.urls: unknown key; did you mean url? (the whole cache is off)"),
            "",
            "",
        ),
        (
            "cache: {memory: {max_byte: 1}}",
            ("c.yaml:1: cache.memory.max_byte: unknown key; did you mean max_bytes? (the whole cache is off)"),
            "",
            "",
        ),
        (
            "services: {openai: {braker: {}}}",
            (
                "c.yaml:1: services.openai.braker: unknown key; did you mean breaker? "
                "(the cache of service openai is off)"
            ),
            "",
            "chat",
        ),
        (
            "services: {openai: {regions: [{name: a, url: 'https://a', billing: payg}]}}",
            (
                "c.yaml:1: services.openai.regions[0].billing: not supported by this version; "
                "remove it (the cache of service openai is off)"
            ),
            "",
            "chat",
        ),
        (
            "services: {openai: {breaker: {closed: 5s}}}",
            (
                "c.yaml:1: services.openai.breaker.closed: unknown key; use one of consecutive_errors, "
                "consecutive_unanswered, failure_rate, minimum_calls, open, shared, slow_call, slow_rate, window "
                "(the cache of service openai is off)"
            ),
            "",
            "chat",
        ),
    ],
    ids=["top", "listen", "cache", "memory", "service", "billing", "breaker"],
)
def test_built_in_routes(tmp_path, text, warning, openai, anthropic):
    """An unknown key is a warning, and switches off the cache that it was said for."""
    rules, warnings = tolerate(tmp_path, text)

    assert 1 == len(warnings)
    assert warnings[0].startswith(warning)
    assert openai == "".join(caching(rules, "openai")[:1])
    assert anthropic == "".join(caching(rules, "anthropic")[:1])


def test_an_unknown_key_in_a_route_switches_that_route_off(tmp_path):
    """The other routes go on."""
    rules, warnings = tolerate(tmp_path, ROUTES.replace("cache: {mode: always}", "batch: {}", 1))

    assert ["c.yaml:5: routes[0].batch: not supported by this version; remove it (the cache of routes[0] is off)"] == (
        warnings
    )
    assert [("a", CacheMode.OFF), ("b", CacheMode.ALWAYS)] == [(r.name, r.cache.mode) for r in rules.routes[:2]]


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ("limits: {concurrency: 3, bursts: 2}", "limits.bursts"),
        ("retry: {on_timeout: true, on_error: true}", "retry.on_error"),
        ("fallback: [stale, {model: m, region: eu}]", "fallback[1].region"),
    ],
    ids=["limits", "retry", "fallback"],
)
def test_what_is_known_beside_an_unknown_key_holds(tmp_path, said, path):
    """Only the cache is off; what else the route says is done."""
    rules, warnings = tolerate(tmp_path, ROUTES.replace("cache: {mode: always}", said, 1))
    route = rules.routes[0]

    assert 1 == len(warnings)
    assert warnings[0].startswith(f"c.yaml:5: routes[0].{path}: unknown key; ")
    assert warnings[0].endswith("(the cache of routes[0] is off)")
    assert CacheMode.OFF is route.cache.mode
    assert 1 == sum((route.limits.concurrency == 3, route.retry.on_timeout, len(route.fallback) == 2))


def test_an_unknown_key_in_a_service_switches_all_its_routes_off(tmp_path):
    """A route for every service gets a twin for this one, so that the others keep it."""
    rules, _ = tolerate(tmp_path, "services: {openai: {balanced: latency}}" + ROUTES)

    assert [("a", "openai", CacheMode.OFF), ("b", "openai", CacheMode.OFF), ("b", "", CacheMode.ALWAYS)] == [
        (r.name, r.match.service, r.cache.mode) for r in rules.routes[:3]
    ]
    assert [] == caching(rules, "openai")


@pytest.mark.parametrize(
    "text",
    [
        "mode: fast",
        "listen: {port: x}",
        "a: [",
        "services: {openai: {regions: [{name: a, url: 'https://a', credential: {vault: {}}}]}}",
        "services: {openai: {breaker: {failure_rate: 0%}}}",
        "services: {openai: {breaker: {shared: true}}}",
        "routes: [{name: a, allow: [eu]}]",
        "routes: [{name: a, fallback: [{modle: x}]}]",
        "services: {openai: {regions: [{name: a, url: 'https://a', api_key: hunter2}]}}",
    ],
    ids=["word", "port", "syntax", "no-credential", "rate", "not-shared", "residency", "no-fallback", "secret"],
)
def test_other_problems_are_refused(tmp_path, text):
    """What is wrong in every version stops a running sidecar too."""
    with pytest.raises(ConfigError) as caught:
        tolerate(tmp_path, text)

    assert "hunter2" not in str(caught.value)
