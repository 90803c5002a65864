"""Redis as it is run in earnest: a Cluster, Sentinels, TLS with a client's certificate and an ACL user."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from sidecar.admin.actions import ModeRequest, PurgeRequest, RegionRequest
from sidecar.admin.erasure import EraseRequest
from sidecar.core.model import Outcome
from sidecar.core.rules import (
    BreakerRule,
    CacheMode,
    CacheRule,
    MemoryRule,
    Mode,
    Region,
    Route,
    RouteLimits,
    Service,
)
from sidecar.dialects import DIALECTS
from tests.redis_servers import RedisCluster, RedisServer, Sentinels
from tests.scenarios.answers import completion, said, whole
from tests.scenarios.conftest import CHAT

ONE_ENTRY = MemoryRule(max_entries=1)
"""So little memory that what is asked in turn comes from Redis."""

ACL = (
    "~team-a:* resetchannels &team-a:* -@all +eval +evalsha +get +getrange +strlen +pttl +ttl +set +psetex +append "
    "+pexpire +expire +del +hmget +hset +zadd +zrem +zscore +zcard +zcount +zpopmin +zrevrange +zrangebyscore "
    "+zrevrangebyscore +zremrangebyscore +zremrangebyrank +time +publish +subscribe +ping +info +scan"
)
"""What a sidecar of namespace ``team-a`` needs; in a Cluster ``CLUSTER_ACL`` besides, ``+select`` where a URL names a
database other than 0."""

CLUSTER_ACL = "+cluster|slots +command +asking"

RARE = {"+ping", "+zpopmin"}
"""For a silent server, and a log of a thousand purges."""

STALE = CacheRule(mode=CacheMode.DETERMINISTIC, stale_while_revalidate=60.0)

LIMITED = (Route("cached", cache=STALE, limits=RouteLimits(requests_per_minute=60_000, tokens_per_minute=6_000_000)),)


def shared(url):
    """A service whose breaker the fleet shares."""
    region = Region("here", url)
    return (
        Service("openai", DIALECTS["openai"], (region,), path="/openai", breaker=BreakerRule(open=0.2, shared=True)),
    )


@pytest.fixture
async def box(script):
    """An upstream that tells which question it was asked, and has no answer to those below 0."""

    async def answer(_head, body, writer):
        number = json.loads(body)["seed"]
        good = number >= 0
        writer.write(whole(completion(f"Box {number}.")) if good else whole(b"{}", status="500 Broken"))

    return await script(answer)


async def ask(lab, number):
    """Ask question *number*, and have the answer to it."""
    reply = await lab.ask({**CHAT, "seed": number})

    assert (200, f"Box {number}.") == (reply.status, said(reply.body))
    return reply


@asynccontextmanager
async def load(labs, known):
    """The *known* questions and fresh ones, by every lab at once, while the block runs."""
    running, asked = True, 0

    async def press(lab):
        nonlocal asked
        while running:
            asked += 1
            await ask(lab, 1000 + asked // 2)
            for number in known:
                await ask(lab, number)

    pressing = asyncio.gather(*(press(lab) for lab in labs))
    yield lambda: asked
    running = False
    await pressing


async def used(labs):
    """Wait until all use Redis, and one finds there what another wrote."""
    await labs[0].until(lambda: all(lab.sidecar.fleet.link.up for lab in labs))
    async with asyncio.timeout(20):
        for number in range(10_000, 20_000):
            await ask(labs[0], number)
            await asyncio.sleep(0.02)
            await asyncio.gather(*(ask(lab, number) for lab in labs[1:]))
            if all(lab.records[-1].outcome is Outcome.HIT_REDIS for lab in labs[1:]):
                return


@pytest.fixture(scope="module")
def cluster():
    """A Cluster of six, for all stories here; each leaves it whole."""
    with RedisCluster() as servers:
        yield servers


def keys(cluster, end):
    """The names in the Cluster that end so."""
    return {key for server in cluster.servers[:3] for key in server.call("KEYS", f"*{end}")}


async def test_one_slot(build_fleet, script, cluster):
    """An entry and its lease are in one slot; all that waits for it is answered by one call."""
    go = asyncio.Event()

    async def answer(_head, _body, writer):
        await go.wait()
        writer.write(whole(completion("Box 1.")))

    upstream = await script(answer)
    labs = await build_fleet(upstream.url, 3, redis={"url": cluster.url})
    asking = [asyncio.ensure_future(ask(lab, 1)) for lab in labs for _ in range(10)]
    await labs[0].until(lambda: keys(cluster, ":l") and sum(lab.waiting for lab in labs) == 30)
    (lease,) = keys(cluster, ":l")
    go.set()
    await asyncio.gather(*asking)
    await labs[0].until(lambda: keys(cluster, ":e") and not keys(cluster, ":l"))
    (entry,) = keys(cluster, ":e")
    slots = [cluster.servers[0].call("CLUSTER", "KEYSLOT", key) for key in (lease, entry)]

    assert 1 == upstream.calls
    assert slots[0] == slots[1]
    assert lease[:-1] == entry[:-1]


def move(cluster, slot, source, target):
    """The steps of moving *slot* with its keys, one at a time."""
    yield target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.identity(source))
    yield source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.identity(target))
    while names := source.call("CLUSTER", "GETKEYSINSLOT", slot, 10):
        yield source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
    for server in (target, source, *cluster.servers[:3]):
        yield server.call("CLUSTER", "SETSLOT", slot, "NODE", cluster.identity(target))


async def test_a_slot_that_moves(build_fleet, box, cluster):
    """Slots move to another server with their keys, and back, while those are in use: no call notices."""
    known = range(5)
    cluster.servers[0].call("PING")
    for server in cluster.servers[:3]:
        server.call("FLUSHALL")
    labs = await build_fleet(box.url, redis={"url": cluster.url}, memory=ONE_ENTRY)
    for number in known:
        await ask(labs[0], number)
    await labs[0].until(lambda: len(keys(cluster, ":e")) == len(known))
    places = {}
    for key in keys(cluster, ":e"):
        owner = cluster.owner(key)
        places[cluster.servers[0].call("CLUSTER", "KEYSLOT", key)] = owner
    async with load(labs, known) as asked:
        for slot, source in places.items():
            target = next(server for server in cluster.servers[:3] if server is not source)
            for way in ((source, target), (target, source)):
                for _ in move(cluster, slot, *way):
                    before = asked()
                    await labs[0].until(lambda before=before: asked() >= before + 4)
        before = [len(lab.records) for lab in labs]
        await labs[0].until(lambda: all(len(lab.records) > was + 20 for lab, was in zip(labs, before, strict=True)))

    assert [0, 0] == [lab.sidecar.fleet.link.breaker.openings for lab in labs]
    for lab, was in zip(labs, before, strict=True):
        assert Outcome.HIT_REDIS in {record.outcome for record in lab.records[was:]}
    assert {"reply"} >= {kind for lab in labs for kind in lab.sidecar.fleet.link.errors}


async def test_a_failover(build_fleet, box):
    """The primary dies under load; the Sentinels name another; no call is lost, and the new one is used."""
    with Sentinels() as sentinels:
        labs = await build_fleet(box.url, redis={"url": sentinels.url}, memory=ONE_ENTRY)
        await used(labs)
        async with load(labs, range(3)) as asked:
            sentinels.primary.kill()
            await labs[0].until(lambda: not any(lab.sidecar.fleet.link.up for lab in labs))
            await labs[0].until(lambda: all(lab.sidecar.fleet.link.up for lab in labs))
            await used(labs)
            before = asked()
            await labs[0].until(lambda: asked() > before + 10)

        assert any(server.call("ROLE")[0] == b"master" for server in sentinels.replicas)
        assert {200} == {record.status for lab in labs for record in lab.records}


def entitle(server, password, rights=ACL):
    server.call("ACL", "SETUSER", "sidecar", "reset", "on", f">{password}", *rights.split())


async def various(labs, server):
    """All that is done with Redis: misses, hits, waits, refreshes, purges, a change of mode, orders, failures."""
    one, two = labs
    for number in range(5):
        await ask(one, number)
    await one.until(lambda: len(server.call("KEYS", "*:e")) == 5)
    for number in range(5):
        await ask(two, number)
    await asyncio.gather(*(ask(lab, 50) for lab in labs for _ in range(5)))
    await two.ask({**CHAT, "seed": 0}, headers={"cache-control": "no-cache"})
    for scope in ("tag", "route", "all"):
        result = await one.sidecar.operations.purge(PurgeRequest(scope, "cached", b"", dry_run=False, fleet=True))

        assert "done" == result.fleet
    receipt = await one.sidecar.erasures.erase(EraseRequest(PurgeRequest("all", "", b"", False, True), 30.0))

    assert (True, 2, 0) == (receipt.complete, len(receipt.pods), len(server.call("KEYS", "*:e")))
    for mode in (Mode.CACHE_OFF, Mode.NORMAL):
        changed = await one.sidecar.operations.change(ModeRequest(mode, None, fleet=True))

        assert "done" == changed.fleet
        await two.until(lambda mode=mode: two.sidecar.operations.mode is mode)
    for action, state in (("stop", "open"), ("auto", "closed")):
        ordered = await one.sidecar.operations.region(RegionRequest("openai", "here", action, None, fleet=True))

        assert "done" == ordered.fleet
        await two.until(lambda state=state: {state} == {each.state for each in two.sidecar.operations.table()})
    for _ in range(5):
        await one.ask({**CHAT, "seed": -1})
    await two.until(lambda: two.sidecar.fleet.regions.counts["learned"])
    await one.until(lambda: not one.sidecar.operations.table()[0].seconds)
    await ask(one, 100)

    assert 1 == one.sidecar.fleet.regions.counts["claims"]
    await two.until(lambda: {"closed"} == {each.state for each in two.sidecar.operations.table()})


async def test_tls_and_an_acl_user(build_fleet, box, tmp_path):
    """A client's certificate, and a user with the rights that are documented, suffice for everything."""
    (tmp_path / "user").write_text("sidecar\n")
    (tmp_path / "password").write_text("word-1\n")
    with RedisServer(tls=True) as server:
        entitle(server, "word-1")
        redis = {
            "url": server.url,
            "ca_file": server.ca_file,
            "cert_file": server.cert_file,
            "key_file": server.key_file,
            "username_file": str(tmp_path / "user"),
            "password_file": str(tmp_path / "password"),
            "warm": 100,
        }
        labs = await build_fleet(box.url, redis=redis, routes=LIMITED, services=shared(box.url))
        await various(labs, server)
        await used(labs)
        (warm,) = await build_fleet(box.url, 1, redis=redis, cache=STALE)

        await warm.until(lambda: warm.sidecar.memory.entries > 0)
        assert [] == server.call("ACL", "LOG")
        assert [0, 0] == [lab.sidecar.fleet.link.breaker.openings for lab in labs]
        assert [{}, {}] == [lab.sidecar.fleet.link.errors for lab in labs]


