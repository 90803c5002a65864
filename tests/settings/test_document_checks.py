"""Answers to documents stand in Redis for a day at most, unless they are encrypted there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.core.dialect import Kind
from sidecar.core.rules import CacheMode
from sidecar.dialects import DIALECTS
from sidecar.errors import ConfigError
from sidecar.settings import document_checks, load

READS = replace(DIALECTS["openai"], document_paths=("/documents/*:analyze",))

REMEDY = "set cache.encrypt to true, or keep them for 1d at most"


@pytest.fixture(autouse=True)
def one_reads_documents(monkeypatch):
    """Of all services, the one called ``documents`` takes them."""
    monkeypatch.setattr(
        document_checks, "dialect_of", lambda name, _: READS if name == "documents" else DIALECTS["openai"]
    )


@pytest.fixture
def configured(tmp_path):
    """Writes a configuration with one route, and gives its file."""
    secrets = tmp_path / "cache.key"
    secrets.write_text("a:" + "A" * 43 + "=\n")
    file = tmp_path / "c.yaml"

    def write(cache="{ttl: 2d}", match="{service: documents}", encrypt="encrypt: false", redis=True, secret=True):
        lines = [
            "services:",
            "  documents: {dialect: openai, regions: [{name: here, url: 'https://a.example'}]}",
            "cache:",
            f"  {encrypt}" if encrypt else "",
            "  redis: {url: 'redis://127.0.0.1:6379/0'}" if redis else "",
            f"  secret_file: {secrets}" if secret else "",
            "  memory: {max_bytes: 8Mi}",
            "routes:",
            f"  - {{name: papers, match: {match}, cache: {cache}}}",
        ]
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


def strict(file):
    """The problems of *file*, without its name."""
    try:
        load(str(file), environ={}, overrides={}, strict=True)
    except ConfigError as error:
        return [line.removeprefix(f"{file}:") for line in error.problems]
    return []


@pytest.mark.parametrize(
    ("cache", "key", "shown"),
    [
        ("{ttl: 25h}", "ttl", "25h"),
        ("{ttl: 24h, stale_if_error: 7d}", "stale_if_error", "8d"),
        ("{ttl: 12h, stale_if_error: 1h, stale_while_revalidate: 13h}", "stale_while_revalidate", "25h"),
        ("{stale_if_error: 1s}", "stale_if_error", "86401s"),
        ("{mode: always, ttl: 2d}", "ttl", "2d"),
    ],
)
def test_refused(configured, cache, key, shown):
    """What counts is how long the bytes stand there; the key that makes it so is named, with its line."""
    told = f"answers to documents of documents would stand unencrypted in Redis for {shown}, stale times included"

    assert [f"9: routes[0].cache.{key}: {told}; {REMEDY}"] == strict(configured(cache))


@pytest.mark.parametrize(
    "match",
    ["{}", "{path: '*'}", "{path: '/documents/invoice:analyze'}", "{service: documents, path: '/documents/*'}"],
)
def test_routes_that_may_take_documents(configured, match):
    """Also those that name no service, and those whose paths may be documents'."""
    assert 1 == len(strict(configured(match=match)))


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"cache": "{ttl: 24h}"}, id="a day"),
        pytest.param({"cache": "{ttl: 12h, stale_if_error: 12h, stale_while_revalidate: 1h}"}, id="a day in all"),
        pytest.param({"cache": "{tags: [a]}"}, id="the default"),
        pytest.param({"cache": "{mode: 'off', ttl: 2d}"}, id="nothing is kept"),
        pytest.param({"cache": "{mode: observe, ttl: 2d}"}, id="only measured"),
        pytest.param({"encrypt": "encrypt: true"}, id="encrypted"),
        pytest.param({"encrypt": ""}, id="encrypted by default"),
        pytest.param({"redis": False}, id="memory only"),
        pytest.param({"match": "{service: openai}"}, id="no documents there"),
        pytest.param({"match": "{service: documents, path: '/chat/*'}"}, id="other calls of the service"),
    ],
)
def test_not_refused(configured, said):
    """A day, however it is said; encryption; no Redis; or no documents."""
    assert [] == strict(configured(**said))


def test_a_variable_counts(configured):
    """Whoever decides it, what holds is what counts."""
    file = configured(encrypt="")
    with pytest.raises(ConfigError) as caught:
        load(str(file), environ={"SIDECAR_CACHE_ENCRYPT": "false"}, overrides={}, strict=True)

    assert [True] == [
        "routes[0].cache.ttl: answers to documents of documents" in line for line in caught.value.problems
    ]


def test_a_running_sidecar(configured):
    """It goes on: documents of the route are not cached, its other calls are, and a warning says so."""
    file = configured(match="{}")
    rules = load(str(file), environ={}, overrides={}, strict=False)
    first, second = rules.routes[:2]

    assert ("papers", frozenset({Kind.OCR}), CacheMode.OFF) == (first.name, first.match.kinds, first.cache.mode)
    assert ("papers", frozenset(), CacheMode.DETERMINISTIC) == (second.name, second.match.kinds, second.cache.mode)
    assert [True] == [
        line.endswith(f"{REMEDY} (the cache of routes[0] is off for documents)") for line in rules.warnings
    ]


def test_a_running_sidecar_without_documents(configured):
    """Where nothing is wrong, no route is split."""
    rules = load(str(configured(encrypt="")), environ={}, overrides={}, strict=False)

    assert ["papers"] == [route.name for route in rules.routes if not route.match.kinds and route.name != "default"]
    assert () == rules.warnings
