"""
Whether a JSON text was cut off before its end.

The rule: only a text that is certainly cut off counts as cut. Text that is not JSON for another reason is judged
elsewhere.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from sidecar.core.key.json_rule import UNREADABLE

_decode = msgspec.json.Decoder(Raw).decode


def is_cut(text: bytes) -> bool:
    """Whether *text* begins an object or an array whose end is missing."""
    if text.lstrip()[:1] not in {b"{", b"["}:
        return False
    try:
        _decode(text)
    except UNREADABLE:
        pass
    else:
        return False
    # It leaps instead of looking at each string: it runs on the event loop, and anybody may have written the text.
    parts = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if len(parts) % 2 == 0:
        return True
    bare = b"".join(parts[::2])
    opened = bare.count(b"{") + bare.count(b"[")
    return opened > bare.count(b"}") + bare.count(b"]")
