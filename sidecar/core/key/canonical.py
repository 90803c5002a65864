"""
The canonical form of a request body: the part of it that counts in the key.

The rule: a missed equality costs a miss; a wrong equality returns another request's answer. So the order of members is
given up only where it is known to have no meaning, and a body that two parsers might read differently has no canonical
form. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

import msgspec

from sidecar.core.dialect import BodyForm, Endpoint, Members
from sidecar.core.key.document import Document
from sidecar.core.key.json_members import arrange, members_of, parse
from sidecar.core.key.json_rule import BLANKS, first
from sidecar.core.key.json_scanner import Scanner
from sidecar.core.key.multipart import Multipart
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.model import Facts, Reading

__all__ = ["SMALL", "BodyObserver", "Unsafe", "observer", "parse", "read"]

SMALL = 256 * 1024
"""The largest JSON body that is brought to canonical form, in bytes. Of a larger one, the raw bytes count."""

_NOTHING: Members = {}
_PERSON = b"sidecar body"

_encode = msgspec.json.Encoder().encode


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
        if endpoint.body is BodyForm.TEXT:
            return _read_text(body, endpoint)
        if endpoint.body is BodyForm.NONE and not body:
            return Reading(b"none", b"", endpoint.read(_NOTHING))
        if endpoint.body is not BodyForm.MULTIPART and endpoint.body is not BodyForm.DOCUMENT:
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
    if endpoint.body is BodyForm.DOCUMENT:
        return Document(endpoint, content_type, digest_key)
    return (_PassingText if endpoint.body is BodyForm.TEXT else _PassingBytes)(endpoint, digest_key)


def whole(body: bytes, endpoint: Endpoint) -> bytes:
    """
    The canonical form of *body* with everything that does not count in the key. Two bodies with one key are the same
    request only if this is equal, too. ``b""`` for a body of which every byte counts.
    """
    if endpoint.body is BodyForm.DOCUMENT:
        return body
    if endpoint.body is not BodyForm.JSON or len(body) > SMALL:
        return b""
    members = members_of(body, endpoint.listed)
    return b"" if isinstance(members, Unsafe) else _encode(arrange(members, endpoint.shape, all_of_it=True))


def _read_json(body: bytes, endpoint: Endpoint) -> Reading:
    members = members_of(body, endpoint.listed)
    if isinstance(members, Unsafe):
        return Reading(b"json", b"", Facts(bypass=members))
    facts = endpoint.read(members)
    tag = b"json-list" if endpoint.listed and body.lstrip(BLANKS)[:1] == b"[" else b"json"
    return Reading(tag, b"" if facts.bypass else _encode(arrange(members, endpoint.shape)), facts)


def _read_text(body: bytes, endpoint: Endpoint) -> Reading:
    try:
        facts = endpoint.read({"text": body.decode()})
    except UnicodeDecodeError:
        facts = Facts(bypass=Unsafe.INVALID_UTF8)
    return Reading(b"text", b"" if facts.bypass else body, facts)


class _PassingJson:
    """A JSON object above ``SMALL``: its bytes are the material, its short members give the facts."""

    def __init__(self, endpoint: Endpoint, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._digest = blake2b(key=digest_key, digest_size=32, person=_PERSON)
        self._scanner = Scanner()
        self._blank = bool(endpoint.listed)  # nothing but blanks so far, and it matters what comes first
        self._is_list = False

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._blank and (text := chunk.lstrip(BLANKS)):
            self._blank = False
            self._is_list = text[:1] == b"["
            if self._is_list:
                self._scanner.feed(b'{"%b":' % self._endpoint.listed.encode())
        self._scanner.feed(chunk)

    def reading(self) -> Reading:
        if self._is_list:
            self._is_list = False
            self._scanner.feed(b"}")
            if self._scanner.names != {self._endpoint.listed}:
                return Reading(b"json-digest", b"", Facts(bypass=self._scanner.fault or Unsafe.INVALID_JSON))
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
        self._parts = Multipart(content_type, digest_key, frozenset(endpoint.shape.inside))

    def feed(self, chunk: bytes) -> None:
        self._parts.feed(chunk)

    def reading(self) -> Reading:
        if self._parts.fault is not None:
            return Reading(b"multipart", b"", Facts(bypass=self._parts.fault))
        members, shape = self._parts.members(), self._endpoint.shape
        for name in shape.inside.keys() & members.keys():
            text = members[name]
            found = parse(text.encode()) if isinstance(text, str) else Unsafe.INVALID_MULTIPART
            if isinstance(found, Unsafe):
                return Reading(b"multipart", b"", Facts(bypass=found))
            members[name] = found
        facts = self._endpoint.read(members)
        fields: list[tuple[str, object]] = [
            (name, arrange(members[name], shape.inside[name]) if name in shape.inside and name in members else value)
            for name, value in self._parts.fields(shape.drop)
        ]
        return Reading(b"multipart", b"" if facts.bypass else _encode(fields), facts)


class _PassingText:
    """A text above ``SMALL`` is not read: what decides would have to be searched for in all of it."""

    def __init__(self, _endpoint: Endpoint, _digest_key: bytes) -> None:
        pass

    def feed(self, chunk: bytes) -> None:
        pass

    def reading(self) -> Reading:
        return Reading(b"text", b"", Facts(bypass=Unsafe.UNREADABLE_MEMBER))


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
