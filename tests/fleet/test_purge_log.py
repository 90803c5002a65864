"""The log of purges in a real Redis: what one process purges all learn, whatever becomes of the server."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.cache.purges import ALL, Due, Scope, ScopeKind
from sidecar.core.model import Position
from sidecar.core.rules import Mode
from sidecar.errors import FleetAway
from sidecar.fleet import purge_log_in_redis as journal
from sidecar.fleet.purge_log import CURRENT_SECONDS
from sidecar.redis_link.names import RedisNames
from tests.fleet.logs import secrets
from tests.redis_servers import RedisServer

A, B, C = (Scope(ScopeKind.TAG, f"tag-{name}") for name in "abc")
NAMES = RedisNames("team-a")
KEYS = (NAMES.log_meta, NAMES.log_purges, NAMES.log_mode)


async def away(*_):
    """A Redis that does not answer."""
    raise FleetAway("open")


async def test_stopped_in_the_middle(redis_server, pods):
    """An answer that this process was too late to read says nothing of the time in which it was stopped."""
    one = pods(redis_server)
    await one.read()
    evaluate, clock = one.link.evaluate, one.log._clock

    async def stopped(*words):
        answer = await evaluate(*words)
        one.log._clock = lambda: clock() + 10.0
        return answer

    one.link.evaluate = stopped
    await one.log._exchange()
    late = one.log.current, one.log._clock() > one.purges.until
    one.link.evaluate = evaluate
    await one.log.catch_up()

    assert (False, True) == late
    assert one.log.current
    assert one.log._clock() <= one.purges.until


async def test_catching_up(redis_server, pods):
    """The log is read only after a gap, once for all who wait; who goes away meanwhile leaves it to the next."""
    one, two = pods(redis_server), pods(redis_server)
    for pod in (one, two):
        await pod.read()
    clock = one.log._clock
    await one.log.catch_up()
    reads = [one.log.counts["tails"]]
    await two.log.purge([A])
    one.log._clock = lambda: clock() + CURRENT_SECONDS + 1.0
    gone, *others = [asyncio.ensure_future(one.log.catch_up()) for _ in range(10)]
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*others)
    reads.append(one.log.counts["tails"])

    assert [1, 2] == reads
    assert [(A,)] == one.purged


async def test_catching_up_without_redis(redis_server, pods):
    """Where there is no answer in time what is known is gone by all the same, and those tries count that fail."""
    one = pods(redis_server)
    await one.read()
    clock, evaluate = one.log._clock, one.link.evaluate
    one.log._patience = 0.01

    async def silent(*_):
        await asyncio.Event().wait()

    stale = []
    for later, answer in enumerate((silent, away, evaluate), 1):
        one.link.evaluate = answer
        one.log._clock = lambda later=later: clock() + 10.0 * later
        stale.append(one.log._clock() > one.purges.until)
        await one.log.catch_up()
        stale.append(one.log._clock() > one.purges.until)

    assert [True, False] * 3 == stale
    assert (2, 1) == (one.log.counts["tails"], one.log.counts["failures"])


@pytest.mark.parametrize("redis", ["there", "away"])
async def test_mode_when_the_clock_is_set_back(redis, redis_server, pods, now):
    """It ends when it was said to, by the clock that nobody sets; also one that is still to be told."""
    one = pods(redis_server)
    await one.read()
    clock = one.log._clock
    if redis == "away":
        one.link.evaluate = away
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)
    now[0] -= 3600.0
    one.log._clock = lambda: clock() + 50.0
    await one.read()
    before = one.log.mode
    one.log._clock = lambda: clock() + 61.0
    await one.read()

    assert (Mode.PASSTHROUGH, None) == (before, one.log.mode)
    assert [Mode.PASSTHROUGH, None] == one.modes


def roll_back(server: RedisServer, number: int) -> None:
    """As if the server had not had the purges after *number*."""
    server.call("ZREMRANGEBYSCORE", NAMES.log_purges, f"({number}", "+inf")
    server.call("HSET", NAMES.log_meta, "number", number, "last", number)


async def test_purge_is_seen_by_all(redis_server, pods):
    """A purge is carried out here at once, in the log when that answers, and everywhere that reads it, once."""
    one, two, three = (pods(redis_server) for _ in range(3))
    for pod in (one, two, three):
        assert [] == await pod.read()

    before = two.purges.position
    position = await one.log.purge([A, B])

    assert Position(before.incarnation, before.number + 1) == position == one.purges.position
    assert [(A, B)] == one.purged
    assert [] == await one.read()
    assert {(A, B)} == {tuple(sorted(*await pod.read())) for pod in (two, three)}
    assert [] == await two.read()
    assert [False, True] == [two.admits(A, at) for at in (before, position)]
    assert two.admits(C, before)


async def test_followers_learn_by_themselves(redis_server, pods):
    """The log is read again and again; news makes that sooner, and is told on the channel."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.start()
    await two.log.start()
    async with one.link.subscriber().pubsub(ignore_subscribe_messages=True) as news:
        await news.subscribe(NAMES.news)
        await news.get_message(timeout=5.0)
        async with asyncio.timeout(20):
            await one.log.purge([A])
            await two.heard.wait()
            message = await news.get_message(timeout=5.0)

    assert [(A,)] == two.purged
    assert b"p" == message["data"]

    two.heard.clear()
    two.log.nudge()
    await one.log.purge([ALL])
    async with asyncio.timeout(20):
        await two.heard.wait()

    assert two.log.lag < 20.0
    assert two.log.counts["tails"] >= 2


