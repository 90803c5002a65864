"""
The row about the envelope: microseconds per KB of sealing an answer for Redis and of opening it.

The rule: for information; compression and encryption are also shown apart, on what they really work on.
"""

from __future__ import annotations

import json
import os
import random
from functools import partial
from statistics import median
from timeit import Timer
from typing import TYPE_CHECKING, Any

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.core.key.fingerprint import address
from sidecar.core.key.keyring import Keyring, SecretKey, name
from sidecar.core.model import Entry, Form, Key, Usage
from sidecar.core.rules import MIB, SealRule
from sidecar.store.envelope import pack
from sidecar.store.seal import Seal
from tests.bench.lab import Lab, Pace, Row
from tests.bench.machine import SERVER_CORE

if TYPE_CHECKING:
    from collections.abc import Callable

_KIB = 1024
_SYLLABLES = ("an", "be", "cor", "di", "el", "fa", "gen", "hi", "in", "jo", "ka", "lor", "mi", "nu", "os", "per")


def rows(_: Lab, pace: Pace) -> list[Row]:
    """Chat answers of three sizes, encrypted and only authenticated."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return [row for size in (2, 32, 512) for row in _measure(size, 0.02 if pace.quick else 0.1)]
    finally:
        os.sched_setaffinity(0, before)


def _measure(kib: int, seconds: float) -> list[Row]:
    secret = SecretKey.derive("bench", bytes(32))
    proof = bytes(range(32))
    key = Key(address(proof), proof)
    named = name(secret, key)
    entry = Entry(
        200, ((b"content-type", b"application/json"),), _answer(kib * _KIB), Form.WHOLE, "openai", "bench",
        "gpt-4o-mini", 1.7e9, 3600.0, Usage(500, kib * 250), partition=bytes(16),
    )  # fmt: skip
    packed = pack(key, entry)
    compressor = zstandard.ZstdCompressor(level=1)
    cipher = AESGCM(bytes(32))
    small = compressor.compress(packed)
    parts = {
        "pack": partial(pack, key, entry),
        "compress": partial(compressor.compress, packed),
        "encrypt": partial(cipher.encrypt, bytes(12), small, b""),
    }
    measured = {part: _microseconds(work, seconds) / kib for part, work in parts.items()}
    shown = " + ".join(f"{part} {value:.2f}" for part, value in measured.items())
    measured["ratio"] = len(packed) / len(small)
    found = [Row("envelope", f"{kib} KB answer, parts, us per KB", shown, details=measured)]
    for encrypt in (True, False):
        seal = Seal(lambda: Keyring((secret,)), SealRule(encrypt=encrypt), random=os.urandom, limit=4 * MIB)
        sealed = seal.seal(named, key, entry)
        assert entry == seal.open(named, key, sealed)
        sealing = _microseconds(partial(seal.seal, named, key, entry), seconds) / kib
        opening = _microseconds(partial(seal.open, named, key, sealed), seconds) / kib
        how = "encrypted" if encrypt else "authenticated"
        found.append(
            Row(
                "envelope", f"{kib} KB answer, {how}, us per KB", f"seal {sealing:.2f}, open {opening:.2f}",
                details={"seal": sealing, "open": opening, "bytes": len(sealed)},
            )
        )  # fmt: skip
    return found


def _answer(size: int) -> bytes:
    """A chat completion of *size* bytes, of words that come again as words do."""
    draw = random.Random(7)
    words = ["".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(3000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    text = " ".join(draw.choices(words, weights, k=size // 3))
    document: dict[str, Any] = {
        "id": "chatcmpl-9f2c71d0a4b84c0f", "object": "chat.completion", "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 500, "completion_tokens": size // 4},
    }  # fmt: skip
    document["choices"][0]["message"]["content"] = text[: size - len(json.dumps(document))]
    return json.dumps(document).encode()


def _microseconds(work: Callable[[], object], seconds: float) -> float:
    timer = Timer(work)
    number = max(1, int(seconds / min(timer.repeat(3, 1))))
    return median(timer.repeat(7, number)) / number * 1e6
