"""What a reply may be: counted byte by byte, before anybody makes room for it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.redis_link.replies import Garbled, Meter
from tests.redis_link.garbled import GARBLED, MOST, replies


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* cut in places."""
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(at)]


@given(st.lists(replies(), max_size=4), st.lists(st.integers(0, 10_000), max_size=9))
def test_replies_are_counted(many: list[bytes], cuts: list[int]):
    """However they come, whole or in pieces: nothing of them is left over, as nothing is for hiredis."""
    meter, reader = Meter(MOST), hiredis.Reader(notEnoughData=Ellipsis)
    for piece in pieces(b"".join(many), cuts):
        meter.count(piece)
        reader.feed(piece)
    found: list[Any] = []
    while (reply := reader.gets()) is not Ellipsis:
        found.append(reply)

    assert len(many) == len(found)
    assert repr(Meter(MOST)) == repr(meter)
    assert b"" == meter._line
    assert 0 == meter._bulk


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"*2", b"$3", b":1", b"\r\n", b"-x", b"%1", b"*-1"])).map(b"".join)
)
def test_anything(data: bytes):
    """What the meter lets pass hiredis takes or refuses, and reserves little for."""
    meter, reader = Meter(MOST), hiredis.Reader()
    try:
        meter.count(data)
    except Garbled:
        return
    reader.feed(data)
    try:
        while reader.gets() is not False:
            pass
    except (hiredis.ProtocolError, hiredis.ReplyError):
        pass


@pytest.mark.parametrize("data", GARBLED.values(), ids=GARBLED)
def test_garbled(data: bytes):
    """At once, and also where it comes byte by byte; the text quotes nothing of it."""
    with pytest.raises(Garbled) as caught:
        Meter(MOST).count(data)
    meter = Meter(MOST)

    def drip() -> None:
        for at in range(len(data)):
            meter.count(data[at : at + 1])

    with pytest.raises(Garbled):
        drip()

    assert not any(char.isdigit() for char in str(caught.value))


def test_a_large_value():
    """As large as may be, in as many pieces as it takes."""
    size = MOST - 100
    meter = Meter(MOST)
    for _ in range(3):
        meter.count(b"*1\r\n$%d\r\n" % size)
        for _ in range(size // 1000):
            meter.count(bytes(1000))
        meter.count(bytes(size % 1000) + b"\r\n")

    assert "<Meter 0 bytes, 0 elements, 0 levels>" == repr(meter)
