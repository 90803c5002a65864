from __future__ import annotations

import pytest
from msgspec import Raw

from sidecar.core.dialect import Completeness
from sidecar.core.model import Form, Usage, View
from sidecar.dialects.plain import NULL, OPAQUE, TEXT_OR_JSON, WHOLE_JSON, tokens

EMBEDDING = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAA"}],'
    b'"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}'
)


@pytest.mark.parametrize(
    ("answers", "body", "form", "expected"),
    [
        pytest.param(WHOLE_JSON, EMBEDDING, Form.WHOLE, "", id="embedding"),
        pytest.param(WHOLE_JSON, b'{"object":"list","data":[]}', Form.WHOLE, "", id="model list"),
        pytest.param(WHOLE_JSON, b'{"error":null}', Form.WHOLE, "", id="no error"),
        pytest.param(WHOLE_JSON, b'{"error":{"message":"x"}}', Form.WHOLE, "failed", id="error with 200"),
        pytest.param(WHOLE_JSON, EMBEDDING[:-1], Form.WHOLE, "unreadable", id="cut"),
        pytest.param(WHOLE_JSON, b"", Form.WHOLE, "unreadable", id="empty"),
        pytest.param(WHOLE_JSON, b"[]", Form.WHOLE, "unreadable", id="no object"),
        pytest.param(WHOLE_JSON, b"<html>", Form.WHOLE, "unreadable", id="no JSON"),
        pytest.param(WHOLE_JSON, EMBEDDING, Form.EVENTS, "unreadable", id="a stream"),
        pytest.param(TEXT_OR_JSON, b'{"text":"Hello"}', Form.WHOLE, "", id="transcription"),
        pytest.param(TEXT_OR_JSON, b' {"text":"Hel', Form.WHOLE, "unreadable", id="transcription cut"),
        pytest.param(TEXT_OR_JSON, b"WEBVTT\n", Form.WHOLE, "", id="subtitles"),
        pytest.param(TEXT_OR_JSON, b"\n", Form.WHOLE, "", id="silence"),
        pytest.param(TEXT_OR_JSON, b"", Form.WHOLE, "truncated", id="no text"),
        pytest.param(TEXT_OR_JSON, b"data: {}\n\n", Form.EVENTS, "unreadable", id="transcription streamed"),
        pytest.param(OPAQUE, b"\x00", Form.WHOLE, "", id="bytes"),
        pytest.param(OPAQUE, b"", Form.WHOLE, "truncated", id="no bytes"),
        pytest.param(OPAQUE, b"data: {}\n\n", Form.EVENTS, "unreadable", id="bytes streamed"),
    ],
)
def test_complete(answers, body, form, expected):
    """A document is whole when it can be read, bytes when there are any, a stream never."""
    found = answers.complete(body, form)

    assert Completeness(expected) is found


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        pytest.param(b'{"prompt_tokens":8,"total_tokens":8}', Usage(prompt=8), id="embedding"),
        pytest.param(
            b'{"prompt_tokens":53,"completion_tokens":15,"prompt_tokens_details":{"cached_tokens":8},'
            b'"completion_tokens_details":{"reasoning_tokens":4}}',
            Usage(prompt=53, completion=15, cached=8, reasoning=4),
            id="chat",
        ),
        pytest.param(
            b'{"input_tokens":278,"input_tokens_details":{"cached_tokens":0},"output_tokens":9,'
            b'"output_tokens_details":{"reasoning_tokens":3}}',
            Usage(prompt=278, completion=9, reasoning=3),
            id="response",
        ),
        pytest.param(
            b'{"type":"tokens","input_tokens":14,"input_token_details":{"audio_tokens":14},"output_tokens":45}',
            Usage(prompt=14, completion=45),
            id="transcription",
        ),
        pytest.param(b'{"type":"duration","seconds":9}', Usage(), id="transcription by duration"),
        pytest.param(b'{"prompt_tokens":null,"prompt_tokens_details":null}', Usage(), id="nulls"),
        pytest.param(b'{"prompt_tokens":"many"}', Usage(), id="no number"),
        pytest.param(b"[]", Usage(), id="no object"),
        pytest.param(b"null", Usage(), id="null"),
    ],
)
def test_tokens(member, expected):
    """Token counts in both generations of names; nothing where something else is counted."""
    found = tokens(Raw(member))

    assert expected == found


@pytest.mark.parametrize(
    ("answers", "body", "form", "expected"),
    [
        pytest.param(WHOLE_JSON, EMBEDDING, Form.WHOLE, (Usage(prompt=8), "text-embedding-3-small"), id="embedding"),
        pytest.param(WHOLE_JSON, EMBEDDING, Form.EVENTS, (Usage(), ""), id="a stream"),
        pytest.param(WHOLE_JSON, b'{"model":7}', Form.WHOLE, (Usage(), ""), id="model of another type"),
        pytest.param(WHOLE_JSON, b"{", Form.WHOLE, (Usage(), ""), id="unreadable"),
        pytest.param(
            TEXT_OR_JSON, b'{"usage":{"input_tokens":2}}', Form.WHOLE, (Usage(prompt=2), ""), id="transcription"
        ),
        pytest.param(TEXT_OR_JSON, b"Hello", Form.WHOLE, (Usage(), ""), id="text"),
        pytest.param(OPAQUE, EMBEDDING, Form.WHOLE, (Usage(), ""), id="bytes are not read"),
    ],
)
def test_usage_and_model(answers, body, form, expected):
    """Usage and model where the answer says them."""
    found = (answers.usage(body, form), answers.model(body, form))

    assert expected == found


@pytest.mark.parametrize("answers", [WHOLE_JSON, TEXT_OR_JSON, OPAQUE])
def test_one_form(answers):
    """An answer is shown in the form in which it came, or not at all."""
    whole, stream = View(stream=False), View(stream=True)

    assert answers.convert(b"x", Form.WHOLE, whole) == b"x"
    assert answers.convert(b"x", Form.EVENTS, stream) == b"x"
    assert answers.convert(b"x", Form.WHOLE, stream) is None
    assert answers.convert(b"x", Form.EVENTS, whole) is None
    assert answers.narrow(View(stream=True, usage=False)) is None
    assert not answers.streams


def test_watch():
    """The first byte commits; a clean end is accepted wherever it comes."""
    watch = OPAQUE.watch()
    watch.feed(b"")

    assert (watch.committed, watch.ended, watch.failed, watch.boundary) == (False, True, False, True)
    assert repr(watch) == "<OpaqueWatch>"

    watch.feed(b"\x00")
    watch.close()

    assert (watch.committed, watch.ended, watch.failed, watch.boundary) == (True, True, False, True)


def test_null():
    """The member that is not there counts nothing."""
    found = tokens(NULL)

    assert Usage() == found
