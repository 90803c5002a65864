"""What those who run a sidecar can do to it, over memory and flights as they are, and a log that does as it is told."""

from __future__ import annotations

import asyncio
from math import inf

import pytest

from sidecar.admin.actions import ModeRequest, ModeResult, PurgeRequest, PurgeResult, RegionRequest, RegionResult
from sidecar.app.operations import FLEETS_SECONDS, Operations
from sidecar.core.cache.purges import ALL, Purges, Scope, ScopeKind
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Entry, Form, Key, Position
from sidecar.core.region.breaker import State
from sidecar.core.region.regions import Order, Place, Regions
from sidecar.core.rules import BreakerRule, MemoryRule, Mode, Region, Service
from sidecar.dialects.generic import GENERIC
from sidecar.errors import FleetAway, Refused
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.table import Flights
from sidecar.store.memory import CHUNK, Memory

WEST, EAST = Region("west", "https://west.example"), Region("east", "https://east.example")
SERVICES = (
    Service("openai", GENERIC, (WEST, EAST)),
    Service("azure", GENERIC, (Region("west", "https://{resource}.example"),), resource=True, port=7401),
)
RAW = b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\r\n{}"


def key(number: int) -> Key:
    return Key(b"%016d" % number, b"%032d" % number)


def entry(route: str = "first") -> Entry:
    return Entry(200, (), b"answer", Form.WHOLE, "openai", route, "", at=0.0, ttl=60.0)


class Ids:
    """One call that is remembered."""

    def key(self, text):
        return key(1) if text == "known" else None


class Line:
    """What is needed of the line: it hears of modes, and knows keys."""

    def __init__(self) -> None:
        self.modes = []
        self.asked = []
        self.ports = []
        self.key = key(1)
        self.ids = Ids()

    def switch(self, mode):
        self.modes.append(mode)

    def key_of(self, head, body):
        self.asked.append((head.method, body))
        self.ports.append(head.port)
        return self.key


class Log:
    """The fleet's log, or Redis away where *position* is None."""

    def __init__(self, operations: Operations, purges: Purges) -> None:
        self.operations = operations
        self.purges = purges
        self.position = Position(b"\x0a" * 16, 7)
        self.modes = []

    async def purge(self, scopes):
        self.purges.apply(scopes)
        self.operations.take(tuple(scopes))
        return self.position

    async def set_mode(self, mode, until=0.0):
        self.modes.append((mode, until))
        self.operations.take_mode(mode, until)
        return self.position is not None


