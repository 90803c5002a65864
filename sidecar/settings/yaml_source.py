"""
YAML text as a tree that knows its lines.

The rule: only structure is read here. A scalar stays the text that was written, so that ``off``, ``1:30`` or ``0x10``
mean to the schema what they look like, whatever YAML 1.1 makes of them. Characters, depth, documents, anchors and names
are checked here, not by the parser; the parser's own messages are used only for syntax.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import yaml

from sidecar.settings.problems import Path, Problem, SourceLocation, shown

MAX_DEPTH = 32
"""
The deepest nesting allowed, several times what a configuration needs, because libyaml's composer recurses on the C
stack.
"""

_LOADER: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD = "tag:yaml.org,2002:"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
_TOKENS = re.compile(
    r"""(?<![^\s\[\]{},:])"(?:[^"\\]|\\.)*+"?|(?<![^\s\[\]{},:])'[^']*+'?|(?<!\S)\#[^\n]*+|[\[\]{}]""", re.DOTALL
)
"""Quoted texts, comments, and brackets outside of them."""

_REMEDIES = (
    ("start any token", "indent with spaces, and quote values that start with a tab, @, ` or %"),
    ("mapping values", 'check the indentation, and quote values that hold ": "'),
)
"""Remedies for some messages of parsers. Parsers may change their messages, so all others get a general remedy."""

_REMEDY = "check indentation, brackets and quotes here"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it was written; *null* for a missing one (or ``~``, ``null``)."""

    text: str
    place: SourceLocation
    null: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    place: SourceLocation


@dataclass(frozen=True, slots=True)
class YamlEntry:
    """A key's value, and where the key stands."""

    place: SourceLocation
    node: Node


@dataclass(frozen=True, slots=True)
class YamlTable:
    """A table of keys, with merges (``<<``) applied."""

    entries: Mapping[str, YamlEntry]
    place: SourceLocation


Node = Scalar | Sequence | YamlTable


def parse(text: str, source: str) -> tuple[Node | None, list[Problem]]:
    """The tree of *text* (None for an empty or unreadable one) and what is wrong with its YAML."""
    if unprintable := _UNPRINTABLE.search(text):
        line = _line(text, unprintable.start())
        what = f"the control character {shown(unprintable[0])} is not allowed in YAML; remove it"
        return None, [Problem(SourceLocation(source, line), (), what)]
    try:
        unfit = _unfit(text)
        root = None if unfit else yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        root, unfit = None, _too_deep(text) or _unreadable(error, text)
    if unfit is not None:
        return None, [Problem(SourceLocation(source, unfit.line), (), unfit.what)]
    if root is None:
        return None, []
    conversion = _Conversion(source, _last(text))
    return conversion.node(root, ()), conversion.problems


class _Unfit(NamedTuple):
    """Why a text has no tree, and the line that shows it; 0 if there is no such line."""

    line: int
    what: str


