"""
Reads Anthropic's messages as answers: whether one is whole, which model gave it, and what it cost.

The rule: a stream is whole only if everything that it began has ended; what cannot be read is never whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, Completeness
from sidecar.core.http.sse import Event, Splitter, events
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form, Usage, View
from sidecar.dialects.anthropic.forms import ODD, document, stream
from sidecar.dialects.plain import ErrorMembers, denies, is_utf8

_COUNTED: Final = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


_GOOD: Final = frozenset({
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded",
})  # fmt: skip
"""
Reasons of a complete message (Anthropic, "Handling stop reasons", and the SDK's ``StopReason``). Both bounds on its
length belong to the question or to the model; a refusal is an answer.
"""

_PAUSED: Final = frozenset({"pause_turn", "compaction"})
"""Stop reasons of a message that goes on in the caller's next request (the same, and ``BetaStopReason``)."""

_ANY: Final = Facts()


class _Stop(Struct):
    stop_reason: str | None = None


class _Thinking(Struct):
    thinking_tokens: int = 0


class _Counts(Struct):
    """A usage; None where it says nothing, so that a later one replaces only what it says."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _Thinking | None = None


class _AnthropicMessage(ErrorMembers):
    """The parts of a whole message that are judged; an error document has no content."""

    type: str = ""
    model: str = ""
    content: list[Raw] | None = None
    stop_reason: str | None = None
    usage: _Counts = msgspec.field(default_factory=_Counts)


class _MessageStart(Struct):
    message: _AnthropicMessage


class _MessageDelta(Struct):
    delta: _Stop = msgspec.field(default_factory=_Stop)
    usage: _Counts = msgspec.field(default_factory=_Counts)


class MessageWatch:
    """Observes a live stream of message events. Events without a name don't count: the API's clients drop them."""

    __slots__ = ("_splitter", "boundary", "committed", "ended", "failed")

    def __init__(self) -> None:
        self._splitter = Splitter()
        self.boundary = True
        self.committed = False
        self.ended = False
        self.failed = False

    def __repr__(self) -> str:
        states = ("committed" * self.committed, "ended" * self.ended, "failed" * self.failed)
        return f"<MessageWatch {' '.join(filter(None, states)) or 'waiting'}>"

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes of the stream; never raises."""
        self._take(self._splitter.feed(chunk))

    def close(self) -> None:
        """The stream has ended cleanly: what is left is its last event."""
        self._take(self._splitter.close())

    def _take(self, found: list[Event]) -> None:
        for event in found:
            match event.name:
                case "" | "ping":
                    pass
                case "error":
                    self.failed = True
                case name:
                    self.committed = True
                    self.ended = self.ended or name == "message_stop"
        self.boundary = self._splitter.boundary


def _complete(body: bytes, form: Form, _facts: Facts = _ANY, _media: str = "") -> Completeness:
    """Whether *body* is a whole message. A refusal is whole; a paused turn continues in the next request."""
    try:
        if not is_utf8(body):
            return Completeness.UNREADABLE
        if form is Form.EVENTS:
            return _complete_stream(body)
        message = msgspec.json.decode(body, type=_AnthropicMessage)
    except UNREADABLE:
        return Completeness.UNREADABLE
    if message.type == "error" or denies(message):
        return Completeness.FAILED
    if message.type != "message" or message.content is None:
        return Completeness.UNREADABLE
    return _judge([message.stop_reason])


def _complete_stream(body: bytes) -> Completeness:
    """As ``_complete``, for a stream: it begins, closes each block, ends, and nothing follows."""
    reasons: list[str | None] = []
    names = []
    size = 0
    for event in events(body):
        size += len(event.raw)
        if event.name == "error":
            return Completeness.FAILED
        if event.name == "message_delta":
            reasons.append(msgspec.json.decode(event.data, type=_MessageDelta).delta.stop_reason)
        if event.name not in ("", "ping"):
            names.append(event.name)
    if "message_stop" not in names or body[size:].strip(b"\r\n"):
        return Completeness.TRUNCATED
    whole = names[0] == "message_start" and names.index("message_stop") == len(names) - 1
    if not whole or names.count("content_block_start") != names.count("content_block_stop"):
        return Completeness.UNREADABLE
    return _judge(reasons)


def _judge(reasons: list[str | None]) -> Completeness:
    """Judge by all reasons that were given: if they contradict each other, one that is not good decides."""
    given = _given(reasons)
    if not given:
        return Completeness.UNFINISHED
    if given - _GOOD - _PAUSED:
        return Completeness.UNKNOWN_FINISH
    return Completeness.PAUSED if given & _PAUSED else Completeness.WHOLE


def _given(reasons: list[str | None]) -> set[str]:
    """The reasons. ``""`` may only mean that there is none yet, so it counts only if no other reason is given."""
    given = {reason for reason in reasons if reason is not None}
    return given - {""} or given


def _finish(body: bytes, form: Form) -> str:
    """The first of the reasons that are not known to be good."""
    try:
        if form is Form.WHOLE:
            reasons = [msgspec.json.decode(body, type=_AnthropicMessage).stop_reason]
        else:
            deltas = (event.data for event in events(body) if event.name == "message_delta")
            reasons = [msgspec.json.decode(data, type=_MessageDelta).delta.stop_reason for data in deltas]
    except UNREADABLE:
        return ""
    return next(iter(sorted(_given(reasons) - _GOOD - _PAUSED)), "")


def _usage(body: bytes, form: Form) -> Usage:
    """The token counts. The API's ``input_tokens`` leave out what its prompt cache read and wrote; ours do not."""
    found: dict[str, int] = {}
    try:
        for counts in _counts(body, form):
            found |= {name: value for name in _COUNTED if (value := getattr(counts, name)) is not None}
            if counts.output_tokens_details is not None:
                found["thinking_tokens"] = counts.output_tokens_details.thinking_tokens
    except UNREADABLE:
        return Usage()
    cached = found.get("cache_read_input_tokens", 0)
    return Usage(
        prompt=found.get("input_tokens", 0) + cached + found.get("cache_creation_input_tokens", 0),
        completion=found.get("output_tokens", 0),
        cached=cached,
        reasoning=found.get("thinking_tokens", 0),
    )


def _counts(body: bytes, form: Form) -> Iterator[_Counts]:
    """The usages that *body* tells, in their order."""
    if form is Form.WHOLE:
        yield msgspec.json.decode(body, type=_AnthropicMessage).usage
        return
    for event in events(body):
        if event.name == "message_start":
            yield msgspec.json.decode(event.data, type=_MessageStart).message.usage
        elif event.name == "message_delta":
            yield msgspec.json.decode(event.data, type=_MessageDelta).usage


def _model(body: bytes, form: Form) -> str:
    """The model that answered."""
    try:
        if form is Form.WHOLE:
            return msgspec.json.decode(body, type=_AnthropicMessage).model
        starts = (event.data for event in events(body) if event.name == "message_start")
        return msgspec.json.decode(next(starts, b""), type=_MessageStart).message.model
    except UNREADABLE:
        return ""


def _convert(body: bytes, form: Form, view: View) -> bytes | None:
    """The bytes of the form that *view* wants. Usage is part of both forms, so ``view.usage`` changes nothing."""
    if view.stream == (form is Form.EVENTS):
        return body
    if _complete(body, form, _ANY):
        return None
    try:
        return stream(body) if view.stream else document(body)
    except ODD:
        return None


ANSWERS: Final = Answers(
    complete=_complete,
    usage=_usage,
    model=_model,
    convert=_convert,
    watch=MessageWatch,
    narrow=lambda _view: None,
    streams=True,
    documents=True,
    finish=_finish,
)
"""The answers of ``/v1/messages``."""
