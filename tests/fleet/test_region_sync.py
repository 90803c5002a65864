"""What the fleet says of regions, in a real Redis: orders, openings and probes, whatever becomes of the server."""

from __future__ import annotations

import asyncio
import itertools
import time
from base64 import b64encode

import pytest

from sidecar.core.key.keyring import parse
from sidecar.core.region.breaker import State
from sidecar.core.region.regions import Order, Place
from sidecar.core.rules import RedisRule, SealRule
from sidecar.errors import FleetAway
from sidecar.fleet import region_board as board
from sidecar.fleet.region_sync import FleetRegions
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import RedisNames
from sidecar.store.seal import Seal
from tests.fleet.lookups import as_it_is
from tests.redis_servers import RedisServer

WEST, EAST = Place("openai", "", "west"), Place("openai", "", "east")
NAMES = RedisNames("team-a")
ORDERS, BREAKERS = b"team-a:{regions}:orders", b"team-a:{regions}:breakers"
FRESH = itertools.count(1)


def secrets(*numbers: int) -> bytes:
    return b"\n".join(b"s%d:%b" % (number, b64encode(bytes([number]) * 32)) for number in numbers)


class Pod:
    """A process of the fleet: what it was told of regions."""

    def __init__(self, url: str, *, namespace: str, shared, secret: bytes, now: list[float], clock: list[float]):
        self.tasks: set[asyncio.Task[None]] = set()
        self.orders: list[dict[tuple[str, str], Order]] = []
        self.learned: list[tuple[Place, float | None]] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.heard = asyncio.Event()
        self.secret = secret
        rule = RedisRule(url, namespace=namespace, timeout=5.0)
        self.link = RedisLink(
            rule, clock=time.monotonic, draw=lambda: 0.5, lookup=as_it_is, spawn=self.spawn, tell=self.tell
        )
        self.regions = FleetRegions(
            self.link,
            RedisNames(namespace),
            Seal(lambda: parse(self.secret), SealRule(), random=bytes, limit=1024),
            shared=shared,
            timeout=5.0,
            now=lambda: now[0],
            clock=lambda: clock[0],
            draw=lambda: 0.5,
            random=lambda size: next(FRESH).to_bytes(size, "big"),
            spawn=self.spawn,
            on_orders=self.on_orders,
            on_learn=self.on_learn,
            tell=self.tell,
        )
        self.regions.region_board._clock = time.monotonic  # it runs on, as Redis' own does

    def spawn(self, coroutine, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def tell(self, name, /, *, level, **fields):
        self.told.append((name, fields))

    def on_orders(self, orders):
        self.orders.append(orders)
        self.heard.set()

    def on_learn(self, place, seconds):
        self.learned.append((place, None if seconds is None else round(seconds)))
        self.heard.set()

    async def read(self) -> list[tuple[Place, float | None]]:
        """Write what is pending and read once; what was learnt by it."""
        before = len(self.learned)
        await self.regions._exchange()
        return self.learned[before:]

    def note(self, change: board.Change, written: float) -> bytes:
        """The note that would have been written of *change* at *written*, Redis' seconds."""
        return self.regions.region_board._words(change, round(written * 1000), [])[-1]

    @property
    def states(self):
        """The fleet's orders, as this process knows them."""
        return {place: order.state for place, order in self.regions.orders.items()}

    @property
    def faults(self):
        return [fields["fault"] for name, fields in self.told if name == "regions-fault"]

    async def close(self):
        await self.regions.stop()
        await self.link.close()

        assert set() == self.tasks


@pytest.fixture
def now() -> list[float]:
    """The wall clock of all pods; a test may turn it. Redis has its own."""
    return [1e9]


@pytest.fixture
def clock() -> list[float]:
    """The seconds that run on."""
    return [100.0]


@pytest.fixture
async def pods(now, clock):
    """Makes pods, and closes them."""
    made: list[Pod] = []

    def make(server: RedisServer, secret: bytes = secrets(1), shared=("openai",), namespace="team-a") -> Pod:
        made.append(Pod(server.url, namespace=namespace, shared=shared, secret=secret, now=now, clock=clock))
        return made[-1]

    yield make
    for pod in made:
        await pod.close()


# ---- orders ----


async def test_order_is_seen_by_all(redis_server, pods, now):
    """An order is known here at once, and to all who read, by the seconds that are left of it; so is its withdrawal."""
    one, two = pods(redis_server), pods(redis_server, shared=())
    await two.read()

    assert "" == await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 60.0))
    await two.read()
    assert 1 == len(one.orders)
    assert {("openai", "west"): State.OPEN} == one.states == two.states
    for pod in (one, two):
        assert pytest.approx(now[0] + 60.0, abs=2.0) == pod.regions.orders["openai", "west"].until

    assert "" == await two.regions.order("openai", "west", None)
    await one.read()
    assert {} == one.states == two.states
    assert [2, 2] == [len(one.orders), len(two.orders)]


