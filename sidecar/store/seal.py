"""
The envelope in which an entry leaves this process. It is sealed, so that somebody with access to Redis can neither read
nor write an answer.

The rule: the content of an envelope is not used, not even decompressed, before its seal is verified. A bad envelope
counts as missing, and its reason is counted. On the wire:

    "SCE"  version  flags  length of id  id  salt (16)  payload

*Salt* is random, so every envelope has its own keys. *Payload* is that of ``envelope.pack``, possibly compressed (flag
1: one Zstandard frame), then either encrypted by AES-256-GCM (flag 2) or followed by a keyed BLAKE2b-256. Both also
cover everything before the payload, and the name under which the envelope is stored. A note is the same without salt
and payload: its text is sealed by AES-SIV (RFC 5297), which needs no randomness.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from sidecar.core.key.keyring import Keyring, SecretKey
from sidecar.core.model import Entry, Key
from sidecar.core.rules import KIB, SealRule
from sidecar.store.envelope import EnvelopeFault, pack, unpack

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV

VERSION = 1

LONGEST_NOTE = 4 * KIB

ALLOWANCE = 64 * KIB
"""How many bytes an envelope may have in addition to the entry's body and headers."""

_COMPRESSED = 1
_ENCRYPTED = 2
_ENTRY = b"SCE"
_NOTE = b"SCN"
_PREFIX = 6
_SALT = 16
_MAC = 32
_LEVEL = 1  # on chat answers within 2 % of the default level's size, in two thirds of its time


class _Outer(NamedTuple):
    """The part before the payload or the text, and where that begins."""

    flags: int
    id: str
    end: int


class _Expander(threading.local):
    """
    A decompressor for each thread: threads cannot share one, and a new one for each answer costs more than small
    answers.
    """

    def __init__(self) -> None:
        self.decompress = zstandard.ZstdDecompressor().decompress


class Seal:
    """
    Seals envelopes as *rule* says, encrypted or not, and opens both kinds.

    *keyring* is asked anew each time. *random* gives as many random bytes as it is asked for; *limit* is the largest
    ``Entry.size`` that is opened. All methods may run in any thread; on entries of megabytes they take milliseconds.

    Counters since the start: *faults*, what was not opened, by ``EnvelopeFault``; *plain_bytes* and *sealed_bytes*, the
    entries sealed, before compression and as envelopes.
    """

    def __init__(
        self, keyring: Callable[[], Keyring], rule: SealRule, *, random: Callable[[int], bytes], limit: int
    ) -> None:
        self._keyring = keyring
        self.rule = rule
        self._random = random
        self._limit = limit
        self._expander = _Expander()
        self._lock = threading.Lock()
        self.faults: Counter[str] = Counter()
        self.plain_bytes = 0
        self.sealed_bytes = 0
        if rule.encrypt:
            _cipher(bytes(_SALT), bytes(32))  # loads the library now, and not within the deadline of a call

    def __repr__(self) -> str:
        how = "encrypting" if self.rule.encrypt else "authenticating"
        return f"<Seal {how}, {self.plain_bytes} bytes as {self.sealed_bytes}, {self.faults.total()} not opened>"

    def forget(self) -> None:
        """Let go of the buffers of decompressors: each holds part of what it has read last."""
        self._expander = _Expander()

    def seal(self, name: bytes, key: Key, entry: Entry) -> bytes:
        """The envelope of *entry*, to be stored under *name*, by the keyring's first secret."""
        packed = pack(key, entry)
        payload, flags = packed, 0
        if len(packed) > self.rule.compress_above:
            # A new compressor for each: its tables take up to a megabyte, which a process rarely needs.
            smaller = zstandard.ZstdCompressor(level=_LEVEL).compress(packed)
            if len(smaller) < len(packed):
                payload, flags = smaller, _COMPRESSED
        secret = self._keyring().first
        salt = self._random(_SALT)
        if self.rule.encrypt:
            before = _outer(_ENTRY, flags | _ENCRYPTED, secret) + salt
            cipher, nonce = _cipher(salt, secret.encrypting)
            sealed = before + cipher.encrypt(nonce, payload, _bound(before, name))
        else:
            before = _outer(_ENTRY, flags, secret) + salt
            sealed = b"".join((before, payload, _mac(secret, _bound(before, name), payload)))
        with self._lock:
            self.plain_bytes += len(packed)
            self.sealed_bytes += len(sealed)
        return sealed

    def open(self, name: bytes, key: Key, data: bytes) -> Entry | None:
        """The entry of *key* in the envelope *data*, which was stored under *name*."""
        found = self._open(name, data)
        if not isinstance(found, EnvelopeFault) and found[0].proof != key.proof:
            found = EnvelopeFault.KEY
        if isinstance(found, EnvelopeFault):
            self._count(found)
            return None
        return found[1]

    def unseal(self, name: bytes, data: bytes) -> tuple[Key, Entry] | None:
        """The entry in the envelope *data*, which was stored under *name*, and its key."""
        found = self._open(name, data)
        if isinstance(found, EnvelopeFault):
            self._count(found)
            return None
        return found

    def seal_note(self, text: bytes) -> bytes:
        """
        Seal a short text by the keyring's first secret: always encrypted, and the same text gives the same bytes.

        Raises ValueError above ``LONGEST_NOTE``.
        """
        return _sealed_note(self._keyring().first, text)

    def seal_notes(self, text: bytes) -> tuple[bytes, ...]:
        """The notes of *text* by each secret, that of ``seal_note`` first."""
        return tuple(_sealed_note(secret, text) for secret in self._keyring().keys)

    def open_note(self, data: bytes) -> bytes | None:
        """The text of a note."""
        found = self._open_note(data)
        if isinstance(found, EnvelopeFault):
            self._count(found)
            return None
        return found

    def _open(self, name: bytes, data: bytes) -> tuple[Key, Entry] | EnvelopeFault:
        most = self._limit + ALLOWANCE
        if len(data) > most:
            return EnvelopeFault.SIZE
        outer = _parse(_ENTRY, data)
        if isinstance(outer, EnvelopeFault):
            return outer
        begin = outer.end + _SALT
        if len(data) < begin:
            return EnvelopeFault.FORMAT
        secret = self._keyring().get(outer.id)
        if secret is None:
            return EnvelopeFault.UNKNOWN
        before, sealed = data[:begin], memoryview(data)[begin:]
        payload = (_decrypt if outer.flags & _ENCRYPTED else _verify)(secret, before, name, sealed)
        if payload is None:
            return EnvelopeFault.FORGED
        packed = self._expand(payload, most) if outer.flags & _COMPRESSED else payload
        if isinstance(packed, EnvelopeFault):
            return packed
        found = unpack(packed)
        # an entry is smaller than its packed form, so its size needs a look only where that is above the limit
        if len(packed) > self._limit and not isinstance(found, EnvelopeFault) and found[1].size > self._limit:
            return EnvelopeFault.SIZE
        return found

    def _expand(self, payload: bytes | memoryview, most: int) -> bytes | EnvelopeFault:
        """
        Decompress one frame of at most *most* bytes.

        The library allocates what a frame's head says, whatever limit it is given, so the head is read first. Our heads
        always give the size; one without it is an error to the library.
        """
        try:
            if zstandard.frame_content_size(payload) > most:
                return EnvelopeFault.SIZE
            return self._expander.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError:
            return EnvelopeFault.PAYLOAD

    def _open_note(self, data: bytes) -> bytes | EnvelopeFault:
        if len(data) > LONGEST_NOTE + ALLOWANCE:
            return EnvelopeFault.SIZE
        outer = _parse(_NOTE, data)
        if isinstance(outer, EnvelopeFault):
            return outer
        secret = self._keyring().get(outer.id)
        if secret is None:
            return EnvelopeFault.UNKNOWN
        text = _read_note(secret, data[: outer.end], data[outer.end :])
        return EnvelopeFault.FORGED if text is None else text

    def _count(self, fault: EnvelopeFault) -> None:
        with self._lock:
            self.faults[fault] += 1


