from __future__ import annotations

import json
from pathlib import Path

import httpx2
import openai
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import events, frame
from sidecar.core.model import Form, Usage, View
from sidecar.dialects.openai.responses import ANSWERS

DATA = Path(__file__).parents[3] / "../shared/data/streams"
STREAM, WHOLE = View(stream=True, usage=False), View(stream=False)

ANSWER = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1743082657,
    "completed_at": 1743082659,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "gpt-4o-2024-08-06",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 278,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 287,
    },
}
DEEP = b'{"type":' + b"[" * 9000 + b"]" * 9000 + b"}"
LINK = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
MARK = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [
        {"type": "output_text", "text": "Grüße", "annotations": [LINK], "logprobs": [MARK]},
        {"type": "refusal", "refusal": "No."},
    ],
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Because"}, {"type": "summary_text", "text": ""}],
    "encrypted_content": "gAAA",
}
FUNCTION = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "f",
    "arguments": "{}",
}
CUSTOM = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "text"}


def recorded(name: str) -> list[bytes]:
    """The bodies of a recorded exchange's answers."""
    path = DATA / name
    if not path.exists():
        pytest.skip("the recorded streams are not here")
    return [each["response"]["body"]["string"].encode() for each in yaml.safe_load(path.read_text())["interactions"]]


def whole(*output: dict, **members: object) -> bytes:
    """A whole response, in several lines as the service writes it."""
    return json.dumps({**ANSWER, "output": list(output), **members}, indent=2).encode()


def final(kind: str = "response.completed", **members: object) -> bytes:
    return frame(json.dumps({"type": kind, "response": {**ANSWER, **members}}).encode(), kind)


def client(body: bytes, kind: str) -> openai.OpenAI:
    """The real SDK, answered with *body*."""
    reply = httpx2.Response(200, content=body, headers={"content-type": kind})
    transport = httpx2.MockTransport(lambda _request: reply)
    return openai.OpenAI(api_key="made-up", max_retries=0, http_client=httpx2.Client(transport=transport))


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        pytest.param(whole(MESSAGE), Form.WHOLE, "", id="whole"),
        pytest.param(
            whole(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Form.WHOLE,
            "",
            id="cut by max_output_tokens",
        ),
        pytest.param(
            whole(status="incomplete", incomplete_details={"reason": "content_filter"}),
            Form.WHOLE,
            "content-filter",
            id="filtered",
        ),
        pytest.param(whole(status="incomplete"), Form.WHOLE, "unfinished", id="incomplete, nobody says why"),
        pytest.param(whole(status="in_progress"), Form.WHOLE, "unfinished", id="in progress"),
        pytest.param(whole(status="queued"), Form.WHOLE, "unfinished", id="queued"),
        pytest.param(whole(status="cancelled"), Form.WHOLE, "failed", id="cancelled"),
        pytest.param(whole(status=None), Form.WHOLE, "unfinished", id="no status"),
        pytest.param(whole(status=""), Form.WHOLE, "unknown-finish", id="an empty status"),
        pytest.param(whole(status="abort"), Form.WHOLE, "unknown-finish", id="an invented status"),
        pytest.param(
            whole(status="incomplete", incomplete_details={"reason": "insufficient_system_resource"}),
            Form.WHOLE,
            "unknown-finish",
            id="incomplete for an invented reason",
        ),
        pytest.param(final(status="abort"), Form.EVENTS, "unknown-finish", id="stream with an invented status"),
        pytest.param(whole(status="failed", error={"code": "x"}), Form.WHOLE, "failed", id="failed"),
        pytest.param(b'{"error":{"message":"x"}}', Form.WHOLE, "failed", id="error with 200"),
        pytest.param(whole(object="list"), Form.WHOLE, "unreadable", id="another object"),
        pytest.param(whole(output=None), Form.WHOLE, "unreadable", id="no output"),
        pytest.param(whole()[:-1], Form.WHOLE, "unreadable", id="cut"),
        pytest.param(final(), Form.EVENTS, "", id="stream"),
        pytest.param(final("response.failed", status="failed"), Form.EVENTS, "failed", id="stream failed"),
        pytest.param(frame(b'{"type":"error"}', "error"), Form.EVENTS, "failed", id="error event"),
        pytest.param(frame(b'{"type":"error"}') + final(), Form.EVENTS, "failed", id="error before the end"),
        pytest.param(frame(b'{"error":{"message":"x"}}'), Form.EVENTS, "failed", id="unnamed error"),
        pytest.param(
            final("response.incomplete", status="incomplete", incomplete_details={"reason": "content_filter"}),
            Form.EVENTS,
            "content-filter",
            id="stream filtered",
        ),
        pytest.param(final()[:-3], Form.EVENTS, "truncated", id="inside its end"),
        pytest.param(final()[:-2], Form.EVENTS, "", id="no blank line at its end"),
        pytest.param(frame(b"{", "response.completed"), Form.EVENTS, "unreadable", id="broken end"),
        pytest.param(b"", Form.EVENTS, "truncated", id="nothing"),
        pytest.param(DEEP, Form.WHOLE, "unreadable", id="too deep"),
    ],
)
def test_complete(body, form, expected):
    """Whole means: the response says so, or says that the bound on its output was reached."""
    found = ANSWERS.complete(body, form)

    assert Completeness(expected) is found


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        (whole(status="abort"), Form.WHOLE, "abort"),
        (final(status="abort"), Form.EVENTS, "abort"),
        (whole(status="incomplete", incomplete_details={"reason": "tired"}), Form.WHOLE, "tired"),
        (whole(), Form.WHOLE, ""),
        (whole(status="in_progress"), Form.WHOLE, ""),
        (whole(status=None), Form.WHOLE, ""),
        (b"{", Form.WHOLE, ""),
        (b"", Form.EVENTS, ""),
    ],
)
def test_finish(body, form, expected):
    """The word by which a response ended, where it is not a known one."""

    assert expected == ANSWERS.finish(body, form)


