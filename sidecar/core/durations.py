"""
Durations as people write them: ``50ms 30s 15m 12h 30d``.

The rule: one number and one unit, so that nobody has to guess what ``5`` or ``1:30`` means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

UNITS: Mapping[str, float] = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
"""The seconds of each unit, also where services and callers write durations in forms of their own."""

_WRITTEN = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)\Z")


def seconds_of(text: str) -> float | None:
    """The seconds that *text* stands for, None where it is not a duration."""
    found = _WRITTEN.match(text)
    return None if found is None else int(found[1]) * UNITS[found[2]]


def as_duration(seconds: float) -> str:
    """Seconds in the largest unit that holds them whole."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        whole, rest = divmod(milliseconds, round(UNITS[unit] * 1000))
        if whole and not rest:
            return f"{whole}{unit}"
    return f"{milliseconds}ms"
