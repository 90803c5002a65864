"""A new line for the secret file."""

import re

from sidecar.cli import keygen
from sidecar.core.key.keyring import SecretKey, parse


def test_line():
    """The line is one that the secret file may hold, with the secret and an id that were drawn."""
    draws = iter([b"\xde\xad\xbe\xef", bytes(range(32))])

    assert "k-deadbeef:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=" == keygen.line(lambda size: next(draws)[:size])


def test_drawn_anew():
    """Each line has an id and a secret of its own."""
    one, two = keygen.line(), keygen.line()
    keyring = parse(f"{one}\n{two}\n".encode())

    assert re.fullmatch(r"k-[0-9a-f]{8}:[A-Za-z0-9+/]{43}=", one)
    assert [SecretKey, SecretKey] == [type(key) for key in keyring.keys]
    assert keyring.keys[0].naming != keyring.keys[1].naming
