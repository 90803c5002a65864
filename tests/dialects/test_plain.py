from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sidecar.core.dialect import Completeness
from sidecar.core.model import Facts, Form, Usage, View
from sidecar.dialects.openai.audio import SPEECH, TRANSCRIPTION
from sidecar.dialects.plain import NULL, OPAQUE, tokens
from sidecar.dialects.results import EMBEDDINGS

EMBEDDING = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AAAA"}],'
    b'"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}'
)


JSON = "application/json"
SEQUENCE = "application/json-seq"


@pytest.mark.parametrize(
    ("body", "media", "form", "expected"),
    [
        pytest.param(b"\x00", "", Form.WHOLE, "", id="bytes"),
        pytest.param(b"a,b\n", "text/csv", Form.WHOLE, "", id="text"),
        pytest.param(b"", "", Form.WHOLE, "truncated", id="no bytes"),
        pytest.param(b"data: {}\n\n", "text/event-stream", Form.EVENTS, "unreadable", id="a stream"),
        pytest.param(b'{"a":1}', JSON, Form.WHOLE, "", id="an object"),
        pytest.param(b"[1,2]", "", Form.WHOLE, "", id="an array"),
        pytest.param(b"7", JSON, Form.WHOLE, "", id="a number"),
        pytest.param(b'{"a":1', JSON, Form.WHOLE, "unreadable", id="an object, cut"),
        pytest.param(b' {"a":', "text/plain", Form.WHOLE, "unreadable", id="an object, cut and misnamed"),
        pytest.param(b'{"a":"\xff"}', JSON, Form.WHOLE, "unreadable", id="no UTF-8"),
        pytest.param(b'{"a":"\xc3\xbc"}', JSON, Form.WHOLE, "", id="UTF-8"),
        pytest.param(b"\xff\xd8", "image/jpeg", Form.WHOLE, "", id="an image"),
        pytest.param(b'\x1e{"a":1}\n\x1e[2]\n', SEQUENCE, Form.WHOLE, "", id="a sequence"),
        pytest.param(b'\x1e{"a":1}\n\x1e{"a":', SEQUENCE, Form.WHOLE, "unreadable", id="a sequence, cut"),
        pytest.param(b'\x1e{"a":1}\n\x1e', SEQUENCE, Form.WHOLE, "unreadable", id="a sequence, cut before a text"),
        pytest.param(b"\x1e1\n\x1e12", SEQUENCE, Form.WHOLE, "unreadable", id="a sequence, cut in a number"),
        pytest.param(b"\x1e1\n\x1e12\n", SEQUENCE, Form.WHOLE, "", id="a sequence of numbers"),
        pytest.param(b'\x1e{"a":1}', "application/geo+json-seq", Form.WHOLE, "", id="without its line feed"),
        pytest.param(b'\x1e{"a":', "application/geo+json-seq", Form.WHOLE, "unreadable", id="another sequence, cut"),
        pytest.param(b"Bad gateway", SEQUENCE, Form.WHOLE, "unreadable", id="no sequence"),
        pytest.param(b"[1,", "application/problem+json", Form.WHOLE, "unreadable", id="an array, cut"),
        pytest.param(b"Bad gateway", JSON, Form.WHOLE, "unreadable", id="text that calls itself JSON"),
        pytest.param(
            b'{"a":1}\n{"a":2}\n', "application/x-ndjson", Form.WHOLE, "unreadable", id="documents without end"
        ),
        pytest.param(b'{"error":{"message":"x"}}', JSON, Form.WHOLE, "failed", id="an error"),
        pytest.param(b'{"error":"x"}', "", Form.WHOLE, "failed", id="an error in words"),
        pytest.param(b'{"error":null}', JSON, Form.WHOLE, "", id="no error"),
        pytest.param(b'{"error":""}', JSON, Form.WHOLE, "", id="an empty error"),
        pytest.param(b'{"error":false}', JSON, Form.WHOLE, "", id="false"),
        pytest.param(b'[{"error":{}}]', JSON, Form.WHOLE, "", id="an error further in"),
        pytest.param(b'{"error":{ }}', JSON, Form.WHOLE, "", id="an object of no error"),
        pytest.param(b'{"error":[]}', JSON, Form.WHOLE, "", id="a list of no error"),
        pytest.param(b'{"error":["x"]}', JSON, Form.WHOLE, "failed", id="a list of errors in error"),
        pytest.param(b'{"error":true}', JSON, Form.WHOLE, "failed", id="true"),
        pytest.param(b'{"error":0.0}', JSON, Form.WHOLE, "", id="zero"),
        pytest.param(b'{"error":-1}', JSON, Form.WHOLE, "failed", id="a code"),
        pytest.param(b'{"error":%b}' % (b"9" * 5000), JSON, Form.WHOLE, "failed", id="a number without end"),
        pytest.param(b'{"data":{},"error":"\\ud800"}', JSON, Form.WHOLE, "unreadable", id="half a character"),
        pytest.param(b'{"errors":[{"message":"x"}],"data":null}', JSON, Form.WHOLE, "failed", id="GraphQL, failed"),
        pytest.param(b'{"errors":[{}],"data":{"a":1}}', JSON, Form.WHOLE, "failed", id="GraphQL, failed in part"),
        pytest.param(b'{"data":{"a":1}}', JSON, Form.WHOLE, "", id="GraphQL"),
        pytest.param(b'{"errors":[ \n],"data":{"a":1}}', JSON, Form.WHOLE, "", id="no errors"),
        pytest.param(b'{"errors":null}', JSON, Form.WHOLE, "", id="errors are null"),
        pytest.param(b'{"errors":{"name":["x"]}}', JSON, Form.WHOLE, "failed", id="errors by field"),
        pytest.param(b'{"errors":{}}', JSON, Form.WHOLE, "", id="no errors by field"),
        pytest.param(b'{"errors":3}', JSON, Form.WHOLE, "", id="a number of errors"),
        pytest.param(b'{"errors":false,"items":[]}', JSON, Form.WHOLE, "", id="errors are false"),
        pytest.param(b'[{"data":1},{"errors":[1]}]', JSON, Form.WHOLE, "failed", id="GraphQL, one of several failed"),
        pytest.param(b'[{"data":1},{"errors":[]}]', JSON, Form.WHOLE, "", id="GraphQL, several"),
    ],
)
def test_complete(body, media, form, expected):
    """Bytes are whole as they are framed, JSON where it can be read to its end, a stream never."""
    found = OPAQUE.complete(body, form, Facts(), media)

    assert Completeness(expected) is found


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_cut_json_is_never_whole(value):
    """Whatever JSON comes, it is whole, and no part of it that ends before it is."""
    text = json.dumps({"value": value}).encode()

    assert Completeness.WHOLE is OPAQUE.complete(text, Form.WHOLE, Facts(), JSON)
    for cut in {1, len(text) // 2, len(text) - 1}:
        assert OPAQUE.complete(text[:cut], Form.WHOLE, Facts(), JSON)
        assert OPAQUE.complete(text[:cut], Form.WHOLE, Facts(), "")


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
        pytest.param(b'{"type":"duration","seconds":9.2}', Usage(seconds=10), id="transcription by duration"),
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
        pytest.param(EMBEDDINGS, EMBEDDING, Form.WHOLE, (Usage(prompt=8), "text-embedding-3-small"), id="embedding"),
        pytest.param(EMBEDDINGS, EMBEDDING, Form.EVENTS, (Usage(), ""), id="a stream"),
        pytest.param(EMBEDDINGS, b'{"model":7}', Form.WHOLE, (Usage(), ""), id="model of another type"),
        pytest.param(EMBEDDINGS, b"{", Form.WHOLE, (Usage(), ""), id="unreadable"),
        pytest.param(
            TRANSCRIPTION, b'{"usage":{"input_tokens":2}}', Form.WHOLE, (Usage(prompt=2), ""), id="transcription"
        ),
        pytest.param(TRANSCRIPTION, b"Hello", Form.WHOLE, (Usage(), ""), id="text"),
        pytest.param(OPAQUE, EMBEDDING, Form.WHOLE, (Usage(), ""), id="bytes are not read"),
    ],
)
def test_usage_and_model(answers, body, form, expected):
    """Usage and model where the answer says them."""
    found = (answers.usage(body, form), answers.model(body, form))

    assert expected == found


@pytest.mark.parametrize("answers", [EMBEDDINGS, TRANSCRIPTION, SPEECH, OPAQUE])
def test_one_form(answers):
    """An answer is shown in the form in which it came, or not at all."""
    whole, stream = View(stream=False), View(stream=True)

    assert answers.convert(b"x", Form.WHOLE, whole) == b"x"
    assert answers.convert(b"x", Form.EVENTS, stream) == b"x"
    assert answers.convert(b"x", Form.WHOLE, stream) is None
    assert answers.convert(b"x", Form.EVENTS, whole) is None
    assert answers.narrow(View(stream=True, usage=False)) is None
    assert answers.finish(b"x", Form.WHOLE) == ""
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
