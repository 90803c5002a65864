"""
What a running sidecar does with keys that its version does not know, and with a Redis that it may not use.

The rule: pods of several versions share one file, so an unknown key never stops a pod. But the key may limit who reads
which answers, so the cache that it concerns is switched off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from sidecar.core.rules import CacheMode, Route
from sidecar.settings.problems import Path, Problem


def warnings(unknown: Iterable[Problem]) -> Iterator[Problem]:
    """Each unknown key, with its effect."""
    for problem in unknown:
        yield problem._replace(text=f"{problem.text} ({_consequence(problem.path)})")


def left_alone(lacking: Iterable[Problem]) -> Iterator[Problem]:
    """Each reason why Redis is not used, with its effect."""
    for problem in lacking:
        yield problem._replace(text=f"{problem.text} (the cache is in memory only)")


def mute(routes: tuple[Route, ...], unknown: Iterable[Problem]) -> tuple[Route, ...]:
    """
    The routes, with the cache switched off where an unknown key requires it; the configured routes come first.

    A route for every service gets a copy before it for each service whose cache is off.
    """
    paths = [problem.path for problem in unknown]
    everything = any(path[0] == "cache" for path in paths)
    some = {path[1] for path in paths if path[0] == "routes"}
    services = list(dict.fromkeys(str(path[1]) for path in paths if path[0] == "services"))
    muted: list[Route] = []
    for at, route in enumerate(routes):
        if everything or at in some or route.match.service in services:
            muted.append(_off(route))
            continue
        if not route.match.service and route.cache.mode is not CacheMode.OFF:
            muted += [_off(replace(route, match=replace(route.match, service=service))) for service in services]
        muted.append(route)
    return tuple(muted)


def _off(route: Route) -> Route:
    return replace(route, cache=replace(route.cache, mode=CacheMode.OFF))


def _consequence(path: Path) -> str:
    match path[0]:
        case "cache":
            return "the whole cache is off"
        case "routes" if len(path) > 1:
            return f"the cache of routes[{path[1]}] is off"
        case "services" if len(path) > 1:
            return f"the cache of service {path[1]} is off"
        case _:
            return "ignored"
