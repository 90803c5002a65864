"""The house keeps its order: one name, one meaning; small files; no cycles; every room has its rule."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "sidecar").rglob("*.py"))}

MOST_LINES = 400
MOST_LOOSE = 4

OLD_CLASSES = frozenset({
    "Errand", "Trip", "Leg", "End", "Try", "Way", "Boarding", "Reception", "Standby", "Passage", "Approach", "Gate",
    "Pass", "Turn", "Committed", "Familiar", "Membership", "Pieces",
})  # fmt: skip
"""Names of classes that meant something in this program alone; each is one of the field's words now."""

OLD_WORDS = frozenset({
    "errand", "trip", "leg", "way", "boarding", "board", "takes", "hand_on", "pass_on", "reception", "pour", "standby",
    "stand_in", "spare", "passage", "approach", "telling", "gate", "talks", "again", "told", "familiar", "recall",
    "membership", "hasty", "sole", "unheard", "silent", "cut",
})  # fmt: skip
"""The same of functions, fields, variables and modules, without underscores around them."""


def named(path: Path) -> str:
    """The dotted name of the module at *path*."""
    steps = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(steps[:-1] if steps[-1] == "__init__" else steps)


MODULES = {named(path): tree for path, tree in FILES.items()}


def is_type_name(name: str) -> bool:
    """Whether *name* is written like a class's. One letter is a variable of types, free in every file."""
    return len(name.strip("_")) > 1 and re.fullmatch(r"_?[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name) is not None


def meanings(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Every name of a type that *module* gives, with what it stands for."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield name, f"{module}:{node.lineno}"
            case ast.ImportFrom(module=source, names=names):
                yield from ((each.asname, f"{source}.{each.name}") for each in names if each.asname)
            case ast.Import(names=names):
                yield from ((each.asname, each.name) for each in names if each.asname)
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, f"{module}:{node.lineno}"


def test_one_name_has_one_meaning():
    """No two classes, aliases of types or variables of types share a name."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, tree in MODULES.items():
        for name, meaning in meanings(module, tree):
            if is_type_name(name):
                found[name].add(meaning)

    assert {} == {name: sorted(those) for name, those in found.items() if len(those) > 1}


def given(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module gives to something of its own, and the line."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno


def test_no_word_of_the_old_vocabulary():
    """What was renamed into the words of the field stays so, as a class, function, field, variable or module."""
    old = OLD_CLASSES | OLD_WORDS
    found = [f"{path.relative_to(ROOT)}: {path.stem}" for path in FILES if path.stem in old]
    for path, tree in FILES.items():
        found += [f"{path.relative_to(ROOT)}:{line}: {name}" for name, line in given(tree) if name.strip("_") in old]

    assert [] == found


def test_files_are_small():
    """A file past 400 lines is two rooms."""
    sizes = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}

    assert {} == {path: size for path, size in sizes.items() if size > MOST_LINES}


def test_few_loose_modules():
    """What isn't in a room is known by heart."""
    loose = sorted(path.name for path in FILES if path.parent == ROOT / "sidecar")

    assert len(loose) <= MOST_LOOSE, loose


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules of the program that *tree* imports, wherever in the file and for whatever reason."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(source), names=names):
                for each in names:
                    name = f"{source}.{each.name}"
                    yield name if name in MODULES else source
            case ast.Import(names=names):
                yield from (each.name for each in names)


def test_no_cycle():
    """Files import each other in one direction, imports within functions and for types alone included."""
    left = {module: {name for name in imported(tree) if name in MODULES} for module, tree in MODULES.items()}
    while free := [module for module, needs in left.items() if not needs & left.keys()]:
        for module in free:
            del left[module]

    assert {} == {module: sorted(needs & left.keys()) for module, needs in left.items()}


def test_every_room_says_its_rule():
    """A package's docstring begins with one line, a whole sentence."""
    rooms = {named(path): ast.get_docstring(tree) or "" for path, tree in FILES.items() if path.name == "__init__.py"}

    assert [] == [room for room, text in rooms.items() if not re.match(r"[^\n]{20,118}[.](?:\n\n|\Z)", text)]