class Orders:
    """The fleet's orders, or Redis away, or one that won't have them, for a reason."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.away = False
        self.why = ""
        self.given = []
        self.holding = {}

    async def order(self, service, region, order):
        if self.away:
            raise FleetAway("open")
        if self.why:
            return self.why
        self.given.append((service, region, order))
        self.holding = {place: each for place, each in self.holding.items() if place != (service, region)}
        if order is not None:
            self.holding[service, region] = order
        self.operations.take_orders(self.holding)
        return ""


class Desk:
    """Operations with what they work on."""

    def __init__(self, mode: Mode = Mode.NORMAL) -> None:
        self.now = 1000.0
        self.set_back = 0.0
        self.line = Line()
        self.memory = Memory(MemoryRule(), now=lambda: self.now, clock=lambda: self.now)
        self.purges = Purges()
        self.flights = Flights(
            spawn=lambda work, *, name: asyncio.create_task(work, name=name), ledger=Ledger(1000), limit=100,
            report=lambda _: None,
        )  # fmt: skip
        self.forgotten = 0
        self.told = []
        self.moves = []
        self.regions = Regions(lambda place, move: self.moves.append((place.region, move.after, move.cause)))
        self.operations = Operations(
            mode, self.line, self.memory, self.flights, self.purges, self.regions, SERVICES,
            forget=self.forget, on_mode=self.hear, now=lambda: self.now,
            clock=lambda: self.now + self.set_back + 5000.0, port=lambda: 7400,
        )  # fmt: skip
        self.log = Log(self.operations, self.purges)
        self.orders = Orders(self.operations)
        for number in range(4):
            self.memory.put(key(number), entry("first" if number < 3 else "second"))

    def forget(self) -> None:
        self.forgotten += 1

    def hear(self, before: Mode) -> None:
        self.told.append((before, self.operations.mode, self.operations.source))

    def join(self, *, away: bool = False) -> None:
        self.operations.log = self.log
        self.operations.orders = self.orders
        if away:
            self.log.position = None
            self.orders.away = True

    async def purge(self, scope="route", value="first", *, request=b"", dry_run=False, fleet=False) -> PurgeResult:
        return await self.operations.purge(PurgeRequest(scope, value, request, dry_run, fleet))

    async def change(self, mode: Mode, seconds: float | None = None, *, fleet: bool = False) -> ModeResult:
        return await self.operations.change(ModeRequest(mode, seconds, fleet))

    async def order(self, action, seconds=None, *, service="openai", region="west", fleet=False) -> RegionResult:
        return await self.operations.region(RegionRequest(service, region, action, seconds, fleet))

    def standing(self, region: str = "west"):
        """State, order and its seconds of a region of the first service."""
        found = next(each for each in self.operations.table() if (each.service, each.region) == ("openai", region))
        return found.state, found.order, found.order_seconds


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- purges ----


@pytest.mark.parametrize(
    ("joined", "away", "fleet", "position", "told"),
    [
        (False, False, False, "", "local"),
        (False, False, True, "", "local"),
        (True, False, False, "", "local"),
        (True, False, True, "0a" * 16 + ":7", "done"),
        (True, True, True, "", "pending"),
    ],
    ids=["alone", "alone with a token", "without a token", "in the fleet", "redis away"],
)
async def test_purge(joined, away, fleet, position, told, desk):
    """It holds here at once, whoever else is told; what it took, where it stands and who knows is the result."""
    if joined:
        desk.join(away=away)
    result = await desk.purge(fleet=fleet)

    assert PurgeResult(3, position, told) == result
    assert (1, 1) == (desk.memory.entries, desk.operations.purged)
    assert desk.purges.purged_since([Scope(ScopeKind.ROUTE, "first")], 0)
    assert (1 if fleet and joined else 0) == len(desk.purges.pending)


async def test_dry_run(desk):
    """It counts, and that is all, also where it may act on the fleet."""
    desk.join()
    result = await desk.purge(dry_run=True, fleet=True)

    assert PurgeResult(3, "", "local") == result
    assert (4, 0, 0) == (desk.memory.entries, desk.operations.purged, desk.purges.seq)


@pytest.mark.parametrize(
    ("scope", "value", "left"),
    [
        ("all", "", 0),
        ("service", "openai", 0),
        ("service", "another", 4),
        ("route", "second", 3),
        ("key", key(2).address.hex(), 3),
        ("request-id", "known", 3),
        ("request", "", 3),
    ],
)
async def test_scopes(scope, value, left, desk):
    """What is named is gone, the rest is there."""
    result = await desk.purge(scope, value, request=RAW if scope == "request" else b"")

    assert (4 - left, left) == (result.entries, desk.memory.entries)
    assert ([(b"POST", b"{}")] if scope == "request" else []) == desk.line.asked


@pytest.mark.parametrize(("host", "port"), [(b"localhost", 7400), (b"localhost:7400", 7400), (b"localhost:7401", 7401)])
async def test_request_to_a_port(host, port, desk):
    """A request that went to a service's own port is looked for there; its Host says so."""
    await desk.purge("request", request=RAW.replace(b"localhost", host))

    assert [port] == desk.line.ports


@pytest.mark.parametrize(
    ("scope", "value", "request_bytes", "status", "code"),
    [
        ("request-id", "unknown", b"", 404, "unknown-id"),
        ("request", "", b"no request at all", 400, ""),
        ("request", "", RAW, 400, "no-key"),
    ],
)
async def test_refused(scope, value, request_bytes, status, code, desk):
    """What names no entry is told so, and takes nothing."""
    desk.line.key = None
    with pytest.raises(Refused) as refused:
        await desk.purge(scope, value, request=request_bytes)

    assert status == refused.value.status
    assert code in refused.value.code
    assert (4, 0) == (desk.memory.entries, desk.operations.purged)


async def test_many_entries(desk):
    """A purge of more than one step is over when it is told, and serves nothing of what it took meanwhile."""
    for number in range(3 * CHUNK):
        desk.memory.put(key(10 + number), entry())
    purging = asyncio.create_task(desk.purge())
    while desk.memory.entries > 1 + CHUNK:  # noqa: ASYNC110  what is looked at has no events for tests
        await asyncio.sleep(0)
    seen = [desk.memory.peek(key(10 + number)) for number in range(3 * CHUNK)]
    result = await purging

    assert {None} == set(seen)
    assert (3 * CHUNK + 3, 1) == (result.entries, desk.memory.entries)


