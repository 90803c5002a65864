"""
Patterns that probably do not mean what was meant, and routes that take the calls of later ones.

The rule: a caution, never a problem: each of these patterns matches something, and may be meant so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sidecar.settings.problems import Path

_ANY = re.compile(r"\.\*")
_START = re.compile(r"\A\^")
_END = re.compile(r"\$\Z")
_BACKSLASH = re.compile(r"\\[A-Za-z.]")
_CHOICE = re.compile(r"\([^()|]*+\|[^()]*+\)")
_REPEATED = re.compile(r"[.\])]\+|\+\Z")

_SIGNS = (
    (_ANY, "`.*`", "a dot is a dot; write `*` for any text"),
    (_START, "`^`", "the whole text is matched anyway; leave it out"),
    (_END, "`$`", "the whole text is matched anyway; leave it out"),
    (_BACKSLASH, "a backslash", "it is a character like any other; write `[0-9]` for a digit"),
    (_CHOICE, "`(a|b)`", "it is text like any other; write a route for each"),
    (_REPEATED, "`+`", "it is a character like any other; write `*` for any text"),
)
"""How a regular expression is recognised, how it is shown, and what it means in a shell pattern."""


def patterns(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Patterns that look like regular expressions, and patterns with an open bracket."""
    for at, route in enumerate(values.get("routes", ())):
        match = route.get("match", {})
        said: list[tuple[Path, str]] = [((key,), match[key]) for key in ("path", "model") if key in match]
        said += [(("header", name), pattern) for name, pattern in match.get("header", {}).items()]
        for path, pattern in said:
            for text in _doubts(pattern):
                yield ("routes", at, "match", *path), text


def _doubts(pattern: str) -> Iterator[str]:
    for sign, shown, remedy in _SIGNS:
        if sign.search(pattern):
            yield f"looks like a regular expression ({shown}), and is a shell pattern, in which {remedy}"
            break  # one is enough to say what is wrong
    if _is_open(pattern):
        yield "has a `[` that no `]` closes, which matches only itself; close it, or write `[[]` for the character"


def _is_open(pattern: str) -> bool:
    """Whether a bracket counts as a character, as in ``fnmatch``."""
    at = pattern.find("[")
    while at >= 0:
        inside = at + 1
        if pattern[inside : inside + 1] == "!":
            inside += 1
        if pattern[inside : inside + 1] == "]":  # the first one in a set is a member of it
            inside += 1
        end = pattern.find("]", inside)
        if end < 0:
            return True
        at = pattern.find("[", end + 1)
    return False


def shadows(values: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Routes that never get a call, because an earlier one takes all of theirs."""
    routes = values.get("routes", ())
    for at, route in enumerate(routes):
        for earlier in routes[:at]:
            if _covers(earlier.get("match", {}), route.get("match", {})):
                text = f"never gets a call, because the route {earlier.get('name', '')} above takes all of them"
                yield ("routes", at), f"{text}; put this one first, or have that one match less"
                break


def _covers(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> bool:
    """Whether *earlier* matches every call that *later* matches; False if that is not certain."""
    if "service" in earlier and earlier["service"] != later.get("service"):
        return False
    headers = {name.lower(): pattern for name, pattern in later.get("header", {}).items()}
    return (
        _is_within(later.get("path", "/*"), earlier.get("path", "/*"))
        and _is_within(later.get("model", "*").casefold(), earlier.get("model", "*").casefold())
        and all(
            name.lower() in headers and _is_within(headers[name.lower()], pattern)
            for name, pattern in earlier.get("header", {}).items()
        )
    )


def _is_within(narrow: str, wide: str) -> bool:
    """
    Whether *wide* matches everything that *narrow* matches, as far as can be seen: a ``*`` of *wide* covers any text of
    *narrow* in its place. Sets and ``?`` are only compared.
    """
    if narrow == wide:
        return True
    if "[" in narrow or "[" in wide or "?" in wide:
        return wide in {"*", "/*"}  # every path begins with a slash
    return fnmatchcase(narrow, wide)
