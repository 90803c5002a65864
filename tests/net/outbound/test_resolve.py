"""Looking up names, against a name server on loopback."""

from __future__ import annotations

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager

import pytest

from sidecar.core.region.host_names import ABSENT_SECONDS, KEPT_SECONDS, LONGEST, SHORTEST
from sidecar.net.outbound import resolve
from sidecar.net.outbound.resolve import LOOKUPS, Resolver
from tests.name_server import SERVER_FAILED, A, name_server
from tests.net.outbound.clients import OK, Script, client, everything, serve, story

SOON = 0.05


class Lookups(Resolver):
    """A resolver on a clock that passes when told to."""

    def __init__(self, *nameservers):
        self.now = 100.0
        super().__init__(nameservers, clock=lambda: self.now)


@asynccontextmanager
async def looking():
    """A name server and a resolver that asks it."""
    async with name_server() as server:
        resolver = Lookups(server.at)
        try:
            yield server, resolver
        finally:
            await resolver.close()


@story
async def test_answers_are_kept_for_their_time():
    """A name is asked for once while its answer holds; concurrent callers share one question."""
    async with looking() as (server, resolver):
        server.zone["a.example"] = ["192.0.2.1"]
        server.ttl = 60
        first = await asyncio.gather(*[resolver.addresses("A.example") for _ in range(9)])
        resolver.now += 59
        await resolver.addresses("a.example")
        once = server.times("a.example")

        assert [("192.0.2.1",)] * 9 == first
        assert (1, 1) == (once, resolver.results["found"])


@story
async def test_answers_end():
    """After its time, and after five minutes whatever that is, a name is asked for again."""
    async with looking() as (server, resolver):
        server.ttl = 0
        seen = []
        for number in range(3):
            server.zone["a.example"] = [f"192.0.2.{number}"]
            seen += await resolver.addresses("a.example")
            resolver.now += SHORTEST

        assert ["192.0.2.0", "192.0.2.1", "192.0.2.2"] == seen


@story
async def test_both_families():
    """IPv6 and IPv4 addresses come together; connections are spread over those of each."""
    async with looking() as (server, resolver):
        server.zone["a.example"] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        found = [await resolver.addresses("a.example") for _ in range(3)]
        four = await resolver.resolve("a.example", 443, socket.AF_INET)

        assert [{"192.0.2.1", "192.0.2.2", "2001:db8::1"}] * 3 == [set(one) for one in found]
        fours = [[address for address in one if ":" not in address] for one in found]
        assert fours[0] == fours[2] == fours[1][::-1]
        assert {("a.example", 443, socket.AF_INET)} == {(one["hostname"], one["port"], one["family"]) for one in four}
        assert 2 == len(four)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
@story
async def test_addresses_are_not_looked_up(host):
    """An address is its own answer, and needs no name server."""
    async with looking() as (server, resolver):
        assert (host,) == await resolver.addresses(host)
        assert [] == server.asked
        assert None is resolver._ares


@story
async def test_the_hosts_file_counts():
    """What the hosts file says needs no name server."""
    async with looking() as (server, resolver):
        assert "127.0.0.1" in await resolver.addresses("localhost")
        assert [] == server.asked


@story
async def test_search_domains(monkeypatch):
    """Names with few dots are tried in the search domains first, as in a pod."""
    real = resolve.aiodns.DNSResolver
    pod = {"domains": ["team.svc.test", "svc.test"], "ndots": 5}  # as its resolv.conf says
    monkeypatch.setattr(resolve.aiodns, "DNSResolver", lambda *args, **more: real(*args, **more, **pod))
    async with looking() as (server, resolver):
        server.zone["redis.svc.test"] = ["192.0.2.1"]

        assert ("192.0.2.1",) == await resolver.addresses("redis")
        assert ["redis.team.svc.test", "redis.svc.test"] == list(dict.fromkeys(name for name, _ in server.asked))


@pytest.mark.parametrize("answer", [[], 3], ids=["no-address", "no-such-name"])
@story
async def test_absent_names(answer):
    """That a name has no address is kept briefly, and ends what was known of it."""
    async with looking() as (server, resolver):
        server.ttl = 0
        server.zone["a.example"] = ["192.0.2.1"]
        await resolver.addresses("a.example")
        server.zone["a.example"] = answer
        resolver.now += 2
        for _ in range(3):
            with pytest.raises(OSError, match="the name has no address"):
                await resolver.addresses("a.example")
        asked = server.times("a.example")
        server.zone["a.example"] = ["192.0.2.2"]
        resolver.now += ABSENT_SECONDS

        assert ("192.0.2.2",) == await resolver.addresses("a.example")
        assert 2 == asked
        assert {"found": 2, "absent": 1} == resolver.results


