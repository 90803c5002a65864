"""A token that expires, on a clock that passes when told to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.access_tokens import PATIENCE_SECONDS, Denial, GrantedToken, Tokens, hold

BUSY = Denial("answered 500", passing=True)
LOST = Denial("answered 400")
LONG = 60.0
"""Seconds that no test waits."""


class World:
    """The endpoint, the clock and the tasks. *answers* are given in turn, the last again and again."""

    def __init__(self):
        self.now = 1000.0
        self.answers = []
        self.asked = []
        self.reports = []
        self.tasks = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.sleeping = []
        self.on_report = lambda: None
        self.tokens = Tokens(
            self.ask,
            clock=lambda: self.now,
            draw=lambda: 1.0,
            spawn=self.spawn,
            report=self.report,
            sleep=self.sleep,
        )

    async def ask(self):
        self.asked.append(self.now)
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(self, fault):
        self.reports.append(fault)
        self.on_report()

    def spawn(self, work, *, name):
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    async def sleep(self, seconds):
        wake = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now + seconds, wake))
        await wake

    async def settle(self):
        for _ in range(8):
            await asyncio.sleep(0)

    async def passes(self, seconds):
        """Time passes, second by second or less, and everything that is due happens."""
        end = self.now + seconds
        await self.settle()
        while self.now < end:
            self.now = min([end, *(at for at, wake in self.sleeping if not wake.done())])
            for at, wake in self.sleeping:
                if at <= self.now and not wake.done():
                    wake.set_result(None)
            self.sleeping = [(at, wake) for at, wake in self.sleeping if not wake.done()]
            await self.settle()

    async def start(self, *answers):
        """With the first of *answers* in hand."""
        self.answers = list(answers)
        return await self.tokens.obtain(LONG)


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.tokens.close()


@pytest.mark.parametrize(
    ("seconds", "due"),
    [(3599.0, 3299.0), (7199.0, 6899.0), (7200.0, 3600.0), (86400.0, 43200.0), (600.0, 300.0), (100.0, 50.0)],
)
def test_due(seconds, due):
    """300 s ahead; a day's token at half-life, and one that hardly lives too."""
    token = hold(GrantedToken(b"t", seconds), 10.0)

    assert (10.0 + due, 10.0 + seconds) == (token.due, token.until)


@given(seconds=st.floats(0.001, 1e6), began=st.floats(0, 1e9))
def test_due_before_expiry(seconds, began):
    """A token is never due before it is there, nor after it has expired."""
    token = hold(GrantedToken(b"t", seconds), began)

    assert began <= token.due <= token.until


async def test_first(world):
    """Nothing is in hand at first; asking starts a request, and who waits gets what it brings."""
    world.answers = [GrantedToken(b"one", 3600)]

    assert world.tokens.current() is None

    await world.settle()

    assert b"one" == world.tokens.current()
    assert b"one" == await world.tokens.obtain(0)
    assert 1 == len(world.asked)
    assert 3600.0 == world.tokens.remaining()


async def test_hundred_first_users(world):
    """A hundred ask at once: one request."""
    world.answers = [GrantedToken(b"one", 3600)]

    assert [b"one"] * 100 == await asyncio.gather(*(world.tokens.obtain(LONG) for _ in range(100)))
    assert 1 == len(world.asked)


async def test_waiter_leaves(world):
    """A waiter that is cancelled, the first one too, takes nothing away from the others."""
    world.answers = [GrantedToken(b"one", 3600)]
    world.gate.clear()
    waiting = [asyncio.create_task(world.tokens.obtain(LONG)) for _ in range(3)]
    await world.settle()
    waiting[0].cancel()
    await world.settle()
    world.gate.set()

    assert [b"one", b"one"] == await asyncio.gather(*waiting[1:])
    assert waiting[0].cancelled()
    assert 1 == len(world.asked)


async def test_waiter_leaves_as_the_token_comes(world):
    """In the same moment: the others have it."""
    world.answers = [GrantedToken(b"one", 3600)]
    world.gate.clear()
    waiting = [asyncio.create_task(world.tokens.obtain(LONG)) for _ in range(3)]
    await world.settle()
    world.gate.set()
    waiting[0].cancel()

    assert [b"one", b"one"] == await asyncio.gather(*waiting[1:])
    assert world.tasks[0].exception() is None


