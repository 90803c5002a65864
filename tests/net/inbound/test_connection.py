"""Requests that are recalled leave their connection as ordinary ones would."""

import asyncio

import pytest

from sidecar.net.base import Pending, Response
from tests.net.conftest import whole

POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture
async def peer(front):
    """A client whose request is familiar by now: the line answers it with ``tried`` from here on."""
    peer = await front.connect()
    await peer.ask(POST)
    front.line.requests.clear()
    front.line.recalls = lambda _, body: whole(b"recalled " + body)
    return peer


async def test_recalls(front, peer):
    """The answer is framed and dated as any other, and the line is asked nothing else."""
    reply = await peer.ask(POST)

    assert (200, b"recalled abc") == (reply.status, reply.body)
    assert {b"date": b"tue, 14 nov 2023 22:13:20 gmt", b"content-length": b"12"} == reply.fields
    assert ([("plan", b"abc")], []) == (front.line.tried, front.line.requests)


async def test_declined(front, peer):
    """What the line does not recall goes the ordinary way, from its head on."""
    front.line.recalls = lambda _, __: None
    for _ in range(2):
        assert b"/p" == (await peer.ask(POST)).body
    assert [b"abc"] * 2 == [request.body for request in front.line.requests]


async def test_bug_while_recalling(front, peer):
    """A bug there is reported, and the request is answered the ordinary way."""

    def bug(*_):
        raise KeyError("a bug")

    front.line.recalls = bug

    assert b"/p" == (await peer.ask(POST)).body
    assert [KeyError] == [type(error) for error in front.reported]
    assert 1 == len(front.line.requests)


async def test_recalled_answer_may_close(front, peer):
    """A recalled answer that asks for it is the last one, and says so."""
    front.line.recalls = lambda _, __: Response(200, b"content-length: 3\r\n", b"bye", close=True)
    reply = await peer.ask(POST)

    assert (b"bye", b"close") == (reply.body, reply.fields[b"connection"])
    assert b"" == await peer.ended()


async def test_mixed(front, peer):
    """Recalled requests, others, several in one read and parts of one take their turns on one connection."""
    for data, bodies in [
        (POST, [b"recalled abc"]),
        (GET, [b"/a"]),
        (POST, [b"recalled abc"]),
        (POST + GET + POST, [b"/p", b"/a", b"/p"]),
        (POST, [b"recalled abc"]),
        (b"\r\n" + POST, [b"/p"]),
        (POST, [b"recalled abc"]),
    ]:
        peer.send(data)

        assert bodies == [(await peer.reply()).body for _ in bodies]
    (connection,) = front.listener._open
    peer.send(POST[:30])
    await front.until(lambda: connection._parser.fed > 0)
    peer.send(POST[30:])
    assert b"/p" == (await peer.reply()).body
    peer.send(POST[:-1])
    await front.until(lambda: connection._intake.opened)
    assert b"/p" == (await peer.ask(POST[-1:])).body


async def test_waits_for_its_turn(front, peer):
    """What could be recalled is not, while an earlier request is in work."""
    release = asyncio.Event()

    async def wait(exchange):
        await release.wait()
        exchange.respond(whole(b"slow"))

    front.line.answers = lambda request: Pending(wait) if request.head.method == b"GET" else whole(b"ordinary")
    peer.send(GET)
    await front.until(lambda: bool(front.line.requests))
    (connection,) = front.listener._open
    peer.send(POST)
    await front.until(lambda: connection._rest == POST)
    release.set()

    assert [b"slow", b"ordinary"] == [(await peer.reply()).body for _ in range(2)]
    assert b"recalled abc" == (await peer.ask(POST)).body


async def test_recalled_is_not_idle(front, peer):
    """Each recalled request starts the time of silence anew."""
    for _ in range(3):
        front.pass_time(599)

        assert b"recalled abc" == (await peer.ask(POST)).body
    front.pass_time(601)
    assert b"" == await peer.ended()


@pytest.mark.parametrize("how", ["half-close", "vanish"])
async def test_leaves_after_recall(front, peer, how):
    """A client that sends no more gets the answer to what it sent before."""
    front.line.recalls = lambda _, __: whole(bytes(4 * 1024 * 1024))
    peer.send(POST)
    if how == "half-close":
        peer.writer.write_eof()

        assert 4 * 1024 * 1024 == len((await peer.reply()).body)
        assert b"" == await peer.ended()
    else:
        peer.vanish()
    await front.until(lambda: front.listener.connections == 0)
    assert [] == front.reported


async def test_nothing_is_recalled_while_draining(front, peer):
    """At the end the answer must say that it is the last: that is the ordinary way's."""
    peer.send(POST[:10])
    late = await front.connect()
    late.send(POST[:10])
    await front.until(lambda: front.listener.connections == 2 and all(c._parser.fed for c in front.listener._open))
    draining = asyncio.create_task(front.listener.drain(60))
    await asyncio.sleep(0)
    for client in (peer, late):
        reply = await client.ask(POST[10:])

        assert (b"/p", b"close") == (reply.body, reply.fields[b"connection"])
        assert b"" == await client.ended()
        await client.close()
    await draining
    assert [] == front.line.tried


async def test_recall_declines_while_draining(front, peer):
    """Also of a whole request that comes before an idle connection was closed."""
    front.listener._shared.draining = True
    reply = await peer.ask(POST)

    assert (b"/p", b"close") == (reply.body, reply.fields[b"connection"])
    assert [] == front.line.tried


async def test_slow_reader_of_recalled_answers(front, peer):
    """Who sends on and does not read fills one buffer here, and no more: its requests wait, unread."""
    answer = bytes(256 * 1024)
    front.line.recalls = lambda _, __: whole(answer)
    front.line.answers = lambda _: whole(answer)
    peer.writer.transport.pause_reading()
    (connection,) = front.listener._open
    sent = 0
    while not connection._wire.paused:
        peer.send(POST)
        sent += 1
        await asyncio.sleep(0.001)
    tried = len(front.line.tried)
    for _ in range(50):
        peer.send(POST * 1000)
        await asyncio.sleep(0)
    await front.until(lambda: not connection._flow.reading)

    assert connection._transport.get_write_buffer_size() <= 2 * len(answer)
    assert tried == len(front.line.tried)
    assert len(connection._rest) <= 512 * 1024
    peer.writer.transport.resume_reading()
    for _ in range(sent + 100):
        assert answer == (await peer.reply()).body