async def test_a_process_that_comes_later(redis_server, pods):
    """Who starts reads all that is in the log, and admits nothing that was purged."""
    one = pods(redis_server)
    await one.read()
    before = one.purges.position
    await one.log.purge([A])
    late = pods(redis_server)
    await late.log.start()

    assert [(A,)] == late.purged
    assert [False, True] == [late.admits(scope, before) for scope in (A, B)]


async def test_same_scope_again_moves_up(redis_server, pods):
    """A scope that is purged again has one place in the log, with the higher number."""
    one, two = pods(redis_server), pods(redis_server)
    first = await one.log.purge([A])
    await two.read()
    second = await one.log.purge([A])

    assert 1 == redis_server.call("ZCARD", NAMES.log_purges)
    assert [(A,)] == await two.read()
    assert [False, True] == [two.admits(A, position) for position in (first, second)]


async def test_purges_at_once(redis_server, pods):
    """Purges by many at the same time all come in, each with a position that holds."""
    fleet = [pods(redis_server) for _ in range(3)]
    scopes = [Scope(ScopeKind.TAG, str(number)) for number in range(30)]
    calls = [fleet[number % 3].log.purge([scope]) for number, scope in enumerate(scopes)]
    positions = await asyncio.gather(*calls)
    for pod in fleet:
        await pod.read()

    assert 30 == redis_server.call("ZCARD", NAMES.log_purges)
    assert [True] * 90 == [pod.admits(scope, at) for pod in fleet for scope, at in zip(scopes, positions, strict=True)]
    assert [set(scopes)] * 3 == [{scope for purged in pod.purged for scope in purged} for pod in fleet]


async def test_fold(redis_server, pods, monkeypatch):
    """When the log grows the oldest purges become one of all, for who hasn't read them; who has keeps what he knows."""
    monkeypatch.setattr(journal, "MOST_PURGES", 5)
    one, two, three = pods(redis_server), pods(redis_server), pods(redis_server)
    await two.read()
    before = two.purges.position
    scopes = [Scope(ScopeKind.TAG, str(number)) for number in range(8)]
    for scope in scopes:
        position = await one.log.purge([scope])
        await three.read()

    assert 5 == redis_server.call("ZCARD", NAMES.log_purges)
    assert 8 == position.number
    assert [(ALL, *scopes[4:])] == await two.read()
    assert [False, True] == [two.admits(C, Position(before.incarnation, number)) for number in (3, 4)]
    assert three.admits(C, before)
    assert ALL not in {scope for purged in three.purged for scope in purged}


