"""
Delivering an answer to its caller, in the form that the caller asked for.

The rule: ``Cache-Status`` tells the caller the truth. A caller never receives data of another caller. If an answer
breaks, the caller sees that it is broken: it never looks whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from msgspec import Struct

from sidecar.core.answer.rescue import Rescued
from sidecar.core.cache.policy import Serve
from sidecar.core.dialect import Dialect, Endpoint
from sidecar.core.http.headers import lines
from sidecar.core.model import Entry, Form, Outcome, Pairs, View
from sidecar.errors import Cause, UpstreamFailed
from sidecar.net.base import Exchange, Response
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader
from sidecar.tasks import CONVERTED_IN_LOOP, in_thread_if_large

_HIT_MEMORY = Outcome.HIT_MEMORY  # reading a member from its enumeration takes 60 ns (Python 3.11)
_WHOLE = Form.WHOLE
_EVENTS_TYPE = b"text/event-stream; charset=utf-8"
_JSON_TYPE = b"application/json"
_LONGEST = 128  # characters of a name that are told, and remembered: callers choose the models'
_PIECE = 64 * 1024
_BROKE_OFF = "The AI service broke off in the middle of its answer."
_FOUND = {
    Outcome.HIT_MEMORY: b"memory",
    Outcome.HIT_REDIS: b"redis",
    Outcome.STALE: b"stale",
    Outcome.STALE_ERROR: b"stale-if-error",
}
FOUND_FRESH = frozenset({Outcome.HIT_MEMORY, Outcome.HIT_REDIS})
"""Where a fresh answer was found; one that is not fresh any more is a stale one, wherever it was."""

_HIT = (
    b"%bcontent-length: %d\r\nage: %d\r\ncache-status: sidecar; hit; ttl=%d; detail=%b\r\nx-sidecar-request-id: %b\r\n"
)


class Stamp(Struct, frozen=True, gc=False):
    """
    What we add to the head of every answer. *id_field* is the field in which an SDK looks for the vendor's id of the
    call; we put our own id there. It is ``b""`` if the answer brings that id itself, or the API has no such field.
    """

    request_id: bytes
    status: bytes
    model: str = ""
    region: str = ""
    id_field: bytes = b""

    def pairs(self) -> Pairs:
        """As header fields."""
        found: Pairs = ((b"cache-status", self.status), (b"x-sidecar-request-id", self.request_id))
        if self.id_field:
            found += ((self.id_field, self.request_id),)
        if self.model:
            found += ((b"x-sidecar-model", clean(self.model[:_LONGEST])),)
        if self.region:
            found += ((b"x-sidecar-region", clean(self.region[:_LONGEST])),)
        return found


@lru_cache(maxsize=1024)
def clean(text: str) -> bytes:
    """*text* as a header value: each character that is not allowed there becomes ``?``."""
    return bytes(byte if 0x20 < byte < 0x7F else 0x3F for byte in text[:_LONGEST].encode("latin-1", "replace"))


def hit(
    serve: Serve,
    body: bytes,
    form: Form,
    request_id: bytes,
    model: str,
    found: Outcome = _HIT_MEMORY,
    id_field: bytes = b"",
) -> Response:
    """
    An entry as an answer. *body* and *form* are in the form that the caller wants. *model* is the one that was asked
    for, as for a miss. *found*: where the entry was found. *id_field* is as in ``Stamp``.
    """
    entry = serve.entry
    head = _hit_format(model[:_LONGEST], id_field) % (
        lines(entry.headers if form is entry.form else in_form(entry.headers, form)),
        len(body),
        serve.age,
        serve.ttl,
        _FOUND[found] if serve.ttl >= 0 else b"stale",
        *((request_id, request_id) if id_field else (request_id,)),
    )
    return Response(entry.status, head, body)


@lru_cache(maxsize=1024)
def _hit_format(model: str, id_field: bytes) -> bytes:
    """The format of a hit's head, filled with the parts that are equal for all hits of a *model*."""
    form = _HIT
    if id_field:
        form += b"%b: %%b\r\n" % id_field
    if model:
        form += b"x-sidecar-model: %b\r\n" % clean(model).replace(b"%", b"%%")
    return form


def hit_status(ttl: int, outcome: Outcome) -> bytes:
    """``Cache-Status`` of a stored answer; *ttl* is what is left of its time, seconds."""
    return b"sidecar; hit; ttl=%d; detail=%b" % (ttl, _FOUND[outcome])


def miss_status(opening: Opening, *, collapsed: bool) -> bytes:
    """``Cache-Status`` of an answer that memory did not have; *collapsed*: another caller's call brought it."""
    if opening.found is not None:
        return hit_status(opening.found.ttl, opening.outcome)
    if opening.outcome is Outcome.FALLBACK:
        return b"sidecar; fwd=miss; detail=fallback"
    if collapsed:
        return b"sidecar; fwd=miss; collapsed"
    return b"sidecar; fwd=miss; stored" if opening.kept else b"sidecar; fwd=miss"


