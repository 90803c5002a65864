"""Services that do what a script says, for everything that sends calls; and a line's worth of parts around them."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.http.headers import fields_of
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Head
from sidecar.core.region.breaker import Sign
from sidecar.core.region.regions import Place, Regions
from sidecar.core.rules import BreakerRule, Region, RetryRule, Route, RouteLimits, Rules, Service, StoredCredential
from sidecar.core.site.recognise import Site, recognise
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, UpstreamFailed
from sidecar.upstream.call import UpstreamCall
from sidecar.upstream.dispatch import Dispatch
from sidecar.upstream.limiter import Throttle
from tests.store.remotes import Tasks

JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream"),)
CHAT = b'{"model":"gpt-4o","messages":[]}'
CALLERS_KEY = b"Bearer of the caller"
CONTENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR_EVENT = b'data: {"error":{"message":"x","type":"server_error"}}\n\n'
CUT = UpstreamFailed(Cause.TRUNCATED, answered=True)

KEY = StoredCredential("authorization", "key")
OTHERS = StoredCredential("api-key", "other")
FIELDS = {"key": (b"authorization", b"Bearer of the region"), "other": (b"api-key", b"of another")}

OWN_RETRY = ((b"x-stainless-retry-count", b"0"),)
"""The header of a caller that attempt_logs again by itself."""

LOADED = {"limits": {"concurrency": 1, "tokens_per_minute": 10_000_000}}
"""One call at a time, and more tokens than are ever used."""


class Answer:
    """An answer that reads as *steps* say: bytes, an error to raise, or what is waited for first."""

    def __init__(self, status=200, *steps, pairs=JSON, length=None):
        self.status = status
        self.pairs = pairs
        self.length = length
        self.closed = 0
        self._steps = list(steps)

    def __repr__(self):
        return f"<Answer {self.status}{', closed' if self.closed else ''}>"

    async def read(self):
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                return step
        return b""

    def close(self):
        self.closed += 1


def ok(*steps, **how):
    """Answers, with a small document if nothing else is said."""
    return lambda: Answer(200, *(steps or (b'{"id":1}',)), **how)


def stream(*steps):
    """Answers with a stream."""
    return lambda: Answer(200, *steps, pairs=EVENTS)


def status(code, body=b"{}", *pairs):
    """Answers with an error."""
    return lambda: Answer(code, body, pairs=(*JSON, *pairs))


def fails(cause, **how):
    """Does not answer."""
    return lambda: UpstreamFailed(cause, **how)


def hangs():
    """Never answers, until it is cancelled."""
    return asyncio.Event()


QUOTA = status(429, b'{"error":{"code":"rate_limit_exceeded"}}', (b"retry-after", b"7"))
FULL = status(429, b'{"error":{"message":"The engine is currently overloaded"}}')
SPENT = status(429, b'{"error":{"code":"insufficient_quota"}}')
FILTERED = status(400, b'{"error":{"code":"content_filter"}}')
NO_DEPLOYMENT = status(404, b'{"error":{"code":"DeploymentNotFound"}}')
RESET = fails(Cause.DISCONNECTED)
REFUSED = fails(Cause.CONNECT, sent=False)
TIMEOUT = fails(Cause.FIRST_BYTE_TIMEOUT)


class Client:
    """
    Plays *script*, by base URL: each call takes the next step of its list, the last one for ever. A step is a function
    that gives an answer or an error; after anything that it is given with in a tuple: seconds, or an event.
    """

    def __init__(self, script, clock):
        self.script = {base: list(steps) for base, steps in script.items()}
        self.calls = []
        self.bodies = []
        self.answers = []
        self.running = 0
        self._clock = clock

    async def send(self, *, body, **call):
        self.calls.append(call)
        steps = self.script[call["base"]]
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        self.running += 1
        try:
            await asyncio.sleep(0)
            self.bodies.append(body if isinstance(body, bytes) else b"".join([chunk async for chunk in body.chunks()]))
            if step is not REFUSED:
                call["on_sent"]()
            for part in step if isinstance(step, tuple) else (step,):
                if isinstance(part, asyncio.Event):
                    await part.wait()
                elif isinstance(part, float):
                    self._clock.now += part
                else:
                    end = part()
                    if isinstance(end, Exception):
                        raise end
                    self.answers.append(end)
                    return end
            raise AssertionError("the script has no end")
        finally:
            self.running -= 1

    @property
    def asked(self):
        """The regions that were called, in order."""
        return [call["base"].removeprefix("https://") for call in self.calls]


class Clock:
    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


class Credentials:
    """*fields* by file; *newer* what is there once the first was refused."""

    def __init__(self, fields=None, newer=None):
        self.fields = fields or {}
        self.newer = newer or {}
        self.used = []

    def field(self, credential):
        return self.fields.get(credential.file)

    async def obtain(self, credential, *, seconds):
        await asyncio.sleep(0)
        return self.fields.get(credential.file)

    async def renew(self, credential, used, *, seconds):
        await asyncio.sleep(0)
        self.used.append(used)
        return self.newer.get(credential.file)


class Fleet:
    """What other processes say to a probe."""

    def __init__(self, *, mine=True, wait=None):
        self.mine = mine
        self.wait = wait
        self.claims = []
        self.released = []

    async def claim(self, place, seconds):
        self.claims.append((place.region, seconds))
        await asyncio.sleep(0)
        if self.wait is not None:
            await self.wait.wait()
        return self.mine

    def release(self, place):
        self.released.append(place.region)


class Body:
    """A body that is still arriving: *chunks*, then *error* if there is one."""

    def __init__(self, *chunks, error=None):
        self.size = None
        self._chunks = list(chunks)
        self._error = error

    def chunks(self):
        return self

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self._chunks:
            return self._chunks.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


def head_of(*pairs, method=b"POST", target=b"/openai/v1/chat/completions"):
    return Head(method, target, 1, pairs, fields_of(pairs))


def region(name, **members):
    """Of one credential domain, and each of a priority of its own by its first letter."""
    members = {"credential_domain": "one", "priority": ord(name[0]) - ord("a") + 1} | members
    return Region(name, f"https://{name}", **members)


class Lab:
    """A dispatch to the regions of one service; *script* says by region's name what each does."""

    def __init__(
        self, script, *regions, dialect="openai", breaker=None, balance="weight", fleet=None, credentials=None,
        memory=1 << 20, **route,
    ):  # fmt: skip
        self.clock = Clock()
        self.draw = 0.5
        self.sleeps = []
        self.told = []
        self.tasks = Tasks()
        self.client = Client({f"https://{name}": steps for name, steps in script.items()}, self.clock)
        self.regions = Regions(lambda place, transition: self.told.append((place.region, transition)))
        self.ledger = Ledger(memory)
        self.credentials = credentials or Credentials()
        self.throttle = Throttle(
            quota=None, pods=lambda: None, clock=self.clock, spawn=self.tasks.spawn, call_later=self._call_later
        )
        self.dispatch = Dispatch(
            self.client,
            self.credentials,
            self.regions,
            self.ledger,
            spawn=self.tasks.spawn,
            now=lambda: 0.0,
            clock=self.clock,
            draw=lambda: self.draw,
            throttle=self.throttle,
            sharing=fleet,
            sleep=self._sleep,
        )
        self.service = Service(
            "ai",
            DIALECTS[dialect],
            regions or tuple(region(name) for name in script),
            path="/openai",
            breaker=breaker or BreakerRule(),
            balance=balance,
        )
        self.route = Route(
            "all",
            retry=RetryRule(**route.pop("retry", {})),
            limits=RouteLimits(**route.pop("limits", {})),
            **route,
        )

    async def _sleep(self, seconds):
        self.sleeps.append(seconds)
        self.clock.now += seconds
        await asyncio.sleep(0)

    def _call_later(self, seconds, call):
        return asyncio.get_running_loop().call_soon(lambda: None)

    def outgoing(self, *pairs, body=CHAT, model="gpt-4o", method=b"POST", path=b"/v1/chat/completions", **members):
        head = head_of(*(pairs or ((b"Authorization", CALLERS_KEY),)), method=method, target=b"/openai" + path)
        site = recognise(Rules((self.service,), (self.route,)), 0, b"", method, head.target)
        assert isinstance(site, Site)
        known = {"streaming": False, "identity": False, "credential": b"caller", "attempt_logs": []}
        known["allow"] = self.route.allow
        return UpstreamCall(site=site, head=head, body=body, route=self.route, model=model, **(known | members))

    async def send(self, *pairs, **members):
        return await self.dispatch.send(self.outgoing(*pairs, **members))

    async def call(self, *pairs, **members):
        """Send a call and be done with its answer: its status, or the error's cause or code."""
        try:
            sent = await self.send(*pairs, **members)
        except UpstreamFailed as failure:
            return failure.cause.value
        sent.answer.close()
        return sent.answer.status

    def open(self, name, sign=Sign.ERROR):
        """Let the breaker of a region open, for five seconds."""
        breaker = self.breaker(name)
        while not breaker.remaining(self.clock.now):
            permit = breaker.admit(self.clock.now, 0.5)
            breaker.settle(permit, sign, 0.0, self.clock.now, 0.5)

    def breaker(self, name):
        return self.regions.breaker(Place("ai", "", name), self.service.breaker, self.clock.now)

    @property
    def asked(self):
        return self.client.asked

    def is_clean(self, sent=None):
        """Whether every answer but the one that was sent is closed, and with that one nothing is held or runs."""
        open_ = sum(not answer.closed for answer in self.client.answers)
        if sent is not None:
            sent.answer.close()
        left = sum(not answer.closed for answer in self.client.answers)
        idle = not self.ledger.held and not self.client.running and not self.tasks.errors
        return idle and (open_, left) == (sent is not None, 0)


def hedged(script, *regions, **more):
    """A lab whose calls have all taken no time so far, so that any is slow that does not end at once."""
    script = {name: [*[ok()] * 20 * (name == "a"), *steps] for name, steps in script.items()}
    return Lab(script, *regions, retry={"hedge": True}, **more)


async def warmed(lab, calls=20):
    for _ in range(calls):
        await lab.call()
    lab.client.calls.clear()
    return lab


def causes(outgoing):
    return [one.cause for one in outgoing.attempt_logs]


async def until(condition, steps=200):
    for _ in range(steps):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never comes to that")


async def spin(steps=60):
    for _ in range(steps):
        await asyncio.sleep(0)


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