async def test_orders_do_not_disturb(redis_server, pods, now):
    """Reading the same orders again tells nothing, though two clocks never quite agree."""
    one = pods(redis_server)
    await one.regions.order("openai", "west", Order(State.CLOSED, now[0] + 60.0))
    await one.read()
    now[0] += 0.5
    await one.read()

    assert 1 == len(one.orders)


async def test_last_order_holds(redis_server, pods, now):
    """An order takes the place of the one before, also where that would have lasted longer or was another's."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 3600.0))
    await two.regions.order("openai", "west", Order(State.CLOSED, now[0] + 60.0))
    await one.read()

    assert {("openai", "west"): State.CLOSED} == one.states == two.states
    assert 2 == redis_server.call("ZCARD", ORDERS)  # the mark is one

    await one.regions.order("openai", "west", Order(State.CLOSED, now[0] + 30.0))
    await two.read()
    assert pytest.approx(now[0] + 30.0, abs=2.0) == two.regions.orders["openai", "west"].until


async def test_order_ends(redis_server, pods, now):
    """It ends by Redis' clock for who reads, and by this process's own where Redis went away; one without end, too."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, float("inf")))
    await two.read()
    assert pytest.approx(now[0] + board.LONGEST_ORDER, abs=2.0) == two.regions.orders["openai", "west"].until

    now[0] += board.LONGEST_ORDER
    two.link._closed = True
    await two.read()

    assert {} == two.states
    assert {} == two.orders[-1]

    (note,) = redis_server.call("ZRANGEBYSCORE", ORDERS, 0, 10**15)
    redis_server.call("ZADD", ORDERS, 1, note)
    await one.read()
    assert {} == one.states


async def test_order_with_redis_away(pods, now):
    """It is nobody's, and the caller is told so; the orders that were known hold."""
    with RedisServer() as server:
        one = pods(server)
        await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 60.0))
        server.kill()

        with pytest.raises(FleetAway):
            await one.regions.order("openai", "east", Order(State.OPEN, now[0] + 60.0))
        assert {("openai", "west"): State.OPEN} == one.states


