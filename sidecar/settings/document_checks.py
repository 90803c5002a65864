"""
Finds routes that would keep answers to documents in Redis, unencrypted, for more than a day.

The rule: what counts is how long the bytes stand in Redis: the ``ttl`` and the longer one of the two stale times. What
a document says about people is worth more than the time that a longer ``ttl`` saves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sidecar.core.cache.policy import DEFAULT_TTL
from sidecar.core.dialect import Dialect, Kind
from sidecar.core.durations import as_duration
from sidecar.core.rules import CacheMode, Match, Route, SealRule
from sidecar.settings.build import dialect_of, has_redis
from sidecar.settings.builtin import SERVICES
from sidecar.settings.overlap import may_overlap
from sidecar.settings.problems import Problem
from sidecar.settings.reader import ParsedSettings

MOST_SECONDS = DEFAULT_TTL[Kind.OCR]
"""How long answers to documents may stand in Redis unencrypted: as long as they do by default."""

_KEPT = frozenset({CacheMode.DETERMINISTIC, CacheMode.ALWAYS})
_STALE = ("stale_while_revalidate", "stale_if_error")


def unencrypted(reading: ParsedSettings) -> Iterator[Problem]:
    """Each such route, at the key that makes it so."""
    cache = reading.values.get("cache", {})
    if not has_redis(reading.values) or "secret_file" not in cache or cache.get("encrypt", SealRule().encrypt):
        return
    for at, said in enumerate(reading.values.get("routes", [])):
        rule = said.get("cache", {})
        seconds = _kept(rule)
        if seconds <= MOST_SECONDS or rule.get("mode", CacheMode.DETERMINISTIC) not in _KEPT:
            continue
        names = [*_services(reading.values, Match(**said.get("match", {})))]
        if names:
            most = as_duration(MOST_SECONDS)
            text = (
                f"answers to documents of {', '.join(names)} would stand unencrypted in Redis for "
                f"{as_duration(seconds)}, stale times included; set cache.encrypt to true, or keep them for {most} "
                f"at most"
            )
            yield reading.problem(("routes", at, "cache", _key(rule)), text)


def with_effect(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Each such problem, with what a running sidecar does about it."""
    for problem in problems:
        yield problem._replace(text=f"{problem.text} (the cache of routes[{problem.path[1]}] is off for documents)")


def withheld(routes: tuple[Route, ...], names: Collection[str]) -> tuple[Route, ...]:
    """
    The routes, with the cache switched off for the documents of those with these *names*: such a route gets a copy
    before it, which takes its documents only.
    """
    found: list[Route] = []
    for route in routes:
        if route.name in names:
            documents = replace(route.match, kinds=frozenset({Kind.OCR}))
            found.append(replace(route, match=documents, cache=replace(route.cache, mode=CacheMode.OFF)))
        found.append(route)
    return tuple(found)


def _kept(rule: Mapping[str, Any]) -> float:
    """How long an answer to a document stands in Redis, seconds."""
    stale: float = max(rule.get(name, 0.0) for name in _STALE)
    return stale + float(rule.get("ttl", MOST_SECONDS))


def _key(rule: Mapping[str, Any]) -> str:
    """The key to name: ``ttl`` if that alone is too long, otherwise the longer stale time."""
    if rule.get("ttl", MOST_SECONDS) > MOST_SECONDS:
        return "ttl"
    return max(_STALE, key=lambda name: rule.get(name, 0.0))


def _services(values: Mapping[str, Any], match: Match) -> Iterator[str]:
    """The services whose documents may come to a route with *match*."""
    said = values.get("services", {})
    for name in (*said, *(name for name in SERVICES if name not in said)):
        dialect: Dialect | None = dialect_of(name, said.get(name, {}))
        paths = () if dialect is None else dialect.document_paths
        if any(may_overlap(match, Match(service=name, path=path)) for path in paths):
            yield name
