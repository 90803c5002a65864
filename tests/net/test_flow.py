"""Taking turns: a client that sends fast takes none of the others'."""

import asyncio

import pytest

from sidecar.net.flow import BREATH, FlowControl
from tests.net.conftest import MIB

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


class Source:
    """A transport's reading side; *said* is what it was told, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.said.append("pause")

    def resume_reading(self) -> None:
        self.said.append("resume")


async def turn():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_breathes():
    """After so many bytes reading stops for one turn, and the count begins anew."""
    source = Source()
    flow = FlowControl(source)
    flow.took(BREATH)

    assert ([], True) == (source.said, flow.reading)
    flow.took(1)
    assert (["pause"], False) == (source.said, flow.reading)
    await turn()
    assert (["pause", "resume"], True) == (source.said, flow.reading)
    flow.took(BREATH)
    assert 2 == len(source.said)


async def test_held_while_breathing():
    """Reading goes on when nothing speaks against it any more, whichever ends last."""
    source = Source()
    flow = FlowControl(source)
    flow.took(BREATH + 1)
    flow.hold(True)
    await turn()

    assert (["pause"], "<FlowControl held>") == (source.said, repr(flow))
    flow.took(BREATH + 1)
    assert "<FlowControl held>" == repr(flow)
    flow.hold(False)
    assert ["pause", "resume"] == source.said
    flow.took(1)
    flow.hold(True)
    flow.hold(False)
    assert ["pause", "resume", "pause"] == source.said
    await turn()
    assert ["pause", "resume", "pause", "resume"] == source.said


async def test_closing():
    """A transport that closes is told nothing any more."""
    source = Source()
    flow = FlowControl(source)
    flow.took(BREATH + 1)
    source.closing = True
    await turn()
    flow.hold(True)
    flow.took(BREATH + 1)

    assert ["pause"] == source.said


@pytest.mark.parametrize("size", [8 * MIB, 32 * MIB])
async def test_large_body_takes_turns(front, size):
    """While a large body arrives as fast as it can, the others are heard after each breath of it."""
    large, small = await front.connect(), await front.connect()
    await small.ask(GET)
    answered, most, since = 0, 0, 0
    connections = tuple(front.listener._open)

    def count(connection):
        received = connection.data_received

        def data_received(data):
            nonlocal most, since
            since += len(data)
            most = max(most, since)
            received(data)

        connection.data_received = data_received

    del count, connections, answered, most, since
    large.send(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
    large.send(bytes(size))
    turns = 0
    while len(front.line.requests) < 2 or front.line.requests[-1].head.method != b"POST":
        await small.ask(GET)
        turns += 1
    assert turns > 0