async def test_slow_answer(world):
    """A token's life is counted from before it was asked for: it may have begun then."""
    world.answers = [GrantedToken(b"one", 3600)]
    world.gate.clear()
    world.tokens.current()
    await world.passes(10)
    world.gate.set()
    await world.settle()

    assert 3590.0 == world.tokens.remaining()


async def test_waits_no_longer_than_said(world):
    """Who has waited long enough gets nothing; the request goes on for the next."""
    world.answers = [GrantedToken(b"one", 3600)]
    world.gate.clear()

    assert await world.tokens.obtain(0.0) is None

    world.gate.set()
    await world.settle()

    assert b"one" == world.tokens.current()
    assert 1 == len(world.asked)


async def test_refresh_ahead(world):
    """From 300 s before expiry the next is asked for, once, while the old serves."""
    await world.start(GrantedToken(b"one", 3600), GrantedToken(b"two", 3600))
    await world.passes(3299)
    world.tokens.current()
    await world.settle()

    assert 1 == len(world.asked)

    world.gate.clear()
    await world.passes(1)
    for _ in range(3):
        assert b"one" == world.tokens.current()
        await world.settle()

    assert 2 == len(world.asked)

    world.gate.set()
    await world.settle()

    assert b"two" == world.tokens.current()


async def test_refresh_fails(world):
    """The old token serves to its last second, with a try every 30 s; the fault is told once."""
    await world.start(GrantedToken(b"one", 3600), BUSY)
    await world.passes(3300)
    for _ in range(299):
        assert b"one" == world.tokens.current()
        await world.passes(1)

    assert 1 + 10 == len(world.asked)
    assert ["answered 500"] == world.reports

    await world.passes(1)

    assert world.tokens.current() is None
    assert world.tokens.remaining() is None


async def test_refresh_recovers(world):
    """A fault that is over is forgotten, and told again when it comes back."""
    await world.start(GrantedToken(b"one", 600), BUSY, GrantedToken(b"two", 600), BUSY)
    await world.passes(300)
    world.tokens.current()
    await world.passes(30)

    assert "answered 500" == world.tokens.fault

    world.tokens.current()
    await world.settle()

    assert b"two" == world.tokens.current()
    assert "" == world.tokens.fault

    await world.passes(300)
    world.tokens.current()
    await world.settle()

    assert ["answered 500"] * 2 == world.reports


async def test_expiry_during_a_refresh_that_fails(world):
    """When the old token expires, nobody waits for the 30 s that were meant for quieter times."""
    await world.start(GrantedToken(b"one", 600), BUSY, GrantedToken(b"two", 600))
    await world.passes(595)
    world.tokens.current()
    await world.passes(5)
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    await world.settle()

    assert b"two" == await waiting


@pytest.mark.parametrize("gone", [1, 5, 70], ids=lambda gone: f"{gone} s")
async def test_passing_faults_are_waited_for(world, gone):
    """An endpoint that is updated answers 410 for up to 70 s: who may wait that long gets a token."""
    world.answers = [Denial("answered 410", passing=True)]
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    await world.passes(gone)
    world.answers = [GrantedToken(b"one", 3600)]
    await world.passes(10)

    assert b"one" == await waiting
    assert ["answered 410"] == world.reports
    assert world.asked == sorted(set(world.asked))


async def test_backoff(world):
    """Tries come ever more slowly, up to 10 s apart; an endpoint that asks for more time gets it, up to a minute."""
    world.answers = [BUSY] * 6 + [Denial("answered 429", passing=True, wait=20), Denial("", passing=True, wait=1e9)]
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    await world.passes(200)
    gaps = [round(later - earlier, 3) for earlier, later in zip(world.asked, world.asked[1:], strict=False)]

    assert [0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 20.0, 60.0, 60.0] == gaps

    waiting.cancel()


async def test_tries_for_nobody(world):
    """After the last waiter has left, a missing token is tried for a while longer, and then no more."""
    world.answers = [BUSY]

    assert await world.tokens.obtain(0.0) is None

    await world.passes(PATIENCE_SECONDS)
    tries = len(world.asked)
    await world.passes(1000)

    assert tries > 8
    assert len(world.asked) - tries <= 1


async def test_wanted_again(world):
    """A missing token is tried for again as soon as it is wanted again: only a valid one leaves time."""
    world.answers = [BUSY]
    world.tokens.current()
    await world.passes(PATIENCE_SECONDS + 20)
    tries = len(world.asked)
    world.tokens.current()
    await world.settle()

    assert world.now - world.asked[-2] < 30
    assert tries + 1 == len(world.asked)


