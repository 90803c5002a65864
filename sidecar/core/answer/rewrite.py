"""
Puts another model name into a call: a region's deployment, or the fallback model.

The rule: the caller's bytes stay the same, except for the name itself. If it is not certain which bytes are the name,
nothing is replaced.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from msgspec import Raw, json

from sidecar.core.key.json_rule import UNREADABLE

_MARK = b"\xef\xbb\xbf"

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SPACE = re.compile(rb"[ \t\n\r]*+")
_COLON = re.compile(rb"[ \t\n\r]*+:[ \t\n\r]*+")
_COMMA = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+")
_CLOSE = re.compile(rb"[ \t\n\r]*+\}[ \t\n\r]*+\Z")

_DEPLOYMENT = re.compile(rb"([^?#]*?/deployments/+)([^/?#]+)")

_members = json.Decoder(dict[str, Raw]).decode
_name = json.Decoder(str).decode


def with_model(body: bytes, model: str) -> bytes | None:
    """
    *body*, a JSON object, with the value of its member ``model`` replaced by *model*, and every other byte as it is.

    None where there is no such member, where a name occurs twice (parsers differ in which one counts), and for a body
    that is not a JSON object. The parser has checked the values already; here each is only skipped by its length.
    """
    start = len(_MARK) if body.startswith(_MARK) else 0
    view = memoryview(body)
    try:
        members = _members(view[start:])
    except UNREADABLE:
        return None
    if "model" not in members:
        return None
    at = _end(_SPACE, body, start) + 1
    at = _end(_SPACE, body, at)
    where = slice(0)
    for number in range(len(members)):
        found = _STRING.match(body, at)
        if found is None:
            return None
        name = _name(found.group())
        value = bytes(members[name])
        at = _end(_COLON, body, found.end())
        if not body.startswith(value, at):  # the member occurs twice, with two values
            return None
        if name == "model":
            where = slice(at, at + len(value))
        at += len(value)
        if number + 1 < len(members):
            comma = _COMMA.match(body, at)
            if comma is None:
                return None
            at = comma.end()
    if _CLOSE.match(body, at) is None:
        return None
    return b"".join((view[: where.start], json.encode(model), view[where.stop :]))


def deployed(target: bytes, old: str, new: str) -> bytes | None:
    """
    The request *target* with *new* as the segment after ``/deployments/``, percent-encoded as needed (RFC 3986, 2.1);
    None where that is not *old*, or the path has no such segment.
    """
    found = _DEPLOYMENT.match(target)
    if found is None or unquote_to_bytes(found[2]) != old.encode():
        return None
    return found[1] + quote(new, safe="").encode() + target[found.end() :]


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