async def test_news_of_a_purge(desk):
    """One that another process made is carried out at once, as far as it goes, and finished by the sweep."""
    for number in range(2 * CHUNK):
        desk.memory.put(key(10 + number), entry())
    desk.operations.take((Scope(ScopeKind.ROUTE, "first"),))
    begun = desk.memory.entries
    await desk.operations.sweep()

    assert begun > 1
    assert 1 == desk.memory.entries


async def test_flights_are_detached(desk):
    """What flies in the purged scope is joined by nobody any more; the rest is."""
    go = asyncio.Event()

    async def fetch(flight):
        await go.wait()

    ours = desk.flights.lead("ours", fetch, generating=False, scopes=lambda: (ALL, Scope(ScopeKind.ROUTE, "first")))
    other = desk.flights.lead("other", fetch, generating=False, scopes=lambda: (ALL, Scope(ScopeKind.ROUTE, "second")))
    readers = [Reader(flight) for flight in (ours, other)]
    await desk.purge()

    assert (None, other) == (desk.flights.find("ours"), desk.flights.find("other"))
    assert (True, False) == (ours.superseded, other.superseded)
    for flight, reader in zip((ours, other), readers, strict=True):
        flight.task.cancel()
        await asyncio.wait([flight.task])
        reader.leave()


# ---- modes ----


async def test_own_mode(desk):
    """It holds for as long as was said; requests are judged anew when it begins and when it ends."""
    done = await desk.change(Mode.CACHE_OFF, 60.0)
    desk.now += 59.0
    desk.operations.tick()
    within = desk.operations.standing()
    desk.now += 1.0
    desk.operations.tick()

    assert ModeResult(Mode.CACHE_OFF, 60.0, "local") == done
    assert ModeResult(Mode.CACHE_OFF, 1.0, "local") == within
    assert ModeResult(Mode.NORMAL, None, "local") == desk.operations.standing()
    assert [Mode.CACHE_OFF, Mode.NORMAL] == desk.line.modes
    assert 2 == desk.forgotten
    assert [
        (Mode.NORMAL, Mode.CACHE_OFF, "process"), (Mode.CACHE_OFF, Mode.NORMAL, "configuration")
    ] == desk.told  # fmt: skip


async def test_same_mode(desk):
    """Where nothing changes nobody is disturbed."""
    await desk.change(Mode.PASSTHROUGH, 60.0)
    await desk.change(Mode.PASSTHROUGH, 600.0)
    desk.operations.tick()

    assert [Mode.PASSTHROUGH] == desk.line.modes
    assert 600.0 == desk.operations.standing().seconds


@pytest.mark.parametrize("configured", list(Mode), ids=str)
async def test_back_to_what_is_configured(configured):
    """The configuration's own mode, without an end, ends what was said; with one it is said as any other."""
    desk = Desk(configured)
    other = Mode.CACHE_OFF if configured is not Mode.CACHE_OFF else Mode.NORMAL
    await desk.change(other, 60.0)
    await desk.change(configured)

    assert (configured, None) == (desk.operations.mode, desk.operations.standing().seconds)
    await desk.change(configured, 60.0)
    assert 60.0 == desk.operations.standing().seconds


async def test_fleets_mode(desk):
    """The fleet's mode goes before this process's own, which is there again when that ends."""
    desk.join()
    await desk.change(Mode.CACHE_OFF, 600.0)
    done = await desk.change(Mode.PASSTHROUGH, 60.0, fleet=True)
    desk.now += 20.0
    standing = desk.operations.standing()
    desk.operations.take_mode(None, -inf)

    assert ModeResult(Mode.PASSTHROUGH, 60.0, "done") == done
    assert ModeResult(Mode.PASSTHROUGH, 40.0, "done") == standing
    assert [(Mode.PASSTHROUGH, 1060.0)] == desk.log.modes
    assert Mode.CACHE_OFF is desk.operations.mode
    assert ["process", "fleet", "process"] == [source for _, _, source in desk.told]


async def test_own_mode_under_the_fleets(desk):
    """What the fleet said holds, and is what is told."""
    desk.join()
    await desk.change(Mode.PASSTHROUGH, 60.0, fleet=True)
    done = await desk.change(Mode.CACHE_OFF, 600.0)

    assert ModeResult(Mode.PASSTHROUGH, 60.0, "local") == done


async def test_news_of_a_mode(desk):
    """One that another process set ends here at its time, though nobody tells of that."""
    desk.operations.take_mode(Mode.CACHE_OFF, 1060.0)
    desk.now += 60.0
    desk.operations.tick()

    assert [(Mode.CACHE_OFF, "fleet"), (Mode.NORMAL, "configuration")] == [told[1:] for told in desk.told]


