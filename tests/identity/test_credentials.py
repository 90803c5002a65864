"""The credentials that regions supply, from real files and real identity endpoints."""

import asyncio
import json
import ssl
import time

import pytest

from sidecar.core.rules import AzureIdentity, StoredCredential
from sidecar.identity.client import TokenClient
from sidecar.identity.credentials import Credentials, CredentialStanding
from sidecar.net.outbound.resolve import Resolver

MANAGED = AzureIdentity("managed")
LONG = 60.0
"""Seconds that no test waits."""


def token(text, seconds="3600"):
    return json.dumps({"access_token": text, "expires_in": seconds, "expires_on": "0", "token_type": "Bearer"})


class World:
    """Credentials of an *endpoint*, on a clock that passes when told to. Whoever sleeps makes it pass."""

    def __init__(self, endpoint, **environ):
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        self.reports = []
        self.tasks = []
        self.credentials = Credentials(
            clock=lambda: self.now,
            now=lambda: self.wall,
            environ={"AZURE_POD_IDENTITY_AUTHORITY_HOST": endpoint.url, **environ},
            spawn=self.spawn,
            fetch=TokenClient(
                proxy_for=lambda _: ("", ""), trust=ssl.create_default_context, resolver=Resolver(clock=time.monotonic)
            ),
            report=self.reports.append,
            draw=lambda: 0.0,
            sleep=self.sleep,
        )

    def spawn(self, work, *, name):
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)

    async def finish(self):
        """What is under way in the background."""
        await asyncio.gather(*self.tasks)

    async def ask(self, credential=MANAGED):
        """As dispatch does: at once, or else wait."""
        return self.credentials.field(credential) or await self.credentials.obtain(credential, seconds=LONG)


@pytest.fixture
async def world(endpoint):
    world = World(endpoint)
    yield world
    await world.credentials.close()


async def test_managed(world, endpoint, say):
    """A token is asked for as documented, and sent as a bearer's."""
    endpoint.answers = [say(token("one"))]

    assert (b"authorization", b"Bearer one") == await world.ask()
    assert (b"authorization", b"Bearer one") == world.credentials.field(MANAGED)
    assert (
        "GET /metadata/identity/oauth2/token?api-version=2018-02-01"
        "&resource=https%3A%2F%2Fcognitiveservices.azure.com HTTP/1.1"
    ) == endpoint.requests[0][0].splitlines()[0]
    assert "Metadata: true" in endpoint.requests[0][0].splitlines()


async def test_workload(endpoint, say, tmp_path):
    """A service account's token is exchanged, and read anew for the next exchange."""
    path = tmp_path / "token"
    path.write_text("assertion-1\n")
    environ = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": str(path)}
    world = World(endpoint, AZURE_AUTHORITY_HOST=endpoint.url, **environ)
    identity = AzureIdentity("workload")
    endpoint.answers = [say(token("one", 3599)), say(token("two", 3599))]

    assert b"Bearer one" == (await world.ask(identity))[1]

    path.write_text("assertion-2\n")
    world.now += 3300

    assert b"Bearer one" == world.credentials.field(identity)[1]

    await world.finish()

    assert b"Bearer two" == world.credentials.field(identity)[1]
    assert [b"assertion-1", b"assertion-2"] == [body.rpartition(b"=")[2] for _, body in endpoint.requests]
    assert "POST /t/oauth2/v2.0/token HTTP/1.1" == endpoint.requests[0][0].splitlines()[0]


async def test_hundred_first_users(world, endpoint, say):
    """A hundred calls need the first token at once: one request."""
    endpoint.answers = [say(token("one"))]

    assert {(b"authorization", b"Bearer one")} == set(await asyncio.gather(*(world.ask() for _ in range(100))))
    assert 1 == len(endpoint.requests)


