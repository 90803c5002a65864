import pytest

from sidecar.core.dialect import BodyForm, Kind
from sidecar.dialects.openai import endpoints


@pytest.mark.parametrize(
    ("endpoint", "kind", "body", "generating", "deterministic"),
    [
        (endpoints.CHAT, Kind.CHAT, BodyForm.JSON, True, False),
        (endpoints.COMPLETIONS, Kind.CHAT, BodyForm.JSON, True, False),
        (endpoints.RESPONSES, Kind.CHAT, BodyForm.JSON, True, False),
        (endpoints.SPEECH, Kind.SPEECH, BodyForm.JSON, True, False),
        (endpoints.INPUT_TOKENS, Kind.COUNT, BodyForm.JSON, False, True),
        (endpoints.EMBEDDINGS, Kind.EMBEDDINGS, BodyForm.JSON, False, True),
        (endpoints.MODERATIONS, Kind.MODERATION, BodyForm.JSON, False, True),
        (endpoints.TRANSCRIPTIONS, Kind.TRANSCRIPTION, BodyForm.MULTIPART, False, True),
        (endpoints.TRANSLATIONS, Kind.TRANSLATION, BodyForm.MULTIPART, False, True),
        (endpoints.MODELS, Kind.MODELS, BodyForm.NONE, False, False),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_operations_say_what_they_are_for(endpoint, kind, body, generating, deterministic):
    """Default routes go by the kind, collection by the body's form, and cancelling by whether it generates."""
    assert (kind, body, generating) == (endpoint.kind, endpoint.body, endpoint.generating)
    assert deterministic == endpoint.read({"model": "m"}).deterministic
    assert not endpoint.bypass


EVERY = [
    endpoints.CHAT, endpoints.COMPLETIONS, endpoints.RESPONSES, endpoints.INPUT_TOKENS, endpoints.EMBEDDINGS,
    endpoints.MODERATIONS, endpoints.TRANSCRIPTIONS, endpoints.TRANSLATIONS, endpoints.SPEECH, endpoints.MODELS,
    endpoints.IMAGES, endpoints.STATEFUL,
]  # fmt: skip


@pytest.mark.parametrize("endpoint", EVERY, ids=lambda e: e.name)
def test_the_view_counts_unless_it_can_be_converted(endpoint):
    """A stream and a whole answer are one entry exactly where each can be made from the other."""
    streams = endpoint.answers.streams

    assert (streams, streams) == ("stream" in endpoint.shape.drop, "stream_options" in endpoint.shape.drop)