def _unfit(text: str) -> _Unfit | None:
    """The first thing that makes a text unusable as a configuration although it is YAML."""
    depth = documents = 0
    anchors: dict[str, int] = {}
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return _deep(line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                return _Unfit(line, "holds a second document; keep one document in the file")
        if isinstance(event, yaml.NodeEvent) and (name := event.anchor):
            first = anchors.get(name)
            if (first is None) == isinstance(event, yaml.AliasEvent):
                return _Unfit(line, _misnamed(name, first))
            anchors.setdefault(name, line)
    return None


def _misnamed(name: str, first: int | None) -> str:
    """The problem of an alias without an anchor before it, or of an anchor that line *first* has already."""
    if first is None:
        remedy = "quote a value that starts with *, or define its anchor first"
        return f"the alias {shown('*' + name)} has no anchor before it; {remedy}"
    return f"the anchor {shown('&' + name)} is said twice, first on line {first}; give each anchor a name of its own"


def _deep(line: int) -> _Unfit:
    return _Unfit(line, f"nested deeper than {MAX_DEPTH} levels; no key needs that")


def _too_deep(text: str) -> _Unfit | None:
    """
    Whether brackets nest too deep in a text that the parser gave up: the parser looks ahead, and has a limit of its
    own.

    Only the text itself is searched for brackets, so a bracket in an unquoted text counts, too.
    """
    depth = 0
    for found in _TOKENS.finditer(text):
        if found[0] in {"[", "{"}:
            depth += 1
            if depth > MAX_DEPTH:
                return _deep(_line(text, found.start()))
        elif found[0] in {"]", "}"} and depth:
            depth -= 1
    return None


def _last(text: str) -> int:
    """The last line with content. A parser may place what is missing at the end behind it."""
    return _line(text, len(text.rstrip()))


def _line(text: str, at: int) -> int:
    """The line on which the character at *at* stands, as YAML 1.1 breaks lines."""
    return len(_BREAK.findall(text, 0, at)) + 1


def _unreadable(error: yaml.YAMLError, text: str) -> _Unfit:
    if not isinstance(error, yaml.MarkedYAMLError):
        return _Unfit(0, f"cannot be read as YAML: {shown(str(error))}; correct the text")
    mark = error.problem_mark
    if mark and error.context_mark and mark.index >= len(text.rstrip()):
        mark = error.context_mark  # something never closed is noticed at the end, but wrong where it opens
    what = error.problem or error.context or "syntax error"
    remedy = next((remedy for sign, remedy in _REMEDIES if sign in what), _REMEDY)
    line = min(mark.line + 1, _last(text)) if mark else 0
    return _Unfit(line, f"cannot be read as YAML: {what}; {remedy}")


@dataclass(slots=True)
class _Conversion:
    """Turns composed nodes into ours, none behind line *last*. A node that aliases share is turned once."""

    source: str
    last: int
    problems: list[Problem] = field(default_factory=list)
    done: dict[int, Node] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def node(self, node: yaml.Node, path: Path) -> Node:
        place = self.place(node)
        if (known := self.done.get(id(node))) is not None:
            return known
        if id(node) in self.open:
            self.problems.append(Problem(place, path, "contains itself through an alias; write it out"))
            return Scalar("", place, null=True)
        if not node.tag.startswith(_STANDARD):
            self.problems.append(Problem(place, path, f"the tag {shown(node.tag)} has no meaning here; remove it"))
        self.open.add(id(node))
        turned: Node
        if isinstance(node, yaml.MappingNode):
            turned = YamlTable(self.entries(node, path), place)
        elif isinstance(node, yaml.SequenceNode):
            turned = Sequence(tuple(self.node(item, (*path, at)) for at, item in enumerate(node.value)), place)
        else:
            turned = Scalar(node.value, place, null=node.tag == _STANDARD + "null")
        self.open.remove(id(node))
        self.done[id(node)] = turned
        return turned

    def entries(self, node: yaml.MappingNode, path: Path) -> dict[str, YamlEntry]:
        """The members of a mapping; its own win over merged ones, and earlier merges over later ones."""
        own: dict[str, YamlEntry] = {}
        merged: dict[str, YamlEntry] = {}
        for key, value in node.value:
            place = self.place(key)
            if key.tag == _STANDARD + "merge":
                merged = {**self.merge(self.node(value, (*path, "<<")), path), **merged}
            elif not isinstance(key, yaml.ScalarNode):
                self.problems.append(Problem(place, path, "has a list or table as a key; a key is plain text"))
            elif (first := own.get(key.value)) is not None:
                what = f"said twice, first on line {first.place.line}; keep one"
                self.problems.append(Problem(place, (*path, key.value), what))
            else:
                own[key.value] = YamlEntry(place, self.node(value, (*path, key.value)))
        return {**merged, **own}

    def merge(self, node: Node, path: Path) -> dict[str, YamlEntry]:
        tables = node.items if isinstance(node, Sequence) else (node,)
        merged: dict[str, YamlEntry] = {}
        for table in tables:
            if isinstance(table, YamlTable):
                merged = {**table.entries, **merged}
            else:
                self.problems.append(Problem(table.place, path, "<< merges tables only; name the anchor of one"))
        return merged

    def place(self, node: yaml.Node) -> SourceLocation:
        return SourceLocation(self.source, min(node.start_mark.line + 1, self.last))
