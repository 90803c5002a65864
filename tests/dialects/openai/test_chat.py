from __future__ import annotations

import json
from pathlib import Path

import httpx2
import openai
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import events, frame
from sidecar.core.model import Form, Usage, View
from sidecar.dialects.openai.chat import ANSWERS

DATA = Path(__file__).parents[3] / "../shared/data/streams"
STREAM, SHORT, WHOLE = View(stream=True, usage=True), View(stream=True, usage=False), View(stream=False)

USAGE = {
    "prompt_tokens": 53,
    "completion_tokens": 15,
    "total_tokens": 68,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1782955817,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüße", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}


DEEP = b'{"error":null,"usage":null ,"x":' + b"[" * 9000 + b"]" * 9000 + b"}"
LATIN = b'{"x":"\xff","usage": null}'


def recorded(name: str) -> list[bytes]:
    """The bodies of a recorded exchange's answers."""
    path = DATA / name
    if not path.exists():
        pytest.skip("the recorded streams are not here")
    answers = [each["response"] for each in yaml.safe_load(path.read_text())["interactions"]]
    return [
        each["body"]["string"].encode() if "body" in each else json.dumps(each["parsed_body"]).encode()
        for each in answers
    ]


def encode(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()


def answer(*choices: dict, **members: object) -> dict:
    """A whole answer with other choices or members."""
    return {**ANSWER, **({"choices": list(choices)} if choices else {}), **members}


def choice(index: int = 0, finish: str | None = "stop", **message: object) -> dict:
    message = {"role": "assistant", "content": None, "refusal": None} | message
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def stream(*chunks: object, done: bool = True) -> bytes:
    """A stream of chunks, with its end."""
    return b"".join(frame(json.dumps(chunk).encode()) for chunk in chunks) + (frame(b"[DONE]") if done else b"")


def piece(delta: dict, finish: str | None = None, index: int = 0, **members: object) -> dict:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": finish}],
        **members,
    }


def client(body: bytes, kind: str) -> openai.OpenAI:
    """The real SDK, answered with *body*."""
    reply = httpx2.Response(200, content=body, headers={"content-type": kind})
    transport = httpx2.MockTransport(lambda _request: reply)
    return openai.OpenAI(api_key="made-up", max_retries=0, http_client=httpx2.Client(transport=transport))


def accumulated(body: bytes) -> dict:
    """What the real SDK puts together from a stream."""
    state = ChatCompletionStreamState()
    question = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with client(body, "text/event-stream") as sdk:
        for chunk in sdk.chat.completions.create(**question, stream=True):
            state.handle_chunk(chunk)
    return bare(state.current_completion_snapshot.model_dump(mode="json"))


def parsed(body: bytes) -> dict:
    """What the real SDK reads from a whole answer."""
    question = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with client(body, "application/json") as sdk:
        return bare(sdk.chat.completions.create(**question).model_dump(mode="json"))


def bare(value: object, inside: str = "") -> object:
    """Without what the SDK adds, what is null, and the index that only a stream's tool calls have."""
    if isinstance(value, dict):
        dropped = {"parsed", "parsed_arguments", "object"} | ({"index"} if inside == "tool_calls" else set())
        return {k: bare(v, k) for k, v in value.items() if v is not None and k not in dropped}
    if isinstance(value, list):
        return [bare(each, inside) for each in value]
    return value


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        pytest.param(encode(ANSWER), Form.WHOLE, "", id="whole"),
        pytest.param(encode(answer(choice(finish="length", content=""))), Form.WHOLE, "", id="cut by max_tokens"),
        pytest.param(encode(answer(choice(), choice(1, None))), Form.WHOLE, "unfinished", id="one of two unfinished"),
        pytest.param(encode(answer(choices=[])), Form.WHOLE, "unfinished", id="no choice"),
        pytest.param(encode(answer(choice(finish="content_filter"))), Form.WHOLE, "content-filter", id="filtered"),
        pytest.param(encode({"error": {"message": "no"}}), Form.WHOLE, "failed", id="error with 200"),
        pytest.param(encode(answer(object="list")), Form.WHOLE, "unreadable", id="another object"),
        pytest.param(encode(ANSWER)[:-1], Form.WHOLE, "unreadable", id="cut"),
        pytest.param(b"", Form.WHOLE, "unreadable", id="empty"),
        pytest.param(b"[]", Form.WHOLE, "unreadable", id="no object"),
        pytest.param(DEEP, Form.WHOLE, "unreadable", id="too deep"),
        pytest.param(b'{"object":"\xff"}', Form.WHOLE, "unreadable", id="no UTF-8"),
        pytest.param(stream(piece({"content": "a"}), piece({}, "stop")), Form.EVENTS, "", id="stream"),
        pytest.param(b": hi\n\n" + stream(piece({"content": "a"}, "stop")), Form.EVENTS, "", id="with comments"),
        pytest.param(stream(piece({}, "stop"), done=False), Form.EVENTS, "truncated", id="without its end"),
        pytest.param(stream(piece({}, "stop"))[:-3], Form.EVENTS, "truncated", id="inside its end"),
        pytest.param(stream(piece({"content": ""}, "stop"))[:-2], Form.EVENTS, "", id="no blank line at its end"),
        pytest.param(stream(piece({"content": ""}, "stop")).replace(b"\n", b"\r"), Form.EVENTS, "", id="CR alone"),
        pytest.param(
            encode(ANSWER).replace(b"\\u00fc", b"\xff"), Form.WHOLE, "unreadable", id="a text that is no UTF-8"
        ),
        pytest.param(
            stream(piece({"content": "Gr@"}, "stop")).replace(b"@", b"\xff"),
            Form.EVENTS,
            "unreadable",
            id="a piece that is no UTF-8",
        ),
        pytest.param(encode(answer(base_resp={"status_code": 1004})), Form.WHOLE, "failed", id="failed, says MiniMax"),
        pytest.param(encode(answer(base_resp={"status_code": 0})), Form.WHOLE, "", id="good, says MiniMax"),
        pytest.param(encode(answer(base_resp=None, success=True, status="ok")), Form.WHOLE, "", id="a good envelope"),
        pytest.param(encode(answer(success=False)), Form.WHOLE, "failed", id="no success"),
        pytest.param(encode(answer(status="failed")), Form.WHOLE, "failed", id="status failed"),
        pytest.param(encode(answer(status="error")), Form.WHOLE, "failed", id="status error"),
        pytest.param(
            stream(piece({"content": "a"}, "stop"), {"base_resp": {"status_code": 1004}}),
            Form.EVENTS,
            "failed",
            id="a stream that failed, says MiniMax",
        ),
        pytest.param(stream(piece({"content": "a"})), Form.EVENTS, "unfinished", id="no finish reason"),
        pytest.param(
            stream(piece({}, "stop"), piece({}, index=1)), Form.EVENTS, "unfinished", id="one of two has none"
        ),
        pytest.param(stream(), Form.EVENTS, "unfinished", id="nothing but the end"),
        pytest.param(stream(piece({}, "content_filter")), Form.EVENTS, "content-filter", id="stream filtered"),
        pytest.param(stream(piece({}, "stop"), {"error": {"message": "x"}}), Form.EVENTS, "failed", id="error chunk"),
        pytest.param(frame(b"{}", "error") + stream(piece({}, "stop")), Form.EVENTS, "failed", id="event named error"),
        pytest.param(frame(b"{") + stream(piece({}, "stop")), Form.EVENTS, "unreadable", id="broken chunk"),
    ],
)
def test_complete(body, form, expected):
    """Whole means: every choice says why it finished, the stream that it is done, and nobody reports an error."""
    found = ANSWERS.complete(body, form)

    assert Completeness(expected) is found


