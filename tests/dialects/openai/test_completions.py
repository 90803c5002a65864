from __future__ import annotations

import json

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import events, frame
from sidecar.core.model import Form, Usage, View
from sidecar.dialects.openai.completions import ANSWERS

STREAM, SHORT, WHOLE = View(stream=True, usage=True), View(stream=True, usage=False), View(stream=False)
ANSWER = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1782955817,
    "model": "gpt-3.5-turbo-instruct:20230824-v2",
    "choices": [{"text": "Grüße", "index": 0, "logprobs": None, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}
MARKS = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": None, "text_offset": [0, 1]}


def chunk(text: str, finish: str | None = None, index: int = 0, **members: object) -> bytes:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": finish}
    return frame(json.dumps({"id": "c", "object": "text_completion", "choices": [choice], **members}).encode())


def received(body: bytes, kind: str, *, stream: bool) -> list[dict]:
    """What the real SDK reads from an answer or a stream."""
    reply = httpx2.Response(200, content=body, headers={"content-type": kind})
    http = httpx2.Client(transport=httpx2.MockTransport(lambda _request: reply))
    with openai.OpenAI(api_key="made-up", max_retries=0, http_client=http) as sdk:
        found = sdk.completions.create(model="m", prompt="?", stream=stream)
        return [each.model_dump(mode="json") for each in (found if stream else [found])]


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        pytest.param(json.dumps(ANSWER).encode(), Form.WHOLE, "", id="whole"),
        pytest.param(b'{"object":"chat.completion","choices":[]}', Form.WHOLE, "unreadable", id="another object"),
        pytest.param(chunk("a") + chunk("", "stop") + frame(b"[DONE]"), Form.EVENTS, "", id="stream"),
        pytest.param(chunk("a") + chunk("", "stop"), Form.EVENTS, "truncated", id="stream without its end"),
        pytest.param(chunk("a") + frame(b"[DONE]"), Form.EVENTS, "unfinished", id="no finish reason"),
        pytest.param(chunk("", "content_filter") + frame(b"[DONE]"), Form.EVENTS, "content-filter", id="filtered"),
    ],
)
def test_complete(body, form, expected):
    """Whole means: every choice says why it finished, and a stream that it is done."""
    found = ANSWERS.complete(body, form)

    assert Completeness(expected) is found


CHOICE = st.fixed_dictionaries(
    {"text": st.text(st.characters(exclude_categories=["Cs"])), "finish_reason": st.sampled_from(["stop", "length"])},
    optional={
        "logprobs": st.none() | st.just(MARKS),
        "content_filter_results": st.just({}) | st.just({"hate": {"filtered": False}}),
    },
)


@given(
    st.lists(CHOICE, min_size=1, max_size=3), st.sampled_from([{}, {"prompt_filter_results": [{"prompt_index": 0}]}])
)
def test_there_and_back(choices, extra):
    """Streaming a whole answer and putting it together again changes nothing, and hiding usage is one thing."""
    whole = {**ANSWER, **extra, "choices": [{"index": n, **each} for n, each in enumerate(choices)]}
    body = json.dumps(whole, indent=1).encode()
    chunks = ANSWERS.convert(body, Form.WHOLE, STREAM)

    assert whole == json.loads(ANSWERS.convert(chunks, Form.EVENTS, WHOLE))
    assert Completeness.WHOLE is ANSWERS.complete(chunks, Form.EVENTS)
    assert ANSWERS.convert(chunks, Form.EVENTS, SHORT) == ANSWERS.convert(body, Form.WHOLE, SHORT)
    assert Usage(prompt=5, completion=7) == ANSWERS.usage(chunks, Form.EVENTS)
    assert whole["model"] == ANSWERS.model(chunks, Form.EVENTS)


def test_gather():
    """Texts and log probabilities of a stream, choice by choice, in the order of their pieces."""
    first = {"text": "a", "index": 1, "logprobs": MARKS, "finish_reason": None}
    second = {"text": "b", "index": 1, "logprobs": MARKS, "finish_reason": "stop"}
    body = (
        chunk("x", choices=[first])
        + chunk("c", "length")
        + chunk("x", choices=[second])
        + chunk("x", choices=[], usage=ANSWER["usage"])
        + frame(b"[DONE]")
    )
    [zero, one] = json.loads(ANSWERS.convert(body, Form.EVENTS, WHOLE))["choices"]

    assert zero == {"text": "c", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert one == {
        "text": "ab",
        "index": 1,
        "logprobs": {
            "tokens": ["a", "b", "a", "b"],
            "token_logprobs": [-1.0, -2.0, -1.0, -2.0],
            "top_logprobs": None,
            "text_offset": [0, 1, 0, 1],
        },
        "finish_reason": "stop",
    }


def test_the_sdk_agrees():
    """The real SDK reads our stream: text, then the reason, then usage."""
    body = json.dumps(ANSWER).encode()
    [whole] = received(body, "application/json", stream=False)
    *pieces, last = received(ANSWERS.convert(body, Form.WHOLE, STREAM), "text/event-stream", stream=True)

    assert whole["choices"][0]["text"] == "".join(each["choices"][0]["text"] for each in pieces)
    assert [each["choices"][0]["finish_reason"] for each in pieces] == [None, "length"]
    assert whole["usage"] == last["usage"]
    assert last["choices"] == []


def test_truncated_anywhere():
    """A stream that is cut after any of its events is neither complete nor ended."""
    found = events(ANSWERS.convert(json.dumps(ANSWER).encode(), Form.WHOLE, STREAM))
    for n in range(len(found)):
        cut = b"".join(event.raw for event in found[:n])
        watch = ANSWERS.watch()
        watch.feed(cut)

        assert not watch.ended
        assert ANSWERS.complete(cut, Form.EVENTS)
        assert ANSWERS.convert(cut, Form.EVENTS, WHOLE) is None