@pytest.mark.parametrize("answer", [None, SERVER_FAILED], ids=["silent", "failed"])
@story
async def test_the_last_answer_serves_while_lookups_fail(answer, monkeypatch):
    """A name server that is sick takes no name away that was known, and holds nobody up."""
    monkeypatch.setattr(resolve, "STALE_SECONDS", SOON)
    monkeypatch.setattr(resolve, "SERVER_SECONDS", 0.3)
    async with looking() as (server, resolver):
        server.ttl = 0
        server.zone["a.example"] = ["192.0.2.1"]
        await resolver.addresses("a.example")
        server.zone["a.example"] = answer
        resolver.now += LONGEST
        kept = [await resolver.addresses("a.example") for _ in range(3)]
        await asyncio.gather(*resolver._lookups.values())
        server.zone["a.example"] = ["192.0.2.2"]
        resolver.now += KEPT_SECONDS

        assert [("192.0.2.1",)] * 3 == kept
        assert ("192.0.2.2",) == await resolver.addresses("a.example")
        assert {"found": 2, "failed": 1} == resolver.results


@story
async def test_an_unknown_name_that_is_not_answered(monkeypatch):
    """Nobody waits for longer than was said, nor twice in a row; what is told names nothing of the servers."""
    monkeypatch.setattr(resolve, "LOOKUP_SECONDS", SOON)
    async with looking() as (server, resolver):
        server.zone["a.example"] = None
        for _ in range(3):
            with pytest.raises(OSError, match=r"^\[Errno -2\] the name servers gave no answer$"):
                await resolver.addresses("a.example")

        assert 1 == server.times("a.example")


@story
async def test_lookups_have_a_bound(monkeypatch):
    """Names made up by callers fill no memory; what is known is not touched by that."""
    monkeypatch.setattr(resolve, "LOOKUP_SECONDS", SOON)
    async with looking() as (server, resolver):
        server.zone["known.example"] = ["192.0.2.1"]
        await resolver.addresses("known.example")
        names = [f"{number}.example" for number in range(LOOKUPS + 2)]
        server.zone.update(dict.fromkeys(names))
        told = await asyncio.gather(*map(resolver.addresses, names), return_exceptions=True)
        resolver.now += LONGEST

        assert 2 == ["too many names are being looked up" in str(error) for error in told].count(True)
        assert LOOKUPS == len(resolver._lookups)
        assert ("192.0.2.1",) == await resolver.addresses("known.example")
        assert 3 == resolver.results["refused"]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "a\0b", "\xfc.example"])
@story
async def test_what_is_no_name(host):
    """Whatever stands in a URL, it is a name that cannot be had, and nothing breaks."""
    async with looking() as (_, resolver):
        with pytest.raises(OSError, match="name"):
            await resolver.addresses(host)

        assert {} == resolver._lookups


@story
async def test_closed_under_a_lookup():
    """Who waits for an answer when all is closed is told that none came."""
    async with looking() as (server, resolver):
        server.zone["a.example"] = None
        waiting = asyncio.get_running_loop().create_task(resolver.addresses("a.example"))
        await server.until(lambda: bool(server.asked))
        await resolver.close()
        with pytest.raises(OSError, match="gave no answer"):
            await waiting
        with pytest.raises(OSError, match="closed"):
            await resolver.addresses("b.example")

        assert "<Resolver <HostNames 1>, 0 being looked up>" == repr(resolver)


# --- connections and names ------------------------------------------------------------------------------------------


@story
async def test_eight_names_hang_and_the_others_do_not():
    """Calls to services whose names are not answered wait for themselves alone: new connections elsewhere are made."""
    async with name_server() as server, serve(Script(OK)) as base, client(nameservers=[server.at]) as it:
        port = base.rpartition(":")[2]
        hanging = [f"hangs-{number}.example" for number in range(8)]
        server.zone.update(dict.fromkeys(hanging))
        server.zone["well.example"] = server.zone["fine.example"] = ["127.0.0.1"]
        loop = asyncio.get_running_loop()
        stuck = [loop.create_task(it.call(f"http://{name}:{port}")) for name in hanging]
        await server.until(lambda: len({name for name, _ in server.asked}) == 8)
        others = [await it.call(f"http://{name}.example:{port}") for name in ("well", "fine")]

        assert [200, 200] == [status for status, _, _ in others]
        assert [False] * 8 == [task.done() for task in stuck]
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


