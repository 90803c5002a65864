"""
The operations of the OpenAI family, by method and path below the version: ``chat/completions``.

The rule: a path is matched whole and as it was sent. Nothing is decoded or cut off. So a path that a service or proxy
may read in another way (``;``, ``%0a``, a further segment) is never taken for a cached operation.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

from sidecar.core.dialect import BodyForm, Endpoint, Kind
from sidecar.dialects import plain, results
from sidecar.dialects.openai import audio as openai_audio
from sidecar.dialects.openai import chat as openai_chat
from sidecar.dialects.openai import completions as openai_completions
from sidecar.dialects.openai import facts as openai_facts
from sidecar.dialects.openai import responses as openai_responses
from sidecar.dialects.openai import shapes as openai_shapes

CHAT = Endpoint(
    "chat",
    Kind.CHAT,
    BodyForm.JSON,
    openai_facts.chat,
    openai_chat.ANSWERS,
    openai_shapes.CHAT,
    openai_shapes.ATTRIBUTION,
)

COMPLETIONS = Endpoint(
    "completions",
    Kind.CHAT,
    BodyForm.JSON,
    openai_facts.completions,
    openai_completions.ANSWERS,
    openai_shapes.COMPLETIONS,
    openai_shapes.ATTRIBUTION,
)

RESPONSES = Endpoint(
    "responses",
    Kind.CHAT,
    BodyForm.JSON,
    openai_facts.responses,
    openai_responses.ANSWERS,
    openai_shapes.RESPONSES,
    openai_shapes.ATTRIBUTION,
)

INPUT_TOKENS = Endpoint(
    "input-tokens",
    Kind.COUNT,
    BodyForm.JSON,
    openai_facts.input_tokens,
    results.COUNT,
    openai_shapes.INPUT_TOKENS,
    generating=False,
)

EMBEDDINGS = Endpoint(
    "embeddings",
    Kind.EMBEDDINGS,
    BodyForm.JSON,
    openai_facts.embeddings,
    results.EMBEDDINGS,
    openai_shapes.EMBEDDINGS,
    openai_shapes.ATTRIBUTION,
    generating=False,
)

MODERATIONS = Endpoint(
    "moderations",
    Kind.MODERATION,
    BodyForm.JSON,
    openai_facts.moderations,
    results.MODERATIONS,
    openai_shapes.MODERATIONS,
    generating=False,
)

TRANSCRIPTIONS = Endpoint(
    "transcriptions",
    Kind.TRANSCRIPTION,
    BodyForm.MULTIPART,
    openai_facts.transcription,
    openai_audio.TRANSCRIPTION,
    generating=False,
)

TRANSLATIONS = Endpoint(
    "translations",
    Kind.TRANSLATION,
    BodyForm.MULTIPART,
    openai_facts.transcription,
    openai_audio.TRANSCRIPTION,
    generating=False,
)

SPEECH = Endpoint("speech", Kind.SPEECH, BodyForm.JSON, openai_facts.speech, openai_audio.SPEECH, openai_shapes.SPEECH)

MODELS = Endpoint("models", Kind.MODELS, BodyForm.NONE, openai_facts.nothing, results.MODELS, generating=False)

MODEL = replace(MODELS, answers=results.MODEL)

IMAGES = Endpoint("images", Kind.OTHER, BodyForm.RAW, openai_facts.nothing, plain.OPAQUE, bypass="images")

STATEFUL = Endpoint("stateful", Kind.OTHER, BodyForm.RAW, openai_facts.nothing, plain.OPAQUE, bypass="stateful")

_OPERATIONS = MappingProxyType(
    {
        (b"POST", "chat/completions"): CHAT,
        (b"POST", "completions"): COMPLETIONS,
        (b"POST", "responses"): RESPONSES,
        (b"POST", "responses/input_tokens"): INPUT_TOKENS,
        (b"POST", "embeddings"): EMBEDDINGS,
        (b"POST", "moderations"): MODERATIONS,
        (b"POST", "audio/transcriptions"): TRANSCRIPTIONS,
        (b"POST", "audio/translations"): TRANSLATIONS,
        (b"POST", "audio/speech"): SPEECH,
        (b"GET", "models"): MODELS,
    }
)

_ONE_MODEL = re.compile(r"models/[A-Za-z0-9][\w.:-]*", re.ASCII)

_STATEFUL = (
    "assistants/", "threads/", "files/", "uploads/", "batches/", "fine_tuning/", "vector_stores/", "conversations/",
    "responses/", "realtime/", "live/", "containers/", "skills/", "evals/", "videos/", "webhook_endpoints/",
    "audio/voices/", "audio/voice_consents/",
)  # fmt: skip
"""Everything else at or below these paths stores something at the service, or reads what is stored."""


def find(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, relative to the version, or None where the tables don't know it."""
    known = _OPERATIONS.get((method, path))
    if known is not None:
        return known
    if method == b"GET" and _ONE_MODEL.fullmatch(path):
        return MODEL
    below = path + "/"
    if method == b"DELETE" or below.startswith(_STATEFUL):
        return STATEFUL
    if below.startswith("images/"):
        return IMAGES
    return None