async def test_first_user_leaves(world, endpoint, say):
    """The first call is cancelled while the endpoint thinks: the others get the token."""
    endpoint.answers = [say(token("one"))]
    endpoint.gate.clear()
    calls = [asyncio.create_task(world.ask()) for _ in range(3)]
    await endpoint.asked.wait()
    calls[0].cancel()
    endpoint.gate.set()

    assert [b"Bearer one"] * 2 == [value for _, value in await asyncio.gather(*calls[1:])]
    assert 1 == len(endpoint.requests)


async def test_bad_times(world, endpoint, say):
    """An endpoint that is updated, broken, throttled, gone and confused, one after another: the call gets its token."""
    endpoint.answers = [
        say("", 410),
        say("", 500),
        say("", 429, "Retry-After: 3\r\n"),
        say("", 404),
        b"",
        say("<html>secret</html>"),
        say(token("one")),
    ]

    assert (b"authorization", b"Bearer one") == await world.ask()
    assert 7 == len(endpoint.requests)
    assert [f"managed identity of the system: {endpoint.url[7:]} answered 410"] == world.reports


async def test_not_assigned(world, endpoint, say):
    """An identity that the machine does not have is told in words, once, and nobody waits for it."""
    endpoint.answers = [say(json.dumps({"error": "invalid_request", "error_description": "Identity not found"}), 400)]

    assert [None, None] == [await world.ask() for _ in range(2)]
    assert [f"managed identity of the system: {endpoint.url[7:]} answered 400 invalid_request"] == world.reports
    assert 1 == len(endpoint.requests)


async def test_under_load(world, endpoint, say):
    """
    Through an hour and its end, with an endpoint that fails whenever it is asked but once: no call goes without a
    token, and none with one that has expired.
    """
    endpoint.answers = [say(token("one")), *[say("", 500)] * 5, say(token("two", 3600)), say("", 410)]
    sent = []
    for _ in range(4400 // 10):
        field = await world.ask()
        await world.finish()
        sent.append((world.now - 1000, field[1]))
        world.now += 10

    assert {b"Bearer one", b"Bearer two"} == {value for _, value in sent}
    assert max(at for at, value in sent if value == b"Bearer one") < 3600
    assert 3300 <= min(at for at, value in sent if value == b"Bearer two")
    assert 1 == len(world.reports)


async def test_wall_clock_jumps(world, endpoint, say):
    """A wall clock that jumps neither kills a token nor keeps one alive."""
    endpoint.answers = [say(token("one"))]
    await world.ask()
    for jump in (1e9, -1e9, -1e9):
        world.wall += jump

        assert b"Bearer one" == world.credentials.field(MANAGED)[1]

    world.now += 3600

    assert world.credentials.field(MANAGED) is None


async def test_refused_token(world, endpoint, say):
    """After a 401 another token is asked for, once for all calls; the next calls have it at once."""
    endpoint.answers = [say(token("one")), say(token("two"))]
    await world.ask()
    renewed = await asyncio.gather(*(world.credentials.renew(MANAGED, b"Bearer one", seconds=LONG) for _ in range(20)))

    assert {(b"authorization", b"Bearer two")} == set(renewed)
    assert b"Bearer two" == world.credentials.field(MANAGED)[1]
    assert 2 == len(endpoint.requests)


async def test_refused_token_stays(world, endpoint, say):
    """The endpoint has no other: none, so that the 401 goes to the caller, and the token serves on."""
    endpoint.answers = [say(token("one"))]
    await world.ask()

    assert [None, None] == [await world.credentials.renew(MANAGED, b"Bearer one", seconds=LONG) for _ in range(2)]
    assert b"Bearer one" == world.credentials.field(MANAGED)[1]
    assert 2 == len(endpoint.requests)


async def test_refused_while_the_endpoint_is_broken(world, endpoint, say):
    """A 401 and an endpoint in trouble: the renewal outlasts the trouble."""
    endpoint.answers = [say(token("one")), say("", 410), say("", 500), say(token("two"))]
    await world.ask()

    assert b"Bearer two" == (await world.credentials.renew(MANAGED, b"Bearer one", seconds=LONG))[1]


async def test_file(world, tmp_path):
    """A file has its text at once, and another after a 401 as soon as it is swapped."""
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(f"{version}\n")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "key").symlink_to("..data/key")
    credential = StoredCredential("api-key", str(tmp_path / "key"))

    assert (b"api-key", b"one") == world.credentials.field(credential)
    assert (b"api-key", b"one") == await world.credentials.obtain(credential, seconds=LONG)
    assert await world.credentials.renew(credential, b"one", seconds=LONG) is None

    (tmp_path / "..data").unlink()

    assert await world.credentials.renew(credential, b"one", seconds=LONG) is None
    assert (b"api-key", b"one") == world.credentials.field(credential)

    (tmp_path / "..data").symlink_to("two")

    assert (b"api-key", b"one") == world.credentials.field(credential)
    assert (b"api-key", b"two") == await world.credentials.renew(credential, b"one", seconds=LONG)
    assert (b"api-key", b"two") == world.credentials.field(credential)
    assert [] == world.tasks


