"""
The fleet's secrets: what names entries in Redis, and what seals them.

The rule: a secret is only used to derive one subkey for each purpose, so that no use can weaken another. No text made
here shows any of it, not even an error.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import blake2b

from sidecar.core.model import Key

SECRET_BYTES = 32
LONGEST_ID = 32
LONGEST_FILE = 16 * 1024

_ID = re.compile(rb"[A-Za-z0-9._-]{1,%d}\Z" % LONGEST_ID)
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """
    One line of the secret file. *id* stands in clear beside what the secret seals. The subkeys have 32 bytes, *noting*
    64: *naming* makes names of keys, *encrypting* and *authenticating* seal entries, *noting* seals short texts.
    """

    id: str
    naming: bytes
    encrypting: bytes
    authenticating: bytes
    noting: bytes

    @classmethod
    def derive(cls, id_: str, secret: bytes) -> SecretKey:
        """The key of the line ``id_:secret``; *secret* has 32 bytes."""
        return cls(
            id=id_,
            naming=_subkey(secret, b"sidecar name", 32),
            encrypting=_subkey(secret, b"sidecar encrypt", 32),
            authenticating=_subkey(secret, b"sidecar mac", 32),
            noting=_subkey(secret, b"sidecar note", 64),
        )

    def __repr__(self) -> str:
        return f"<SecretKey {self.id}>"


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """One or two keys. The first names and seals what is written; what any of them sealed can be read."""

    keys: tuple[SecretKey, ...]
    _by_id: dict[str, SecretKey] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {key.id: key for key in self.keys})

    def __repr__(self) -> str:
        return f"<Keyring {' '.join(key.id for key in self.keys)}>"

    @property
    def first(self) -> SecretKey:
        """The key that writes."""
        return self.keys[0]

    def get(self, id_: str) -> SecretKey | None:
        """The key of that id."""
        return self._by_id.get(id_)


def parse(text: bytes) -> Keyring | str:
    """
    Read a secret file: one or two lines ``id:base64 of 32 bytes``, besides blank ones and those that begin with ``#``.

    If the file cannot be used, returns what is wrong, in words that quote nothing of the file.
    """
    if len(text) > LONGEST_FILE:
        return f"is larger than {LONGEST_FILE // 1024} KiB; a secret file has one or two lines id:base64"
    keys: list[SecretKey] = []
    for number, line in enumerate(text.removeprefix(_MARK).splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        key = _read(stripped)
        if isinstance(key, str):
            return f"line {number} {key}"
        if any(key.id == other.id for other in keys):
            return f"line {number} has the id of a line before it; a new secret needs a new id"
        if len(keys) == 2:
            return "has more than two secrets; the first writes, the second is the one being replaced"
        keys.append(key)
    return Keyring(tuple(keys)) if keys else "holds no secret; `sidecar keygen` prints a line for it"


def name(secret: SecretKey, key: Key) -> bytes:
    """
    The name of *key* outside this process: 32 characters of URL-safe Base64 (RFC 4648, 5). It is the same in every pod
    that has *secret*, and tells nothing to anybody else.
    """
    return urlsafe_b64encode(blake2b(key.proof, key=secret.naming, digest_size=24, person=b"sidecar name").digest())


def _read(line: bytes) -> SecretKey | str:
    id_, colon, encoded = line.partition(b":")
    if not colon:
        return "is not of the form id:base64"
    if not _ID.match(id_):
        return f"has an id that is not 1 to {LONGEST_ID} letters, digits and any of . _ -"
    try:
        secret = b64decode(encoded.strip(), validate=True)
    except ValueError:
        return "has no valid base64 behind the colon"
    if len(secret) != SECRET_BYTES:
        return f"holds {len(secret)} bytes behind the colon instead of {SECRET_BYTES}; `sidecar keygen` prints a line"
    return SecretKey.derive(id_.decode("ascii"), secret)


def _subkey(secret: bytes, purpose: bytes, size: int) -> bytes:
    return blake2b(key=secret, digest_size=size, person=purpose).digest()
