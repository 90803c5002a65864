"""One attempt: what goes out, what is sent again, how long it may take, and what is told of the region."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidecar.core.region.breaker import Permit, Sign, State
from sidecar.core.region.regions import Place
from sidecar.core.rules import BreakerRule, StoredCredential, Timeouts
from sidecar.errors import Cause, ClientGone, Refused, UpstreamFailed
from sidecar.upstream.attempt import CREDENTIAL_SECONDS, TICK, Attempts
from sidecar.upstream.call import AttemptLog, Hop, room_of
from sidecar.upstream.replay import Rewindable
from tests.scripted import (
    CONTENT,
    ERROR_EVENT,
    Answer,
    Body,
    Credentials,
    Lab,
    fails,
    hangs,
    ok,
    region,
    status,
    stream,
)

STORED = StoredCredential("api-key", "/secret")
KEY = (b"api-key", b"of the region")
NEWER = (b"api-key", b"newer")
CUT = UpstreamFailed(Cause.TRUNCATED, answered=True)
DIED = fails(Cause.DISCONNECTED, reused=True)
QUOTA = status(429, b"{}", (b"retry-after", b"7"))

CALLERS = (
    (b"Authorization", b"Bearer of the caller"),
    (b"API-Key", b"of the caller"),
    (b"x-api-key", b"of the caller"),
    (b"Ocp-Apim-Subscription-Key", b"of the caller"),
    (b"x-goog-api-key", b"of the caller"),
)


class Desk(Lab):
    """Attempts at one region."""

    def __init__(self, *steps, credential=None, found=KEY, newer=None, **more):
        credentials = Credentials({"/secret": found} if found else {}, {"/secret": newer})
        super().__init__({"a": list(steps)}, region("a", credential=credential), credentials=credentials, **more)
        self.attempts = Attempts(
            self.client,
            credentials,
            self.regions,
            self.ledger,
            now=lambda: 0.0,
            clock=self.clock,
            draw=lambda: 0.5,
            most=1 << 20,
        )
        self.place = Place("ai", "", "a")
        self.one = self.breaker("a")

    def hop(self, outgoing, body=None):
        own = self.service.regions[0].credential is None
        room = room_of(outgoing, self.place, own=own)
        body = outgoing.body if body is None else body
        return Hop(self.service.regions[0], own, self.place, room, outgoing.site.target, body)

    async def make(self, *pairs, permit=None, held=None, **members):
        self.way = self.outgoing(*pairs, **members)
        permit = permit or self.one.admit(self.clock.now, 0.0)
        return await self.attempts.make(self.way, self.hop(self.way, held), self.one, permit)

    @property
    def sent(self):
        """The header fields of the last call."""
        return self.client.calls[-1]["pairs"]

    @property
    def counted(self):
        """How many calls the breaker has heard of, and how many of them failed."""
        return len(self.one._window), self.one._window.failed


# What goes out


async def test_what_is_sent():
    """A call goes out with its target as it came, and tells when it is on its way, and when a head has come."""
    heard = []
    desk = Desk(ok())
    end = await desk.make(
        path=b"/v1//models?a=%2f&&b",
        streaming=True,
        on_sent=lambda: heard.append("sent"),
        on_head=lambda code, fields: heard.append((code, fields)),
    )
    call = desk.client.calls[0]

    assert (b"POST", "https://a", b"/v1//models?a=%2f&&b", True) == tuple(
        call[name] for name in ("method", "base", "target", "streaming")
    )
    assert ["sent", (200, {b"content-type": b"application/json"})] == heard
    assert (Sign.GOOD, None) == (end.verdict.sign, end.failure)


async def test_region_credential():
    """Where the region supplies the credential, every one of the caller's stays behind."""
    desk = Desk(ok(), credential=STORED)
    await desk.make(*CALLERS, (b"X-Other", b"stays"))

    assert ((b"X-Other", b"stays"), KEY) == desk.sent


async def test_region_credential_of_its_own_name():
    """A region's field of a name that is no usual credential's takes the place of the caller's."""
    desk = Desk(ok(), credential=STORED, found=(b"x-gateway-key", b"ours"))
    await desk.make((b"X-Gateway-Key", b"of the caller"))

    assert ((b"x-gateway-key", b"ours"),) == desk.sent


