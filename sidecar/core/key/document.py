"""
Reads a body that is, or holds, a document: its bytes, base64 in JSON, a file in a form, or a URL of it.

The rule: of a document its decoded bytes count, so it has one reading in each of these forms; all else in a body counts
as it stands. Where services might take another part of the body for the document, or decode it in another way, the
body is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any, Protocol

import msgspec

from sidecar.core.dialect import Documents, Endpoint, Members
from sidecar.core.key.embedded import EmbeddedDocuments
from sidecar.core.key.json_members import arrange, parse
from sidecar.core.key.multipart import Multipart, file_digest
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.key.unsigned import unsigned
from sidecar.core.model import Facts, Reading

_URL_SOURCE = "url-source"
_NOWHERE = Documents(frozenset(), frozenset())
_NOTHING: Members = {}
_PERSON = b"sidecar url"

_encode = msgspec.json.Encoder().encode
_media_type = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9a-z-]++/[!#$%&'*+.^_`|~0-9a-z-]++)?+").fullmatch
_blanks = re.compile(rb"(?:\xef\xbb\xbf)?+[ \t\n\r]*+").match
_seen_in_bytes = re.compile(
    r"(?:application/(?:octet-stream|(?:x-)?pdf|vnd\..*|msword)|binary/octet-stream|(?:image|audio|video)/.*)?"
).fullmatch
"""Media types of content that is known by its first bytes, whatever type it is given; also none."""


class _DocumentForm(Protocol):
    """A body in one form, while it passes."""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body."""

    def found(self) -> _Found | str:
        """What is in the whole body, or why that is not known."""


class _Found:
    """What is in a body: *members* for the dialect, *material* that counts, *links*: documents named by their URL."""

    def __init__(self, members: Members, material: object, *, links: bool = False) -> None:
        self.members = members
        self.material = material
        self.links = links


