"""
Whether a JSON text ends before it is over.

The rule: only what is certainly cut off is called so. What is no JSON for another reason is for others to judge.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from sidecar.core.json_rule import UNREADABLE

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_decode = msgspec.json.Decoder(Raw).decode


def is_cut(text: bytes) -> bool:
    """Whether *text* begins an object or an array of which the end is not there."""
    if text.lstrip()[:1] not in {b"{", b"["}:
        return False
    try:
        _decode(text)
    except UNREADABLE:
        pass
    else:
        return False
    bare = _STRING.sub(b"", text)
    opened = bare.count(b"{") + bare.count(b"[")
    return b'"' in bare or opened > bare.count(b"}") + bare.count(b"]")
