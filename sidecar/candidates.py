"""
Who is asked: the ways to the regions that may take a call, and which of them is next.

The rule: permits are asked for here, and one that is not used is given back here. A region is refused only where there
is another one to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple, Protocol

from msgspec import Struct

from sidecar.attempt import Leg, Trip, room_of
from sidecar.core.approach import may_have_tokens
from sidecar.core.breaker import PROBE_PATIENCE, Permit, Refusal, State, Transition
from sidecar.core.failover import Candidate, arrange, eligible
from sidecar.core.regions import Place, Regions
from sidecar.core.rules import Region
from sidecar.core.substitution import deployed, with_model
from sidecar.errors import Refused
from sidecar.net.base import Spool, Stream
from sidecar.rewindable import Rewindable

DENIED_PAUSE = 1.0
"""Seconds after which a region that another process probes is asked for again."""


class Sharing(Protocol):
    """What the fleet knows of regions: see ``fleet/regions``."""

    async def claim(self, place: Place, seconds: float) -> bool:
        """Whether this process may probe *place*; nobody else does for so many seconds."""

    def release(self, place: Place) -> None:
        """It has not come to it."""


class Pick(NamedTuple):
    """The region that is next. *last*: nobody else is left who would take the call."""

    leg: Leg
    permit: Permit
    last: bool = False


class Nobody(Struct, frozen=True):
    """No region takes the call now. *seconds* until one might; *why*, for people: what is with each."""

    seconds: float
    why: str


class Candidates:
    """Chooses regions. *clock* is monotonic seconds, *draw* uniform in [0, 1); *sharing* None without a fleet."""

    def __init__(
        self,
        regions: Regions,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        sharing: Sharing | None,
    ) -> None:
        self._regions = regions
        self._clock = clock
        self._draw = draw
        self._sharing = sharing

    def __repr__(self) -> str:
        return f"<Candidates {self._regions!r}>"

    def legs(self, trip: Trip, body: bytes | Spool | Stream | Rewindable) -> list[Leg]:
        """The ways to the regions that may take the call, in order. Raises ``Refused`` where there is none."""
        site, allow = trip.site, trip.allow
        if len(site.regions) == 1 and not allow:
            region = site.regions[0]
            found: tuple[Candidate, ...] = (Candidate(region, region.credential is None),)
        else:
            found = eligible(site.regions, allow)
            if trip.microsoft and not site.service.dialect.name.startswith("azure-"):
                found = tuple(each for each in found if not each.own or may_have_tokens(each.region))
            if not found:
                raise Refused(
                    403,
                    "no-region-allowed",
                    f"The route {trip.route.name} allows {', '.join(sorted(allow))} only, and no region of "
                    f"{site.service.name} that this caller may use is there; see `allow` and `residency`.",
                )
            if trip.pinned:
                found = found[:1]
            elif site.endpoint is not None and len(found) > 1:
                found = arrange(
                    found,
                    balance=site.service.balance,
                    draws=[self._draw() for _ in found],
                    latency=lambda region: self._regions.latency.of(_place(trip, region), self._clock()),
                )
        legs = [leg for candidate in found if (leg := self._leg(trip, candidate, body)) is not None]
        if not legs:
            raise Refused(
                400,
                "cannot-rename",
                f"Every region of {site.service.name} calls this model by a name of its own (`deployments`), and that "
                "can be put only into a path, or into a JSON body that is held in memory and names its model once.",
            )
        return legs

    def _leg(self, trip: Trip, candidate: Candidate, body: bytes | Spool | Stream | Rewindable) -> Leg | None:
        """The way to a region; None where the model's name there cannot be put into the call."""
        region, site = candidate.region, trip.site
        target = site.target
        name = region.deployments.get(trip.model) if trip.model else None
        if name is not None and name != trip.model:
            assert site.endpoint is not None
            if site.endpoint.model:
                renamed = deployed(target, trip.model, name)
                if renamed is None:
                    return None
                target = renamed
            else:
                changed = with_model(body, name) if isinstance(body, bytes) else None
                if changed is None:
                    return None
                body = changed
        return Leg(region, candidate.own, _place(trip, region), target, body)

    async def pick(self, trip: Trip, left: list[Leg], *, sole: bool = False) -> Pick | Nobody:
        """
        The first of *left* that takes the call. A region without room, or one that fails, still gets it where nobody
        else is left: it may answer after all, and nothing is lost by asking. *sole*: there never was anybody else.
        """
        windows, now = self._regions.windows, self._clock()
        refused: list[tuple[bool, float, Leg]] = []
        for leg in left:
            until = windows.until(room_of(trip, leg), now)
            if until > now:
                refused.append((False, until - now, leg))
                continue
            permit = await self._admit(trip, leg, last=False)
            if not isinstance(permit, Refusal):
                return Pick(leg, permit)
            refused.append((permit.unanswered, permit.seconds, leg))
        soonest, why = inf, []
        for _, seconds, leg in sorted(refused, key=lambda one: one[:2]):
            permit = await self._admit(trip, leg, last=True, sole=sole)
            if not isinstance(permit, Refusal):
                return Pick(leg, permit, last=True)
            soonest = min(soonest, seconds, permit.seconds)
            name = leg.region.name
            why.append(f"{name} is taken out" if permit.forced else f"{name} fails, next try in {permit.seconds:.0f} s")
        return Nobody(soonest, "; ".join(why))

    async def _admit(self, trip: Trip, leg: Leg, *, last: bool, sole: bool = False) -> Permit | Refusal:
        """
        Leave of a region's breaker. Whether a probe is ours to send is asked of the fleet where it judges together:
        another process may be at it.
        """
        rule = trip.site.service.breaker
        breaker = self._regions.breaker(leg.place, rule, self._clock())
        before = breaker.state
        permit = breaker.admit(self._clock(), self._draw(), last=last, sole=sole)
        if isinstance(permit, Refusal) or not permit.probe:
            return permit
        if before is State.OPEN:
            self._regions.tell(leg.place, Transition(State.OPEN, State.HALF_OPEN, "probe"))
        if self._sharing is None or not rule.shared:
            return permit
        try:
            mine = await self._sharing.claim(leg.place, max(rule.open, PROBE_PATIENCE))
        except BaseException:
            self.give_back(trip, Pick(leg, permit))
            raise
        if mine:
            return permit
        breaker.postpone(permit, self._clock(), DENIED_PAUSE)
        return Refusal(DENIED_PAUSE, unanswered=True)

    def give_back(self, trip: Trip, pick: Pick) -> None:
        """It has not come to it."""
        self._regions.breaker(pick.leg.place, trip.site.service.breaker, self._clock()).release(pick.permit)
        self.yield_probe(trip, pick)

    def yield_probe(self, trip: Trip, pick: Pick) -> None:
        """Let another process probe, where this one was to and has learnt nothing."""
        if pick.permit.probe and self._sharing is not None and trip.site.service.breaker.shared:
            self._sharing.release(pick.leg.place)


def _place(trip: Trip, region: Region) -> Place:
    return Place(trip.site.service.name, trip.site.resource, region.name)
