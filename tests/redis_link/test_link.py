"""The way to the fleet's Redis: its deadline, its breaker, and what it makes of errors."""

import asyncio
import builtins
import itertools
import random
import time

import pytest
from redis._parsers.base import BaseParser
from redis.exceptions import ClusterDownError, RedisClusterException, TimeoutError  # noqa: A004  the client's own

from sidecar.core.rules import RedisRule
from sidecar.errors import FleetAway
from sidecar.redis_link.fault import judge
from sidecar.redis_link.link import RedisLink, Script, TimeBudget
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer, Sentinels, eventually, free_port

PLENTY = 30.0


class Links:
    """Makes links, and remembers what they tell."""

    def __init__(self):
        self.tasks = set()
        self.links = []
        self.told = []
        self.timed = []

    def spawn(self, work, *, name):
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def tell(self, name, /, *, level, **fields):
        self.told.append((name, level, fields))

    def __call__(self, url, *, clock=time.monotonic, **rule):
        link = RedisLink(
            RedisRule(url, **rule),
            clock=clock,
            draw=random.Random(20).random,
            lookup=as_it_is,
            spawn=self.spawn,
            tell=self.tell,
            on_command=lambda op, seconds: self.timed.append((op, seconds)),
        )
        link.returned = asyncio.Event()
        link.on_return.append(link.returned.set)
        self.links.append(link)
        return link

    @property
    def events(self):
        return [name for name, _, _ in self.told]


@pytest.fixture
async def links():
    """Makes links, and closes them at the end, when none of their tasks may be left."""
    links = Links()
    yield links
    for link in links.links:
        await link.close()
    for _ in range(5):
        await asyncio.sleep(0)

    assert set() == links.tasks


async def ping(link, seconds=PLENTY):
    return await link.run(lambda client: client.ping(), TimeBudget(seconds))


async def back(link):
    """Wait until *link* uses Redis again, by itself."""
    async with asyncio.timeout(PLENTY):
        await link.returned.wait()


async def away(link, work, seconds=PLENTY):
    """Why *link* doesn't answer."""
    with pytest.raises(FleetAway) as caught:
        await link.run(work, TimeBudget(seconds))
    return caught.value.reason


def hold(event):
    """Work that takes until *event*."""

    async def work(client):
        await event.wait()

    return work


async def test_an_answer(links, redis_server):
    """What the work makes of the client is what the caller gets."""
    link = links(redis_server.url)

    assert await ping(link)
    assert link.up
    assert {"ok": 1} == link.commands


async def test_the_time_used_is_taken_off_the_budget(links, redis_server):
    """All commands of a call share one."""
    link = links(redis_server.url, clock=itertools.count().__next__)
    budget = TimeBudget(100.0)
    await link.run(lambda client: client.ping(), budget, op="look-up")

    assert 97.0 == budget.left
    assert [("look-up", 1)] == links.timed


@pytest.mark.parametrize("left", [0.0, -1.0])
async def test_without_time_nothing_is_sent(links, redis_server, left):
    """And nobody is to blame."""
    link = links(redis_server.url)

    assert ["timeout"] * 5 == [await away(link, lambda client: client.ping(), left) for _ in range(5)]
    assert link.up
    assert {} == link.errors


async def test_waiting_for_a_connection_counts(links, redis_server):
    """It ends with the budget, and Redis isn't to blame."""
    link = links(redis_server.url, max_connections=1)
    done = asyncio.Event()
    holding = asyncio.create_task(link.run(hold(done), TimeBudget(PLENTY)))
    await asyncio.sleep(0)

    assert ["busy"] * 5 == [await away(link, lambda client: client.ping(), 0.001) for _ in range(5)]
    assert (5, 5, True) == (link.waits, link.ran_out, link.up)
    assert {} == link.errors
    done.set()
    await holding
    assert await ping(link)


async def test_five_hundred_reads_share_eight_connections(links, redis_server):
    """All are answered, each with its own."""
    link = links(redis_server.url, max_connections=8)
    values = [b"%d" % index for index in range(500)]
    for value in values:
        redis_server.call("SET", b"key" + value, value)
    reads = (link.run(lambda client, key=b"key" + value: client.get(key), TimeBudget(PLENTY)) for value in values)

    assert values == await asyncio.gather(*reads)
    assert (0, 0) == (link.breaker.openings, link.ran_out)
    assert {} == link.errors
    assert link.waits >= 492


