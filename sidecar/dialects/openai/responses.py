"""
The answers of ``/responses``: a stream gives in steps what its last event then holds whole.

The rule: the whole answer is the ``response`` of the terminal event, byte for byte. A stream is made only from output
items whose events are known here. Usage is part of both forms, whether asked for or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, Completeness, Narrow, Watch
from sidecar.core.http.sse import Event, EventSign, EventWatch, events, frame
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form, Usage, View
from sidecar.dialects.openai.forms import ODD
from sidecar.dialects.plain import NULL, ErrorMembers, begins, denies, is_null, is_utf8, tokens

Item = dict[str, Any]
"""An output item, a part of one, or the members of an event."""

_TERMINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_QUIET: Final = frozenset({"ping", "keepalive"})


class _IncompleteDetails(Struct, gc=False):
    reason: str | None = None


class _Item(Struct, gc=False):
    status: str | None = None


class _Response(Struct, gc=False):
    """What matters for judging a response."""

    object: str | None = None
    status: str | None = None
    model: str | None = None
    output: Raw = NULL
    usage: Raw = NULL
    error: Raw = NULL
    base_resp: Raw = NULL
    success: Raw = NULL
    incomplete_details: _IncompleteDetails | None = None


class _Event(Struct, gc=False):
    type: str = ""
    response: Raw = NULL
    error: Raw = NULL


_RESPONSE: Final = msgspec.json.Decoder(_Response)
_OUTPUT: Final = msgspec.json.Decoder(list[_Item])
_EVENT: Final = msgspec.json.Decoder(_Event)

_STATUSES: Final = {
    "completed": Completeness.WHOLE,
    "failed": Completeness.FAILED,
    "cancelled": Completeness.FAILED,
    "queued": Completeness.UNFINISHED,
    "in_progress": Completeness.UNFINISHED,
}
"""What the statuses of a response mean (OpenAI, API reference, "The response object")."""

_REASONS: Final = {
    "max_output_tokens": Completeness.WHOLE,
    "content_filter": Completeness.CONTENT_FILTER,
}
"""What makes a response incomplete (the same). A bound on its output is part of the question."""

_ANY: Final = Facts()


def _signs(event: Event) -> int:
    kind = event.name
    if not event.data and kind not in _TERMINAL:  # an event too large to be read has a name alone
        return EventSign.NOTHING
    if not kind:
        try:
            read = _EVENT.decode(event.data)
        except UNREADABLE:
            return EventSign.CONTENT
        kind = read.type if is_null(read.error) else "error"
    if kind in _QUIET:
        return EventSign.NOTHING
    if kind == "error":
        return EventSign.FAILURE
    if kind == "response.failed":
        return EventSign.FAILURE | EventSign.END
    return EventSign.CONTENT | EventSign.END if kind in _TERMINAL else EventSign.CONTENT


def _signs_of(found: list[Event]) -> int:
    signs = EventSign.NOTHING
    for event in found:
        signs |= _signs(event)
    return signs


def _final(body: bytes) -> Raw | None:
    """The ``response`` of the terminal event, None where none came."""
    for event in reversed(events(body)):
        if _signs(event) & EventSign.END:
            return _EVENT.decode(event.data).response
    return None


def _failed(body: bytes) -> bool:
    return any(_signs(event) & EventSign.FAILURE for event in events(body))


def _read(body: bytes, form: Form) -> _Response | None:
    try:
        document = body if form is Form.WHOLE else _final(body)
        return _RESPONSE.decode(document) if document is not None else None
    except UNREADABLE:
        return None


def _complete(body: bytes, form: Form, _facts: Facts = _ANY, _media: str = "") -> Completeness:
    try:
        document = body if form is Form.WHOLE else _final(body)
        if document is None:
            return Completeness.FAILED if _failed(body) else Completeness.TRUNCATED
        response = _RESPONSE.decode(document)
        if denies(ErrorMembers(response.error, response.base_resp, response.success)):
            return Completeness.FAILED
        items = _OUTPUT.decode(response.output) if begins(response.output, b"[") else None
    except UNREADABLE:
        return Completeness.UNREADABLE
    if form is Form.EVENTS and _failed(body):
        return Completeness.FAILED
    if response.object != "response" or items is None or not is_utf8(body):
        return Completeness.UNREADABLE
    return _judge(response, items)


def _judge(response: _Response, items: list[_Item]) -> Completeness:
    """Judge by how it ended; a completed response has no unfinished item."""
    word, known = _ended_by(response)
    found = Completeness.UNFINISHED if word is None else known.get(word, Completeness.UNKNOWN_FINISH)
    if found is not Completeness.WHOLE or response.status != "completed":
        return found
    statuses = {item.status for item in items} - {None, "completed"}
    if "failed" in statuses:
        return Completeness.FAILED
    return Completeness.UNFINISHED if statuses else found


def _ended_by(response: _Response) -> tuple[str | None, Mapping[str, Completeness]]:
    """The status of a response, or why it is incomplete, with the known words; None: it does not say."""
    if response.status == "incomplete":
        details = response.incomplete_details
        return (None if details is None else details.reason), _REASONS
    return response.status, _STATUSES


def _finish(body: bytes, form: Form) -> str:
    response = _read(body, form)
    if response is None:
        return ""
    word, known = _ended_by(response)
    return word if word is not None and word not in known else ""


def _usage(body: bytes, form: Form) -> Usage:
    response = _read(body, form)
    return tokens(response.usage) if response else Usage()


def _model(body: bytes, form: Form) -> str:
    response = _read(body, form)
    return response.model or "" if response else ""


def _convert(body: bytes, form: Form, view: View) -> bytes | None:
    if view.stream == (form is Form.EVENTS):
        return body
    if _complete(body, form, _ANY) not in {Completeness.WHOLE, Completeness.CONTENT_FILTER}:
        return None
    try:
        if form is Form.EVENTS:
            return bytes(_final(body) or b"") or None
        steps = list(_steps(msgspec.json.decode(body)))
    except ODD:
        return None
    return b"".join(
        frame(msgspec.json.encode({"type": kind, "sequence_number": n, **members}), kind)
        for n, (kind, members) in enumerate(steps)
    )


Step = tuple[str, Item]
"""The type of an event and its members, less the sequence number."""


def _steps(response: Item) -> Iterator[Step]:
    """The events of a whole response."""
    begun = response | {"status": "in_progress", "output": []}
    for member in ("usage", "incomplete_details", "completed_at"):
        if member in begun:
            begun[member] = None
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(response["output"]):
        place = {"item_id": item["id"], "output_index": index}
        blank, inner = _ITEMS[item["type"]](item, place)
        if "status" in item:
            blank["status"] = "in_progress"
        yield "response.output_item.added", {"output_index": index, "item": blank}
        yield from inner
        yield "response.output_item.done", {"output_index": index, "item": item}
    yield f"response.{response['status']}", {"response": response}


def _message(item: Item, place: Item) -> tuple[Item, Iterator[Step]]:
    return item | {"content": []}, _parts(item["content"], place)


def _parts(content: list[Item], place: Item) -> Iterator[Step]:
    for index, part in enumerate(content):
        at = place | {"content_index": index}
        member = {"output_text": "text", "refusal": "refusal"}[part["type"]]
        blank = part | {member: ""}
        for more in ("annotations", "logprobs"):
            if part.get(more):
                blank[more] = []
        yield "response.content_part.added", at | {"part": blank}
        marks = {"logprobs": part.get("logprobs") or []} if member == "text" else {}
        if part[member]:
            yield f"response.{part['type']}.delta", at | {"delta": part[member]} | marks
        for number, annotation in enumerate(part.get("annotations") or ()):
            yield (
                "response.output_text.annotation.added",
                at | {"annotation_index": number, "annotation": annotation},
            )
        yield f"response.{part['type']}.done", at | {member: part[member]} | marks
        yield "response.content_part.done", at | {"part": part}


def _reasoning(item: Item, place: Item) -> tuple[Item, Iterator[Step]]:
    if item.get("content"):
        raise ValueError("reasoning text")
    return item | {"summary": []}, _summaries(item["summary"], place)


def _summaries(summary: list[Item], place: Item) -> Iterator[Step]:
    for index, part in enumerate(summary):
        at = place | {"summary_index": index}
        yield "response.reasoning_summary_part.added", at | {"part": part | {"text": ""}}
        if part["text"]:
            yield "response.reasoning_summary_text.delta", at | {"delta": part["text"]}
        yield "response.reasoning_summary_text.done", at | {"text": part["text"]}
        yield "response.reasoning_summary_part.done", at | {"part": part}


def _call(member: str, stem: str) -> Callable[[Item, Item], tuple[Item, Iterator[Step]]]:
    """A call whose *member* streams, in events named by *stem*."""

    def inner(text: str, place: Item) -> Iterator[Step]:
        if text:
            yield f"{stem}.delta", place | {"delta": text}
        yield f"{stem}.done", place | {member: text}

    def spread(item: Item, place: Item) -> tuple[Item, Iterator[Step]]:
        return item | {member: ""}, inner(item[member], place)

    return spread


_ITEMS: Final[dict[str, Callable[[Item, Item], tuple[Item, Iterator[Step]]]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call("arguments", "response.function_call_arguments"),
    "custom_tool_call": _call("input", "response.custom_tool_call_input"),
}
"""Per type of output item: how it looks when it begins, and the events between that and its end."""


def _watch() -> Watch:
    return EventWatch(_signs_of)


def _unchanged(_view: View) -> Narrow | None:
    return None


ANSWERS: Final = Answers(
    complete=_complete,
    usage=_usage,
    model=_model,
    convert=_convert,
    watch=_watch,
    narrow=_unchanged,
    streams=True,
    documents=True,
    finish=_finish,
)
