"""
The row about token limits: what two processes use of a route's tokens a minute, with Redis and each by itself.

The rule: used is what the provider's answers say, by the minute in which it gave them; callers always want more than
there is, and what they use differs from what their calls look like.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.bench.fleet import redis, sealed
from tests.bench.lab import Lab, Pace, Region, Row, Sidecar, at
from tests.bench.open_loop import Callers, fresh, on_load_core

LIMIT = 200_000
"""Tokens a minute."""

_TOLERANCE = 0.05
_SIDECARS = ("one", "two")
_CALLERS = 40  # of each
_USED = "200-1200"  # tokens of an answer; the calls are estimated at about 1000
_WARM_UP = 10.0
_LONGEST_PAUSE = 2.0


def tokens(lab: Lab, pace: Pace) -> list[Row]:
    """Two replicas of a route with 200k tokens a minute, for three whole minutes; then without Redis, for one each."""
    window = 20.0 if pace.quick else 60.0
    limits = f"limits: {{tokens_per_minute: {LIMIT}, replicas: {len(_SIDECARS)}}}"
    with lab.region() as region:
        region.be(tokens=_USED, seconds=0.2)
        with redis() as server:
            together = _use(lab, region, limits, sealed(lab, server), window, 3)
        apart = _use(lab, region, limits, "", window, 1)
    whole = [sum(used) for used in together]
    return [
        _row(f"both by Redis, tokens in {window:.0f} s", whole, LIMIT * window / 60, {"by_process": together}),
        *(
            _row(f"{name}, without Redis: its share of them", [used[number] for used in apart],
                 LIMIT * window / 60 / len(_SIDECARS), {"by_process": apart})
            for number, name in enumerate(_SIDECARS)
        ),
    ]  # fmt: skip


def _row(what: str, used: Sequence[int], limit: float, details: dict[str, object]) -> Row:
    """How far *used*, window by window, is from *limit*."""
    off = max((one / limit - 1 for one in used), key=abs)
    return Row("tokens", what, ", ".join(f"{one:,}" for one in used), f"limit {limit:,.0f}", round(1 + off, 3),
               f"within {_TOLERANCE:.0%}", abs(off) <= _TOLERANCE, details)  # fmt: skip


def _use(lab: Lab, region: Region, limits: str, more: str, window: float, windows: int) -> list[list[int]]:
    """Tokens used in each of *windows*, by process."""
    with (
        Sidecar(lab.folder(), at("here", region.port, "/one"), route=limits, more=more) as one,
        Sidecar(lab.folder(), at("here", region.port, "/two"), route=limits, more=more) as two,
    ):
        began = time.monotonic() + _WARM_UP
        on_load_core(_want([one, two], began + window * windows))
    found = [[0] * len(_SIDECARS) for _ in range(windows)]
    for when, name, used in region.usage():
        number = int((when - began) // window)
        if 0 <= number < windows:
            found[number][_SIDECARS.index(name)] += used
    return found


async def _want(sidecars: Sequence[Sidecar], until: float) -> None:
    """More than there is, until then: callers that ask again as soon as they are answered, or told to."""

    async def want(callers: Callers) -> None:
        while time.monotonic() < until:
            call = await callers.call(request)
            if call.status == 429:
                await asyncio.sleep(min(call.retry_after, _LONGEST_PAUSE))
            elif not call.good:
                raise RuntimeError(f"a call was answered with {call.status}")

    request = fresh(max_tokens=500)
    everyone = [Callers(sidecar.port) for sidecar in sidecars]
    await asyncio.gather(*(want(callers) for callers in everyone for _ in range(_CALLERS)))
    for callers in everyone:
        callers.close()
