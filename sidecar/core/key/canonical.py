"""
The canonical form of a request body: the part of it that counts in the key.

The rule: a missed equality costs a miss; a wrong equality returns another request's answer. So the order of members is
given up only where it is known to have no meaning, and a body that two parsers might read differently has no canonical
form. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from sidecar.core.dialect import BodyForm, Endpoint, Members, Shape
from sidecar.core.key.json_rule import DEEPEST, UNREADABLE, fault, first
from sidecar.core.key.json_scanner import Scanner
from sidecar.core.key.multipart import Multipart
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.model import Facts, Reading

__all__ = ["SMALL", "BodyObserver", "Unsafe", "observer", "parse", "read"]

SMALL = 256 * 1024
"""The largest JSON body that is brought to canonical form, in bytes. Of a larger one, the raw bytes count."""

_NOTHING: Members = {}
_PERSON = b"sidecar body"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_negative_zero = re.compile(rb"-0[ \t\n\r,\]}]").search
_escaped_colon = re.compile(rb"\\u003[aA]").search


class BodyObserver(Protocol):
    """Reads a large body while it passes; it fits the listener's ``Observer``."""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body, cut anywhere; never raises."""

    def reading(self) -> Reading:
        """The reading of the whole body, once all of it has been fed."""


def read(body: bytes, endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> Reading:
    """
    Read a whole body.

    *content_type* is the header's value, which may hold a boundary. *digest_key*, up to 64 bytes, keys the digests of
    what is too large for the material. A body above ``SMALL`` is read as its observer reads it.
    """
    if len(body) <= SMALL:
        if endpoint.body is BodyForm.JSON:
            return _read_json(body, endpoint)
        if endpoint.body is BodyForm.NONE and not body:
            return Reading(b"none", b"", endpoint.read(_NOTHING))
        if endpoint.body is not BodyForm.MULTIPART:
            return Reading(b"raw", body, endpoint.read(_NOTHING))
    passing = observer(endpoint, content_type, digest_key)
    passing.feed(body)
    return passing.reading()


def observer(endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> BodyObserver:
    """The observer of a body that grows past ``SMALL``; the arguments are those of ``read``."""
    if endpoint.body is BodyForm.JSON:
        return _PassingJson(endpoint, digest_key)
    if endpoint.body is BodyForm.MULTIPART:
        return _PassingMultipart(endpoint, content_type, digest_key)
    return _PassingBytes(endpoint, digest_key)


def whole(body: bytes, endpoint: Endpoint) -> bytes:
    """
    The canonical form of *body* with everything that does not count in the key. Two bodies with one key are the same
    request only if this is equal, too. ``b""`` for a body of which every byte counts.
    """
    if endpoint.body is not BodyForm.JSON or len(body) > SMALL:
        return b""
    members = parse(body)
    return b"" if isinstance(members, Unsafe) else _encode(_arrange(members, endpoint.shape, all_of_it=True))


def parse(text: bytes) -> dict[str, Any] | Unsafe:
    """
    The members of a JSON object (RFC 8259), if every parser must find the same in it; otherwise the reason.

    Exact: integers of any length are kept, ``1`` and ``1.0`` differ, strings are as they were written. Floats are
    IEEE 754 doubles, as they are to the services.
    """
    try:
        members = _decode(text)
        compact = _encode(members)
    except UNREADABLE:
        return fault(text) or Unsafe.INVALID_JSON  # text that two parsers might not both read is unsafe
    if type(members) is not dict:
        return fault(text) or Unsafe.NOT_AN_OBJECT
    if _count(text, b"{") + _count(text, b"[") > DEEPEST and _deeper(members):
        return Unsafe.NESTING
    if compact == text or (
        # Fewer members mean fewer colons: colons in strings are the same in both, unless one was escaped.
        _count(compact, b":") == _count(text, b":") and not _escaped_colon(text) and not _negative_zero(text)
    ):
        return members
    return fault(text) or members


def _read_json(body: bytes, endpoint: Endpoint) -> Reading:
    members = parse(body)
    if isinstance(members, Unsafe):
        return Reading(b"json", b"", Facts(bypass=members))
    facts = endpoint.read(members)
    return Reading(b"json", b"" if facts.bypass else _encode(_arrange(members, endpoint.shape)), facts)


def _arrange(members: dict[str, Any], shape: Shape, *, all_of_it: bool = False) -> dict[str, Any]:
    """
    Members sorted by the code points of their names, without the dropped ones, and inside them as *shape* says.
    *all_of_it*: none is dropped.
    """
    arranged = dict(sorted(members.items()))
    inside = shape.inside
    for name in inside.keys() & members.keys():
        value, inner = members[name], inside[name]
        if type(value) is dict:
            arranged[name] = _arrange(value, inner, all_of_it=all_of_it)
        elif type(value) is list:
            arranged[name] = [
                _arrange(item, inner, all_of_it=all_of_it) if type(item) is dict else item for item in value
            ]
    if shape.drop and not all_of_it:
        for name in shape.drop & members.keys():
            value = arranged[name]
            if not (value and name in inside and type(value) is dict):
                del arranged[name]
    return arranged


def _count(text: bytes, byte: bytes) -> int:
    """How often *byte* occurs. ``bytes.count`` looks at each byte in turn; ``replace`` leaps and is faster."""
    return len(text) - len(text.replace(byte, b""))


def _deeper(members: dict[str, Any]) -> bool:
    """Whether there are more than ``DEEPEST`` levels, found level by level without recursion."""
    level: list[Any] = [members]
    for _ in range(DEEPEST):
        level = [
            item
            for value in level
            for item in (value.values() if type(value) is dict else value)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True


class _PassingJson:
    """A JSON object above ``SMALL``: its bytes are the material, its short members give the facts."""

    def __init__(self, endpoint: Endpoint, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._digest = blake2b(key=digest_key, digest_size=32, person=_PERSON)
        self._scanner = Scanner()

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._scanner.feed(chunk)

    def reading(self) -> Reading:
        unsafe, members = self._scanner.fault, parse(self._scanner.short)
        if isinstance(members, Unsafe):
            unsafe, members = first({unsafe or members, members}), {}
        if unsafe is not None:
            return Reading(b"json-digest", b"", Facts(bypass=unsafe))
        facts = self._endpoint.read(members)
        if self._scanner.remote:
            facts = msgspec.structs.replace(facts, deterministic=False, seeded=False)
        return Reading(b"json-digest", b"" if facts.bypass else self._digest.digest(), facts)


class _PassingMultipart:
    """A multipart body of any size: it has the same form whether it came whole or in pieces."""

    def __init__(self, endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._parts = Multipart(content_type, digest_key)

    def feed(self, chunk: bytes) -> None:
        self._parts.feed(chunk)

    def reading(self) -> Reading:
        if self._parts.fault is not None:
            return Reading(b"multipart", b"", Facts(bypass=self._parts.fault))
        facts = self._endpoint.read(self._parts.members())
        fields = [] if facts.bypass else self._parts.fields(self._endpoint.shape.drop)
        return Reading(b"multipart", b"" if facts.bypass else _encode(fields), facts)


class _PassingBytes:
    """Any other body above ``SMALL``."""

    def __init__(self, endpoint: Endpoint, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._digest = blake2b(key=digest_key, digest_size=32, person=_PERSON)

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)

    def reading(self) -> Reading:
        facts = self._endpoint.read(_NOTHING)
        return Reading(b"raw-digest", b"" if facts.bypass else self._digest.digest(), facts)
