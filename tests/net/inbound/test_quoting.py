"""What our own listener says of requests that it cannot read: llhttp's words, which are constants."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.rules import Limits
from sidecar.errors import Refused
from sidecar.net.inbound.parser import RequestParser

SECRET = b"correct-horse-battery"  # pragma: allowlist secret

PARTS = st.one_of(
    st.just(SECRET),
    st.binary(max_size=3),
    st.sampled_from([
        b"GET ", b"POST ", b"/", b" HTTP/1.1", b" HTTP/9.9", b"\r\n", b"\n", b"\r", b"\0", b"\x7f", b": ", b":", b" ",
        b"\r\n\r\n", b"Host: h\r\n", b"Authorization: Bearer ", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: ", b"5\r\n", b"0\r\n", b"Upgrade: ", b"Connection: ", b"Expect: ", b"http://", b"\xff",
    ]),
)  # fmt: skip
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"


def told(data: bytes) -> str:
    """What is said of *data* where it is refused."""
    reader = RequestParser(Limits(), 0)
    at = 0
    try:
        while at < len(data):
            at = reader.feed(data, at)
            reader.chunks.clear()
            if reader.done:
                reader.next()
    except Refused as refused:
        return f"{refused.code} {refused.message} {refused!r} {refused}"
    return ""


@given(st.lists(PARTS, max_size=12).map(b"".join), st.sampled_from([b"", b"GET /", HEAD]))
@example(SECRET, HEAD + b"Authorization: Bearer ")
@example(SECRET + b"\r\r\n\r\n", HEAD + b"Authorization: Bearer ")
@example(SECRET + b"\0\r\n\r\n", HEAD + b"Authorization: Bearer ")
@example(SECRET + b"\x7f\r\n\r\n", HEAD + b"Authorization: Bearer ")
@example(SECRET + b"\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
@example(SECRET + b"\r\n\r\n", HEAD + b"Content-Length: ")
@example(SECRET + b" / HTTP/1.1\r\n\r\n", b"")
def test_nothing_is_quoted(data: bytes, head: bytes):
    """Wherever in a request the secret stands."""
    assert SECRET.decode() not in told(head + data)
