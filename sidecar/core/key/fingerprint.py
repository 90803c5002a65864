"""
The key of a call: its proof and its address.

The rule: the material consists of versioned, tagged, length-prefixed fields, so two different calls never have the same
material, and the partition is an argument that cannot be left out. A change of the material, or of the canonical forms
in it, changes ``KEY_VERSION``, too; so a fleet never mixes keys of different versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b

from xxhash import xxh3_128_digest

from sidecar.core.model import Key, Pairs, Reading

KEY_VERSION = 2

_VERSION = b"sidecar key %d;" % KEY_VERSION


address: Callable[[bytes], bytes] = xxh3_128_digest
"""
16 bytes by which a key is found: XXH3-128 of its proof.

For inputs over 240 bytes, anybody can make XXH3 collide; over a keyed digest nobody can.
"""


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
    """The key of one call, in one step: ``prefix`` and ``seal``."""
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
    The part of the material before the body; it is the same for many calls.

    *query* is as it was written, without credentials; *headers* are the fields that count, by lower-case name.
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
    """16 bytes that stand for *parts*, in this order and with these borders, and do not reveal them."""
    return blake2b(_joined(parts), key=secret, digest_size=16, person=b"sidecar share").digest()


def key_of_id(id_: str) -> Key:
    """The key under which what is known of an operation stands that no look-up finds. Its *id_* is no secret here."""
    proof = blake2b(_bytes(id_), digest_size=32, person=b"sidecar id").digest()
    return Key(address(proof), proof)


def fleet_secret(namespace: str) -> bytes:
    """
    The 32 bytes that key the proofs of all processes of *namespace*. Whoever knows the namespace can compute them. That
    is safe, because a proof leaves its process only under a secret (``core/key/keyring``). So proofs stay the same when
    that secret is replaced.
    """
    return blake2b(_bytes(namespace), digest_size=32, person=b"sidecar fleet").digest()


def _field(tag: bytes, value: bytes) -> bytes:
    return b"%b %d:%b;" % (tag, len(value), value)


def _joined(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b;" % (len(part), part) for part in parts)


def _bytes(text: str) -> bytes:
    """A model or a path may hold bytes that are not UTF-8, represented as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")
