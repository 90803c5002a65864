"""The answers of Anthropic's messages: recorded streams, made-up messages, and the provider's own SDK as the reader."""

from pathlib import Path

import httpx2
import msgspec
import pytest
import yaml
from anthropic import Anthropic, APIStatusError
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import events, frame
from sidecar.core.model import Form, Usage, View
from sidecar.dialects.anthropic.dialect import ANTHROPIC
from sidecar.dialects.anthropic.messages import ANSWERS

STREAMS = Path(__file__).parents[3] / "../shared/data/streams"
RECORDINGS = [
    ("test_anthropic_model_thinking_part_stream.yaml", 0),
    ("test_anthropic_native_tool_search_streaming.yaml", 0),
    ("test_anthropic_native_tool_search_streaming.yaml", 1),
]
DOCUMENT, STREAM = View(stream=False), View(stream=True)

USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 5,
    "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 7},
    "service_tier": "standard",
}
CITATION = {
    "type": "char_location",
    "cited_text": "x",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 1,
    "file_id": None,
}
BLOCKS = {
    "text": {"type": "text", "text": "Bonjour, monde é😀\n"},
    "empty": {"type": "text", "text": ""},
    "cited": {"type": "text", "text": "x", "citations": [CITATION, CITATION | {"end_char_index": 2}]},
    "uncited": {"type": "text", "text": "x", "citations": None},
    "thinking": {"type": "thinking", "thinking": "Let me see.", "signature": "EvMC+/=="},
    "silent": {"type": "thinking", "thinking": "", "signature": "abc"},
    "redacted": {"type": "redacted_thinking", "data": "EmwKAhgB"},
    "tool": {"type": "tool_use", "id": "toolu_01", "name": "f", "input": {"z": 1, "a": {"é": [1.5, None]}}},
    "no-input": {"type": "tool_use", "id": "toolu_02", "name": "g", "input": {}, "caller": {"type": "direct"}},
    "result": {
        "type": "tool_search_tool_result",
        "tool_use_id": "s",
        "content": {"type": "tool_search_tool_search_result", "tool_references": []},
    },
}


def message(*blocks, **members):
    """A whole message, as the API writes it."""
    plain = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-6",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }
    return msgspec.json.encode(plain | members)


def recorded(name, number):
    """A recorded stream's bytes."""
    path = STREAMS / name
    if not path.exists():
        pytest.skip(f"no recorded stream {name}")
    exchange = yaml.safe_load(path.read_text())["interactions"][number]
    return exchange["response"]["body"]["string"].encode()


def stream(*frames):
    """The bytes of named events."""
    return b"".join(frame(msgspec.json.encode({"type": name, **data}), name) for name, data in frames)


def started(*frames):
    """A stream with its start and its end around *frames*."""
    start = {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": {}}
    end = ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}})
    return stream(("message_start", {"message": start}), *frames, end, ("message_stop", {}))


def watched(body, cut=1 << 20):
    """A watch that has seen *body* in pieces of *cut* bytes."""
    watch = ANSWERS.watch()
    for at in range(0, len(body), cut):
        watch.feed(body[at : at + cut])
    return watch


class Reader:
    """The provider's SDK over a transport that answers with given bytes."""

    def __init__(self, body, status=200):
        kind = "text/event-stream" if body.startswith(b"event:") else "application/json"
        answer = httpx2.Response(status, content=body, headers={"content-type": kind})
        transport = httpx2.MockTransport(lambda _request: answer)
        self.client = Anthropic(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport))
        self.question = {"model": "claude-sonnet-4-6", "max_tokens": 99, "messages": [{"role": "user", "content": "?"}]}

    def document(self):
        """What a caller without streaming gets."""
        with self.client:
            return self.client.messages.create(**self.question).to_dict()

    def stream(self):
        """What a streaming caller has gathered at the end."""
        with self.client, self.client.messages.stream(**self.question) as answer:
            return answer.get_final_message().to_dict()