async def test_own_credential_passes():
    """Without one, the caller's own goes through as it is, in the query too."""
    desk = Desk(ok())
    await desk.make(*CALLERS, path=b"/x?api-key=mine")

    assert CALLERS == desk.sent
    assert b"/x?api-key=mine" == desk.client.calls[0]["target"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"?api-key=mine", b""),
        (b"?a=1&api-key=mine&b=%2F", b"?a=1&b=%2F"),
        (b"?subscription-key=mine&a=1", b"?a=1"),
        (b"?API-Key=mine&a=1", b"?a=1"),
        (b"?api%2Dkey=mine&a=1", b"?a=1"),
        (b"?key=mine&access_token=mine&a=1", b"?a=1"),
        (b"?api-key&a", b"?a"),
        (b"?api-key=1&api-key=2", b""),
        (b"?a=api-key&&b=?api-key=x", b"?a=api-key&&b=?api-key=x"),
        (b"?api-keys=1", b"?api-keys=1"),
        (b"?", b"?"),
        (b"", b""),
    ],
)
async def test_region_credential_in_the_query(query, expected):
    """The caller's key in the query stays behind as well; the rest of the target goes byte for byte."""
    desk = Desk(ok(), credential=STORED)
    await desk.make(path=b"//x%20y" + query)

    assert b"//x%20y" + expected == desk.client.calls[0]["target"]


@pytest.mark.parametrize("identity", [False, True], ids=["passed through", "looked up"])
async def test_accept_encoding(identity):
    """Only a call that is looked up asks for an answer without coding."""
    desk = Desk(ok())
    await desk.make((b"Accept-Encoding", b"gzip"), identity=identity)

    assert ((b"accept-encoding", b"identity") if identity else (b"Accept-Encoding", b"gzip"),) == desk.sent


# Credentials of the region


async def test_no_credential():
    """A call is never sent without the credential that it should have, nor with the caller's instead."""
    desk = Desk(ok(), credential=STORED, found=None)
    end = await desk.make(*CALLERS)

    assert isinstance(end.failure, Refused)
    assert (503, "no-credential", True) == (end.failure.status, end.failure.code, end.verdict.elsewhere)
    assert ([], (0, 0)) == (desk.client.calls, desk.counted)


async def test_credential_is_waited_for():
    """One that is not at hand is waited for, as long as a call can."""
    desk = Desk(ok(), credential=STORED)
    waited = []

    async def obtain(credential, *, seconds):
        waited.append((credential, seconds))
        return KEY

    desk.credentials.field = lambda _: None
    desk.credentials.obtain = obtain
    end = await desk.make()

    assert ([(STORED, CREDENTIAL_SECONDS)], 200) == (waited, end.answer.status)


@pytest.mark.parametrize(
    ("steps", "newer", "expected", "keys"),
    [
        pytest.param([status(401), ok()], NEWER, 200, [KEY, NEWER], id="rotated"),
        pytest.param([status(401), status(401), ok()], NEWER, 401, [KEY, NEWER], id="refused twice"),
        pytest.param([status(401), ok()], None, 401, [KEY], id="nothing newer"),
        pytest.param([status(403), ok()], NEWER, 403, [KEY], id="forbidden"),
    ],
)
async def test_renewed(steps, newer, expected, keys):
    """A credential that is refused is looked up once more, and the call repeated only with another one."""
    desk = Desk(*steps, credential=STORED, newer=newer)
    end = await desk.make(*CALLERS)

    assert expected == end.answer.status
    assert keys == [call["pairs"][-1] for call in desk.client.calls]
    assert [AttemptLog("a", "unauthorized")] * (len(keys) - 1) == desk.way.attempt_logs
    assert all(answer.closed for answer in desk.client.answers[:-1])
    assert not desk.client.answers[-1].closed


async def test_callers_own_is_not_renewed():
    """A caller's own credential that is refused is the caller's to replace."""
    desk = Desk(status(401), newer=NEWER)
    await desk.make()

    assert (1, []) == (len(desk.client.calls), desk.credentials.used)


async def test_renewal_cancelled():
    """Who leaves while the credential is looked up leaves no answer open, and has not waited for the region."""
    desk = Desk(status(401), credential=STORED)
    wait = hangs()

    async def renew(*_, **__):
        desk.clock.now += 1000.0
        await wait.wait()

    desk.credentials.renew = renew
    task = asyncio.create_task(desk.make())
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (True, (0, 0)) == (desk.is_clean(), desk.counted)


