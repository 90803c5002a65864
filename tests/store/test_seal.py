"""The envelope in which an entry leaves this process."""

import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.key.fingerprint import address
from sidecar.core.key.keyring import Keyring, SecretKey, name
from sidecar.core.model import Entry, Form, Key, Position, Usage
from sidecar.core.rules import SealRule
from sidecar.store import seal as module
from sidecar.store.envelope import BILLED_SCHEMA, SCHEMA, EnvelopeFault, pack
from sidecar.store.seal import ALLOWANCE, LONGEST_NOTE, VERSION, Seal

GOLDEN = Path(__file__).parent / "golden"
KIB = 1024
MIB = 1024 * KIB

OLD = SecretKey.derive("old", b"o" * 32)
NEW = SecretKey.derive("new", b"n" * 32)
STRANGER = SecretKey.derive("old", b"s" * 32)

ENTRY = Entry(
    status=200,
    headers=((b"content-type", b"application/json"),),
    body=b'{"answer": "the patient is well", "more": "' + b"and well " * 40 + b'"}',
    form=Form.WHOLE,
    service="tenant-service",
    route="tenant-route",
    model="gpt-4o-mini",
    at=1.7e9,
    ttl=3600.0,
    usage=Usage(12, 34, 5, 6),
    region="tenant-region",
    seconds=1.25,
    tags=("tenant-tag",),
    partition=b"tenant-partition",
    position=Position(b"I" * 16, 7),
    vary=((b"origin", b"tenant-digest-16"), (b"referer", b"")),
    strict=True,
    age=3.5,
    target=b"tenant-target-16",
)
SMALL = Entry(200, (), b"small", Form.WHOLE, "s", "r", "m", 1.7e9, 60.0)


def key_of(number):
    proof = number.to_bytes(32, "big")
    return Key(address(proof), proof)


KEY = key_of(1)
NAME = name(OLD, KEY)


def sealer(*secrets, limit=MIB, random=os.urandom, **rule):
    return Seal(lambda: Keyring(secrets or (OLD,)), SealRule(**rule), random=random, limit=limit)


@pytest.fixture(params=[True, False], ids=["encrypted", "authenticated"])
def encrypt(request):
    return request.param


def authentic(payload, flags=0):
    """An envelope whose seal holds, around any payload."""
    before = module._outer(b"SCE", flags, OLD) + bytes(16)
    return before + payload + module._mac(OLD, module._bound(before, NAME), payload)


@given(st.binary(max_size=4000), st.booleans(), st.integers(0, 3000), st.binary(max_size=40))
def test_round_trip(body, encrypt, compress_above, called):
    """What was sealed is opened, whatever the rule, by whoever has the secret."""
    entry = Entry(200, (), body, Form.EVENTS, "s", "r", "m", 1.7e9, 60.0)
    sealed = sealer(encrypt=encrypt, compress_above=compress_above).seal(called, KEY, entry)
    other = sealer(encrypt=not encrypt)

    assert entry == other.open(called, KEY, sealed)
    assert (KEY, entry) == other.unseal(called, sealed)
    assert not other.faults


def test_salted(encrypt):
    """Two envelopes of one entry have nothing in common behind their heads."""
    seal = sealer(encrypt=encrypt)
    one, two = (seal.seal(NAME, KEY, ENTRY) for _ in range(2))

    assert one[:9] == two[:9] == b"SCE\x01" + bytes([2 * encrypt, 3]) + b"old"
    assert one[9:25] != two[9:25]
    assert one[25:] != two[25:]
    assert not encrypt or one[25:57] != two[25:57]


@pytest.mark.parametrize("compress_above", [0, MIB])
def test_nothing_is_visible(compress_above):
    """Encrypted, no part of body, names, tag, partition, proof or address is to be seen."""
    sealed = sealer(compress_above=compress_above).seal(NAME, KEY, ENTRY)
    parts = [ENTRY.body[:12], b"tenant", b"gpt", b"json", b"whole", KEY.proof[-12:], KEY.address, NAME[:8], b"I" * 8]

    assert [] == [part for part in parts if part in sealed]


def test_plain_is_visible():
    """The same look at an envelope that is only authenticated does find them."""
    sealed = sealer(encrypt=False, compress_above=MIB).seal(NAME, KEY, ENTRY)

    assert ENTRY.body in sealed
    assert b"tenant-tag" in sealed


