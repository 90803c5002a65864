"""
The head of an upstream's answer, read strictly.

The rule: reject, never repair. A head goes on to the caller and into memory, so what two readers could understand
differently is no answer (RFC 9112, 2.2, 5.2, 6.3 and 11.1). Pure functions.
"""

from __future__ import annotations

import re

from msgspec import Struct

from sidecar.core.model import Pairs
from sidecar.core.rules import KIB

HEAD_LIMIT = 64 * KIB
"""Bytes of an answer's head, interim answers before it included."""

MOST_FIELDS = 1024

END = b"\r\n\r\n"

_START = b"HTTP/1."
_LONE_BREAK = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)").search
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n"  # the reason, and its blank, may be missing
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n"
).fullmatch
_BLANKS = b" \t"
_HOP = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class Unreadable(Exception):
    """What came is no answer of HTTP/1.x; the text says why and quotes nothing of it."""


class AnswerHead(Struct, frozen=True, gc=False):
    """
    A status and the fields as they were received, blanks around their values apart. *length* is the Content-Length,
    None where there is none. *framing* is a head that says the same of the body and the connection, and no more.
    """

    status: int
    pairs: Pairs
    length: int | None
    chunked: bool
    framing: bytes


def check_begun(begun: bytes) -> None:
    """Raise ``Unreadable`` where no bytes that could follow make a head of *begun*, so that nobody waits for them."""
    if not begun.startswith(_START[: len(begun)]):
        raise Unreadable("it does not begin like an answer of HTTP/1.x")
    if _LONE_BREAK(begun):
        raise Unreadable("a line of its head does not end with CRLF")
    if len(begun) > HEAD_LIMIT:
        raise Unreadable("its head is too large")


def read_answer_head(raw: bytes) -> AnswerHead:
    """The head *raw*, its empty line included. Raises ``Unreadable``."""
    check_begun(raw)
    found = _HEAD(raw)
    if found is None:
        raise Unreadable("its head is not well-formed")
    minor, status, lines = found.groups()
    pairs: list[tuple[bytes, bytes]] = []
    framing = [b"HTTP/1.%b %b \r\n" % (minor, status)]
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.strip(_BLANKS)
        pairs.append((name, value))
        if name.lower() in _HOP:
            framing.append(b"%b: %b\r\n" % (name, value))
    if len(pairs) > MOST_FIELDS:
        raise Unreadable("its head has too many fields")
    length, chunked = _framed(pairs)
    if chunked and minor == b"0":
        raise Unreadable("a Transfer-Encoding in HTTP/1.0")
    return AnswerHead(int(status), tuple(pairs), length, chunked, b"".join((*framing, b"\r\n")))


def _framed(pairs: list[tuple[bytes, bytes]]) -> tuple[int | None, bool]:
    """The Content-Length, None where there is none, and whether the body is chunked. Raises ``Unreadable``."""
    length: int | None = None
    chunked = False
    for name, value in pairs:
        lower = name.lower()
        if lower == b"content-length":
            if length is not None or not value.isdigit() or len(value) > 18:
                raise Unreadable("Content-Length is not one number")
            length = int(value)
        elif lower == b"transfer-encoding":
            if chunked or value.lower() != b"chunked":
                raise Unreadable("a Transfer-Encoding that is not chunked")
            chunked = True
    if chunked and length is not None:
        raise Unreadable("both Content-Length and Transfer-Encoding")
    return length, chunked