async def test_renewal_for_the_next_call():
    """A body that cannot be sent again is not, nor does its caller wait; but the next call has another credential."""
    desk = Desk(status(401), credential=STORED, newer=NEWER, memory=3)
    asked = []

    async def renew(_, used, *, seconds):
        asked.append((used, seconds))
        return NEWER

    desk.credentials.renew = renew
    end = await desk.make(held=Rewindable(Body(b"body"), desk.ledger))

    assert (401, [(KEY[1], 0.0)], []) == (end.answer.status, asked, desk.way.attempt_logs)
    assert [b"body"] == desk.client.bodies


class Early:
    """A service that refuses by the head alone, and takes the body all the same, as far as it is sent."""

    def __init__(self):
        self.got = []

    async def send(self, *, body, on_sent, **_):
        self.got.append(b"")

        async def take():
            async for chunk in body.chunks():
                self.got[-1] += chunk
            on_sent()

        upload = asyncio.create_task(take())
        if len(self.got) == 1:
            await asyncio.sleep(0)
            answer = Answer(401, b"{}")
            close = answer.close
            answer.close = lambda: (upload.cancel(), close())
            return answer
        await upload
        return Answer(200, b"{}")


@pytest.mark.parametrize(
    ("memory", "meanwhile", "expected"),
    [
        pytest.param(1000, 100, (200, [b"onetwothree"] * 2), id="it has come whole, and is kept"),
        pytest.param(7, 100, (401, [b"onetwothree"]), id="it has come whole, and is not kept"),
        pytest.param(1000, 1, (401, None), id="it still comes"),
    ],
)
async def test_body_that_goes_on_while_its_credential_is_renewed(memory, meanwhile, expected):
    """The upload of a call that is refused early goes on: it is sent again only where it is there from start to end."""
    desk = Desk(credential=STORED, memory=memory)
    desk.attempts._client = client = Early()

    async def renew(*_, **__):
        for _ in range(meanwhile):
            await asyncio.sleep(0)
        return NEWER

    desk.credentials.renew = renew
    end = await desk.make(held=Rewindable(Body(b"one", b"two", b"three"), desk.ledger))
    code, bodies = expected

    assert code == end.answer.status
    if bodies is None:
        assert 1 == len(client.got)
    else:
        assert bodies == client.got

    end.close()


# Sent again


class File:
    """A collected body in a file."""

    size = 4

    async def chunks(self):
        yield b"sp"
        yield b"ool"

    def share(self):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("kind", ["bytes", "stream", "file"])
async def test_resent_once(kind):
    """A connection that died of old age under the call: one resend, with the same body and head."""
    desk = Desk(DIED, ok())
    held = {"stream": Rewindable(Body(b"bo", b"dy"), desk.ledger), "file": File()}.get(kind, b"body")
    end = await desk.make((b"A", b"b"), held=held)
    first, second = desk.client.calls

    assert (200, [AttemptLog("a", "reconnect")]) == (end.answer.status, desk.way.attempt_logs)
    assert desk.client.bodies[0] == desk.client.bodies[1]
    assert {**first, "on_sent": None} == {**second, "on_sent": None}
    assert (1, 0) == desk.counted


async def test_resent_no_more_than_once():
    """The second failure is the attempt's."""
    desk = Desk(DIED)
    end = await desk.make()

    assert (Cause.DISCONNECTED, 2, (1, 1)) == (end.failure.cause, len(desk.client.calls), desk.counted)


async def test_body_too_long_to_resend():
    """A body that is not kept is sent once."""
    desk = Desk(DIED, ok(), memory=3)
    end = await desk.make(held=Rewindable(Body(b"body"), desk.ledger))

    assert (Cause.DISCONNECTED, [b"body"]) == (end.failure.cause, desk.client.bodies)


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize("answered", [False, True], ids=["silent", "answered"])
async def test_when_to_resend(cause, reused, answered):
    """A-12: only an old connection that died without a byte of an answer allows a second sending."""
    desk = Desk(fails(cause, reused=reused, answered=answered), ok())
    expected = cause is Cause.DISCONNECTED and reused and not answered
    end = await desk.make()

    assert (1 + expected, expected) == (len(desk.client.calls), end.failure is None)


