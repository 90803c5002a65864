"""
Reads a multipart/form-data body (RFC 7578) while it passes.

The rule: what is found does not depend on how the bytes were cut, and a body that two parsers might take apart
differently is refused as invalid. Files are digested, not held; text fields are held up to a bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any

from sidecar.core.key.unsafe import Unsafe

KEEP_ALL = 256 * 1024
"""The most bytes of all names and text fields together."""

_HEADERS = 8 * 1024
_PARTS = 1024
_PERSON = b"sidecar file"

_TEXT = rb'"((?:[^"\\\r\n]|\\.)*+)"|([^\s"(),/:;<=>?@\[\\\]{}]++)'
_BOUNDARY = re.compile(rb"(?i:;\s*+boundary)=(?:" + _TEXT + rb")")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]++):([^\r\n]*+)")
_PARAMETER = re.compile(rb"\s*+;\s*+([A-Za-z*-]++)=(?:" + _TEXT + rb")")
_PLAIN = re.compile(rb'(?i:text/plain(?:\s*+;\s*+charset=(?:utf-8|us-ascii|"utf-8"|"us-ascii"))?)')
_JSON = re.compile(rb'(?i:application/json(?:\s*+;\s*+charset=(?:utf-8|"utf-8"))?)')
_IDENTITIES = {b"7bit", b"8bit", b"binary"}

FormField = tuple[str, str | dict[str, str]]
"""A name with a text, or with a file's ``digest`` (hexadecimal, 32 bytes) and lower-case ``extension``."""


def file_digest(digest_key: bytes) -> blake2b:
    """The digest of a file's bytes, before the first of them."""
    return blake2b(key=digest_key, digest_size=32, person=_PERSON)


class _Part:
    """The part that is being read. *file* is the digest of a file so far; None for a text field."""

    def __init__(self, name: str, extension: str, file: blake2b | None, content_type: bytes = b"") -> None:
        self.name = name
        self.extension = extension
        self.file = file
        self.content_type = content_type
        self.text = bytearray()


