"""
The shapes that a configuration's values have, as data: tables, lists, single values.

The rule: nothing here knows a key or a particular form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ValueForm:
    """
    What a single value looks like, in words, and how it is read. *read* raises ``ValueError``. *file*: it names a file
    or folder, where people may write the file's content by mistake.
    """

    name: str
    read: Callable[[str], Any]
    file: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One key. *default* is the text of the reference, ``""`` if there is no default. *required*: its table, or the chosen
    alternative of its table, is incomplete without it.
    """

    value: SettingShape
    about: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table of known keys.

    *later*: keys that belong to other versions of the program. *secret*: keys under which people write secrets; they
    are refused in every version, with advice. *ways*: alternatives, groups of keys of which exactly one is set.
    """

    keys: Mapping[str, Setting]
    later: frozenset[str] = frozenset()
    secret: Mapping[str, str] = field(default_factory=dict)
    ways: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Named:
    """A table whose keys the user chooses, of form *key*."""

    key: ValueForm
    value: Table | ValueForm


@dataclass(frozen=True, slots=True)
class Either:
    """A single value, or a table."""

    single: ValueForm
    table: Table


@dataclass(frozen=True, slots=True)
class Items:
    """A list; *least* is its smallest number of items."""

    value: Table | ValueForm | Either
    least: int = 0


SettingShape = ValueForm | Table | Named | Items | Either


def in_file(key: str) -> str:
    """What to do with a secret whose file is named in *key*."""
    return f"write it into a mounted file and name that in {key}"