@pytest.mark.parametrize("name", ["test_openai_moderation_stream.yaml", "test_run_stream_sync_streams_real_model.yaml"])
def test_recorded_streams(name):
    """Recorded streams are whole, their usage and model are found, and the SDK reads the other forms alike."""
    for body in recorded(name):
        whole = ANSWERS.convert(body, Form.EVENTS, WHOLE)
        again = ANSWERS.convert(whole, Form.WHOLE, STREAM)

        assert Completeness.WHOLE is ANSWERS.complete(body, Form.EVENTS)
        assert Completeness.WHOLE is ANSWERS.complete(whole, Form.WHOLE)
        assert ANSWERS.usage(whole, Form.WHOLE) == ANSWERS.usage(body, Form.EVENTS)
        assert ANSWERS.usage(body, Form.EVENTS).total in {24, 68, 87}
        assert ANSWERS.model(whole, Form.WHOLE) == ANSWERS.model(body, Form.EVENTS)
        assert ANSWERS.model(body, Form.EVENTS).startswith("gpt-")
        assert accumulated(again) == accumulated(body)
        assert accumulated(again) | {"usage": parsed(whole)["usage"]} == parsed(whole)
        assert json.loads(whole) == json.loads(ANSWERS.convert(again, Form.EVENTS, WHOLE))
        assert body == ANSWERS.convert(body, Form.EVENTS, STREAM)