@pytest.mark.parametrize(
    ("status", "statuses", "expected"),
    [
        ("completed", ["completed", "completed"], ""),
        ("completed", [None], ""),
        ("completed", ["completed", "incomplete"], "unfinished"),
        ("completed", ["in_progress", None], "unfinished"),
        ("completed", ["searching"], "unfinished"),
        ("completed", ["incomplete", "failed"], "failed"),
        ("completed", [5], "unreadable"),
        ("incomplete", ["completed", "incomplete"], ""),
    ],
    ids=str,
)
def test_items(status, statuses, expected):
    """A response is as complete as each item of it, unless it says itself that it is not."""
    output = [MESSAGE | {"status": one} for one in statuses]
    details = {"reason": "max_output_tokens"} if status == "incomplete" else None
    members = {"status": status, "incomplete_details": details}

    assert expected == ANSWERS.complete(whole(*output, **members), Form.WHOLE)
    assert expected == ANSWERS.complete(final(f"response.{status}", **members, output=output), Form.EVENTS)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"base_resp": {"status_code": 1004}}, "failed"),
        ({"base_resp": {"status_code": 0}}, ""),
        ({"success": False}, "failed"),
        ({"success": True}, ""),
    ],
    ids=str,
)
def test_beside(members, expected):
    """What a gateway says beside an answer counts."""

    assert expected == ANSWERS.complete(whole(MESSAGE, **members), Form.WHOLE)