@pytest.mark.parametrize("loss", [("FLUSHALL",), ("DEL", ORDERS)], ids=["flushall", "evicted"])
async def test_orders_are_given_again(redis_server, pods, now, loss):
    """Orders that are lost with Redis' data are given again by who knows them, for the rest of their time, and told."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 60.0))
    await two.read()
    redis_server.call(*loss)
    now[0] += 20.0
    await one.read()
    await two.read()

    assert {("openai", "west"): State.OPEN} == one.states == two.states
    assert [1, 1] == [len(one.orders), len(two.orders)]
    assert ("region-orders-lost", {"orders": 1, "remedy": "given again"}) in one.told
    assert [] == two.told
    late = pods(redis_server)
    await late.read()
    assert pytest.approx(now[0] + 40.0, abs=2.0) == late.regions.orders["openai", "west"].until


async def test_a_newer_order_is_not_taken_back(redis_server, pods, now):
    """Where all was lost, what has been ordered since goes before what is remembered; what was taken back stays so."""
    one, two = pods(redis_server), pods(redis_server)
    for region in ("west", "east"):
        await one.regions.order("openai", region, Order(State.OPEN, now[0] + 60.0))
    await two.read()
    redis_server.call("FLUSHALL")
    await one.regions.order("openai", "west", Order(State.CLOSED, now[0] + 60.0))
    await one.regions.order("openai", "east", None)
    await two.read()

    assert {("openai", "west"): State.CLOSED} == one.states == two.states


@pytest.mark.parametrize(("word", "state"), [("open", State.OPEN), ("close", State.CLOSED)])
async def test_an_older_pods_order(redis_server, pods, now, word, state):
    """In Redis an order has the words that the last version writes and reads, whatever people call it."""
    one = pods(redis_server)
    west = board.Ordered("openai", "west")
    await one.regions.region_board.exchange([board.Change(west, word, 60.0)])
    await one.read()
    learnt = dict(one.states)
    await one.regions.order("openai", "west", Order(state, now[0] + 30.0))
    answer = await one.regions.region_board.exchange([])

    assert {("openai", "west"): state} == learnt
    assert {west: word} == {subject: said.word for subject, said in answer.orders.items()}


async def test_given_again_at_once(redis_server, pods):
    """What another has ordered between the look and the giving again stands."""
    one = pods(redis_server)
    west = board.Ordered("openai", "west")
    await one.regions.region_board.exchange([board.Change(west, "close", 60.0)])
    again = [board.Change(west, word, 600.0, unless=True) for word in ("open", "close")]
    answer = await one.regions.region_board.exchange(again)

    assert {west: "close"} == {subject: said.word for subject, said in answer.orders.items()}
    assert answer.orders[west].seconds <= 60.0


# ---- what processes find out ----


async def test_opening_is_learnt(redis_server, pods):
    """What one process found out the others learn, once, with the seconds that are left; not it itself."""
    one, two = pods(redis_server), pods(redis_server)
    one.regions.opened(WEST, 8.0, "unanswered")

    assert [[], [(WEST, 8)]] == [await one.read(), await two.read()]
    assert [[], []] == [await one.read(), await two.read()]

    two.regions.closed(WEST, "probe-good")
    assert [[], [(WEST, None)]] == [await two.read(), await one.read()]
    assert [[], []] == [await two.read(), await one.read()]

    one.regions.opened(WEST, 20.0, "errors")
    assert [[], [(WEST, 20)]] == [await one.read(), await two.read()]
    assert (2, 1) == (one.regions.counts["told"], one.regions.counts["learned"])


async def test_two_open_the_same(redis_server, pods):
    """Of two openings of one place the longer holds."""
    one, two, three = (pods(redis_server) for _ in range(3))
    one.regions.opened(WEST, 60.0, "errors")
    await one.read()
    two.regions.opened(WEST, 5.0, "errors")
    await two.read()

    assert [(WEST, 60)] == await three.read()
    two.regions.opened(WEST, 300.0, "errors")
    await two.read()
    assert [(WEST, 300)] == await three.read()
    assert 1 == redis_server.call("ZCARD", BREAKERS)


async def test_equal_findings_are_one_note(redis_server, pods):
    """What several find out at about the same time is one note; so copied it holds a little longer, and no more."""
    one, two = pods(redis_server), pods(redis_server)
    opened = board.Change(WEST, "opened", 5.0)

    assert one.note(opened, 1e9 + 0.001) == one.note(opened, 1e9 + 4.0) == two.note(opened, 1e9 + 5.0)
    assert one.note(opened, 1e9 + 5.001) != one.note(opened, 1e9 + 5.0)
    assert one.note(opened, 1e9) != one.note(opened._replace(word="closed"), 1e9)


async def test_a_closing_goes_before_all_openings(redis_server, pods):
    """A closing takes away whatever was opened, also what who closes has never read."""
    one, two, three = (pods(redis_server) for _ in range(3))
    await two.read()
    for seconds in (300.0, 150.0, 80.0):
        one.regions.opened(WEST, seconds, "errors")
        await one.read()
    two.regions.closed(WEST, "probe-good")
    await two.read()

    assert [(WEST, None)] == await three.read()
    assert 1 == redis_server.call("ZCARD", BREAKERS)


async def test_what_is_found_out_meanwhile(redis_server, pods):
    """What this process has yet to tell goes before what it reads."""
    one, two = pods(redis_server), pods(redis_server)
    one.regions.closed(WEST, "probe-good")
    await one.read()
    two.regions.opened(WEST, 5.0, "errors")

    assert [[], [(WEST, 5)]] == [await two.read(), await one.read()]


@pytest.mark.parametrize("cause", ["fleet", "operator"])
async def test_hearsay_is_not_told(redis_server, pods, cause):
    """What came from the fleet, or by an order that the fleet has anyway, doesn't go round in circles."""
    one = pods(redis_server)
    one.regions.opened(WEST, 5.0, cause)
    one.regions.closed(EAST, cause)
    await one.read()

    assert 0 == redis_server.call("EXISTS", BREAKERS)


