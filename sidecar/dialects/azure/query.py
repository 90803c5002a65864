"""
The query of a call to one of Azure's AI services.

The rule: the order of its members has no meaning, but the order of those that share a name has. A byte that may be
written as itself or as an escape is the same byte; all else that a member says counts as it is written, because a wrong
equality returns another request's answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

_COMMA = b"%2C"
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BYTE = re.compile(rb"%([0-9A-Fa-f]{2})|([^A-Za-z0-9._~%+-])", re.DOTALL)


def canonical(*sets: str) -> Callable[[bytes], bytes]:
    """
    What gives the part of a query that counts. The members *sets* are lists without an order, each written with commas,
    by repeating the member, or both.
    """
    unordered = frozenset(name.encode() for name in sets)

    def arrange(query: bytes) -> bytes:
        members: list[tuple[bytes, bytes]] = []  # in the order of the query
        lists: dict[bytes, set[bytes]] = {}
        for member in query.split(b"&"):
            written, mark, value = member.partition(b"=")
            name = _normal(written)
            if name not in unordered or not mark:
                members += [(name, name + mark + _normal(value))] if member else []
                continue
            if name not in lists:
                members.append((name, b""))
            lists.setdefault(name, set()).update(_normal(value).split(_COMMA))
        members.sort(key=lambda member: member[0].lower())  # services do not look at case in names
        return b"&".join([text or b"%b=%b" % (name, _COMMA.join(sorted(lists[name]))) for name, text in members])

    return arrange


def _normal(text: bytes) -> bytes:
    """*text* with each byte escaped but for the unreserved ones (RFC 3986, 2.3). A plus may stand for a blank."""
    return _BYTE.sub(_escaped, text)


def _escaped(found: re.Match[bytes]) -> bytes:
    byte = int(found[1], 16) if found[1] else found[2][0]
    return bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte


def values(query: bytes, name: str) -> list[str]:
    """The values of the members *name*, to decide by: services do not look at case in names. Empty ones are none."""
    pairs = parse_qsl(query.decode("latin-1"), encoding="utf-8", errors="replace")
    return [value for found, value in pairs if found.lower() == name]


def items(query: bytes, name: str) -> list[str]:
    """The items of the list in the members *name*."""
    return [item for value in values(query, name) for item in value.split(",") if item.strip()]