def test_recorded_tool_call():
    """The tool call of a recorded stream as a whole answer, its id verbatim."""
    body = recorded("test_run_stream_sync_streams_real_model.yaml")[0]
    [found] = json.loads(ANSWERS.convert(body, Form.EVENTS, WHOLE))["choices"]

    assert found == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {
                    "id": "call_ZR5UUuTt3pf61kjwAJIYdVMj",
                    "type": "function",
                    "function": {"name": "get_capital", "arguments": '{"country":"UK"}'},
                }
            ],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }


def test_recorded_stream_without_usage():
    """What a caller gets who did not ask for usage: no usage chunk, no null members, all else byte for byte."""
    body = recorded("test_run_stream_sync_streams_real_model.yaml")[1]
    lines = [line for line in body.split(b"\n\n") if b'"usage":{' not in line]
    expected = b"\n\n".join(lines).replace(b',"usage":null', b"")

    assert expected == ANSWERS.convert(body, Form.EVENTS, SHORT)
    assert ANSWERS.convert(expected, Form.EVENTS, STREAM) is None
    assert ANSWERS.convert(expected, Form.EVENTS, WHOLE) is None


def test_recorded_moderation():
    """A chunk without choices that is no usage chunk stays, in a stream without usage too."""
    [body] = recorded("test_openai_moderation_stream.yaml")
    short = ANSWERS.convert(body, Form.EVENTS, SHORT)
    whole = ANSWERS.convert(body, Form.EVENTS, WHOLE)

    assert b'"moderation":{' in short
    assert b'"usage"' not in short
    assert short.count(b"\n\n") == body.count(b"\n\n") - 1
    assert json.loads(whole)["moderation"]["input"]["type"] == "moderation_results"


@pytest.mark.parametrize("name", ["test_openai_moderation_stream.yaml", "test_run_stream_sync_streams_real_model.yaml"])
def test_truncated_anywhere(name):
    """A stream that is cut at any event, or inside one, is never complete, never ended and has no other form."""
    for body in recorded(name):
        found = events(body)
        for n in range(len(found)):
            for tail in (b"", found[n].raw[:-3]):
                cut = b"".join(event.raw for event in found[:n]) + tail
                watch = ANSWERS.watch()
                watch.feed(cut)

                assert not watch.ended
                assert ANSWERS.complete(cut, Form.EVENTS)
                assert ANSWERS.convert(cut, Form.EVENTS, WHOLE) is None


def test_recorded_error():
    """A stream with an error in it is not complete, though every choice finished and the end was sent."""
    [body] = recorded("test_openrouter_stream_error.yaml")
    watch = ANSWERS.watch()
    for n, event in enumerate(events(body)):
        watch.feed(event.raw)
        assert watch.committed == (n >= 17)

    assert Completeness.FAILED is ANSWERS.complete(body, Form.EVENTS)
    assert (watch.failed, watch.ended, watch.boundary) == (True, True, True)
    assert ANSWERS.convert(body, Form.EVENTS, WHOLE) is None


