"""
What a cache would have done, for routes that only observe.

The rule: nothing is served, and only digests are kept: whether a call came before, and whether its answer was the same,
apart from what differs in every answer (ids, times, token counts).
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from sidecar.core.dialect import Endpoint
from sidecar.core.http.sse import events
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Form, Key, View

_OWN = ("id", "created", "created_at", "system_fingerprint", "service_tier", "usage", "request_id", "obfuscation")


def essence(endpoint: Endpoint, body: bytes, form: Form) -> bytes:
    """
    A digest of what a successful answer says; 16 bytes.

    A stream that can be turned into a whole answer is compared as that; another by its events, without its usage.
    """
    if form is Form.WHOLE:
        said = _said(body)
    elif (whole := endpoint.answers.convert(body, form, View())) is not None:
        said = _said(whole)
    else:
        said = b"\n".join([_said(event.data) for event in events(body)])
    return blake2b(said, digest_size=16).digest()


def _said(text: bytes) -> bytes:
    try:
        answer = msgspec.json.decode(text)
        if isinstance(answer, dict):
            return msgspec.json.encode({name: value for name, value in answer.items() if name not in _OWN})
    except UNREADABLE:
        pass  # not JSON: compare its bytes
    return text


class Observations:
    """The calls of observing routes, with the essence of each last answer; at most *limit*, the oldest are dropped."""

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._seen: OrderedDict[Key, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Observations {len(self._seen)} calls>"

    def note(self, key: Key, said: bytes) -> str:
        """``first`` for a new call, otherwise ``same`` or ``different``: whether a hit would have given this answer."""
        before = self._seen.pop(key, None)
        self._seen[key] = said
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        if before is None:
            return "first"
        return "same" if before == said else "different"