def test_no_text():
    """JSON is UTF-8, in its texts too."""
    body = whole(MESSAGE, instructions="@").replace(b"@", b"\xff")

    assert Completeness.UNREADABLE is ANSWERS.complete(body, Form.WHOLE)


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        ("completed", None, ""),
        ("incomplete", "max_output_tokens", ""),
        ("incomplete", "content_filter", "content-filter"),
        ("incomplete", None, "unfinished"),
        ("in_progress", None, "unfinished"),
        ("queued", None, "unfinished"),
        ("failed", None, "failed"),
        ("cancelled", None, "failed"),
        (None, None, "unfinished"),
        ("", None, "unknown-finish"),
        ("expired", None, "unknown-finish"),
        ("not yet invented", None, "unknown-finish"),
        ("incomplete", "not yet invented", "unknown-finish"),
        ("incomplete", "completed", "unknown-finish"),
        ("max_output_tokens", None, "unknown-finish"),
        ("completed", "content_filter", ""),
    ],
)
def test_statuses(status, reason, expected):
    """Every status that is documented and one that is not, in both forms alike."""
    members = {"status": status, "incomplete_details": {"reason": reason} if reason else None}

    assert Completeness(expected) is ANSWERS.complete(whole(**members), Form.WHOLE)
    assert Completeness(expected) is ANSWERS.complete(final(**members), Form.EVENTS)


