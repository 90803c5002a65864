"""Sending a call: how often, what goes out, and what is kept meanwhile."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.headers import fields_of
from sidecar.core.ledger import Ledger
from sidecar.core.model import Head
from sidecar.core.recognise import recognise
from sidecar.core.rules import Region, Route, Rules, Service, StoredCredential, Timeouts
from sidecar.dialects import DIALECTS
from sidecar.dispatch import KEPT_FOR_RESEND, Dispatch, Rewindable
from sidecar.errors import Cause, ClientGone, Refused, UpstreamFailed

KIB = 1024
DIED = UpstreamFailed(Cause.DISCONNECTED, reused=True)
KEY = (b"api-key", b"of the region")


@dataclass
class Answer:
    status: int = 200
    pairs: tuple = ()
    length: int | None = 0
    chunks: list = field(default_factory=list)

    async def read(self):
        return self.chunks.pop(0) if self.chunks else b""

    def close(self):
        pass


class Client:
    """Does what *script* says, call by call: an error to raise, or an answer; after *takes* bytes of the body."""

    def __init__(self, *script, takes=None):
        self.script = list(script)
        self.takes = takes
        self.calls = []
        self.bodies = []

    async def send(self, *, body, **call):
        self.calls.append(call)
        end = self.script.pop(0)
        if isinstance(body, bytes):
            self.bodies.append(body)
        else:
            got = b""
            chunks = body.chunks()
            async for chunk in chunks:
                got += chunk
                if self.takes is not None and isinstance(end, Exception) and len(got) >= self.takes:
                    await chunks.aclose()
                    break
            self.bodies.append(got)
        if isinstance(end, Exception):
            raise end
        return end


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
        if self._chunks:
            return self._chunks.pop(0)
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


class File:
    """A collected body in a file."""

    size = 4

    async def chunks(self):
        yield b"sp"
        yield b"ool"

    def close(self):
        pass


def head_of(*pairs, target=b"/azure/contoso/openai/v1/models", method=b"POST"):
    return Head(method, target, 1, pairs, fields_of(pairs))


class Desk:
    """A dispatch with a scripted client."""

    def __init__(self, *script, takes=None, credential=None, found=KEY, memory=1024 * KIB):
        self.client = Client(*script, takes=takes)
        self.ledger = Ledger(memory)
        self.found = found
        self.dispatch = Dispatch(self.client, lambda _: self.found, self.ledger)
        self.rules = Rules(
            services=(
                Service(
                    "azure-openai",
                    DIALECTS["azure-openai"],
                    (
                        Region("second", "https://second", priority=2),
                        Region("first", "https://{resource}.first/base", credential=credential),
                    ),
                    path="/azure",
                    resource=True,
                ),
            ),
            routes=(Route("all"),),
        )

    async def send(self, head, body=b"", *, identity=False, **how):
        site = recognise(self.rules, 0, b"localhost", head.method, head.target)
        return await self.dispatch.send(site, head, body, timeouts=Timeouts(), streaming=True, identity=identity, **how)

    @property
    def sent(self):
        """The header fields of the last call."""
        return self.client.calls[-1]["pairs"]


STORED = StoredCredential("api-key", "/secret")


async def test_sent_once():
    """A call goes to the first region by priority, once, with its target as it came."""
    answer = Answer()
    desk = Desk(answer)
    sent = await desk.send(head_of(target=b"/azure/Contoso//openai/v1/models?a=%2f&&b"), b"body")

    assert (answer, "first", 1) == (sent.answer, sent.region, sent.attempts)
    assert [b"body"] == desk.client.bodies
    assert (
        [(b"POST", "https://contoso.first/base", b"//openai/v1/models?a=%2f&&b", True)]
        == [(call["method"], call["base"], call["target"], call["streaming"]) for call in desk.client.calls]
    )  # fmt: skip


@pytest.mark.parametrize("body", [b"body", "stream", "file"], ids=["bytes", "stream", "file"])
async def test_resent_once(body):
    """A connection that died of old age under the call: one resend, with the same body and head."""
    desk = Desk(DIED, Answer())
    given_body = {"stream": Body(b"bo", b"dy"), "file": File()}.get(body, body)
    sent = await desk.send(head_of((b"A", b"b")), given_body)

    assert 2 == sent.attempts
    assert desk.client.bodies[0] == desk.client.bodies[1]
    assert desk.client.calls[0] == desk.client.calls[1]
    assert 0 == desk.ledger.held


async def test_on_sent():
    """Who asks hears from the client, at each sending, that the request is out; who doesn't ask need not."""
    heard = []
    desk = Desk(DIED, Answer(), Answer())
    await desk.send(head_of(), b"body", on_sent=lambda: heard.append("sent"))

    assert [] == heard

    for call in desk.client.calls:
        call["on_sent"]()

    assert ["sent", "sent"] == heard

    await desk.send(head_of(), b"body")
    desk.client.calls[-1]["on_sent"]()


