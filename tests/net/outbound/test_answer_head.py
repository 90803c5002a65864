"""What is an answer of an AI service, what is none, and that neither its parts nor what follows it change that."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Cause, UpstreamFailed
from sidecar.net.outbound.answer_head import HEAD_LIMIT, MOST_FIELDS, Unreadable, check_begun, read_answer_head
from tests.net.outbound.clients import client, fault, read_request, serve, story

START = b"HTTP/1.1 200 OK\r\n"
SIZED = b"Content-Length: 2\r\n\r\nok"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"

GOOD = {
    "sized": (START + SIZED, ()),
    "no reason": (b"HTTP/1.1 200 \r\n" + SIZED, ()),
    "no reason and no blank": (b"HTTP/1.1 200\r\n" + SIZED, ()),
    "a reason of any bytes": (b"HTTP/1.1 200 It's\t\xe4ll  right \r\n" + SIZED, ()),
    "a status of its own": (b"HTTP/1.1 299 OK\r\n" + SIZED, ()),
    "blanks around a value": (START + b"a: \t b c \t\r\n" + SIZED, ((b"a", b"b c"),)),
    "no blank before a value": (START + b"a:b\r\n" + SIZED, ((b"a", b"b"),)),
    "an empty value": (START + b"a:\r\nb: \r\n" + SIZED, ((b"a", b""), (b"b", b""))),
    "a colon in a value": (START + b"a: b: c\r\n" + SIZED, ((b"a", b"b: c"),)),
    "a value of any bytes": (START + b"a: \x80\xff\tb\r\n" + SIZED, ((b"a", b"\x80\xff\tb"),)),
    "a name of any token": (START + b"!#$%&'*+.^_`|~0aZ-: b\r\n" + SIZED, ((b"!#$%&'*+.^_`|~0aZ-", b"b"),)),
    "a field twice": (START + b"Server: a\r\nserver: b\r\n" + SIZED, ((b"Server", b"a"), (b"server", b"b"))),
    "a type twice": (START + b"Content-Type: a/b\r\nContent-Type: a/b\r\n" + SIZED, ((b"Content-Type", b"a/b"),) * 2),
    "a name like one that frames": (START + b"Content_Length: 9\r\n" + SIZED, ((b"Content_Length", b"9"),)),
    "an upgrade that is offered": (START + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + SIZED,
                                   ((b"Upgrade", b"h2c"), (b"Connection", b"Upgrade"))),
    "names in capitals": (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 02\r\n\r\nok", ()),
    "chunks": (CHUNKED + b"1\r\no\r\n1\r\nk\r\n" + LAST, ()),
    "chunks with zeros": (CHUNKED + b"0002\r\nok\r\n000\r\n\r\n", ()),
    "chunks with extensions": (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n', ()),
    "chunks with trailers": (CHUNKED + b"2\r\nok\r\n0\r\na: b\r\nc:\r\n\r\n", ()),
    "a coding in capitals": (START + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n" + LAST, ()),
    "answers before": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + START + SIZED, ()),
    "as many fields as may be": (START + b"a:b\r\n" * (MOST_FIELDS - 1) + SIZED, ((b"a", b"b"),) * (MOST_FIELDS - 1)),
}  # fmt: skip

BAD = {
    "rtsp": b"RTSP/1.1 200 OK\r\n" + SIZED,
    "ice": b"ICE/1.0 200 OK\r\n" + SIZED,
    "icy": b"ICY 200 OK\r\n" + SIZED,
    "http in lower case": b"http/1.1 200 OK\r\n" + SIZED,
    "version 0.9": b"HTTP/0.9 200 OK\r\n" + SIZED,
    "version 1.2": b"HTTP/1.2 200 OK\r\n" + SIZED,
    "version 1": b"HTTP/1 200 OK\r\n" + SIZED,
    "version 1.10": b"HTTP/1.10 200 OK\r\n" + SIZED,
    "version 2.0": b"HTTP/2.0 200 OK\r\n" + SIZED,
    "no status line": b"ok\r\n\r\n",
    "an empty line before": b"\r\n" + START + SIZED,
    "empty lines before": b"\r\n\r\n" + START + SIZED,
    "a blank before": b" " + START + SIZED,
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n" + SIZED,
    "a tab before the status": b"HTTP/1.1\t200 OK\r\n" + SIZED,
    "no status": b"HTTP/1.1 \r\n" + SIZED,
    "a status of two digits": b"HTTP/1.1 20 OK\r\n" + SIZED,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n" + SIZED,
    "a signed status": b"HTTP/1.1 +20 OK\r\n" + SIZED,
    "a status below 100": b"HTTP/1.1 099 OK\r\n" + SIZED,
    "a status with its reason": b"HTTP/1.1 200OK\r\n" + SIZED,
    "a control in the reason": b"HTTP/1.1 200 O\x01K\r\n" + SIZED,
    "a nul in the reason": b"HTTP/1.1 200 O\0K\r\n" + SIZED,
    "a switch of protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + START + SIZED,
    "lf only": b"HTTP/1.1 200 OK\nX-Echo: a\nContent-Length: 2\n\nok",
    "lf after the status line": b"HTTP/1.1 200 OK\n" + SIZED,
    "lf after a field": START + b"X-Echo: a\nSet-Cookie: b=c\r\n" + SIZED,
    "lf after the head": START + b"Content-Length: 2\r\n\nok",
    "lf in an answer before": b"HTTP/1.1 103 Early\nLink: a\r\n\r\n" + START + SIZED,
    "cr after a field": START + b"X-Echo: a\rSet-Cookie: b=c\r\n" + SIZED,
    "cr only": b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok",
    "cr twice": START + b"a: b\r\r\n" + SIZED,
    "a fold": START + b"a: b\r\n c\r\n" + SIZED,
    "a fold by a tab": START + b"a: b\r\n\tSet-Cookie: c\r\n" + SIZED,
    "a fold first": START + b" a: b\r\n" + SIZED,
    "a folded length": START + b"Content-Length:\r\n 2\r\n\r\nok",
    "a blank before the colon": START + b"a : b\r\n" + SIZED,
    "a tab before the colon": START + b"Content-Length\t: 2\r\n\r\nok",
    "a blank in a name": START + b"Content Length: 9\r\n" + SIZED,
    "no name": START + b": b\r\n" + SIZED,
    "no colon": START + b"nonsense\r\n" + SIZED,
    "a bracket in a name": START + b"a(b): c\r\n" + SIZED,
    "a quote in a name": START + b'"a": c\r\n' + SIZED,
    "a name of other bytes": START + b"\xe4: b\r\n" + SIZED,
    "a control in a name": START + b"a\x01: b\r\n" + SIZED,
    "a nul in a value": START + b"a: b\0c\r\n" + SIZED,
    "a control in a value": START + b"a: b\x01c\r\n" + SIZED,
    "an escape in a value": START + b"a: \x1b[0m\r\n" + SIZED,
    "a delete in a value": START + b"a: b\x7f\r\n" + SIZED,
    "a vertical tab in a value": START + b"Content-Length: 2\x0b\r\n\r\nok",
    "two lengths": START + b"Content-Length: 3\r\n" + SIZED,
    "the same length twice": START + b"Content-Length: 2\r\n" + SIZED,
    "a list of lengths": START + b"Content-Length: 2, 2\r\n\r\nok",
    "an empty length": START + b"Content-Length:\r\n\r\nok",
    "a signed length": START + b"Content-Length: +2\r\n\r\nok",
    "a length below zero": START + b"Content-Length: -2\r\n\r\nok",
    "a length in hex": START + b"Content-Length: 0x2\r\n\r\nok",
    "a length with an underscore": START + b"Content-Length: 0_2\r\n\r\nok",
    "a length of other digits": START + b"Content-Length: \xb2\r\n\r\nok",
    "an endless length": START + b"Content-Length: 9999999999999999999\r\n\r\nok",
    "a length and chunks": CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n2\r\nok\r\n" + LAST,
    "chunks and a length": START + b"Content-Length: 2\r\n" + CHUNKED[len(START) :] + b"2\r\nok\r\n" + LAST,
    "a foreign coding": START + b"Transfer-Encoding: gzip\r\n\r\nok",
    "two codings": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n" + LAST,
    "two codings in two fields": START + b"Transfer-Encoding: gzip\r\n" + CHUNKED[len(START) :] + LAST,
    "chunked twice": START + b"Transfer-Encoding: chunked\r\n" + CHUNKED[len(START) :] + LAST,
    "identity": START + b"Transfer-Encoding: identity\r\n\r\nok",
    "an empty coding": START + b"Transfer-Encoding:\r\n\r\nok",
    "a coding in quotes": START + b'Transfer-Encoding: "chunked"\r\n\r\n2\r\nok\r\n' + LAST,
    "a coding with parameters": START + b"Transfer-Encoding: chunked;q=1\r\n\r\n2\r\nok\r\n" + LAST,
    "a coding in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n" + LAST,
    "a blank behind a chunk's size": CHUNKED + b"2 \r\nok\r\n" + LAST,
    "a tab behind a chunk's size": CHUNKED + b"2\t\r\nok\r\n" + LAST,
    "a blank before a chunk's size": CHUNKED + b" 2\r\nok\r\n" + LAST,
    "a blank before an extension": CHUNKED + b"2 ;a=b\r\nok\r\n" + LAST,
    "a blank behind the last size": CHUNKED + b"2\r\nok\r\n0 \r\n\r\n",
    "a chunk's size in 0x": CHUNKED + b"0x2\r\nok\r\n" + LAST,
    "a signed chunk's size": CHUNKED + b"+2\r\nok\r\n" + LAST,
    "a chunk's size too large": CHUNKED + b"fffffffffffffffff2\r\nok\r\n" + LAST,
    "no chunk's size": CHUNKED + b";a\r\nok\r\n" + LAST,
    "lf behind a chunk's size": CHUNKED + b"2\nok\r\n" + LAST,
    "cr behind a chunk's size": CHUNKED + b"2\rok\r\n" + LAST,
    "lf behind an extension": CHUNKED + b"2;a\nok\r\n" + LAST,
    "a nul in an extension": CHUNKED + b"2;a=\0\r\nok\r\n" + LAST,
    "lf behind a chunk": CHUNKED + b"2\r\nok\n" + LAST,
    "nothing behind a chunk": CHUNKED + b"2\r\nok" + LAST,
    "an empty line between chunks": CHUNKED + b"2\r\nok\r\n\r\n" + LAST,
    "a chunk that is longer": CHUNKED + b"2\r\nok!\r\n" + LAST,
    "lf behind the last chunk": CHUNKED + b"2\r\nok\r\n0\n\n",
    "lf behind the trailers": CHUNKED + b"2\r\nok\r\n0\r\n\n",
    "lf behind a trailer": CHUNKED + b"2\r\nok\r\n0\r\na: b\n\r\n",
    "a folded trailer": CHUNKED + b"2\r\nok\r\n0\r\na: b\r\n c\r\n\r\n",
    "a trailer without colon": CHUNKED + b"2\r\nok\r\n0\r\na\r\n\r\n",
    "a trailer with a blank": CHUNKED + b"2\r\nok\r\n0\r\na : b\r\n\r\n",
    "a length as a trailer": CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 2\r\n\r\n",
    "endless extensions": CHUNKED + b"2;" + b"a" * (4 * HEAD_LIMIT),
    "one field too many": START + b"a:b\r\n" * MOST_FIELDS + SIZED,
    "endless interim answers": b"HTTP/1.1 103 Early\r\n\r\n" * HEAD_LIMIT,
    "an endless field": START + b"a: " + b"b" * HEAD_LIMIT,
    "an endless status line": b"HTTP/1.1 200 " + b"b" * HEAD_LIMIT,
}

STRAY = {
    "a line end": b"\r\n",
    "an lf": b"\n",
    "a nul": b"\0",
    "nonsense": b"nonsense",
    "nonsense that ends like a head": b"nonsense\r\n\r\n",
    "another answer": START + SIZED,
    "half of another": b"HTTP/1.1 2",
    "a head": START + b"Content-Length: 9\r\n\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a last chunk": LAST,
    "a great deal": b"x" * 300_000,
}


def server(answer, *, single=False):
    """A service that writes *answer* and listens on; *single*: byte by byte."""
    calls = []

    async def answering(reader, writer):
        while (request := await read_request(reader)) is not None:
            calls.append(request)
            for piece in [answer[at : at + 1] for at in range(len(answer))] if single else [answer]:
                writer.write(piece)
                await asyncio.sleep(0)

    return answering, calls


def framing_apart(pairs):
    return tuple(pair for pair in pairs if pair[0].lower() not in {b"content-length", b"transfer-encoding"})


@pytest.mark.parametrize("single", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("answer", "expected"), GOOD.values(), ids=GOOD)
@story
async def test_good(answer, expected, single):
    """What every reader understands in the same way is handed on, and its connection serves again."""
    answering, _ = server(answer, single=single and len(answer) < 500)
    async with serve(answering) as base, client() as it:
        status, pairs, body = await it.call(base)

        assert (expected, b"ok", 1) == (framing_apart(pairs), body, it.pooled)
        assert status in {200, 299}


@pytest.mark.parametrize("single", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
@story
async def test_bad(answer, single):
    """What two readers may understand differently is no answer: the call fails at once, its service goes on waiting."""
    answering, calls = server(answer, single=single and len(answer) < 500)
    async with serve(answering) as base, client() as it:
        with pytest.raises(UpstreamFailed) as raised:
            await it.call(base)

        assert (Cause.MALFORMED, True, True, False) == fault(raised)
        assert (0, 0) == (it.acquired, it.pooled)
    assert 1 == len(calls)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "apart"])
@pytest.mark.parametrize("stray", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (START + SIZED, b"ok"),
        (CHUNKED + b"2\r\nok\r\n" + LAST, b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\na: b\r\n\r\n", b"ok"),
        (START + b"Content-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (START + b"Connection: close\r\n" + SIZED, b"ok"),
        (b"HTTP/1.0 200 OK\r\n" + SIZED, b"ok"),
        (START + b"Content-Length: 300000\r\n\r\n" + b"y" * 300_000, b"y" * 300_000),
        (CHUNKED + b"493e0\r\n" + b"y" * 300_000 + b"\r\n" + LAST, b"y" * 300_000),
    ],
    ids=["length", "chunks", "trailers", "empty", "bodiless", "close", "old", "long", "long chunk"],
)
@story
async def test_stray_bytes(answer, body, stray, late):
    """An answer that is whole is whole, whatever follows it; but its connection serves nobody else."""

    async def answering(reader, writer):
        await read_request(reader)
        writer.write(answer if late else answer + stray)
        if late:
            await writer.drain()
            writer.write(stray)
        await reader.read()

    async with serve(answering) as base, client() as it:
        assert body == (await it.call(base))[2]
        async with asyncio.timeout(10):
            while it.pooled:  # noqa: ASYNC110  what comes behind the answer may come when that has been read
                await asyncio.sleep(0.001)


@given(raw=st.sampled_from([raw for raw, _ in GOOD.values()]), cut=st.integers(0, 400))
def test_no_good_beginning_is_hopeless(raw, cut):
    """Wherever the bytes of a good head are cut, more of them are waited for."""
    head, found, _ = raw.partition(b"\r\n\r\n")

    check_begun((head + found)[:cut])
    read_answer_head(head + found)


@given(noise=st.binary(max_size=60))
def test_every_field_is_a_line(noise):
    """Whatever bytes a head holds, what is read of it is written as the same fields, a line each."""
    raw = START + b"a: " + noise + b"\r\n\r\n"
    try:
        head = read_answer_head(raw)
    except Unreadable:
        return

    lines = [b"%b:%b" % pair for pair in head.pairs]
    assert raw[len(START) : -4].split(b"\r\n") == lines or len(lines) == raw[len(START) : -2].count(b"\r\n")
    assert not any(byte in line for line in lines for byte in (b"\r", b"\n", b"\0"))