@pytest.mark.parametrize("error", [ClientGone(), Refused(413, "too-large", "x"), ValueError()], ids=repr)
async def test_what_a_body_raises(error):
    """What the caller's body raises comes through, and says nothing of the region."""
    desk = Desk(ok())
    with pytest.raises(type(error)):
        await desk.make(body=Body(b"body", error=error))

    assert (0, 0) == desk.counted


# How long it may take


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        pytest.param(None, Timeouts(5.0, 600.0, 300.0, 300.0), id="no deadline"),
        pytest.param(1000.0, Timeouts(5.0, 600.0, 300.0, 300.0), id="later than any"),
        pytest.param(400.0, Timeouts(5.0, 400.0, 300.0, 300.0), id="shorter than one"),
        pytest.param(2.0, Timeouts(1.0, 2.0, 2.0, 300.0), id="shorter than all"),
        pytest.param(-1.0, Timeouts(0.0005, 0.001, 0.001, 300.0), id="over"),
    ],
)
async def test_timeouts(left, expected):
    """A caller's patience shortens the waits for an answer, not those within one, and leaves time for another try."""
    desk = Desk(ok())
    await desk.make(deadline=None if left is None else desk.clock.now + left)

    assert expected == desk.client.calls[0]["timeouts"]


@pytest.mark.parametrize(
    ("seconds", "by_own_deadline"),
    [
        pytest.param(2.0 - 2 * TICK, False, id="before"),
        pytest.param(2.0 - TICK / 2, True, id="a timer that was early"),
        pytest.param(2.0, True, id="then"),
        pytest.param(3.0, True, id="after"),
    ],
)
@pytest.mark.parametrize("probe", [False, True], ids=["call", "probe"])
async def test_hasty(seconds, by_own_deadline, probe):
    """A caller that will not wait says nothing of the region, nor to others that wait, and has no other attempt."""
    desk = Desk((seconds, fails(Cause.FIRST_BYTE_TIMEOUT)), breaker=BreakerRule(), retry={"on_timeout": True})
    if probe:
        desk.open("a")
        desk.clock.now += 6.0
    end = await desk.make(deadline=desk.clock.now + 2.0)

    assert by_own_deadline == end.failure.by_own_deadline
    assert (not by_own_deadline, not by_own_deadline) == (end.verdict.elsewhere, end.verdict.retry_here)

    if probe:
        assert (State.HALF_OPEN if by_own_deadline else State.OPEN) is desk.one.state
        assert by_own_deadline == isinstance(desk.one.admit(desk.clock.now, 0.5), Permit)
    else:
        assert ((0, 0) if by_own_deadline else (1, 1)) == desk.counted


@pytest.mark.parametrize(
    ("deadline", "connect", "cause", "expected"),
    [
        pytest.param(1.2, 5.0, Cause.CONNECT_TIMEOUT, (1.0, True), id="cut short"),
        pytest.param(4.0, 5.0, Cause.CONNECT_TIMEOUT, (2.0, True), id="cut short a little"),
        pytest.param(60.0, 5.0, Cause.CONNECT_TIMEOUT, (5.0, False), id="in its own time"),
        pytest.param(None, 5.0, Cause.CONNECT_TIMEOUT, (5.0, False), id="no deadline"),
        pytest.param(1.2, 0.5, Cause.CONNECT_TIMEOUT, (0.5, False), id="the route is hastier"),
        pytest.param(1.2, 5.0, Cause.CONNECT, (1.0, False), id="refused"),
    ],
)
async def test_connection_cut_short(deadline, connect, cause, expected):
    """
    Others may read a flight whose owner is in haste: that it leaves time for another region says nothing of whether
    they would have had a connection. The region is tried no longer for that, and counted as before.
    """
    desk = Desk(fails(cause, sent=False), timeouts=Timeouts(connect=connect))
    end = await desk.make(deadline=None if deadline is None else desk.clock.now + deadline, shared=True)

    assert expected == (desk.client.calls[0]["timeouts"].connect, end.failure.by_own_deadline)
    assert (True, True, (1, 1)) == (end.verdict.elsewhere, end.verdict.retry_here, desk.counted)


# A body that is slow to come


class Slow:
    """A body of a caller that takes *seconds* for it, and then, where there is an *error*, has gone."""

    size = None

    def __init__(self, clock, seconds, error=None):
        self._clock = clock
        self._seconds = seconds
        self._error = error

    async def chunks(self):
        yield b"some"
        await asyncio.sleep(0)
        self._clock.now += self._seconds
        if self._error is not None:
            raise self._error
        yield b"more"