@pytest.mark.parametrize("body", [b"body", "stream"], ids=["bytes", "stream"])
async def test_resent_no_more_than_once(body):
    """The second failure is the call's."""
    again = UpstreamFailed(Cause.DISCONNECTED, reused=True)
    desk = Desk(DIED, again)
    with pytest.raises(UpstreamFailed) as caught:
        await desk.send(head_of(), Body(b"body") if body == "stream" else body)

    assert again is caught.value
    assert 2 == len(desk.client.calls)
    assert 0 == desk.ledger.held


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
@pytest.mark.parametrize("answered", [False, True], ids=["silent", "answered"])
async def test_when_to_resend(cause, reused, answered):
    """A-12: only an old connection that died without a byte of an answer allows a second sending."""
    desk = Desk(UpstreamFailed(cause, reused=reused, answered=answered), Answer())
    expected = cause is Cause.DISCONNECTED and reused and not answered
    if expected:
        await desk.send(head_of(), Body(b"body"))
    else:
        with pytest.raises(UpstreamFailed):
            await desk.send(head_of(), Body(b"body"))

    assert 1 + expected == len(desk.client.calls)
    assert 0 == desk.ledger.held


@pytest.mark.parametrize("error", [ClientGone(), Refused(413, "too-large", "x"), ValueError()], ids=repr)
async def test_what_a_body_raises(error):
    """What the caller's body raises comes through, and nothing is kept."""
    desk = Desk(DIED, Answer())
    with pytest.raises(type(error)):
        await desk.send(head_of(), Body(b"body", error=error))

    assert 1 == len(desk.client.calls)
    assert 0 == desk.ledger.held


@pytest.mark.parametrize("takes", [1, 5, 6, 100])
async def test_replayed_exactly(takes):
    """However much of a body had gone out, the second sending has it from its start to its end."""
    desk = Desk(DIED, Answer(), takes=takes)
    await desk.send(head_of(), Body(b"one", b"two", b"", b"three"))

    assert b"onetwothree" == desk.client.bodies[1]
    assert 0 == desk.ledger.held


@pytest.mark.parametrize(
    ("sizes", "memory", "expected"),
    [
        pytest.param([KEPT_FOR_RESEND], 1024 * KIB, 2, id="all of it fits"),
        pytest.param([KEPT_FOR_RESEND, 1], 1024 * KIB, 1, id="a byte too many"),
        pytest.param([KEPT_FOR_RESEND + 1], 1024 * KIB, 1, id="one chunk too large"),
        pytest.param([100, 100], 200, 2, id="the ledger just has it"),
        pytest.param([100, 100], 199, 1, id="the ledger refuses"),
    ],
)
async def test_too_much_to_resend(sizes, memory, expected):
    """Past 256 KiB, or where the ledger refuses, a body is sent once; and goes out whole all the same."""
    desk = Desk(DIED, Answer(), memory=memory)
    body = Body(*[bytes(size) for size in sizes])
    if expected == 2:
        await desk.send(head_of(), body)
    else:
        with pytest.raises(UpstreamFailed):
            await desk.send(head_of(), body)

    assert [sum(sizes)] * expected == [len(body) for body in desk.client.bodies]
    assert 0 == desk.ledger.held


async def test_kept_until_the_head():
    """What is kept is in the ledger while the call is sent, and let go of at the answer's head."""
    ledger = Ledger(1000)
    rewindable = Rewindable(Body(b"one", b"two", b"three"), ledger)
    chunks = rewindable.chunks()
    got = [await anext(chunks), await anext(chunks)]

    assert 6 == ledger.held
    assert not rewindable.spent

    rewindable.forget()

    assert 0 == ledger.held
    assert rewindable.spent
    assert [b"one", b"two", b"three"] == got + [chunk async for chunk in chunks]
    assert 0 == ledger.held