def test_compression(encrypt):
    """Above the threshold, and where it makes the payload smaller, a payload is compressed."""
    packed = len(pack(KEY, ENTRY))
    noise = Entry(200, (), random.Random(1).randbytes(4000), Form.WHOLE, "s", "r", "m", 1.0, 1.0)
    above, below = (sealer(encrypt=encrypt, compress_above=size) for size in (packed - 1, packed))

    assert 1 == above.seal(NAME, KEY, ENTRY)[4] & 1
    assert 0 == below.seal(NAME, KEY, ENTRY)[4] & 1
    assert above.sealed_bytes < below.sealed_bytes
    assert 0 == above.seal(NAME, KEY, noise)[4] & 1


def test_totals(encrypt):
    """Bytes are counted before compression and as they are sent."""
    seal = sealer(encrypt=encrypt)
    sealed = [seal.seal(NAME, KEY, entry) for entry in (SMALL, ENTRY)]

    assert len(pack(KEY, SMALL)) + len(pack(KEY, ENTRY)) == seal.plain_bytes
    assert sum(map(len, sealed)) == seal.sealed_bytes


def test_corruptions():
    """10 000 envelopes that were damaged in storage or by somebody: none is opened, none raises."""
    draw = random.Random(20)
    seal = sealer()
    whole = [
        sealer(encrypt=encrypt, compress_above=above).seal(NAME, KEY, entry)
        for encrypt in (True, False)
        for above in (0, MIB)
        for entry in (SMALL, ENTRY)
    ]
    for data in whole:
        assert seal.unseal(NAME, data) is not None

    damaged = []
    while len(damaged) < 10_000:
        data = damage(draw, len(damaged) % 5, draw.choice(whole), draw.choice(whole))
        damaged += [data] * (data not in whole)
    opened = [data for data in damaged if seal.open(NAME, KEY, data) is not None]

    assert [] == opened
    assert 10_000 == seal.faults.total()
    assert {"format", "version", "secret", "forged"} == set(seal.faults)


