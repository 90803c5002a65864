"""
The rows about a service that is gone: what it costs the sidecar, and how soon callers know.

The rule: what counts is the process from outside: its sockets, its memory, its processor time; and that afterwards it
is as it was before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

from tests.bench.lab import Lab, Pace, Region, Row, Sidecar, at
from tests.bench.machine import Process
from tests.bench.open_loop import Call, Callers, fresh, on_load_core, p99, press, tally
from tests.bench.regions import RATE, attempts

_CALLERS = 500
_BURSTS = 6
_WARMING = 3  # bursts until what is kept for the next ones is there
_MIB_PER_BURST = 50
_SPARE_SOCKETS = 20
_SOON_MS = 50
_LONGEST_WAIT = 60


def blackhole_500(lab: Lab, pace: Pace) -> list[Row]:
    """
    500 calls at once to the only region: it cannot be connected to; then it can, and stays silent. Six times each,
    when it has healed in between and its breaker has closed, so that each call is sent.
    """
    rows = []
    connect, first_byte = ("1s", "1500ms") if pace.quick else ("5s", "10s")
    route = f"timeouts: {{connect: {connect}, first_byte: {first_byte}}}"
    for how, what in (("blackhole", "no connection"), ("silent", "no answer")):
        with (
            lab.region() as region,
            Sidecar(lab.folder(), region.port, service="breaker: {open: 500ms}", route=route) as sidecar,
        ):
            watch = _Watch(sidecar.process)
            idle = watch.look()
            on_load_core(_at_once(sidecar.port))
            well = watch.look()
            bursts = [_burst(how, region, sidecar, watch, idle) for _ in range(_BURSTS)]
        calls = [call for burst in bursts for call in burst.calls]
        peak, back = max(burst.peak.sockets for burst in bursts), bursts[-1].back.sockets
        grown = [burst.peak.rss - idle.rss for burst in bursts]
        prompt = sum(call.status in {503, 504} for call in calls)
        answers = tally(calls, lambda call: call.status)
        name = "blackhole-500"
        seen = [(asdict(burst.peak), asdict(burst.back)) for burst in bursts]
        details = {"idle": asdict(idle), "well": asdict(well), "answers": answers, "peak_and_back": seen}
        rows += [
            Row(name, f"{what}: 503s and 504s of {len(calls)} calls; longest, s",
                f"{prompt}; {max(call.seconds for call in calls):.1f}", bar="all", reached=prompt == len(calls),
                details=details, note=f"answers: {answers}"),
            Row(name, "sockets at most; afterwards", f"{peak}; {back}", f"before {idle.sockets}",
                bar=f"<= {2 * _CALLERS} + {_SPARE_SOCKETS}; as before", reached=peak <= 2 * _CALLERS + _SPARE_SOCKETS
                and back <= idle.sockets + _SPARE_SOCKETS),
            Row(name, f"resident, + MiB, {_BURSTS} times", _list(grown, 0), f"all well {well.rss - idle.rss:.0f}",
                round(grown[-1] / grown[_WARMING - 1], 2), f"<= {_MIB_PER_BURST}, flat from the {_WARMING}rd",
                max(grown) <= _MIB_PER_BURST and grown[-1] <= 1.15 * grown[_WARMING - 1]),
        ]  # fmt: skip
    return rows


def all_down(lab: Lab, pace: Pace) -> list[Row]:
    """Both regions refuse connections under 200 calls a second: how soon callers know, and what that costs."""
    seconds = 3 if pace.quick else 30
    with lab.region() as first, lab.region() as second:
        regions = f"{at('a', first.port)}, {at('b', second.port, priority=2)}"
        with Sidecar(lab.folder(), regions) as sidecar:
            well = _spell(sidecar, seconds)
            for region in (first, second):
                region.be("rst")
            spells = [_spell(sidecar, seconds) for _ in range(3)]
    calls = [call for spell in spells for call in spell.calls]
    told = sum(call.status == 503 and 0 < call.retry_after <= _LONGEST_WAIT for call in calls)
    answers = tally(calls, lambda call: f"{call.status}, Retry-After {call.said.get('retry-after', 'none')}")
    costs = [spell.cpu / len(spell.calls) * 1000 for spell in spells]
    tries = [spell.attempts / len(spell.calls) for spell in spells]
    details = {"answers": answers, "costs": costs, "tries": tries}
    name = "all-down"
    return [
        Row(name, f"503 with Retry-After <= {_LONGEST_WAIT}", f"{told / len(calls):.1%}", bar="100%",
            reached=told == len(calls), details=details, note="" if told == len(calls) else f"answers: {answers}"),
        Row(name, "p99 of the answers, ms", f"{p99(calls):.1f}", f"all well {p99(well.calls):.1f}",
            bar=f"<= {_SOON_MS}", reached=p99(calls) <= _SOON_MS),
        Row(name, "CPU s per 1000 calls, in thirds", _list(costs), f"all well {well.cpu / len(well.calls) * 1000:.2f}",
            round(costs[-1] / costs[0], 2), "<= 1.3 x the first", costs[-1] <= 1.3 * costs[0]),
        Row(name, "attempts a call, in thirds", _list(tries), bar="<= 2, flat",
            reached=max(tries) <= 2 and tries[-1] <= 1.3 * tries[0]),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """A process' open sockets and its resident size in MiB."""

    sockets: int
    rss: float


