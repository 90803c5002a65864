"""
The benchmarks: ``python -m tests.bench [--quick] [--profile ROW] [-o FILE] [ROW]...``.

The rule: a row that cannot be measured here is skipped and says what it takes. A bar that is not reached is told, and
fails this program only where the row says that it is required.
"""

from __future__ import annotations

import argparse
import pstats
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import (
    admission,
    bodies,
    calls,
    documents,
    envelope,
    ferrogw,
    fleet,
    footprint,
    hedging,
    identity,
    listening,
    litellm,
    micro,
    outage,
    redis_client,
    regions,
    reloading,
    soaking,
    stopping,
    tokens,
    waits,
)
from tests.bench.lab import Lab, Missing, Pace, Row, to_json
from tests.bench.load import Caller, marked
from tests.bench.machine import facts, tool

_SHM = Path("/dev/shm")
_ROOT = Path(__file__).parents[2]

ROWS: dict[str, Callable[[Lab, Pace], list[Row]]] = {
    "hits-64": calls.hits_64,
    "hits-unique": calls.hits_unique,
    "memos": calls.memos,
    "hit-one": calls.hit_one,
    "miss-one": calls.miss_one,
    "misses-ferrogw": ferrogw.misses,
    "stall-8mib": footprint.stall,
    "listeners": listening.listeners,
    "start": footprint.start,
    "memory": footprint.memory,
    "redis-hit": fleet.redis_hit,
    "redis-client": redis_client.redis_client,
    "redis-freeze": fleet.redis_freeze,
    "redis-purge": fleet.redis_purge,
    "redis-memory": fleet.redis_memory,
    "fleet-8x50": fleet.fleet_8x50,
    "stop-flush": stopping.stop_flush,
    **regions.ROWS,
    **reloading.ROWS,
    "blackhole-500": outage.blackhole_500,
    "all-down": outage.all_down,
    "hedging": hedging.hedging,
    "tokens": tokens.tokens,
    "identity": identity.identity,
    "sdk-waits": waits.waits,
    "envelope": envelope.rows,
    "litellm": litellm.hits_litellm,
    "key-micro": micro.key_micro,
    **admission.ROWS,
    **soaking.ROWS,
    **documents.ROWS,
}

PROFILES: dict[str, Callable[[], list[bytes]]] = {
    "hits-64": bodies.variants,
    "hits-unique": lambda: [bodies.unique()],
    "miss-one": lambda: [bodies.fresh()],
}


def main() -> int:
    """Measure, print, write."""
    arguments = _arguments()
    home = Path(tempfile.mkdtemp(prefix="sidecar-bench-", dir=_SHM if _SHM.is_dir() else None))
    try:
        with Lab(home) as lab:
            if arguments.profile:
                return _profile(lab, arguments.profile)
            return _measure(lab, arguments)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _measure(lab: Lab, arguments: argparse.Namespace) -> int:
    machine = facts()
    for name, value in machine.items():
        print(f"{name + ':':22}{value}")
    if absent := [name for name in ("nginx", "wrk") if tool(name) is None]:
        print(f"not installed: {', '.join(absent)}; rows that need it are skipped (apt install nginx-light wrk)")
    names = [*arguments.rows, *(arguments.row or ())]
    pace = Pace(rounds=2, seconds=1, quick=True) if arguments.quick else Pace(named=bool(names))
    rows: list[Row] = []
    failed = False
    for name in names or ROWS:
        began = time.perf_counter()
        try:
            rows += ROWS[name](lab, pace)
        except Missing as missing:
            rows.append(Row(name, "skipped", "-", note=f"skipped: {missing}"))
        except (OSError, RuntimeError) as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
            rows.append(Row(name, "failed, see above", "-"))
        print(f"{name} took {time.perf_counter() - began:.0f} s", file=sys.stderr)
    _print(rows)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(to_json(machine, rows))
    return 1 if failed or any(row.required and row.reached is False for row in rows) else 0


def _profile(lab: Lab, name: str) -> int:
    """Where the sidecar's time goes under the load of row *name*: functions by their own time."""
    file = lab.folder()
    requests = PROFILES[name]()
    with lab.sidecar(("profile", file)) as sidecar:
        with Caller(sidecar.port) as caller:
            caller.call(marked(requests[0]))
        measured = lab.load(sidecar.port, requests, connections=16, seconds=7)
    print(f"{name}: {measured.requests} calls under cProfile, which slows Python functions down and C ones not;")
    print("the loop's own time is not in it, but writing to a socket counts for the function that does\n")
    pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(25)
    return 0


def _print(rows: Sequence[Row]) -> None:
    lines = [("row", "what", "sidecar", "reference", "ratio", "bar", "verdict")]
    lines += [
        (row.name, row.what, row.sidecar, row.reference, "-" if row.ratio is None else f"{row.ratio}", row.bar,
         row.verdict)
        for row in rows
    ]  # fmt: skip
    widths = [min(46, max(len(line[column]) for line in lines)) for column in range(7)]
    print()
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if not number:
            print("  ".join("-" * width for width in widths))
    for row in rows:
        if row.note:
            print(f"{row.name}: {row.note}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the sidecar.")
    parser.add_argument("--quick", action="store_true", help="shorter rounds, less certain")
    parser.add_argument("rows", nargs="*", type=_row, metavar="ROW", help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--row", action="append", type=_row, metavar="ROW", help="one of them")
    parser.add_argument("--profile", choices=PROFILES, metavar="ROW", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("-o", "--output", type=Path, default=_ROOT / "build/bench.json", metavar="FILE")
    return parser.parse_args()


def _row(name: str) -> str:
    if name not in ROWS:
        raise argparse.ArgumentTypeError(f"{name!r} is no row; there are {', '.join(ROWS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
