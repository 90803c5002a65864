"""Whether a cache would have said the same."""

import json

import pytest

from sidecar.core.cache.observation import Observations, essence
from sidecar.core.model import Form, Key
from sidecar.dialects.generic import GENERIC
from sidecar.dialects.openai.dialect import OPENAI

CHAT = OPENAI.locate(b"POST", "/v1/chat/completions")
CALL = GENERIC.locate(b"POST", "/x")

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def said(endpoint=CHAT, form=Form.WHOLE, **changes):
    return essence(endpoint, json.dumps(ANSWER | changes).encode(), form)


def events(*words, ident="chatcmpl-1", usage=False):
    """The answer as a stream, a delta a word."""
    head = {"id": ident, "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks[-1]["choices"][0]["finish_reason"] = "stop"
    if usage:
        chunks.append({"choices": [], "usage": ANSWER["usage"]})
    lines = [b"data: %b\n\n" % json.dumps({**head, **chunk, "obfuscation": ident}).encode() for chunk in chunks]
    return b"".join([*lines, b"data: [DONE]\n\n"])


@pytest.mark.parametrize(
    "change",
    [
        {"id": "2"}, {"created": 2}, {"created_at": 2}, {"system_fingerprint": "x"}, {"usage": {}}, {"request_id": 1},
        {"service_tier": "flex"},
    ],
)  # fmt: skip
def test_of_its_own(change):
    """What every answer has of its own is no difference."""

    assert said() == said(**change)


@pytest.mark.parametrize("change", [{"choices": []}, {"model": "other"}, {"object": "x"}, {"error": {}}])
def test_different(change):
    """Everything else is."""

    assert said() != said(**change)


def test_streams():
    """Streams with their usage are compared by what they say, however it was cut, and with whole answers too."""
    first = essence(CHAT, events("Y", "es", usage=True), Form.EVENTS)

    assert first == essence(CHAT, events("Yes", ident="other", usage=True), Form.EVENTS)
    assert first == said()
    assert first != essence(CHAT, events("No", usage=True), Form.EVENTS)


def test_streams_without_usage():
    """Other streams are compared event by event, less what is each one's own."""
    first = essence(CHAT, events("Yes"), Form.EVENTS)

    assert first == essence(CHAT, events("Yes", ident="other"), Form.EVENTS)
    assert first != essence(CHAT, events("No"), Form.EVENTS)
    assert first != essence(CHAT, events("Yes", "No"), Form.EVENTS)


@pytest.mark.parametrize(
    "body", [b"", b"RIFF\xff", b"[1,2]", b'{"a":', b"[" * 5000, b'{"a":1e999}', b'"\xff"'], ids=repr
)
def test_any_bytes(body):
    """What cannot be read says its bytes."""

    assert 16 == len(essence(CALL, body, Form.WHOLE))
    assert essence(CALL, body, Form.WHOLE) != essence(CALL, body + b" x", Form.WHOLE)
    assert 16 == len(essence(CHAT, body, Form.EVENTS))


def test_long_numbers():
    """Numbers of any length are told apart."""
    one, two = (essence(CALL, b'{"n":1234567890123456789012345678%d}' % n, Form.WHOLE) for n in (1, 2))

    assert one != two


def key(number):
    return Key(bytes(16), number.to_bytes(32, "big"))


def test_note():
    """First, then whether the last answer would have said this."""
    observations = Observations()

    assert ["first", "same", "different", "different", "first"] == [
        observations.note(key(call), said) for call, said in ((1, b"a"), (1, b"a"), (1, b"b"), (1, b"a"), (2, b"a"))
    ]


def test_bounded():
    """The oldest calls are forgotten; one that comes again is new."""
    observations = Observations(limit=2)
    for call in (1, 2, 1, 3):
        observations.note(key(call), b"a")

    assert "<Observations 2 calls>" == repr(observations)
    assert ["same", "same", "first"] == [observations.note(key(call), b"a") for call in (1, 3, 2)]