async def test_head_in_the_middle_of_a_resend():
    """An answer that begins while the body is replayed does not tear a hole into it."""
    rewindable = Rewindable(Body(b"one", b"two", b"three", b"four"), Ledger(1000))
    first = rewindable.chunks()
    for _ in range(3):
        await anext(first)
    await first.aclose()
    second = rewindable.chunks()
    got = [await anext(second)]
    rewindable.forget()

    assert [b"one", b"two", b"three", b"four"] == got + [chunk async for chunk in second]


@given(chunks=st.lists(st.binary(max_size=40), max_size=8), cut=st.integers(0, 8), memory=st.integers(0, 300))
async def test_rewound_anywhere(chunks, cut, memory):
    """Wherever the first sending is cut, the second is the body whole, or the body is spent; the ledger balances."""
    ledger = Ledger(memory)
    rewindable = Rewindable(Body(*chunks), ledger)
    first = rewindable.chunks()
    for _, chunk in zip(range(cut), chunks, strict=False):
        assert chunk == await anext(first)

    await first.aclose()

    assert rewindable.spent == (sum(map(len, chunks[:cut])) > memory)
    if not rewindable.spent:
        assert chunks == [chunk async for chunk in rewindable.chunks()]

    rewindable.forget()

    assert 0 == ledger.held


CREDENTIALS = (
    (b"Authorization", b"Bearer of the caller"),
    (b"API-Key", b"of the caller"),
    (b"x-api-key", b"of the caller"),
    (b"Ocp-Apim-Subscription-Key", b"of the caller"),
    (b"x-goog-api-key", b"of the caller"),
)


async def test_region_credential():
    """Where the region supplies the credential, every one of the caller's stays behind."""
    desk = Desk(Answer(), credential=STORED)
    await desk.send(head_of(*CREDENTIALS, (b"X-Other", b"stays")))

    assert ((b"X-Other", b"stays"), KEY) == desk.sent


async def test_region_credential_of_its_own_name():
    """A region's field of a name that is no usual credential's takes the place of the caller's."""
    desk = Desk(Answer(), credential=STORED, found=(b"x-gateway-key", b"ours"))
    await desk.send(head_of((b"X-Gateway-Key", b"of the caller")))

    assert ((b"x-gateway-key", b"ours"),) == desk.sent


async def test_own_credential_passes():
    """Without one, the caller's own goes through as it is, in the query too."""
    desk = Desk(Answer())
    await desk.send(head_of(*CREDENTIALS, target=b"/azure/contoso/x?api-key=mine"))

    assert CREDENTIALS == desk.sent
    assert b"/x?api-key=mine" == desk.client.calls[0]["target"]


async def test_region_credential_unreadable():
    """A call is never sent without the credential that it should have, nor with the caller's instead."""
    desk = Desk(Answer(), credential=STORED, found=None)
    with pytest.raises(Refused) as caught:
        await desk.send(head_of(*CREDENTIALS))

    assert (503, "no-credential") == (caught.value.status, caught.value.code)
    assert [] == desk.client.calls


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"?api-key=mine", b""),
        (b"?a=1&api-key=mine&b=%2F", b"?a=1&b=%2F"),
        (b"?subscription-key=mine&a=1", b"?a=1"),
        (b"?API-Key=mine&a=1", b"?a=1"),
        (b"?api%2Dkey=mine&a=1", b"?a=1"),
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
    desk = Desk(Answer(), credential=STORED)
    await desk.send(head_of(target=b"/azure/contoso//x%20y" + query))

    assert b"//x%20y" + expected == desk.client.calls[0]["target"]


@pytest.mark.parametrize("identity", [False, True], ids=["passed through", "looked up"])
async def test_accept_encoding(identity):
    """Only a call that is looked up asks for an answer without coding."""
    desk = Desk(Answer())
    await desk.send(head_of((b"Accept-Encoding", b"gzip")), identity=identity)

    assert ((b"accept-encoding", b"identity") if identity else (b"Accept-Encoding", b"gzip"),) == desk.sent
