"""
The rows about the process itself: how fast it starts, how much it holds, how long its loop stands still.

The rule: what counts is what the kernel, or the loop's own clock, says; what callers see stands beside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles

from tests.bench import bodies
from tests.bench.lab import Lab, Missing, Pace, Row, spread
from tests.bench.load import Caller, Sending, burst, marked, steady
from tests.bench.machine import SERVER_CORE, Process, free_port

_MIB = 1024 * 1024
_LARGE = 8 * _MIB
_HEALTH_PORT = 7491


def start(lab: Lab, pace: Pace) -> list[Row]:
    """From exec to the first 200 of /readyz, without configuration; bytecode is there after a first start."""
    home = lab.folder()
    home.mkdir()
    if _accepts(_HEALTH_PORT):
        raise Missing(f"port {_HEALTH_PORT} is taken, and a start without configuration needs it")
    environ = {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home)}
    found = [_start_once(home, environ) for _ in range(1 + (3 if pace.quick else 5))][1:]
    return [
        Row(
            "start",
            "exec to /readyz 200, s",
            spread(found, ".3f"),
            bar="<= 0.8 s",
            reached=median(found) <= 0.8,
            details={"seconds": found},
        )
    ]


def memory(lab: Lab, pace: Pace) -> list[Row]:
    """Resident memory: idle, after 300 calls of which 60 were under way at once, and with a full memory tier."""
    with lab.sidecar() as sidecar:
        time.sleep(1)
        idle = sidecar.process.memory()
        burst(sidecar.port, bodies.fresh(), calls=300, at_once=60)
        after = sidecar.process.memory()
        until = time.perf_counter() + (30 if pace.quick else 60)
        while not sidecar.metric("cache_evictions_total") and time.perf_counter() < until:
            burst(sidecar.port, bodies.fresh(), calls=1920, at_once=16)
        full = sidecar.process.memory()
        entries, held = sidecar.metric("cache_entries"), sidecar.metric("cache_bytes")
    details = {"idle": idle, "after": after, "full": full, "entries": entries, "cache_bytes": held}
    grown = after["rss"] - idle["rss"]
    return [
        _memory_row("resident idle, MiB", idle, idle["rss"], 56, details),
        _memory_row("after 300 calls, 60 at once: + MiB", after, grown, 10, details),
        _memory_row(f"memory tier full ({held / _MIB:.0f} MiB, {entries:.0f} entries), MiB", full, full["rss"], 160,
                    details),
    ]  # fmt: skip


def stall(lab: Lab, pace: Pace) -> list[Row]:
    """How long the loop stands still while 8 MiB bodies pass through it, each a cacheable call nobody asked before."""
    kinds = {
        "one string": ([bodies.one_string(_LARGE)], 1),
        "many messages": ([bodies.many_messages(_LARGE)], 1),
        "both, 4 senders": ([bodies.one_string(_LARGE), bodies.many_messages(_LARGE)], 4),
    }
    seconds = 1.3 if pace.quick else 5.0
    seen: dict[tuple[str, str], dict[str, float]] = {}
    spans: dict[tuple[str, str], tuple[float, float]] = {}
    failed: dict[str, str] = {}
    gaps_file = lab.folder()
    hit = bodies.variants(1)[0]
    with lab.sidecar(("gaps", gaps_file)) as sidecar:
        with Caller(sidecar.port) as caller:
            caller.call(marked(hit))
        for name, (requests, senders) in kinds.items():
            # the same large bodies, first past the sidecar, then through it: what remains is its own
            for port, way in ((lab.upstream_port, "past"), (sidecar.port, "through")):
                began = time.monotonic()
                try:
                    with Sending(port, requests, senders=senders) as sending:
                        latencies = steady(sidecar.port, hit, rate=200, seconds=seconds)
                except RuntimeError as error:
                    failed[name] = str(error)
                    continue
                found = {"large": sending.sent, "p99": quantiles(latencies, n=100)[-1], "longest": max(latencies)}
                seen[name, way] = found
                spans[name, way] = (began, time.monotonic())
    gaps = [(at, length) for at, length, _ in json.loads(gaps_file.read_text())]
    for phase, (began, ended) in spans.items():
        seen[phase]["stall"] = max((length for at, length in gaps if began <= at <= ended), default=0.0)
    details = {f"{way}: {name}": found for (name, way), found in seen.items()}
    return [_stall_row(name, seen, failed.get(name), details) for name in kinds]


def _stall_row(
    name: str, seen: Mapping[tuple[str, str], Mapping[str, float]], failed: str | None, details: Mapping[str, object]
) -> Row:
    what = f"longest stall, 8 MiB: {name}, ms"
    if failed is not None:
        print(f"stall-8mib, {name}: {failed}", file=sys.stderr)
        return Row("stall-8mib", what, "a call failed", bar="<= 20 ms", reached=False, details={"failed": failed})
    through, past = seen[name, "through"], seen[name, "past"]
    return Row(
        "stall-8mib",
        what,
        f"{through['stall']:.1f} (callers {through['longest']:.1f})",
        f"past us {past['stall']:.1f} ({past['longest']:.1f})",
        bar="<= 20 ms",
        reached=through["stall"] <= 20,
        details=details,
    )


def _memory_row(what: str, found: dict[str, float], judged: float, bar: int, details: dict[str, object]) -> Row:
    shown = f"{judged:.1f}" + (f" (PSS {found['pss']:.1f})" if "pss" in found else "")
    return Row("memory", what, shown, bar=f"<= {bar} MiB", reached=judged <= bar, details=details)


def _start_once(home: Path, environ: dict[str, str]) -> float:
    argv = [sys.executable, "-m", "sidecar", "run", "--port", str(free_port())]
    with Process("sidecar", argv, core=SERVER_CORE, log=home / "output.log", environ=environ) as process:
        while process.alive() and time.perf_counter() - process.launched < 20:
            try:
                with Caller(_HEALTH_PORT) as caller:
                    caller.get("/readyz")
            except (OSError, RuntimeError):
                time.sleep(0.002)
            else:
                return time.perf_counter() - process.launched
        raise RuntimeError(f"the sidecar did not become ready: {process.last_words()}")


def _accepts(port: int) -> bool:
    try:
        Caller(port).__exit__(None, None, None)
    except OSError:
        return False
    return True
