"""
Completions in two forms, whole and in chunks: what chat and the older text completions of OpenAI have in common.

An answer is one document, or a stream of chunks with a common envelope that ends in ``[DONE]``. The rule: a form that
cannot be made faithfully is not made. A member that is not known here is carried over unchanged if a stream gives it
once; if it comes in pieces, the result is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET

from sidecar.core.dialect import Answers, Completeness, Judged, Narrow, Watch
from sidecar.core.http.sse import Event, EventSign, EventWatch, Splitter, events, frame
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form, Usage, View
from sidecar.dialects.openai.answer_members import (
    ANSWER,
    DONE,
    Choice,
    CompletionParts,
    model_in,
    read,
    usage_in,
    usage_member,
)
from sidecar.dialects.openai.finish import Ending, judge, unknown
from sidecar.dialects.plain import NULL, is_null, is_utf8

Piece = dict[str, Any]
"""A choice as a chunk has it; also a choice of the whole answer, or any other JSON object."""

_ENVELOPE: Final = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Members that every chunk repeats. """

_BLANK: Final = {"id": "", "object": "", "created": 0, "model": ""}
"""The envelope of the chunks that Azure's content filter adds."""

_KNOWN: Final = frozenset({*_ENVELOPE, "choices", "usage", "obfuscation"})
_USAGE: Final = b'"usage"'
_NO_USAGE: Final = b',"usage":null'

ODD: Final = (*UNREADABLE, LookupError, TypeError, AttributeError)
"""Exceptions for foreign JSON of an unexpected form. Such an answer has no second form."""


_ANY: Final = Facts()

Speech = Callable[[list[Choice]], int]
"""What a choice says, given as its pieces."""


def agree(target: Piece, name: str, value: Any) -> None:
    """
    Set a member that a stream gives once, repeats, or adds members to. Null never overwrites.

    Raises ``ValueError`` if its value changes: then the whole answer is not known.
    """
    known = target.get(name)
    if known is None:
        target[name] = value
    elif isinstance(known, dict) and isinstance(value, dict):
        for inner in value:
            agree(known, inner, value[inner])
    elif value is not None and value != known:
        raise ValueError(name)


def extend(choice: Piece, marks: Piece | None) -> None:
    """Put the log probabilities of a piece behind those that the choice has."""
    known = choice.setdefault("logprobs", None)
    if marks is None:
        return
    if known is None:
        known = choice["logprobs"] = {}
    for kind, found in marks.items():
        if found is None:
            known.setdefault(kind, None)
        else:
            known[kind] = (known.get(kind) or []) + found