def test_recorded_azure():
    """Azure's filter results survive both ways, in the places where Azure has them."""
    [body] = recorded("test_azure_provider_call.yaml")
    chunks = ANSWERS.convert(body, Form.WHOLE, STREAM)
    first = json.loads(events(chunks)[0].data)

    assert Usage(prompt=14, completion=9) == ANSWERS.usage(body, Form.WHOLE)
    assert (first["choices"], first["id"], first["created"]) == ([], "", 0)
    assert json.loads(body)["prompt_filter_results"] == first["prompt_filter_results"]
    assert json.loads(body) == json.loads(ANSWERS.convert(chunks, Form.EVENTS, WHOLE))
    assert accumulated(b"".join(event.raw for event in events(chunks)[1:]))["usage"] == parsed(body)["usage"]
    assert b'"prompt_filter_results"' in ANSWERS.convert(chunks, Form.EVENTS, SHORT)


def test_framing():
    """A whole answer as OpenAI would have streamed it."""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    spoken = choice(content="Hi", tool_calls=[call], finish="tool_calls") | {
        "logprobs": {"content": [{"token": "Hi"}], "refusal": None}
    }
    found = [
        json.loads(event.data) for event in events(ANSWERS.convert(encode(answer(spoken)), Form.WHOLE, STREAM))[:-1]
    ]
    header = call | {"index": 0, "function": {"name": "f", "arguments": ""}}
    deltas = [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hi"},
        {"tool_calls": [header]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {},
    ]

    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in found}
    assert {"chatcmpl-1"} == {chunk["id"] for chunk in found}
    assert deltas == [chunk["choices"][0]["delta"] for chunk in found[:-1]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None] * 4 + ["tool_calls"]
    assert [None, spoken["logprobs"], None, None, None] == [chunk["choices"][0]["logprobs"] for chunk in found[:-1]]
    assert [chunk["usage"] for chunk in found] == [None] * 5 + [USAGE]
    assert found[-1]["choices"] == []


def test_framing_without_usage():
    """A stream made for a caller who did not ask for usage does not name it, and ends as every stream."""
    chunks = ANSWERS.convert(encode(ANSWER), Form.WHOLE, SHORT)

    assert b'"usage"' not in chunks
    assert chunks.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(answer(choice(audio={"id": "a", "data": "", "transcript": "x"})), id="audio"),
        pytest.param(answer(choice(content=["parts"])), id="content that is no text"),
        pytest.param(answer(choice(tool_calls=[{"id": "c", "type": "new", "new": {}}])), id="unknown tool call"),
        pytest.param(answer(choice(tool_calls=[{"function": {"arguments": {}}}])), id="arguments that are no text"),
        pytest.param(answer(choice(finish=None)), id="unfinished"),
        pytest.param(answer({"message": {}, "finish_reason": "stop"}), id="no index"),
        pytest.param(answer(usage=None), id="no usage"),
    ],
)
def test_no_stream(body):
    """What could not be streamed faithfully is not streamed; as it is it may be had."""
    found = ANSWERS.convert(encode(body), Form.WHOLE, STREAM)

    assert found is None
    assert encode(body) == ANSWERS.convert(encode(body), Form.WHOLE, WHOLE)


def test_no_form_of_what_cannot_be_read():
    """Text that is not UTF-8 passes as it came, and has no other form."""
    whole = encode(ANSWER).replace(b"Gr", b"\xff")
    chunks = stream(piece({"content": "Gr"}, "stop"), piece({}, usage=USAGE)).replace(b"Gr", b"\xff")

    assert ANSWERS.convert(whole, Form.WHOLE, STREAM) is None
    assert ANSWERS.convert(chunks, Form.EVENTS, WHOLE) is None
    assert ANSWERS.convert(chunks, Form.EVENTS, STREAM) == chunks


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([piece({"audio": {"id": "a"}}, "stop")], id="audio"),
        pytest.param([piece({"content": "b", "new": "a"}), piece({"new": "a"}, "stop")], id="unknown member in pieces"),
        pytest.param(
            [piece({"content": "a"}, provider="a"), piece({}, "stop", provider="b")], id="changing member of the answer"
        ),
        pytest.param([piece({"tool_calls": [{"id": "c"}]}, "stop")], id="tool call without index"),
        pytest.param([piece({"content": [{"type": "text"}]}, "stop")], id="content in parts"),
    ],
)
def test_no_whole(chunks):
    """What could not be put together faithfully is not put together."""
    body = stream(*chunks, piece({}, usage=USAGE))

    assert Completeness.WHOLE is ANSWERS.complete(body, Form.EVENTS)
    assert ANSWERS.convert(body, Form.EVENTS, WHOLE) is None