class Multipart:
    """
    The parts of one body.

    *content_type* is the header's value; *digest_key* keys the digests of the files. ``feed`` takes the body in
    order, cut anywhere, and never raises. Afterwards ``fault`` says what is wrong with the body, None when nothing is.
    *content_types* has one for each file, ``b""`` where it says none. *objects* are text fields that are JSON objects,
    and may say so in their own content type.
    """

    __slots__ = (
        "_at", "_data", "_delimiter", "_digest_key", "_fault", "_objects", "_part", "_room", "_state", "content_types",
        "fields_in_order",
    )  # fmt: skip

    def __init__(self, content_type: bytes, digest_key: bytes, objects: AbstractSet[str] = frozenset()) -> None:
        boundary = _boundary(content_type)
        self._delimiter = b"\r\n--" + boundary
        self._digest_key = digest_key
        self._objects = objects
        self._fault = None if boundary else Unsafe.INVALID_MULTIPART
        # The first delimiter needs no line before it: it gets one here, and then is like the others.
        self._data = b"\r\n"
        self._at = 0
        # A function, not a bound method: an observer that refers to itself would be kept, with the body's last bytes.
        self._state: Callable[[Multipart], bool] = Multipart._preamble
        self._part = _Part("", "", None)
        self._room = KEEP_ALL
        self.fields_in_order: list[FormField] = []
        self.content_types: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Multipart {self._fault or 'sound'}, {len(self.fields_in_order)} fields>"

    @property
    def fault(self) -> Unsafe | None:
        """What makes the body unsafe, once all of it has been fed."""
        if self._fault is None and self._state != Multipart._epilogue:
            return Unsafe.INVALID_MULTIPART
        return self._fault

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes of the body."""
        if self._passes(chunk):
            return
        self._data += chunk
        while self._fault is None and self._state(self):
            pass
        # what has been read, or never will be, is not held any longer
        self._data = self._data[self._at :] if self._fault is None else b""
        self._at = 0

    def fields(self, drop: AbstractSet[str]) -> list[FormField]:
        """The fields by name, less those in *drop*; those of one name keep their order."""
        return sorted((field for field in self.fields_in_order if field[0] not in drop), key=lambda field: field[0])

    def members(self) -> dict[str, Any]:
        """The text fields: a str each, or a list where the name is repeated."""
        members: dict[str, Any] = {}
        for name, value in self.fields_in_order:
            if isinstance(value, str):
                members[name] = value if name not in members else [*_listed(members[name]), value]
        return members

    def _passes(self, chunk: bytes) -> bool:
        """
        Take a chunk within a file without copying it, if no delimiter ends in it. Returns whether it was taken, or need
        not be.
        """
        if self._fault is not None:
            return True
        file, held, size = self._part.file, self._data, len(self._delimiter)
        if file is None or self._state != Multipart._content or len(chunk) < 4 * size:
            return False
        if self._delimiter in chunk or self._delimiter in held + chunk[: size - 1]:
            return False
        file.update(held)
        file.update(memoryview(chunk)[: 1 - size])
        self._data = chunk[1 - size :]
        return True

    # Each state takes what it can from the data, and returns whether the next state may go on with the rest.

    def _preamble(self) -> bool:
        if len(self._data) < len(self._delimiter):
            return False
        if not self._data.startswith(self._delimiter):
            return self._fail()
        self._at = len(self._delimiter)
        self._state = Multipart._after_delimiter
        return True

    def _after_delimiter(self) -> bool:
        after = self._data[self._at : self._at + 2]
        if len(after) < 2:
            return False
        self._at += 2
        if after == b"--":
            self._state = Multipart._epilogue
        elif after == b"\r\n" and len(self.fields_in_order) < _PARTS:
            self._state = Multipart._headers
        else:  # padding, or a longer line that only begins like the delimiter: parsers differ
            return self._fail()
        return True

    def _headers(self) -> bool:
        end = self._data.find(b"\r\n\r\n", self._at, self._at + _HEADERS)
        if end < 0:
            return self._fail() if len(self._data) - self._at >= _HEADERS else False
        if not self._open(self._data[self._at : end].split(b"\r\n")):
            return self._fail()
        self._at = end + 4
        self._state = Multipart._content
        return True

    def _content(self) -> bool:
        end = self._data.find(self._delimiter, self._at)
        if end < 0:  # what might be the beginning of the delimiter is kept for the next chunk
            safe = max(self._at, len(self._data) - len(self._delimiter) + 1)
            self._take(self._data[self._at : safe])
            self._at = safe
            return False
        self._take(self._data[self._at : end])
        self._at = end + len(self._delimiter)
        self._state = Multipart._after_delimiter
        return self._close()

    def _epilogue(self) -> bool:
        if self._data[self._at :] not in {b"", b"\r", b"\r\n"}:
            self._fail()
        return False

    def _open(self, lines: list[bytes]) -> bool:
        """Begin a part by its header lines; False where they are not plain form-data."""
        headers: dict[bytes, bytes] = {}
        for line in lines:
            found = _FIELD.fullmatch(line)
            if found is None or found[1].lower() in headers:
                return False
            headers[found[1].lower()] = found[2].strip(b" \t")
        disposition = headers.pop(b"content-disposition", b"")
        encoding = headers.pop(b"content-transfer-encoding", b"binary").lower()
        if encoding not in _IDENTITIES or not headers.keys() <= {b"content-type", b"content-length"}:
            return False
        parameters = _parameters(disposition)
        if parameters is None or b"name" not in parameters:
            return False
        name = _text(parameters[b"name"])
        extensions = {_extension(parameters[key]) for key in (b"filename", b"filename*") if key in parameters}
        if name is None or len(extensions) > 1:
            return False
        said = headers.get(b"content-type", b"text/plain")
        if not extensions and _PLAIN.fullmatch(said) is None and not (name in self._objects and _JSON.fullmatch(said)):
            return False
        self._room -= len(name)
        file = file_digest(self._digest_key) if extensions else None
        self._part = _Part(name, extensions.pop() if extensions else "", file, headers.get(b"content-type", b""))
        return True

    def _take(self, piece: bytes) -> None:
        part = self._part
        if part.file is not None:
            part.file.update(piece)
            return
        self._room -= len(piece)
        if self._room < 0:
            self._fault = Unsafe.UNREADABLE_MEMBER
        else:
            part.text += piece

    def _close(self) -> bool:
        part = self._part
        if part.file is not None:
            self.fields_in_order.append((part.name, {"digest": part.file.hexdigest(), "extension": part.extension}))
            self.content_types.append(part.content_type)
        elif (text := _text(part.text)) is not None:
            self.fields_in_order.append((part.name, text))
        else:
            self._fault = Unsafe.INVALID_UTF8
        if self._room < 0:
            self._fault = Unsafe.UNREADABLE_MEMBER
        return True

    def _fail(self) -> bool:
        self._fault = Unsafe.INVALID_MULTIPART
        return False


def _boundary(content_type: bytes) -> bytes:
    """The boundary that a content type names; ``b""`` if it is not form-data, or names none or several."""
    kind = content_type.partition(b";")[0].strip().lower()
    found = _BOUNDARY.findall(content_type)
    if kind != b"multipart/form-data" or len(found) != 1:
        return b""
    boundary: bytes = found[0][0] or found[0][1]
    return boundary if len(boundary) <= 70 and b"\\" not in boundary and not boundary.endswith(b" ") else b""


def _parameters(disposition: bytes) -> dict[bytes, bytes] | None:
    """The parameters of a form-data disposition; None if it is none, or if a parameter is odd or repeated."""
    kind, at = disposition[:9], 9
    parameters: dict[bytes, bytes] = {}
    while found := _PARAMETER.match(disposition, at):
        name = found[1].lower()
        if name in parameters:
            return None
        parameters[name] = found[3] if found[2] is None else found[2]
        at = found.end()
    known = parameters.keys() <= {b"name", b"filename", b"filename*"}
    return parameters if kind.lower() == b"form-data" and at == len(disposition) and known else None


def _extension(filename: bytes) -> str:
    """What follows the last dot of a file's name, in lower case; ``""`` without one."""
    return filename.rpartition(b".")[2].lower().decode("latin-1") if b"." in filename else ""


def _text(raw: bytes | bytearray) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