def plain(value):
    """*value* without what is null or absent alike to a reader: nulls, and the SDK's own additions."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None and k != "parsed_output"}
    return [plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("name", "number"), RECORDINGS)
def test_recorded_streams_are_whole(name, number):
    """A recorded stream is complete, tells its model and usage, and its watch sees the end."""
    body = recorded(name, number)

    watch = watched(body, cut=7)

    assert ANSWERS.complete(body, Form.EVENTS) == Completeness.WHOLE
    assert ANSWERS.model(body, Form.EVENTS).startswith("claude-sonnet-4")
    assert (watch.committed, watch.ended, watch.failed, watch.boundary) == (True, True, False, True)


def test_recorded_usage_is_the_last_total():
    """Totals at the end of a stream replace those of its start."""
    body = recorded("test_anthropic_native_tool_search_streaming.yaml", 0)

    assert Usage(prompt=1591, completion=175) == ANSWERS.usage(body, Form.EVENTS)


@pytest.mark.parametrize(("name", "number"), RECORDINGS)
def test_recorded_streams_convert_for_the_sdk(name, number):
    """The SDK reads the same message from a recorded stream, from its document, and from a stream made of that."""
    body = recorded(name, number)

    document = ANSWERS.convert(body, Form.EVENTS, DOCUMENT)
    again = ANSWERS.convert(document, Form.WHOLE, STREAM)

    expected = plain(Reader(body).stream())
    assert expected == plain(Reader(document).document())
    assert expected == plain(Reader(again).stream())


@pytest.mark.parametrize(("name", "number"), RECORDINGS)
def test_a_recorded_stream_cut_anywhere_is_not_whole(name, number):
    """Cut at any event's end, or inside an event, a stream is never complete and never converted."""
    body = recorded(name, number)

    at = 0
    for event in events(body)[:-1]:
        at += len(event.raw)
        for cut in (at, at - 1, at + 3):
            assert ANSWERS.complete(body[:cut], Form.EVENTS) is Completeness.TRUNCATED
            assert ANSWERS.convert(body[:cut], Form.EVENTS, DOCUMENT) is None
        assert not watched(body[:at]).ended


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_each_kind_of_block_survives_both_ways(block):
    """A message streamed and gathered again is the same message, to us and to the SDK."""
    body = message(BLOCKS["text"], block, stop_reason="max_tokens", stop_details=None)

    streamed = ANSWERS.convert(body, Form.WHOLE, STREAM)
    gathered = ANSWERS.convert(streamed, Form.EVENTS, DOCUMENT)

    assert msgspec.json.decode(body) == msgspec.json.decode(gathered)
    assert plain(msgspec.json.decode(body)) == plain(Reader(streamed).stream())
    assert ANSWERS.complete(streamed, Form.EVENTS) == Completeness.WHOLE
    assert ANSWERS.usage(body, Form.WHOLE) == ANSWERS.usage(streamed, Form.EVENTS)
    assert ANSWERS.model(body, Form.WHOLE) == ANSWERS.model(streamed, Form.EVENTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(texts=st.lists(st.text(), max_size=3), tool=st.dictionaries(st.text(), JSON, max_size=4), indent=st.booleans())
def test_any_text_and_tool_input_survives(texts, tool, indent):
    """Whatever a message says, and however it is indented, streaming and gathering give it back in order."""
    blocks = [{"type": "text", "text": text} for text in texts]
    body = message(*blocks, {"type": "tool_use", "id": "t", "name": "f", "input": tool})
    if indent:
        body = msgspec.json.format(body)

    streamed = ANSWERS.convert(body, Form.WHOLE, STREAM)
    gathered = ANSWERS.convert(streamed, Form.EVENTS, DOCUMENT)

    content = msgspec.json.decode(gathered)["content"]
    assert [*blocks, {"type": "tool_use", "id": "t", "name": "f", "input": tool}] == content
    assert list(tool) == list(content[-1]["input"])


def test_tool_inputs_keep_their_bytes():
    """Numbers and escapes of a tool's input come out as they went in."""
    written = b'{"z":1.50,"a":12345678901234567890123,"u":"\\u00e9"}'
    body = message({"type": "tool_use", "id": "t", "name": "f", "input": msgspec.Raw(written)})

    streamed = ANSWERS.convert(body, Form.WHOLE, STREAM)

    pieces = [msgspec.json.decode(event.data) for event in events(streamed) if event.name == "content_block_delta"]
    assert written.decode() == "".join(piece["delta"]["partial_json"] for piece in pieces)
    assert written in ANSWERS.convert(streamed, Form.EVENTS, DOCUMENT)


def test_a_streamed_message_has_the_api_form():
    """Every event is named as its data's type, in the API's order; the start is empty and the end has the totals."""
    streamed = ANSWERS.convert(message(BLOCKS["text"]), Form.WHOLE, STREAM)

    frames = [(event.name, msgspec.json.decode(event.data)) for event in events(streamed)]
    assert [name for name, _ in frames] == [data["type"] for _, data in frames]
    assert [name for name, _ in frames] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = frames[0][1]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 1)
    assert frames[-2][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert frames[-2][1]["usage"]["output_tokens"] == 40


def test_context_management_is_told_at_the_end():
    """What the API tells in the last delta beside usage is there, and comes back."""
    edits = {"applied_edits": []}
    body = message(BLOCKS["text"], context_management=edits)

    streamed = ANSWERS.convert(body, Form.WHOLE, STREAM)

    assert edits == msgspec.json.decode(events(streamed)[-2].data)["context_management"]
    assert msgspec.json.decode(body) == msgspec.json.decode(ANSWERS.convert(streamed, Form.EVENTS, DOCUMENT))


TEXT = ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
TOOL = ("content_block_start", {"index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}})
STOP = ("content_block_stop", {"index": 0})


def delta(**members):
    """A delta of the first block."""
    return ("content_block_delta", {"index": 0, "delta": members})


@pytest.mark.parametrize(
    ("body", "form"),
    [
        pytest.param(message({"type": "hologram", "data": "x"}), Form.WHOLE, id="unknown block"),
        pytest.param(message({"text": "x"}), Form.WHOLE, id="block without type"),
        pytest.param(message(stop_reason=None), Form.WHOLE, id="unfinished"),
        pytest.param(message(BLOCKS["text"])[:-9], Form.WHOLE, id="cut document"),
        pytest.param(started(TEXT, delta(type="hologram_delta", x=1), STOP), Form.EVENTS, id="unknown delta"),
        pytest.param(started(TOOL, delta(type="input_json_delta", partial_json='{"a":'), STOP), Form.EVENTS, id="half"),
        pytest.param(started(TEXT, ("hologram", {}), STOP), Form.EVENTS, id="unknown event"),
        pytest.param(started(("content_block_start", TEXT[1] | {"index": 3}), STOP), Form.EVENTS, id="wrong index"),
        pytest.param(started(TEXT, ("content_block_delta", delta()[1] | {"index": -1}), STOP), Form.EVENTS, id="below"),
        pytest.param(started(TEXT, ("content_block_delta", delta()[1] | {"index": 1}), STOP), Form.EVENTS, id="beyond"),
    ],
)
def test_what_would_not_be_faithful_is_not_converted(body, form):
    """Unknown, broken and unfinished things have no other form."""
    wanted = View(stream=form is Form.WHOLE)

    assert ANSWERS.convert(body, form, wanted) is None


@pytest.mark.parametrize(
    ("body", "form", "expected"),
    [
        pytest.param(message(), Form.WHOLE, Completeness.WHOLE, id="whole"),
        pytest.param(message(stop_reason="refusal"), Form.WHOLE, Completeness.WHOLE, id="refusal"),
        pytest.param(message(stop_reason="pause_turn"), Form.WHOLE, Completeness.PAUSED, id="paused"),
        pytest.param(message(stop_reason=None), Form.WHOLE, Completeness.UNFINISHED, id="unfinished"),
        pytest.param(ANTHROPIC.error(529, "x", "busy"), Form.WHOLE, Completeness.FAILED, id="error"),
        pytest.param(b'{"type":"message"}', Form.WHOLE, Completeness.UNREADABLE, id="no content"),
        pytest.param(b'{"type":"list","content":[]}', Form.WHOLE, Completeness.UNREADABLE, id="no message"),
        pytest.param(b"<html>", Form.WHOLE, Completeness.UNREADABLE, id="no JSON"),
        pytest.param(b"[" * 100_000, Form.WHOLE, Completeness.UNREADABLE, id="deep"),
        pytest.param(started(TEXT, STOP), Form.EVENTS, Completeness.WHOLE, id="stream"),
        pytest.param(started(TEXT), Form.EVENTS, Completeness.UNREADABLE, id="open block"),
        pytest.param(started() + b"\r\n", Form.EVENTS, Completeness.WHOLE, id="blank line behind"),
        pytest.param(started() + b"event: pi", Form.EVENTS, Completeness.TRUNCATED, id="half an event behind"),
        pytest.param(started() + stream(STOP), Form.EVENTS, Completeness.UNREADABLE, id="event behind"),
        pytest.param(started() + stream(("ping", {})), Form.EVENTS, Completeness.WHOLE, id="ping behind"),
        pytest.param(stream(("message_stop", {})), Form.EVENTS, Completeness.UNREADABLE, id="no start"),
        pytest.param(started(TEXT, ("error", {}), STOP), Form.EVENTS, Completeness.FAILED, id="error inside"),
        pytest.param(
            stream(("message_start", {}), ("message_stop", {})), Form.EVENTS, Completeness.UNFINISHED, id="no reason"
        ),
        pytest.param(
            started().replace(b"end_turn", b"pause_turn"), Form.EVENTS, Completeness.PAUSED, id="paused stream"
        ),
        pytest.param(b"", Form.EVENTS, Completeness.TRUNCATED, id="empty stream"),
        pytest.param(b"", Form.WHOLE, Completeness.UNREADABLE, id="empty document"),
    ],
)
def test_completeness(body, form, expected):
    """Only whole answers may be kept."""
    assert expected == ANSWERS.complete(body, form)


@given(st.binary())
def test_any_bytes_are_judged(body):
    """No answer, however broken, raises."""
    for form in Form:
        assert ANSWERS.complete(body, form) is not Completeness.WHOLE
        assert Usage() == ANSWERS.usage(body, form)
        assert ANSWERS.model(body, form) == ""
        watched(body)


def test_usage_counts_what_the_prompt_cache_served():
    """The API's input tokens leave out cached ones; ours don't."""
    assert Usage(prompt=20, completion=40, cached=5, reasoning=7) == ANSWERS.usage(message(), Form.WHOLE)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (False, False, False, True)),
        (b": hello\n\n" + stream(("ping", {})), (False, False, False, True)),
        (b'data: {"type":"message_stop"}\n\n', (False, False, False, True)),
        (stream(("message_start", {})), (True, False, False, True)),
        (stream(("message_start", {})) + b"event: ", (True, False, False, False)),
        (ANTHROPIC.error_event("x", "broken"), (False, False, True, True)),
        (started(TEXT, STOP), (True, True, False, True)),
    ],
    ids=["nothing", "ping", "unnamed", "start", "inside", "error", "end"],
)
def test_a_watch_knows_where_a_stream_stands(body, expected):
    """Pings and comments commit nothing, an error fails, the last event ends; however the bytes were cut."""
    for cut in (1, 5, 1 << 20):
        watch = watched(body, cut)

        assert expected == (watch.committed, watch.ended, watch.failed, watch.boundary)