QUICK = Timeouts(connect=5.0, first_byte=10.0, stream_first_byte=10.0)


async def test_caller_that_leaves_in_mid_upload():
    """However long it has taken to send, it has not waited for the region."""
    desk = Desk(ok(), timeouts=QUICK)
    with pytest.raises(ClientGone):
        await desk.make(held=Rewindable(Slow(desk.clock, 100.0, ClientGone()), desk.ledger))

    assert (0, 0) == desk.counted


@pytest.mark.parametrize(("waits", "expected"), [(8.0, (0, 0)), (9.5, (1, 1))], ids=["soon", "patient"])
@pytest.mark.parametrize("upload", [0.0, 100.0])
async def test_caller_that_leaves_after_its_upload(upload, waits, expected):
    """What counts is how long it has waited since all was sent."""
    desk = Desk((waits, hangs()), timeouts=QUICK)
    task = asyncio.create_task(desk.make(held=Rewindable(Slow(desk.clock, upload), desk.ledger)))
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert expected == desk.counted


@pytest.mark.parametrize(("waits", "expected"), [(8.0, (0, 0)), (9.5, (1, 1))], ids=["soon", "patient"])
async def test_deadline_that_an_upload_has_used_up(waits, expected):
    """A region is not silent for as long as its caller was slow."""
    desk = Desk((waits, fails(Cause.FIRST_BYTE_TIMEOUT)), timeouts=QUICK)
    deadline = desk.clock.now + 100.0 + waits
    end = await desk.make(held=Rewindable(Slow(desk.clock, 100.0), desk.ledger), deadline=deadline)

    assert (True, expected) == (end.failure.by_own_deadline, desk.counted)


async def test_resend_waits_anew():
    """What went out on a connection that died of old age is not on its way."""
    desk = Desk(DIED, hangs(), timeouts=QUICK)
    second = hangs()

    async def send(*, on_sent, **_):
        if not desk.client.calls:
            desk.client.calls.append(None)
            on_sent()
            desk.clock.now += 100.0
            raise UpstreamFailed(Cause.DISCONNECTED, reused=True)
        await second.wait()

    desk.client.send = send
    task = asyncio.create_task(desk.make())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (0, 0) == desk.counted


@pytest.mark.parametrize(
    ("takes", "expected"),
    [(0.5, (State.CLOSED, 0.5)), (3.0, (State.OPEN, 3.0))],
    ids=["answers soon", "answers slowly"],
)
async def test_slow_upload(takes, expected):
    """The time that a caller takes to send is not what its region takes to answer."""
    rule = BreakerRule(slow_call=2.0, minimum_calls=1)
    desk = Desk((takes, ok()), breaker=rule)
    await desk.make(held=Rewindable(Slow(desk.clock, 100.0), desk.ledger))

    assert expected == (desk.one.state, desk.regions.latency.of(desk.place, desk.clock.now))


async def test_answer_before_the_upload_is_over():
    """Nobody knows how long it would have taken otherwise."""
    desk = Desk(breaker=BreakerRule(slow_call=2.0, minimum_calls=1))

    async def send(**_):
        desk.clock.now += 100.0
        return Answer(200, b"{}")

    desk.client.send = send
    await desk.make(held=Rewindable(Body(b"body"), desk.ledger))

    assert ((1, 0), None) == (desk.counted, desk.regions.latency.of(desk.place, desk.clock.now))
    assert State.CLOSED is desk.one.state


# What is told of the region


@pytest.mark.parametrize(
    ("step", "counted", "sign"),
    [
        pytest.param(ok(), (1, 0), Sign.GOOD, id="good"),
        pytest.param(status(500), (1, 1), Sign.ERROR, id="an error"),
        pytest.param(status(529), (1, 1), Sign.ERROR, id="overloaded"),
        pytest.param(fails(Cause.CONNECT, sent=False), (1, 1), Sign.UNANSWERED, id="no connection"),
        pytest.param(fails(Cause.FIRST_BYTE_TIMEOUT), (1, 1), Sign.UNANSWERED, id="timeout"),
        pytest.param(ok(b"{", CUT), (1, 1), Sign.UNANSWERED, id="broken"),
        pytest.param(QUOTA, (0, 0), Sign.NEUTRAL, id="quota"),
        pytest.param(status(400), (0, 0), Sign.NEUTRAL, id="the caller's fault"),
        pytest.param(status(401), (0, 0), Sign.NEUTRAL, id="unauthorized"),
        pytest.param(fails(Cause.DRAINING), (0, 0), Sign.NEUTRAL, id="our own end"),
    ],
)
async def test_settled(step, counted, sign):
    """What a breaker hears, at the commit point."""
    desk = Desk(step)
    end = await desk.make()

    assert (sign, counted) == (end.verdict.sign, desk.counted)


