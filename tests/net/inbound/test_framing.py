"""What is one request, what is none, and that nothing is ever two."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.rules import Limits
from sidecar.errors import Refused
from sidecar.net.base import Request
from sidecar.net.inbound import http1
from sidecar.net.inbound.parser import RequestParser

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

REFUSED = {
    "cl then te": (POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "te then cl": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc", 400),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative length": (POST + b"Content-Length: -3\r\n\r\nabc", 400),
    "hex length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "underscored length": (POST + b"Content-Length: 1_0\r\n\r\n0123456789", 400),
    "empty length": (POST + b"Content-Length:\r\n\r\nabc", 400),
    "endless length": (POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc", 400),
    "coding xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "coding identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "coding gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coding chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "coding chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "coding in two fields": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding twice chunked": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding with vt": (POST + b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n", 400),
    "coding quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 501),
    "coding empty": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    "coding, space before colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "coding on 1.0": (b"POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding with an underscore": (POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding with an underscore beside a length": (
        POST + b"Content-Length: 3\r\nTRANSFER_ENCODING: chunked\r\n\r\nabc",
        400,
    ),
    "coding with a dot": (POST + b"Transfer.Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding with a blank": (POST + b"Transfer Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "coding after a blank": (POST + b"Content-Length: 3\r\n Transfer-Encoding: chunked\r\n\r\nabc", 400),
    "length with an underscore": (POST + b"Content_Length: 3\r\n\r\nabc", 400),
    "length with an underscore beside a length": (POST + b"Content-Length: 3\r\ncontent_length: 0\r\n\r\nabc", 400),
    "length with a tilde": (POST + b"Content-Length: 3\r\ncontent~length: 0\r\n\r\nabc", 400),
    "length with a blank": (POST + b"Content Length: 3\r\n\r\nabc", 400),
    "length, space before colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "length, tab before colon": (POST + b"Content-Length\t: 3\r\n\r\nabc", 400),
    "chunk 0x": (CHUNKED + b"0x5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk plus": (CHUNKED + b"+5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk minus": (CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk underscore": (CHUNKED + b"5_0\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk space after": (CHUNKED + b"5 \r\nabcde\r\n0\r\n\r\n", 400),
    "chunk space before": (CHUNKED + b" 5\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk empty size": (CHUNKED + b"\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk overflow": (CHUNKED + b"fffffffffffffffff\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk bare lf": (CHUNKED + b"5\nabcde\r\n0\r\n\r\n", 400),
    "chunk bare cr": (CHUNKED + b"5\rabcde\r\n0\r\n\r\n", 400),
    "chunk too short": (CHUNKED + b"5\r\nabcdef\r\n0\r\n\r\n", 400),
    "chunk ended by lf": (CHUNKED + b"5\r\nabcde\n0\r\n\r\n", 400),
    "chunk extension nul": (CHUNKED + b"5;a=\0\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk extension lf": (CHUNKED + b"5;a\nb\r\nabcde\r\n0\r\n\r\n", 400),
    "chunk extensions": (CHUNKED + b"5;a=%b\r\nabcde\r\n0\r\n\r\n" % (b"b" * 20_000), 431),
    "trailer length": (CHUNKED + b"0\r\nContent-Length: 40\r\n\r\n", 400),
    "trailer lf": (CHUNKED + b"0\r\nX: y\n\r\n", 400),
    "trailers": (CHUNKED + b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000 + b"\r\n", 431),
    "obs-fold": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "fold first": (b"GET /a HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "nul in value": (GET + b"X: a\0b\r\n\r\n", 400),
    "control in value": (GET + b"X: a\x01b\r\n\r\n", 400),
    "bare cr in value": (GET + b"X: a\rb\r\n\r\n", 400),
    "bare lf": (GET + b"X: a\n\r\n", 400),
    "lf after request line": (b"GET /a HTTP/1.1\nHost: h\r\n\r\n", 400),
    "empty name": (GET + b": a\r\n\r\n", 400),
    "no colon": (GET + b"X\r\n\r\n", 400),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: h\r\n\r\n", 400),
    "two hosts in one": (b"GET /a HTTP/1.1\r\nHost: h, i\r\n\r\n", 400),
    "empty host": (b"GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "host with path": (b"GET /a HTTP/1.1\r\nHost: h/x\r\n\r\n", 400),
    "host with user": (b"GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    "two authorizations": (GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n", 400),
    "two api keys": (GET + b"api-key: a\r\nApi-Key: a\r\n\r\n", 400),
    "two x-api-keys": (GET + b"x-api-key: a\r\nx-api-key: b\r\n\r\n", 400),
    "two content types": (GET + b"content-type: a/b\r\ncontent-type: a/c\r\n\r\n", 400),
    "two content encodings": (GET + b"content-encoding: gzip\r\ncontent-encoding: br\r\n\r\n", 400),
    "tab in target": (b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "control in target": (b"GET /a\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "delete in target": (b"GET /a\x7f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "space in target": (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "raw byte in target": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "relative target": (b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "star for GET": (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "another authority": (b"GET http://i/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "authority with user": (b"GET http://u@h/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "authority with fragment": (b"GET http://h#/a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "unknown method": (b"BREW /a HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "lower-case method": (b"get /a HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    "no http at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "http/2.0": (b"GET /a HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    "http/0.9": (b"GET /a\r\n\r\n", 505),
    "http/1.2": (b"GET /a HTTP/1.2\r\nHost: h\r\n\r\n", 400),
    "connect": (b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501),
    "websocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 501),
    "other expectation": (POST + b"Expect: tea\r\nContent-Length: 3\r\n\r\nabc", 417),
    "long target": (b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"a" * 16384), 414),
    "endless target": (b"GET /" + b"a" * 200_000, 414),
    "large head": (GET + b"X: %b\r\n\r\n" % (b"a" * 65536), 431),
    "many fields": (GET + b"X-Some: thing\r\n" * 6000 + b"\r\n", 431),
    "endless value": (GET + b"X: " + b"a" * 200_000, 431),
    "endless name": (GET + b"a" * 200_000, 431),
    "endless empty lines": (b"\r\n" * 100_000, 431),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED)
async def test_refused(front, raw, status):
    """What breaks the rules is refused and closes the connection; what follows it is never a request."""
    peer = await front.connect()
    peer.send(raw + SMUGGLED)

    reply = await peer.reply()
    assert status == reply.status
    assert b"close" == reply.fields[b"connection"]
    assert b"" == await peer.ended()
    assert [] == front.line.requests
    assert [reply.body.decode()] == front.line.refusals


TAKEN = {
    "sized": (POST + b"Content-Length: 5\r\n\r\nabcde", b"abcde"),
    "length with spaces": (POST + b"Content-Length:  5 \t\r\n\r\nabcde", b"abcde"),
    "length with zeros": (POST + b"Content-Length: 0005\r\n\r\nabcde", b"abcde"),
    "empty": (POST + b"Content-Length: 0\r\n\r\n", b""),
    "no body": (POST + b"\r\n", b""),
    "chunked": (CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", b"abcde"),
    "chunked in capitals": (POST + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "chunk with zeros": (CHUNKED + b"0005\r\nabcde\r\n000\r\n\r\n", b"abcde"),
    "chunk extension": (CHUNKED + b"5;a=b;c\r\nabcde\r\n0\r\n\r\n", b"abcde"),
    "trailers": (CHUNKED + b"5\r\nabcde\r\n0\r\nX: y\r\nHost: i\r\n\r\n", b"abcde"),
    "empty lines inside": (
        CHUNKED + b"d\r\n\r\n\r\n0\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
        b"\r\n\r\n0\r\n\r\n\r\n\r\n",
    ),
    "empty lines before": (b"\r\n\r\n\r\n" + POST + b"Content-Length: 5\r\n\r\nabcde", b"abcde"),
    "h2c offered": (
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\nContent-Length: 5\r\n\r\nabcde",
        b"abcde",
    ),
    "h2c offered, chunked": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"abcde",
    ),
    "names like none that frames": (
        POST
        + b"Content_Lengths: 9\r\nX_Transfer_Encoding: chunked\r\ncontents-length: 1\r\nContent-Length: 5\r\n\r\nabcde",
        b"abcde",
    ),
    "upgrade without connection": (POST + b"Upgrade: h2c\r\nContent-Length: 5\r\n\r\nabcde", b"abcde"),
}


@pytest.mark.parametrize(("raw", "body"), TAKEN.values(), ids=TAKEN)
async def test_taken(front, raw, body):
    """A lawful request is one request with this body, and the next one on the connection is the next one."""
    peer = await front.connect()
    peer.send(raw + SMUGGLED)

    assert b"/a" == (await peer.reply()).body
    assert b"/smuggled" == (await peer.reply()).body
    assert [(b"/a", body), (b"/smuggled", b"")] == [(r.head.target, r.body) for r in front.line.requests]


TARGETS = [
    b"/a%2Fb", b"/a/../b", b"//a//b", b"/a:b", b"/a;b=c", b"/a?b=c&b=d", b"/a?", b"/?", b"/a/.", b"/%", b"/a?b=%0a",
    b"/a|b", b"/a\\b", b"/{a}", b"/a'b", b'/a"b', b"/?http://h/",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
async def test_targets(front, target):
    """A target arrives byte for byte."""
    peer = await front.connect()

    assert target == (await peer.ask(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)).body


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"http://h:80/a%2F?", b"/a%2F?"),
        (b"GET", b"HTTP://H:80//a", b"//a"),
        (b"GET", b"https://h:80", b"/"),
        (b"GET", b"http://h:80?a", b"/?a"),
        (b"OPTIONS", b"*", b"*"),
    ],
)
def test_other_forms(method, target, expected):
    """Absolute targets lose exactly their authority; ``*`` is for OPTIONS."""
    head, _ = http1.read_head(method, target, "1.1", [(b"Host", b"h:80")], keep=True, port=1)

    assert expected == head.target


def test_fields():
    """Repeated fields are joined by name and kept as they came in ``pairs``."""
    pairs = [(b"Host", b"[::1]:80"), (b"X-A", b"1"), (b"Other", b"o"), (b"x-a", b"2")]

    head, framing = http1.read_head(b"GET", b"/", "1.0", pairs, keep=False, port=7)

    assert tuple(pairs) == head.pairs
    assert {b"host": b"[::1]:80", b"x-a": b"1, 2", b"other": b"o"} == head.fields
    assert (0, 7) == (head.minor, head.port)
    assert http1.Framing(0, keep=False, expects=False) == framing


@pytest.mark.parametrize("pair", [(b"a", b"b\r\nc: d"), (b"a\nb", b"c"), (b"a", b"b\rc"), (b"a", b"\0")])
def test_field_lines_refuse_breaks(pair):
    """An answer's field cannot become two."""
    with pytest.raises(ValueError, match="line break"):
        http1.field_lines((pair,))