def test_gather_as_services_stream():
    """Repeated roles and ids, null after text, late filter results, a usage beside content: put together rightly."""
    body = stream(
        {
            "choices": [],
            "id": "",
            "object": "",
            "created": 0,
            "model": "",
            "prompt_filter_results": [{"prompt_index": 0}],
        },
        piece({"role": "assistant", "content": "", "reasoning_content": "Let"}, obfuscation="x"),
        piece({"role": "assistant", "reasoning_content": " me", "content": None}),
        piece({"content": "A", "tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]}),
        piece({"tool_calls": [{"index": 0, "id": "a", "custom": {"name": "f", "input": "x"}}]}),
        piece({"tool_calls": [{"index": 0, "id": "a", "custom": {"input": "y"}}], "function_call": None}),
        piece({"content": "B", "function_call": {"name": "h", "arguments": "{"}}),
        piece({"function_call": {"arguments": "}"}}),
        {
            "choices": [
                {"index": 0, "content_filter_results": {"hate": {"filtered": False}}, "content_filter_offsets": {}}
            ]
        },
        {"choices": [{"index": 0, "content_filter_results": {}}], "id": "", "model": ""},
        piece({"content": None}, "tool_calls", usage=USAGE),
    )
    found = json.loads(ANSWERS.convert(body, Form.EVENTS, WHOLE))
    [only] = found["choices"]

    assert (found["id"], found["model"], found["created"], found["usage"]) == ("c", "m", 1, USAGE)
    assert found["prompt_filter_results"] == [{"prompt_index": 0}]
    assert "obfuscation" not in found
    assert only == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "AB",
            "reasoning_content": "Let me",
            "function_call": {"name": "h", "arguments": "{}"},
            "tool_calls": [
                {"id": "a", "custom": {"name": "f", "input": "xy"}},
                {"id": "b", "function": {"name": "g", "arguments": ""}},
            ],
        },
        "finish_reason": "tool_calls",
        "content_filter_results": {"hate": {"filtered": False}},
    }


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.text("abc_", min_size=1, max_size=8)
MARK = st.fixed_dictionaries(
    {"token": TEXT, "logprob": st.floats(-99, 0), "bytes": st.none(), "top_logprobs": st.just([])}
)
CALL = st.one_of(
    st.fixed_dictionaries(
        {"id": NAME, "type": st.just("function"), "function": st.fixed_dictionaries({"name": NAME, "arguments": TEXT})}
    ),
    st.fixed_dictionaries(
        {"id": NAME, "type": st.just("custom"), "custom": st.fixed_dictionaries({"name": NAME, "input": TEXT})}
    ),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT, "refusal": st.none() | TEXT},
    optional={
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "function_call": st.none() | st.fixed_dictionaries({"name": NAME, "arguments": TEXT}),
        "reasoning_content": st.none() | TEXT,
        "annotations": st.just([]) | st.just([{"type": "url_citation", "url_citation": {"url": "u"}}]),
        "audio": st.none(),
        "new": st.none() | TEXT | st.lists(st.integers()),
    },
)
SPOKEN = ("content", "refusal", "tool_calls", "function_call", "reasoning_content")
CHOICE = st.fixed_dictionaries(
    {
        "message": MESSAGE.filter(lambda said: any(said.get(name) for name in SPOKEN) or said["content"] == ""),
        "finish_reason": st.sampled_from(["stop", "length"]),
    },
    optional={
        "logprobs": st.none()
        | st.fixed_dictionaries({"content": st.none() | st.lists(MARK, max_size=2), "refusal": st.none()}),
        "content_filter_results": st.just({}) | st.just({"hate": {"filtered": False, "severity": "safe"}}),
        "stop_reason": st.none() | NAME,
    },
)