async def test_purge_of_all_leaves_no_other(redis_server, pods):
    """After a purge of everything the log holds nothing else."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.purge([A, B])
    await one.log.purge([ALL])

    assert 1 == redis_server.call("ZCARD", NAMES.log_purges)
    assert [(ALL,)] == await two.read()


@pytest.mark.parametrize(
    "flush",
    [
        pytest.param(lambda server: server.call("FLUSHALL"), id="flushall"),
        pytest.param(lambda server: server.call("DEL", NAMES.log_meta), id="hash evicted"),
        pytest.param(lambda server: server.call("DEL", NAMES.log_purges), id="purges evicted"),
    ],
)
async def test_flushed(redis_server, pods, flush):
    """Where the log is gone from its server, everything is purged in every process, once; nothing older is admitted."""
    one, two = pods(redis_server), pods(redis_server)
    position = await one.log.purge([A])
    await two.read()
    flush(redis_server)

    assert [[(ALL,)], [(ALL,)]] == [await one.read(), await two.read()]
    assert [[], []] == [await one.read(), await two.read()]
    assert one.purges.position == two.purges.position != position
    assert not two.admits(B, position)
    assert "purge-log-lost" in one.told
    assert Position(two.purges.position.incarnation, 1) == await two.log.purge([A])


async def test_new_empty_server(pods):
    """Another server, and an empty log: nothing here is purged; what waited, or may not have spread, is written."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        old = await one.log.purge([A])
        await two.read()
        server.kill()

        assert await two.log.purge([B]) is None

        server.start()

        assert [] == await two.read()
        assert [(B,)] == await one.read()
        assert {A} == set(one.purges.pending)
        assert [] == await one.read()
        assert {} == one.purges.pending
        assert [(A,)] == await two.read()
        assert not one.admits(C, old)
        assert one.admits(C, one.purges.position)


async def test_frozen_server(redis_server, pods):
    """While Redis is frozen a purge holds here, and is seen by all on its return."""
    one, two = pods(redis_server), pods(redis_server)
    await one.read()
    await two.read()
    before = one.purges.position
    redis_server.pause()

    assert await one.log.purge([A]) is None
    assert [(A,)] == one.purged
    assert not one.admits(A, before)
    assert one.log.counts["failures"]

    redis_server.resume()
    await one.read()  # it may find that what was given up has been executed: then A is purged here again

    assert {} == one.purges.pending
    assert {(A,)} == set(await two.read())
    assert not two.admits(A, before)


@pytest.mark.parametrize("later", [A, ALL], ids=["the same", "all"])
async def test_purged_twice_while_redis_is_away(pods, later):
    """A purge that another one like it, or a wider one, waits for as well is said to wait."""
    with RedisServer() as server:
        one = pods(server)
        await one.read()
        server.kill()

        assert [None, None] == await asyncio.gather(one.log.purge([A]), one.log.purge([later]))
        assert {later} == set(one.purges.pending)


async def test_return_is_noticed(pods):
    """What waits is written by itself when Redis is back."""
    with RedisServer() as server:
        one = pods(server)
        await one.log.start()
        server.kill()
        for scope in (A, B, C):
            assert await one.log.purge([scope]) is None
        assert not one.link.up

        server.start()
        async with asyncio.timeout(20):
            while one.purges.pending:  # noqa: ASYNC110 - nobody tells that a purge is written; one is purged already
                await asyncio.sleep(0.02)

    assert 3 == one.log.counts["purges"]


async def test_server_with_an_older_state(pods):
    """A server that comes back without the latest purges gets them again, and nothing is admitted that they forbid."""
    with RedisServer(options=("--save", "3600", "1000")) as server:
        one, two = pods(server), pods(server)
        old = await one.log.purge([A])
        server.call("SAVE")
        lost = await one.log.purge([B])
        await two.read()
        server.kill()
        server.start()
        late = pods(server)

        assert [(A,)] == await late.read()
        assert not late.admits(C, lost)
        assert late.admits(C, old)
        assert [[(B,)], []] == [await two.read(), await two.read()]
        assert [(B,)] == await late.read()
        assert [(B,)] == await one.read()
        assert 2 == server.call("ZCARD", NAMES.log_purges)
        assert [False, True, True] == [late.admits(scope, old) for scope in (B, A, C)]
        assert "purge-log-lost" not in one.told


async def test_two_purge_the_same_and_both_are_lost(pods):
    """Who purged first purges again: the other finds the first's purge in the log, and takes it for its own."""
    with RedisServer(options=("--save", "3600", "1000")) as server:
        one, two = pods(server), pods(server)
        for pod in (one, two):
            await pod.read()
        server.call("SAVE")
        await one.log.purge([A])
        kept = one.purges.seq
        await two.log.purge([A])
        server.kill()
        server.start()
        for pod in (one, one, one, two, two, two):  # a connection that is gone may be found out by the first
            await pod.read()

        assert one.purges.purged_since((ALL, A), kept)
        assert (1, {}, {}) == (server.call("ZCARD", NAMES.log_purges), one.purges.pending, two.purges.pending)


