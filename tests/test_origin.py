"""Fetching an answer: what is sent, what is kept and when, and in whose record its cost stands."""

import asyncio
import json

import pytest
from msgspec.structs import replace

from sidecar.core import canonical
from sidecar.core.approach import Approaches
from sidecar.core.draft import Draft
from sidecar.core.fingerprint import seal
from sidecar.core.headers import fields_of
from sidecar.core.ledger import Ledger
from sidecar.core.model import Entry, Form, Head, Outcome, Usage
from sidecar.core.policy import freshness
from sidecar.core.principal import Accepted, Pod
from sidecar.core.purges import Purges
from sidecar.core.recognise import choose_route
from sidecar.core.regions import Regions
from sidecar.core.rules import CacheMode, CacheRule, Match, MemoryRule, Region, Route, Rules, Service, Share
from sidecar.dialects import DIALECTS
from sidecar.dispatch import Dispatch
from sidecar.errand import Call, Errand
from sidecar.errors import Cause, UpstreamFailed
from sidecar.flight.table import Flights
from sidecar.net.base import Request
from sidecar.origin import COMMIT_BYTES, Origin
from sidecar.standby import Standby
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered
from sidecar.throttle import Throttle

NOW = 1_800_000_000.0
SECRET = b"secret"
MIB = 1024 * 1024
CHAT = b"/openai/v1/chat/completions"
EMBEDDINGS = b"/openai/v1/embeddings"
JSON = (b"Content-Type", b"application/json")
EVENTS = (b"Content-Type", b"text/event-stream")
CHUNKED = (b"Transfer-Encoding", b"chunked")
ALWAYS = {b"authorization": b"Bearer k", b"x-stainless-retry-count": b"0"}
ASK = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "Box?"}]}
STREAM = ASK | {"stream": True}

RULES = Rules(
    services=(
        Service("openai", DIALECTS["openai"], (Region("us", "https://us"),), path="/openai"),
        Service(
            "azure", DIALECTS["azure-openai"], (Region("r", "https://{resource}.r"),), path="/azure", resource=True
        ),
    ),
    routes=(
        Route(
            "team",
            Match(header={"x-team": "docs"}),
            CacheRule(CacheMode.ALWAYS, ttl=60.0, share=Share("service"), tags=("ocr",)),
        ),
        Route("all", cache=CacheRule(CacheMode.ALWAYS)),
    ),
)


def event(**members):
    return (
        b"data: %b\n\n"
        % json.dumps({"id": "c", "object": "chat.completion.chunk", "model": "gpt-4o", **members}).encode()
    )


def delta(text, finish=None):
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5})
DONE = b"data: [DONE]\n\n"
SAID = [delta("It is "), delta("a box.", "stop"), USAGE, DONE]


