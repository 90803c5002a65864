"""
What is allowed in a configuration, but probably not meant.

The rule: a caution never refuses a configuration, not even in ``sidecar check``; it is a warning there and at a start.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from sidecar.core.rules import Share
from sidecar.settings.memory_sizes import clamped
from sidecar.settings.pattern_cautions import patterns, shadows
from sidecar.settings.problems import Path, Problem
from sidecar.settings.reader import ParsedSettings
from sidecar.settings.url_cautions import doubled


def cautions(reading: ParsedSettings) -> Iterator[Problem]:
    """Each caution, at the key that it concerns."""
    for path, text in chain(
        _ignored(reading), patterns(reading.values), shadows(reading.values), doubled(reading), clamped(reading)
    ):
        yield reading.problem(path, text)


def _ignored(reading: ParsedSettings) -> Iterator[tuple[Path, str]]:
    """Routes that share answers, and also keep what a service calls private."""
    for at, route in enumerate(reading.values.get("routes", [])):
        cache = route.get("cache", {})
        share = cache.get("share", Share())
        if cache.get("directives") is False and share.kind != "principal":
            text = "together with `share` other callers also get what the service calls private or no-store"
            yield (
                ("routes", at, "cache", "directives"),
                f"{text}; leave it out unless the service says so of every answer",
            )