async def test_server_with_the_same_state(pods):
    """A server that comes back, or takes over, with all it had loses nobody anything."""
    with RedisServer(options=("--save", "3600", "1000")) as server:
        one, two = pods(server), pods(server)
        old = await one.log.purge([A])
        await two.read()
        server.call("SAVE")
        for _ in range(3):
            server.kill()
            server.start()

            assert [[], []] == [await one.read(), await two.read()]
            assert ({}, {}) == (one.purges.pending, two.purges.pending)

        new = await one.log.purge([B])

        assert old.incarnation != new.incarnation
        assert [(B,)] == await two.read()
        assert [False, True, True] == [two.admits(B, old), two.admits(A, old), two.admits(B, new)]
        assert [] == [word for word in one.told if word.startswith("purge-log")]


async def test_numbers_go_backwards(redis_server, pods):
    """Where no run id tells of a failover, numbers that go backwards do."""
    one, two = pods(redis_server), pods(redis_server)
    old = await one.log.purge([A])
    await one.log.purge([B])
    await two.read()
    roll_back(redis_server, 1)

    assert [(B,)] == await one.read()
    assert {B} == set(one.purges.pending)
    assert [] == await one.read()
    assert [(B,)] == await two.read()
    assert [False, True] == [two.admits(scope, old) for scope in (B, C)]


async def test_info_is_forbidden(redis_server, pods):
    """Without the right to ask for the run id a log that is gone counts as flushed; all else works."""
    redis_server.call("ACL", "SETUSER", "default", "-info")
    try:
        one, two = pods(redis_server), pods(redis_server)
        await two.read()

        assert await one.log.purge([A])
        assert [(A,)] == await two.read()

        redis_server.call("FLUSHALL")

        assert [(ALL,)] == await two.read()
    finally:
        redis_server.call("ACL", "SETUSER", "default", "+info")


async def test_unknown_secret(redis_server, pods):
    """A note that cannot be opened counts as a purge of everything, once; who has its secret reads it."""
    one = pods(redis_server, secrets(1))
    newer, older = pods(redis_server, secrets(2, 1)), pods(redis_server, secrets(1))
    for pod in (one, newer, older):
        await pod.read()
    position = await newer.log.purge([A])

    assert [(ALL,)] == await older.read()
    assert [] == await older.read()
    assert older.admits(A, position)
    assert 1 == older.log.counts["unreadable"]

    one.secret = secrets(2)

    assert [(A,)] == await one.read()


async def test_foreign_member_is_all(redis_server, pods):
    """What stands among the purges and is none counts as a purge of everything."""
    one = pods(redis_server)
    await one.log.purge([A])
    mode_note = one.log._journal._notes.seal_note(b"mode team-a: normal 1e9")
    for number, foreign in enumerate([b"\xff\x00", mode_note], start=2):
        redis_server.call("ZADD", NAMES.log_purges, number, foreign)
        redis_server.call("HSET", NAMES.log_meta, "number", number, "last", number)

        assert [(ALL,)] == await one.read()


async def test_log_without_a_number(redis_server, pods):
    """A log whose number is none is as one that is gone."""
    one = pods(redis_server)
    await one.read()
    redis_server.call("HSET", NAMES.log_meta, "number", "many")

    assert [(ALL,)] == await one.read()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param([("HSET", NAMES.log_meta, "before", "x" * 40)], id="nothing to go on from"),
    ],
)
async def test_damaged_log(redis_server, pods, damage):
    """A log that makes no sense is as one that doesn't answer: nothing raises, and purges hold here and wait."""
    one = pods(redis_server)
    await one.read()
    for command in damage:
        redis_server.call(*command)

    assert await one.log.purge([A]) is None
    assert [(A,)] == one.purged
    assert 1 == one.log.counts["failures"]
    assert one.link.up


@pytest.mark.parametrize("where", [NAMES.log_meta, NAMES.log_purges], ids=["hash", "purges"])
async def test_foreign_types(redis_server, pods, where):
    """What is of another type is none of ours: it goes, and what it stood for counts as flushed."""
    one = pods(redis_server)
    await one.log.purge([B])
    redis_server.call("DEL", where)
    redis_server.call("SADD", where, "text")

    assert (ALL,) == (await one.read())[-1]
    assert await one.log.purge([A]) is not None


