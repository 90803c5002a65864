"""Tokens of Azure's as logins to Redis, on a clock that passes when told to."""

import asyncio
import base64
import json

import pytest

from sidecar.identity.access_tokens import Denial, GrantedToken, Tokens
from sidecar.identity.redis_logins import RedisLogins, object_id

OID = "0a1b2c3d-0000-4444-8888-0123456789ab"


def jwt(claims, *, head=b"{}", end=".c2ln"):
    parts = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (head, claims))
    return (".".join(parts) + end).encode()


def token(**claims):
    return jwt(json.dumps(claims).encode())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (token(oid=OID, sub="other", appid="client"), OID),
        (token(oid="a"), "a"),
        (token(oid=OID, pad="x"), OID),
        (token(oid=OID, pad="xy"), OID),
        (token(sub=OID), ""),
        (token(oid=None), ""),
        (token(oid=7), ""),
        (token(oid=""), ""),
        (token(oid="a b"), ""),
        (token(oid="a\r\nFLUSHALL"), ""),
        (token(oid="a" * 65), ""),
        (jwt(b"[1]"), ""),
        (jwt(b"\xff"), ""),
        (jwt(b"[" * 100_000), ""),
        (jwt(b"{}", end=""), ""),
        (b"opaque", ""),
        (b"", ""),
        (b"a.b.c", ""),
        (b"...", ""),
    ],
)
def test_object_id(text, found):
    """The claim `oid` of a JWT, if it has the form of an id; nothing else is taken for it."""
    assert found == object_id(text)


class World:
    """Tokens, each for an hour, and the logins that they make for *user*."""

    def __init__(self, user=""):
        self.now = 1000.0
        self.answers = []
        self.asked = 0
        self.reports = []
        self.tokens = Tokens(
            self.ask,
            clock=lambda: self.now,
            draw=lambda: 0.0,
            spawn=lambda work, name: asyncio.create_task(work, name=name),
            report=self.reports.append,
        )
        self.logins = RedisLogins(self.tokens, user, clock=lambda: self.now, report=self.reports.append)

    async def ask(self):
        self.asked += 1
        answer = self.answers.pop(0)
        return answer if isinstance(answer, Denial) else GrantedToken(answer, 3600.0)

    async def settle(self):
        for _ in range(8):
            await asyncio.sleep(0)


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.tokens.close()


async def test_first(world):
    """Asking once starts a request; the login that it brings names the token's object id and its end."""
    world.answers = [text := token(oid=OID)]

    assert world.logins.current() is None

    login = await world.logins.newer(None)

    assert (OID, text.decode(), 4600.0) == (login.user, login.password, login.until)
    assert login is world.logins.current()
    assert (3600.0, "") == (world.logins.left(login), world.logins.fault)
    assert 1 == world.asked
    world.now = 5000.0
    assert 0.0 == world.logins.left(login)


async def test_a_user_of_the_configuration():
    """It takes the place of the object id, also where a token names none."""
    world = World("cache-user")
    world.answers = [b"opaque"]

    assert "cache-user" == (await world.logins.newer(None)).user
    assert [] == world.reports


async def test_no_object_id(world):
    """A token that names nobody makes no login; that is said once for each token, and not in its words."""
    world.answers = [b"opaque"]
    assert world.logins.current() is None
    await world.settle()

    assert [None, None] == [world.logins.current() for _ in range(2)]
    assert ["the token names no object id (oid); set username in cache.redis.credential"] == world.reports
    assert world.reports == [world.logins.fault]


async def test_newer(world):
    """Who waits for a newer login gets it when the token was due, and not before."""
    world.answers = [token(oid=OID), token(oid=OID, n=2)]
    first = await world.logins.newer(None)
    waiting = asyncio.create_task(world.logins.newer(first))
    await world.settle()
    assert not waiting.done()
    world.now += 3300.0
    world.logins.current()
    second = await waiting

    assert (first.user, 7900.0) == (second.user, second.until)
    assert first.password != second.password
    assert 2 == world.asked


async def test_the_next_is_denied(world):
    """The login in hand is used to its end; then there is none, and the reason is known all the while."""
    world.answers = [token(oid=OID), Denial("answered 400"), Denial("answered 400")]
    first = await world.logins.newer(None)
    world.now += 3300.0
    assert first is world.logins.current()
    await world.settle()

    assert (first, "answered 400") == (world.logins.current(), world.logins.fault)
    world.now += 300.0
    assert world.logins.current() is None
    assert "answered 400" == world.logins.fault


async def test_refused(world):
    """A refused login is asked for anew, at most every 30 s; one that is no longer in use is not."""
    world.answers = [token(oid=OID, n=n) for n in range(3)]
    first = await world.logins.newer(None)
    for _ in range(3):
        world.logins.refused(first)
        await world.settle()
    second = world.logins.current()

    assert 2 == world.asked
    assert first is not second
    world.logins.refused(second)
    await world.settle()
    assert 2 == world.asked
    world.now += 30.0
    world.logins.refused(second)
    await world.settle()
    assert 3 == world.asked


async def test_nothing_shows_a_token(world):
    """Neither a login nor who makes it says more than its user."""
    world.answers = [text := token(oid=OID)]
    login = await world.logins.newer(None)

    assert f"<Login of {OID} until 4600.0>" == repr(login)
    assert text.decode() not in repr(world.logins) + repr(world.tokens) + str(login)
