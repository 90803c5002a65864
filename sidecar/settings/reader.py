"""
Reads a tree by the schema: gives plain values, and every problem of single keys.

The rule: unknown keys are kept apart from problems, because their effect depends on the command: ``check`` refuses
them, ``run`` goes on with less caching.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, assert_never

from sidecar.settings.problems import Path, Problem, SourceLocation, listed, nearest
from sidecar.settings.schema import SCHEMA
from sidecar.settings.shapes import Either, Items, Named, SettingShape, Table, ValueForm
from sidecar.settings.yaml_source import Node, Scalar, Sequence, YamlEntry, YamlTable

_NOTHING: Any = object()


@dataclass(slots=True)
class ParsedSettings:
    """
    What a configuration says.

    *values*: tables as dicts, lists as lists, single values as their form reads them; only values that were set and are
    right. *said*: the single values among them by their path, as they were written. *places*: where each was set.
    *files*: the paths of those that name files. *unknown*: keys that this version does not know. *empty*: there was
    nothing to read; *foreign*: there was, and none of it is known.
    """

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    said: dict[Path, Any] = field(default_factory=dict)
    places: dict[Path, SourceLocation] = field(default_factory=dict)
    files: set[Path] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[Problem] = field(default_factory=list)
    empty: bool = False
    foreign: bool = False

    def blame(self, path: Path, text: str) -> None:
        """Add a problem with the value at *path*, or with the nearest one above it that was set."""
        self.problems.append(self.problem(path, text))

    def problem(self, path: Path, text: str) -> Problem:
        """A problem with the value at *path*, at its place or the place of the nearest one above it that was set."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        return Problem(self.places.get(known, SourceLocation(self.source)), path, text)


def read(root: Node | None, source: str) -> ParsedSettings:
    """Read the tree of the file *source*; None is an empty file."""
    reading = ParsedSettings(source, empty=root is None or (isinstance(root, Scalar) and root.null))
    if root is not None:
        reading.values = _table(reading, root, SCHEMA, ())
        reading.foreign = bool(reading.unknown) and not reading.values
    return reading


def _value(reading: ParsedSettings, node: Node, shape: SettingShape, path: Path) -> Any:
    reading.places[path] = node.place
    match shape:
        case ValueForm():
            return _single(reading, node, shape, path)
        case Table():
            return _table(reading, node, shape, path)
        case Named():
            return _named(reading, node, shape, path)
        case Items():
            return _items(reading, node, shape, path)
        case Either():
            return _value(reading, node, shape.single if isinstance(node, Scalar) else shape.table, path)
        case _:
            assert_never(shape)


def _single(reading: ParsedSettings, node: Node, form: ValueForm, path: Path) -> Any:
    if not isinstance(node, Scalar):
        what = "a list" if isinstance(node, Sequence) else "a table"
        reading.blame(path, f"is {what}; give a single value ({form.name})")
    elif node.null:
        reading.blame(path, f"has no value; give one ({form.name}) or remove the key")
    else:
        try:
            value = reading.said[path] = form.read(node.text)
        except ValueError as error:
            reading.blame(path, str(error))
        else:
            if form.file:
                reading.files.add(path)
            return value
    return _NOTHING


def _table(reading: ParsedSettings, node: Node, table: Table, path: Path) -> dict[str, Any]:
    entries = _entries(reading, node, path, f"its keys are {listed(table.keys)}")
    values: dict[str, Any] = {}
    for name, entry in entries.items():
        where = (*path, name)
        if (key := table.keys.get(name)) is not None:
            value = _value(reading, entry.node, key.value, where)
            if value is not _NOTHING:
                values[name] = value
        elif name in table.secret:
            text = f"secrets don't belong here; {table.secret[name]}"
            reading.problems.append(Problem(entry.place, where, text))
        else:
            reading.unknown.append(Problem(entry.place, where, _unknown(name, table)))
    if isinstance(node, YamlTable) or (isinstance(node, Scalar) and node.null):
        _whole(reading, table, frozenset(entries), path)
    return values


def _whole(reading: ParsedSettings, table: Table, said: frozenset[str], path: Path) -> None:
    """Report what the table lacks, or has in addition to one of its alternatives."""
    wanted: Iterable[str] = table.keys
    if table.ways:
        gone = [alternative for alternative in table.ways if said & set(alternative)]
        if len(gone) != 1:
            words = [" and ".join(key for key in alternative if key in said) for alternative in gone]
            text = f"says {', and '.join(words)}; keep one" if gone else f"says none of {_ways(table)}; give one"
            reading.blame(path, text)
            return
        wanted = gone[0]
    for name in wanted:
        if table.keys[name].required and name not in said:
            reading.blame(path, f"has no {name}; give one")


def _ways(table: Table) -> str:
    return ", ".join(alternative[0] for alternative in table.ways)


def _named(reading: ParsedSettings, node: Node, named: Named, path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text, entry in _entries(reading, node, path, "give each a name of its own").items():
        where = (*path, text)
        reading.places[where] = entry.place
        try:
            name = named.key.read(text)
        except ValueError as error:
            reading.blame(where, str(error))
            continue
        if name in values:
            reading.blame(where, f"is {name} once more; keep one")
            continue
        value = _value(reading, entry.node, named.value, where)
        reading.places[where] = entry.place
        if value is not _NOTHING:
            values[name] = value
    return values


def _items(reading: ParsedSettings, node: Node, items: Items, path: Path) -> list[Any]:
    values: list[Any] = []
    if isinstance(node, Sequence):
        for at, item in enumerate(node.items):
            value = _value(reading, item, items.value, (*path, at))
            if value is not _NOTHING:
                values.append(value)
    elif not (isinstance(node, Scalar) and node.null):
        reading.blame(path, "is not a list; write its items as [a, b] or on lines that start with a hyphen")
        return values
    count = 0 if isinstance(node, Scalar) else len(node.items)
    if count < items.least:
        reading.blame(path, f"is empty; give at least {items.least}")
    return values


def _entries(reading: ParsedSettings, node: Node, path: Path, remedy: str) -> dict[str, YamlEntry]:
    """The members of a table; an empty one has none."""
    if isinstance(node, YamlTable):
        return dict(node.entries)
    if not (isinstance(node, Scalar) and node.null):
        reading.places[path] = node.place
        what = "is not a table of keys" if path else "the file is not a table of keys"
        reading.blame(path, f"{what}; {remedy}")
    return {}


def _unknown(name: str, table: Table) -> str:
    if name in table.later:
        return "not supported by this version; remove it"
    for inner, key in table.keys.items():
        if isinstance(key.value, Table) and (name in key.value.keys or name in key.value.later):
            return f"unknown key; did you mean {inner}.{name}?"
    meant = nearest(name, table.keys.keys() | table.later)
    return f"unknown key; did you mean {meant}?" if meant else f"unknown key; use one of {listed(table.keys)}"