async def test_foreign_mode(redis_server, pods):
    """A mode of another type is none."""
    one = pods(redis_server)
    await one.read()
    redis_server.call("SADD", NAMES.log_mode, "text")
    await one.read()

    assert one.log.mode is None
    assert 0 == one.log.counts["failures"]
    assert b"none" == redis_server.call("TYPE", NAMES.log_mode) or "none" == redis_server.call("TYPE", NAMES.log_mode)


async def test_a_full_redis(pods):
    """A Redis that takes no writes is read all the same; the purge waits, and it is said once why."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.read()
        await two.read()
        server.call("CONFIG", "SET", "maxmemory", "1")

        assert await one.log.purge([A]) is None
        server.call("CONFIG", "SET", "maxmemory", "0")
        assert await two.log.purge([B]) is not None
        server.call("CONFIG", "SET", "maxmemory", "1")
        await one.read()
        assert [(A,), (B,)] == one.purged
        server.call("CONFIG", "SET", "maxmemory", "0")
        await one.read()
        await two.read()

        assert (A,) == two.purged[-1]


async def test_current(pods):
    """What Redis says is judged by what is known of purges only while that is recent, and read since its return."""
    with RedisServer() as server:
        one = pods(server)
        await one.read()
        assert one.log.current
        for hear in one.link.on_return:
            hear()
        assert not one.log.current
        await one.read()
        assert one.log.current


async def test_stop_writes_what_waits(pods):
    """A process that ends writes what waits, if Redis answers; if not, it ends all the same."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.log.start()
        server.pause()
        await one.log.purge([A])
        server.resume()
        await one.log.stop()

        assert [(A,)] == await two.read()

        await two.log.start()
        server.pause()
        await two.log.purge([B])
        await two.log.stop()

        assert {B} == set(two.purges.pending)


async def test_cancelled_purge(redis_server, pods):
    """A purge whose caller leaves holds here, and is written later."""
    one, two = pods(redis_server), pods(redis_server)
    await one.read()
    task = asyncio.create_task(one.log.purge([A]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [(A,)] == one.purged

    await one.read()

    assert (A,) in await two.read()


async def test_bug_of_a_listener(redis_server, pods):
    """A listener that raises ends nothing, and is told of."""
    one = pods(redis_server)
    one.log._on_purge = one.log._on_mode = lambda *_: 1 / 0
    await one.log.purge([A])

    assert await one.log.set_mode(Mode.CACHE_OFF, 2e9)
    assert {} == one.purges.pending
    assert "purge-log-fault" in one.told


async def test_mode(redis_server, pods, now):
    """The fleet's mode is known to all who read, told when it changes, taken back, and ends by itself."""
    one, two = pods(redis_server), pods(redis_server)

    assert await one.log.set_mode(Mode.CACHE_OFF, now[0] + 60.0)
    await two.read()
    await two.read()
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 90.0)
    await two.read()

    assert 89_000 < redis_server.call("PTTL", NAMES.log_mode) <= 90_000

    await two.log.set_mode(None)
    await one.read()

    assert [Mode.CACHE_OFF, Mode.PASSTHROUGH, None] == one.modes == two.modes
    assert [now[0] + 60.0, now[0] + 90.0, float("-inf")] == one.ends == two.ends
    assert redis_server.call("PTTL", NAMES.log_mode) > journal.LONGEST_MODE * 999

    late = pods(redis_server)
    await late.read()

    assert late.log.mode is None


async def test_ended_while_another_was_away(redis_server, pods, now):
    """A process that comes back to another server doesn't set again what was ended there meanwhile."""
    one, two = pods(redis_server), pods(redis_server)
    await one.read()
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 1800.0)
    await two.read()
    redis_server.call("HSET", NAMES.log_meta, "node", "f" * 40)
    await one.read()

    assert await one.log.set_mode(None)

    await two.read()
    await one.read()

    assert [None, None] == [one.log.mode, two.log.mode]


