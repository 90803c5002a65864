"""Handing an answer on: what its head says, and in which form each caller gets it."""

import json

import pytest

from sidecar.core.answer.rescue import Rescued
from sidecar.core.cache.policy import Serve
from sidecar.core.http.headers import lines
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Entry, Form, Usage, View
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.deliver import Stamp, clean, deliver, hit, in_form, is_as_stored, rescued, viewed
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader

OPENAI = DIALECTS["openai"]
CHAT = OPENAI.locate(b"POST", "/v1/chat/completions")
ID = b"request-1"
COUNTS = Usage(3, 2)
STORED_HEADERS = ((b"content-type", b"application/json"), (b"openai-version", b"2020-10-01"))
JSON_TYPE = (b"content-type", b"application/json")
EVENTS_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
WHOLE, STREAM, COUNTED = View(), View(stream=True, usage=False), View(stream=True, usage=True)
BODY = json.dumps({
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a box"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}).encode()  # fmt: skip


def entry_of(body=BODY, form=Form.WHOLE, *, usage=COUNTS, model="gpt-4o", headers=STORED_HEADERS, status=200):
    return Entry(status, headers, body, form, "openai", "all", model, 0.0, 60.0, usage)


def events_of(view):
    found = CHAT.answers.convert(BODY, Form.WHOLE, view)

    assert found is not None

    return found


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (Stamp(ID, b"sidecar; fwd=miss"), ()),
        (Stamp(ID, b"sidecar; fwd=miss", "gpt-4o"), ((b"x-sidecar-model", b"gpt-4o"),)),
        (Stamp(ID, b"sidecar; fwd=miss", region="us"), ((b"x-sidecar-region", b"us"),)),
        (Stamp(ID, b"sidecar; fwd=miss", id_field=b"request-id"), ((b"request-id", ID),)),
        (
            Stamp(ID, b"sidecar; fwd=miss", "m", "us"),
            ((b"x-sidecar-model", b"m"), (b"x-sidecar-region", b"us")),
        ),
        (Stamp(ID, b"sidecar; fwd=miss", "a\r\nset-cookie: b"), ((b"x-sidecar-model", b"a??set-cookie:?b"),)),
    ],
    ids=["bare", "model", "region", "id", "both", "a name that breaks lines"],
)
def test_stamp(stamp, expected):
    """What we add to every head: what happened, its id, and who answered where that is known."""

    assert ((b"cache-status", b"sidecar; fwd=miss"), (b"x-sidecar-request-id", ID), *expected) == stamp.pairs()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-4o", b"gpt-4o"),
        ("a b\tc\x00d\x7f", b"a?b?c?d?"),
        ("modèle", b"mod?le"),
        ("模型", b"??"),
        ("", b""),
        ("x" * 200, b"x" * 128),
    ],
    ids=repr,
)
def test_clean(text, expected):
    """Any text becomes a header value of one line, at most 128 bytes."""

    assert expected == clean(text)


def test_long_names_are_not_remembered():
    """A model's name is the caller's to choose: no more of it is remembered than is told."""
    clean.cache_clear()
    for end in "abc":
        Stamp(b"", b"", model="m" * 128 + end, region="r" * 128 + end).pairs()

    assert 2 == clean.cache_info().currsize


