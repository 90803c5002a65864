"""Which endings of a choice make an answer whole, in both forms alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness
from sidecar.core.http.sse import frame
from sidecar.core.model import Facts, Form, View
from sidecar.dialects.openai import chat as openai_chat
from sidecar.dialects.openai import completions as openai_completions
from sidecar.dialects.openai.finish import GOOD

CALLS = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
SPOKEN = {"content": "Hi", "tool_calls": CALLS}
KINDS = {
    "chat": (openai_chat.ANSWERS, "chat.completion", {"message": SPOKEN}, {"delta": SPOKEN}),
    "completions": (openai_completions.ANSWERS, "text_completion", {"text": "Hi"}, {"text": "Hi"}),
}  # fmt: skip


def both(kind, *finishes, usage=None, **more):
    """The judgements on an answer whose choices ended so, whole and streamed; facts in *more*."""
    answers, name, said, piece = KINDS[kind]
    facts = Facts(**more)
    choices = [{"index": n, **said, "finish_reason": finish} for n, finish in enumerate(finishes)]
    document = json.dumps({"object": name, "model": "m", "choices": choices, "usage": usage}).encode()
    pieces = [{"index": n, **piece, "finish_reason": None} for n in range(len(finishes))]
    ends = [{"index": n, "delta": {}, "text": "", "finish_reason": finish} for n, finish in enumerate(finishes)]
    stream = b"".join(frame(json.dumps({"choices": [one]}).encode()) for one in pieces + ends) + frame(b"[DONE]")
    found = answers.complete(document, Form.WHOLE, facts, ""), answers.complete(stream, Form.EVENTS, facts, "")
    words = answers.finish(document, Form.WHOLE), answers.finish(stream, Form.EVENTS)

    assert found[0] is found[1]
    assert words[0] == words[1]

    return found[0], words[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        # OpenAI, and whoever speaks it
        ("stop", ""),
        ("length", ""),
        ("tool_calls", ""),
        ("function_call", ""),
        ("content_filter", "content-filter"),
        # vLLM: vllm/v1/engine, FINISH_REASON_STRINGS
        ("abort", "unknown-finish"),
        ("error", "unknown-finish"),
        ("repetition", "unknown-finish"),
        # Mistral, API specification
        ("model_length", ""),
        # Together, SDK
        ("eos", ""),
        # text-generation-inference
        ("eos_token", ""),
        ("stop_sequence", ""),
        # DeepSeek, "Create chat completion"
        ("insufficient_system_resource", "unknown-finish"),
        ("aborted", "unknown-finish"),
        # Zhipu, "Chat completion"
        ("sensitive", "unknown-finish"),
        ("network_error", "unknown-finish"),
        ("model_context_window_exceeded", "unknown-finish"),
        # watsonx, SDK (TextChatResultChoice)
        ("time_limit", "unknown-finish"),
        # Ollama: a call without messages loads or unloads the model
        ("load", "unknown-finish"),
        ("unload", "unknown-finish"),
        # Gemini, handed on by a gateway
        ("STOP", "unknown-finish"),
        ("MAX_TOKENS", "unknown-finish"),
        ("SAFETY", "unknown-finish"),
        ("RECITATION", "unknown-finish"),
        ("MALFORMED_FUNCTION_CALL", "unknown-finish"),
        ("FINISH_REASON_UNSPECIFIED", "unknown-finish"),
        # gateways, and nobody
        ("cancelled", "unknown-finish"),  # also watsonx
        ("timeout", "unknown-finish"),
        ("unknown", "unknown-finish"),
        ("end_turn", "unknown-finish"),
        ("not yet invented", "unknown-finish"),
        ("Stop", "unknown-finish"),
        (" ", "unknown-finish"),
        ("", "unknown-finish"),
        (None, "unfinished"),
    ],
)  # fmt: skip
def test_finish(kind, finish, expected):
    """A word is good only where a provider documents it so; whatever else is said is told."""
    found, word = both(kind, finish)

    assert Completeness(expected) is found
    assert (finish if found is Completeness.UNKNOWN_FINISH else "") == word


@pytest.mark.parametrize(
    ("finishes", "facts", "expected"),
    [
        (("stop", "stop", "stop"), {"expects": 3}, ""),
        (("stop", "length"), {}, ""),
        (("stop",), {"expects": 1}, ""),
        (("stop", "stop"), {"expects": 3}, "misshapen"),
        (("stop", "stop"), {"expects": 1}, "misshapen"),
        ((), {}, "unfinished"),
        ((), {"expects": 2}, "unfinished"),
        (("stop", None), {"expects": 2}, "unfinished"),
        (("stop", "error"), {"expects": 2}, "unknown-finish"),
        (("error", "content_filter"), {"expects": 2}, "unknown-finish"),
        (("stop", "content_filter"), {"expects": 2}, "content-filter"),
        (("stop", ""), {"expects": 2}, "unknown-finish"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_choices(kind, finishes, facts, expected):
    """There are as many choices as were asked for, and the worst ending of them counts."""
    found, _ = both(kind, *finishes, **facts)

    assert Completeness(expected) is found


def chat(choice, *, whole=True, **members):
    """The judgement on a chat of one choice, or of the given ones."""
    choices = choice if isinstance(choice, list) else [choice]
    if whole:
        body = json.dumps({"object": "chat.completion", "choices": choices, **members}).encode()
        return openai_chat.ANSWERS.complete(body, Form.WHOLE, Facts(), "")
    body = b"".join(frame(json.dumps({"choices": [one]}).encode()) for one in choices) + frame(b"[DONE]")
    return openai_chat.ANSWERS.complete(body, Form.EVENTS, Facts(), "")


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}, ""),
        ({"index": 7, "message": {"content": "Hi"}, "finish_reason": "stop"}, ""),
        ({"index": 0, "finish_reason": "stop"}, "misshapen"),
        ({"index": 0, "message": None, "finish_reason": "stop"}, "misshapen"),
        ({"index": 0, "message": "Hi", "finish_reason": "stop"}, "misshapen"),
        ({"index": 0, "text": "Hi", "finish_reason": "stop"}, "misshapen"),
        ({"index": 0, "message": {}, "finish_reason": "stop", "error": {"code": 502}}, "failed"),
        ({"index": 0, "finish_reason": "error", "error": {"code": 502}}, "failed"),
        ({"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop", "error": None}, ""),
        ({"index": 0, "message": {}, "finish_reason": 1}, "unreadable"),
        ({"index": 0, "message": {}}, "unfinished"),
        ({"message": {"content": "Hi"}, "finish_reason": "stop", "native_finish_reason": "end_turn"}, ""),
        ([{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}] * 2, "misshapen"),
        ([{"index": n, "message": {"content": "Hi"}, "finish_reason": "stop"} for n in (0, 2)], "misshapen"),
        ([{"index": n, "message": {"content": "Hi"}, "finish_reason": "stop"} for n in (1, 0)], ""),
        ([], "unfinished"),
    ],
    ids=str,
)  # fmt: skip
def test_shape_of_a_whole_answer(choice, expected):
    """Every choice has a message, no error of its own, and a number of its own."""

    assert Completeness(expected) is chat(choice)


ROLE = {"role": "assistant"}


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({}, "stop", "misshapen"),
        ({"content": None}, "stop", "misshapen"),
        ({"content": 5}, "stop", "misshapen"),
        ({"content": {"text": "Hi"}}, "stop", "misshapen"),
        ({"content": True, "tool_calls": CALLS}, "stop", "misshapen"),
        ({"content": "Hi", "tool_calls": "f"}, "stop", "misshapen"),
        ({"content": "Hi", "function_call": []}, "stop", "misshapen"),
        ({"content": "Hi", "function_call": None, "tool_calls": None}, "stop", ""),
        ({"new": "Hi"}, "stop", "misshapen"),
        ({"content": None, "tool_calls": []}, "stop", "misshapen"),
        ({**ROLE, "content": ""}, "stop", ""),
        ({**ROLE, "content": ""}, "length", ""),
        ({**ROLE, "content": [{"type": "text", "text": "Hi"}]}, "stop", ""),
        ({**ROLE, "content": None, "refusal": "No."}, "stop", ""),
        ({**ROLE, "content": None, "audio": {"id": "a"}}, "stop", ""),
        ({**ROLE, "content": None, "reasoning": "Hm."}, "length", ""),
        ({**ROLE, "content": None, "reasoning_content": "Hm."}, "length", ""),
        ({**ROLE, "content": None, "tool_calls": CALLS}, "stop", ""),
        ({**ROLE, "content": None, "tool_calls": CALLS}, "tool_calls", ""),
        ({**ROLE, "content": None, "function_call": {"name": "f", "arguments": ""}}, "function_call", ""),
        ({**ROLE, "content": "Hi"}, "tool_calls", "misshapen"),
        ({**ROLE, "content": "Hi", "tool_calls": []}, "tool_calls", "misshapen"),
        ({**ROLE, "content": "Hi"}, "function_call", "misshapen"),
        ({**ROLE, "content": "Hi", "function_call": {}}, "function_call", "misshapen"),
        ({}, "content_filter", "content-filter"),
        ({"content": 5}, "content_filter", "misshapen"),
    ],
    ids=str,
)
def test_what_is_said(message, finish, expected, whole):
    """A choice is an answer by what it says, and a reason that is a call has one."""
    found = chat({"index": 0, "message" if whole else "delta": message, "finish_reason": finish}, whole=whole)

    assert Completeness(expected) is found


@pytest.mark.parametrize("more", [{}, {"content": None}, {"tool_calls": []}, {"refusal": None}], ids=str)
def test_who_speaks_is_no_answer(more):
    """A whole message has more than its speaker; the pieces of an empty one may have no more."""

    assert Completeness.MISSHAPEN is chat({"message": ROLE | more, "finish_reason": "stop"})
    assert Completeness.WHOLE is chat([{"delta": ROLE | more}, {"delta": {}, "finish_reason": "stop"}], whole=False)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([{"delta": {"content": "a"}}, {"delta": {}, "finish_reason": "stop"}], ""),
        ([{"delta": {"content": "a"}, "finish_reason": "stop"}, {"finish_reason": None}], ""),
        ([{"delta": {"content": "a"}, "finish_reason": ""}, {"delta": {}, "finish_reason": "stop"}], ""),
        ([{"delta": ROLE, "finish_reason": "stop"}, {"delta": {}, "finish_reason": ""}], ""),
        ([{"delta": ROLE, "finish_reason": "stop"}, {"delta": {}, "finish_reason": "stop"}], ""),
        ([{"delta": {}}, {"delta": {}, "finish_reason": "stop"}], "misshapen"),
        ([{"delta": {"content": 5}}, {"delta": {"content": "a"}, "finish_reason": "stop"}], "misshapen"),
        ([{"delta": {"tool_calls": CALLS}}, {"delta": {}, "finish_reason": "tool_calls"}], ""),
        ([{"delta": {"content": "a"}, "finish_reason": ""}], "unknown-finish"),
        ([{"delta": {}, "finish_reason": "stop"}, {"delta": {}, "finish_reason": "error"}], "unknown-finish"),
        ([{"delta": {}, "finish_reason": "error"}, {"delta": {}, "finish_reason": "stop"}], "unknown-finish"),
        ([{"finish_reason": "stop"}], "misshapen"),
        ([{"delta": None, "finish_reason": "stop"}], "misshapen"),
        ([{"delta": {}, "finish_reason": "stop"}, {"error": {"code": 502}}], "failed"),
        ([{"index": 1, "delta": {"content": "a"}, "finish_reason": "stop"}], ""),
        ([{"index": n, "delta": {"content": "a"}, "finish_reason": "stop"} for n in (0, 2)], "misshapen"),
    ],
    ids=str,
)
def test_shape_of_a_stream(pieces, expected):
    """Pieces add up to the same judgement; a choice that says two things is as good as the worse."""

    assert Completeness(expected) is chat(pieces, whole=False)


@pytest.mark.parametrize("kind", KINDS)
def test_other_form(kind):
    """An answer that ended for an unknown reason has no other form, with the usage and all else it needs for one."""
    answers, name, said, _ = KINDS[kind]

    def converted(finish):
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        document = {"object": name, "choices": [choice], "usage": usage}
        return answers.convert(json.dumps(document).encode(), Form.WHOLE, View(stream=True))

    assert all(converted(finish) for finish in (*GOOD, "content_filter"))
    assert not any(converted(finish) for finish in ("error", "", "SAFETY", None))


@given(st.text().filter(lambda word: word not in GOOD | {"content_filter"}))
def test_invented(word):
    """Whatever word comes that nobody documents, the answer is not whole, and the word is told."""

    assert (Completeness.UNKNOWN_FINISH, word) == both("chat", word)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "stop", "error", "chat.completion", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["object", "choices", "index", "message", "finish_reason", "error", "content", "text"]),
        inner, max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


def is_chat(value):
    """The shape, once more and in other words."""
    if not isinstance(value, dict) or value.get("object") != "chat.completion" or value.get("error") is not None:
        return False
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(one, dict) for one in choices):
        return False
    numbers = [one.get("index", 0) for one in choices]
    return (len(choices) == 1 or sorted(numbers) == list(range(len(choices)))) and all(
        isinstance(one.get("message"), dict) and one.get("finish_reason") in GOOD and one.get("error") is None
        for one in choices
    )


CHOICE = st.fixed_dictionaries(
    {"message": JSON, "finish_reason": st.sampled_from(["stop", "x"])}, optional={"index": JSON, "error": JSON}
)
ALMOST = st.fixed_dictionaries(
    {"object": st.just("chat.completion"), "choices": st.lists(CHOICE, max_size=3)}, optional={"error": JSON}
)


@given(JSON | ALMOST)
def test_whole_is_only_what_has_the_shape(value):
    """No other JSON document is a whole answer."""
    found = openai_chat.ANSWERS.complete(json.dumps(value).encode(), Form.WHOLE, Facts(), "")

    assert found is not Completeness.WHOLE or is_chat(value)
