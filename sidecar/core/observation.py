"""
What a cache would have done, for routes that only observe.

The rule: nothing is served and nothing kept but digests: whether a call came before, and whether its answer was the
same one, apart from what every answer has of its own (ids, times, token counts).
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from sidecar.core.dialect import Endpoint
from sidecar.core.model import Form, Key, View

_OWN = ("id", "created", "created_at", "system_fingerprint", "service_tier", "usage", "request_id")


def essence(endpoint: Endpoint, body: bytes, form: Form) -> bytes:
    """A digest of what a successful answer says; 16 bytes."""
    if form is Form.EVENTS:
        body = endpoint.answers.convert(body, form, View()) or body
    try:
        answer = msgspec.json.decode(body)
        if isinstance(answer, dict):
            body = msgspec.json.encode({name: value for name, value in answer.items() if name not in _OWN})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # not JSON: its bytes are what it says
    return blake2b(body, digest_size=16).digest()


class Observations:
    """The calls of observing routes, and the essence of each one's last answer; at most *limit*, the oldest out."""

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._seen: OrderedDict[Key, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Observations {len(self._seen)} calls>"

    def note(self, key: Key, said: bytes) -> str:
        """``first`` for a call that is new, else ``same`` or ``different``: whether a hit would have said this."""
        before = self._seen.pop(key, None)
        self._seen[key] = said
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        if before is None:
            return "first"
        return "same" if before == said else "different"
