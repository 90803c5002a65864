"""
Cuts the ignored members out of a body without reading it, so that a memo finds bodies that differ only in these.

The rule: two bodies with the same pieces, where the cuts are certain, have the same reading. A cut is made only between
the quotes of a string without an escape. Whatever stands there is one token, so both bodies have the same structure.
That the string is the value of an ignored member was checked once, in the first of the two bodies.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

import msgspec

from sidecar.core.key.json_rule import UNREADABLE

BodyParts = tuple[bytes, ...]

_PROBE = b"sidecar probe"
_string = re.compile(rb'( ?")[ !#-\[\]-~]*"').match
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def split_body(body: bytes, ignored: frozenset[str]) -> BodyParts:
    """
    *body* without the strings that look like values of the members *ignored*: the pieces between them, one more than
    there are cuts. Joined with other strings they are JSON text again.
    """
    found = []
    for name in _written(ignored):
        at = body.rfind(name)  # clients write such members last
        if at >= 0 and (string := _string(body, at + len(name))) is not None:
            found.append((string.end(1), string.end() - 1))
    if not found:
        return (body,)
    found.sort()
    pieces, start = [], 0
    for begin, end in found:
        pieces.append(body[start:begin])
        start = end
    pieces.append(body[start:])
    return tuple(pieces)


def certain(pieces: BodyParts, ignored: Collection[str]) -> bool:
    """Whether each cut was in an ignored member of the body itself: what is written there appears in such a member."""
    if len(pieces) == 1:
        return True
    probes = {b'"%b %d"' % (_PROBE, number) for number in range(1, len(pieces))}
    text = pieces[0] + b"".join([b"%b %d%b" % (_PROBE, number, piece) for number, piece in enumerate(pieces[1:], 1)])
    try:
        members = _members(text)
    except UNREADABLE:
        return False
    return {bytes(raw) for name, raw in members.items() if name in ignored} >= probes


@lru_cache(maxsize=64)
def _written(ignored: frozenset[str]) -> tuple[bytes, ...]:
    """The names of members as they are written in a body."""
    return tuple([b'"%b":' % name.encode() for name in sorted(ignored)])
