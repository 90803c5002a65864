"""
Whether two routes may take the same call.

The rule: when in doubt, they may. Two patterns with wildcards are always in doubt.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from sidecar.core.rules import Match

_WILD = frozenset("*?[")


def may_overlap(one: Match, other: Match) -> bool:
    """Whether a call may match both."""
    headers = one.header.keys() & other.header.keys()
    return (
        (not one.service or not other.service or one.service == other.service)
        and (not one.kinds or not other.kinds or not one.kinds.isdisjoint(other.kinds))
        and _both(one.path, other.path)
        and _both(one.model.casefold(), other.model.casefold())
        and all(_both(one.header[name], other.header[name]) for name in headers)
    )


def _both(one: str, other: str) -> bool:
    """Whether a text may match both patterns; an empty one matches everything."""
    if not one or not other or (_is_wild(one) and _is_wild(other)):
        return True
    return fnmatchcase(one, other) if _is_wild(other) else fnmatchcase(other, one)


def _is_wild(pattern: str) -> bool:
    return not _WILD.isdisjoint(pattern)
