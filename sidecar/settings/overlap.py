"""
Whether two routes may take the same call.

The rule: when in doubt, they may. Two patterns with wildcards are in doubt unless they begin or end differently.
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
    if not one or not other:
        return True
    if _is_wild(one) and _is_wild(other):
        return _agree(_ends(one), _ends(other))
    return fnmatchcase(one, other) if _is_wild(other) else fnmatchcase(other, one)


def _is_wild(pattern: str) -> bool:
    return not _WILD.isdisjoint(pattern)


def _ends(pattern: str) -> tuple[str, str]:
    """What *pattern* has before its first wildcard, and after its last one backwards; a set may end anywhere."""
    before = pattern[: min(at for at, sign in enumerate(pattern) if sign in _WILD)]
    after = pattern[max(at for at, sign in enumerate(pattern) if sign in _WILD | {"]"}) + 1 :]
    return before, after[::-1]


def _agree(ends: tuple[str, str], others: tuple[str, str]) -> bool:
    """Whether a text may begin and end as both say."""
    return all(one.startswith(other) or other.startswith(one) for one, other in zip(ends, others, strict=True))
