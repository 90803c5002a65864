"""
What operators can do to a sidecar: purge, change the mode, and say which regions take calls.

The rule: an action takes effect in this process at once, and in the fleet as far as the fleet can be reached. The
answer says what really happened.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Protocol

from sidecar.admin.actions import (
    FleetProgress,
    ModeRequest,
    ModeResult,
    PurgeRequest,
    PurgeResult,
    RegionRequest,
    RegionResult,
)
from sidecar.core.cache.purges import Purges, Scope, ScopeKind, taking
from sidecar.core.model import Key, Position
from sidecar.core.region.regions import ORDERS, Order, Regions, Standing
from sidecar.core.rules import Mode, Service
from sidecar.core.term import Term, term
from sidecar.errors import FleetAway, Refused
from sidecar.net.request_file import read_request
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.handler import Proxy
from sidecar.store.memory import Memory

FLEETS_SECONDS = 30 * 86400.0
"""How long a mode or an order holds in the fleet if no end is given."""

_STATES = {word: state for state, word in ORDERS.items()}


class FleetLog(Protocol):
    """The fleet's log; ``fleet/purge_log.PurgeLog``."""

    async def purge(self, scopes: Iterable[Scope]) -> Position | None:
        """Purge here at once, and everywhere."""

    async def set_mode(self, mode: Mode | None, until: float = 0.0) -> bool:
        """Set the fleet's mode here at once, and everywhere; False: it waits for Redis."""


class Orders(Protocol):
    """The fleet's orders; ``fleet/region_sync.FleetRegions``."""

    async def order(self, service: str, region: str, order: Order | None) -> str:
        """Let *order* hold in the whole fleet. Returns why Redis refuses it, else ``""``. Raises ``FleetAway``."""


