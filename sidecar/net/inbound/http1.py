"""
The parts of HTTP/1.x that llhttp does not check: what a head must be, and the fixed pieces of an answer's head.

The rule: reject, never repair. If two servers read one request differently, requests can be smuggled; so everything
that RFC 9112 lets a recipient tolerate is refused here. Pure functions; every refusal closes the connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from msgspec import Struct

from sidecar.core.model import Head, Pairs
from sidecar.errors import Refused

CRLF = b"\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"

SINGLE = frozenset(
    {
        b"api-key",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"transfer-encoding",
        b"x-api-key",
    }
)
"""Fields about framing, identity or meaning: if one stands twice, the request has two readings."""

_LENGTHS = frozenset({len(b"content-length"), len(b"transfer-encoding")})
_LIKE_FRAMING = re.compile(rb"content[^a-z0-9-]length|transfer[^a-z0-9-]encoding").fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}(?: |$)").match

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Framing(Struct, frozen=True, gc=False):
    """
    How the bytes after a head are read. *length* is the body's size, None when chunked; *keep*: the connection may
    serve another request; *expects*: the client waits for ``100 Continue`` before it sends the body.
    """

    length: int | None
    keep: bool
    expects: bool


def read_head(
    method: bytes, target: bytes, version: str, pairs: Sequence[tuple[bytes, bytes]], *, keep: bool, port: int
) -> tuple[Head, Framing]:
    """
    A head and its framing (RFC 9112). *version* is ``1.1``, *keep* what llhttp says of the ``connection`` field.
    Raises ``Refused``.
    """
    minor = 1 if version == "1.1" else 0
    if not minor and version != "1.0":
        raise _refused(505, "http-version-unsupported", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    fields = {name.lower(): value for name, value in pairs}
    if len(fields) != len(pairs):
        fields = joined(pairs)
    if [name for name in fields if len(name) in _LENGTHS and looks_like_framing(name)]:
        raise _refused(400, "framing-lookalike", "A field's name only looks like Content-Length or Transfer-Encoding.")
    if method == b"CONNECT":
        raise _refused(501, "connect-unsupported", "CONNECT is not supported; use the base URL of the service instead.")
    host = fields.get(b"host")
    if host is None:
        if minor:
            raise _refused(400, "host-missing", "An HTTP/1.1 request needs a Host field.")
    elif not _HOST(host):
        raise _refused(400, "host-invalid", "The Host field is not a host name with an optional port.")
    if not target.startswith(b"/") or target.find(b"#") >= 0:
        target = _origin_form(method, target, host)
    if b"upgrade" in fields and not upgrade_ignored(fields[b"upgrade"]):
        raise _refused(501, "upgrade-unsupported", "Switching protocols is not supported; speak HTTP/1.1.")
    head = Head(method=method, target=target, minor=minor, pairs=tuple(pairs), fields=fields, port=port)
    return head, Framing(_length(minor, fields), keep, _expects(minor, fields))


def looks_like_framing(name: bytes) -> bool:
    """
    Whether *name*, in lower case, looks like a framing field to readers that accept other characters in place of its
    hyphen: CGI and its descendants turn both ``-`` and ``_`` into ``_``.
    """
    return _LIKE_FRAMING(name) is not None


def upgrade_ignored(value: bytes) -> bool:
    """
    Whether an ``upgrade`` field asks only for what may be ignored (RFC 9110, 7.8): HTTP/2 in clear, which some clients
    (Java's among them) offer with every first request.
    """
    return value.strip().lower() == b"h2c"


def unreadable(piece: bytes, reason: str, *, method: bool) -> Refused:
    """The refusal of what llhttp could not read; *method*: it failed at the method in *piece*."""
    if method and _TOKEN(piece.lstrip(CRLF)):
        return _refused(501, "method-unsupported", "The request method is not known here.")
    return _refused(400, "malformed-request", f"The request is not well-formed HTTP/1.1: {reason}.")


def too_large(status: int) -> Refused:
    """The refusal of a request line (414) or of header fields, trailers and chunk extensions (431) past their limit."""
    if status == 414:
        return _refused(414, "target-too-long", "The request line is too long.")
    return _refused(431, "fields-too-large", "The header fields, trailers or chunk extensions are too large.")


@lru_cache(maxsize=1000)
def status_line(status: int) -> bytes:
    """The first line of an answer, CRLF included."""
    return b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, b""))


def date_line(now: float) -> bytes:
    """The ``date`` field for *now*, seconds since the epoch (RFC 9110, 6.6.1)."""
    return b"date: %s\r\n" % formatdate(now, usegmt=True).encode()


def field_lines(pairs: Pairs) -> bytes:
    """Fields as they are sent. Raises ``ValueError`` if a name or value would break out of its line."""
    lines = b"".join([b"%s: %s\r\n" % pair for pair in pairs])
    if not len(pairs) == lines.count(b"\n") == lines.count(b"\r") or b"\0" in lines:
        raise ValueError("a field of the answer contains a line break or NUL")
    return lines


def _refused(status: int, code: str, message: str) -> Refused:
    return Refused(status, code, message, close=True)


def joined(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by lower-case name. Raises ``Refused`` if one that may stand only once stands twice."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name.lower(), []).append(value)
    for name, several in values.items():
        if len(several) > 1 and name in SINGLE:
            raise _refused(400, "duplicate-field", f"The field {name.decode('latin-1')} may appear only once.")
    return {name: b", ".join(several) for name, several in values.items()}


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        return target
    absolute = _ABSOLUTE(target)
    if absolute is None or b"#" in target:
        raise _refused(400, "target-invalid", "The request target is not a path.")
    authority, rest = absolute.groups()
    if host is None or authority.lower() != host.lower():
        raise _refused(400, "target-not-host", "The request target names another host than the Host field.")
    return rest if rest.startswith(b"/") else b"/" + rest


def _length(minor: int, fields: dict[bytes, bytes]) -> int | None:
    coding = fields.get(b"transfer-encoding")
    if coding is None:
        return int(fields.get(b"content-length", 0))
    if not minor:
        raise _refused(400, "transfer-encoding-http10", "HTTP/1.0 has no Transfer-Encoding.")
    if b"content-length" in fields:
        raise _refused(400, "length-ambiguous", "Content-Length and Transfer-Encoding exclude each other.")
    if coding.lower() != b"chunked":
        raise _refused(501, "transfer-encoding-unsupported", "The only transfer encoding spoken here is chunked.")
    return None


def _expects(minor: int, fields: dict[bytes, bytes]) -> bool:
    expectation = fields.get(b"expect")
    if expectation is None or not minor:
        return False
    if expectation.lower() != b"100-continue":
        raise _refused(417, "expectation-failed", "The only expectation that can be met is 100-continue.")
    return True