async def test_transition_is_told():
    """Whoever waits for it hears that a region's breaker has opened."""
    desk = Desk(status(500), breaker=BreakerRule(consecutive_errors=1))
    await desk.make()

    assert [("a", "errors", 5.0)] == [(name, change.cause, change.seconds) for name, change in desk.told]


FIRST = BreakerRule(consecutive_errors=1, consecutive_unanswered=1, minimum_calls=1, slow_call=2.0)


@pytest.mark.parametrize(
    ("step", "cause", "detail"),
    [
        pytest.param(
            fails(Cause.TLS, detail="a:443: wrong version number"),
            "unanswered",
            "tls: a:443: wrong version number",
            id="no answer",
        ),
        pytest.param(ok(b"{", CUT), "unanswered", "truncated", id="broken"),
        pytest.param(status(503), "errors", "status 503 (5xx)", id="an error"),
        pytest.param(status(529), "errors", "status 529 (overloaded)", id="overloaded"),
        pytest.param(stream(ERROR_EVENT), "errors", "status 200 (5xx)", id="within a stream"),
        pytest.param((3.0, ok()), "slow-rate", "status 200 (ok) after 3.0 s", id="slow"),
    ],
)
async def test_why_a_region_is_not_called(step, cause, detail):
    """A transition tells what the last call has met, for whoever has to mend it."""
    desk = Desk(step, breaker=FIRST)
    await desk.make()

    assert [(cause, detail)] == [(change.cause, change.detail) for _, change in desk.told]


async def test_why_after_a_break():
    """So does one by an answer that broke late."""
    rule = BreakerRule(minimum_calls=2, failure_rate=0.5)
    desk = Desk(stream(CONTENT, CUT), breaker=rule)
    end = await desk.make()
    await end.answer.read()
    with pytest.raises(UpstreamFailed):
        await end.answer.read()

    assert [("failure-rate", "an answer broke after it had begun")] == [
        (change.cause, change.detail) for _, change in desk.told
    ]


async def test_why_after_a_caller_left():
    """And one by a caller that had been patient."""
    desk = Desk((9.5, hangs()), breaker=FIRST, timeouts=QUICK)
    task = asyncio.create_task(desk.make())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [("unanswered", "no whole answer for 9.5 s")] == [(change.cause, change.detail) for _, change in desk.told]


async def test_nothing_to_tell_of_a_region_that_is_well():
    """One that is called again needs no reason."""
    desk = Desk(status(500), ok(), breaker=FIRST)
    await desk.make()
    desk.clock.now += 6.0
    await desk.make()

    assert ["status 500 (5xx)", ""] == [change.detail for _, change in desk.told]


async def test_slow():
    """How long it took until the commit point is what counts as slow, and as the region's latency."""
    rule = BreakerRule(slow_call=2.0, minimum_calls=1)
    desk = Desk((3.0, ok()), breaker=rule)
    await desk.make()

    assert (State.OPEN, 3.0) == (desk.one.state, desk.regions.latency.of(desk.place, desk.clock.now))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(QUOTA, (7.0, False), id="quota"),
        pytest.param(status(429, b'{"error":{"code":"insufficient_quota"}}'), (600.0, True), id="no money"),
        pytest.param(status(500), (0.0, False), id="an error"),
        pytest.param(stream(b'data: {"error":{"code":"rate_limit_exceeded"}}\n\n'), (5.0, False), id="within a stream"),
    ],
)
async def test_windows(step, expected):
    """A spent quota is one of this region, deployment and credential."""
    desk = Desk(step)
    await desk.make()
    windows, now = desk.regions.windows, desk.clock.now
    room = desk.hop(desk.way).room
    seconds = max(windows.until(room, now) - now, 0.0)

    assert expected == (seconds, any(window.exhausted for window in windows.among(room, now)))

    for other in ({"model": "x"}, {"credential": b"x"}):
        way = structs.replace(desk.way, **other)

        assert 0.0 == windows.until(desk.hop(way).room, now)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(ok(), False), (status(400), True), (status(500), True), (fails(Cause.CONNECT), True)],
    ids=["good", "400", "500", "connect"],
)
async def test_window_that_was_over_early(step, expected):
    """A call that goes out in spite of a window, and is answered, ends it."""
    desk = Desk(QUOTA, step)
    await desk.make()
    await desk.make()
    room = desk.hop(desk.way).room

    assert expected == (desk.regions.windows.until(room, desk.clock.now) > 0.0)