def damage(draw, kind, data, other):
    """Bits turned, cut short, bytes put in, bytes left out, or the beginning of one before the end of another."""
    at = draw.randrange(len(data))
    if kind == 0:
        turned = bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            turned[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(turned)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + draw.randbytes(draw.randint(1, 20)) + data[at:]
    if kind == 3:
        return data[:at] + data[at + draw.randint(1, 20) :]
    return data[:at] + other[draw.choice((at, draw.randrange(len(other)))) :]


def test_forgeries():
    """1 000 envelopes of the right form that somebody without the secret could put there: none is opened."""
    draw = random.Random(21)
    other = key_of(2)
    seals = [sealer(encrypt=encrypt, compress_above=above) for encrypt in (True, False) for above in (0, MIB)]
    forgers = [
        lambda seal: seal.seal(name(OLD, other), other, ENTRY),
        lambda seal: seal.seal(name(OLD, other), KEY, ENTRY),
        lambda seal: seal.seal(NAME, KEY, ENTRY)[:-16] + draw.randbytes(16),
        lambda seal: seal.seal(NAME, KEY, ENTRY)[:-32] + draw.randbytes(32),
        lambda seal: as_other_kind(seal.seal(NAME, KEY, ENTRY)),
        lambda seal: seal.seal(NAME, KEY, ENTRY).replace(b"\3old", b"\3new", 1),
        lambda _: sealer(STRANGER).seal(NAME, KEY, ENTRY),
        lambda _: sealer(STRANGER, encrypt=False).seal(NAME, KEY, ENTRY),
        lambda _: sealer(NEW).seal(NAME, KEY, ENTRY).replace(b"\3new", b"\3old", 1),
        lambda _: authentic(pack(KEY, ENTRY))[:-32] + module._mac(STRANGER, b"", pack(KEY, ENTRY)),
    ]
    seal = sealer(OLD, NEW)
    opened = [seal.open(NAME, KEY, forge(seals[number % 4])) for number in range(100) for forge in forgers]

    assert [None] * 1000 == opened
    assert {"forged": 1000} == seal.faults


def as_other_kind(sealed):
    """An encrypted envelope that says it is only authenticated, or the other way round."""
    return sealed[:4] + bytes([sealed[4] ^ 2]) + sealed[5:]


def test_another_address(encrypt):
    """An envelope is worth nothing under another name, also where its key is asked for."""
    seal = sealer(encrypt=encrypt)
    sealed = seal.seal(NAME, KEY, ENTRY)

    assert seal.open(name(OLD, key_of(2)), KEY, sealed) is None
    assert seal.unseal(b"", sealed) is None
    assert {EnvelopeFault.FORGED: 2} == seal.faults


def test_another_key(encrypt):
    """An entry whose proof is not the key's is not the key's entry, whatever it lies under."""
    seal = sealer(encrypt=encrypt)

    assert seal.open(NAME, Key(KEY.address, bytes(32)), seal.seal(NAME, KEY, ENTRY)) is None
    assert {EnvelopeFault.KEY: 1} == seal.faults


def test_rotation(encrypt):
    """Add, roll, remove: what the old secret sealed is read as long as it is in the file."""
    keyring = Keyring((OLD,))
    seal = Seal(lambda: keyring, SealRule(encrypt=encrypt), random=os.urandom, limit=MIB)
    first = seal.seal(NAME, KEY, ENTRY)
    note = seal.seal_note(b"all")
    keyring = Keyring((NEW, OLD))
    second = seal.seal(NAME, KEY, SMALL)

    assert [b"old", b"new"] == [data[6:9] for data in (first, second)]
    assert [ENTRY, SMALL] == [seal.open(NAME, KEY, data) for data in (first, second)]
    assert b"all" == seal.open_note(note)
    assert note != seal.seal_note(b"all")
    assert (seal.seal_note(b"all"), note) == seal.seal_notes(b"all")

    keyring = Keyring((NEW,))

    assert [None, SMALL] == [seal.open(NAME, KEY, data) for data in (first, second)]
    assert seal.open_note(note) is None
    assert {"secret": 2} == seal.faults


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", EnvelopeFault.FORMAT),
        (b"SCE\1\2", EnvelopeFault.FORMAT),
        (b"SCE\1\2\3old" + bytes(15), EnvelopeFault.FORMAT),
        (b"SCE\1\2\xff" + bytes(100), EnvelopeFault.FORMAT),
        (b"SCE\1\4\3old" + bytes(100), EnvelopeFault.FORMAT),
        (b"SCE\1\x80\3old" + bytes(100), EnvelopeFault.FORMAT),
        (b"SCN\1\2\3old" + bytes(100), EnvelopeFault.FORMAT),
        (pickle.dumps(ENTRY.body), EnvelopeFault.FORMAT),
        (pack(KEY, ENTRY), EnvelopeFault.FORMAT),
        (b"SCE\2\2\3old" + bytes(100), EnvelopeFault.VERSION),
        (b"SCE\0\2\3old" + bytes(100), EnvelopeFault.VERSION),
        (b"SCE\xff\xff\xff", EnvelopeFault.VERSION),
        (b"SCE\1\2\0" + bytes(100), EnvelopeFault.UNKNOWN),
        (b"SCE\1\2\3Old" + bytes(100), EnvelopeFault.UNKNOWN),
        (b"SCE\1\2\3\xff\xfe\0" + bytes(100), EnvelopeFault.UNKNOWN),
        (b"SCE\1\2\3old" + bytes(16), EnvelopeFault.FORGED),
        (b"SCE\1\0\3old" + bytes(16), EnvelopeFault.FORGED),
        (b"SCE\1\0\3old" + bytes(16 + 31), EnvelopeFault.FORGED),
        (b"SCE\1\2\3old" + bytes(100), EnvelopeFault.FORGED),
        (b"SCE\1\2\3old" + bytes(MIB + ALLOWANCE), EnvelopeFault.SIZE),
        (authentic(b""), EnvelopeFault.PAYLOAD),
        (authentic(pickle.dumps(ENTRY.body)), EnvelopeFault.PAYLOAD),
        (authentic(b"\x81\x04\xc6\x40\0\0\0body"), EnvelopeFault.PAYLOAD),
        (authentic(msgpack.packb({0: BILLED_SCHEMA + 1})), EnvelopeFault.VERSION),
    ],
)
def test_faults(data, fault):
    """What is wrong with an envelope is counted by one of few reasons; it is nothing, and no exception."""
    seal = sealer()

    assert seal.open(NAME, KEY, data) is None
    assert seal.unseal(NAME, data) is None
    assert {fault: 2} == seal.faults


