"""
What is wrong with a configuration, and where.

The rule: a problem is one line, ``place: path: what is wrong; the remedy``, and never shows what may be a secret.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from sidecar.core.pasted import holds_key

Path = tuple[str | int, ...]
"""Where a value stands in the configuration: keys, and positions in lists from 0."""

_PLAIN = re.compile(r"[A-Za-z0-9_./*-]{1,64}\Z")
_SHOWN = 40

HIDDEN = "a text that looks like a secret"
"""Stands for a value that no message quotes."""


class SourceLocation(NamedTuple):
    """Where a value was set: a file and its line from 1; *line* 0 for what has no lines (a variable, an option)."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class Problem(NamedTuple):
    """One problem. *path* is empty for the file as a whole."""

    place: SourceLocation
    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {dotted(self.path)}: {self.text}" if self.path else f"{self.place}: {self.text}"


def in_order(problems: Iterable[Problem]) -> tuple[str, ...]:
    """One line each, in the order of the file's lines; problems without a line come last. Equal lines appear once."""
    by_line = sorted(problems, key=lambda problem: (problem.place.line == 0, problem.place.line))
    return tuple(dict.fromkeys(str(problem) for problem in by_line))


def dotted(path: Path) -> str:
    """``("routes", 0, "cache")`` as ``routes[0].cache``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _PLAIN.match(step) and not holds_key(step) else shown(step))
    return text


def shown(text: str) -> str:
    """A value as a message quotes it: short, on one line, and never what may be a secret."""
    return HIDDEN if holds_key(text) else json.dumps(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def listed(words: Iterable[str]) -> str:
    """``a, b, c`` in alphabetical order."""
    return ", ".join(sorted(words))


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant; ``""`` if there is none."""
    found = difflib.get_close_matches(word.lower().replace("-", "_"), sorted(known), 1)
    return found[0] if found else ""