@pytest.mark.parametrize("command", ["hmget", "zrevrange", "get"])
async def test_no_right_to_read(redis_server, pods, now, command):
    """Who may not read what is there takes nothing of it away."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.purge([A])
    await one.log.set_mode(Mode.CACHE_OFF, now[0] + 60.0)
    redis_server.call("ACL", "SETUSER", "default", f"-{command}")
    try:
        await two.read()
    finally:
        redis_server.call("ACL", "SETUSER", "default", f"+{command}")

    assert 1 == two.log.counts["failures"]

    await two.read()

    assert Mode.CACHE_OFF is two.log.mode
    assert two.purges.position == one.purges.position


async def test_mode_ends_with_redis_away(pods, now):
    """A mode ends at its time, also where Redis went away before."""
    with RedisServer() as server:
        one = pods(server)
        await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)
        server.kill()
        await one.read()

        assert Mode.PASSTHROUGH is one.log.mode

        now[0] += 60.0

        assert one.log.mode is None
        await one.read()

    assert [Mode.PASSTHROUGH, None] == one.modes


async def test_mode_with_redis_away(pods, now):
    """It holds here at once, and in the fleet when Redis is back, whatever that says then; a later one replaces it."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await two.log.set_mode(Mode.PASSTHROUGH, now[0] + 600.0)
        await one.read()
        server.pause()
        told = [
            await one.log.set_mode(Mode.NORMAL, now[0] + 60.0),
            await one.log.set_mode(Mode.CACHE_OFF, now[0] + 90.0),
        ]
        here = one.log.mode
        server.resume()
        async with asyncio.timeout(20):
            while two.log.mode is not Mode.CACHE_OFF:
                await one.read()
                await two.read()
                await asyncio.sleep(0.01)

        assert [False, False] == told
        assert Mode.CACHE_OFF is here
        assert [Mode.PASSTHROUGH, Mode.NORMAL, Mode.CACHE_OFF] == one.modes
        assert Mode.PASSTHROUGH is two.modes[0]


async def test_mode_ended_before_redis_is_back(pods, now):
    """One whose time was over by then is told to nobody: others may have set another."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        up, one.link.evaluate = one.link.evaluate, away
        assert not await one.log.set_mode(Mode.CACHE_OFF, now[0] + 60.0)
        await two.log.set_mode(Mode.PASSTHROUGH, now[0] + 600.0)
        now[0] += 60.0
        one.link.evaluate = up
        await one.read()

        assert Mode.PASSTHROUGH is one.log.mode
        assert [Mode.CACHE_OFF, Mode.PASSTHROUGH] == one.modes


async def test_normal_with_redis_away(pods, now):
    """To have none any more waits just so; a process that ends tells it, if Redis answers."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 600.0)
        await one.log.start()
        up, one.link.evaluate = one.link.evaluate, away
        assert not await one.log.set_mode(None)
        assert one.log.mode is None
        one.link.evaluate = up
        await one.log.stop()
        await two.read()

        assert two.log.mode is None


async def test_mode_in_a_full_redis(pods, now):
    """A Redis that takes no writes is read all the same; the mode holds here and waits, and it is said once why."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.read()
        server.call("CONFIG", "SET", "maxmemory", "1")
        assert not await one.log.set_mode(Mode.CACHE_OFF, now[0] + 60.0)
        await one.read()

        assert (Mode.CACHE_OFF, ["purge-log-fault"]) == (one.log.mode, one.told)

        server.call("CONFIG", "SET", "maxmemory", "0")
        await one.read()
        await two.read()

        assert Mode.CACHE_OFF is two.log.mode


async def test_mode_survives_a_flush(redis_server, pods, now):
    """A mode that is lost with the log is set again, for the rest of its time, by whoever knows it."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)
    redis_server.call("FLUSHALL")
    now[0] += 20.0
    await one.read()
    await two.read()

    assert [Mode.PASSTHROUGH] == one.modes == two.modes
    assert 39_000 < redis_server.call("PTTL", NAMES.log_mode) <= 40_000