def test_a_clean_end_needs_no_blank_line():
    """What is left at the clean end is the last event; what was cut off is none."""
    for body in (started(TEXT, STOP)[:-2], started(TEXT, STOP).replace(b"\n", b"\r")):
        watch, cut_off = watched(body), watched(started(TEXT, STOP)[:-3])
        watch.close()
        cut_off.close()

        assert (True, True, False) == (watch.ended, watch.boundary, cut_off.ended)
        assert ANSWERS.complete(body, Form.EVENTS) is Completeness.WHOLE


def test_the_sdk_raises_on_our_error_event():
    """A stream that we break off with an error makes the SDK raise with our words."""
    body = stream(("message_start", {"message": msgspec.json.decode(message(usage=USAGE))}))

    with pytest.raises(APIStatusError, match="gone quiet"):
        Reader(body + ANTHROPIC.error_event("upstream-lost", "The service has gone quiet.")).stream()


def test_the_same_form_is_the_same_bytes():
    """Nothing is rewritten for a caller who wants the form that is there, and no live stream is changed."""
    odd = b'{ "not" : "a message" }'

    assert odd == ANSWERS.convert(odd, Form.WHOLE, DOCUMENT)
    assert odd == ANSWERS.convert(odd, Form.EVENTS, STREAM)
    assert ANSWERS.narrow(View(stream=True, usage=False)) is None


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"base_resp": {"status_code": 1004}}, Completeness.FAILED),
        ({"base_resp": {"status_code": 0}}, Completeness.WHOLE),
        ({"success": False}, Completeness.FAILED),
        ({"status": "failed"}, Completeness.FAILED),
        ({"status": "ok"}, Completeness.WHOLE),
    ],
    ids=str,
)
def test_what_is_said_beside(members, expected):
    """What a gateway says beside a message counts."""

    assert expected is ANSWERS.complete(message(**members), Form.WHOLE)


def test_no_text():
    """JSON is UTF-8, in its texts too."""
    body = message(container="@").replace(b"@", b"\xff")

    assert Completeness.UNREADABLE is ANSWERS.complete(body, Form.WHOLE)
