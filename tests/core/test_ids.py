"""Ids name requests of one process, and what they were about is remembered for a while."""

from __future__ import annotations

import pytest

from sidecar.core.ids import REMEMBERED, Ids
from sidecar.core.model import Key

KEY = Key(b"a" * 16, b"p" * 32)


def test_given_once():
    """Every id is another one, and says only whose it is and which."""
    ids = Ids(b"0a1b2c3d")

    assert [b"0a1b2c3d-00000001", b"0a1b2c3d-00000002"] == [ids.give(), ids.give(KEY)]
    assert [None, KEY] == [ids.key("0a1b2c3d-00000001"), ids.key("0a1b2c3d-00000002")]


@pytest.mark.parametrize(
    "text", ["", "-", "0a1b2c3d", "0a1b2c3d-", "0a1b2c3d-x", "0a1b2c3d-00000000", "0a1b2c3d-00000002", "ff-00000001",
             "0a1b2c3d--0000fff", "0a1b2c3d-" + "f" * 99],
)  # fmt: skip
def test_unknown(text):
    """What was never given has no key."""
    ids = Ids(b"0a1b2c3d")
    ids.give(KEY)

    assert ids.key(text) is None


def test_forgotten():
    """The oldest are forgotten, one for each new one."""
    ids = Ids(b"i")
    first = [ids.give(KEY) for _ in range(2)]
    for _ in range(REMEMBERED - 1):
        ids.give()

    assert [None, KEY] == [ids.key(one.decode()) for one in first]
