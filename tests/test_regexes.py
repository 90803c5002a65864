"""No regular expression takes more than steps in proportion to a text's length, whoever wrote the text."""

import ast
import importlib
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import sidecar
from tests.regexes import agrees, costly, endless

ROOT = Path(sidecar.__file__).parent
ANCHORED = {"match", "fullmatch"}
ROAMING = {"search", "sub", "subn", "split", "findall", "finditer"}

PASSED_ON = {
    *(("sidecar.core.key.json_scanner", name) for name in ("_SPACE", "_SCALAR", "_REST", "_FLAT", "_LEAVES")),
    *(("sidecar.core.answer.rewrite", name) for name in ("_SPACE", "_COLON")),
}  # fmt: skip
"""Patterns that are given to ``_end``, of the same module, which matches them at one place."""

HARMLESS = {
    ("sidecar.settings.overrides", "_SERVICE_NAME"): "names of the process's own environment, short and nobody else's",
}


def sources():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text())


def used():
    """By module and name, the methods by which a pattern is used there, and the patterns that have no name."""
    methods, unnamed = {}, []
    for module, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ANCHORED | ROAMING:
                owner = node.value
                if isinstance(owner, ast.Name | ast.Attribute):
                    name = owner.id if isinstance(owner, ast.Name) else owner.attr
                    methods.setdefault((module, name), set()).add(node.attr)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr in ANCHORED | ROAMING
            ):
                flags = re.IGNORECASE if "IGNORECASE" in ast.unparse(node) else 0
                unnamed.append((module, ast.literal_eval(node.args[0]), flags, node.func.attr))
    return methods, unnamed


def patterns():
    """Every pattern of the package, with a way in which it is used: of those that search, one stands for all."""
    for found in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    methods, unnamed = used()
    for module in sorted(name for name in sys.modules if name == "sidecar" or name.startswith("sidecar.")):
        places = [sys.modules[module]]
        places += [one for one in vars(sys.modules[module]).values() if isinstance(one, type)]
        for place in places:
            if getattr(place, "__module__", module) != module:
                continue
            for name, value in list(vars(place).items()):
                if isinstance(getattr(value, "__self__", None), re.Pattern):
                    yield module, name, value.__self__, "match" if value.__name__ in ANCHORED else "finditer"
                    if value.__name__ == "fullmatch":
                        yield module, name, value.__self__, "fullmatch"
                elif isinstance(value, re.Pattern):
                    ways = methods.get((module, name), set())
                    if (module, name) in PASSED_ON:
                        ways = ways | {"match"}
                    yield from ((module, name, value, way) for way in sorted(ways & ANCHORED))
                    if not ways or ways & ROAMING:
                        yield module, name, value, "finditer"
    for module, source, flags, way in unnamed:
        yield module, source, re.compile(source, flags), way if way in ANCHORED else "finditer"


CASES = [case for case in patterns() if endless(case[2])]


@pytest.mark.parametrize(
    ("module", "name", "pattern", "how"), CASES, ids=lambda value: getattr(value, "pattern", value)
)
def test_linear(module, name, pattern, how):
    """Whatever the text: twice as long, it takes about twice as many steps."""
    assert agrees(pattern, how)
    if (module, name) not in HARMLESS:
        assert costly(pattern, how) is None


def test_all_are_found():
    """A pattern has a name of its own, in a module or a class: it, or a method of it, is what the name stands for."""
    hidden = []
    for module, tree in sources():
        bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
        values = [node.value for body in bodies for node in body if isinstance(node, ast.Assign | ast.AnnAssign)]
        named = {id(value.value if isinstance(value, ast.Attribute) else value) for value in values}
        hidden += [
            f"{module}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "re.compile" and id(node) not in named
        ]

    assert [] == hidden
    assert len(CASES) > 60
    assert set(HARMLESS) <= {(module, name) for module, name, _, _ in CASES}


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (r'(?:;[ \t]*([^ \t;="]+)[ \t]*(?:=[ \t]*("[^"]*"|[^;" \t]*))?[ \t]*)*', "fullmatch"),
        (r'(?:;a(?:=[ \t]*([^;" \t]*))?[ \t]*)*', "fullmatch"),
        (r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*", "fullmatch"),
        (r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', "finditer"),
        (r"\s*+\d++\s*?\n\s*+\d++:\d\d", "match"),
        (r"(a+)+b", "match"),
        (r"(?:a|a)*b", "match"),
        (r"a*a*b", "match"),
        (r"a*(?:b?a*)c", "match"),
        (r"a+b", "finditer"),
        (r"\s+$", "finditer"),
        (r"eyJ[\w-]*\.[\w-]*!", "finditer"),
        (r"(?i:A+)(?=a*)a*x", "fullmatch"),
    ],
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_costly_ones_are_found(pattern, how, kind):
    """Patterns that take the square of a text's length, or more, are known as such."""
    compiled = re.compile(pattern if kind is str else pattern.encode(), re.DOTALL)

    assert agrees(compiled, how)
    assert costly(compiled, how)


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        (r"(?:a++)++b", "match"),
        (r'(?:[^"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+', "fullmatch"),
        (r"a+b", "match"),
        (r"(?<![a-z])a+b", "finditer"),
        (r"a{1,64}b", "finditer"),
        (r"[ ]*+;[ ]*+x", "match"),
        (r"(?>a+)a*b", "match"),
        (r"(?:a|bc*?d)*\Z", "match"),
    ],
)
def test_others_are_not(pattern, how):
    """What is linear is not taken for more."""
    assert agrees(re.compile(pattern), how)
    assert costly(re.compile(pattern), how) is None