async def ask(it, base, seconds):
    """A call each so many *seconds*, for long enough that no connection is as old as that; the addresses called."""
    called = []
    for _ in range(int(2 * 300 / seconds)):
        answer = await it.send(base)
        called.append(answer._call._wire.transport.get_extra_info("peername")[0])
        while await answer.read():
            pass
        it.now += seconds
    return called


@asynccontextmanager
async def two_addresses():
    """A service that listens on two addresses under one port."""
    script = Script(OK)
    async with serve(script) as base:
        port = int(base.rpartition(":")[2])
        tasks = set()

        async def connected(reader, writer):
            tasks.add(asyncio.current_task())
            await script(reader, writer)
            writer.close()

        other = await asyncio.start_server(connected, "127.0.0.2", port)
        try:
            yield f"http://a.example:{port}"
        finally:
            other.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@story
async def test_a_name_that_moves_is_followed():
    """A connection that never rests goes with its name all the same, at the latest after the maximum age."""
    async with name_server() as server, two_addresses() as base, client(nameservers=[server.at]) as it:
        server.ttl = 0
        server.zone["a.example"] = ["127.0.0.1"]
        before = await it.send(base)
        await before.read()
        server.zone["a.example"] = ["127.0.0.2"]
        called = await ask(it, base, 10.0)

        assert ["127.0.0.1"] * 30 + ["127.0.0.2"] * 30 == called
        assert {"first": 1, "aged": 1} == it.upstream.census.counts


@story
async def test_a_rotating_name_keeps_its_connections():
    """A name that answers with another part of its addresses each time hasn't moved: nothing is closed for that."""
    async with name_server() as server, two_addresses() as base, client(nameservers=[server.at]) as it:
        server.ttl = 0
        turns = itertools.cycle([["127.0.0.1"], ["127.0.0.2"]])
        server.zone["a.example"] = lambda kind: next(turns) if kind == A else []
        for number in range(1, 9):
            answers = await asyncio.gather(*[it.send(base) for _ in range(number)])
            await asyncio.gather(*map(everything, answers))
            it.now += 20

        assert {"first": 1, "busy": 7} == it.upstream.census.counts
        assert server.times("a.example") > 2


@story
async def test_an_address_that_left_is_drained():
    """Once a name's answers have been without an address for as long, no call goes there; one that runs goes on."""
    async with name_server() as server, two_addresses() as base, client(nameservers=[server.at]) as it:
        server.ttl = 0
        server.zone["a.example"] = ["127.0.0.1"]
        it.upstream._draw = it.upstream._pool._draw = lambda: 1.0
        running = await it.send(base)
        await it.call(base)
        server.zone["a.example"] = ["127.0.0.2"]
        it.now += 2
        also = await asyncio.gather(it.send(base), it.send(base))
        it.now += 300
        await asyncio.gather(*map(everything, [*also, running]))
        called = await asyncio.gather(*[it.send(base) for _ in range(3)])
        peers = {answer._call._wire.transport.get_extra_info("peername")[0] for answer in called}
        await asyncio.gather(*map(everything, called))

        assert {"127.0.0.2"} == peers
        assert {"first": 1, "busy": 2, "moved": 2} == it.upstream.census.counts


@story
async def test_other_name_servers_while_a_name_is_looked_up(monkeypatch):
    """New calls do not wait for the former ones, and what these say, or do not say, counts for nothing."""
    monkeypatch.setattr(resolve, "LOOKUP_SECONDS", SOON)
    async with looking() as (former, resolver), name_server() as server:
        former.zone["a.example"] = None
        server.zone["a.example"] = ["192.0.2.2"]
        asking = asyncio.create_task(resolver.addresses("a.example"))
        await former.until(lambda: former.asked)
        resolver.adopt([server.at])

        assert ("192.0.2.2",) == await resolver.addresses("a.example")

        with pytest.raises(OSError, match=resolve.SILENT):
            await asking

        assert ("192.0.2.2",) == await resolver.addresses("a.example")