async def test_fleets_mode_without_an_end(desk):
    """It ends after a month, and says so."""
    desk.join()

    assert ModeResult(Mode.CACHE_OFF, FLEETS_SECONDS, "done") == await desk.change(Mode.CACHE_OFF, fleet=True)
    assert [(Mode.CACHE_OFF, 1000.0 + FLEETS_SECONDS)] == desk.log.modes


async def test_normal_in_the_fleet(desk):
    """Back to normal is back to normal, also where this process had a mode of its own."""
    desk.join()
    await desk.change(Mode.CACHE_OFF, 600.0)
    done = await desk.change(Mode.NORMAL, fleet=True)

    assert ModeResult(Mode.NORMAL, None, "done") == done
    assert [(None, 1000.0 + FLEETS_SECONDS)] == desk.log.modes


async def test_fleet_away(desk):
    """A mode for a fleet that cannot be told holds here at once, and the answer says that the others wait."""
    desk.join(away=True)

    assert ModeResult(Mode.CACHE_OFF, 60.0, "pending") == await desk.change(Mode.CACHE_OFF, 60.0, fleet=True)
    assert ModeResult(Mode.NORMAL, None, "pending") == await desk.change(Mode.NORMAL, fleet=True)
    assert [Mode.CACHE_OFF, Mode.NORMAL] == desk.line.modes


# ---- regions ----


@pytest.mark.parametrize(
    ("action", "state", "share"), [("stop", "open", 0.0), ("force", "closed", 1.0)], ids=["stop", "force"]
)
async def test_own_order(desk, action, state, share):
    """It holds for as long as was said, here alone; then the region judges for itself again."""
    desk.join()
    desk.regions.breaker(Place("openai", "", "west"), BreakerRule(), 6000.0)
    done = await desk.order(action, 60.0)
    desk.now += 59.0
    desk.operations.tick()
    within = desk.standing()
    desk.now += 1.0
    desk.operations.tick()

    assert ("local", [(state, share, action, 60.0)]) == (
        done.fleet, [(each.state, each.share, each.order, each.order_seconds) for each in done.regions]
    )  # fmt: skip
    assert (state, action, 1.0) == within
    assert "" == desk.standing()[1]
    assert ("closed", "", None) == desk.standing("east")
    assert [] == desk.orders.given


async def test_order_without_an_end(desk):
    """It holds until it is taken back, which may be done twice."""
    await desk.order("stop")
    desk.now += 1e9
    desk.operations.tick()
    before = desk.standing()
    results = [await desk.order("auto"), await desk.order("auto")]

    assert ("open", "stop", None) == before
    assert [("closed", ""), ("closed", "")] == [(each.state, each.order) for done in results for each in done.regions]


async def test_an_order_again(desk):
    """One that changes nothing disturbs nobody; another end is another order."""
    desk.regions.breaker(Place("openai", "", "west"), BreakerRule(), 6000.0)
    for seconds in (60.0, 60.0, 600.0):
        await desk.order("stop", seconds)
        desk.operations.tick()

    assert [("west", State.OPEN, "operator")] == desk.moves
    assert ("open", "stop", 600.0) == desk.standing()


async def test_fleets_order(desk):
    """The fleet's order goes before this process's own, which is there again when that ends."""
    desk.join()
    await desk.order("force", 600.0)
    done = await desk.order("stop", 60.0, fleet=True)
    within = desk.standing()
    desk.now += 60.0
    desk.operations.tick()

    assert ("done", [("stop", 60.0)]) == (done.fleet, [(each.order, each.order_seconds) for each in done.regions])
    assert [("openai", "west", Order(State.OPEN, 1060.0))] == desk.orders.given
    assert ("open", "stop", 60.0) == within
    assert ("closed", "force", 540.0) == desk.standing()


async def test_fleets_order_without_an_end(desk):
    """It ends after a month."""
    desk.join()
    await desk.order("stop", fleet=True)

    assert [("openai", "west", Order(State.OPEN, 1000.0 + FLEETS_SECONDS))] == desk.orders.given


async def test_auto_in_the_fleet(desk):
    """Back to its own judgement is that, also where this process had an order of its own."""
    desk.join()
    await desk.order("stop", 600.0)
    await desk.order("force", 600.0, fleet=True)
    done = await desk.order("auto", fleet=True)

    assert ("done", [("closed", "")]) == (done.fleet, [(each.state, each.order) for each in done.regions])
    assert ("openai", "west", None) == desk.orders.given[-1]