@dataclass(frozen=True, slots=True)
class Layout:
    """
    An endpoint whose whole answer is the object *whole* and whose stream is of *chunk* objects. *speech* is what a
    choice of either has to hold.

    *spread* turns one choice of a whole answer into the pieces that chunks carry, and *gather* turns them back; each
    may raise one of ``ODD`` where that would not be faithful.
    """

    whole: str
    chunk: str
    speech: Speech
    spread: Callable[[Piece], Iterable[Piece]]
    gather: Callable[[list[Piece]], Piece]

    @property
    def answers(self) -> Answers:
        """The endpoint's answers."""
        return Answers(
            complete=self.complete,
            usage=_usage,
            model=_model,
            convert=self.convert,
            watch=_watch,
            narrow=_narrow,
            streams=True,
            documents=True,
            finish=self.finish,
            judge=self.judge,
        )

    def complete(self, body: bytes, form: Form, facts: Facts = _ANY, _media: str = "") -> Completeness:
        """
        Whole if there are as many choices as asked for, each says something and why it finished, for a good reason, and
        a stream also ends with its terminal event.
        """
        return self._complete(body, form, read(body, form), facts)

    def finish(self, body: bytes, form: Form) -> str:
        """The first of the reasons that are not known to be good."""
        return self._finish(form, read(body, form))

    def judge(self, body: bytes, form: Form, facts: Facts, _media: str) -> Judged:
        """All that an answer says of itself, read once."""
        parts = read(body, form)
        complete = self._complete(body, form, parts, facts)
        finish = self._finish(form, parts) if complete is Completeness.UNKNOWN_FINISH else ""
        return Judged(complete, usage_in(parts), model_in(parts), finish)

    def _complete(self, body: bytes, form: Form, parts: CompletionParts, facts: Facts) -> Completeness:
        if parts.wrong is Completeness.UNREADABLE or not is_utf8(body):
            return Completeness.UNREADABLE
        endings = self._endings(form, parts)
        if isinstance(endings, Completeness):
            return endings
        found = judge(endings.values())
        if found is Completeness.WHOLE and not _is_of(endings, facts.expects):
            return Completeness.MISSHAPEN
        return found

    def _finish(self, form: Form, parts: CompletionParts) -> str:
        endings = self._endings(form, parts)
        return next(iter(unknown(endings.values())), "") if isinstance(endings, dict) else ""

    def _endings(self, form: Form, parts: CompletionParts) -> dict[int, Ending] | Completeness:
        """How each choice has ended, by its index; or what is wrong with the answer as a whole."""
        if parts.wrong is not None:
            return parts.wrong
        if form is Form.WHOLE and parts.answers[0].object != self.whole:
            return Completeness.UNREADABLE
        choices: dict[int, list[Choice]] = {}
        for answer in parts.answers[: parts.end]:
            for piece in answer.choices or ():
                choices.setdefault(piece.index, []).append(piece)
        try:
            endings = {index: self._ending(pieces) for index, pieces in choices.items()}
        except UNREADABLE:
            return Completeness.UNREADABLE
        if form is Form.WHOLE and any(len(pieces) > 1 for pieces in choices.values()):
            return Completeness.MISSHAPEN
        return endings

    def _ending(self, pieces: list[Choice]) -> Ending:
        ending = Ending()
        for piece in pieces:
            if piece.finish_reason is not None:
                ending.add(piece.finish_reason)
            if piece.error is not NULL:
                ending.failed |= not is_null(piece.error)
        ending.said = self.speech(pieces)
        return ending

    def convert(self, body: bytes, form: Form, view: View) -> bytes | None:
        """The bytes of *view*. A whole answer always has its usage, so a stream without it has no whole form."""
        if form is Form.WHOLE and not view.stream:
            return body
        if form is Form.EVENTS and view.stream:
            if view.usage:
                return body if usage_member(read(body, form)) is not None else None
            hidden = _Narrow()
            return hidden.feed(body) + hidden.close()
        if self.complete(body, form, _ANY) not in {Completeness.WHOLE, Completeness.CONTENT_FILTER}:
            return None
        try:
            if form is Form.WHOLE:
                return b"".join(self._chunks(msgspec.json.decode(body), view))
            return self._document(body)
        except ODD:
            return None

    def _chunks(self, answer: Piece, view: View) -> Iterator[bytes]:
        """The events of a whole answer, in the order in which OpenAI and Azure send them."""
        envelope: Piece = {name: answer[name] for name in _ENVELOPE if name in answer}
        envelope["object"] = self.chunk
        extra = {name: value for name, value in answer.items() if name not in _KNOWN}
        unasked = {"usage": None} if view.usage else {}
        if filters := extra.pop("prompt_filter_results", None):
            yield _frame({"choices": [], **_BLANK, "prompt_filter_results": filters})
        moderation = extra.pop("moderation", None)
        for choice in answer["choices"]:
            for piece in self.spread(choice):
                yield _frame({**envelope, "choices": [piece], **unasked, **extra})
                extra = {}
        if view.usage:
            if not answer.get("usage"):
                raise ValueError("usage")
            yield _frame({**envelope, "choices": [], "usage": answer["usage"]})
        if moderation is not None:
            yield _frame({**envelope, "choices": [], "moderation": moderation, **unasked})
        yield frame(DONE)

    def _document(self, body: bytes) -> bytes:
        """The whole answer of a complete stream."""
        envelope: Piece = {}
        extra: Piece = {}
        usage = None
        pieces: dict[int, list[Piece]] = {}
        for data in _data(body):
            members = msgspec.json.decode(data)
            for name, value in members.items():
                if name not in _KNOWN:
                    agree(extra, name, value)
                elif name in _ENVELOPE and (value or name not in envelope):
                    envelope[name] = value
            usage = members.get("usage") or usage
            for piece in members.get("choices") or ():
                pieces.setdefault(piece.get("index", 0), []).append(piece)
        if usage is None:
            raise ValueError("usage")
        choices = [self.gather(pieces[index]) for index in sorted(pieces)]
        return msgspec.json.encode({**envelope, "object": self.whole, "choices": choices, "usage": usage, **extra})