@pytest.mark.parametrize(
    ("form", "wanted", "left", "detail", "kind"),
    [
        (Form.WHOLE, Form.WHOLE, 48, b"memory", JSON_TYPE),
        (Form.EVENTS, Form.EVENTS, 0, b"memory", JSON_TYPE),
        (Form.WHOLE, Form.EVENTS, 48, b"memory", EVENTS_TYPE),
        (Form.EVENTS, Form.WHOLE, -1, b"stale", JSON_TYPE),
    ],
    ids=["as stored", "stream as stored", "as a stream", "stale, as a whole"],
)
def test_hit(form, wanted, left, detail, kind):
    """A hit says its age and what is left of it; its type is that of the form it is in."""
    response = hit(Serve(entry_of(form=form), 12, left), b"body", wanted, ID, "gpt-4o")

    assert (200, b"body", False) == (response.status, response.body, response.close)
    assert response.head == lines((
        kind, (b"openai-version", b"2020-10-01"), (b"content-length", b"4"), (b"age", b"12"),
        (b"cache-status", b"sidecar; hit; ttl=%d; detail=%b" % (left, detail)), (b"x-sidecar-request-id", ID),
        (b"x-sidecar-model", b"gpt-4o"),
    ))  # fmt: skip


def test_hit_without_a_model():
    """Nothing is said of a model where none was asked for; a hit is of no region."""
    head = hit(Serve(entry_of(b"", headers=()), 0, 60), b"", Form.WHOLE, ID, "").head

    assert head == lines((
        (b"content-length", b"0"), (b"age", b"0"), (b"cache-status", b"sidecar; hit; ttl=60; detail=memory"),
        (b"x-sidecar-request-id", ID),
    ))  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
def test_hit_with_the_id_where_sdks_look_for_it(name):
    """Our own id stands in the field of the vendor's, too, where the API has one."""
    field = DIALECTS[name].request_id
    plain, told = (hit(Serve(entry_of(), 0, 60), BODY, Form.WHOLE, ID, "m", id_field=name) for name in (b"", field))
    added = b"%b: %b\r\n" % (field, ID) if field else b""

    assert told.head.count(ID) == (2 if field else 1)
    assert plain.head == told.head.replace(added, b"", 1)
    assert field in {b"", b"x-request-id", b"request-id", b"apim-request-id", b"x-requestid"}


def test_hit_of_a_hostile_model():
    """A model's name that a caller sent cannot end the line that it stands on."""

    assert b"x-sidecar-model: m??x:?y\r\n" in hit(Serve(entry_of(), 0, 60), b"", Form.WHOLE, ID, "m\r\nx: y").head