async def test_no_right_is_superfluous(build_fleet, box):
    """Of the documented rights all but the rare ones are used by an ordinary day's work."""
    with RedisServer() as server:
        redis = {"url": server.url, "warm": 100}
        server.call("CONFIG", "RESETSTAT")
        labs = await build_fleet(box.url, redis=redis, routes=LIMITED, services=shared(box.url))
        await various(labs, server)
        await used(labs)
        await build_fleet(box.url, 1, redis=redis, cache=STALE)
        told = server.call("INFO", "commandstats").decode().splitlines()[1:]

    done = {f"+{line.partition(':')[0].removeprefix('cmdstat_')}" for line in told}
    granted = {right for right in ACL.split() if right.startswith("+")}

    assert set() == granted - RARE - done


async def test_an_acl_user_without_the_time(build_fleet, box, tmp_path):
    """A right that came later is missing: one line says so, rates are shared out, and all else goes on over Redis."""
    (tmp_path / "user").write_text("sidecar")
    (tmp_path / "password").write_text("word-3")
    with RedisServer() as server:
        entitle(server, "word-3", ACL.replace("+time ", ""))
        files = {"username_file": str(tmp_path / "user"), "password_file": str(tmp_path / "password")}
        redis = {"url": server.url, **files}
        labs = await build_fleet(box.url, redis=redis, routes=LIMITED, services=shared(box.url), memory=ONE_ENTRY)
        await used(labs)
        for number in range(10):
            await asyncio.gather(*(ask(lab, number) for lab in labs))
        told = await labs[0].sidecar.operations.region(RegionRequest("openai", "here", "stop", None, fleet=True))
        assert ("local", "Redis forbids TIME to this user; grant +time") == (told.fleet, told.why)
        await labs[0].sidecar.operations.region(RegionRequest("openai", "here", "auto", None, fleet=True))
        for lab in labs:
            faults = [json.loads(line) for line in lab.logs if b'"regions-fault"' in line]

            assert ["Redis forbids TIME to this user; grant +time"] == [line["fault"] for line in faults]
            assert (True, 0) == (lab.sidecar.fleet.link.up, lab.sidecar.fleet.link.breaker.openings)
            assert {} == lab.sidecar.fleet.link.errors
            assert (0, None) == (lab.sidecar.fleet.quota.asked, lab.sidecar.fleet.presence.count)
            assert {200} == {record.status for record in lab.records}
        answer = await labs[0].ask({**CHAT, "seed": 10})

        assert (200, "here") == (answer.status, answer.headers["x-sidecar-region"])


