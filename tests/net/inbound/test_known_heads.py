"""Known heads that are not read again: the request is what the strict reader would have made of it."""

import pytest

from sidecar.core.rules import Limits
from tests.net.inbound.test_head_memo import ODD, PORT, RECALLED, Echo, Front, put, request, swap

USUAL = request()
ONES = {name: pair[1] for name, pair in RECALLED.items()} | ODD


class Miss(Echo):
    """A line that has nothing in memory, and answers with all that it was asked."""

    def try_hit(self, plan, body):
        return None

    def answer(self, request):
        head = request.head
        fields = (head.method, head.target, head.minor, head.pairs, dict(head.fields), head.port)
        return self._echo((request.plan, fields), request.body if isinstance(request.body, bytes) else b"a stream")


class MissFront(Front):
    """As ``Front``; *known* counts the requests whose head was not read."""

    def __init__(self, limits: Limits, *, strict: bool) -> None:
        super().__init__(limits, strict=strict)
        self.app = self._shared.app = Miss()
        self.known = 0
        memo = self._shared.head_memo
        read = memo.read

        def counted(raw, known):
            self.known += 1
            return read(raw, known)

        memo.read = counted


async def both(*reads, limits=None):
    """Assert that *reads* mean the same with known heads as without; how many heads were known, or were learnt."""
    knowing, strict = (MissFront(limits or Limits(), strict=strict) for strict in (False, True))
    for data, port in reads:
        await knowing.read(data, port)
        await strict.read(data, port)

        assert strict.seen() == knowing.seen()
        assert strict._shared.ledger.held == knowing._shared.ledger.held
    return knowing.known


@pytest.mark.parametrize("sent", ONES.values(), ids=ONES)
async def test_another_head(sent):
    """Whatever comes behind a head that is known, or is known before it, it means what it says."""
    await both(*[(data, PORT) for data in (USUAL, sent, sent, USUAL, sent)])
    await both(*[(data, PORT) for data in (sent, sent, USUAL, USUAL, sent)])


@pytest.mark.parametrize(
    "again",
    [
        USUAL,
        swap(5, b"Content-Length: 5", body=b"other"),
        swap(5, b"content-length:3"),
        put(b"traceparent: 00-1"),
        put(b"X-A: 1", b"x-a:\t2 "),
        put(b"x-noise:\t\xc3\xa4 \xff \t"),
    ],
)
async def test_known(again):
    """Noise and the length may be others; each field is passed on as the strict reader would."""
    assert 2 == await both((USUAL, PORT), (again, PORT))


async def test_streaming_plans():
    """A head whose body is not looked into is known, too."""
    streaming = put(b"X-Team: stream")

    assert 3 == await both(*[(streaming, PORT)] * 3)


async def test_limits_hold():
    """What is too large is left to the strict reader."""
    assert 2 == await both((USUAL, PORT), (USUAL, PORT), limits=Limits(collect=3))
    large = swap(5, b"Content-Length: 9", body=bytes(9))
    await both((large, PORT), (large, PORT), (USUAL, PORT), (large, PORT), limits=Limits(collect=8))
    long = put(b"x: " + b"y" * 200)
    await both((long, PORT), (long, PORT), limits=Limits(headers=100))


async def test_no_room():
    """Without room in memory the request takes the ordinary way."""
    front, streaming = MissFront(Limits(), strict=False), put(b"X-Team: stream")
    await front.read(streaming)
    ledger = front._shared.ledger
    ledger.take(ledger.limit - ledger.held)
    await front.read(streaming)

    assert [b"abc", b"a stream"] == [body for _, body in front.app.handed]


async def test_forgotten():
    """New rules judge every head anew."""
    front = MissFront(Limits(), strict=False)
    await front.read(USUAL)
    await front.read(USUAL)
    front._shared.head_memo.forget()
    assert not front._shared.head_memo._pairs
    await front.read(USUAL)

    assert 3 == front.known  # learnt, known, learnt again