async def test_services_that_are_not_shared(redis_server, pods):
    """Nothing is told of them and nothing learnt, and everybody may probe; without any, only orders are read."""
    one, other = pods(redis_server), pods(redis_server, shared=("another",))
    none = pods(redis_server, shared=())
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    for pod in (other, none):
        pod.regions.opened(EAST, 5.0, "errors")

    assert [[], []] == [await other.read(), await none.read()]
    assert 1 == redis_server.call("ZCARD", BREAKERS)
    assert await one.regions.claim(WEST, 5.0)
    assert [True, True] == [await pod.regions.claim(WEST, 5.0) for pod in (other, none)]
    assert {ORDERS} == set(none.regions.region_board._sets)


async def test_places_with_resources(redis_server, pods, monkeypatch):
    """Who makes up names of resources pushes out nothing: of such places nothing is told or learnt, and all probe."""
    monkeypatch.setattr(board, "MOST_NOTES", 3)
    one, two = pods(redis_server), pods(redis_server)
    made_up = [Place("openai", f"resource-{number}", "west") for number in range(8)]
    one.regions.opened(WEST, 5.0, "errors")
    for place in made_up:
        one.regions.opened(place, 300.0, "errors")
    await one.read()

    assert 1 == redis_server.call("ZCARD", BREAKERS)
    assert [True, True] == [await pod.regions.claim(made_up[0], 30.0) for pod in (one, two)]
    assert [] == redis_server.call("KEYS", "*probe*")
    await one.regions.region_board.exchange([board.Change(made_up[0], "opened", 60.0)])
    assert [(WEST, 5)] == await two.read()


async def test_told_when_redis_is_back(pods, clock):
    """What Redis couldn't be told waits for as long as it is true."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.read()
        server.kill()
        one.regions.opened(WEST, 20.0, "errors")
        one.regions.opened(EAST, 5.0, "errors")
        await one.read()
        server.start()
        clock[0] += 10.0
        async with asyncio.timeout(20):
            while not one.regions.counts["told"]:
                await one.read()
                await asyncio.sleep(0.01)

        assert [(WEST, 10)] == await two.read()
        assert {} == one.regions._pending


async def test_too_much_to_tell(redis_server, pods, monkeypatch):
    """Of very many places only some are told; orders have room of their own."""
    monkeypatch.setattr(board, "MOST_NOTES", 3)
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    for number in range(8):
        one.regions.opened(Place("openai", "", f"region-{number}"), 10.0 + 10 * number, "errors")
    await one.read()

    assert [60, 70, 80] == sorted(seconds for _, seconds in await two.read())
    assert {("openai", "west"): State.OPEN} == two.states


async def test_followers_learn_by_themselves(redis_server, pods):
    """What is found out is told soon, also on the channel of news; all read again and again."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.start()
    await two.regions.start()
    async with one.link.subscriber().pubsub(ignore_subscribe_messages=True) as news, asyncio.timeout(20):
        await news.subscribe(NAMES.news)
        await news.get_message(timeout=5.0)
        one.regions.opened(WEST, 5.0, "errors")
        message = await news.get_message(timeout=5.0)
        two.regions.nudge()
        await two.heard.wait()

    assert b"r" == message["data"]
    assert [(WEST, 5)] == two.learned