async def test_long_outage(world):
    """What has not passed for long is not waited for any more, though tried on; the first success ends that."""
    world.answers = [BUSY]
    for _ in range(9):
        world.tokens.current()
        await world.passes(10)

    assert await world.tokens.obtain(LONG) is None

    world.answers = [GrantedToken(b"one", 3600)]
    await world.passes(10)

    assert b"one" == await world.tokens.obtain(LONG)


async def test_first_call_after_a_long_outage(world):
    """An outage of which nothing is known lately is no reason not to try."""
    world.answers = [BUSY]
    for _ in range(9):
        world.tokens.current()
        await world.passes(10)
    await world.passes(1000)
    world.answers = [GrantedToken(b"one", 3600)]

    assert b"one" == await world.tokens.obtain(LONG)


async def test_lasting_fault(world):
    """What won't pass by itself is told to all who wait, at once, and tried again after 30 s."""
    world.answers = [LOST]

    assert [None] * 3 == await asyncio.gather(*(world.tokens.obtain(LONG) for _ in range(3)))
    assert await world.tokens.obtain(LONG) is None
    assert 1 == len(world.asked)
    assert ["answered 400"] == world.reports

    world.answers = [GrantedToken(b"one", 3600)]
    await world.passes(29)

    assert await world.tokens.obtain(LONG) is None

    await world.passes(1)

    assert b"one" == await world.tokens.obtain(LONG)


async def test_lasting_fault_with_a_token(world):
    """A token in hand serves, whatever the endpoint says of the next."""
    await world.start(GrantedToken(b"one", 600), LOST)
    await world.passes(300)
    for _ in range(10):
        assert b"one" == await world.tokens.obtain(LONG)
        await world.passes(29)

    assert 1 + 5 == len(world.asked)


async def test_renew(world):
    """A refused token is replaced: once, for all whom it was refused for, and for those who come late."""
    await world.start(GrantedToken(b"one", 3600), GrantedToken(b"two", 3600))

    assert [b"two"] * 50 == await asyncio.gather(*(world.tokens.renew(b"one", LONG) for _ in range(50)))
    assert b"two" == await world.tokens.renew(b"one", LONG)
    assert 2 == len(world.asked)


async def test_renew_brings_the_same(world):
    """An endpoint that keeps its tokens gives the same: that is no other, it serves on, and 30 s pass till the next."""
    await world.start(GrantedToken(b"one", 3600))

    assert await world.tokens.renew(b"one", LONG) is None
    assert await world.tokens.renew(b"one", LONG) is None
    assert b"one" == world.tokens.current()
    assert 2 == len(world.asked)

    world.answers = [GrantedToken(b"two", 3600)]
    await world.passes(29)

    assert await world.tokens.renew(b"one", LONG) is None

    await world.passes(1)

    assert b"two" == await world.tokens.renew(b"one", LONG)


async def test_renew_while_others_are_served(world):
    """While a token is replaced, calls go out with the old one: it may have been refused for something else."""
    await world.start(GrantedToken(b"one", 3600), GrantedToken(b"two", 3600))
    world.gate.clear()
    renewing = asyncio.create_task(world.tokens.renew(b"one", LONG))
    await world.settle()

    assert b"one" == world.tokens.current()

    world.gate.set()

    assert b"two" == await renewing


async def test_renew_joins_a_refresh(world):
    """A refresh that is under way is the renewal: there is no second request."""
    await world.start(GrantedToken(b"one", 3600), GrantedToken(b"two", 3600))
    await world.passes(3300)
    world.gate.clear()
    world.tokens.current()
    renewing = asyncio.create_task(world.tokens.renew(b"one", LONG))
    await world.settle()
    world.gate.set()

    assert b"two" == await renewing
    assert 2 == len(world.asked)


async def test_renew_between_two_tries_of_a_refresh(world):
    """A refresh that failed lets 30 s pass; a refusal can't wait for that."""
    await world.start(GrantedToken(b"one", 3600), BUSY, GrantedToken(b"two", 3600))
    await world.passes(3300)
    world.tokens.current()
    await world.passes(2)

    assert b"two" == await world.tokens.renew(b"one", LONG)