async def test_a_caller_who_leaves_is_no_failure(links, redis_server):
    """However many leave."""
    link = links(redis_server.url)
    for _ in range(20):
        task = asyncio.create_task(link.run(hold(asyncio.Event()), TimeBudget(PLENTY)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert link.up
    assert await ping(link)


async def test_a_frozen_redis(links, redis_server):
    """Three calls pay for it, the rest don't ask, and when it thaws it is used by itself, without traffic."""
    link = links(redis_server.url)
    await ping(link)
    redis_server.pause()

    assert ["timeout"] * 3 == [await away(link, lambda client: client.ping(), 0.01) for _ in range(3)]
    assert ["open"] * 3 == [await away(link, lambda client: client.ping()) for _ in range(3)]
    assert not link.up
    assert ["redis-away"] == links.events
    redis_server.resume()
    await back(link)
    assert await ping(link)
    assert ["redis-away", "redis-back"] == links.events
    assert {"ok": 2, "timeout": 3, "open": 3} == link.commands
    assert 1 == link.breaker.openings


async def test_a_port_where_nobody_listens(links):
    """It is told once, with the reason."""
    link = links(f"redis://127.0.0.1:{free_port()}")

    assert ["error", "error", "error", "open"] == [await away(link, lambda client: client.ping()) for _ in range(4)]
    [(event, level, fields)] = links.told
    assert ("redis-away", "warning", "error") == (event, level, fields["reason"])
    assert "Connect call failed" in fields["detail"]


async def test_a_new_redis_in_place_of_the_old_one(links):
    """It is found by itself."""
    with RedisServer() as server:
        link = links(server.url)
        await ping(link)
        server.kill()
        for _ in range(3):
            await away(link, lambda client: client.ping())
        server.start()
        await back(link)

        assert await ping(link)


async def test_a_wrong_password(links, tmp_path):
    """One clear line, without the password; where the file is put right, Redis is used by itself."""
    path = tmp_path / "password"
    path.write_text("wrong-one\n")
    user = tmp_path / "user"
    user.write_text("pod\n")
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "pod", "on", ">right-one", "~*", "+@all")
        link = links(server.url, password_file=str(path), username_file=str(user))

        assert ["refused", "open"] == [await away(link, lambda client: client.ping()) for _ in range(2)]
        path.write_text("right-one\n")
        await back(link)
        assert await ping(link)
        assert ["redis-away", "redis-back"] == links.events
        _, level, fields = links.told[0]
        assert ("error", str(user), str(path)) == (level, fields["user"], fields["password_file"])
        assert not any("-one" in str(value) for value in fields.values())


async def test_no_password_where_one_is_wanted(links):
    """A refusal as well."""
    with RedisServer(password="secret") as server:
        link = links(server.url)

        assert "refused" == await away(link, lambda client: client.ping())
        assert "none" == links.told[0][2]["password_file"]


async def test_a_user_without_rights(links, redis_server):
    """A probe may do what a command may not: the log doesn't say that all is well before a command was answered."""
    redis_server.call("ACL", "SETUSER", "default", "-get")
    try:
        link = links(redis_server.url)
        reasons = [await away(link, lambda client: client.get(b"key"))]
        for _ in range(2):
            await back(link)
            link.returned.clear()
            reasons.append(await away(link, lambda client: client.get(b"key")))

        assert ["refused"] * 3 == reasons
        assert ["redis-away"] == links.events
    finally:
        redis_server.call("ACL", "SETUSER", "default", "+get")
    await back(link)
    await ping(link)

    assert ["redis-away", "redis-back"] == links.events


async def test_want_of_memory_leaves_reads_alone(links, redis_server):
    """Writes fail, and the breaker stays closed."""
    link = links(redis_server.url)
    redis_server.call("SET", "key", "value")
    redis_server.call("CONFIG", "SET", "maxmemory", "1")
    try:
        reasons = [await away(link, lambda client: client.set(b"other", b"value", px=1000)) for _ in range(5)]

        assert ["error"] * 5 == reasons
        assert {"memory": 5} == link.errors
        assert b"value" == await link.run(lambda client: client.get(b"key"), TimeBudget(PLENTY))
        assert link.up
    finally:
        redis_server.call("CONFIG", "SET", "maxmemory", "0")


async def test_a_server_that_became_a_replica(links):
    """It is left alone, and used again when it is the primary."""
    with RedisServer() as server:
        link = links(server.url)
        await ping(link)
        server.call("REPLICAOF", "127.0.0.1", free_port())
        for _ in range(3):
            await away(link, lambda client: client.set(b"key", b"value", px=1000))

        assert not link.up
        assert {"readonly": 3} == link.errors
        server.call("REPLICAOF", "NO", "ONE")
        await back(link)
        assert await link.run(lambda client: client.set(b"key", b"value", px=1000), TimeBudget(PLENTY))


async def test_a_url_that_leads_to_a_replica(links):
    """It answers probes and reads: the log says once that it is away, and back when what failed is done."""
    with RedisServer() as server:
        server.call("REPLICAOF", "127.0.0.1", free_port())
        link = links(server.url)

        async def write():
            return await link.run(lambda client: client.set(b"key", b"value", px=1000), TimeBudget(PLENTY), op="write")

        for _ in range(2):
            for _ in range(3):
                with pytest.raises(FleetAway):
                    await write()
            await back(link)
            link.returned.clear()
            await link.run(lambda client: client.get(b"key"), TimeBudget(PLENTY), op="read")

        assert (["redis-away"], 2) == (links.events, link.breaker.openings)

        server.call("REPLICAOF", "NO", "ONE")
        await write()

        assert ["redis-away", "redis-back"] == links.events


async def test_what_the_work_itself_gets_wrong(links, redis_server):
    """The caller goes on all the same; the metrics show it."""
    link = links(redis_server.url)

    async def work(client):
        raise KeyError("secret")

    with pytest.raises(FleetAway, match=r"\Aerror: KeyError\Z"):
        await link.run(work, TimeBudget(PLENTY))

    assert {"other": 1} == link.errors
    assert link.up


async def test_a_script_is_sent_once(links, redis_server):
    """Then it is called by its digest, until a server doesn't know it any more."""
    link = links(redis_server.url)
    script = Script("return {KEYS[1], ARGV[1]}", name="pair")
    redis_server.call("CONFIG", "RESETSTAT")
    redis_server.call("SCRIPT", "FLUSH")

    assert [[b"key", b"1"]] * 3 == [await link.evaluate(script, [b"key"], [1], TimeBudget(PLENTY)) for _ in range(3)]
    redis_server.call("SCRIPT", "FLUSH")
    assert [b"key", b"\xff"] == await link.evaluate(script, [b"key"], [b"\xff"], TimeBudget(PLENTY))
    stats = redis_server.call("INFO", "commandstats")
    assert b"cmdstat_eval:calls=2," in stats
    assert b"cmdstat_evalsha:calls=4," in stats
    assert ["pair"] * 4 == [op for op, _ in links.timed]


async def test_a_subscriber_is_bound_by_no_deadline(links, redis_server):
    """And has a connection of its own, so that it takes none from the calls."""
    link = links(redis_server.url, max_connections=1)
    client = link.subscriber()
    async with client.pubsub() as channel:
        await channel.subscribe(b"news")
        redis_server.call("PUBLISH", "news", b"\xff")
        heard = [await channel.get_message(timeout=PLENTY) for _ in range(2)]

        assert [1, b"\xff"] == [message["data"] for message in heard]
        assert await ping(link)
    await client.aclose()


@pytest.mark.parametrize("probing", [pytest.param(False, id="up"), pytest.param(True, id="away")])
async def test_closing(links, redis_server, probing):
    """Nothing of it goes on."""
    link = links(redis_server.url)
    await ping(link)
    if probing:
        redis_server.pause()
        for _ in range(3):
            await away(link, lambda client: client.ping(), 0.001)
    await link.close()
    redis_server.resume()
    await asyncio.sleep(0)

    assert "open" == await away(link, lambda client: client.ping())
    eventually(lambda: redis_server.call("CLIENT", "LIST").count(b"\n") == 1, "all connections are closed")


async def test_a_failover_under_load(links):
    """Every call is answered or told that Redis is away, and the new primary is used by itself."""
    with Sentinels() as fleet:
        link = links(fleet.url)
        await ping(link)
        answered, over = asyncio.Event(), asyncio.Event()
        results = []

        async def load():
            while not over.is_set():
                try:
                    results.append(
                        await link.run(lambda client: client.set(b"key", b"value", px=60_000), TimeBudget(0.05))
                    )
                    answered.set()
                except FleetAway as error:
                    results.append(error.reason)
                await asyncio.sleep(0.002)

        callers = [asyncio.create_task(load()) for _ in range(4)]
        await answered.wait()
        await asyncio.to_thread(fleet.primary.kill)
        await back(link)
        over.set()
        await asyncio.gather(*callers)
        await link.run(lambda client: client.set(b"after", b"it", px=60_000), TimeBudget(PLENTY))

        assert {True} < set(results) <= {True, "open", "timeout", "error", "busy"}
        assert b"it" in {server.call("GET", "after") for server in fleet.replicas}


RAISED = "Error running script (call to f_bd6f): @user_script:1: @user_script: 1: "
NO_RIGHT = "The user executing the script can't run this command or subcommand"


@pytest.mark.parametrize(
    ("error", "reason", "kind", "sick"),
    [
        ("WRONGPASS invalid username-password pair", "refused", "refused", True),
        ("NOAUTH Authentication required.", "refused", "refused", True),
        ("NOPERM this user has no permissions", "refused", "refused", True),
        ("LOADING Redis is loading the dataset in memory", "error", "loading", True),
        ("READONLY You can't write against a read only replica.", "error", "readonly", True),
        ("CLUSTERDOWN The cluster is down", "error", "cluster", True),
        ("MASTERDOWN Link with MASTER is down", "error", "cluster", True),
        ("ERR max number of clients reached", "error", "connect", True),
        ("BUSY Redis is busy running a script.", "error", "script", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", "error", "memory", False),
        ("ERR @user_script: 1: -OOM command not allowed", "error", "memory", False),
        (f"ERR {RAISED}-READONLY You can't write", "error", "readonly", True),
        ("MISCONF Redis is configured to save RDB snapshots", "error", "reply", False),
        ("WRONGTYPE Operation against a key", "error", "reply", False),
        (TimeoutError("socket"), "timeout", "timeout", True),
        (builtins.TimeoutError(), "timeout", "timeout", True),
        (ConnectionResetError("reset"), "error", "connect", True),
        (RedisClusterException("nobody"), "error", "cluster", True),
        (ClusterDownError("down"), "error", "cluster", True),
        (AttributeError("name"), "error", "other", False),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else type(value).__name__,
)
def test_what_errors_mean(error, reason, kind, sick):
    """Redis is sick where it can serve nobody now; an error of one command is an answer."""
    fault = judge(BaseParser.parse_error(error) if isinstance(error, str) else error)

    assert (reason, kind, sick) == (fault.reason, fault.kind, fault.sick)


def test_a_refusal_that_the_cluster_wraps_is_one():
    """Else it would be tried like an outage, and the log would say so."""
    error = RedisClusterException("cannot be connected")
    error.__cause__ = BaseParser.parse_error("WRONGPASS invalid")

    assert "refused" == judge(error).reason


@pytest.mark.parametrize(
    "text",
    [
        f"ERR @user_script: 1: {NO_RIGHT}",
        f"ERR {RAISED}{NO_RIGHT}",
        f"ERR {NO_RIGHT} script: bd6f, on @user_script:1.",
    ],
    ids=["6 returned", "6 raised", "7"],
)
def test_no_right_within_a_script(text):
    """Redis names no code for it, and puts different words before it."""
    fault = judge(BaseParser.parse_error(text))

    assert ("reply", "NOPERM", False) == (fault.kind, fault.detail, fault.sick)


def test_details_quote_no_arguments():
    """Redis quotes what it doesn't understand."""
    error = BaseParser.parse_error("ERR unknown command 'GOT', with args beginning with: 'secret'")

    assert "secret" not in judge(error).detail
