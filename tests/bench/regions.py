"""
The rows about a region that fails: two regions on real sockets under 200 calls a second, and what callers feel of it.

The rule: the first region has all the traffic until it fails, so the failure hits every call; an error counts unless
it had been handed on before the region broke, for then no other region could have prevented it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench.lab import Lab, Pace, Region, Row, Sidecar, at
from tests.bench.load import Caller
from tests.bench.open_loop import Call, Callers, fresh, on_load_core, p99, press, tally

RATE = 200
"""Calls a second."""

_SHARE_AT = (5, 15, 30)
_SHARE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Times:
    """
    Seconds: how long all is well, how long the first region fails, when attempts are counted and when all is over, the
    last two from the failure on. *settled*: so long before the end of the failure, it is no news to the sidecar.
    """

    warm_up: float
    failing: float
    counted: float
    over: float
    settled: float
    first_byte: str


_FULL = _Times(warm_up=10, failing=15, counted=30, over=46, settled=10, first_byte="2s")
# The retry budget has a floor and grows with the calls of 10 s: with a warm-up so short, calls can't hang for 2 s.
_QUICK = _Times(warm_up=2, failing=3, counted=6, over=9, settled=1, first_byte="500ms")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What happened: the *calls*, when it *failed* and *healed*, and attempts in the time in which they count."""

    calls: Sequence[Call]
    failed: float
    healed: float
    attempts: int


def region(how: str, lab: Lab, pace: Pace) -> list[Row]:
    """The first of two regions fails like *how* (see ``region.Behaviour``) and heals: errors, attempts, latency."""
    times = _QUICK if pace.quick else _FULL
    route = f"timeouts: {{connect: 500ms, first_byte: {times.first_byte}, idle: 5s}}, retry: {{on_timeout: true}}"
    with (
        lab.region() as first,
        lab.region() as second,
        Sidecar(lab.folder(), f"{at('a', first.port)}, {at('b', second.port, priority=2)}", route=route) as sidecar,
    ):
        return _rows(how, on_load_core(_fail(how, sidecar, first, second, times)), times)


def attempts(sidecar: Sidecar) -> int:
    """How often the sidecar has asked a region, whether it could be reached or not, for calls that are over."""
    with Caller(sidecar.health_port) as caller:
        lines = caller.get("/metrics").decode().splitlines()
    counters = ("sidecar_upstream_responses_total{", "sidecar_failovers_total{")
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(counters))


async def _fail(how: str, sidecar: Sidecar, first: Region, second: Region, times: _Times) -> _Seen:
    """All calls of the time, with the first region failing in the midst of it."""
    requests = [fresh(stream=True)] if how.startswith("break") else [fresh(), fresh(stream=True)]
    callers = Callers(sidecar.port)
    began = time.monotonic()
    pressing = asyncio.ensure_future(press(callers, requests, rate=RATE, seconds=times.warm_up + times.over))
    failed = began + times.warm_up

    async def until(moment: float) -> None:
        await asyncio.sleep(moment - time.monotonic())

    def asked() -> tuple[int, int]:
        return attempts(sidecar), first.calls() + second.calls()

    await until(failed)
    before = await asyncio.to_thread(asked)
    first.be(how)
    failed = time.monotonic()
    await until(failed + times.failing)
    first.be("well")
    healed = time.monotonic()
    await until(failed + times.counted)
    after = await asyncio.to_thread(asked)
    calls = await pressing
    callers.close()
    # the sidecar's own count knows attempts that reached nobody, the regions' those of calls that aren't over
    return _Seen(calls, failed, healed, max(now - then for now, then in zip(after, before, strict=True)))


def _rows(how: str, seen: _Seen, times: _Times) -> list[Row]:
    name = f"regions-{how}"
    failed, healed = seen.failed, seen.healed
    late = [call for call in seen.calls if not call.good and call.begun and call.region == "a"]
    errors = [call for call in seen.calls if not call.good and call not in late]
    counted = sum(0 <= call.due - failed < times.counted for call in seen.calls)
    flying = sum(call.due < failed < call.due + call.seconds for call in seen.calls)
    usual = p99(call for call in seen.calls if 0.2 * times.warm_up < failed - call.due <= 0.8 * times.warm_up)
    unaffected = p99(call for call in seen.calls if 0 < healed - call.due <= times.settled)
    again = min((call.due - healed for call in seen.calls if call.due > healed and call.region == "a"), default=None)
    shares = [
        _share(call for call in seen.calls if -_SHARE_SECONDS < call.due - healed - moment <= 0)
        for moment in _SHARE_AT
        if failed + times.over >= healed + moment
    ]
    details = {
        "calls": len(seen.calls),
        "errors": tally(errors, _why),
        "broken_after_the_commit_point": len(late),
        "attempts": seen.attempts,
        "counted_calls": counted,
        "in_flight_at_the_failure": flying,
        "p99_affected": p99(call for call in seen.calls if 0 <= call.due - failed < times.failing),
        "answered_by": tally(seen.calls, lambda call: call.region),
    }
    moments = ", ".join(f"+{moment}" for moment in _SHARE_AT[: len(shares)])
    note = f"{len(late)} streams broke after their first word" if late else ""
    return [
        Row(name, f"errors in {len(seen.calls)} calls", str(len(errors)), bar="0", reached=not errors,
            details=details, note=f"errors: {details['errors']}" if errors else note),
        Row(name, f"attempts for {counted} calls, {flying} in flight", str(seen.attempts),
            ratio=round(seen.attempts / counted, 3), bar="<= 1.2 x + in flight",
            reached=seen.attempts <= 1.2 * counted + flying),
        Row(name, "p99 while it is known to fail, ms", f"{unaffected:.1f}", f"before {usual:.1f}",
            round(unaffected / usual, 2), "<= 1.5 x", unaffected <= 1.5 * usual),
        Row(name, f"s after healing, share at {moments} s", "never" if again is None else
            f"{again:.1f}; " + ", ".join(f"{share:.0%}" for share in shares), bar="called again",
            reached=again is not None),
    ]  # fmt: skip


def _why(call: Call) -> str:
    return f"{call.status or 'no answer'}{'' if call.whole else ', broken'} of {call.region or 'no region'}"


def _share(calls: Iterable[Call]) -> float:
    """The first region's part of the answers."""
    of = [call.region == "a" for call in calls]
    return sum(of) / max(1, len(of))


ROWS: dict[str, Callable[[Lab, Pace], list[Row]]] = {
    f"regions-{how}": partial(region, how)
    for how in ("rst", "blackhole", "slow", "500-half", "429", "break-before", "break-after")
}
"""How a region fails, a row each."""