def _outer(magic: bytes, flags: int, secret: SecretKey) -> bytes:
    return b"%b%c%c%c%b" % (magic, VERSION, flags, len(secret.id), secret.id.encode("ascii"))


def _parse(magic: bytes, data: bytes) -> _Outer | EnvelopeFault:
    if len(data) < _PREFIX or not data.startswith(magic):
        return EnvelopeFault.FORMAT
    version, flags, length = data[3:_PREFIX]
    if version != VERSION:
        return EnvelopeFault.VERSION
    end = _PREFIX + length
    if flags & ~(_COMPRESSED | _ENCRYPTED) or len(data) < end:
        return EnvelopeFault.FORMAT
    return _Outer(flags, data[_PREFIX:end].decode("latin-1"), end)


def _bound(before: bytes, name: bytes) -> bytes:
    """Everything besides the payload that a seal covers, in a form that can be read in only one way."""
    return b"%b%d:%b;" % (before, len(name), name)


@cache
def _ciphers() -> tuple[type[AESGCM], type[AESSIV], type[Exception]]:
    """The ciphers, and the exception for a seal that does not hold: looked up once, not for each envelope."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415  8 MiB, only who encrypts pays
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESSIV  # noqa: PLC0415  as above

    return AESGCM, AESSIV, InvalidTag


def _cipher(salt: bytes, key: bytes) -> tuple[AESGCM, bytes]:
    """The cipher of one envelope and its nonce. A key is used only once, but a nonce from the salt costs nothing."""
    derived = blake2b(salt, key=key, digest_size=44, person=b"sidecar entry").digest()
    gcm, _, _ = _ciphers()
    return gcm(derived[:32]), derived[32:]


def _decrypt(secret: SecretKey, before: bytes, name: bytes, sealed: memoryview) -> bytes | None:
    _, _, broken = _ciphers()
    cipher, nonce = _cipher(before[-_SALT:], secret.encrypting)
    try:
        return cipher.decrypt(nonce, sealed, _bound(before, name))
    except broken:
        return None


def _mac(secret: SecretKey, bound: bytes, payload: bytes | memoryview) -> bytes:
    mac = blake2b(bound, key=secret.authenticating, digest_size=_MAC, person=b"sidecar entry")
    mac.update(payload)
    return mac.digest()


def _verify(secret: SecretKey, before: bytes, name: bytes, sealed: memoryview) -> memoryview | None:
    if len(sealed) < _MAC:
        return None
    payload, mac = sealed[:-_MAC], sealed[-_MAC:]
    return payload if compare_digest(_mac(secret, _bound(before, name), payload), mac) else None


def _sealed_note(secret: SecretKey, text: bytes) -> bytes:
    if len(text) > LONGEST_NOTE:
        raise ValueError(f"a note has at most {LONGEST_NOTE} bytes")
    before = _outer(_NOTE, _ENCRYPTED, secret)
    return before + _write_note(secret, before, text)


def _write_note(secret: SecretKey, before: bytes, text: bytes) -> bytes:
    _, siv, _ = _ciphers()
    return siv(secret.noting).encrypt(text, [before])


def _read_note(secret: SecretKey, before: bytes, sealed: bytes) -> bytes | None:
    _, siv, broken = _ciphers()
    try:
        return siv(secret.noting).decrypt(sealed, [before])
    except broken:
        return None