# ---- probes ----


async def test_one_probes(redis_server, pods):
    """One process of the fleet probes a place at a time, and may again; one place has nothing to do with another."""
    one, two = pods(redis_server), pods(redis_server)
    asked = [(one, WEST), (two, WEST), (one, WEST), (two, EAST), (one, EAST)]

    assert [True, False, True, True, False] == [await pod.regions.claim(place, 30.0) for pod, place in asked]
    assert (2, 1) == (two.regions.counts["claims"], two.regions.counts["denied"])


@pytest.mark.parametrize(
    "over",
    [
        pytest.param(lambda regions: regions.opened(WEST, 5.0, "probe-failed"), id="failed"),
        pytest.param(lambda regions: regions.closed(WEST, "probe-good"), id="good"),
        pytest.param(lambda regions: regions.release(WEST), id="released"),
    ],
)
async def test_a_probe_is_over(redis_server, pods, over):
    """With its verdict, or without one, the next may go; only who holds it ends it."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.claim(WEST, 30.0)
    over(two.regions)
    await two.read()

    assert not await two.regions.claim(WEST, 30.0)
    over(one.regions)
    await one.read()
    assert await two.regions.claim(WEST, 30.0)


async def test_a_probe_that_never_ends(redis_server, pods):
    """A claim has an end, whoever made it; what has none is no claim."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.claim(WEST, 30.0)
    (key,) = redis_server.call("KEYS", "*probe*")

    assert 0 < redis_server.call("PTTL", key) <= 30_000
    redis_server.call("PERSIST", key)
    assert await two.regions.claim(WEST, 30.0)
    redis_server.call("DEL", key)
    redis_server.call("SADD", key, "text")
    assert [True, False] == [await two.regions.claim(WEST, 30.0), await one.regions.claim(WEST, 30.0)]


async def test_probes_with_redis_away(pods):
    """Each process may probe for itself."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.regions.claim(WEST, 30.0)
        server.kill()

        assert await two.regions.claim(WEST, 30.0)


# ---- what goes wrong ----


@pytest.mark.parametrize("key", [ORDERS, BREAKERS], ids=["orders", "breakers"])
@pytest.mark.parametrize("note", [b"\xff\x00", b"", b"SCN", b"mode", b"words", b"json", b"long"])
async def test_foreign_notes(redis_server, pods, key, note):
    """What stands there and isn't ours, or makes no sense, is not there; the rest is."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    seal = one.regions.region_board._notes.seal_note
    texts = {
        b"mode": b"mode team-a: normal 2e9",
        b"words": b'region ["team-a:","order","half-open",1000000000000000,["openai","east"]]',
        b"json": b'region {"order": 1}',
        b"long": b'region ["team-a:","order","open",1000000000000000,["openai","","east"]]',
    }
    redis_server.call("ZADD", key, 10**15, bytes(board.LABEL_SIZE) + seal(texts[note]) if note in texts else note)

    assert [(WEST, 5)] == await two.read()
    assert {("openai", "west"): State.OPEN} == two.states
    assert 1 == two.regions.region_board.counts["unreadable"]
    assert [] == two.faults


@pytest.mark.parametrize("key", [ORDERS, BREAKERS], ids=["orders", "breakers"])
@pytest.mark.parametrize("command", ["SADD", "APPEND", "RPUSH"])
async def test_foreign_types(redis_server, pods, key, command):
    """What is of another type is none of ours, and goes."""
    one, two = pods(redis_server), pods(redis_server)
    redis_server.call(command, key, "text")

    assert "" == await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    assert [(WEST, 5)] == await two.read()


