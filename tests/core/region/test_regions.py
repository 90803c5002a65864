"""How regions stand: one breaker a place, orders for all of a region's places, and the table of it all."""

from dataclasses import replace

import pytest

from sidecar.core.region.breaker import Permit, Refusal, Sign, State
from sidecar.core.region.regions import PLACES, Order, Place, Regions, Room, Standing
from sidecar.core.rules import BreakerRule, Region, Service
from sidecar.dialects import DIALECTS

RULE = BreakerRule()
US, EU = Place("ai", "", "us"), Place("ai", "", "eu")
FOREVER = float("inf")


def service(*names, resource=False):
    regions = tuple(Region(name, f"https://{name}", number, residency=name) for number, name in enumerate(names, 1))
    return Service("ai", DIALECTS["openai"], regions, path="/ai", resource=resource)


def fail(regions, place, now=0.0, sign=Sign.ERROR):
    """Let the breaker of *place* open, for five seconds."""
    breaker = regions.breaker(place, RULE, now)
    while breaker.state is State.CLOSED:
        regions.tell(place, breaker.settle(breaker.admit(now, 0.0), sign, 0.0, now, 0.5))


@pytest.fixture
def told():
    return []


@pytest.fixture
def regions(told):
    return Regions(lambda place, transition: told.append((place.region, transition.after, transition.cause)))


def test_one_breaker_a_place(regions):
    """A place has one breaker as long as it is known; another resource has another."""
    first = regions.breaker(US, RULE, 0.0)

    assert first is regions.breaker(Place("ai", "", "us"), RULE, 9.0)
    assert first is not regions.breaker(EU, RULE, 0.0)
    assert first is not regions.breaker(Place("ai", "contoso", "us"), RULE, 0.0)
    assert "<Regions 3 breakers, 0 orders>" == repr(regions)


def test_bounded(regions):
    """However many resources callers name."""
    for number in range(PLACES + 10):
        regions.breaker(Place("ai", str(number), "us"), RULE, 0.0)

    assert {("ai", "us", "closed"): PLACES} == regions.states()


def test_budgets(regions):
    """One budget a service, and one for its hedges."""
    assert regions.budget("a") is regions.budget("a") is not regions.budget("b")
    assert regions.hedges("a") is regions.hedges("a") is not regions.budget("a")

    regions.budget("a").take(0.0)

    assert {"a": 99.0, "b": 100.0} == regions.budgets_left(0.0)


def test_order(regions, told):
    """An order holds for every resource, for those that are not known yet too, until it is taken back."""
    known, later = Place("ai", "one", "us"), Place("ai", "two", "us")
    regions.breaker(known, RULE, 0.0)
    regions.breaker(EU, RULE, 0.0)
    regions.order("ai", "us", Order(State.OPEN, FOREVER), 0.0)
    refused = [regions.breaker(place, RULE, 0.0).admit(0.0, 0.0, last=True) for place in (known, later)]

    assert [True, True] == [isinstance(each, Refusal) and each.forced for each in refused]
    assert isinstance(regions.breaker(EU, RULE, 0.0).admit(0.0, 0.0), Permit)
    assert [("us", State.OPEN, "operator")] * 2 == told

    regions.order("ai", "us", None, 1.0)

    assert State.CLOSED is regions.breaker(known, RULE, 1.0).state
    assert [("us", State.CLOSED, "operator")] * 2 == told[2:]


def test_order_for_what_was_never_called(regions, told):
    """It is told when it is given and when it ends, and not again by the first call."""
    for order in (Order(State.OPEN, FOREVER), Order(State.OPEN, 60.0), Order(State.CLOSED, 60.0), None):
        regions.order("ai", "us", order, 0.0)

    assert [("us", State.OPEN, "operator"), ("us", State.CLOSED, "operator")] == told

    regions.order("ai", "eu", Order(State.OPEN, FOREVER), 0.0)
    regions.breaker(EU, RULE, 0.0)
    regions.order("ai", "eu", None, 0.0)

    assert [("eu", State.OPEN, "operator"), ("eu", State.CLOSED, "operator")] == told[2:]


def test_order_to_close(regions, told):
    """A region that is to be called whatever happens is."""
    fail(regions, US)
    regions.order("ai", "us", Order(State.CLOSED, FOREVER), 1.0)
    for _ in range(20):
        breaker = regions.breaker(US, RULE, 1.0)
        permit = breaker.admit(1.0, 0.99)
        breaker.settle(permit, Sign.UNANSWERED, 0.0, 1.0, 0.5)

    assert State.CLOSED is regions.breaker(US, RULE, 1.0).state
    assert [("us", State.OPEN, "errors"), ("us", State.CLOSED, "operator")] == told


def test_learn(regions, told):
    """What the fleet has found out counts here, and is told; what changes nothing isn't."""
    regions.learn(US, 20.0, RULE, 0.0)
    regions.learn(US, 10.0, RULE, 0.0)

    assert 20.0 == regions.breaker(US, RULE, 0.0).remaining(0.0)

    regions.learn(US, None, RULE, 1.0)
    regions.learn(EU, None, RULE, 1.0)

    assert [("us", State.OPEN, "fleet"), ("us", State.CLOSED, "fleet")] == told


def test_nobody_listens():
    """Without a listener, changes are made all the same."""
    regions = Regions()
    fail(regions, US)

    assert {("ai", "us", "open"): 1} == regions.states()