def test_pieces_of_heads():
    """The first lines and the date of an answer have the form of RFC 9110."""

    assert b"HTTP/1.1 200 OK\r\n" == http1.status_line(200)
    assert b"HTTP/1.1 299 \r\n" == http1.status_line(299)
    assert b"date: Tue, 14 Nov 2023 22:13:20 GMT\r\n" == http1.date_line(1_700_000_000)


def _read(stream: bytes, cuts: list[int]) -> list[Request | int]:
    """The requests in *stream* when it comes in parts; a refusal ends them with its status."""
    reader, found, body = RequestParser(Limits(), 1), [], b""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    try:
        for start, stop in pairwise(edges):
            part, at = stream[start:stop], 0
            while at < len(part):
                at = reader.feed(part, at)
                body += b"".join(reader.chunks)
                reader.chunks.clear()
                if reader.done:
                    found.append((reader.head, body))
                    body = b""
                    reader.next()
    except Refused as error:
        found.append(error.status)
    return found


STREAMS = [b"".join(raw for raw, _ in TAKEN.values()) + SMUGGLED] + [
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + raw + SMUGGLED for raw, _ in REFUSED.values() if len(raw) < 400
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4000), max_size=40))
def test_cuts_change_nothing(stream, cuts):
    """What is read does not depend on how the bytes came."""

    assert _read(stream, []) == _read(stream, cuts)


def test_byte_by_byte():
    """The same where every byte comes alone."""

    assert len(TAKEN) + 1 == len(_read(STREAMS[0], list(range(4000))))
    assert _read(STREAMS[0], []) == _read(STREAMS[0], list(range(4000)))