def lying(frame, size):
    """*frame*, of more than 64 KiB, with a head that says it holds *size* bytes (RFC 8878, 3.1.1.1)."""
    assert 0x80 == frame[4] & 0xC0  # its size has four bytes

    at = 5 if frame[4] & 0x20 else 6  # no window is told where there is one segment
    return frame[:at] + size.to_bytes(4, "little") + frame[at + 4 :]


BOMB = zstandard.ZstdCompressor().compress(bytes(64 * MIB))


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (BOMB, EnvelopeFault.SIZE),
        (lying(BOMB, 2**30), EnvelopeFault.SIZE),
        (lying(BOMB, 1000), EnvelopeFault.PAYLOAD),
        (lying(BOMB, MIB), EnvelopeFault.PAYLOAD),
        (zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MIB)), EnvelopeFault.PAYLOAD),
        (b"\x28\xb5\x2f\xfd\xe0" + (2**30).to_bytes(8, "little") + bytes(20), EnvelopeFault.SIZE),
        (b"\x28\xb5\x2f\xfd\xe0" + (2**63).to_bytes(8, "little") + bytes(20), EnvelopeFault.SIZE),
        (b"\x50\x2a\x4d\x18\4\0\0\0skip", EnvelopeFault.PAYLOAD),
        (zstandard.compress(pack(KEY, ENTRY))[:-1], EnvelopeFault.PAYLOAD),
        (zstandard.compress(pack(KEY, ENTRY)) + b"\0", EnvelopeFault.PAYLOAD),
        (zstandard.compress(pack(KEY, ENTRY)) * 2, EnvelopeFault.PAYLOAD),
        (pack(KEY, ENTRY), EnvelopeFault.PAYLOAD),
        (b"", EnvelopeFault.PAYLOAD),
    ],
    ids=[
        "bomb", "1 GB in the head", "bomb that says 1000 bytes", "bomb that says 1 MB", "bomb that says nothing",
        "1 GB and nothing", "beyond any size", "skippable", "cut short", "more behind it", "two frames",
        "not compressed", "empty",
    ],
)  # fmt: skip
def test_bombs(payload, fault):
    """Not even who has the secret makes us decompress more than an entry may have."""
    seal = sealer()
    data = authentic(payload, flags=1)
    tracemalloc.start()
    try:
        assert seal.open(NAME, KEY, data) is None

        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert {fault: 1} == seal.faults
    assert 3 * MIB > peak


def test_limit(encrypt):
    """An entry as large as allowed, with much beside it, is opened; a byte more is not, compressed or not."""
    draw = random.Random(3)
    headers = tuple((b"x-%d" % number, b"v" * 60) for number in range(250))
    most = 100 * KIB
    taken = sum(len(part) for pair in headers for part in pair)
    for body in (draw.randbytes(most + 1 - taken), b" " * (most + 1 - taken)):
        seal = sealer(encrypt=encrypt, limit=most)
        entries = [
            Entry(200, headers, text, Form.WHOLE, "s" * 63, "r" * 63, "m" * 4000, 1.0, 1.0, tags=("t" * 64,) * 32)
            for text in (body[1:], body)
        ]

        assert [entries[0], None] == [seal.open(NAME, KEY, seal.seal(NAME, KEY, entry)) for entry in entries]
        assert {"size": 1} == seal.faults


@pytest.mark.parametrize("kind", ["encrypted", "authenticated", "note"])
def test_golden(kind):
    """
    What is written is what it always was: another form needs another ``VERSION`` or ``SCHEMA``, and then new files.

    Compressed payloads are left out: another release of the library may well compress better.
    """
    seal = sealer(random=lambda size: b"a salt for tests"[:size], encrypt=kind == "encrypted", compress_above=MIB)
    written = seal.seal_note(b"service openai") if kind == "note" else seal.seal(NAME, KEY, ENTRY)

    assert (GOLDEN / f"{kind}-v{VERSION}-{SCHEMA}.hex").read_text().split() == [
        written[at : at + 48].hex() for at in range(0, len(written), 48)
    ]


def test_golden_compressed():
    """What was compressed by an older release of the library is read."""
    data = bytes.fromhex((GOLDEN / f"compressed-v{VERSION}-{SCHEMA}.hex").read_text())

    assert 3 == data[4]
    assert ENTRY == sealer().open(NAME, KEY, data)


