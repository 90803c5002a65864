"""
The row about hedging: a region of whose answers a few are slow, asked with and without it at the same time.

The rule: both sides get the same load in the same seconds, from a region that draws which answers are slow; what a
hedge costs is counted there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.bench.lab import Lab, Pace, Row, Sidecar, at
from tests.bench.open_loop import Call, Callers, fresh, on_load_core, p99, press, tally

_RATE = 100
_WARM_UP = 5.0  # seconds: the pace of a route is not known at once, and its budget grows with its calls
_SHARE = 0.03
_TIMES = 20.0


def hedging(lab: Lab, pace: Pace) -> list[Row]:
    """3 % of the answers take 20 times as long: p99 with hedging to p99 without, and the extra calls."""
    seconds = 10 if pace.quick else 60
    with lab.region() as region:
        region.be(share=_SHARE, times=_TIMES)
        with (
            Sidecar(lab.folder(), at("here", region.port, "/off")) as off,
            Sidecar(lab.folder(), at("here", region.port, "/on"), route="retry: {hedge: true}") as on,
        ):
            without, hedged = on_load_core(_ask([off, on], _WARM_UP + seconds))
        extra = region.calls("on") - len(hedged)
        if region.calls("off") != len(without):
            raise RuntimeError("the side without hedging was called more often than it was asked")
    first = int(_RATE * _WARM_UP)
    measured = p99(without[first:]), p99(hedged[first:])
    bad = [call for call in (*without, *hedged) if not call.good]
    ratio = measured[1] / measured[0]
    details = {"calls": len(hedged), "extra": extra, "p99": measured, "failed": tally(bad, lambda call: call.status)}
    name = "hedging"
    return [
        Row(name, f"p99 with {_SHARE:.0%} of the answers slow, ms", f"{measured[1]:.0f}", f"without {measured[0]:.0f}",
            round(ratio, 2), "<= 0.5", ratio <= 0.5 and not bad, details,
            f"failed: {details['failed']}" if bad else ""),
        Row(name, f"extra calls for {len(hedged)}", str(extra), ratio=round(extra / len(hedged), 3), bar="<= 0.05",
            reached=extra <= 0.05 * len(hedged)),
    ]  # fmt: skip


async def _ask(sides: Sequence[Sidecar], seconds: float) -> list[list[Call]]:
    """The calls of each side."""
    callers = [Callers(side.port) for side in sides]
    pressing = (press(each, [fresh()], rate=_RATE, seconds=seconds) for each in callers)
    found = await asyncio.gather(*pressing)
    for each in callers:
        each.close()
    return list(found)
