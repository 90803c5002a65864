"""
Every reason that the code can give a caller, found in the code itself.

The rule: nothing is listed by hand. Closed sets are asked for their members, tables of dialects for their reasons, and
the source for the words that it gives as codes.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import sidecar
from sidecar import dialects
from sidecar.core.cache.policy import Reason
from sidecar.core.dialect import Completeness, Endpoint
from sidecar.core.key.unsafe import Unsafe
from sidecar.dialects import server_tools
from sidecar.dialects.anthropic import dialect as anthropic
from sidecar.dialects.openai import facts as openai_facts
from sidecar.proxy import request

_ROOT = Path(sidecar.__file__).parent

_NOT_OURS = ("admin/", "demo/", "app/operations.py", "app/reload.py", "net/web_server.py", "inject/")
"""What answers people who run it or the API server, or plays a service: none of it has a ``Cache-Status``."""

_CODES = {"Refused": 1, "_refused": 1, "Stray": 1, "Bypass": 0, "Drop": 0, "Allowance": 0}
"""What takes a code, and at which place among its arguments."""

_DETAIL = re.compile(r"detail=([a-z][a-z-]*)")

_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")


def reasons() -> frozenset[str]:
    """All of them."""
    return frozenset(chain(_enums(), _tables(), _endpoints(), _source()))


def _enums() -> Iterator[str]:
    for each in (Reason, Unsafe, Completeness):
        yield from (member.value for member in each if member.value)


def _tables() -> Iterator[str]:
    """Each table of reasons in the module of OpenAI's facts, whatever its name, and the others'."""
    for table in vars(openai_facts).values():
        if isinstance(table, tuple) and table and all(isinstance(row, tuple) and callable(row[-1]) for row in table):
            yield from (row[0] for row in table)
    yield from (reason for _, reason in anthropic._STATEFUL)
    yield from (server_tools.SERVER_TOOLS, server_tools.PRESET, server_tools.KEPT)
    yield from request._BOUND


def _endpoints() -> Iterator[str]:
    """Operations that are never looked up."""
    for module in pkgutil.walk_packages(dialects.__path__, "sidecar.dialects."):
        for found in vars(importlib.import_module(module.name)).values():
            if isinstance(found, Endpoint) and found.bypass:
                yield found.bypass


def _source() -> Iterator[str]:
    for path in sorted(_ROOT.rglob("*.py")):
        where = str(path.relative_to(_ROOT))
        if not where.startswith(_NOT_OURS):
            yield from _words(ast.parse(path.read_text()), within_dialects=where.startswith("dialects/"))


def _words(tree: ast.AST, *, within_dialects: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=args) if len(args) > _CODES.get(name, 99):
                yield from _text(args[_CODES[name]])
            case ast.keyword(arg="bypass" | "reason", value=value):
                yield from _text(value)
            case ast.Yield(value=ast.Constant() as value) if within_dialects:
                yield from _text(value)
            case ast.Constant(value=bytes() as raw):
                yield from _DETAIL.findall(raw.decode("latin-1"))
            case ast.Assign(targets=[ast.Name(id="_FOUND")], value=ast.Dict(values=values)):
                yield from chain.from_iterable(map(_text, values))


def _text(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        word = node.value.decode() if isinstance(node.value, bytes) else node.value
        if isinstance(word, str) and _CODE.match(word):
            yield word