@pytest.mark.parametrize("close", [True, False])
def test_rescued(close):
    """An error of our own has its length and the stamp, and may close the connection."""
    answer = Rescued(503, "connect", "No.", (JSON_TYPE, (b"retry-after", b"1")), b"{}")
    response = rescued(answer, Stamp(ID, b"sidecar; fwd=miss"), close=close)

    assert (503, b"{}", close) == (response.status, response.body, response.close)
    assert response.head == lines((
        JSON_TYPE, (b"retry-after", b"1"), (b"content-length", b"2"), (b"cache-status", b"sidecar; fwd=miss"),
        (b"x-sidecar-request-id", ID),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("form", "usage", "view", "expected"),
    [
        (Form.WHOLE, Usage(3, 2), WHOLE, True),
        (Form.WHOLE, Usage(), WHOLE, True),
        (Form.WHOLE, Usage(3, 2), STREAM, False),
        (Form.WHOLE, Usage(3, 2), COUNTED, False),
        (Form.EVENTS, Usage(3, 2), WHOLE, False),
        (Form.EVENTS, Usage(3, 2), COUNTED, True),
        (Form.EVENTS, Usage(3, 2), STREAM, False),
        (Form.EVENTS, Usage(), COUNTED, False),
        (Form.EVENTS, Usage(), STREAM, False),
    ],
)
def test_is_as_stored(form, usage, view, expected):
    """A whole answer is itself; a stream is, where its token counts are wanted and there."""

    assert expected == is_as_stored(entry_of(form=form, usage=usage), view)


@pytest.mark.parametrize("view", [WHOLE, STREAM, COUNTED], ids=["whole", "stream", "counted"])
@pytest.mark.parametrize("stored", [WHOLE, COUNTED], ids=["from a whole", "from a stream"])
def test_viewed(stored, view):
    """Either form serves each view; the token counts are in it where they are wanted."""
    entry = entry_of() if stored is WHOLE else entry_of(events_of(COUNTED), Form.EVENTS)
    body, form = viewed(entry, CHAT, view)

    assert (Form.EVENTS if view.stream else Form.WHOLE) is form
    assert (b'"total_tokens":5' in body.replace(b" ", b"")) == (view.usage or not view.stream)
    assert b"a box" in body
    if view is stored:
        assert entry.body is body


@pytest.mark.parametrize(
    ("entry", "view"),
    [
        (entry_of(b"no json"), STREAM),
        (entry_of(b"data: no json\n\n", Form.EVENTS), WHOLE),
        (entry_of(events_of(STREAM), Form.EVENTS, usage=Usage()), COUNTED),
    ],
    ids=["whole", "stream", "counts that are not there"],
)
def test_not_viewed(entry, view):
    """A view that cannot be had faithfully is none."""

    assert viewed(entry, CHAT, view) is None


@pytest.mark.parametrize(
    ("pairs", "form", "expected"),
    [
        ((), Form.WHOLE, (JSON_TYPE,)),
        ((), Form.EVENTS, (EVENTS_TYPE,)),
        (((b"Content-Type", b"text/event-stream"), (b"A", b"b")), Form.WHOLE, (JSON_TYPE, (b"A", b"b"))),
        (STORED_HEADERS, Form.EVENTS, (EVENTS_TYPE, (b"openai-version", b"2020-10-01"))),
        ((JSON_TYPE, (b"CONTENT-TYPE", b"x")), Form.EVENTS, (EVENTS_TYPE,)),
    ],
    ids=["none", "no stream", "to a whole", "to a stream", "said twice"],
)
def test_in_form(pairs, form, expected):
    """The content type is that of the form; the rest stays."""

    assert expected == in_form(pairs, form)


class Exchange:
    """A caller that takes everything."""

    def __init__(self):
        self.started = self.ended = self.was_cut = False
        self.head = None
        self.body = b""

    def begin(self, status, pairs, length):
        self.started, self.head = True, (status, pairs, length)

    async def write(self, chunk):
        self.body += chunk

    def end(self):
        self.ended = True

    def abort(self):
        self.was_cut = True


OWN, COALESCE = ((b"content-type", b"own"), (b"set-cookie", b"c")), ((b"content-type", b"shared"),)
STAMP = Stamp(ID, b"sidecar; fwd=miss")


async def delivered(body, form, view, *, owner=True, usage=True, error=None, status=200, limit=1 << 20, exchange=None):
    """What a caller gets of a flight that is over, and what the delivery returns."""
    flight = Flight(
        "key", limit=limit, ledger=Ledger(1 << 20), generating=True, on_close=lambda _: None, on_abandon=lambda _: False
    )
    first = Reader(flight)
    reader = first if owner else Reader(flight)
    opening = Opening(status, OWN, COALESCE, form, len(body), usage=usage)
    flight.open(opening)
    if not owner and limit < len(body):
        first.leave()
    await flight.push(body)
    if error is None:
        flight.finish()
    else:
        flight.fail(error)
    exchange = exchange or Exchange()
    began = []

    def begin():
        began.append((exchange.started, exchange.body))

    try:
        return await deliver(exchange, reader, opening, view, CHAT, OPENAI, STAMP, begin), exchange
    finally:
        assert began == ([(True, b"")] if exchange.body else [])  # once, with the first of it


@pytest.mark.parametrize("owner", [True, False], ids=["owner", "another"])
async def test_delivered_as_it_came(owner):
    """The owner sees the answer's own head, everybody else what is everybody's; both its bytes."""
    size, exchange = await delivered(BODY, Form.WHOLE, WHOLE, owner=owner)

    assert (len(BODY), BODY, True, False) == (size, exchange.body, exchange.ended, exchange.was_cut)
    assert (200, (*(OWN if owner else COALESCE), *STAMP.pairs()), len(BODY)) == exchange.head


@pytest.mark.parametrize(
    ("body", "form", "view"),
    [(BODY, Form.WHOLE, COUNTED), (BODY, Form.WHOLE, STREAM), (events_of(COUNTED), Form.EVENTS, WHOLE)],
    ids=["to a stream", "without counts", "to a whole"],
)
async def test_delivered_in_another_form(body, form, view):
    """Who joined and wants the other form gets it, with its length and type."""
    size, exchange = await delivered(body, form, view, owner=False)
    expected = CHAT.answers.convert(body, form, view)

    assert (len(expected), expected, True) == (size, exchange.body, exchange.ended)
    assert (200, (EVENTS_TYPE if view.stream else JSON_TYPE, *STAMP.pairs()), len(expected)) == exchange.head


async def test_the_owner_gets_what_the_service_chose():
    """A service that answers a stream with a whole document is not corrected towards its own caller."""
    _, exchange = await delivered(BODY, Form.WHOLE, STREAM)

    assert (BODY, True) == (exchange.body, exchange.ended)


async def test_narrowed():
    """Token counts that were asked for on the caller's behalf are not in what it gets."""
    _, exchange = await delivered(events_of(COUNTED), Form.EVENTS, STREAM)

    assert events_of(STREAM).split(b"data: ")[-1] == exchange.body.split(b"data: ")[-1]
    assert b"total_tokens" not in exchange.body
    assert exchange.head[2] is None


@pytest.mark.parametrize(
    ("body", "form", "view", "how"),
    [
        (b"no json", Form.WHOLE, STREAM, {}),
        (events_of(STREAM), Form.EVENTS, COUNTED, {"usage": False}),
        (BODY, Form.WHOLE, STREAM, {"limit": 10}),
    ],
    ids=["unfaithful", "without the counts", "too large to be kept whole"],
)
async def test_not_delivered(body, form, view, how):
    """Where a caller's view cannot be had nothing is sent, so that it can make a call of its own."""
    size, exchange = await delivered(body, form, view, owner=False, **how)

    assert size is None
    assert not exchange.started


async def test_error_is_delivered_as_it_came():
    """An upstream's error has one form, whatever the view."""
    _, exchange = await delivered(b'{"error":{}}', Form.WHOLE, STREAM, owner=False, status=429)

    assert (429, b'{"error":{}}') == (exchange.head[0], exchange.body)


async def test_broken_before_it_began():
    """Before the first byte a failure can still become an error answer."""
    exchange = Exchange()
    with pytest.raises(UpstreamFailed):
        await delivered(b"", Form.EVENTS, COUNTED, error=UpstreamFailed(Cause.TRUNCATED), exchange=exchange)

    assert not exchange.started
    assert not exchange.was_cut


@pytest.mark.parametrize(
    ("form", "view", "cause", "told"),
    [
        (Form.EVENTS, COUNTED, Cause.TRUNCATED, True),
        (Form.EVENTS, COUNTED, Cause.INTERNAL, False),
        (Form.WHOLE, WHOLE, Cause.TRUNCATED, False),
    ],
    ids=["between events", "a bug of ours", "a document"],
)
async def test_broken_in_the_middle(form, view, cause, told):
    """A broken answer never looks whole: it is cut, after an error event where a stream has room for one."""
    exchange = Exchange()
    start = events_of(COUNTED).split(b"\n\n")[0] + b"\n\n" if form is Form.EVENTS else BODY[:20]
    with pytest.raises(UpstreamFailed):
        await delivered(start, form, view, error=UpstreamFailed(cause), exchange=exchange)

    assert exchange.was_cut
    assert not exchange.ended
    assert exchange.body == start + (
        OPENAI.error_event(f"upstream-{cause}", "The AI service broke off in the middle of its answer.")
        if told
        else b""
    )