async def test_renew_over_a_passing_fault(world):
    """The endpoint stumbles while a token is renewed: the next try brings it."""
    await world.start(GrantedToken(b"one", 3600), BUSY, GrantedToken(b"two", 3600))
    renewing = asyncio.create_task(world.tokens.renew(b"one", LONG))
    await world.passes(1)

    assert b"two" == await renewing


async def test_renew_fails(world):
    """No other token is to be had: none, and the old one serves on for whom it is good enough."""
    await world.start(GrantedToken(b"one", 3600), LOST)

    assert await world.tokens.renew(b"one", LONG) is None
    assert await world.tokens.renew(b"one", LONG) is None
    assert b"one" == world.tokens.current()
    assert 2 == len(world.asked)


async def test_renew_after_a_refresh_that_failed_for_good(world):
    """Where asking was no use, the renewal has not been had: it comes as soon as asking is some use again."""
    await world.start(GrantedToken(b"one", 3600), LOST, GrantedToken(b"two", 3600))
    await world.passes(3300)
    world.tokens.current()
    await world.passes(29)

    assert await world.tokens.renew(b"one", LONG) is None

    await world.passes(2)

    assert b"two" == await world.tokens.renew(b"one", LONG)


async def test_renew_of_an_expired_token_that_waits_no_longer(world):
    """Nobody waits, but the token was wanted: it is tried for, for a while."""
    await world.start(GrantedToken(b"one", 10), BUSY)
    await world.passes(100)

    assert await world.tokens.renew(b"one", 0.0) is None

    await world.passes(PATIENCE_SECONDS)

    assert len(world.asked) > 8


async def test_passing_fault_becomes_a_lasting_one(world):
    """What one has to see to is told, though something was told before."""
    world.answers = [BUSY, LOST]
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    await world.passes(1)

    assert await waiting is None
    assert ["answered 500", "answered 400"] == world.reports


async def test_renew_of_an_expired_token(world):
    """Refused since it has expired meanwhile: the next is asked for, no matter when the last was renewed."""
    await world.start(GrantedToken(b"one", 10), GrantedToken(b"two", 10), GrantedToken(b"three", 3600))

    assert b"two" == await world.tokens.renew(b"one", LONG)

    await world.passes(10)

    assert b"three" == await world.tokens.renew(b"two", LONG)


async def test_comes_as_a_try_ends(world):
    """Who comes right after a try that was the last one starts another: there is no gap to fall through."""
    await world.start(GrantedToken(b"one", 600), BUSY, GrantedToken(b"two", 600))
    late = []
    world.on_report = lambda: late.append(asyncio.create_task(world.tokens.renew(b"one", LONG)))
    await world.passes(300)
    world.tokens.current()
    await world.passes(2)

    assert [b"two"] == await asyncio.gather(*late)
    assert 3 == len(world.tasks)


@pytest.mark.parametrize("steps", [0, 1, 2], ids=["before its first step", "while it asks", "as it goes on"])
async def test_request_cancelled(world, steps):
    """When the process stops, the request ends, and nobody hangs on it."""
    world.answers = [GrantedToken(b"one", 3600)]
    world.gate.clear()
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    for _ in range(1 + steps):
        await asyncio.sleep(0)
    world.tasks[0].cancel()

    assert await waiting is None


async def test_bug(world):
    """An error of ours reaches its owner, and hangs nobody."""
    world.answers = [RuntimeError("secret")]

    assert await world.tokens.obtain(LONG) is None
    assert "an error of our own; see the log" == world.tokens.fault
    assert isinstance(world.tasks[0].exception(), RuntimeError)


async def test_closed(world):
    """After the end, what is in hand serves, and nothing is asked for; who waited is told."""
    world.answers = [GrantedToken(b"one", 600)]
    world.gate.clear()
    waiting = asyncio.create_task(world.tokens.obtain(LONG))
    await world.settle()
    await world.tokens.close()

    assert await waiting is None
    assert await world.tokens.obtain(LONG) is None
    assert world.tokens.current() is None

    await world.settle()

    assert 1 == len(world.asked)


async def test_nothing_is_shown(world):
    """No repr shows a token."""
    await world.start(GrantedToken(b"one-secret", 600), LOST)
    world.now += 300
    world.tokens.current()
    await world.settle()

    assert "<Tokens <AccessToken due 1300.0 until 1600.0>, answered 400>" == repr(world.tokens)
    assert "<GrantedToken for 600 s>" == repr(GrantedToken(b"one-secret", 600))
