"""
The head of an upstream's answer, read strictly.

The rule: reject, never repair. A head goes on to the caller and into memory, so a head that two readers could
understand differently is refused (RFC 9112, 2.2, 5.2, 6.3 and 11.1). Pure functions.
"""

from __future__ import annotations

import re

from msgspec import Struct

from sidecar.core.model import Pairs
from sidecar.core.rules import KIB

HEAD_LIMIT = 64 * KIB
"""The most bytes of an answer's head, interim answers before it included."""

MOST_FIELDS = 1024

END = b"\r\n\r\n"

_START = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?").fullmatch  # a reason, and its blank, may be missing
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
_BLANKS = b" \t"
_FIELDS = re.compile(rb"\r\n([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)").findall
_HOP = frozenset({b"connection", b"content-length", b"transfer-encoding"})
_HOP_SIZES = frozenset(map(len, _HOP))


class Unreadable(Exception):
    """What came is not an answer of HTTP/1.x; the text says why and quotes nothing of it."""


class AnswerHead(Struct, frozen=True, gc=False):
    """
    A status and the fields as they were received, without the blanks around their values. *length* is the
    Content-Length, None if there is none; *keep*: the connection may serve another call.
    """

    status: int
    pairs: Pairs
    length: int | None
    chunked: bool
    keep: bool


def check_begun(begun: bytes) -> None:
    """Raise ``Unreadable`` if no further bytes can make *begun* a valid head, so that nobody waits for them."""
    if not begun.startswith(_START[: len(begun)]):
        raise Unreadable("it does not begin like an answer of HTTP/1.x")
    breaks = begun.count(b"\r\n")
    if begun.count(b"\n") != breaks or begun.count(b"\r") - begun.endswith(b"\r") != breaks:
        raise Unreadable("a line of its head does not end with CRLF")
    if len(begun) > HEAD_LIMIT:
        raise Unreadable("its head is too large")


def read_answer_head(raw: bytes) -> AnswerHead:
    """The head *raw*, its empty line included. Raises ``Unreadable``."""
    check_begun(raw)
    found = _STATUS(raw[: raw.find(b"\r\n")])
    if found is None:
        raise Unreadable("its status line is not well-formed")
    if len(raw.translate(None, _CONTROLS)) < len(raw):
        raise Unreadable("a control character in its head")
    minor, status = found.groups()
    fields = _FIELDS(raw)
    if len(fields) != raw.count(b"\r\n") - 2:  # beside the fields, the status line and the empty one end so
        raise Unreadable("a header field is not well-formed")
    if len(fields) > MOST_FIELDS:
        raise Unreadable("its head has too many fields")
    if raw.find(b" \r\n") >= 0 or raw.find(b"\t\r\n") >= 0:
        fields = [(name, value.rstrip(_BLANKS)) for name, value in fields]
    pairs = tuple(fields)
    hop = [pair for pair in fields if len(pair[0]) in _HOP_SIZES and pair[0].lower() in _HOP]
    length, chunked, options = _framed(hop)
    if chunked and minor == b"0":
        raise Unreadable("a Transfer-Encoding in HTTP/1.0")
    keep = b"close" not in options and (minor == b"1" or b"keep-alive" in options)
    return AnswerHead(int(status), pairs, length, chunked, keep)


def _framed(pairs: list[tuple[bytes, bytes]]) -> tuple[int | None, bool, list[bytes]]:
    """
    The Content-Length, None where there is none; whether the body is chunked; and the options in ``Connection`` (RFC
    9112, 9.3). Raises ``Unreadable``.
    """
    length: int | None = None
    chunked = False
    options: list[bytes] = []
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
        else:
            options += [option.strip(_BLANKS).lower() for option in value.split(b",")]
    if chunked and length is not None:
        raise Unreadable("both Content-Length and Transfer-Encoding")
    return length, chunked, options
