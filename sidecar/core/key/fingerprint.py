"""
The key of a call: its proof and its address.

The rule: the material is versioned, tagged, length-prefixed fields, so no two calls can be written alike, and the
partition is an argument that cannot be left out. Whatever changes the material, or the canonical forms in it, changes
``KEY_VERSION`` too: a fleet's cache is never flushed or confused silently.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from xxhash import xxh3_128_digest

from sidecar.core.model import Key, Pairs, Reading

KEY_VERSION = 2

_VERSION = b"sidecar key %d;" % KEY_VERSION


def address(proof: bytes) -> bytes:
    """
    16 bytes by which a key is found: XXH3-128 of its proof.

    XXH3 alone collides at will for inputs over 240 bytes; over a keyed digest nobody can aim.
    """
    return xxh3_128_digest(proof)


def fingerprint(
    secret: bytes,
    *,
    partition: bytes,
    service: str,
    resource: str,
    endpoint: str,
    method: bytes,
    path: str,
    query: bytes,
    headers: Pairs,
    model: str,
    reading: Reading,
) -> Key:
    """The key of one call: ``prefix`` and ``seal`` in one step."""
    before = prefix(
        partition=partition,
        service=service,
        resource=resource,
        endpoint=endpoint,
        method=method,
        path=path,
        query=query,
        headers=headers,
    )
    return seal(secret, before, model, reading)


def prefix(
    *,
    partition: bytes,
    service: str,
    resource: str,
    endpoint: str,
    method: bytes,
    path: str,
    query: bytes,
    headers: Pairs,
) -> bytes:
    """
    The material before the body; it repeats from call to call.

    *query* is as it was written, less what carries a credential; *headers* are the fields that count, by lower-case
    name.
    """
    return _VERSION + b"".join((
        _field(b"partition", partition),
        _field(b"service", _bytes(service)),
        _field(b"resource", _bytes(resource)),
        _field(b"endpoint", _bytes(endpoint)),
        _field(b"method", method),
        _field(b"path", _bytes(path)),
        _field(b"query", query),
        _field(b"headers", _joined(part for pair in sorted(headers) for part in pair)),
    ))  # fmt: skip


def seal(secret: bytes, prefix: bytes, model: str, reading: Reading) -> Key:
    """
    The key of a call whose *prefix* is known.

    *secret* has 1 to 64 bytes; *model* is the one that will answer. A reading that is bypassed has no key.
    """
    proof = blake2b(
        b"%bmodel %d:%b;%b %d:%b;" % (
            prefix,
            len(name := _bytes(model)), name,
            reading.tag, len(reading.material), reading.material,
        ),
        key=secret,
        digest_size=32,
        person=b"sidecar key",
    ).digest()  # fmt: skip
    return Key(address(proof), proof)


def partition_of(secret: bytes, *parts: bytes) -> bytes:
    """16 bytes that stand for *parts*, in this order and with these borders, and tell nobody what they are."""
    return blake2b(_joined(parts), key=secret, digest_size=16, person=b"sidecar share").digest()


def fleet_secret(namespace: str) -> bytes:
    """
    What keys the proofs of all processes of *namespace*, 32 bytes. It is no secret to whoever knows the namespace: a
    proof leaves its process only under a secret (``core/key/keyring``), and so stays the same when that is replaced.
    """
    return blake2b(_bytes(namespace), digest_size=32, person=b"sidecar fleet").digest()


def _field(tag: bytes, value: bytes) -> bytes:
    return b"%b %d:%b;" % (tag, len(value), value)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b;" % (len(part), part) for part in parts)


def _bytes(text: str) -> bytes:
    """A model or a path may hold bytes that are no UTF-8, taken over as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")