async def test_unreadable_file(world, tmp_path):
    """A file that was never there is told once, and nobody waits for it."""
    credential = StoredCredential("api-key", str(tmp_path / "key"))
    for _ in range(3):
        assert await world.ask(credential) is None

        world.now += 2

    assert [f"{tmp_path / 'key'}: No such file or directory"] == world.reports


async def test_identities_apart(world, endpoint, say):
    """Each identity and each scope has a token of its own."""
    endpoint.answers = [say(token(text)) for text in ("one", "two", "three")]
    identities = [MANAGED, AzureIdentity("managed", client_id="c"), AzureIdentity("managed", scope="api://x/.default")]

    assert [b"Bearer one", b"Bearer two", b"Bearer three"] == [(await world.ask(each))[1] for each in identities]


async def test_standing(world, endpoint, say, tmp_path):
    """How it is with each credential, without a word of it."""
    endpoint.answers = [say(token("one-secret", 600)), say("secret", 500)]
    key = tmp_path / "key"
    key.write_text("key-secret")
    credential = StoredCredential("api-key", str(key))
    await world.ask()
    await world.ask(credential)
    key.unlink()
    world.now += 310
    world.credentials.field(MANAGED)
    world.credentials.field(credential)
    await world.finish()

    assert [
        CredentialStanding(str(key), True, None, "No such file or directory"),
        CredentialStanding("managed identity of the system", True, 290.0, f"{endpoint.url[7:]} answered 500"),
    ] == world.credentials.standing()
    assert "secret" not in repr((world.credentials, vars(world.credentials), world.credentials.standing()))
    assert "secret" not in repr(world.reports)


async def test_fault(world, endpoint, say, tmp_path):
    """Why no call can be sent with a credential: not where an old one serves, or where nobody has asked yet."""
    endpoint.answers = [say("secret", 400), say(token("one"))]
    key = tmp_path / "key"
    credential = StoredCredential("api-key", str(key))
    before = [world.credentials.fault(each) for each in (credential, MANAGED)]
    await world.ask()
    refused = world.credentials.fault(MANAGED)
    key.write_text("key-secret")
    world.now += 60.0
    await world.ask()
    after = [world.credentials.fault(each) for each in (credential, MANAGED)]
    key.unlink()
    world.now += 60.0

    assert ["No such file or directory", ""] == before
    assert f"{endpoint.url[7:]} answered 400" == refused
    assert ["", ""] == after
    assert "" == world.credentials.fault(credential)


async def test_standing_looks(world, tmp_path):
    """A file that is put right is seen without a call."""
    key = tmp_path / "key"
    world.credentials.field(StoredCredential("api-key", str(key)))
    key.write_text("key-secret")
    world.now += 60.0

    assert [CredentialStanding(str(key), True)] == world.credentials.standing()


async def test_closed(world, endpoint, say):
    """At the end nothing is asked for any more, and who waits is not left waiting."""
    endpoint.answers = [say(token("one"))]
    endpoint.gate.clear()
    call = asyncio.create_task(world.ask())
    await endpoint.asked.wait()
    await world.credentials.close()

    assert await call is None
    assert world.credentials.field(MANAGED) is None
