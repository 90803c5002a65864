"""
Answers that depend on fields of the request: for which requests an answer is valid (``Vary``; RFC 9111, 4.1).

The rule: an entry holds the request's value of such a field as a keyed digest, never in clear, because the value may be
a credential. A missing field matches a missing field.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from sidecar.core.model import Entry, Fields, Key, Pairs

_ABSENT = b""


def variant(key: Key, names: Iterable[bytes], fields: Fields) -> Pairs:
    """The digests of a request's values in the fields *names*; *key* is its key."""
    return tuple([(name, _digest(key, name, fields)) for name in names])


def fits(key: Key, variant: Pairs, fields: Fields) -> bool:
    """Whether a request of *key* with *fields* has the values that *variant* stands for."""
    return all(_digest(key, name, fields) == digest for name, digest in variant)


def fitting(entry: Entry | None, key: Key, fields: Fields) -> Entry | None:
    """*entry*, if its answer is valid for a request of *key* with these *fields*; otherwise None."""
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