def test_metrics(regions):
    """Places by state, and open rate windows, by service and region."""
    one, two = Place("ai", "one", "us"), Place("ai", "two", "us")
    regions.breaker(one, RULE, 0.0)
    fail(regions, two)
    fail(regions, EU)
    regions.windows.open(Room(one, "gpt-4o", b"a"), 10.0)
    regions.windows.open(Room(one, "gpt-4o", b"b"), 20.0)
    regions.windows.open(Room(two, "", b"a"), 20.0)

    assert {("ai", "us", "closed"): 1, ("ai", "us", "open"): 1, ("ai", "eu", "open"): 1} == regions.states()
    assert {("ai", "us"): 3} == regions.spent(5.0)
    assert {("ai", "us"): 2} == regions.spent(15.0)
    assert {} == regions.spent(25.0)


def standing(region, priority, **members):
    known = {
        "service": "ai",
        "resource": "",
        "region": region,
        "priority": priority,
        "weight": 1,
        "residency": region,
        "state": "closed",
        "seconds": 0.0,
        "share": 1.0,
        "order": "",
        "order_seconds": None,
        "windows": 0,
        "window_seconds": 0.0,
        "exhausted": 0,
        "latency": None,
    }
    return Standing(**(known | members))


def test_table(regions):
    """Every region, called or not: what holds of it."""
    fail(regions, EU, now=100.0)
    regions.windows.open(Room(US, "gpt-4o", b"a"), 107.0)
    regions.windows.open(Room(US, "gpt-4o", b"b"), 130.0, exhausted=True)
    regions.windows.open(Room(EU, "gpt-4o", b"b"), 101.0)
    regions.latency.note(US, 0.5, 102.0)

    assert [
        standing("us", 1, windows=2, window_seconds=28.0, exhausted=1, latency=0.5),
        standing("eu", 2, state="open", seconds=3.0, share=0.0),
        standing("ap", 3),
    ] == regions.table([service("us", "eu", "ap")], 102.0, 5000.0)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        pytest.param(
            Order(State.OPEN, FOREVER), {"state": "open", "share": 0.0, "order": "stop"}, id="open, without end"
        ),
        pytest.param(
            Order(State.OPEN, 5060.0),
            {"state": "open", "share": 0.0, "order": "stop", "order_seconds": 60.0},
            id="open",
        ),
        pytest.param(Order(State.CLOSED, 5060.0), {"order": "force", "order_seconds": 60.0}, id="closed"),
        pytest.param(Order(State.CLOSED, 4000.0), {"order": "force", "order_seconds": 0.0}, id="over"),
        pytest.param(None, {}, id="none"),
    ],
)
@pytest.mark.parametrize("called", [False, True], ids=["never called", "called"])
def test_table_of_orders(regions, order, expected, called):
    """An order shows, also of a region that has not been called."""
    if called:
        regions.breaker(US, RULE, 0.0)
    regions.order("ai", "us", order, 0.0)

    assert [standing("us", 1, **expected)] == regions.table([service("us")], 0.0, 5000.0)


def test_table_of_resources(regions):
    """Of a service with resources in its path there is a line for each that was called."""
    for resource in ("one", "two"):
        regions.breaker(Place("ai", resource, "us"), RULE, 0.0)
    regions.breaker(Place("other", "one", "us"), RULE, 0.0)

    assert [standing("us", 1, resource="one"), standing("us", 1, resource="two")] == regions.table(
        [service("us", "eu", resource=True)], 0.0, 0.0
    )


def test_table_of_orders_for_resources(regions):
    """An order holds for resources that were not called yet, too; a line for all of them says so."""
    regions.breaker(Place("ai", "one", "us"), RULE, 0.0)
    regions.order("ai", "us", Order(State.OPEN, 60.0), 0.0)
    ordered = {"state": "open", "share": 0.0, "order": "stop", "order_seconds": 60.0}

    assert [standing("us", 1, resource=resource, **ordered) for resource in ("*", "one")] == regions.table(
        [service("us", "eu", resource=True)], 0.0, 0.0
    )

    regions.order("ai", "us", None, 0.0)

    assert ["one"] == [each.resource for each in regions.table([service("us", "eu", resource=True)], 0.0, 0.0)]


def test_table_in_the_ramp(regions):
    """A region that has just recovered tells which share of its calls it gets."""
    fail(regions, US)
    breaker = regions.breaker(US, RULE, 0.0)
    breaker.settle(breaker.admit(6.0, 0.5), Sign.GOOD, 0.0, 6.0, 0.5)

    assert [standing("us", 1, share=pytest.approx(0.55))] == regions.table([service("us")], 21.0, 0.0)


def test_calls_under_former_rules(regions, told):
    """A call to where a region no longer is, or to one that is gone, judges nothing of what has its name now."""
    old, new = service("us", "eu"), service("us", "eu", resource=True)
    moved = replace(new, regions=(replace(new.regions[0], url="https://{resource}.us"),))
    before = regions.breaker(US, RULE, 0.0, "https://us")
    permits = [before.admit(0.0, 0.0) for _ in range(9)]
    regions.adopt([old], [moved], 0.0)
    late = regions.breaker(US, RULE, 0.0, "https://us")
    gone = regions.breaker(EU, RULE, 0.0, "https://eu")
    permits += [late.admit(0.0, 0.0) for _ in range(9)]
    for breaker in (before, late, gone):
        for permit in permits:
            regions.tell(US, breaker.settle(permit, Sign.UNANSWERED, 0.0, 1.0, 0.5))
            regions.tell(US, breaker.broke(permit, 1.0, 0.5))

    assert ([], {}) == (told, regions.states())

    place = Place("ai", "contoso", "us")
    own = regions.breaker(place, RULE, 0.0, "https://contoso.us")

    assert own is regions.breaker(place, RULE, 0.0, "https://contoso.us") is regions.breaker(place, RULE, 0.0)
    assert not own.retired
