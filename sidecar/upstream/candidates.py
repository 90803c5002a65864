"""
Which regions may take a call, and which of them is asked next.

The rule: this module asks for permits, and gives unused permits back. A full or failing region is skipped only if
another region can be asked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from msgspec import Struct

from sidecar.core.answer.rewrite import deployed, with_model
from sidecar.core.region.breaker import PROBE_PATIENCE, Breaker, Permit, Refusal, State, Transition
from sidecar.core.region.ordering import Candidate, arrange, eligible
from sidecar.core.region.regions import Place, Regions
from sidecar.core.request.plan import may_have_tokens
from sidecar.core.rules import BreakerRule, Region
from sidecar.errors import Refused
from sidecar.net.base import Spool, Stream
from sidecar.upstream.call import Hop, UpstreamCall, room_of
from sidecar.upstream.replay import Rewindable

DENIED_PAUSE = 1.0
"""Seconds until we ask again for a region that another process is probing."""


class Sharing(Protocol):
    """What the fleet knows of regions; see ``fleet/region_sync``."""

    async def claim(self, place: Place, seconds: float) -> bool:
        """Whether this process may probe *place*. If so, no other process may for so many seconds."""

    def release(self, place: Place) -> None:
        """This process does not probe *place* after all."""


class Pick(Struct, frozen=True, gc=False):
    """The region to ask next, by a *permit* of its *breaker*. *last*: no other region would take the call."""

    hop: Hop
    breaker: Breaker
    permit: Permit
    last: bool = False


class Nobody(Struct, frozen=True):
    """No region takes the call now. *seconds*: until one might. *why*: the state of each region, for people."""

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

    def hops(self, outgoing: UpstreamCall, body: bytes | Spool | Stream | Rewindable) -> list[Hop]:
        """The hops to the regions that may take the call, in order. Raises ``Refused`` if there is none."""
        site, allow = outgoing.site, outgoing.allow
        if len(site.regions) == 1 and not allow:
            region = site.regions[0]
            found: tuple[Candidate, ...] = (Candidate(region, region.credential is None),)
        else:
            found = eligible(site.regions, allow)
            if outgoing.microsoft and not site.service.dialect.microsoft_tokens:
                found = tuple(each for each in found if not each.own or may_have_tokens(each.region))
            if not found:
                raise Refused(
                    403,
                    "no-region-allowed",
                    f"The route {outgoing.route.name} allows {', '.join(sorted(allow))} only, and no region of "
                    f"{site.service.name} that this caller may use is there; see `allow` and `residency`.",
                )
            if outgoing.pinned:
                found = found[:1]
            elif site.endpoint is not None and len(found) > 1:
                found = arrange(
                    found,
                    balance=site.service.balance,
                    draws=[self._draw() for _ in found],
                    latency=lambda region: self._regions.latency.of(_place(outgoing, region), self._clock()),
                )
        hops = []
        for candidate in found:
            hop = self._hop(outgoing, candidate, body)
            if hop is not None:
                hops.append(hop)
        if not hops:
            raise Refused(
                400,
                "cannot-rename",
                f"Every region of {site.service.name} calls this model by a name of its own (`deployments`), and that "
                "can be put only into a path, or into a JSON body that is held in memory and names its model once.",
            )
        return hops

    def _hop(
        self, outgoing: UpstreamCall, candidate: Candidate, body: bytes | Spool | Stream | Rewindable
    ) -> Hop | None:
        """The hop to a region; None if that region's name for the model cannot be written into the call."""
        region, site = candidate.region, outgoing.site
        placed = site.service.dialect.placed
        target = site.target if placed is None else placed(site.target, region.url)
        name = region.deployments.get(outgoing.model) if outgoing.model else None
        if name is not None and name != outgoing.model:
            assert site.endpoint is not None
            if site.endpoint.model:
                renamed = deployed(target, outgoing.model, name)
                if renamed is None:
                    return None
                target = renamed
            else:
                changed = with_model(body, name) if isinstance(body, bytes) else None
                if changed is None:
                    return None
                body = changed
        place, own = _place(outgoing, region), candidate.own
        return Hop(region, own, place, room_of(outgoing, place, own=own), target, body)

    async def pick(self, outgoing: UpstreamCall, left: list[Hop], *, only_region: bool = False) -> Pick | Nobody:
        """
        The first of *left* that takes the call. If no other region is left, a full or failing region is asked too: it
        may answer after all, and asking costs nothing. *only_region*: there was only one region from the start.
        """
        windows, now, rule = self._regions.windows, self._clock(), outgoing.site.service.breaker
        refused: list[tuple[bool, float, Hop]] = []
        for hop in left:
            until = windows.until(hop.room, now)
            if until > now:
                refused.append((False, until - now, hop))
                continue
            breaker = self._regions.breaker(hop.place, rule, now, hop.region.url)
            permit = await self._admit(rule, hop.place, breaker, last=False)
            if not isinstance(permit, Refusal):
                return Pick(hop, breaker, permit)
            refused.append((permit.unanswered, permit.seconds, hop))
        soonest, why = inf, []
        for _, seconds, hop in sorted(refused, key=lambda one: one[:2]):
            breaker = self._regions.breaker(hop.place, rule, self._clock(), hop.region.url)
            permit = await self._admit(rule, hop.place, breaker, last=True, only_region=only_region)
            if not isinstance(permit, Refusal):
                return Pick(hop, breaker, permit, last=True)
            soonest = min(soonest, seconds, permit.seconds)
            name = hop.region.name
            why.append(f"{name} is taken out" if permit.forced else f"{name} fails, next try in {permit.seconds:.0f} s")
        return Nobody(soonest, "; ".join(why))

    async def _admit(
        self, rule: BreakerRule, place: Place, breaker: Breaker, *, last: bool, only_region: bool = False
    ) -> Permit | Refusal:
        """
        Ask a region's breaker for a permit. If the fleet shares breakers, ask the fleet before a probe: another process
        may be probing already.
        """
        before = breaker.state
        permit = breaker.admit(self._clock(), self._draw(), last=last, only_region=only_region)
        if isinstance(permit, Refusal) or not permit.probe:
            return permit
        if before is State.OPEN:
            self._regions.tell(place, Transition(State.OPEN, State.HALF_OPEN, "probe"))
        if self._sharing is None or not rule.shared:
            return permit
        try:
            mine = await self._sharing.claim(place, max(rule.open, PROBE_PATIENCE))
        except BaseException:
            breaker.release(permit)
            self._sharing.release(place)
            raise
        if mine:
            return permit
        breaker.postpone(permit, self._clock(), DENIED_PAUSE)
        return Refusal(DENIED_PAUSE, unanswered=True)

    def give_back(self, outgoing: UpstreamCall, pick: Pick) -> None:
        """Give back the permit of a region that is not called after all."""
        pick.breaker.release(pick.permit)
        self.yield_probe(outgoing, pick)

    def yield_probe(self, outgoing: UpstreamCall, pick: Pick) -> None:
        """Let another process probe, if this process was to probe and has learnt nothing."""
        if pick.permit.probe and self._sharing is not None and outgoing.site.service.breaker.shared:
            self._sharing.release(pick.hop.place)


def _place(outgoing: UpstreamCall, region: Region) -> Place:
    return Place(outgoing.site.service.name, outgoing.site.resource, region.name)