class _Watch:
    """Looks at *process* every 20 ms for as long as a ``with`` block runs; *most* is the most of each in the last."""

    def __init__(self, process: Process) -> None:
        self.most = Size(0, 0.0)
        self._process = process

    def __enter__(self) -> Self:
        self.most = self.look()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_on)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def look(self) -> Size:
        """How it is now."""
        return Size(self._process.sockets(), self._process.memory()["rss"])

    def _look_on(self) -> None:
        while not self._end.wait(0.02):
            now = self.look()
            self.most = Size(max(now.sockets, self.most.sockets), max(now.rss, self.most.rss))


@dataclass(frozen=True, slots=True)
class _Spell:
    """Some seconds under load: the *calls*, processor seconds, attempts."""

    calls: Sequence[Call]
    cpu: float
    attempts: int


def _spell(sidecar: Sidecar, seconds: float) -> _Spell:
    async def load() -> list[Call]:
        callers = Callers(sidecar.port)
        found = await press(callers, [fresh()], rate=RATE, seconds=seconds)
        callers.close()
        return found

    cpu, tried = sidecar.process.cpu_seconds(), attempts(sidecar)
    calls = on_load_core(load())
    return _Spell(calls, sidecar.process.cpu_seconds() - cpu, attempts(sidecar) - tried)


@dataclass(frozen=True, slots=True)
class _Burst:
    """Calls sent at once: the *calls*, the process at its *peak* and when it is *back*."""

    calls: Sequence[Call]
    peak: Size
    back: Size


def _burst(how: str, region: Region, sidecar: Sidecar, watch: _Watch, idle: Size) -> _Burst:
    """500 calls at once to a region that fails, up to 10 s until their sockets are closed, and the region heals."""
    region.be(how)
    with watch:
        calls = on_load_core(_at_once(sidecar.port))
    until = time.monotonic() + 10
    while (back := watch.look()).sockets > idle.sockets + _SPARE_SOCKETS and time.monotonic() < until:
        time.sleep(0.1)
    region.be()
    while not on_load_core(Callers(sidecar.port).call(fresh())).good:
        time.sleep(0.1)
    return _Burst(calls, watch.most, back)


async def _at_once(port: int) -> list[Call]:
    callers = Callers(port)
    await callers.prepare(_CALLERS)
    calls = await asyncio.gather(*(callers.call(fresh()) for _ in range(_CALLERS)))
    callers.close()
    return list(calls)


def _list(values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
