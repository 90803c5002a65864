"""
Answers that depend on fields of the request: for which requests such an answer is (``Vary``; RFC 9111, 4.1).

The rule: what a request had in such a field stands in the entry as a keyed digest, never in clear, for it may be a
credential. A field that is absent matches one that is absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sidecar.core.model import Entry, Fields, Key, Pairs

_ABSENT = b""


def variant(key: Key, names: Iterable[bytes], fields: Fields) -> Pairs:
    """What a request of *key* had in the fields *names*."""
    return tuple([(name, _digest(key, name, fields)) for name in names])


def fits(key: Key, variant: Pairs, fields: Fields) -> bool:
    """Whether a request of *key* has in its *fields* what that of *variant* had."""
    return all(_digest(key, name, fields) == digest for name, digest in variant)


def fitting(entry: Entry | None, key: Key, fields: Fields) -> Entry | None:
    """*entry*, if its answer is for a request of *key* with these *fields*; else None."""
    return entry if entry is None or not entry.vary or fits(key, entry.vary, fields) else None


def _digest(key: Key, name: bytes, fields: Fields) -> bytes:
    """16 bytes for a field's value, keyed by the key's proof, so that entries cannot be compared by them."""
    value = fields.get(name)
    if value is None:
        return _ABSENT
    text = b",".join([part.strip() for part in value.split(b",")])
    return blake2b(
        b"%d:%b;%b" % (len(name), name, text), key=key.proof, digest_size=16, person=b"sidecar vary"
    ).digest()
