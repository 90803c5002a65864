"""Which answers have served calls with a tag, in a real Redis: noted, moved to the log by a purge, or too late."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.cache.purges import Due, Scope, ScopeKind
from sidecar.core.model import Entry, Form, Key, Position
from sidecar.errors import FleetAway
from sidecar.fleet import tagged
from tests.fleet.logs import secrets

A, B = Scope(ScopeKind.TAG, "a"), Scope(ScopeKind.TAG, "b")
NOWHERE = Position()


def key(number: int) -> Key:
    return Key(number.to_bytes(16, "big"), number.to_bytes(32, "big"))


def scope(number: int) -> Scope:
    return Scope(ScopeKind.KEY, key(number).address.hex())


def entry(position: Position = NOWHERE, *, route: str = "chat", at: float = 1e9, ttl: float = 60.0) -> Entry:
    return Entry(200, (), b"", Form.WHOLE, "openai", route, "", at=at, ttl=ttl, position=position)


def sets(server) -> list[bytes]:
    return server.call("KEYS", "*{log}:t:*")


async def test_moved_by_a_purge(redis_server, pods):
    """A purge takes what was noted with its tag, by whomever, here and there, and nothing else; the note is gone."""
    one, two, three = (pods(redis_server) for _ in range(3))
    for pod in (one, two, three):
        await pod.read()
    position = one.purges.position
    one.log.note(key(1), entry(position), ("a", "b"))
    two.log.note(key(2), entry(position), ("a",))
    two.log.note(key(3), entry(position), ("b",))
    for pod in (one, two):
        await pod.log._turn()
    before = sets(redis_server)
    await three.log.purge([A])

    assert 2 == len(before)
    assert before != sets(redis_server)
    assert 1 == len(sets(redis_server))
    assert {A, scope(1), scope(2)} == {each for scopes in three.purged for each in scopes}
    for pod in (one, two):
        assert {A, scope(1), scope(2)} == {each for scopes in await pod.read() for each in scopes}
    for pod in (one, two, three):
        assert [False, False, True] == [pod.admits(scope(number), position) for number in (1, 2, 3)]
        assert pod.admits(scope(1), pod.purges.position)


async def test_purge_that_stands_there(redis_server, pods):
    """A purge that need not be written again moves nothing."""
    one, two = pods(redis_server), pods(redis_server)
    await one.log.purge([A])
    await two.read()
    two.log.note(key(1), entry(two.purges.position), ("a",))
    await two.log._turn()
    one.purges._await_log(A, Due(one.purges.seq, 0))
    await one.log._exchange()

    assert 1 == len(sets(redis_server))
    assert two.admits(scope(1), two.purges.position)


@pytest.mark.parametrize("known", [True, False], ids=["of this log", "of another log"])
async def test_too_late(known, redis_server, pods):
    """A note of an answer that is older than the purge of its tag is no note: its key is purged at once, everywhere."""
    one, two = pods(redis_server), pods(redis_server)
    await one.read()
    old = one.purges.position if known else Position(b"x" * 16, 7)
    await two.log.purge([A])
    one.log.note(key(1), entry(old), ("a", "b"))
    await one.log._turn()

    assert 1 == len(sets(redis_server))
    assert {A, scope(1)} == {each for scopes in one.purged for each in scopes}
    assert [(scope(1),)] == await two.read()
    assert not two.purges.pending


async def test_in_time(redis_server, pods):
    """A note of an answer that was asked for after the purge of its tag is one."""
    one = pods(redis_server)
    await one.log.purge([A])
    one.log.note(key(1), entry(one.purges.position), ("a",))
    await one.log._turn()

    assert 1 == len(sets(redis_server))
    assert [(A,)] == one.purged


async def test_more_than_are_separating(redis_server, pods, monkeypatch):
    """Beyond that the routes of answers are noted: a purge takes more then, never less."""
    monkeypatch.setattr(tagged, "MOST_KEYS", 3)
    one = pods(redis_server)
    await one.read()
    position = one.purges.position
    for number in range(6):
        one.log.note(key(number), entry(position, route=f"route-{number % 2}"), ("a",))
    await one.log._turn()
    one.log.note(key(0), entry(position, route="known"), ("a",))
    await one.log._turn()
    (name,) = sets(redis_server)

    assert 5 == redis_server.call("ZCARD", name)

    await one.log.purge([A])
    taken = {each for scopes in one.purged for each in scopes}

    assert {A, scope(0), scope(1), scope(2), *(Scope(ScopeKind.ROUTE, f"route-{n}") for n in range(2))} == taken


async def test_many(redis_server, pods):
    """However many notes there are, and of however many tags, all are written."""
    one = pods(redis_server)
    await one.read()
    position = one.purges.position
    for number in range(2 * tagged.MOST_AT_ONCE + 1):
        one.log.note(key(number), entry(position), ("a", f"tag-{number % 7}"))
    while len(one.log._tagged):  # each turn ends after a while
        await one.log._turn()
    (most,) = [name for name in sets(redis_server) if redis_server.call("ZCARD", name) > 100]

    assert (8, tagged.MOST_KEYS + 1) == (len(sets(redis_server)), redis_server.call("ZCARD", most))


async def test_expires(redis_server, pods):
    """A note lasts as long as its answer may serve, and the set as long as its last note."""
    one = pods(redis_server)
    await one.read()
    position = one.purges.position
    one.log.note(key(1), entry(position, ttl=100.0), ("a",))
    await one.log._turn()
    one.log.note(key(2), entry(position, ttl=0.01), ("a",))
    await one.log._turn()
    (name,) = sets(redis_server)
    lives = [redis_server.call("PTTL", name)]
    async with asyncio.timeout(5):
        while redis_server.call("ZCARD", name) > 2 or len(lives) < 3:
            one.log.note(key(3), entry(position, ttl=50.0), ("a",))
            await one.log._turn()
            lives.append(redis_server.call("PTTL", name))

    assert all(90_000 < life <= 100_000 for life in lives)


async def test_over(redis_server, pods):
    """A purge does not take what can serve nobody any more, by whatever secret it was noted."""
    one = pods(redis_server)
    await one.read()
    position = one.purges.position
    one.log.note(key(1), entry(position), ("a",))
    one.log.note(key(2), entry(position, ttl=50.0), ("a",))
    await one.log._turn()
    (name,) = sets(redis_server)
    for note in (redis_server.call("ZRANGE", name, 0, 0)[0], "by a secret that has been removed"):
        redis_server.call("ZADD", name, 1000, note)
    await one.log.purge([A])

    assert {A, scope(1)} == {each for scopes in one.purged for each in scopes}
    assert [] == sets(redis_server)


async def test_set_back(redis_server, pods, now):
    """Where the wall clock has been set back since the answer was made a note lasts no longer."""
    one = pods(redis_server)
    await one.read()
    made = entry(one.purges.position, at=now[0])
    now[0] -= 1e5
    one.log.note(key(1), made, ("a",))
    await one.log._turn()

    assert redis_server.call("PTTL", sets(redis_server)[0]) <= 60_000


@pytest.mark.parametrize("value", [("SET", "x"), ("SADD", "x")])
async def test_foreign(value, redis_server, pods):
    """What is of another type under a set's name gives way to a note, and is nothing to a purge."""
    one = pods(redis_server)
    await one.read()
    one.log.note(key(1), entry(one.purges.position), ("a",))
    await one.log._turn()
    (name,) = sets(redis_server)
    redis_server.call("DEL", name)
    command, word = value
    redis_server.call(command, name, word)
    await one.log.purge([A])

    assert [(A,)] == one.purged
    assert not one.purges.pending

    redis_server.call("DEL", name)
    redis_server.call(command, name, word)
    one.log.note(key(1), entry(one.purges.position), ("a",))
    await one.log._turn()

    assert b"zset" == redis_server.call("TYPE", name)