async def test_ends_in_clear_are_not_believed(redis_server, pods, now):
    """Whoever puts off the end of a note that he cannot read gains nothing, but for the grain of what is found out."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 60.0))
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    for key in (ORDERS, BREAKERS):
        for note in redis_server.call("ZRANGEBYSCORE", key, 0, 10**14):
            redis_server.call("ZADD", key, "1e300", note)
    ((place, seconds),) = await two.read()

    assert WEST == place
    assert 4 <= seconds <= 5 + board.GRAIN_MILLISECONDS / 1000
    assert pytest.approx(now[0] + 60.0, abs=2.0) == two.regions.orders["openai", "west"].until


async def test_ends_that_make_no_sense(redis_server, pods, now):
    """However far away an end is by our own secret, nothing holds for longer than it may."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.region_board.exchange(
        [board.Change(board.Ordered("openai", "west"), "open", 1e12), board.Change(WEST, "opened", 1e12)]
    )

    assert [(WEST, board.LONGEST_OPENING)] == await two.read()
    assert now[0] + board.LONGEST_ORDER == two.regions.orders["openai", "west"].until


async def test_replayed_notes(redis_server, pods):
    """What has been copied and is renewed when its time is over isn't there; nor do copies pile up beside the real."""
    one, two = pods(redis_server), pods(redis_server)
    west, yesterday = board.Ordered("openai", "west"), time.time() - 86400.0
    old = one.note(board.Change(west, "open", 3600.0), yesterday)
    redis_server.call("ZADD", ORDERS, 10**15, old)
    redis_server.call("ZADD", BREAKERS, 10**15, one.note(board.Change(WEST, "opened", 600.0), yesterday))

    assert [] == await two.read()
    assert {} == two.states
    assert 0 == two.regions.region_board.counts["unreadable"]

    redis_server.call("ZADD", ORDERS, 10**15, b"elsewhere-label-" + old[board.LABEL_SIZE :])
    await two.read()
    await two.regions.order("openai", "west", Order(State.CLOSED, 2e9))
    assert {("openai", "west"): State.CLOSED} == two.states
    assert 2 == redis_server.call("ZCARD", ORDERS)  # the mark is one


async def test_notes_of_another_namespace(redis_server, pods):
    """Notes that are carried over from a namespace with the same secret aren't there, and nobody sees what they are."""
    one, two = pods(redis_server), pods(redis_server, namespace="team-b")
    for pod in (one, two):
        await pod.regions.order("openai", "west", Order(State.OPEN, 2e9))
        pod.regions.opened(WEST, 60.0, "errors")
        await pod.read()
    late = pods(redis_server, namespace="team-c")
    for name in (b"orders", b"breakers"):
        for namespace in (b"team-a", b"team-b"):
            for note in redis_server.call("ZRANGEBYSCORE", namespace + b":{regions}:" + name, 0, 10**15):
                redis_server.call("ZADD", b"team-c:{regions}:" + name, 10**15, note)

    assert [] == await late.read()
    assert {} == late.states
    assert 4 == late.regions.region_board.counts["unreadable"]
    labels = [note[: board.LABEL_SIZE] for note in redis_server.call("ZRANGE", "team-c:{regions}:orders", 0, -1)]
    assert 3 == len(set(labels))


async def test_renewed_orders_are_one_note(redis_server, pods, now):
    """However often an order is given, and by whomever, there is one note of it."""
    fleet = [pods(redis_server) for _ in range(3)]
    for pod in fleet:
        await pod.read()
    for number in range(6):
        await fleet[number % 3].regions.order("openai", "west", Order(State.OPEN, now[0] + 600.0 - 60 * number))

    assert 2 == redis_server.call("ZCARD", ORDERS)  # the mark is one
    for pod in fleet:
        await pod.read()
        assert pytest.approx(now[0] + 300.0, abs=2.0) == pod.regions.orders["openai", "west"].until


