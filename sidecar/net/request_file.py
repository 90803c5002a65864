"""
Reads requests from files.

The rule: only what editors change is tolerated (line ends, lengths). A body that is as long as its head says was not
edited, and counts as it is. What is read here is never sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import httptools

from sidecar.core.http.headers import fields_of
from sidecar.core.model import Head

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_PORT = re.compile(rb":([0-9]{1,5})\Z")


def read_request(raw: bytes, port: int = 0, own: Collection[int] = ()) -> tuple[Head | None, bytes]:
    """
    Head and body of *raw*, a request as it goes over the wire, as if it had come to *port*, or to a port of *own* (the
    services' own ports) that its Host names. Lone line feeds are accepted. The head is None if *raw* is not a request.
    """
    raw = raw.lstrip(b"\r\n")
    end = _HEAD_END.search(raw)
    text, body = (raw[: end.start()], raw[end.end() :]) if end is not None else (raw, b"")
    kept, length = [], b""
    for line in text.splitlines():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = value.strip()
        elif name.lower() != b"transfer-encoding":
            kept.append(line)
    if length != b"%d" % len(body) and not body.endswith(b"\r\n"):
        body = body.removesuffix(b"\n")  # editors end a file with a line feed
    wire = b"\r\n".join(kept) + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(wire)
    except httptools.HttpParserError:
        return None, b""
    version = parser.get_http_version()
    if not parts.done or version not in {"1.0", "1.1"}:
        return None, b""
    pairs = tuple(parts.pairs)
    fields = fields_of(pairs)
    named = _PORT.search(fields.get(b"host", b"").rstrip())
    if named is not None and int(named[1]) in own:
        port = int(named[1])
    return Head(parser.get_method(), parts.target, int(version[-1]), pairs, fields, port), parts.body


class _Parts:
    def __init__(self) -> None:
        self.target = self.body = b""
        self.pairs: list[tuple[bytes, bytes]] = []
        self.done = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value))

    def on_body(self, chunk: bytes) -> None:
        self.body += chunk

    def on_message_complete(self) -> None:
        self.done = True