async def test_own_auto_under_a_fleets_order(desk):
    """What the fleet said holds; the result says so."""
    desk.join()
    await desk.order("stop", 600.0, fleet=True)
    done = await desk.order("auto")

    assert ("local", [("open", "stop")]) == (done.fleet, [(each.state, each.order) for each in done.regions])


async def test_news_of_orders(desk):
    """Those of others hold here as long as they last, though nobody tells of their end."""
    desk.operations.take_orders({("openai", "east"): Order(State.OPEN, 1030.0), ("gone", "x"): Order(State.OPEN, 1e9)})
    within = desk.standing("east")
    desk.now += 30.0
    desk.operations.tick()

    assert ("open", "stop", 30.0) == within
    assert ("closed", "", None) == desk.standing("east")
    assert [("east", State.OPEN, "operator"), ("east", State.CLOSED, "operator")] == desk.moves


async def test_order_with_the_fleet_away(desk):
    """An order for a fleet that cannot be told is refused, and is nobody's."""
    desk.join(away=True)
    with pytest.raises(Refused, match="look with `sidecar region ls`") as refused:
        await desk.order("stop", 60.0, fleet=True)

    assert (503, "fleet-away") == (refused.value.status, refused.value.code)
    assert ("closed", "", None) == desk.standing()


async def test_order_that_redis_will_not_have(desk):
    """An order that the fleet's Redis lacks a right for is this process's own, and says which right."""
    desk.join()
    desk.orders.why = "grant +time"
    done = await desk.order("stop", 60.0, fleet=True)

    assert ("local", "grant +time") == (done.fleet, done.why)
    assert {"fleet": "local", "why": "grant +time"} == done.audit_fields()
    assert ("open", "stop", 60.0) == desk.standing()

    await desk.order("auto", fleet=True)

    assert ("closed", "", None) == desk.standing()


async def test_order_with_a_token_and_no_fleet(desk):
    """It is this process's own."""
    done = await desk.order("stop", fleet=True)

    assert ("local", ("open", "stop", None)) == (done.fleet, desk.standing())


async def test_order_for_resources(desk):
    """Each resource that has been called is told of, and that it holds for those that haven't been."""
    before = await desk.order("stop", service="azure")
    desk.regions.breaker(Place("azure", "contoso", "west"), BreakerRule(), 6000.0)
    after = await desk.order("stop", 60.0, service="azure")

    assert [("*", "open", "stop")] == [(each.resource, each.state, each.order) for each in before.regions]
    assert ["*", "contoso"] == [each.resource for each in after.regions]
    assert {("open", "stop", 60.0)} == {(each.state, each.order, each.order_seconds) for each in after.regions}


@pytest.mark.parametrize(
    ("service", "region", "code", "message"),
    [
        ("opnai", "west", "unknown-service", "there is no service opnai; did you mean openai?"),
        ("x", "west", "unknown-service", "there is no service x; there are azure, openai"),
        ("openai", "wset", "unknown-region", "openai has no region wset; did you mean west?"),
        ("azure", "x", "unknown-region", "azure has no region x; there is west"),
    ],
    ids=["service", "no service", "region", "no region"],
)
async def test_unknown_names(desk, service, region, code, message):
    """Told, with what was probably meant, before anything is done."""
    desk.join()
    with pytest.raises(Refused) as refused:
        await desk.order("stop", service=service, region=region, fleet=True)

    assert (404, code, message) == (refused.value.status, refused.value.code, refused.value.message)
    assert [] == desk.orders.given


def test_repr(desk):
    """It tells the mode, and how much was purged."""

    assert "<Operations mode normal, 0 purges>" == repr(desk.operations)


@pytest.mark.parametrize("fleet", [False, True], ids=["here", "in the fleet"])
async def test_the_clock_is_set_back(desk, fleet):
    """A mode and an order end when they were said to, by the clock that nobody sets."""

    if fleet:
        desk.join()
    await desk.change(Mode.CACHE_OFF, 60.0, fleet=fleet)
    await desk.operations.region(RegionRequest("openai", "east", "stop", 60.0, fleet))
    desk.now -= 3600.0
    desk.set_back += 3600.0
    ends = []
    for _ in range(2):
        desk.now += 30.0
        desk.operations.tick()
        states = [each.order for each in desk.operations.table() if (each.service, each.region) == ("openai", "east")]
        ends.append((desk.operations.mode, desk.operations.standing().seconds, *states))

    assert [(Mode.CACHE_OFF, 30.0, "stop"), (Mode.NORMAL, None, "")] == ends
