"""
Whether a JSON text ends before it is over.

The rule: only what is certainly cut off is called so. What is no JSON for another reason is for others to judge.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from sidecar.core.key.json_rule import UNREADABLE

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
    # By leaps, not by looking at each string: this runs where all calls wait, on a text of whoever wrote it.
    parts = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if len(parts) % 2 == 0:
        return True
    bare = b"".join(parts[::2])
    opened = bare.count(b"{") + bare.count(b"[")
    return opened > bare.count(b"}") + bare.count(b"]")
