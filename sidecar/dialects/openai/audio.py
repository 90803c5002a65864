"""
Answers about sound: transcriptions and translations, and speech.

The rule: any proxy may answer with text, so a text is a transcription only in the form that was asked for, and speech
is only what its content type calls sound. Formats as in OpenAI's API reference ("Create transcription", "Create
speech").
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

import msgspec

from sidecar.core.dialect import Answers, Completeness
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form
from sidecar.dialects import infrastructure
from sidecar.dialects.plain import ErrorMembers, denies, document, failure_of, is_utf8, sound

_JSON: Final = frozenset({"", "json", "verbose_json", "diarized_json"})
"""Formats that are an object with a ``text``; the first where the caller names none."""

_MARK: Final = b"\xef\xbb\xbf"

_CUE: Final = re.compile(rb"\s*+\d++[^\S\n]*+\n\s*+\d++:\d\d:\d\d[,.]\d++[ \t]*+-->")
"""How subtitles begin (SubRip): a number, and from when to when."""

_SUBTITLES: Final = re.compile(rb"WEBVTT(?:[ \t\r\n]|\Z)")
"""How WebVTT begins (W3C WebVTT, 4.1)."""

_MARKUP: Final = re.compile(rb"\s*+<(?:!doctype|html|\?xml|head|body)", re.IGNORECASE)

_PHRASES: Final = frozenset(status.phrase.lower() for status in HTTPStatus if status >= 400)

_PROXY: Final = re.compile(
    r"upstream connect error|upstream request timeout|upstream max stream duration|no healthy upstream|stream timeout"
    r"|rbac: access denied|ext_authz|no available server|404 page not found|default backend - 404|error code: \d{3,4}\b"
)
"""How plain-text errors of proxies begin: Envoy, Traefik, Go's, ingress-nginx, Cloudflare."""

_LONGEST_COMPLAINT: Final = 4 * infrastructure.MOST_CHARACTERS + 64
"""Bytes, with blanks around them. A character has four at most."""

_SOUND: Final = frozenset({"application/octet-stream", "application/ogg", "binary/octet-stream"})


class _Transcription(ErrorMembers, kw_only=True, gc=False):
    text: str


_TRANSCRIPTION: Final = msgspec.json.Decoder(_Transcription)


def _complete_text(body: bytes, form: Form, facts: Facts, _media: str = "") -> Completeness:
    """Whether *body* is a transcription in the format that was asked for."""
    if form is not Form.WHOLE:
        return Completeness.UNREADABLE
    if facts.format in _JSON:
        try:
            found = _TRANSCRIPTION.decode(body)
        except UNREADABLE:
            return failure_of(body)
        if denies(found):
            return Completeness.FAILED
        return Completeness.WHOLE if is_utf8(body) else Completeness.UNREADABLE
    if not body:
        return Completeness.TRUNCATED
    text = body.removeprefix(_MARK)
    match facts.format:
        case "srt":
            whole = not text.strip() or _CUE.match(text) is not None
        case "vtt":
            whole = _SUBTITLES.match(text) is not None
        case "text":
            whole = text.lstrip()[:1] not in {b"{", b"["} and not _is_of_proxy(text)
        case _:
            whole = False
    return Completeness.WHOLE if whole else failure_of(body)


def _is_of_proxy(text: bytes) -> bool:
    """Whether a text is known as a proxy's. A person may have said just that: then it is fetched each time."""
    if _MARKUP.match(text):
        return True
    read = text[:_LONGEST_COMPLAINT].decode(errors="replace")
    if len(text) <= _LONGEST_COMPLAINT and infrastructure.complains(read):
        return True
    said = read[:256].strip().lower()
    return said.rstrip(".!").lstrip("0123456789 ") in _PHRASES or _PROXY.match(said) is not None


def _complete_sound(body: bytes, form: Form, _facts: Facts, media: str) -> Completeness:
    """Whether *body* is sound, by its type."""
    if form is not Form.WHOLE:
        return Completeness.UNREADABLE
    if not body:
        return Completeness.TRUNCATED
    return Completeness.WHOLE if media.startswith("audio/") or media in _SOUND else failure_of(body)


TRANSCRIPTION: Final[Answers] = document(_complete_text)

SPEECH: Final[Answers] = sound(_complete_sound)