async def test_replayed_mode(redis_server, pods, now):
    """A mode that has been copied holds until its end and no longer, however long Redis keeps it."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)
    note = redis_server.call("GET", NAMES.log_mode)
    await one.log.set_mode(None)
    now[0] += 59.0
    redis_server.call("SET", NAMES.log_mode, note)
    await two.read()
    assert Mode.PASSTHROUGH is two.log.mode

    now[0] += 1.0
    await two.read()
    assert [Mode.PASSTHROUGH, None] == two.modes


async def test_longest_mode(redis_server, pods, now):
    """No mode is set for longer than may be, also where it is asked for; one that says so is none."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.set_mode(Mode.PASSTHROUGH, float("inf"))
    await two.read()
    assert Mode.PASSTHROUGH is two.log.mode

    now[0] += journal.LONGEST_MODE
    assert two.log.mode is None
    now[0] -= journal.LONGEST_MODE + journal.SKEW_SECONDS + 1.0
    await two.read()
    assert two.log.mode is None


async def test_another_namespace(redis_server, pods, now):
    """What is carried over from a namespace with the same secret is no mode here, and of purges one of everything."""
    one, two = pods(redis_server), pods(redis_server, namespace="team-b")
    await one.read()
    there = RedisNames("team-b")
    await two.log.purge([A])
    await two.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)
    (note,) = redis_server.call("ZRANGE", there.log_purges, 0, -1)
    redis_server.call("ZADD", NAMES.log_purges, 1, note)
    redis_server.call("HSET", NAMES.log_meta, "number", 1, "last", 1)
    redis_server.call("SET", NAMES.log_mode, redis_server.call("GET", there.log_mode))

    assert [(ALL,)] == await one.read()
    assert one.log.mode is None


NONSENSE = [b"", b"mode", b"mode normal 1e9", b"mode team-a: loud 1e9", b"mode team-a: normal soon", b"\xff"]


@pytest.mark.parametrize(
    "text", [*NONSENSE, b"purge team-a: mode 1e9", b"mode team-a: normal nan", b"mode team-a: \xff"]
)
async def test_mode_that_makes_no_sense(redis_server, pods, text):
    """What stands in the mode's place and is none is as if nothing did."""
    one = pods(redis_server)
    redis_server.call("SET", NAMES.log_mode, one.log._journal._notes.seal_note(text), "PX", 60_000)
    await one.read()

    assert one.log.mode is None
    assert 1 == one.log.counts["tails"]


async def test_nothing_is_told_and_everything_expires(redis_server, pods, now):
    """No name stands in Redis in clear; every key has a time to live, and it is renewed."""
    one = pods(redis_server)
    await one.read()

    assert {NAMES.log_meta} == set(redis_server.call("KEYS", "*"))
    assert redis_server.call("TTL", NAMES.log_meta) > 0

    await one.log.purge([A, Scope(ScopeKind.SERVICE, "contoso"), Scope(ScopeKind.ROUTE, "invoices")])
    await one.log.set_mode(Mode.PASSTHROUGH, now[0] + 60.0)

    assert set(KEYS) == set(redis_server.call("KEYS", "*"))

    for key in KEYS[:2]:
        redis_server.call("EXPIRE", key, 100)
    await one.read()

    assert [True] * 2 == [redis_server.call("TTL", key) > journal.LIFE_SECONDS - 100 for key in KEYS[:2]]

    stored = b"".join(redis_server.call("DUMP", key) for key in KEYS)
    held = redis_server.call("ZRANGE", NAMES.log_purges, 0, -1) + redis_server.call("HVALS", NAMES.log_meta)
    keys, words = one.log._journal._request(one.purges.position, {A: Due(1)})
    sent = b"".join([*keys, *[word for word in words if isinstance(word, bytes)]])
    for name in (b"tag-a", b"contoso", b"invoices", b"passthrough"):
        assert name not in stored + b"".join(held) + redis_server.call("GET", NAMES.log_mode) + sent


async def test_log_is_in_one_slot(redis_server):
    """All keys of a script have the same hash tag, as a Cluster demands."""

    assert {b"{log}"} == {key[key.index(b"{") : key.index(b"}") + 1] for key in KEYS}


async def test_too_long_a_name(redis_server, pods):
    """No name is longer than a note: such a purge is one of everything, and blocks nothing."""
    one, two = pods(redis_server), pods(redis_server)
    await two.read()

    assert await one.log.purge([Scope(ScopeKind.TAG, "x" * 5000), A])
    assert [(ALL,)] == await two.read()


async def test_repr(redis_server, pods):
    """The log tells its state."""
    one = pods(redis_server)
    await one.read()

    assert "pending>, mode unset, read 0.0 s ago>" in repr(one.log)
