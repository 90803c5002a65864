"""Where a body ends: to the byte, however the bytes of its connection are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.net.outbound.answer_body import LINE_LIMIT, AnswerBody, ChunkedBody, SizedBody, body_of
from sidecar.net.outbound.answer_head import HEAD_LIMIT, Unreadable, read_answer_head

CUTS = st.lists(st.integers(0, 200), max_size=8)


def pieces(raw, cuts):
    """*raw*, cut at *cuts*."""
    at = sorted({cut for cut in cuts if 0 < cut < len(raw)})
    return [raw[start:end] for start, end in zip([0, *at], [*at, len(raw)], strict=True)]


def chunked(parts, extension=b"", trailers=b""):
    """*parts* as chunks."""
    lines = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    return b"".join(lines) + b"0\r\n" + trailers + b"\r\n"


def read(parts):
    """What *parts* of a chunked body hold, and whether it is whole; None if they are malformed."""
    body = ChunkedBody()
    try:
        for part in parts:
            if not body.ended:
                body.feed(part)
    except Unreadable:
        return None
    return body.take(), body.ended


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    extension=st.sampled_from([b"", b";a", b';a="b\t\xff"']),
    trailers=st.sampled_from([b"", b"a: b\r\n", b"a:\r\nb: c\r\n"]),
    stray=st.sampled_from([b"", b"\r\n", b"0\r\n\r\n", b"x"]),
    cuts=CUTS,
)
def test_chunks(parts, extension, trailers, stray, cuts):
    """The same bytes, and the same end, wherever the connection cuts them; what is behind the end is noticed."""
    body = ChunkedBody()
    behind = [body.ended or body.feed(piece) for piece in pieces(chunked(parts, extension, trailers) + stray, cuts)]

    assert (b"".join(parts), True, bool(stray)) == (body.take(), body.ended, any(behind))


@given(size=st.integers(0, 60), stray=st.binary(max_size=3), cuts=CUTS)
def test_size(size, stray, cuts):
    """As above."""
    body = SizedBody(size)
    behind = [bool(piece) if body.ended else body.feed(piece) for piece in pieces(b"y" * size + stray, cuts)]

    assert (b"y" * size, True, bool(stray)) == (body.take(), body.ended, any(behind))


@given(raw=st.binary(max_size=80), cuts=CUTS)
def test_a_cut_changes_nothing(raw, cuts):
    """Whether bytes are a body, and which, does not depend on where they are cut."""

    assert read([raw]) == read(pieces(raw, cuts))


@pytest.mark.parametrize("body", [SizedBody(2), ChunkedBody(), AnswerBody()], ids=repr)
def test_end_of_the_connection(body):
    """Only a body without any framing is whole when its connection is closed."""
    body.feed(b"1")
    body.close()

    assert body.ended is (type(body) is AnswerBody)


@pytest.mark.parametrize(
    "raw",
    [
        b"1;" + b"a" * LINE_LIMIT,
        b"1\r\na\r\n1;" + b"a" * LINE_LIMIT,
        b"0\r\n" + b"a: " + b"b" * HEAD_LIMIT,
        b"0\r\n" + b"a: b\r\n" * HEAD_LIMIT,
    ],
    ids=["extension", "second extension", "trailer", "trailers"],
)
def test_limits(raw):
    """What is dropped has a limit, too."""
    assert read(pieces(raw, range(0, len(raw), 1000))) is None


@pytest.mark.parametrize(
    ("head", "bodiless", "expected"),
    [
        (b"200 OK\r\nContent-Length: 5\r\n", False, (SizedBody, False)),
        (b"200 OK\r\nContent-Length: 0\r\n", False, (SizedBody, True)),
        (b"200 OK\r\nContent-Length: 5\r\n", True, (SizedBody, True)),
        (b"204 No Content\r\n", False, (SizedBody, True)),
        (b"304 Not Modified\r\nContent-Length: 5\r\n", False, (SizedBody, True)),
        (b"304 Not Modified\r\nTransfer-Encoding: chunked\r\n", False, (SizedBody, True)),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n", False, (ChunkedBody, False)),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n", True, (SizedBody, True)),
        (b"200 OK\r\n", False, (AnswerBody, False)),
    ],
)
def test_framing(head, bodiless, expected):
    """How the head frames its body (RFC 9112, 6.3)."""
    body = body_of(read_answer_head(b"HTTP/1.1 " + head + b"\r\n"), bodiless=bodiless)

    assert expected == (type(body), body.ended)


@pytest.mark.parametrize(
    ("version", "fields", "keep"),
    [
        (1, b"", True),
        (1, b"Connection: keep-alive\r\n", True),
        (1, b"Connection: close\r\n", False),
        (1, b"Connection: x, \tClose\r\n", False),
        (1, b"Connection: x\r\nConnection: close\r\n", False),
        (0, b"", False),
        (0, b"Connection: Keep-Alive\r\n", True),
        (0, b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_keep(version, fields, keep):
    """Whether the connection may serve another call (RFC 9112, 9.3)."""
    assert keep is read_answer_head(b"HTTP/1.%d 200 OK\r\n%b\r\n" % (version, fields)).keep