@st.composite
def wholes(draw) -> dict:
    """A whole answer of up to three choices."""
    choices = [{"index": n, **each} for n, each in enumerate(draw(st.lists(CHOICE, min_size=1, max_size=3)))]
    for each in choices:
        if each["message"].get("tool_calls") and draw(st.booleans()):
            each["finish_reason"] = "tool_calls"
    extra = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "prompt_filter_results": st.just([{"prompt_index": 0, "content_filter_results": {}}]),
                "moderation": st.just({"input": {"type": "moderation_results"}}),
                "provider": NAME,
                "system_fingerprint": st.none() | NAME,
            },
        )
    )
    return {**ANSWER, **extra, "choices": choices}


@given(wholes())
def test_there_and_back(whole):
    """Streaming a whole answer and putting it together again changes nothing, and hiding usage is one thing."""
    body = json.dumps(whole).encode()
    chunks = ANSWERS.convert(body, Form.WHOLE, STREAM)

    assert whole == json.loads(ANSWERS.convert(chunks, Form.EVENTS, WHOLE))
    assert Completeness.WHOLE is ANSWERS.complete(chunks, Form.EVENTS)
    assert ANSWERS.convert(chunks, Form.EVENTS, SHORT) == ANSWERS.convert(body, Form.WHOLE, SHORT)
    assert Usage(prompt=53, completion=15, cached=8, reasoning=4) == ANSWERS.usage(chunks, Form.EVENTS)


def test_the_sdk_agrees():
    """The real SDK puts the same answer together from our stream as it reads from the whole one."""
    calls = [{"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": '{"é":1}'}} for n in (0, 1)]
    marks = {"content": [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []}], "refusal": None}
    body = encode(answer(choice(content="é", tool_calls=calls, finish="tool_calls") | {"logprobs": marks}))

    assert parsed(body) == accumulated(ANSWERS.convert(body, Form.WHOLE, STREAM))


@given(wholes(), st.lists(st.integers(0, 4000), max_size=8))
def test_narrow_in_any_pieces(whole, at):
    """A live stream without its usage is the same however it was cut, and every complete event passes at once."""
    chunks = ANSWERS.convert(json.dumps(whole).encode(), Form.WHOLE, STREAM)
    cuts = sorted({min(each, len(chunks)) for each in at})
    narrow = ANSWERS.narrow(SHORT)
    found = [narrow.feed(chunks[a:b]) for a, b in zip([0, *cuts], [*cuts, len(chunks)], strict=True)]

    assert ANSWERS.convert(chunks, Form.EVENTS, SHORT) == b"".join(found)
    assert narrow.close() == b""


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(b'data: {"a":1,"usage":null}\n\n', b'data: {"a":1}\n\n', id="null"),
        pytest.param(b'data: {"a":1,"usage":null}\r\n\r\n', b'data: {"a":1}\r\n\r\n', id="CRLF"),
        pytest.param(b'data: {"usage":null,"a":1}\n\n', b'data: {"a":1}\n\n', id="first member"),
        pytest.param(b'data: {"a":1, "usage": null}\n\n', b'data: {"a":1}\n\n', id="with spaces"),
        pytest.param(
            b'data: {"a":{"b":1,"usage":null},"usage": null}\n\n',
            b'data: {"a":{"b":1,"usage":null}}\n\n',
            id="nested too",
        ),
        pytest.param(
            b'data: {"a":{"b":1,"usage":null}}\n\n', b'data: {"a":{"b":1,"usage":null}}\n\n', id="only nested"
        ),
        pytest.param(
            b'data: {"a":",\\"usage\\":null","usage":null}\n\n',
            b'data: {"a":",\\"usage\\":null"}\n\n',
            id="in a string too",
        ),
        pytest.param(b'data: {"a":"usage","usage":null}\n\n', b'data: {"a":"usage"}\n\n', id="as a string too"),
        pytest.param(b'data: {"choices":[],"usage":{"total_tokens":1}}\n\n', b"", id="usage chunk"),
        pytest.param(
            b'data: {"choices":[],"usage":{"total_tokens":1},"x":2}\n\n',
            b'data: {"choices":[],"x":2}\n\n',
            id="with more",
        ),
        pytest.param(
            b'data: {"choices":[{}],"usage":{"total_tokens":1}}\n\n',
            b'data: {"choices":[{}],"usage":{"total_tokens":1}}\n\n',
            id="beside content",
        ),
        pytest.param(b'data: {"usage":\n\n', b'data: {"usage":\n\n', id="broken"),
        pytest.param(b': "usage"\n\n', b': "usage"\n\n', id="comment"),
        pytest.param(frame(DEEP), frame(DEEP), id="too deep"),
        pytest.param(frame(LATIN), frame(LATIN), id="no UTF-8"),
        pytest.param(b"data: [DONE]\n\n", b"data: [DONE]\n\n", id="end"),
        pytest.param(b'data: {"usage":null', b'data: {"usage":null', id="unfinished"),
        pytest.param(b'data: {"a":1,"usage":null}\r\r', b'data: {"a":1}\r\r', id="CR"),
    ],
)
def test_narrow(event, expected):
    """What becomes of one event for a caller who did not ask for usage."""
    narrow = ANSWERS.narrow(SHORT)
    found = narrow.feed(event) + narrow.close()

    assert expected == found


