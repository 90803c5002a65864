"""
The dialect of Azure's Speech service over HTTP: sound to text, and text to sound.

The rule: sound counts by its bytes, and what is said about it by its meaning. A model or voice of one's own is cached
only where the route says so. Source: REST reference of Speech to text 2024-11-15 and later, of short audio, and of
text to speech.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from msgspec import Meta, Raw

from sidecar.core.dialect import BodyForm, Completeness, Dialect, Endpoint, Kind, Members, Shape
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure.ai_services import (
    CONTENT_TYPE,
    CUSTOM_MODEL,
    OFFERS,
    STATEFUL,
    URL_SOURCE,
    dialect,
    needing,
)
from sidecar.dialects.azure.answers import Said, has, is_list, shaped
from sidecar.dialects.azure.query import canonical, values
from sidecar.dialects.openai.audio import SPEECH
from sidecar.dialects.plain import NULL

_TICKS: Final = 10_000_000
"""In a second: short audio tells its length in units of 100 nanoseconds."""

_SHORT: Final = re.compile(
    r"(?:/stt)?/speech/recognition/(?:interactive|conversation|dictation)/cognitiveservices/v1", re.ASCII
)

_SPOKEN: Final = re.compile(r"(/tts|/voice)?/cognitiveservices/v1", re.ASCII)

_VOICES: Final = re.compile(r"(?:/tts)?/cognitiveservices/voices/list", re.ASCII)

_KEPT: Final = (
    "/speechtotext/", "/texttospeech/", "/customvoice/", "/avatar/", "/videotranslation/", "/batchsynthesis/",
)  # fmt: skip
"""Below these lies what the service keeps: jobs, models of one's own, data sets, projects."""

_UNCHARGED: Final = re.compile(r"</?\s*(?:speak|voice)\b[^>]*>")
"""Tags of SSML that are not charged for."""

_LINK: Final = re.compile(r"\b(?:src|uri|url)\s*=|<!(?!--)", re.IGNORECASE)
"""What fetches something from elsewhere, or may hide that: attributes with a URL, and declarations of XML."""

_OWN_VOICE: Final = re.compile(r"ttsembedding|speakerprofileid", re.IGNORECASE)
"""What names a voice made from recordings of a person."""


class _FastTranscription(Said, gc=False, rename="camel", kw_only=True):
    duration_milliseconds: Annotated[int, Meta(ge=0)]
    combined_phrases: Raw = NULL
    phrases: Raw = NULL


class _Recognition(Said, gc=False, kw_only=True):
    RecognitionStatus: str
    Duration: Annotated[int, Meta(ge=0)] = 0


def _transcribed(found: _FastTranscription, _facts: Facts) -> Completeness:
    return has(is_list(found.combined_phrases) and is_list(found.phrases))


def _recognised(found: _Recognition, _facts: Facts) -> Completeness:
    """Whole if something was understood: silence and noise are worth another try."""
    return Completeness.WHOLE if found.RecognitionStatus == "Success" else Completeness.UNKNOWN_FINISH


def _seconds(units: int, each: int) -> Usage:
    return Usage(seconds=-(-units // each))


def _fast(members: Members) -> Facts:
    definition = members.get("definition")
    if not isinstance(definition, dict):
        return Facts(bypass="unreadable")
    given = {name.lower() for name, value in definition.items() if value}
    needs = []
    if given & {"audiourl", "audiourls", "contenturl", "contenturls"}:
        needs.append(URL_SOURCE)
    if given & {"model", "models", "customendpoint", "endpoint", "deploymentid"}:
        needs.append(CUSTOM_MODEL)
    return Facts(deterministic=True, needs=tuple(needs))


def _sound(_members: Members) -> Facts:
    return Facts(deterministic=True)


def _spoken(members: Members) -> Facts:
    text = members.get("text", "")
    needs = []
    if _LINK.search(text):
        needs.append(URL_SOURCE)
    if _OWN_VOICE.search(text):
        needs.append(CUSTOM_MODEL)
    charged = Usage(characters=len(_UNCHARGED.sub("", text).strip()))
    return Facts(deterministic=True, needs=tuple(needs), charged=charged)


def _by_voice(endpoint: Endpoint, query: bytes) -> Endpoint:
    """``deploymentId`` is a voice, ``cid`` a model of one's own."""
    own = any(values(query, name) for name in ("deploymentid", "cid", "endpointid"))
    return needing(endpoint, CUSTOM_MODEL) if own else endpoint


_FAST: Final = Endpoint(
    "fast-transcription",
    Kind.TRANSCRIPTION,
    BodyForm.MULTIPART,
    _fast,
    shaped(
        _FastTranscription,
        _transcribed,
        usage=lambda found: _seconds(found.duration_milliseconds, 1000),
    ),
    Shape(inside={"definition": Shape()}),
    generating=False,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)

_RECOGNITION: Final = Endpoint(
    "recognition",
    Kind.TRANSCRIPTION,
    BodyForm.RAW,
    _sound,
    shaped(
        _Recognition,
        _recognised,
        usage=lambda found: _seconds(found.Duration, _TICKS),
        finish=lambda found: found.RecognitionStatus,
    ),
    generating=False,
    query=canonical(),
    by_query=_by_voice,
)

_SPEECH: Final = Endpoint(
    "speech", Kind.SPEECH, BodyForm.TEXT, _spoken, SPEECH, query=canonical(), uncounted=CONTENT_TYPE, by_query=_by_voice
)

_OWN_SPEECH: Final = needing(_SPEECH, CUSTOM_MODEL)


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if method == b"POST":
        if path == "/speechtotext/transcriptions:transcribe":
            return _FAST
        if _SHORT.fullmatch(path):
            return _RECOGNITION
        if (found := _SPOKEN.fullmatch(path)) is not None:
            return _OWN_SPEECH if found[1] == "/voice" else _SPEECH
    if method == b"GET" and _VOICES.fullmatch(path):
        return OFFERS
    return STATEFUL if method == b"DELETE" or path.startswith(_KEPT) else None


AZURE_SPEECH: Final[Dialect] = dialect(
    "azure-speech",
    locate,
    hosts=(
        "stt.speech.microsoft.com", "tts.speech.microsoft.com", "voice.speech.microsoft.com",
        "stt.speech.azure.us", "tts.speech.azure.us", "voice.speech.azure.us",
        "stt.speech.azure.cn", "tts.speech.azure.cn", "voice.speech.azure.cn",
    ),
    counting=(b"content-type", b"x-microsoft-outputformat", b"pronunciation-assessment"),
    words=("SPEECH",),
)  # fmt: skip
