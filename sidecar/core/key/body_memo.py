"""
What of a body says nothing, cut out without reading the body.

The rule: two bodies whose pieces are the same, and certain, have the same reading. For a cut is only ever made between
the quotes of a string that has no escape in it: what stands there is one token, whatever it says, so both bodies have
the same structure; and that it is a silent member's value has been seen once, in the first of them.
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
    *body* without what the strings say that look like members named *ignored*: the pieces between them, one more than
    there are cuts. Joined with other strings, JSON text remains JSON text.
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
    """Whether each cut was in a silent member of the body itself: what is written there appears in such a member."""
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
    """Member names as they stand in a body."""
    return tuple([b'"%b":' % name.encode() for name in sorted(ignored)])