async def test_window_that_was_opened_meanwhile():
    """An answer to a call that was sent before says nothing of the window."""
    desk = Desk((hangs(), ok()))
    task = asyncio.create_task(desk.make())
    for _ in range(5):
        await asyncio.sleep(0)
    room = desk.hop(desk.way).room
    desk.regions.windows.open(room, desk.clock.now + 9.0)
    desk.client.script["https://a"][0][0].set()
    await task

    assert desk.clock.now + 9.0 == desk.regions.windows.until(room, desk.clock.now)


@pytest.mark.parametrize("own", [True, False], ids=["the caller's", "the region's"])
async def test_whose_quota(own):
    """What a region's own credential has spent is spent for everybody."""
    desk = Desk(QUOTA, credential=None if own else STORED)
    await desk.make(credential=b"one")
    other = structs.replace(desk.way, credential=b"two")

    assert own == (desk.regions.windows.until(desk.hop(other).room, desk.clock.now) == 0.0)


async def test_broken_later():
    """A break after the commit point is told of the generation that gave the permit, and once."""
    desk = Desk(stream(CONTENT, CUT, CUT))
    end = await desk.make()
    await end.answer.read()
    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await end.answer.read()

    assert (2, 1) == desk.counted

    late = await desk.make()
    desk.one.force(State.OPEN, desk.clock.now)
    desk.one.force(None, desk.clock.now)
    await late.answer.read()
    with pytest.raises(UpstreamFailed):
        await late.answer.read()

    assert (0, 0) == desk.counted


async def test_cancelled():
    """A probe that is cancelled, wherever, is the next call's."""
    for at in range(50):
        desk = Desk(status(401), ok(b"{", b"}"), credential=STORED, newer=NEWER)
        desk.open("a")
        desk.clock.now += 6.0
        task = asyncio.create_task(desk.make())
        for _ in range(at):
            await asyncio.sleep(0)
        task.cancel()
        try:
            (await task).close()
        except asyncio.CancelledError:
            if at:  # else it has not begun, and never asked for a permit
                assert desk.one.admit(desk.clock.now, 0.5).probe
        else:
            break

        assert desk.is_clean()

    assert 3 < at < 49


@given(
    seconds=st.floats(0.0, 5.0),
    patience=st.none() | st.floats(0.1, 5.0),
    step=st.sampled_from([ok(), status(500), QUOTA, fails(Cause.CONNECT), ok(b"{", CUT), stream(CONTENT)]),
    repeats=st.booleans(),
)
async def test_one_value(seconds, patience, step, repeats):
    """An attempt ends in an answer or in a failure, never both; and a failure leaves nothing open."""
    desk = Desk((seconds, step), retry={"on_timeout": repeats})
    end = await desk.make(deadline=None if patience is None else desk.clock.now + patience)

    assert (end.answer is None) != (end.failure is None)

    end.close()

    assert desk.is_clean()


@pytest.mark.parametrize(
    ("how", "on_timeout", "expected"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"method": b"GET", "path": b"/v1/models"}, False, True),
        ({"method": b"HEAD", "path": b"/x"}, False, True),
        ({"path": b"/v1/embeddings"}, False, True),
        ({"path": b"/x"}, False, False),
    ],
    ids=["generates", "wanted", "GET", "HEAD", "embeds", "unknown"],
)
def test_repeats(how, on_timeout, expected):
    """Which calls are repeated when an answer took too long."""
    lab = Lab({"a": [ok()]}, retry={"on_timeout": on_timeout})

    assert expected == lab.outgoing(**how).repeats


async def test_head_has_no_body():
    """The answer to HEAD is committed with its head: what its length speaks of does not come."""
    answer = Answer(200, CUT, length=10)
    desk = Desk(lambda: answer)
    end = await desk.make(method=b"HEAD", path=b"/v1/models")

    assert 200 == end.answer.status