def test_nothing_to_narrow():
    """A caller who asked for usage, or for no stream, gets what was fetched."""
    found = [ANSWERS.narrow(STREAM), ANSWERS.narrow(WHOLE)]

    assert found == [None, None]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b": PROCESSING\n\n", (False, False, False, True), id="comment"),
        pytest.param(b"event: ping\ndata: {}\n\n", (False, False, False, True), id="ping"),
        pytest.param(b'data: {"choices":[]}\n', (False, False, False, False), id="unfinished"),
        pytest.param(stream(piece({}), done=False), (True, False, False, True), id="chunk"),
        pytest.param(
            stream(piece({"content": '"error"'}), done=False), (True, False, False, True), id="speaks of errors"
        ),
        pytest.param(frame(DEEP), (True, False, False, True), id="too deep"),
        pytest.param(b'data: "error"\n\n', (True, False, False, True), id="no chunk"),
        pytest.param(stream({"error": {"message": "x"}}, done=False), (False, False, True, True), id="error first"),
        pytest.param(frame(b"{}", "error"), (False, False, True, True), id="event named error"),
        pytest.param(stream(piece({}), {"error": 1}, done=False), (True, False, True, True), id="error later"),
        pytest.param(stream(piece({})), (True, True, False, True), id="end"),
    ],
)
def test_watch(body, expected):
    """What an observer of a live stream knows: committed, ended, failed, boundary."""
    watch = ANSWERS.watch()
    for byte in body:
        watch.feed(bytes([byte]))

    assert expected == (watch.committed, watch.ended, watch.failed, watch.boundary)


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        pytest.param(stream(piece({}))[:-2], True, id="no blank line"),
        pytest.param(stream(piece({})).replace(b"\n", b"\r"), True, id="CR alone"),
        pytest.param(stream(piece({}))[:-3], False, id="cut off"),
    ],
)
def test_clean_end(body, ended):
    """The last event of a stream that ended cleanly counts without the line end behind it, and is narrowed too."""
    watch, narrow = ANSWERS.watch(), ANSWERS.narrow(View(stream=True, usage=False))
    watch.feed(body)

    assert not watch.ended

    watch.close()

    assert (ended, ended) == (watch.ended, watch.boundary)
    assert body == narrow.feed(body) + narrow.close()


def test_no_usage_no_model():
    """An answer that does not say gives no usage and no model."""
    bodies = [(b"{}", Form.WHOLE), (b"x", Form.WHOLE), (stream(), Form.EVENTS), (b"", Form.EVENTS)]

    assert {Usage()} == {ANSWERS.usage(*each) for each in bodies}
    assert {""} == {ANSWERS.model(*each) for each in bodies}
