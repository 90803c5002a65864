"""
The members of a JSON object, read so that every parser must find the same, and brought into one order.

The rule: as in ``canonical``, of which this is the part for JSON.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sidecar.core.dialect import Shape
from sidecar.core.key.json_rule import BLANKS, DEEPEST, UNREADABLE, fault
from sidecar.core.key.unsafe import Unsafe

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_negative_zero = re.compile(rb"-0[ \t\n\r,\]}]").search
_escaped_colon = re.compile(rb"\\u003[aA]").search


def parse(text: bytes) -> dict[str, Any] | Unsafe:
    """
    The members of a JSON object (RFC 8259), if every parser must find the same in it; otherwise the reason.

    Exact: integers of any length are kept, ``1`` and ``1.0`` differ, strings are as they were written. Floats are
    IEEE 754 doubles, as they are to the services.
    """
    try:
        members = _decode(text)
        compact = _encode(members)
    except UNREADABLE:
        return fault(text) or Unsafe.INVALID_JSON  # text that two parsers might not both read is unsafe
    if type(members) is not dict:
        return fault(text) or Unsafe.NOT_AN_OBJECT
    if _count(text, b"{") + _count(text, b"[") > DEEPEST and _deeper(members):
        return Unsafe.NESTING
    if compact == text or (
        # Fewer members mean fewer colons: colons in strings are the same in both, unless one was escaped.
        _count(compact, b":") == _count(text, b":") and not _escaped_colon(text) and not _negative_zero(text)
    ):
        return members
    return fault(text) or members


def members_of(text: bytes, listed: str) -> dict[str, Any] | Unsafe:
    """As ``parse``; an array is taken for an object with that one member *listed*, unless that is ``""``."""
    if not listed or text.lstrip(BLANKS)[:1] != b"[":
        return parse(text)
    members = parse(b'{"%b":%b}' % (listed.encode(), text))
    if isinstance(members, Unsafe):
        return members
    return members if members.keys() == {listed} else Unsafe.INVALID_JSON  # the text is an array, and more


def arrange(members: dict[str, Any], shape: Shape, *, all_of_it: bool = False) -> dict[str, Any]:
    """
    Members sorted by the code points of their names, without the dropped ones, and inside them as *shape* says.
    *all_of_it*: none is dropped.
    """
    if shape.fold and len({name.lower() for name in members}) == len(members):
        members = {name.lower(): value for name, value in members.items()}
    arranged = dict(sorted(members.items()))
    inside = shape.inside
    for name in inside.keys() & members.keys():
        value, inner = members[name], inside[name]
        if type(value) is dict:
            arranged[name] = arrange(value, inner, all_of_it=all_of_it)
        elif type(value) is list:
            arranged[name] = [
                arrange(item, inner, all_of_it=all_of_it) if type(item) is dict else item for item in value
            ]
    if shape.drop and not all_of_it:
        for name in shape.drop & members.keys():
            value = arranged[name]
            if not (value and name in inside and type(value) is dict):
                del arranged[name]
    return arranged


def _count(text: bytes, byte: bytes) -> int:
    """How often *byte* occurs. ``bytes.count`` looks at each byte in turn; ``replace`` leaps and is faster."""
    return len(text) - len(text.replace(byte, b""))


def _deeper(members: dict[str, Any]) -> bool:
    """Whether there are more than ``DEEPEST`` levels, found level by level without recursion."""
    level: list[Any] = [members]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if type(value) is dict else value)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True
