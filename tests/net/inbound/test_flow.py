"""Taking turns: a client that sends fast takes none of the others'."""

import asyncio

from sidecar.net.inbound.connection import CallerConnection
from sidecar.net.inbound.flow import BREATH, FlowControl
from tests.net.conftest import MIB

LARGEST_READ = 256 * 1024
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


async def test_large_body_takes_turns(front, monkeypatch):
    """While a large body arrives as fast as it can, the others are heard after each breath of it."""
    read, sizes = CallerConnection.data_received, [0]

    def data_received(connection, data):
        sizes[-1] += len(data)
        read(connection, data)

    monkeypatch.setattr(CallerConnection, "data_received", data_received)
    loop = asyncio.get_running_loop()
    ticking = True

    def tick():
        sizes.append(0)
        if ticking:
            loop.call_soon(tick)

    large, small = await front.connect(), await front.connect()
    large.send(b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (8 * MIB))
    large.send(bytes(8 * MIB))
    tick()
    uploaded, answered = asyncio.ensure_future(large.reply()), 0
    async with asyncio.timeout(10):
        while not uploaded.done():
            await small.ask(GET)
            answered += 1
    ticking = False

    assert b"/p" == uploaded.result().body
    assert max(sizes) <= BREATH + LARGEST_READ
    assert answered >= 4
