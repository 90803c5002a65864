"""A scripted service, and what fetches and receives its answers, for everything that does."""

import asyncio
import json
import random

from sidecar.core.cache.policy import freshness
from sidecar.core.cache.purges import Purges
from sidecar.core.draft import Draft
from sidecar.core.http.headers import fields_of
from sidecar.core.key import canonical
from sidecar.core.key.fingerprint import seal
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Head, Outcome
from sidecar.core.region.regions import Regions
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Accepted, Pod
from sidecar.core.rules import CacheMode, CacheRule, Match, MemoryRule, Region, Route, Rules, Service, Share
from sidecar.core.site.recognise import choose_route
from sidecar.dialects import DIALECTS
from sidecar.net.base import Request
from sidecar.proxy.access import Access
from sidecar.proxy.fill import Origin
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.operation.parts import LongOperations
from sidecar.proxy.operation.records import NoRecords
from sidecar.proxy.receive import Receiver
from sidecar.proxy.request import Call, Fetch, deadline_of
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered
from sidecar.upstream.dispatch import Dispatch
from sidecar.upstream.fallback import Fallback
from sidecar.upstream.limiter import Throttle

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
        self.store = Tiered(Memory(MemoryRule(), now=lambda: NOW, clock=lambda: NOW), Nowhere(), Purges())
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
        self.receiver = Receiver(
            self.store, self.flights, self.accepted, now=lambda: NOW, clock=self.clock, report=self.bugs.append
        )
        self.access = Access(self.accepted, self.store, now=lambda: NOW, clock=self.clock)
        self.operations = LongOperations(
            self.receiver,
            self.access,
            dispatch=dispatch,
            flights=self.flights,
            store=self.store,
            records=NoRecords(),
            limit=limit,
            purge=self.purge,
            spawn=self.spawn,
            now=lambda: NOW,
            clock=self.clock,
            random=random.Random(1).randbytes,
            sleep=asyncio.sleep,
        )
        self.origin = Origin(
            dispatch=dispatch,
            fallback=Fallback(dispatch, self.clock, self.bugs.append),
            receiver=self.receiver,
            follower=self.operations.follower,
            store=self.store,
            access=self.access,
            now=lambda: NOW,
            clock=self.clock,
        )
        self.origin.lease_wait = 1.0
        self.plans = RequestPlans(RULES, SECRET, Pod("team", "app", b""))

    async def purge(self, scopes):
        self.store.purges.apply(scopes, pending=False)
        self.store.memory.purge(scopes)

    def clock(self):
        self.seconds += 0.5
        return self.seconds

    def spawn(self, coroutine, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def fetch_of(self, ask=ASK, fields=None, *, target=CHAT, number=0):
        body = json.dumps(ask).encode()
        pairs = ((b"host", b"localhost"), *(ALWAYS | (fields or {})).items())
        head = Head(b"POST", target, 1, pairs, fields_of(pairs))
        plan = self.plans.find(head)
        endpoint = plan.site.endpoint
        reading = canonical.read(body, endpoint, b"application/json", SECRET)
        facts = reading.facts
        route = choose_route(plan.site, head.fields, facts.model)
        caller = plan.identities.caller(plan, route)
        key = seal(SECRET, caller.prefix, facts.model, reading)
        call = Call(endpoint, facts, route, facts.model, caller.principal, freshness(endpoint, route, plan.asked), key)
        draft = Draft(b"%d" % number, NOW, 0.0, "openai", route.name, endpoint.name, b"POST", Outcome.MISS)
        return Fetch(Request(head, body, plan), plan, call, key, draft, deadline_of(head.fields, draft.started))

    def fly(self, fetch):
        """A flight on the errand, and its owner."""

        async def work(flight):
            sent = await self.origin.send(fetch, flight)
            try:
                await self.receiver.receive(fetch, flight, sent)
            finally:
                sent.answer.close()

        flight = self.flights.lead(fetch.key, work, generating=fetch.call.endpoint.generating)
        return flight, self.join(flight, fetch)

    def join(self, flight, fetch):
        return Reader(flight, fetch.call.principal.credential, fetch.draft)

    async def fetch(self, fetch):
        """All of an errand; what its caller got."""
        _, reader = self.fly(fetch)
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
