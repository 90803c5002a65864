"""
The row about hours: mixed load and a changed configuration all the time, and what the process holds meanwhile.

The rule: flat means that it neither grows nor keeps. Under load, the last sixth of the time is compared with the sixth
after the warm-up; at rest, when no call is under way, the end is compared with the end of the warm-up. All changes of
the configuration have been in use in each of these times.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from tests.bench.fleet import act, redis, sealed
from tests.bench.lab import Lab, Pace, Region, Row, Sidecar, at
from tests.bench.machine import free_port
from tests.bench.mixed_load import FAILING, HUGE_ANSWERS, LARGE_ANSWERS, MixedLoad
from tests.bench.open_loop import on_load_core
from tests.mounted import mount
from tests.redis_servers import write_certificates

PERIODS = 30
"""Changes of the configuration; a third of them belongs to the warm-up."""

FIGURES = {"rss": ", MiB", "descriptors": "", "tasks": "", "threads": "", "connections": ""}
"""What is sampled: resident memory, descriptors, tasks of the loop, threads, connections of callers."""

NOTHING = ("inflight_memory_bytes", "write_behind_entries", "calls_waiting")
"""Metrics that are 0 when no call is under way."""

_WARM_UP = PERIODS // 3
_SAMPLES_A_PERIOD = 12
_REST_SECONDS = 60.0
_QUIET_SECONDS = 3.0
_FULL, _QUICK = 1800.0, 540.0
"""
Seconds of the row and of its short form. In the first three minutes resident memory grows to its level, as connections
and arenas of the allocator are used for the first time; so no warm-up is shorter than that.
"""

_LARGE, _HUGE = 1 << 20, 12 << 20
_ROUTE = "timeouts: {connect: 10s, first_byte: 30s, idle: 30s}, retry: {on_timeout: true}"
_IMPATIENT = {"name": "failing", "match": {"service": "failing"}, "timeouts": {"connect": "1s", "first_byte": "2s"}}
_REPLACED = ("well", "rst", "well", "429", "well", "500-half", "well", "break-before")
_ALONE = ("429", "500-half", "well", "rst", "break-after", "silent", "well", "slow")
"""How the region behaves that has another in its place, and how the one that has not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process held at one moment: *seconds* since the beginning."""

    seconds: float
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Soaked:
    """
    What was seen: *samples* under load, by period; what the process held when it *rested*, after the warm-up and at the
    end; its *log*; how many keys are *waiting* for a restart; files that it *left*.
    """

    samples: Sequence[Sequence[Sample]]
    rested: Sequence[Sample]
    load: MixedLoad
    log: Sequence[Mapping[str, Any]]
    waiting: float
    exit_code: int
    left: Sequence[str]


def soak(lab: Lab, pace: Pace) -> list[Row]:
    """Half an hour of mixed load with a reload every minute; or two minutes with one every four seconds."""
    seconds = _FULL if pace.named and not pace.quick else _QUICK
    seen = _soak(lab, seconds)
    return [*_flat_rows(seen), *_well_rows(seen, seconds)]


def grows(before: float, after: float, figure: str) -> bool:
    """
    Whether a figure under load has grown by more than samples vary. All but memory follow the load and the machine's
    haste, so what a leak would be shows at rest.
    """
    return after > before + (max(0.05 * before, 4.0) if figure == "rss" else max(0.5 * before, 16.0))


def keeps(before: float, after: float, figure: str) -> bool:
    """Whether a figure at rest has not come back to where it was."""
    return after > before + (max(0.05 * before, 4.0) if figure == "rss" else 2.0)


def changes(rules: Mapping[str, Any], third: int, port: int, ca_file: Path) -> list[Mapping[str, Any]]:
    """
    Five configurations that differ in what may change at run time, the first of them *rules*: a TTL and a *third*
    region, by its port; bounds, and another order of eviction; routes, and a service with a *port* of its own; trust
    anchors, which mean other connections upstream, Redis' time, hedging.
    """
    more = json.loads(json.dumps([rules] * 5))
    more[1]["routes"][0]["cache"]["ttl"] = "1h"
    more[1]["services"]["openai"]["regions"].append({"name": "c", "url": f"http://127.0.0.1:{third}", "priority": 2})
    more[2]["limits"] = {"inflight_memory": "4Mi", "reader": "5s"}
    more[2]["cache"]["memory"] = {"max_bytes": "12Mi", "max_entry_bytes": "2Mi", "eviction": "lru"}
    more[3]["routes"] = [
        {"name": f"page-{number}", "match": {"path": f"*/page-{number}"}, "limits": {"concurrency": number + 1}}
        for number in range(20)
    ] + rules["routes"]
    more[3]["services"]["more"] = {
        "dialect": "generic",
        "port": port,
        "regions": [{"name": "d", "url": "http://[::1]:9"}],
    }
    more[4]["upstream"] = {**rules["upstream"], "ca_file": str(ca_file)}
    more[4]["cache"]["redis"]["timeout"] = "3s"
    more[4]["routes"][0]["retry"] = {"hedge": "on"}
    return more


class _Run:
    """The time itself: load, changes of the configuration, regions that fail, and what is sampled meanwhile."""

    def __init__(
        self,
        sidecar: Sidecar,
        neighbour: Sidecar,
        regions: Mapping[str, Region],
        variants: Sequence[Mapping[str, Any]],
        load: MixedLoad,
        period: float,
    ) -> None:
        self.samples: list[list[Sample]] = []
        self.rested: list[Sample] = []
        self._sidecar = sidecar
        self._neighbour = neighbour
        self._regions = regions
        self._variants = variants
        self._load = load
        self._period = period
        self._began = time.monotonic()

    async def all(self) -> None:
        """The warm-up, a rest, all the other periods, a rest."""
        for numbers in (range(_WARM_UP), range(_WARM_UP, PERIODS)):
            failing = asyncio.ensure_future(self._fail())
            pressing = asyncio.ensure_future(self._load.press(len(numbers) * self._period))
            began = time.monotonic()
            for number in numbers:
                await self._change(number)
                self.samples.append(await self._watch(began + (number - numbers[0] + 1) * self._period))
                self._tell(number)
            await pressing
            failing.cancel()
            self.rested.append(await self._rest())

    def _tell(self, number: int) -> None:
        """A line for who waits half an hour."""
        figures, load = self.samples[-1][-1].figures, self._load
        shown = ", ".join(f"{name} {figures[name]:.0f}" for name in FIGURES)
        calls = f"{sum(load.failures.values())} of {sum(load.calls.values())} calls failed, {load.omitted} left out"
        print(f"soak {number + 1}/{PERIODS}: {shown}; {calls}", file=sys.stderr, flush=True)

    async def _change(self, number: int) -> None:
        """Mount the next configuration; once in each cycle, empty the cache of the whole fleet as well."""
        variant = number % len(self._variants)
        await asyncio.to_thread(mount, self._sidecar.folder, json.dumps(self._variants[variant]))
        if variant == len(self._variants) - 1:
            await asyncio.to_thread(act, self._neighbour, "purge", {"scope": "all"})

    async def _watch(self, until: float) -> list[Sample]:
        found = []
        pause = self._period / _SAMPLES_A_PERIOD
        while time.monotonic() < until - pause / 2:
            await asyncio.sleep(pause)
            found.append(await asyncio.to_thread(self._sample))
        return found

    async def _fail(self) -> None:
        """Regions behave badly in turn: one that another stands in for, and the only one of a service."""
        for one, only in itertools.cycle(zip(_REPLACED, _ALONE, strict=True)):
            await asyncio.to_thread(self._regions["a"].be, one, retry_after=1)
            await asyncio.to_thread(self._regions["failing"].be, only, retry_after=1)
            await asyncio.sleep(self._period / 4)

    async def _rest(self) -> Sample:
        """The least of each figure once nothing is under way; regions have closed the connections that are idle."""
        for region in self._regions.values():
            await asyncio.to_thread(region.be, "rst")
            await asyncio.to_thread(region.be)
        await asyncio.to_thread(self._regions["large"].be, size=_LARGE)
        await asyncio.to_thread(self._regions["huge"].be, size=_HUGE)
        until = time.monotonic() + _REST_SECONDS
        found = [await asyncio.to_thread(self._sample)]
        while time.monotonic() < until and any(found[-1].figures[name] for name in (*NOTHING, "connections")):
            await asyncio.sleep(0.5)
            found = [await asyncio.to_thread(self._sample)]
        until = time.monotonic() + _QUIET_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(0.25)
            found.append(await asyncio.to_thread(self._sample))
        return Sample(found[-1].seconds, {name: min(one.figures[name] for one in found) for name in found[0].figures})

    def _sample(self) -> Sample:
        process = self._sidecar.process
        metrics = self._sidecar.metrics()
        figures = {name: metrics[f"sidecar_{name}"] for name in ("tasks", "connections")}
        figures |= {
            name: metrics.get(f"sidecar_{name}", 0.0) for name in NOTHING
        }  # a label that is unknown has no line
        figures |= {"rss": process.memory()["rss"], "descriptors": process.descriptors(), "threads": process.threads()}
        return Sample(time.monotonic() - self._began, figures)


def _soak(lab: Lab, seconds: float) -> Soaked:
    folder = lab.folder()
    folder.mkdir()
    write_certificates(folder)
    memory = "  memory: {max_bytes: 8Mi, max_entry_bytes: 2Mi}\n"
    with ExitStack() as stack:
        regions = {name: stack.enter_context(lab.region()) for name in ("a", "b", "c", "failing", "large", "huge")}
        regions["large"].be(size=_LARGE)
        regions["huge"].be(size=_HUGE)
        server = stack.enter_context(redis("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"))
        urls = f"{at('a', regions['a'].port)}, {at('b', regions['b'].port, priority=2)}"
        more = sealed(lab, server, memory, "2s")
        neighbour, sidecar = (
            stack.enter_context(Sidecar(lab.folder(), urls, service=_others(regions), route=_ROUTE, more=more))
            for _ in range(2)
        )
        home = sidecar.folder.parent
        before = _files(home)
        rules = {**yaml.safe_load(sidecar.config), "limits": {"reader": "6s"}}
        rules["routes"].append(_IMPATIENT)
        variants = changes(rules, regions["c"].port, free_port(), folder / "ca.pem")
        load = MixedLoad(sidecar.port, neighbour.port)
        run = _Run(sidecar, neighbour, regions, variants, load, seconds / PERIODS)
        on_load_core(run.all())
        waiting = sidecar.metric("config_needs_restart")
        code = sidecar.process.stop()
        log = [json.loads(line) for line in sidecar.process.output().splitlines() if line.startswith("{")]
        left = sorted(_files(home) - before)
    return Soaked(run.samples, run.rested, load, log, waiting, code, left)


def _others(regions: Mapping[str, Region]) -> str:
    """The services beside ``openai``, as YAML has them below it."""
    paths = {"failing": FAILING, "large": LARGE_ANSWERS, "huge": HUGE_ANSWERS}
    return "".join(
        f"\n  {name}: {{dialect: openai, path: {path}, regions: [{at(name, regions[name].port)}]}}"
        for name, path in paths.items()
    )


def _files(home: Path) -> set[str]:
    """All files but those of the mounted configuration."""
    return {str(path) for path in home.rglob("*") if path.is_file() and "etc" not in path.parts}


def _flat_rows(seen: Soaked) -> list[Row]:
    """A row for each figure: under load, and at rest."""
    periods, sixth = seen.samples, PERIODS // 6
    rows = []
    for figure, unit in FIGURES.items():
        form = ".1f" if unit else ".0f"
        first, last = (
            median(sample.figures[figure] for period in part for sample in period)
            for part in (periods[_WARM_UP : _WARM_UP + sixth], periods[-sixth:])
        )
        before, after = (sample.figures[figure] for sample in seen.rested)
        rows.append(
            Row(
                "soak", f"{figure}{unit}: after the warm-up, at the end", f"{first:{form}}, {last:{form}}",
                f"at rest {before:{form}}, {after:{form}}", bar="flat",
                reached=not grows(first, last, figure) and not keeps(before, after, figure), required=True,
                details={"by_period": [median(one.figures[figure] for one in period) for period in periods]},
            )
        )  # fmt: skip
    held = {name: seen.rested[-1].figures[name] for name in NOTHING}
    rows.append(
        Row("soak", "held at rest: bytes in flight, writes, waiting calls",
            ", ".join(f"{held[name]:.0f}" for name in NOTHING), bar="0", reached=not any(held.values()), required=True)
    )  # fmt: skip
    return rows


def _well_rows(seen: Soaked, seconds: float) -> list[Row]:
    """Calls, reloads, and the end of the process."""
    load, log = seen.load, seen.log
    calls, failed = sum(load.calls.values()), sum(load.failures.values())
    reloads = sum(line.get("event") == "config-reloaded" for line in log)
    errors = Counter(line["event"] for line in log if line["level"] == "error" and line["event"] != "request")
    answers = ", ".join(f"{count} {name}" for name, count in load.answers.most_common())
    least = min(load.answers[name] for name in ("memory", "redis", "miss", "bypass"))
    why = "; ".join(f"{count} x {what}" for what, count in load.failures.most_common(20))
    return [
        Row("soak", f"failed calls, {seconds / 60:.0f} min", f"{failed} of {calls}", bar="0", reached=not failed,
            required=True, details={"calls": load.calls, "failures": load.failures}, note=why),
        Row("soak", "answers from memory, from Redis", f"{load.answers['memory']}, {load.answers['redis']}",
            bar="some of each", reached=least > 0, required=True, details=load.answers,
            note=f"answers: {answers}; {load.omitted} calls left out, because the machine was too busy for them"),
        Row("soak", "changes in use, keys that wait for a restart", f"{reloads} of {PERIODS}, {seen.waiting:.0f}",
            bar="all, 0", reached=reloads == PERIODS and not seen.waiting, required=True),
        Row("soak", "bugs in its log; files left; exit code", f"{errors['bug']}; {len(seen.left)}; {seen.exit_code}",
            bar="0; 0; 0", reached=not errors["bug"] and not seen.left and seen.exit_code == 0, required=True,
            details={"errors": errors, "left": seen.left},
            note=f"errors in its log: {', '.join(f'{count} {event}' for event, count in errors.items()) or 'none'}"),
    ]  # fmt: skip


ROWS = {"soak": soak}