async def test_unreadable(redis_server, pods):
    """What somebody else put there is a purge of everything, as in the log."""
    one = pods(redis_server)
    await one.read()
    one.log.note(key(1), entry(one.purges.position), ("a",))
    await one.log._turn()
    redis_server.call("ZADD", sets(redis_server)[0], 1e15, "junk")
    await one.log.purge([A])

    assert {ScopeKind.ALL, ScopeKind.TAG, ScopeKind.KEY} == {each.kind for scopes in one.purged for each in scopes}
    assert 1 == one.log.counts["unreadable"]


@pytest.mark.parametrize(
    ("writer", "purger"), [((1,), (2, 1)), ((1, 2), (2, 1)), ((2, 1), (1, 2))], ids=["old", "both", "already new"]
)
async def test_another_secret(writer, purger, redis_server, pods):
    """While the secret is being replaced, a purge finds what was noted by either, and a late note finds the purge."""
    one, two = pods(redis_server, secrets(*writer)), pods(redis_server, secrets(*purger))
    await one.read()
    old = one.purges.position
    one.log.note(key(1), entry(old), ("a",))
    await one.log._turn()
    await two.log.purge([A])
    two.log.note(key(2), entry(old), ("a",))
    await two.log._turn()

    assert {A, scope(1), scope(2)} == {each for scopes in two.purged for each in scopes}