async def test_clocks_that_go_apart(redis_server, pods, now):
    """Ends are by Redis' clock, also where this process's has leapt since it read that; if it leaps on, none is set."""
    one = pods(redis_server)
    await one.read()
    for leap in (86400.0, -3600.0):
        one.regions.region_board._clock = lambda leap=leap: time.monotonic() + leap
        assert "" == await one.regions.order("openai", "west", Order(State.OPEN, now[0] + 60.0))
        assert pytest.approx(now[0] + 60.0, abs=2.0) == one.regions.orders["openai", "west"].until

    ticks = itertools.count(1e6, 10.0)
    one.regions.region_board._clock = lambda: next(ticks)
    with pytest.raises(FleetAway):
        await one.regions.order("openai", "east", Order(State.OPEN, now[0] + 60.0))
    assert 1 == one.regions.counts["failures"]
    assert 2 == redis_server.call("ZCARD", ORDERS)


@pytest.mark.parametrize(("ends", "left"), [(10**15, 8), (1, 0)], ids=["for ever", "over"])
@pytest.mark.parametrize("key", [ORDERS, BREAKERS], ids=["orders", "breakers"])
async def test_a_flood(redis_server, pods, monkeypatch, key, ends, left):
    """Of very many foreign notes few are read, and each reading takes away some, though nothing has changed."""
    monkeypatch.setattr(board, "MOST_NOTES", 8)
    monkeypatch.setattr(board, "MOST_REMOVED", 40)
    one = pods(redis_server)
    await one.read()
    marks = 1 if key == ORDERS else 0
    for number in range(100 - marks):
        redis_server.call("ZADD", key, ends, b"foreign-%d" % number)
    found = []
    for _ in range(4):
        await one.read()
        found.append(redis_server.call("ZCARD", key))

    kept = left or marks
    assert [60, 20, kept, kept] == found
    assert 4 * max(0, left - marks) == one.regions.region_board.counts["unreadable"]
    assert [] == one.faults


async def test_new_secret(redis_server, pods):
    """While a secret is replaced, an order by the old one gives way to one by the new, if its giver reads both."""
    old, both, new = pods(redis_server), pods(redis_server, secrets(2, 1)), pods(redis_server, secrets(2))
    await old.regions.order("openai", "west", Order(State.OPEN, 2e9))
    await both.read()
    await new.read()
    assert [{("openai", "west"): State.OPEN}, {}] == [both.states, new.states]

    await both.regions.order("openai", "west", Order(State.CLOSED, 1e9 + 60))
    for pod in (old, new):
        await pod.read()
    assert [{}, {("openai", "west"): State.CLOSED}] == [old.states, new.states]
    await both.regions.order("openai", "west", None)
    await new.read()
    assert {} == new.states
    assert 2 == redis_server.call("ZCARD", ORDERS)  # the mark, and that there is none


async def test_without_the_right_to_the_clock(pods):
    """Where the ACL forbids TIME there is no fleet for regions: told once, tried rarely, and nothing else suffers."""
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "default", "-time")
        one = pods(server)
        await one.read()
        await one.read()

        why = await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
        assert "Redis forbids TIME to this user; grant +time" == why
        assert [why] == one.faults
        assert one.regions._refused
        assert one.link.up
        assert await one.regions.claim(WEST, 5.0)

        server.call("ACL", "SETUSER", "default", "+time")
        assert "" == await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
        assert not one.regions._refused


async def test_refused_and_away(pods):
    """A Redis that went away after it refused is away: what it would say now is not known."""
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "default", "-time")
        one = pods(server)
        await one.read()
        server.kill()

        with pytest.raises(FleetAway):
            await one.regions.order("openai", "west", Order(State.OPEN, 2e9))


