"""
The shapes that a configuration's values have, as data: tables, lists, single values.

The rule: nothing here knows any key, nor any form in particular.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ValueForm:
    """
    What a single value looks like, in words, and how it is read. *read* raises ``ValueError``. *file*: it names a file
    or folder, where people also put what belongs into the file.
    """

    name: str
    read: Callable[[str], Any]
    file: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One key. *default* as the reference shows it, ``""`` where nothing holds without it. *required*: its table, or the
    way of its table that was chosen, is not whole without it.
    """

    value: SettingShape
    about: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table of known keys.

    *later*: keys that belong to other versions of the program. *secret*: keys under which people write secrets, which
    are refused in every version, and what to do instead. *ways*: where there are any, groups of keys of which exactly
    one is said.
    """

    keys: Mapping[str, Setting]
    later: frozenset[str] = frozenset()
    secret: Mapping[str, str] = field(default_factory=dict)
    ways: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys are the user's own, of form *key*."""

    key: ValueForm
    value: Table | ValueForm


@dataclass(frozen=True, slots=True)
class Either:
    """A single value, or a table."""

    single: ValueForm
    table: Table


@dataclass(frozen=True, slots=True)
class Items:
    """A list; *least* is how many items it has at least."""

    value: Table | ValueForm | Either
    least: int = 0


SettingShape = ValueForm | Table | Named | Items | Either


def in_file(key: str) -> str:
    """What to do with a secret whose file is named in *key*."""
    return f"write it into a mounted file and name that in {key}"
