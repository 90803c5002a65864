"""
YAML as Kubernetes' own tools read and write it.

The rule: what is written here means to kubectl what it meant in the file that it was read from. kubectl takes ``y`` for
a truth, ``1e3`` for a number, ``10:30`` and ``2026-01-01`` for texts; the usual reader of Python differs in each.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any

import yaml
from msgspec import json

from sidecar.core.key.json_rule import UNREADABLE

_DIGITS = list("-+0123456789")
_BOOL = re.compile(r"\A(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)\Z")
_NULL = re.compile(r"\A(?:~|null|Null|NULL|)\Z")
_INT = re.compile(r"\A[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z")
_FLOAT = re.compile(
    r"\A(?:[-+]?(?:\.[0-9_]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_MERGE = re.compile(r"\A<<\Z")
_TAG = "tag:yaml.org,2002:"
_FORMS = (
    ("bool", _BOOL, list("yYnNtTfFoO")),
    ("null", _NULL, ["~", "n", "N", ""]),
    ("int", _INT, _DIGITS),
    ("float", _FLOAT, [*_DIGITS, "."]),
)


class _Loader(yaml.SafeLoader):
    """Reads plain scalars as kubectl does."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  as its base has it
    bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}  # noqa: RUF012  as its base has it


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either reader would take for something else, and keeps the lines of long ones."""


def _whole_number(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "").lower()
    digits = text.lstrip("+-")
    number = int(digits, 0) if digits[:2] in {"0x", "0b", "0o"} else int(digits, 8 if digits[0] == "0" else 10)
    return -number if text[0] == "-" else number


def _unicode(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    """A text. Raises ``ValueError`` for one with half a character, which no tool of Kubernetes reads."""
    text = str(loader.construct_scalar(node))
    text.encode()
    return text


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_TAG}str", text, style="|" if "\n" in text else None)


for _name, _form, _first in _FORMS:
    _Loader.add_implicit_resolver(_TAG + _name, _form, _first)
    _Dumper.add_implicit_resolver(_TAG + _name, _form, _first)
_Loader.add_implicit_resolver(f"{_TAG}merge", _MERGE, ["<"])
_Loader.add_constructor(f"{_TAG}int", _whole_number)
_Loader.add_constructor(f"{_TAG}str", _unicode)
_Dumper.add_representer(str, _text)


def load_all(text: str) -> list[Any]:
    """
    The documents of *text*, which may be JSON. Raises ``yaml.YAMLError``, ``ValueError`` or ``RecursionError``.

    JSON has its own reader. That of YAML takes no tab between two tokens, and makes two characters of one that JSON
    writes as a pair of surrogates.
    """
    if text.lstrip()[:1] in {"{", "["}:
        with contextlib.suppress(*UNREADABLE):
            return [json.decode(text)]
    return list(yaml.load_all(text, _Loader))


def dump_all(documents: list[Any]) -> str:
    """*documents* as YAML."""
    text: str = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=1 << 20)
    return text
