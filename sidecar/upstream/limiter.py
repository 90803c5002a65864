"""
Our own throttling: which calls of a route may go to a service now, which calls wait, and which are refused.

The rule: a route without limits has no limiter. Each other route has its own limiter, which alone decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from sidecar.core.limits.rates import limited
from sidecar.core.rules import NO_LIMITS, Route, RouteLimits
from sidecar.tasks import Spawn
from sidecar.upstream.route_limiter import CAUSES, UNLIMITED, CallLater, Quota, RouteLimiter, Slot


class Throttle:
    """
    The limits of all routes. *quota*: the fleet's rates, None without a fleet. *pods* returns how many processes the
    last count of the fleet found, None if unknown. *clock* is monotonic seconds. *spawn* owns the tasks that ask the
    fleet. *call_later* is the event loop's.
    """

    def __init__(
        self,
        *,
        quota: Quota | None,
        pods: Callable[[], int | None],
        clock: Callable[[], float],
        spawn: Spawn,
        call_later: CallLater | None = None,
    ) -> None:
        self._quota = quota
        self._pods = pods
        self._clock = clock
        self._spawn = spawn
        self._call_later = call_later or (lambda seconds, step: asyncio.get_running_loop().call_later(seconds, step))
        self._limiters: dict[str, RouteLimiter] = {}
        self._limits: Mapping[str, RouteLimits] = {}

    def __repr__(self) -> str:
        return f"<Throttle {' '.join(map(repr, self._limiters.values())) or 'nothing limited yet'}>"

    def idle(self, route: Route) -> bool:
        """Whether *route* has no limits, so that its calls need not enter."""
        return not limited(route.limits)

    async def enter(self, route: Route, tokens: int, *, deadline: float | None = None, batch: bool = False) -> Slot:
        """
        Wait for the turn of a call with about *tokens* tokens (``core/limits/rates.estimate``). After *deadline*, by
        the clock, the call is of no use. *batch*: it waits behind all calls that are not batch.

        Raises ``Refused`` (429 ``route-limit``), with the time to retry, once its turn cannot come in time.
        """
        limiter = self._limiters.get(route.name)
        if limiter is None:
            limiter = self._limiters[route.name] = RouteLimiter(
                route, self._quota, self._pods, self._clock, self._spawn, self._call_later
            )
            limiter.tune(self._limits.get(route.name, route.limits))
        return await limiter.enter(tokens, deadline, batch=batch)

    def adopt(self, routes: Iterable[Route]) -> None:
        """
        The limits of *routes* hold from now on, also for calls that wait: those that have room go, those that are too
        many are refused. A route without limits, or without its route, lets all of its calls go.
        """
        limits = {route.name: route.limits for route in routes if limited(route.limits)}
        self._limits = limits
        for name, limiter in list(self._limiters.items()):
            limiter.tune(limits.get(name, NO_LIMITS))
            limiter.step()
            if name not in limits and not (limiter.waiting or limiter.inside):
                del self._limiters[name]

    def waiting(self) -> Mapping[str, int]:
        """How many calls wait, by route."""
        return {name: limiter.waiting for name, limiter in self._limiters.items()}

    def inside(self) -> Mapping[str, int]:
        """How many calls are under way, by route."""
        return {name: limiter.inside for name, limiter in self._limiters.items()}

    def room(self) -> Mapping[str, int]:
        """How many calls may be under way, by route; only for routes with limited concurrency."""
        return {name: limiter.room for name, limiter in self._limiters.items() if limiter.room != UNLIMITED}

    def shed(self) -> Mapping[tuple[str, str], int]:
        """How many calls were refused since the start, by route and ``CAUSES``."""
        return {(name, cause): limiter.shed[cause] for name, limiter in self._limiters.items() for cause in CAUSES}
