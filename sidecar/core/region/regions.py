"""
What is known here of the regions of all services, and what an operator or the fleet says about them.

The rule: this is the one place for it. Each judgement is a part of its own (``breaker``, ``quota_windows``,
``retry_budget``, ``latency``); here they are found by place, and shown as one table.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec import Struct

from sidecar.core.region.breaker import Breaker, State, Transition
from sidecar.core.region.latency import Latency
from sidecar.core.region.orders import FORCE, STOP
from sidecar.core.region.quota_windows import Windows
from sidecar.core.region.retry_budget import Budget, HedgeBudget
from sidecar.core.rules import BreakerRule, Region, Service

PLACES = 1024
"""The most places with a breaker; only services with a resource in their path can have more."""

ORDERS = {State.OPEN: STOP, State.CLOSED: FORCE}
"""The name of an order, by the state in which it keeps a breaker: the name says what happens to the traffic."""

EVERY = "*"
"""Stands for all resources of a service, also those without a call yet; no resource has this name."""


class Place(NamedTuple):
    """A region of a service, or of one *resource* of it (``""`` for none)."""

    service: str
    resource: str
    region: str


class Room(NamedTuple):
    """What a rate window is about: a quota belongs to a *credential* (its digest) and mostly to one *deployment*."""

    place: Place
    deployment: str
    credential: bytes


class Order(Struct, frozen=True):
    """
    What an operator says of a region: *state* OPEN, no calls; CLOSED, calls whatever happens. *until* is seconds since
    the epoch, ``inf`` for no end.
    """

    state: State
    until: float


class Standing(Struct, frozen=True):
    """
    The state of one place. *seconds* until it is tried again; *share*, from 0 to 1, of its usual calls that it gets
    now; *order* is ``stop``, ``force`` or ``""``, for *order_seconds* more, None for no end; *windows* is how many rate
    windows are open, the longest for *window_seconds*, *exhausted* in how many of them the credential has no money or
    quota left; *latency* is the recent mean to an answer's first content, seconds.
    """

    service: str
    resource: str
    region: str
    priority: int
    weight: int
    residency: str
    state: str
    seconds: float
    share: float
    order: str
    order_seconds: float | None
    windows: int
    window_seconds: float
    exhausted: int
    latency: float | None


class Regions:
    """
    What this process knows of regions. *on_transition* is called with every change of a breaker's state. Times are
    monotonic seconds, except the end of an order.
    """

    def __init__(self, on_transition: Callable[[Place, Transition], None] = lambda _, __: None) -> None:
        self.on_transition = on_transition
        self.windows = Windows()
        self.latency = Latency()
        self._breakers: OrderedDict[Place, Breaker] = OrderedDict()
        self._budgets: dict[str, Budget] = {}
        self._hedges: dict[str, HedgeBudget] = {}
        self._orders: dict[tuple[str, str], Order] = {}
        self._urls: dict[tuple[str, str], str] = {}  # since other services were adopted

    def __repr__(self) -> str:
        return f"<Regions {len(self._breakers)} breakers, {len(self._orders)} orders>"

    def breaker(self, place: Place, rule: BreakerRule, now: float, url: str = "") -> Breaker:
        """
        The breaker of *place*, made by *rule* where there is none yet. A call under former rules says the *url* to
        which it goes: if the region is elsewhere now, the call gets a breaker of its own, whose verdict counts for
        nothing.
        """
        if self._is_former(place, url):
            former = Breaker(rule)
            former.retire()
            return former
        breaker = self._breakers.get(place)
        if breaker is None:
            breaker = self._breakers[place] = Breaker(rule)
            order = self._orders.get((place.service, place.region))
            moved = breaker.force(order.state, now) if order is not None else None
            if place.resource:  # otherwise the order itself was reported
                self.tell(place, moved)
            if len(self._breakers) > PLACES:
                self._make_room()
        return breaker

    def _is_former(self, place: Place, url: str) -> bool:
        known = self._urls.get((place.service, place.region), "")
        return bool(url and self._urls) and known.replace("{resource}", place.resource) != url

    def _make_room(self) -> None:
        """Drop the oldest breaker of a resource, because callers can make up names of resources."""
        oldest = next((place for place in self._breakers if place.resource), None)
        if oldest is not None:
            del self._breakers[oldest]

    def adopt(self, before: Iterable[Service], after: Iterable[Service], now: float) -> None:
        """
        Other services hold from now on. A region that stays keeps what is known of it, and its breaker judges by the
        new rule. What is known of a region is forgotten if it is gone, or has moved to another URL; the quotas also if
        its credential or its deployments are others.
        """
        was, become = (
            {(service.name, region.name): (service, region) for service in services for region in service.regions}
            for services in (before, after)
        )
        same = {name for name in was.keys() & become.keys() if was[name][1].url == become[name][1].url}
        fit = {name for name in same if _quota(was[name][1]) == _quota(become[name][1])}
        for place, breaker in list(self._breakers.items()):
            if (place.service, place.region) in same:
                breaker.tune(become[place.service, place.region][0].breaker, now)
            else:
                breaker.retire()
                del self._breakers[place]
        self._urls = {name: region.url for name, (_, region) in become.items()}
        self.latency.drop(lambda place: isinstance(place, Place) and (place.service, place.region) not in same)
        self.windows.drop(lambda room: isinstance(room, Room) and (room.place.service, room.place.region) not in fit)
        names = {service.name for service, _ in become.values()}
        self._budgets = {name: budget for name, budget in self._budgets.items() if name in names}
        self._hedges = {name: budget for name, budget in self._hedges.items() if name in names}

    def budget(self, service: str) -> Budget:
        """The extra attempts that *service* has left."""
        budget = self._budgets.get(service)
        if budget is None:
            budget = self._budgets[service] = Budget()
        return budget

    def hedges(self, service: str) -> HedgeBudget:
        """The hedged calls that *service* has left."""
        budget = self._hedges.get(service)
        if budget is None:
            budget = self._hedges[service] = HedgeBudget()
        return budget

    def order(self, service: str, region: str, order: Order | None, now: float) -> None:
        """Apply *order* to a region, in every resource; None: its breakers decide again."""
        before = self._orders.pop((service, region), None)
        if order is not None:
            self._orders[service, region] = order
        places = [place for place in self._breakers if (place.service, place.region) == (service, region)]
        for place in places:
            self.tell(place, self._breakers[place].force(order.state if order is not None else None, now))
        was, becomes = _state_by(before), _state_by(order)
        if not places and was is not becomes:  # never called, so no breaker reports it
            self.tell(Place(service, "", region), Transition(was, becomes, "operator"))

    def learn(self, place: Place, open_for: float | None, rule: BreakerRule, now: float) -> None:
        """The fleet has opened *place* for *open_for* seconds, or closed it."""
        self.tell(place, self.breaker(place, rule, now).learn(open_for, now))

    def tell(self, place: Place, transition: Transition | None) -> None:
        """Report the change of a breaker's state, if there was one."""
        if transition is not None:
            self.on_transition(place, transition)

    def states(self) -> dict[tuple[str, str, str], int]:
        """How many places of each service and region are in each state; for metrics."""
        found: dict[tuple[str, str, str], int] = {}
        for place, breaker in self._breakers.items():
            label = (place.service, place.region, breaker.state.value)
            found[label] = found.get(label, 0) + 1
        return found

    def spent(self, now: float) -> dict[tuple[str, str], int]:
        """How many rate windows are open, by service and region; for metrics."""
        found: dict[tuple[str, str], int] = {}
        for room in self.windows.places(now):
            assert isinstance(room, Room)
            label = (room.place.service, room.place.region)
            found[label] = found.get(label, 0) + 1
        return found

    def budgets_left(self, now: float) -> dict[str, float]:
        """The extra attempts that each service has left; for metrics."""
        return {service: budget.left(now) for service, budget in self._budgets.items()}

    def table(self, services: Iterable[Service], now: float, wall: float) -> list[Standing]:
        """
        Every region of *services*. For a service with resources in its path: those that have been called, and a line
        for ``*``, all resources, while an order holds.
        """
        return [
            self._standing(place, region, now, wall)
            for service in services
            for region in service.regions
            for place in self._places(service, region)
        ]

    def _places(self, service: Service, region: Region) -> list[Place]:
        if not service.resource:
            return [Place(service.name, "", region.name)]
        called = [place for place in self._breakers if (place.service, place.region) == (service.name, region.name)]
        ordered = (service.name, region.name) in self._orders
        return [Place(service.name, EVERY, region.name), *called] if ordered else called

    def _standing(self, place: Place, region: Region, now: float, wall: float) -> Standing:
        breaker = self._breakers.get(place)
        order = self._orders.get((place.service, place.region))
        windows = self.windows.among((place,), now)
        return Standing(
            service=place.service,
            resource=place.resource,
            region=place.region,
            priority=region.priority,
            weight=region.weight,
            residency=region.residency,
            state=(breaker.state if breaker is not None else _state_by(order)).value,
            seconds=breaker.remaining(now) if breaker is not None else 0.0,
            share=breaker.share(now) if breaker is not None else float(order is None or order.state is State.CLOSED),
            order="" if order is None else ORDERS[order.state],
            order_seconds=None if order is None or order.until == float("inf") else max(order.until - wall, 0.0),
            windows=len(windows),
            window_seconds=max((window.until - now for window in windows), default=0.0),
            exhausted=sum(window.exhausted for window in windows),
            latency=self.latency.of(place, now),
        )


def _quota(region: Region) -> tuple[object, ...]:
    """Whose quotas a region's calls use."""
    return region.credential, dict(region.deployments)


def _state_by(order: Order | None) -> State:
    """The state of a region that has not been called."""
    return order.state if order is not None else State.CLOSED
