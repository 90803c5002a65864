"""Speech: sound by its bytes, what is said about it by its meaning, and what is charged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from sidecar.core.dialect import Completeness
from sidecar.core.key.canonical import read
from sidecar.core.model import Form, Usage
from sidecar.dialects.azure.speech import AZURE_SPEECH

FAST = "/speechtotext/transcriptions:transcribe"
SHORT = "/speech/recognition/conversation/cognitiveservices/v1"
SSML = '<speak version="1.0"><voice name="en-US-AvaNeural">{}</voice></speak>'
DONE = b'{"durationMilliseconds":1001,"combinedPhrases":[{"text":"A"}],"phrases":[{"text":"A"}]}'


def located(path, query=b""):
    found = AZURE_SPEECH.locate(b"POST", path)
    assert found is not None
    return found if found.by_query is None else found.by_query(found, query)


def form(definition, audio=b"RIFF", boundary=b"b", kind=b"", *, reverse=False):
    """A call's body and content type."""
    said = b"\r\nContent-Type: " + kind if kind else b""
    parts = [
        b'Content-Disposition: form-data; name="audio"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n' + audio,
        b'Content-Disposition: form-data; name="definition"' + said + b"\r\n\r\n" + definition,
    ]
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in (parts[::-1] if reverse else parts))
    return body + b"--" + boundary + b"--\r\n", b"multipart/form-data; boundary=" + boundary


def reading(*args, **how):
    body, content_type = form(*args, **how)
    return read(body, located(FAST), content_type, b"k")


def test_one_transcription():
    """The meaning of the definition counts, and the bytes of the sound; not how they were packed."""
    one = reading(b'{"locales":["en-US"],"profanityFilterMode":"Masked"}')

    assert "" == one.facts.bypass
    assert one.facts.deterministic
    for other in (
        reading(b'{ "profanityFilterMode":"Masked", "locales":["en-US"] }', boundary=b"xyz"),
        reading(b'{"locales":["en-US"],"profanityFilterMode":"Masked"}', kind=b"application/json", reverse=True),
        reading(b'{"locales":["en-US"],"profanityFilterMode":"Masked"}', kind=b"application/json; charset=utf-8"),
    ):
        assert one.material == other.material


def test_other_transcriptions():
    """Other sound, other languages, another order of channels."""
    found = [
        reading(b'{"locales":["en-US"],"channels":[0,1]}'), reading(b'{"locales":["en-US"],"channels":[1,0]}'),
        reading(b'{"locales":["de-DE"],"channels":[0,1]}'), reading(b'{"locales":["en-US"],"channels":[0,1]}', b"RIFX"),
    ]  # fmt: skip

    assert 4 == len({each.material for each in found})


@pytest.mark.parametrize(
    ("definition", "kind", "reason"),
    [
        (b'{"locales":["en-US"],"locales":[]}', b"", "duplicate-key"),
        (b"{", b"", "invalid-json"),
        (b"[]", b"", "not-an-object"),
        (b"{}", b"text/xml", "invalid-multipart"),
    ],
)
def test_definitions_that_are_none(definition, kind, reason):
    """What two parsers might read differently is not looked up."""
    assert reason == reading(definition, kind=kind).facts.bypass


def test_without_a_definition():
    """A definition in a file is not read, so nobody knows what it asks for."""
    body = b'--b\r\nContent-Disposition: form-data; name="definition"; filename="d.json"\r\n\r\n{}\r\n--b--\r\n'

    assert "unreadable" == read(body, located(FAST), b"multipart/form-data; boundary=b", b"k").facts.bypass


@pytest.mark.parametrize(
    ("path", "body", "expected", "usage"),
    [
        (FAST, DONE, Completeness.WHOLE, Usage(seconds=2)),
        (FAST, b'{"durationMilliseconds":0,"combinedPhrases":[],"phrases":[]}', Completeness.WHOLE, Usage()),
        (FAST, b'{"durationMilliseconds":5}', Completeness.MISSHAPEN, Usage(seconds=1)),
        (FAST, DONE[:-1], Completeness.UNREADABLE, Usage()),
        (FAST, b'{"error":{"code":"x","message":"y"}}', Completeness.FAILED, Usage()),
        (SHORT, b'{"RecognitionStatus":"Success","Offset":0,"Duration":12300000}', Completeness.WHOLE,
         Usage(seconds=2)),
        (SHORT, b'{"RecognitionStatus":"NoMatch","Offset":0,"Duration":0}', Completeness.UNKNOWN_FINISH, Usage()),
    ],
)  # fmt: skip
def test_answers(path, body, expected, usage):
    """A transcription tells how long the sound was."""
    found = located(path)
    judged = found.answers.judged(body, Form.WHOLE, found.read({"definition": {}}), "application/json")

    assert (expected, usage) == (judged.complete, judged.usage)
    assert ("NoMatch" if expected is Completeness.UNKNOWN_FINISH else "") == judged.finish


def test_what_of_the_head_counts():
    """The codec of short audio stands in its content type alone, the form of speech in a field of its own."""
    assert {b"content-type", b"x-microsoft-outputformat"} <= set(AZURE_SPEECH.counting)
    assert frozenset() == located(SHORT).uncounted
    assert b"content-type" in located(FAST).uncounted
    assert b"content-type" in located("/cognitiveservices/v1").uncounted


@given(st.text("abc äöü中", max_size=30).map(str.strip))
def test_characters(text):
    """Of SSML all is charged but the tags ``speak`` and ``voice``."""
    body = SSML.format(text).encode()
    found = read(body, located("/cognitiveservices/v1"), b"application/ssml+xml", b"k")

    assert (Usage(characters=len(text)), (), True) == (
        found.facts.charged,
        found.facts.needs,
        found.facts.deterministic,
    )
    assert body == found.material


def test_text_that_is_not_read():
    """What might name a URL is not looked up unread."""
    found = located("/cognitiveservices/v1")

    assert "invalid-utf8" == read(b"\xff", found, b"", b"k").facts.bypass
    assert "unreadable-member" == read(SSML.format("A" * 300_000).encode(), found, b"", b"k").facts.bypass


def test_definitions_are_read_as_objects():
    """The dialect finds the members of the definition, however it was written."""
    seen = reading(json.encode({"audioUrl": "https://x.example/a.wav"})).facts

    assert ("url-source",) == seen.needs