def rescued(answer: Rescued, stamp: Stamp, *, close: bool = False) -> Response:
    """An error of our own as an answer."""
    pairs = (*answer.pairs, (b"content-length", str(len(answer.body)).encode()), *stamp.pairs())
    return Response(answer.status, lines(pairs), answer.body, close)


def is_as_stored(entry: Entry, view: View) -> bool:
    """Whether the caller's form of an entry is its stored body, unchanged."""
    if entry.form is _WHOLE:
        return not view.stream
    return view.stream and view.usage and entry.usage.total > 0


def as_it_stands(entry: Entry, view: View) -> bool:
    """Whether an entry answers the caller in one piece: no conversion, and no waiting for the connection."""
    return len(entry.body) <= _PIECE and is_as_stored(entry, view)


def viewed(entry: Entry, endpoint: Endpoint, view: View) -> tuple[bytes, Form] | None:
    """An entry's body in the caller's form; None if the dialect cannot convert it without loss."""
    if is_as_stored(entry, view):
        return entry.body, entry.form
    body = endpoint.answers.convert(entry.body, entry.form, view)
    return None if body is None else (body, Form.EVENTS if view.stream else Form.WHOLE)


def in_form(pairs: Pairs, form: Form) -> Pairs:
    """Header fields of an answer that is now in *form*."""
    kept = tuple(pair for pair in pairs if pair[0].lower() != b"content-type")
    return ((b"content-type", _EVENTS_TYPE if form is Form.EVENTS else _JSON_TYPE), *kept)


async def deliver(
    exchange: Exchange,
    reader: Reader,
    opening: Opening,
    view: View,
    endpoint: Endpoint,
    dialect: Dialect,
    stamp: Stamp,
    begin: Callable[[], None],
) -> int | None:
    """
    Send a flight's answer as it comes. Returns the body's size; None if this caller's form of it is impossible, and
    then nothing has been sent. *begin* is called when the first bytes are sent.

    Raises the errors of the caller's connection, and the flight's failure if nothing has been sent yet.
    """
    pairs = opening.pairs if reader.owner else opening.shared
    pairs = (*pairs, *stamp.pairs())
    wanted = Form.EVENTS if view.stream else Form.WHOLE
    as_asked = reader.owner and opening.found is None  # then the service chose the form itself
    if opening.status == 200 and opening.form is not wanted and not as_asked:
        return await _deliver_converted(exchange, reader, opening, view, endpoint, pairs, begin)
    if opening.form is Form.EVENTS and view.usage and not opening.usage and not as_asked:
        return None
    found = opening.found
    if found is not None and as_it_stands(found.entry, view):
        body = found.entry.body
        exchange.respond(Response(opening.status, lines((*pairs, (b"content-length", b"%d" % len(body)))), body))
        begin()
        return len(body)
    return await _deliver_live(exchange, reader, opening, view, endpoint, dialect, pairs, begin)


async def _deliver_live(
    exchange: Exchange,
    reader: Reader,
    opening: Opening,
    view: View,
    endpoint: Endpoint,
    dialect: Dialect,
    pairs: Pairs,
    begin: Callable[[], None],
) -> int:
    narrow = endpoint.answers.narrow(view) if opening.form is Form.EVENTS else None
    size = 0

    async def write(out: bytes) -> None:
        nonlocal size
        if not out:
            return
        if not size:
            begin()
        size += len(out)
        await exchange.write(out)

    try:
        chunk = await reader.read()  # a failure before the first byte is still an error answer
        exchange.begin(opening.status, pairs, opening.length if opening.form is Form.WHOLE else None)
        while chunk:
            await write(chunk if narrow is None else narrow.feed(chunk))
            chunk = await reader.read()
        if narrow is not None:
            await write(narrow.close())
    except UpstreamFailed as failure:
        if not exchange.started:
            raise
        await _break_off(exchange, reader, opening, dialect, failure)
        raise
    exchange.end()
    return size


async def _deliver_converted(
    exchange: Exchange,
    reader: Reader,
    opening: Opening,
    view: View,
    endpoint: Endpoint,
    pairs: Pairs,
    begin: Callable[[], None],
) -> int | None:
    views = reader.flight.views
    if view not in views:
        whole = await reader.whole()
        if whole is None:
            return None
        if view not in views:
            convert = partial(endpoint.answers.convert, whole, opening.form, view)
            views[view] = await in_thread_if_large(len(whole), CONVERTED_IN_LOOP, convert)
    body = views[view]
    if body is None:
        return None
    form = Form.EVENTS if view.stream else Form.WHOLE
    exchange.begin(opening.status, in_form(pairs, form), len(body))
    begin()
    for start in range(0, len(body), _PIECE):
        await exchange.write(body[start : start + _PIECE])
    exchange.end()
    return len(body)


async def _break_off(
    exchange: Exchange, reader: Reader, opening: Opening, dialect: Dialect, failure: UpstreamFailed
) -> None:
    """Break off a begun answer: send the dialect's error event if the stream is between two events, then cut."""
    if opening.form is Form.EVENTS and reader.flight.boundary and failure.cause is not Cause.INTERNAL:
        event = dialect.error_event(f"upstream-{failure.cause}", _BROKE_OFF)
        if event:
            await exchange.write(event)
    exchange.abort()