async def test_an_acl_user_in_a_cluster(build_fleet, box, cluster, tmp_path):
    """A Cluster's client needs a few rights more, also where a slot moves."""
    (tmp_path / "user").write_text("sidecar")
    (tmp_path / "password").write_text("word-2")
    for server in cluster.servers:
        entitle(server, "word-2", f"{ACL} {CLUSTER_ACL}")
        server.call("ACL", "LOG", "RESET")
    files = {"username_file": str(tmp_path / "user"), "password_file": str(tmp_path / "password")}
    redis = {"url": cluster.url, **files}
    labs = await build_fleet(box.url, redis=redis, memory=ONE_ENTRY, routes=LIMITED, services=shared(box.url))
    await used(labs)
    key = min(keys(cluster, ":e"))
    slot, source = cluster.servers[0].call("CLUSTER", "KEYSLOT", key), cluster.owner(key)
    target = next(server for server in cluster.servers[:3] if server is not source)
    async with load(labs, range(10_000, 10_003)) as asked:
        for way in ((source, target), (target, source)):
            for _ in move(cluster, slot, *way):
                before = asked()
                await labs[0].until(lambda before=before: asked() >= before + 4)

    assert [[]] * 6 == [server.call("ACL", "LOG") for server in cluster.servers]
    assert [0, 0] == [lab.sidecar.fleet.link.breaker.openings for lab in labs]


async def test_a_wrong_password(build_fleet, box, tmp_path):
    """One line says what is wrong; calls are answered; when the file is mended, Redis is used by itself."""
    password = tmp_path / "password"
    password.write_text("hunter-1\n")
    with RedisServer(password="hunter-2") as server:
        labs = await build_fleet(box.url, redis={"url": server.url, "password_file": str(password)})
        for number in range(10):
            await asyncio.gather(*(ask(lab, number) for lab in labs))

        for lab in labs:
            (line,) = [json.loads(line) for line in lab.logs if b"redis-" in line]
            assert ("redis-away", "error", "refused") == (line["event"], line["level"], line["reason"])
            assert str(password) == line["password_file"]
            assert not any(b"hunter" in line for line in lab.logs)
        assert [] == server.call("KEYS", "*")
        await asyncio.gather(*(ask(lab, 0) for lab in labs))
        assert {Outcome.HIT_MEMORY} == {lab.records[-1].outcome for lab in labs}
        password.write_text("hunter-2\n")
        await used(labs)

        assert [1, 1] == [sum(b"redis-back" in line for line in lab.logs) for lab in labs]
