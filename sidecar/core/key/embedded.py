"""
Takes documents out of a JSON text while it passes: their base64 is decoded and digested, and the rest is held.

The rule: in the rest a number in quotes stands for each document, so a real parser reads it, and finds all that would
be wrong with the text as a whole. What is found does not depend on how the bytes were cut. Base64 counts as a document
only if every decoder finds the same bytes in it.
"""

from __future__ import annotations

import re
from binascii import b2a_base64

import msgspec
from pybase64 import b64decode

from sidecar.core.dialect import Documents
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.key.multipart import file_digest
from sidecar.core.key.unsafe import Unsafe

KEEP_ALL = 256 * 1024
"""The most bytes of a body beside its documents."""

_STEP = 64 * 1024
"""Bytes of base64 that are decoded at once; whole groups of four."""

_TOKEN = re.compile(rb"[\[\]{}:,]|[^\[\]{}:, \t\n\r]++")
_PAD, _BACKSLASH, _QUOTE = b'=\\"'
_OBJECT, _ARRAY, _COLON, _END_OBJECT, _END_ARRAY = b"{", b"[", b":", b"}", b"]"


class Base64Digest:
    """
    The digest of what a passing base64 text (RFC 4648, 4) decodes to; *sound* while the text is plain base64. It holds
    neither quotes nor backslashes.
    """

    __slots__ = ("_begun", "_digest", "_padded", "sound")

    def __init__(self, digest_key: bytes) -> None:
        self._digest = file_digest(digest_key)
        self._begun = b""
        self._padded = False
        self.sound = True

    def __repr__(self) -> str:
        return f"<Base64Digest{' sound' * self.sound}>"

    def feed(self, text: memoryview) -> None:
        """The next bytes of the text."""
        if self._begun:
            missing = 4 - len(self._begun)
            self._begun += bytes(text[:missing])
            text = text[missing:]
            if len(self._begun) < 4:
                return
            self._decode(memoryview(self._begun))
        end = len(text) & ~3
        for at in range(0, end, _STEP):
            if not self.sound:
                return
            self._decode(text[at : min(at + _STEP, end)])
        self._begun = bytes(text[end:])

    def result(self) -> str | None:
        """The digest, hexadecimal; None if the text is not plain base64."""
        return self._digest.hexdigest() if self.sound and not self._begun else None

    def _decode(self, groups: memoryview) -> None:
        try:
            data = b64decode(groups, validate=True)
        except ValueError:
            self.sound = False
            return
        if self._padded:
            self.sound = False
        elif groups[-1] == _PAD:  # decoders differ in whether the bits behind the last byte may be set
            self._padded = True
            self.sound = b2a_base64(data[-(len(data) % 3) :], newline=False) == groups[-4:]
        self._digest.update(data)


class EmbeddedDocuments:
    """
    The documents of one body, and its *rest*.

    ``feed`` takes the body in order, cut anywhere, and never raises. Afterwards *fault* says why the body cannot be
    read, None where only the parser of the rest can find a reason. *digests* are those of the documents, in their
    order; the text ``"0"`` stands for the first one.
    """

    __slots__ = (
        "_colon",
        "_digest_key",
        "_document",
        "_documents",
        "_name",
        "_open",
        "_start",
        "digests",
        "fault",
        "rest",
    )

    def __init__(self, documents: Documents, digest_key: bytes) -> None:
        self.fault: Unsafe | None = None
        self.rest = bytearray()
        self.digests: list[str] = []
        self._documents = documents
        self._digest_key = digest_key
        self._document: Base64Digest | None = None
        self._start = -1  # where in the rest the string begins that is being read
        self._open: list[tuple[bytes, str]] = []  # the brackets that are open, each with the name of the member
        self._name = ""
        self._colon = False

    def __repr__(self) -> str:
        return f"<EmbeddedDocuments {self.fault or 'sound'}, {len(self.digests)} found>"

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes of the body."""
        at = 0
        while at < len(chunk) and self.fault is None:
            if self._document is not None:
                at = self._follow_document(self._document, chunk, at)
            elif self._start >= 0:
                at = self._follow_string(chunk, at)
            else:
                at = self._follow_structure(chunk, at)

    def _hold(self, piece: bytes) -> bool:
        if len(self.rest) + len(piece) > KEEP_ALL:
            self.fault = Unsafe.UNREADABLE_MEMBER
            return False
        self.rest += piece
        return True

    def _follow_structure(self, chunk: bytes, at: int) -> int:
        """Up to the next string."""
        end = chunk.find(b'"', at)
        stop = len(chunk) if end < 0 else end
        if stop - at > KEEP_ALL or not self._hold(chunk[at:stop]):
            self.fault = Unsafe.UNREADABLE_MEMBER
            return stop
        for token in _TOKEN.findall(chunk, at, stop):
            if token in {_OBJECT, _ARRAY}:
                self._open.append((token, self._name if self._colon else ""))
            elif token in {_END_OBJECT, _END_ARRAY} and self._open:
                self._open.pop()
            self._colon = token == _COLON
        if end < 0:
            return stop
        if self._colon and self._name in self._documents.embedded and self._is_place():
            self._document = Base64Digest(self._digest_key)
        else:
            self._start = len(self.rest)
            self._hold(b'"')
        return stop + 1

    def _is_place(self) -> bool:
        """Whether a document may stand here: at the top, in a named object, or in an object of a named array."""
        match self._open:
            case [(b"{", "")]:
                return True
            case [(b"{", ""), (b"{", name)] | [(b"{", ""), (b"[", name), (b"{", "")]:
                return name in self._documents.inside
            case _:
                return False

    def _follow_string(self, chunk: bytes, at: int) -> int:
        while True:
            end = chunk.find(b'"', at)
            stop = len(chunk) if end < 0 else end + 1
            if stop - at > KEEP_ALL or not self._hold(chunk[at:stop]):
                self.fault = Unsafe.UNREADABLE_MEMBER
                return stop
            if end < 0:
                return stop
            if not self._is_escaped():
                break
            at = stop
        if not self._colon:
            self._name = _text(bytes(self.rest[self._start :]))
        self._colon = False
        self._start = -1
        return stop

    def _is_escaped(self) -> bool:
        """Whether the quote that was held last stands behind an odd number of backslashes."""
        before = at = len(self.rest) - 2
        while at > self._start and self.rest[at] == _BACKSLASH:
            at -= 1
        return (before - at) % 2 == 1

    def _follow_document(self, document: Base64Digest, chunk: bytes, at: int) -> int:
        end = chunk.find(b'"', at)
        stop = len(chunk) if end < 0 else end
        if chunk.find(b"\\", at, stop) < 0:
            document.feed(memoryview(chunk)[at:stop])
        else:  # an escape
            document.sound = False
        if not document.sound:
            self.fault = Unsafe.INVALID_BASE64
        elif end >= 0:
            digest = document.result()
            if digest is None:
                self.fault = Unsafe.INVALID_BASE64
            else:
                self._hold(b'"%d"' % len(self.digests))
                self.digests.append(digest)
            self._document = None
            self._colon = False
        return stop + 1


def _text(raw: bytes) -> str:
    """The text of a JSON string; ``""`` where it is none, which the parser of the rest finds, too."""
    try:
        return msgspec.json.decode(raw, type=str)
    except UNREADABLE:
        return ""