JSON = st.recursive(
    st.none() | st.sampled_from(["response", "completed", "incomplete", "max_output_tokens", "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("reason"), inner, max_size=1),
    max_leaves=4,
)
MEMBERS = ("object", "status", "output", "error", "incomplete_details")


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(MEMBERS, JSON)))
def test_whole_is_only_what_has_the_shape(value):
    """No other JSON document is a whole response."""
    found = ANSWERS.complete(json.dumps(value).encode(), Form.WHOLE)

    assert found is not Completeness.WHOLE or (
        value["object"] == "response"
        and (
            value["status"] == "completed"
            or (value["status"], value["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        )
        and isinstance(value["output"], list)
        and value.get("error") is None
    )


def test_terminal_event_too_large_to_be_read():
    """The last event holds the whole response: however large it is, its name tells that it has come."""
    watch = ANSWERS.watch()
    beginning = b'event: response.completed\ndata: {"type":"response.completed","response":{"output":"'
    for piece in (frame(b'{"type":"response.created"}', "response.created"), beginning, *[b"x" * (1 << 20)] * 9):
        watch.feed(piece)

    assert (watch.committed, watch.ended, watch.boundary) == (True, False, False)

    watch.feed(b'"}}\n\n')

    assert (watch.committed, watch.ended, watch.boundary) == (True, True, True)


def test_recorded():
    """Recorded streams are whole; the whole form is the response of their last event, byte for byte."""
    for body, total in zip(recorded("test_openai_responses_stream.yaml"), (271, 287), strict=True):
        document = ANSWERS.convert(body, Form.EVENTS, WHOLE)

        assert Completeness.WHOLE is ANSWERS.complete(body, Form.EVENTS)
        assert Completeness.WHOLE is ANSWERS.complete(document, Form.WHOLE)
        assert total == ANSWERS.usage(body, Form.EVENTS).total == ANSWERS.usage(document, Form.WHOLE).total
        assert ANSWERS.model(body, Form.EVENTS) == ANSWERS.model(document, Form.WHOLE) == "gpt-4o-2024-08-06"
        assert b'"response":' + document + b"}\n\n" in body
        assert body == ANSWERS.convert(body, Form.EVENTS, STREAM)


def test_recorded_streamed_again():
    """A stream made from a recorded whole answer tells the same steps, with longer deltas and with numbers."""
    for body in recorded("test_openai_responses_stream.yaml"):
        again = ANSWERS.convert(ANSWERS.convert(body, Form.EVENTS, WHOLE), Form.WHOLE, STREAM)
        old = [(event.name, json.loads(event.data)) for event in events(body)]
        new = [(event.name, json.loads(event.data)) for event in events(again)]

        assert list(dict.fromkeys(name for name, _ in old)) == [name for name, _ in new]
        assert list(range(len(new))) == [members.pop("sequence_number") for _, members in new]
        for name, members in new:
            if not name.endswith(".delta"):
                known = next(each for kind, each in old if kind == name)
                assert known == {key: value for key, value in members.items() if key != "logprobs"}


def test_truncated_anywhere():
    """A stream that is cut at any event, or inside one, is never complete, never ended and has no other form."""
    for body in recorded("test_openai_responses_stream.yaml"):
        found = events(body)
        for n in range(len(found)):
            for tail in (b"", found[n].raw[:-3]):
                cut = b"".join(event.raw for event in found[:n]) + tail
                watch = ANSWERS.watch()
                watch.feed(cut)

                assert not watch.ended
                assert Completeness.TRUNCATED is ANSWERS.complete(cut, Form.EVENTS)
                assert ANSWERS.convert(cut, Form.EVENTS, WHOLE) is None


@pytest.mark.parametrize(
    ("item", "steps"),
    [
        pytest.param(
            MESSAGE,
            "content_part.added output_text.delta output_text.annotation.added output_text.done content_part.done "
            "content_part.added refusal.delta refusal.done content_part.done",
            id="message",
        ),
        pytest.param(
            REASONING,
            "reasoning_summary_part.added reasoning_summary_text.delta reasoning_summary_text.done "
            "reasoning_summary_part.done "
            "reasoning_summary_part.added reasoning_summary_text.done reasoning_summary_part.done",
            id="reasoning",
        ),
        pytest.param(FUNCTION, "function_call_arguments.delta function_call_arguments.done", id="function call"),
        pytest.param(CUSTOM, "custom_tool_call_input.delta custom_tool_call_input.done", id="custom tool call"),
        pytest.param({**FUNCTION, "arguments": ""}, "function_call_arguments.done", id="no arguments"),
    ],
)
def test_steps(item, steps):
    """The events of each kind of output item, each naming the item and its place."""
    chunks = events(ANSWERS.convert(whole(item), Form.WHOLE, STREAM))
    members = [json.loads(event.data) for event in chunks]
    frames = ["response.created", "response.in_progress", "response.output_item.added"]
    last = ["response.output_item.done", "response.completed"]

    assert [*frames, *(f"response.{step}" for step in steps.split()), *last] == [event.name for event in chunks]
    assert [event.name for event in chunks] == [each["type"] for each in members]
    assert {item["id"]} == {each["item_id"] for each in members[3:-2]}
    assert {0} == {each["output_index"] for each in members[2:-1]}
    assert tuple(members[0]["response"][name] for name in ("status", "output", "usage", "completed_at")) == (
        "in_progress",
        [],
        None,
        None,
    )
    assert item == members[-2]["item"]


def test_incomplete():
    """A response that reached its bound ends its stream with the event that says so."""
    body = whole(MESSAGE, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    last = events(ANSWERS.convert(body, Form.WHOLE, STREAM))[-1]

    assert last.name == "response.incomplete"
    assert json.loads(body) == json.loads(last.data)["response"]


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({"id": "ws_1", "type": "web_search_call", "status": "completed"}, id="server tool"),
        pytest.param({"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}, id="no id"),
        pytest.param({**MESSAGE, "content": [{"type": "output_audio", "data": ""}]}, id="unknown part"),
        pytest.param({**REASONING, "content": [{"type": "reasoning_text", "text": "x"}]}, id="reasoning text"),
        pytest.param("text", id="no object"),
    ],
)
def test_no_stream(item):
    """What could not be streamed faithfully is not streamed; as it is it may be had."""
    found = ANSWERS.convert(whole(MESSAGE, item), Form.WHOLE, STREAM)

    assert found is None
    assert whole(MESSAGE, item) == ANSWERS.convert(whole(MESSAGE, item), Form.WHOLE, WHOLE)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ITEM = st.one_of(
    st.builds(lambda text: {**MESSAGE, "content": [{"type": "output_text", "text": text, "annotations": []}]}, TEXT),
    st.builds(lambda text: {**FUNCTION, "arguments": text}, TEXT),
    st.builds(lambda text: {**CUSTOM, "input": text}, TEXT),
    st.builds(lambda text: {**REASONING, "summary": [{"type": "summary_text", "text": text}]}, TEXT),
    st.just(MESSAGE),
)


@given(st.lists(ITEM, max_size=4))
def test_there_and_back(output):
    """Streaming a whole answer and putting it together again changes nothing."""
    body = whole(*output)
    chunks = ANSWERS.convert(body, Form.WHOLE, STREAM)

    assert json.loads(body) == json.loads(ANSWERS.convert(chunks, Form.EVENTS, WHOLE))
    assert Completeness.WHOLE is ANSWERS.complete(chunks, Form.EVENTS)
    assert Usage(prompt=278, completion=9, cached=20, reasoning=3) == ANSWERS.usage(chunks, Form.EVENTS)


def test_the_sdk_agrees():
    """The real SDK follows our stream step by step and ends with the answer that it reads from the whole one."""
    body = whole(REASONING, MESSAGE, FUNCTION, CUSTOM)
    with client(body, "application/json") as sdk:
        expected = sdk.responses.create(model="m", input="?").model_dump(mode="json")
    with (
        client(ANSWERS.convert(body, Form.WHOLE, STREAM), "text/event-stream") as sdk,
        sdk.responses.stream(model="m", input="?") as stream,
    ):
        snapshots = [
            event.snapshot
            for event in stream
            if event.type.endswith("_text.delta") and "snapshot" in event.model_fields_set
        ]
        found = stream.get_final_response()

    assert snapshots == ["Grüße"]
    assert expected["output"][0] == found.output[0].model_dump(mode="json")
    assert expected["usage"] == found.usage.model_dump(mode="json")
    assert [item.id for item in found.output] == ["rs_1", "msg_1", "fc_1", "ctc_1"]
    assert found.output_text == "Grüße"
    assert found.output[2].arguments == "{}"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"event: keepalive\ndata: {}\n\n", (False, False, False, True), id="keep-alive"),
        pytest.param(b"event: response.created\n\n", (False, False, False, True), id="no data"),
        pytest.param(frame(b'{"type":"ping"}'), (False, False, False, True), id="unnamed ping"),
        pytest.param(frame(b"{}", "response.created"), (True, False, False, True), id="first event"),
        pytest.param(frame(DEEP), (True, False, False, True), id="too deep"),
        pytest.param(frame(b"no json"), (True, False, False, True), id="unreadable"),
        pytest.param(frame(b"{}", "error"), (False, False, True, True), id="error"),
        pytest.param(final(), (True, True, False, True), id="completed"),
        pytest.param(final().split(b"\n", 1)[1], (True, True, False, True), id="completed, unnamed"),
        pytest.param(final("response.incomplete"), (True, True, False, True), id="incomplete"),
        pytest.param(final("response.failed"), (False, True, True, True), id="failed"),
    ],
)
def test_watch(body, expected):
    """What an observer of a live stream knows: committed, ended, failed, boundary."""
    watch = ANSWERS.watch()
    watch.feed(body)

    assert expected == (watch.committed, watch.ended, watch.failed, watch.boundary)


def test_usage_is_never_hidden():
    """Nothing is narrowed: usage is part of every stream."""
    found = ANSWERS.narrow(STREAM)

    assert found is None


def test_no_usage_no_model():
    """An answer that does not say gives no usage and no model."""
    bodies = [
        (b"{}", Form.WHOLE),
        (b"x", Form.WHOLE),
        (b"", Form.EVENTS),
        (frame(b"{", "response.failed"), Form.EVENTS),
    ]

    assert {Usage()} == {ANSWERS.usage(*each) for each in bodies}
    assert {""} == {ANSWERS.model(*each) for each in bodies}