class Operations:
    """
    The actions. *mode* and *services* are the configuration's. *forget* makes the listener judge requests anew.
    *on_mode* is called with the former mode after each change of the mode in force, whoever made it. *now* is
    wall-clock seconds, *clock* seconds that run on. *log* and *orders* are None if there is no fleet. *on_purge* is
    called after each purge in this process, whoever asked for it.
    """

    def __init__(
        self,
        mode: Mode,
        proxy: Proxy,
        memory: Memory,
        flights: Flights,
        purges: Purges,
        regions: Regions,
        services: Sequence[Service],
        *,
        forget: Callable[[], None],
        on_mode: Callable[[Mode], None],
        now: Callable[[], float],
        clock: Callable[[], float],
        port: Callable[[], int],
    ) -> None:
        self._configured = self._mode = mode
        self._proxy = proxy
        self._memory = memory
        self._flights = flights
        self._purges = purges
        self._regions = regions
        self._services = services
        self._forget = forget
        self._on_mode = on_mode
        self._now = now
        self._clock = clock
        self._port = port
        self._own: tuple[Mode, Term] | None = None
        self._fleets: tuple[Mode, Term] | None = None
        self._own_orders: dict[tuple[str, str], Order] = {}
        self._fleets_orders: Mapping[tuple[str, str], Order] = {}
        self._orders: dict[tuple[str, str], Order] = {}
        self._terms: dict[tuple[tuple[str, str], Order], Term] = {}
        self._sweeping = False
        self.log: FleetLog | None = None
        self.orders: Orders | None = None
        self.on_purge: Callable[[tuple[Scope, ...]], None] = lambda _: None
        self.purged = 0

    def __repr__(self) -> str:
        return f"<Operations mode {self._mode}, {self.purged} purges>"

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._mode

    @property
    def source(self) -> str:
        """What set the mode in force: ``fleet``, this ``process`` alone, or the ``configuration``."""
        return "fleet" if self._fleets else "process" if self._own else "configuration"

    def adopt(self, mode: Mode, services: Sequence[Service]) -> None:
        """The configuration says otherwise. A mode or an order that somebody has set goes on until its end."""
        self._configured = mode
        self._services = services
        self.tick()

    def standing(self) -> ModeResult:
        """The mode in force, and for how much longer."""
        said = self._fleets or self._own
        left = None if said is None or said[1].until == inf else max(self._left(said[1]), 0.0)
        return ModeResult(self._mode, left, "local" if self._fleets is None else "done")

    def take(self, scopes: tuple[Scope, ...]) -> None:
        """Carry out a purge in this process, whoever asked for it: in memory, and for answers in flight."""
        self.purged += len(scopes)
        self._flights.detach(scopes)
        self._sweeping = self._memory.purge(scopes)
        self.on_purge(scopes)

    def take_mode(self, mode: Mode | None, until: float) -> None:
        """The fleet's mode, or its end, wall clock, has changed; None: it has none."""
        self._fleets = None if mode is None else (mode, self._term(until))
        self.tick()

    def take_orders(self, orders: Mapping[tuple[str, str], Order]) -> None:
        """The fleet's orders have changed; *orders* are those that hold now, by service and region."""
        self._fleets_orders = orders
        self.tick()

    def table(self) -> list[Standing]:
        """How every region stands."""
        return self._regions.table(self._services, self._clock(), self._now())

    def tick(self) -> None:
        """Do what is due: a purge's next step, the end of a mode or of an order. Called every second or so."""
        self._tick_orders()
        if self._fleets is not None and self._left(self._fleets[1]) <= 0.0:
            self._fleets = None
        if self._own is not None and self._left(self._own[1]) <= 0.0:
            self._own = None
        said = self._fleets or self._own
        before, self._mode = self._mode, said[0] if said is not None else self._configured
        if before is not self._mode:
            self._proxy.switch(self._mode)
            self._forget()
            self._on_mode(before)

    async def sweep(self) -> None:
        """Go on with a purge, or with a memory that has become smaller, where one step was not enough."""
        while self._sweeping:
            self._sweeping = self._memory.purge_on()
            await asyncio.sleep(0)
        while self._memory.shrink():  # noqa: ASYNC110  it works, it does not wait
            await asyncio.sleep(0)

    async def purge(self, asked: PurgeRequest) -> PurgeResult:
        """Purge here, and in the fleet where that was asked for; with ``dry_run`` count only."""
        scope, _ = self.named(asked)
        entries = await self.count(scope)
        if asked.dry_run:
            return PurgeResult(entries, "", "local")
        if self.log is None or not asked.fleet:
            await self.remove((scope,), fleet=False)
            return PurgeResult(entries, "", "local")
        position = await self.remove((scope,))
        if position is None:
            return PurgeResult(entries, "", "pending")
        return PurgeResult(entries, f"{position.incarnation.hex()}:{position.number}", "done")

    async def remove(self, scopes: tuple[Scope, ...], *, fleet: bool = True) -> Position | None:
        """Purge *scopes* here, and in the *fleet* if there is one; their position in its log once they stand there."""
        position = None
        if self.log is not None and fleet:
            position = await self.log.purge(scopes)
        else:
            self._purges.apply(scopes, pending=False)
            self.take(scopes)
        await self.sweep()
        return position

    async def change(self, asked: ModeRequest) -> ModeResult:
        """Set ``ControlServer``. Changing to the configuration's own mode ends an earlier change."""
        mode = None if asked.mode is self._configured and asked.seconds is None else asked.mode
        until = inf if asked.seconds is None else self._now() + asked.seconds
        fleet: FleetProgress = "local"
        if self.log is not None and asked.fleet:
            written = await self.log.set_mode(mode, min(until, self._now() + FLEETS_SECONDS))
            fleet = "done" if written else "pending"
        if mode is None:
            self._own = None
        elif fleet == "local":
            self._own = mode, self._term(until)
        self.tick()
        return replace(self.standing(), fleet=fleet)

    async def region(self, asked: RegionRequest) -> RegionResult:
        """Stop ``ControlServer``. The fleet's order takes precedence over this process's own."""
        self._check(asked.service, asked.region)
        place = asked.service, asked.region
        until = inf if asked.seconds is None else self._now() + asked.seconds
        order = None if asked.action == "auto" else Order(_STATES[asked.action], until)
        fleet: FleetProgress = "local"
        why = ""
        if self.orders is not None and asked.fleet:
            limited = order and Order(order.state, min(until, self._now() + FLEETS_SECONDS))
            try:
                why = await self.orders.order(*place, limited)
            except FleetAway:
                raise _away() from None
            fleet = "local" if why else "done"
        if order is None:
            self._own_orders.pop(place, None)
        elif fleet == "local":
            self._own_orders[place] = order
        self.tick()
        return RegionResult([each for each in self.table() if (each.service, each.region) == place], fleet, why)

    def _tick_orders(self) -> None:
        """Apply the orders that hold now, and end the others."""
        said = {*self._own_orders.items(), *self._fleets_orders.items()}
        self._terms = {each: self._terms.get(each) or self._term(each[1].until) for each in said}
        lasting = {each for each in said if self._left(self._terms[each]) > 0.0}
        self._own_orders = {place: order for place, order in self._own_orders.items() if (place, order) in lasting}
        fleets = {place: order for place, order in self._fleets_orders.items() if (place, order) in lasting}
        ours = {(service.name, region.name) for service in self._services for region in service.regions}
        holding = {place: order for place, order in {**self._own_orders, **fleets}.items() if place in ours}
        for service, region in self._orders.keys() | holding.keys():
            order = holding.get((service, region))
            if order != self._orders.get((service, region)):
                self._regions.order(service, region, order, self._clock())
        self._orders = holding

    def _term(self, until: float) -> Term:
        return term(until, self._now(), self._clock())

    def _left(self, term_: Term) -> float:
        return term_.left(self._now(), self._clock())

    def _check(self, service: str, region: str) -> None:
        services = {each.name: each for each in self._services}
        if service not in services:
            raise Refused(404, "unknown-service", _unknown(f"there is no service {service}", service, services))
        regions = [each.name for each in services[service].regions]
        if region not in regions:
            raise Refused(404, "unknown-region", _unknown(f"{service} has no region {region}", region, regions))

    def named(self, asked: PurgeRequest) -> tuple[Scope, Key | None]:
        """The scope that is asked for, and the whole key if that is known. Raises ``Refused``."""
        if asked.scope == "request":
            of_request = self._key_of_request(asked.request)
            return Scope(ScopeKind.KEY, of_request.address.hex()), of_request
        if asked.scope == "request-id":
            key = self._proxy.ids.key(asked.value)
            if key is None:
                raise Refused(
                    404,
                    "unknown-id",
                    "this process has not answered that call lately, or not from a key; ids are known to the process "
                    "that gave them, for its last few thousand calls",
                )
            return Scope(ScopeKind.KEY, key.address.hex()), key
        return Scope(ScopeKind(asked.scope), asked.value), None

    def _key_of_request(self, raw: bytes) -> Key:
        head, body = read_request(raw, self._port(), {service.port for service in self._services if service.port})
        if head is None:
            raise Refused(400, "no-request", "the file holds no HTTP request: a request line, fields, an empty line")
        key = self._proxy.key_of(head, body)
        if key is None:
            raise Refused(400, "no-key", "this request is never looked up, so it has no entry; see `sidecar explain`")
        return key

    async def entries_by_route(self) -> Mapping[str, int]:
        """How many entries memory holds, by the route that stored them."""
        found: Counter[str] = Counter()
        for entries in self._memory.walk():
            found.update([held.entry.route for _, held in entries])
            await asyncio.sleep(0)
        return found

    async def count(self, scope: Scope) -> int:
        """How many entries memory holds that a purge of *scope* removes."""
        taken, found = taking((scope,)), 0
        for entries in self._memory.walk():
            found += sum(taken(key, held) for key, held in entries)
            await asyncio.sleep(0)
        return found


def _away() -> Refused:
    text = "Redis does not answer, so the fleet may not have heard of it; look with `sidecar region ls`, and try again"
    return Refused(503, "fleet-away", text)


def _unknown(text: str, name: str, known: Iterable[str]) -> str:
    """*text*, with the name that was probably meant, or with the known names."""
    from difflib import get_close_matches  # noqa: PLC0415  only for who made a slip

    names = sorted(known)
    meant = get_close_matches(name, names, 1)
    return (
        f"{text}; did you mean {meant[0]}?"
        if meant
        else f"{text}; there {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
    )