@pytest.mark.parametrize("kind", ["encrypted", "authenticated", "compressed"])
def test_golden_of_before(kind):
    """What an older release has written is as good as not there, and is counted."""
    seal = sealer()
    data = bytes.fromhex((GOLDEN / f"{kind}-v{VERSION}-1.hex").read_text())

    assert seal.open(NAME, KEY, data) is None
    assert {"version": 1} == seal.faults


def test_threads():
    """One seal serves many threads, and counts what each of them did."""
    seal = sealer(compress_above=0)
    draw = random.Random(23)
    words = [draw.randbytes(5) for _ in range(500)]
    bodies = [b" ".join(draw.choices(words, k=5000)) for _ in range(40)]

    def there_and_back(number):
        key = key_of(number)
        entry = Entry(200, (), bodies[number], Form.WHOLE, "s", "r", str(number), 1.0, 1.0)
        sealed = seal.seal(NAME, key, entry)
        return seal.open(NAME, key, sealed) == entry and seal.open(NAME, KEY, b"") is None and len(sealed)

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(there_and_back, range(40)))

    assert all(sizes)
    assert sum(sizes) == seal.sealed_bytes
    assert {"format": 40} == seal.faults


@given(st.binary(max_size=LONGEST_NOTE), st.booleans())
def test_note(text, encrypt):
    """A note is opened again, the same text gives the same bytes, and those tell nothing of it."""
    sealed = sealer(encrypt=encrypt).seal_note(text)
    other = sealer(NEW, OLD, encrypt=not encrypt)

    assert sealed == sealer().seal_note(text)
    assert text == other.open_note(sealed)
    assert sealed[9:] != other.seal_note(text)[9:]
    assert len(text) < 4 or text not in sealed


def test_longest_note():
    """A longer text is refused where it is written, and what claims to be one where it is read."""
    seal = sealer()

    assert b"x" * LONGEST_NOTE == seal.open_note(seal.seal_note(b"x" * LONGEST_NOTE))
    with pytest.raises(ValueError, match="at most 4096 bytes"):
        seal.seal_note(b"x" * (LONGEST_NOTE + 1))
    assert seal.open_note(seal.seal_note(b"x") + bytes(MIB)) is None
    assert {"size": 1} == seal.faults


def test_damaged_notes():
    """Damaged and forged notes are nothing, and an entry is no note."""
    draw = random.Random(22)
    seal = sealer()
    whole = [seal.seal_note(text) for text in (b"", b"all", b"tag team:a", b"x" * 300)]
    found = []
    for number in range(2000):
        damaged = damage(draw, number % 5, draw.choice(whole), draw.choice(whole))
        found += [damaged] * (damaged not in whole and seal.open_note(damaged) is not None)

    assert [] == found
    assert {"format", "version", "secret", "forged"} == set(seal.faults)
    assert seal.open_note(sealer(STRANGER).seal_note(b"all")) is None
    assert seal.open_note(seal.seal(NAME, KEY, ENTRY)) is None


LAZY = """
import os, sys
from sidecar.core.key.keyring import Keyring, SecretKey
from sidecar.core.model import Entry, Form, Key
from sidecar.core.rules import SealRule
from sidecar.store.seal import Seal
ring = Keyring((SecretKey.derive("k", bytes(32)),))
key = Key(bytes(16), bytes(32))
for encrypt in (False, True):
    seal = Seal(lambda: ring, SealRule(encrypt=encrypt), random=os.urandom, limit=1000)
    print(any(name.startswith("cryptography") for name in sys.modules), end=" ")
    assert seal.open(b"", key, seal.seal(b"", key, Entry(200, (), b"", Form.WHOLE, "s", "r", "m", 1.0, 1.0)))
    print(any(name.startswith("cryptography") for name in sys.modules), end=" ")
"""


def test_only_who_encrypts_pays():
    """The library of the ciphers is loaded by a seal that encrypts, when it is made, and by no other."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)

    assert "False False True True" == done.stdout.strip()


def test_repr():
    """The state is shown, and nothing of what was sealed."""
    seal = sealer()
    seal.open(NAME, KEY, seal.seal(NAME, KEY, ENTRY)[:-1])

    assert f"<Seal encrypting, {seal.plain_bytes} bytes as {seal.sealed_bytes}, 1 not opened>" == repr(seal)
    assert "<Seal authenticating, 0 bytes as 0, 0 not opened>" == repr(sealer(encrypt=False))
    assert b64encode(b"o" * 32).decode() not in repr(seal)
