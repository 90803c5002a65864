"""The fleet's secrets: what names entries in Redis, and what seals them."""

import re
from base64 import b64encode

import pytest

from sidecar.core.key.keyring import Keyring, SecretKey, name, parse
from sidecar.core.model import Key

ONE = b64encode(bytes(range(32)))
TWO = b64encode(bytes(range(1, 33)))
KEY = Key(b"a" * 16, b"p" * 32)
SUBKEYS = ["b733ec1c43ef7a08", "da5aca9c46e89cf2", "456d081c1d6634e3", "1dc8e75b7fe37225"]
NAME = b"hsQN1vuVghFi_xB3c6XaqbE02sIDwrKX"


def test_one_line():
    """One line is a keyring of one secret."""
    keyring = parse(b"k1:" + ONE)

    assert Keyring((SecretKey.derive("k1", bytes(range(32))),)) == keyring
    assert "k1" == keyring.first.id


def test_two_lines():
    """The first writes; both are found by their ids, and no other."""
    keyring = parse(b"new:" + TWO + b"\nold:" + ONE + b"\n")

    assert ["new", "old"] == [key.id for key in keyring.keys]
    assert "new" == keyring.first.id
    assert keyring.keys == (keyring.get("new"), keyring.get("old"))
    assert keyring.get("New") is None


@pytest.mark.parametrize(
    "text",
    [
        b"# made by keygen\n\nk1:%b\n\n# the end" % ONE,
        b"k1:%b\r\n" % ONE,
        b"  k1: %b  " % ONE,
        b"\xef\xbb\xbfk1:%b" % ONE,
        b"#\xff\xfe not UTF-8\nk1:%b" % ONE,
    ],
    ids=["comments and blank lines", "CRLF", "white space", "byte order mark", "comment in another encoding"],
)
def test_tolerance(text):
    """What editors and people add around a line changes nothing."""

    assert parse(b"k1:" + ONE) == parse(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "holds no secret"),
        (b"\n# nothing\n", "holds no secret"),
        (b"a:%b\nb:%b\nc:%b" % (ONE, TWO, ONE), "has more than two secrets"),
        (b"a:%b\n#\na:%b" % (ONE, TWO), "line 3 has the id of a line before it"),
        (ONE, "line 1 is not of the form id:base64"),
        (b"\n:" + ONE, "line 2 has an id that is not"),
        (b"a b:" + ONE, "line 1 has an id that is not"),
        (b"\xc3\xa9:" + ONE, "line 1 has an id that is not"),
        (b"i" * 33 + b":" + ONE, "line 1 has an id that is not"),
        (ONE + b":k1", "line 1 has an id that is not"),
        (b"a:" + ONE[:-1], "line 1 has no valid base64"),
        (b"a:" + b"*" + ONE[1:], "line 1 has no valid base64"),
        (b"a:", "line 1 holds 0 bytes"),
        (b"a:" + b64encode(bytes(31)), "line 1 holds 31 bytes"),
        (b"a:" + b64encode(bytes(33)), "line 1 holds 33 bytes"),
        (b"a:%b\nb:%b x" % (ONE, TWO), "line 2 has no valid base64"),
        (b"#" * 17000, "is larger than 16 KiB"),
    ],
)
def test_refused(text, problem):
    """What is wrong is said by its line, and nothing of the file is quoted."""
    found = parse(text)

    assert isinstance(found, str)
    assert found.startswith(problem)
    assert not [secret for secret in (ONE, TWO) if secret[:8].decode() in found]


@pytest.mark.parametrize("id_", ["a", "i" * 32, "2026-11.eu_1", "-"])
def test_ids(id_):
    """An id is 1 to 32 letters, digits, points, underscores and hyphens."""

    assert id_ == parse(id_.encode() + b":" + ONE).first.id


def test_subkeys():
    """Each purpose has a subkey of its own, in each secret; none is the secret."""
    keys = [SecretKey.derive("k", secret) for secret in (bytes(32), bytes(range(32)))]
    subkeys = [
        subkey[:32]
        for key in keys
        for subkey in (key.naming, key.encrypting, key.authenticating, key.noting, key.noting[32:])
    ]

    assert 10 == len(set(subkeys))
    assert not {bytes(32), bytes(range(32))} & set(subkeys)
    assert [32, 32, 32, 64] == [
        len(part) for part in (keys[0].naming, keys[0].encrypting, keys[0].authenticating, keys[0].noting)
    ]


def test_subkeys_are_a_promise():
    """The subkeys of a secret never change: a fleet's cache would be lost, silently."""
    key = SecretKey.derive("k", bytes(range(32)))

    assert SUBKEYS == [part.hex()[:16] for part in (key.naming, key.encrypting, key.authenticating, key.noting)]
    assert NAME == name(key, KEY)


def test_name():
    """32 URL-safe characters, by the proof alone."""
    key = SecretKey.derive("k", bytes(32))

    assert re.fullmatch(rb"[A-Za-z0-9_-]{32}", name(key, KEY))
    assert name(key, KEY) == name(key, Key(b"b" * 16, KEY.proof))
    assert name(key, KEY) == name(SecretKey.derive("renamed", bytes(32)), KEY)
    assert name(key, KEY) != name(key, Key(KEY.address, b"q" * 32))
    assert name(key, KEY) != name(SecretKey.derive("k", bytes(range(32))), KEY)


def test_nothing_is_shown():
    """What is printed of a keyring is its ids."""
    keyring = parse(b"new:" + TWO + b"\nold:" + ONE)

    assert "<Keyring new old>" == repr(keyring) == f"{keyring}"
    assert "<SecretKey new>" == repr(keyring.first)