async def test_a_full_redis(pods):
    """Where Redis takes no new data, what it holds is read, and nobody is kept from probing."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
        server.call("CONFIG", "SET", "maxmemory", "1")
        await two.read()

        assert {("openai", "west"): State.OPEN} == two.states
        assert await two.regions.claim(WEST, 5.0)
        assert "Redis takes no writes" == await two.regions.order("openai", "east", Order(State.OPEN, 2e9))
        assert one.link.up

        two.regions.opened(WEST, 60.0, "errors")
        server.call("CONFIG", "SET", "maxmemory", "0")
        await one.regions.order("openai", "west", None)
        await one.regions.order("openai", "north", Order(State.OPEN, 2e9))
        server.call("CONFIG", "SET", "maxmemory", "1")
        for _ in range(2):
            await two.read()

            assert {("openai", "north"): State.OPEN} == two.states

        server.call("CONFIG", "SET", "maxmemory", "0")
        await two.read()
        await one.read()

        assert [(WEST, True)] == [(place, open_for is not None) for place, open_for in one.learned]


async def test_full_and_lost(pods):
    """Orders that were lost, and cannot be given again for want of memory, stay known until they can."""
    with RedisServer() as server:
        one = pods(server)
        await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
        await one.read()
        server.call("FLUSHALL")
        server.call("CONFIG", "SET", "maxmemory", "1")
        for _ in range(3):
            await one.read()

            assert {("openai", "west"): State.OPEN} == one.states

        server.call("CONFIG", "SET", "maxmemory", "0")
        await one.read()
        late = pods(server)
        await late.read()

        assert {("openai", "west"): State.OPEN} == late.states


async def test_no_right_to_read(redis_server, pods):
    """Who may not read what is there takes nothing of it away."""
    one, two = pods(redis_server), pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    redis_server.call("ACL", "SETUSER", "default", "-zcount")
    try:
        await two.read()
    finally:
        redis_server.call("ACL", "SETUSER", "default", "+zcount")
    await two.read()

    assert {("openai", "west"): State.OPEN} == two.states


async def test_stopped_and_back(pods, clock):
    """A Redis that comes back empty gets the orders again; each process kept its own judgement meanwhile."""
    with RedisServer() as server:
        one, two = pods(server), pods(server)
        await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
        await two.read()
        server.kill()
        for _ in range(5):
            assert [] == await two.read()
        server.start()
        async with asyncio.timeout(20):
            while not two.regions.counts["lost"]:
                await two.read()
                await asyncio.sleep(0.01)

        late = pods(server)
        await late.read()
        assert {("openai", "west"): State.OPEN} == late.states == two.states
        assert [] == two.faults


async def test_bug_of_a_listener(redis_server, pods):
    """A listener that raises ends nothing, and is told of, by its kind alone."""
    one, two = pods(redis_server), pods(redis_server)
    two.regions._on_orders = two.regions._on_learn = lambda *_: 1 / 0
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    await two.read()

    assert {("openai", "west"): State.OPEN} == two.states
    assert ["ZeroDivisionError"] == two.faults


async def test_nothing_is_told_and_everything_expires(redis_server, pods):
    """No name stands in Redis in clear; every key is the namespace's, in one slot, and has a time to live."""
    one = pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))
    one.regions.opened(WEST, 5.0, "errors")
    await one.read()
    await one.regions.claim(WEST, 5.0)
    keys = redis_server.call("KEYS", "*")

    assert 3 == len(keys)
    assert {True} == {key.startswith(b"team-a:{regions}:") for key in keys}
    assert {True} == {redis_server.call("PTTL", key) > 0 for key in keys}
    stored = b"".join(redis_server.call("DUMP", key) for key in keys) + b"".join(keys)
    stored += b"".join(redis_server.call("ZRANGE", ORDERS, 0, -1) + redis_server.call("ZRANGE", BREAKERS, 0, -1))
    assert [] == [name for name in (b"openai", b"west", b"opened") if name in stored]

    redis_server.call("EXPIRE", ORDERS, 100)
    await one.read()
    assert redis_server.call("TTL", ORDERS) > board.LONGEST_ORDER


async def test_repr(redis_server, pods):
    """It tells what is known."""
    one = pods(redis_server)
    await one.regions.order("openai", "west", Order(State.OPEN, 2e9))

    assert "<FleetRegions 1 orders, 0 places, read 0.0 s ago>" == repr(one.regions)
    assert "<RegionBoard of 1 subjects>" == repr(one.regions.region_board)