class Document:
    """
    The observer of one body; the content type tells its form. *digest_key*, up to 64 bytes, keys the digests. ``feed``
    takes the body in order, cut anywhere.
    """

    __slots__ = ("_endpoint", "_form")

    def __init__(self, endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._form = _form_of(endpoint, content_type, digest_key)

    def __repr__(self) -> str:
        return f"<Document {type(self._form).__name__}>"

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        self._form.feed(chunk)

    def reading(self) -> Reading:
        """The reading of the whole body, once all of it has been fed."""
        found = self._form.found()
        if isinstance(found, str):
            return Reading(b"document", b"", Facts(bypass=found))
        facts = self._endpoint.read(found.members)
        if found.links:
            facts = msgspec.structs.replace(facts, needs=(*facts.needs, _URL_SOURCE))
        return Reading(b"document", b"" if facts.bypass else _encode(found.material), facts)


def _form_of(endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> _DocumentForm:
    media = content_type.partition(b";")[0].strip().lower()
    if media == b"multipart/form-data":
        return _InForm(endpoint, content_type, digest_key)
    if media.startswith(b"multipart/") or not _media_type(media):
        return _Unclear()
    if media in {b"application/json", b"text/json"} or media.endswith(b"+json"):
        return _InJson(endpoint, digest_key)
    return _Bare(media, digest_key)


class _Unclear:
    """A body of which nobody can tell how it is read."""

    def feed(self, chunk: bytes) -> None:
        pass

    def found(self) -> str:
        return Unsafe.AMBIGUOUS_DOCUMENT


class _Bare:
    """A body that is the document. What begins like JSON, and is not said to be something else, may be JSON."""

    def __init__(self, media: bytes, digest_key: bytes) -> None:
        self._media = media
        self._digest: blake2b = file_digest(digest_key)
        self._begun = bool(media)
        self._is_json = False

    def feed(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._begun:
            return
        blanks = _blanks(chunk)
        assert blanks is not None
        if blanks.end() < len(chunk):
            self._begun = True
            self._is_json = chunk[blanks.end()] in b"{["

    def found(self) -> _Found | str:
        if self._is_json:
            return Unsafe.AMBIGUOUS_DOCUMENT
        return _Found(_NOTHING, _alone(self._digest.hexdigest(), self._media))


class _InJson:
    """A JSON object that holds documents or names them."""

    def __init__(self, endpoint: Endpoint, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._documents = endpoint.documents or _NOWHERE
        self._digest_key = digest_key
        self._scanner = EmbeddedDocuments(self._documents, digest_key)
        self.feed = self._scanner.feed

    def found(self) -> _Found | str:
        if self._scanner.fault is not None:
            return self._scanner.fault
        members = parse(bytes(self._scanner.rest))
        if isinstance(members, Unsafe):
            return members
        documents = self._documents
        if _is_misspelt(members, documents.inside):
            return Unsafe.AMBIGUOUS_DOCUMENT
        inner = [*_objects(members[name] for name in documents.inside if name in members)]
        places: list[tuple[dict[str, Any], str]] = []
        for holder in (members, *inner):
            given = [name for name in documents.embedded | documents.linked if holder.get(name) is not None]
            if len(given) > 1 or _is_misspelt(holder, documents.embedded | documents.linked):
                return Unsafe.AMBIGUOUS_DOCUMENT
            places += [(holder, name) for name in given]
        if not places:
            return Unsafe.NO_DOCUMENT
        if len(places) > 1 and any(holder is members for holder, _ in places):
            return Unsafe.AMBIGUOUS_DOCUMENT
        if any(type(holder[name]) is not str for holder, name in places):
            return "unreadable"
        for holder, name in places:
            holder[name] = self._counted(name, holder[name])
        links = any(name in documents.linked for _, name in places)
        return _Found(members, self._material(members), links=links)

    def _counted(self, name: str, value: str) -> dict[str, str]:
        """What counts of a document: its bytes, or its URL."""
        if name in self._documents.embedded:
            return {"digest": self._scanner.digests[int(value)]}
        return {"url": self._url_digest(value)}

    def _url_digest(self, url: str) -> str:
        """A URL may hold a credential in its own way, so only a digest of it is held."""
        return blake2b(unsigned(url).encode(), key=self._digest_key, digest_size=32, person=_PERSON).hexdigest()

    def _material(self, members: dict[str, Any]) -> object:
        """One document without anything else, wherever it stands, is that document; otherwise it stays in its place."""
        place: Any = members
        if len(members) == 1:
            [name] = members
            if name in self._documents.inside:
                place = members[name]
                place = place[0] if type(place) is list and len(place) == 1 else place
        if type(place) is dict and len(place) == 1:
            [(name, value)] = place.items()
            if name in self._documents.embedded:
                return _alone(value["digest"], b"")
        arranged = arrange(members, self._endpoint.shape)
        for name in self._documents.inside & arranged.keys():
            arranged[name] = _sorted(arranged[name])
        return arranged


class _InForm:
    """A form with one file, which is the document."""

    def __init__(self, endpoint: Endpoint, content_type: bytes, digest_key: bytes) -> None:
        self._endpoint = endpoint
        self._parts = Multipart(content_type, digest_key)
        self.feed = self._parts.feed

    def found(self) -> _Found | str:
        if self._parts.fault is not None:
            return self._parts.fault
        files = [value["digest"] for _, value in self._parts.fields_in_order if isinstance(value, dict)]
        texts = [field for field in self._parts.fields(self._endpoint.shape.drop) if isinstance(field[1], str)]
        documents = self._endpoint.documents or _NOWHERE
        alike = {name.lower() for name in documents.embedded | documents.linked | documents.inside}
        if not files:
            return Unsafe.NO_DOCUMENT
        if len(files) > 1 or any(name.lower() in alike for name, _ in texts):
            return Unsafe.AMBIGUOUS_DOCUMENT
        [content_type] = self._parts.content_types
        media = content_type.partition(b";")[0].strip().lower()
        return _Found(self._parts.members(), _alone(files[0], media, texts))


def _alone(digest: str, media: bytes, texts: list[Any] | None = None) -> list[Any]:
    """
    A document that stands for itself. Its media type counts where it may change how the service reads it: text is not
    known by its first bytes.
    """
    said = media.decode("latin-1")
    counted = "" if _seen_in_bytes(said) else said
    if texts:
        return [digest, counted, texts]
    return [digest, counted] if counted else [digest]


def _is_misspelt(holder: Members, names: AbstractSet[str]) -> bool:
    """Whether a member has one of *names* in another case, which some services ignore."""
    alike = {name.lower() for name in names}
    return any(name not in names and name.lower() in alike for name in holder)


def _objects(values: Iterable[Any]) -> Iterable[dict[str, Any]]:
    """The objects among *values*, and in the arrays among them."""
    for value in values:
        for each in value if type(value) is list else (value,):
            if type(each) is dict:
                yield each


def _sorted(value: Any) -> Any:
    """An object, or the objects of an array, with their members by name."""
    if type(value) is list:
        return [_sorted(each) if type(each) is dict else each for each in value]
    return dict(sorted(value.items())) if type(value) is dict else value