def completion(text="It is a box."):
    return json.dumps({
        "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }).encode()  # fmt: skip


class Answer:
    """An answer of *parts*: bytes, an event to wait for, or an error to raise."""

    def __init__(self, *parts, status=200, pairs=(JSON, CHUNKED)):
        self.status, self.pairs, self.length = status, pairs, None
        self.parts = list(parts)
        self.closed = False

    async def read(self):
        while self.parts:
            part = self.parts.pop(0)
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, Exception):
                raise part
            else:
                return part
        return b""

    def close(self):
        self.closed = True


def whole(text="It is a box.", *, pairs=(JSON, CHUNKED)):
    return Answer(completion(text), pairs=pairs)


def streamed(*parts):
    return Answer(*(parts or SAID), pairs=(EVENTS, CHUNKED))


def complaint(text="Unknown parameter: 'stream_options.include_usage'."):
    return Answer(b'{"error":{"mess', b'age":"%b"}}' % text.encode(), status=400)


class Client:
    """Answers call by call as *script* says: an answer, or an error to raise; an event before it is waited for."""

    def __init__(self, *script):
        self.script = list(script)
        self.bodies = []

    async def send(self, *, body, on_sent, **_):
        self.bodies.append(body)
        on_sent()
        while isinstance(self.script[0], asyncio.Event):
            await self.script.pop(0).wait()
        end = self.script.pop(0)
        if isinstance(end, Exception):
            raise end
        return end


class Desk:
    """An origin with a scripted client, and a memory that starts empty."""

    def __init__(self, *script, limit=4 * MIB):
        self.client = Client(*script)
        self.tasks = set()
        self.bugs = []
        self.seconds = 0.0
        self.store = Tiered(Memory(MemoryRule()), Nowhere(), Purges())
        self.flights = Flights(spawn=self.spawn, ledger=Ledger(64 * MIB), limit=limit, report=self.bugs.append)
        self.accepted = Accepted()
        dispatch = Dispatch(
            self.client,
            None,  # no region has a credential
            Regions(),
            Ledger(4 * MIB),
            spawn=self.spawn,
            now=lambda: NOW,
            clock=lambda: NOW,
            draw=lambda: 0.5,
            throttle=Throttle(quota=None, pods=lambda: None, clock=lambda: NOW, spawn=self.spawn),
        )
        self.origin = Origin(
            dispatch=dispatch,
            standby=Standby(dispatch, self.clock, self.bugs.append),
            store=self.store,
            flights=self.flights,
            accepted=self.accepted,
            lease_wait=1.0,
            now=lambda: NOW,
            clock=self.clock,
        )
        self.approaches = Approaches(RULES, SECRET, Pod("team", "app", b""))

    def clock(self):
        self.seconds += 0.5
        return self.seconds

    def spawn(self, coroutine, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def errand(self, ask=ASK, fields=None, *, target=CHAT, number=0):
        body = json.dumps(ask).encode()
        pairs = ((b"host", b"localhost"), *(ALWAYS | (fields or {})).items())
        head = Head(b"POST", target, 1, pairs, fields_of(pairs))
        approach = self.approaches.find(head)
        endpoint = approach.site.endpoint
        reading = canonical.read(body, endpoint, b"application/json", SECRET)
        facts = reading.facts
        route = choose_route(approach.site, head.fields, facts.model)
        caller = self.approaches.caller(approach, route)
        key = seal(SECRET, caller.prefix, facts.model, reading)
        call = Call(
            endpoint, facts, route, facts.model, caller.principal, freshness(endpoint, route, approach.asked), key
        )
        draft = Draft(b"%d" % number, NOW, 0.0, "openai", route.name, endpoint.name, b"POST", Outcome.MISS)
        return Errand(Request(head, body, approach), approach, call, key, draft)

    def fly(self, errand):
        """A flight on the errand, and its owner."""

        async def fetch(flight):
            sent = await self.origin.send(errand, flight)
            try:
                await self.origin.pour(errand, flight, sent)
            finally:
                sent.answer.close()

        flight = self.flights.lead(errand.key, fetch, generating=errand.call.endpoint.generating)
        return flight, self.join(flight, errand)

    def join(self, flight, errand):
        return flight.join(errand.call.principal.credential, errand.draft)

    async def fetch(self, errand):
        """All of an errand; what its caller got."""
        _, reader = self.fly(errand)
        return await read(reader)

    async def settle(self):
        """Let everything run that can."""
        for _ in range(20):
            await asyncio.sleep(0)


async def read(reader):
    try:
        opening = await reader.opening()
        got = b""
        while chunk := await reader.read():
            got += chunk
        return opening, got
    finally:
        reader.leave()


@pytest.fixture
async def desks():
    """Makes desks, after which nothing may run on and no bug may have been met."""
    made = []

    def make(*script, **how):
        made.append(Desk(*script, **how))
        return made[-1]

    yield make
    for desk in made:
        await desk.settle()

        assert set() == desk.tasks
        assert [] == desk.bugs


def asks_usage(body):
    return b'"include_usage":true' in body


# ---- a stream's token counts ----


async def test_usage_is_asked_for(desks):
    """A stream's token counts are asked for on the caller's behalf, and booked."""
    desk = desks(streamed())
    errand = desk.errand(STREAM)
    await desk.fetch(errand)

    assert [True] == [asks_usage(body) for body in desk.client.bodies]
    assert (1, Usage(3, 2)) == (errand.draft.attempts, errand.draft.usage)


async def test_usage_refused(desks):
    """A complaint that names what we asked for is answered by one resend of the caller's own bytes."""
    refusal = complaint()
    desk = desks(refusal, streamed())
    errand = desk.errand(STREAM)
    opening, got = await desk.fetch(errand)

    assert [True, False] == [asks_usage(body) for body in desk.client.bodies]
    assert errand.request.body == desk.client.bodies[1]
    assert refusal.closed
    assert (200, False, b"".join(SAID)) == (opening.status, opening.usage, got)
    assert (2, "us", 200) == (errand.draft.attempts, errand.draft.region, errand.draft.upstream_status)


async def test_usage_refused_is_remembered(desks):
    """What one deployment refuses is not asked of it again; of others it is."""
    desk = desks(complaint(), *[streamed() for _ in range(4)])
    asked = []
    for ask in (STREAM, STREAM | {"seed": 1}, STREAM | {"model": "gpt-4o-mini"}, STREAM | {"seed": 2}):
        await desk.fetch(desk.errand(ask))
        asked.append([asks_usage(body) for body in desk.client.bodies])
        desk.client.bodies.clear()

    assert [[True, False], [False], [True], [False]] == asked


async def test_usage_refused_by_a_resource(desks):
    """Two resources of one service are two deployments, though they are named alike."""
    desk = desks(complaint(), streamed(), streamed(), streamed())
    asked = []
    for resource in (b"one", b"two", b"one"):
        target = b"/azure/%b/openai/deployments/d/chat/completions?api-version=2024-06-01" % resource
        await desk.fetch(desk.errand(STREAM, {b"api-key": b"k"}, target=target))
        asked.append([asks_usage(body) for body in desk.client.bodies])
        desk.client.bodies.clear()

    assert [[True, False], [True], [False]] == asked


async def test_complaint_of_something_else(desks):
    """Any other complaint is the caller's, byte for byte, and teaches nothing."""
    desk = desks(complaint("Bad temperature."), streamed())
    errand = desk.errand(STREAM)
    opening, got = await desk.fetch(errand)

    assert (400, b'{"error":{"message":"Bad temperature."}}') == (opening.status, got)
    assert (1, "status", None) == (errand.draft.attempts, errand.draft.reason, errand.draft.usage)
    assert desk.store.peek(errand.key) is None

    await desk.fetch(desk.errand(STREAM))

    assert [True, True] == [asks_usage(body) for body in desk.client.bodies]


async def test_long_complaint(desks):
    """A complaint longer than what is looked at goes through whole."""
    parts = [b"x" * 40_000, b"y" * 40_000, b"z" * 40_000]
    desk = desks(Answer(*parts, status=400))
    _, got = await desk.fetch(desk.errand(STREAM))

    assert b"".join(parts) == got


@pytest.mark.parametrize(
    "ask",
    [ASK, STREAM | {"stream_options": {"include_usage": True}}, STREAM | {"stream_options": {"include_usage": False}}],
    ids=["whole", "asked for", "refused"],
)
async def test_usage_is_not_asked_for(desks, ask):
    """Where there is nothing to ask for, or the caller has said it, its bytes go out as they are."""
    desk = desks(streamed() if "stream" in ask else whole())
    errand = desk.errand(ask)
    await desk.fetch(errand)

    assert [errand.request.body] == desk.client.bodies


async def test_failure_after_a_refusal(desks):
    """Both calls are booked, where it failed, too."""
    failure = UpstreamFailed(Cause.CONNECT)
    desk = desks(complaint(), failure)
    errand = desk.errand(STREAM)
    with pytest.raises(UpstreamFailed):
        await desk.fetch(errand)

    assert (2, "us") == (errand.draft.attempts, errand.draft.region)


# ---- what is kept ----


async def test_kept(desks):
    """An entry has the answer's bytes, what every caller may see of its head, and what the route says of it."""
    desk = desks(Answer(completion(), pairs=(JSON, CHUNKED, (b"Set-Cookie", b"c"), (b"X-Request-Id", b"up"))))
    errand = desk.errand(fields={b"x-team": b"docs", b"x-sidecar-tags": b"a, b"})
    opening, got = await desk.fetch(errand)
    entry = desk.store.peek(errand.key)

    assert completion() == got == entry.body
    assert ((b"content-type", b"application/json"),) == entry.headers == opening.shared
    assert (b"Set-Cookie", b"c") in opening.pairs
    assert (200, Form.WHOLE, "openai", "team", "gpt-4o-2024", "us") == (
        entry.status, entry.form, entry.service, entry.route, entry.model, entry.region
    )  # fmt: skip
    assert (NOW, 60.0, ("ocr", "a", "b"), Usage(3, 2), 1.5) == (
        entry.at, entry.ttl, entry.tags, entry.usage, entry.seconds
    )  # fmt: skip
    assert (True, "", "up", True) == (errand.draft.stored, errand.draft.reason, errand.draft.upstream_id, opening.kept)


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [({}, 3600.0), ({b"x-sidecar-ttl": b"5m"}, 300.0), ({b"x-sidecar-ttl": b"9h"}, 3600.0)],
    ids=["the kind's", "shorter", "never longer"],
)
async def test_kept_for(desks, fields, ttl):
    """How long it is kept: the caller may only shorten it."""
    desk = desks(whole())
    errand = desk.errand(fields=fields)
    await desk.fetch(errand)

    assert ttl == desk.store.peek(errand.key).ttl


async def test_kept_at_the_last_event(desks):
    """A stream is kept when its last event has come, before its last byte; whoever leaves then has had it all."""
    gate = asyncio.Event()
    desk = desks(streamed(*SAID, gate, b": bye\n\n"))
    errand = desk.errand(STREAM)
    flight, reader = desk.fly(errand)
    await desk.settle()
    entry = desk.store.peek(errand.key)

    assert (b"".join(SAID), Form.EVENTS) == (entry.body, entry.form)
    assert (True, True, Usage(3, 2)) == (flight.complete, errand.draft.stored, errand.draft.usage)
    assert not flight.over
    assert not reader.satisfied

    got = await reader.read()

    assert reader.satisfied
    assert b"".join(SAID) == got

    reader.leave()
    gate.set()
    await desk.settle()

    assert flight.over
    assert (1, Usage(3, 2)) == (errand.draft.attempts, errand.draft.usage)
    assert entry is desk.store.peek(errand.key)


@pytest.mark.parametrize("broken", [True, False], ids=["broken off", "ended early"])
async def test_stream_that_breaks_is_not_kept(desks, broken):
    """Without its last event a stream is an error, and nothing of it is kept."""
    end = [UpstreamFailed(Cause.TRUNCATED, answered=True)] if broken else []
    desk = desks(streamed(*SAID[:2], *end))
    errand = desk.errand(STREAM)
    with pytest.raises(UpstreamFailed, match="truncated"):
        await desk.fetch(errand)

    assert desk.store.peek(errand.key) is None


async def test_stream_that_breaks_after_its_last_event(desks):
    """After the last event an answer is whole, whatever becomes of the transfer: it is handed on and kept."""
    desk = desks(streamed(*SAID, UpstreamFailed(Cause.TRUNCATED, answered=True)))
    errand = desk.errand(STREAM)
    read = await desk.fetch(errand)

    assert b"".join(SAID) == read[1]
    assert b"".join(SAID) == desk.store.peek(errand.key).body


@pytest.mark.parametrize("size", [10, COMMIT_BYTES + 1], ids=["small", "past the commit point"])
@pytest.mark.parametrize(
    ("framing", "kept"),
    [((CHUNKED,), True), (((b"content-length", b"9"),), True), ((), False)],
    ids=["chunked", "length", "unframed"],
)
async def test_unframed(desks, size, framing, kept):
    """An answer that ends with its connection may have been cut: it is handed on, not kept, and never said to be."""
    desk = desks(Answer(completion("x" * size), b"", pairs=(JSON, *framing)))
    errand = desk.errand()
    opening, got = await desk.fetch(errand)

    assert completion("x" * size) == got
    assert kept == opening.kept == errand.draft.stored == (desk.store.peek(errand.key) is not None)
    assert ("" if kept else "unframed") == errand.draft.reason


async def test_unframed_stream(desks):
    """A stream says itself where it ends."""
    desk = desks(Answer(*SAID, pairs=(EVENTS,)))
    errand = desk.errand(STREAM)
    await desk.fetch(errand)

    assert errand.draft.stored


async def test_too_large(desks):
    """What is too large to be kept whole is handed on, not kept, and not said to be."""
    desk = desks(Answer(completion("x" * 5000), pairs=(JSON, CHUNKED)), limit=1000)
    errand = desk.errand()
    opening, got = await desk.fetch(errand)

    assert completion("x" * 5000) == got
    assert (False, "answer-too-large", False) == (opening.kept, errand.draft.reason, errand.draft.stored)
    assert desk.store.peek(errand.key) is None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_superseded(desks, stream):
    """An answer in whose place a newer one has been asked for reaches its callers, and is not kept over the newer."""
    gate = asyncio.Event()
    older = streamed(SAID[0], gate, *SAID[1:]) if stream else Answer(gate, completion("old"))
    desk = desks(older, streamed() if stream else whole("new"))
    first, second = (desk.errand(STREAM if stream else ASK, number=number) for number in (1, 2))
    _, reader = desk.fly(first)
    await desk.settle()
    await desk.fetch(second)
    kept = desk.store.peek(second.key)
    gate.set()
    _, got = await read(reader)

    assert first.key == second.key
    assert (b"".join(SAID) if stream else completion("old")) == got
    assert (False, "superseded", Usage(3, 2)) == (first.draft.stored, first.draft.reason, first.draft.usage)
    assert second.draft.stored
    assert kept is desk.store.peek(second.key)


async def test_incomplete_is_dropped(desks):
    """What the dialect does not call whole is not kept, and says why."""
    desk = desks(Answer(b'{"choices":'))
    errand = desk.errand()
    await desk.fetch(errand)

    assert (False, "unreadable") == (errand.draft.stored, errand.draft.reason)
    assert desk.store.peek(errand.key) is None


# ---- who has it, and who pays ----


async def test_shared_with_all(desks):
    """One fetch for two callers: the cost stands in the first one's record alone."""
    desk = desks(whole())
    errand, other = desk.errand(), desk.errand(number=1)
    flight, owner = desk.fly(errand)
    joined = desk.join(flight, other)
    (_, got), (_, same) = await asyncio.gather(read(owner), read(joined))

    assert got == same
    assert (1, True, Usage(3, 2), 1.5) == (
        errand.draft.attempts, errand.draft.stored, errand.draft.usage, errand.draft.upstream_seconds
    )  # fmt: skip
    assert (0, False, None, 0.0) == (
        other.draft.attempts, other.draft.stored, other.draft.usage, other.draft.upstream_seconds
    )  # fmt: skip


@pytest.mark.parametrize("headed", [False, True], ids=["before the head", "after it"])
async def test_owner_leaves(desks, headed):
    """Where the owner leaves, the call's cost stands in the record of one who stayed: all of it, once."""
    gate = asyncio.Event()
    answer = Answer(gate, completion()) if headed else whole()
    desk = desks(*([] if headed else [gate]), answer)
    errand, other = desk.errand(), desk.errand(number=1)
    flight, owner = desk.fly(errand)
    joined = desk.join(flight, other)
    await desk.settle()
    owner.leave()
    gate.set()
    await read(joined)

    assert (1, True, Usage(3, 2), "us", 200, 1.5) == (
        other.draft.attempts, other.draft.stored, other.draft.usage, other.draft.region, other.draft.upstream_status,
        other.draft.upstream_seconds,
    )  # fmt: skip
    assert (0, False, None, 0.0) == (
        errand.draft.attempts, errand.draft.stored, errand.draft.usage, errand.draft.upstream_seconds
    )  # fmt: skip


async def test_owner_leaves_while_a_long_stream_is_judged(desks):
    """A long answer is judged in a thread; an owner that goes after the last event takes none of its cost along."""
    long = [delta("x" * 300_000), *SAID]
    gate = asyncio.Event()
    desk = desks(streamed(*long, gate))
    errand, other = desk.errand(STREAM), desk.errand(STREAM, number=1)
    flight, owner = desk.fly(errand)
    joined = desk.join(flight, other)
    while not (await owner.read()).endswith(DONE):
        pass

    assert owner.satisfied
    assert other.draft.usage is None

    owner.leave()
    gate.set()
    await read(joined)
    bills = [(draft.attempts, draft.usage, draft.stored) for draft in (errand.draft, other.draft)]

    assert bills == [(0, None, False), (1, Usage(3, 2), True)]


async def test_private_error(desks):
    """An error that a credential has earned reaches only those who present it; the key is remembered for nobody."""
    desk = desks(Answer(b"{}", status=429, pairs=(JSON, CHUNKED, (b"Retry-After", b"600"), (b"X-Request-Id", b"u"))))
    errand = desk.errand(fields={b"x-team": b"docs"})
    stranger = desk.errand(fields={b"x-team": b"docs", b"authorization": b"Bearer other"}, number=1)
    flight, owner = desk.fly(errand)
    other, same = desk.join(flight, stranger), desk.join(flight, desk.errand(fields={b"x-team": b"docs"}, number=2))
    (opening, _), (shared, _) = await asyncio.gather(read(owner), read(same))

    assert errand.key == stranger.key
    assert other.released
    assert (b"retry-after", b"60") in opening.pairs
    assert ((b"content-type", b"application/json"), (b"retry-after", b"60")) == shared.shared
    assert not desk.flights.marked(errand.key, NOW)


async def test_unshareable(desks):
    """A good answer that cannot go to others lets them go at its head, and its key is remembered for a while."""
    desk = desks(whole(pairs=(JSON, CHUNKED, (b"Content-Encoding", b"gzip"))))
    errand = desk.errand()
    flight, owner = desk.fly(errand)
    other = desk.join(flight, desk.errand(number=1))
    await read(owner)

    assert other.released
    assert desk.flights.marked(errand.key, NOW + 119)
    assert not desk.flights.marked(errand.key, NOW + 120)
    assert (False, "answer-encoded") == (errand.draft.stored, errand.draft.reason)


async def test_kept_unmarks(desks):
    """A key whose answer could be kept after all is waited for again."""
    desk = desks(whole())
    errand = desk.errand()
    desk.flights.mark(errand.key, NOW + 100)
    await desk.fetch(errand)

    assert not desk.flights.marked(errand.key, NOW)


@pytest.mark.parametrize("known", [False, True], ids=["for a caller", "refresh"])
async def test_who_waits(desks, known):
    """A caller's call goes before a refresh, for which nobody waits."""
    desk = desks()
    errand = desk.errand(ASK, {b"x-stainless-read-timeout": b"10"})
    if known:
        entry = Entry(200, (), b"{}", Form.WHOLE, "openai", "all", "gpt-4o", NOW, 60.0)
        errand = replace(errand, known=entry)
    trip = desk.origin._trip(errand, b"{}", [])

    assert (known, known) == (trip.batch, trip.deadline is None)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [((200,), True), ((204,), True), ((404,), False), ((500,), False), ((200, 401), False), ((200, 403), False),
     ((200, 429), True), ((401, 200), True)],
    ids=repr,
)  # fmt: skip
async def test_accepted(desks, statuses, expected):
    """A 2xx is a credential's proof, a 401 or 403 takes it back; anything else says nothing of it."""
    desk = desks(*[Answer(b"{}", status=status) for status in statuses])
    for number, _ in enumerate(statuses):
        errand = desk.errand(ASK | {"seed": number}, {b"x-team": b"docs"})
        await desk.fetch(errand)

    assert expected == desk.accepted.knows("openai/", errand.call.principal, NOW)
