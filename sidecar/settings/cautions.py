"""
What a configuration may say, and is better thought over.

The rule: a caution never refuses a configuration, not even in ``sidecar check``; it is a warning there and at a start.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.rules import Share
from sidecar.settings.problems import Problem
from sidecar.settings.reader import Reading


def cautions(reading: Reading) -> Iterator[Problem]:
    """Each caution, at the key that it is about."""
    for at, route in enumerate(reading.values.get("routes", [])):
        cache = route.get("cache", {})
        share = cache.get("share", Share())
        if cache.get("directives") is False and share.kind != "principal":
            yield reading.problem(
                ("routes", at, "cache", "directives"),
                "together with `share` other callers get also what the service calls private or no-store; leave it out "
                "unless the service says so of every answer",
            )