async def test_redis_away(redis_server, pods):
    """Notes wait for its return; what there is no room for is refused, all of it or nothing."""
    one = pods(redis_server)
    await one.read()
    evaluate = one.link.evaluate

    async def away(*_):
        raise FleetAway("open")

    one.link.evaluate = away
    for number in range(tagged.MOST_WAITING - 1):
        assert one.log.note(key(number), entry(), ("a",))
    full = [
        one.log.note(key(1), entry(), ("a", "b", "c")),
        one.log.note(key(1), entry(), ("a", "b")),
        one.log.note(key(1), entry(), ("a", "b")),
        one.log.note(key(2), entry(), ("b",)),
    ]
    await one.log._turn()

    assert [False, True, True, False] == full
    assert tagged.MOST_WAITING == len(one.log._tagged)

    one.link.evaluate = evaluate
    while len(one.log._tagged):
        await one.log._turn()

    assert 2 == len(sets(redis_server))


async def test_noted_again_while_it_is_written(redis_server, pods):
    """What is noted anew while it is written is written again."""
    one = pods(redis_server)
    await one.read()
    evaluate, position = one.link.evaluate, one.purges.position

    async def slow(*words):
        answer = await evaluate(*words)
        if len(one.log._tagged):
            one.log.note(key(1), entry(position, ttl=500.0), ("a",))
            one.link.evaluate = evaluate
        return answer

    one.log.note(key(1), entry(position), ("a",))
    one.link.evaluate = slow
    await one.log._tagged.write()

    assert redis_server.call("PTTL", sets(redis_server)[0]) > 400_000


async def test_nothing_is_told(redis_server, pods):
    """Neither a set's name nor what is in it says anything of tags, keys or routes."""
    one = pods(redis_server)
    await one.read()
    one.log.note(key(0x616263), entry(one.purges.position, route="invoices"), ("contoso",))
    await one.log._turn()
    (name,) = sets(redis_server)
    told = name + redis_server.call("DUMP", name)

    for word in (b"contoso", b"invoices", b"abc", b"616263"):
        assert word not in told


async def test_to_be_noted_again(redis_server, pods):
    """Where the log is another one, or after a while, Redis may have lost what was noted."""
    one = pods(redis_server)
    await one.read()
    log = one.log
    told = [log.forgot]
    redis_server.call("FLUSHALL")
    await one.read()
    told.append(log.forgot)
    log.forgot = False
    told.append(log.forgot)
    log._clock = lambda: log._noted_at + tagged.AGAIN_SECONDS + 1.0
    told.append(log.forgot)

    assert [False, True, False, True] == told


def test_repr():
    """The notes that wait are told, and nothing of them."""
    waiting = tagged.Tagged(None, None, None, now=lambda: 0.0, clock=lambda: 0.0)
    waiting.note(key(1), entry(), ("a",))

    assert "<Tagged 1 notes waiting>" == repr(waiting)