def _frame(members: Piece) -> bytes:
    return frame(msgspec.json.encode(members))


def _data(body: bytes) -> Iterator[bytes]:
    """The data of a stream's events up to the end that it announces."""
    for event in events(body):
        if event.data.startswith(DONE):
            return
        if event.data:
            yield event.data


def _is_of(endings: Mapping[int, Ending], expects: int) -> bool:
    """Whether these are the choices asked for, numbered from 0; 0: any number of them."""
    count = len(endings)
    return (not expects or count == expects) and (count == 1 or all(index in endings for index in range(count)))


def _usage(body: bytes, form: Form) -> Usage:
    return usage_in(read(body, form))


def _model(body: bytes, form: Form) -> str:
    return model_in(read(body, form))


def _signs(found: list[Event]) -> int:
    signs = EventSign.NOTHING
    for event in found:
        data = event.data
        if data.startswith(DONE):
            signs |= EventSign.CONTENT | EventSign.END
        elif event.name == "error":
            signs |= EventSign.FAILURE
        elif data and event.name != "ping":
            signs |= EventSign.FAILURE if data.find(b'"error"') >= 0 and _is_error(data) else EventSign.CONTENT
    return signs


def _is_error(data: bytes) -> bool:
    try:
        return not is_null(ANSWER.decode(data).error)
    except UNREADABLE:
        return False


def _watch() -> Watch:
    return EventWatch(_signs)


def _narrow(view: View) -> Narrow | None:
    return _Narrow() if view.stream and not view.usage else None


class _Narrow:
    """Makes the stream of a caller who did not ask for usage, from one that has it."""

    __slots__ = ("_splitter",)

    def __init__(self) -> None:
        self._splitter = Splitter()

    def __repr__(self) -> str:
        return f"<Narrow {self._splitter!r}>"

    def feed(self, chunk: bytes) -> bytes:
        """The events that *chunk* finishes."""
        return _without_usage(self._splitter.feed(chunk))

    def close(self) -> bytes:
        """What is left, which is no event."""
        return _without_usage(self._splitter.close()) + self._splitter.rest


def _without_usage(found: list[Event]) -> bytes:
    """
    Events as they would be without usage; some of them vanish.

    Usage beside content stays: services that write it there do so unasked.
    """
    kept = []
    for event in found:
        data, raw = event.data, event.raw
        if data.find(_USAGE) >= 0:
            try:
                usage = ANSWER.decode(data).usage
                if usage is not UNSET and bytes(usage) == b"null" and data.count(_USAGE) == raw.count(_NO_USAGE) == 1:
                    # The member is there and its name occurs once, so this is it: in a string, its quotes would be
                    # escaped.
                    raw = raw.replace(_NO_USAGE, b"")
                elif usage is not UNSET:
                    raw = _rewritten(event, usage)
            except UNREADABLE:
                pass
        kept.append(raw)
    return b"".join(kept)


def _rewritten(event: Event, usage: msgspec.Raw) -> bytes:
    """An event without its *usage*, ``b""`` if nothing else is in it."""
    shown, members = bytes(usage) != b"null", msgspec.json.decode(event.data)
    if shown and members.get("choices"):
        return event.raw
    del members["usage"]
    if shown and members.keys() <= _KNOWN:
        return b""
    return frame(msgspec.json.encode(members), event.name)
