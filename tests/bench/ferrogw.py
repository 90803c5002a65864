"""
The row against ferrogw, a gateway in Go: misses a second of one core. It needs the program ``ferrogw`` in the path.

The rule: both get calls that nobody asked before, over as many connections, before one provider, on one core.
"""

from __future__ import annotations

import os
import secrets
from functools import partial
from statistics import median

from tests.bench import bodies
from tests.bench.lab import Lab, Missing, Pace, Row, Side, alternate, spread
from tests.bench.load import Measured
from tests.bench.machine import SERVER_CORE, Process, free_port, tool

_CONNECTIONS = 16
_CONFIG = """\
strategy: {mode: fallback}
targets: [{virtual_key: openai}]
"""


def misses(lab: Lab, pace: Pace) -> list[Row]:
    """Misses over 16 connections, as many as a core can take."""
    program = tool("ferrogw")
    if program is None:
        raise Missing("ferrogw is not in the path (pip install ferrogw==1.5.10)")
    key = f"fgw_{secrets.token_hex(16)}"
    process, port = _start(lab, program, key)
    ours = bodies.fresh()
    theirs = bodies.fresh("/v1/chat/completions").replace(bodies.KEY, key.encode())
    with process, lab.sidecar() as sidecar:
        sides = [
            Side(partial(_load, lab, to, request), of)
            for to, request, of in ((sidecar.port, ours, sidecar.process), (port, theirs, process))
        ]
        alternate(pace, *sides)
    rates = [side.core_rates for side in sides]
    ratio = median(a / b for a, b in zip(*rates, strict=True))
    return [
        Row("misses-ferrogw", "misses/s of a core: 2 KB, 16 conn.", spread(rates[0]), f"ferrogw {spread(rates[1])}",
            round(ratio, 2), "-", None, {"sidecar": sides[0].told(), "ferrogw": sides[1].told()})
    ]  # fmt: skip


def _load(lab: Lab, port: int, request: bytes, seconds: int) -> Measured:
    return lab.load(port, [request], connections=_CONNECTIONS, seconds=seconds)


def _start(lab: Lab, program: str, key: str) -> tuple[Process, int]:
    home = lab.folder()
    home.mkdir()
    (home / "config.yaml").write_text(_CONFIG)
    port = free_port()
    environ = {
        **os.environ,
        "MASTER_KEY": key,
        "OPENAI_API_KEY": "bench",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{lab.upstream_port}",
        "GATEWAY_CONFIG": str(home / "config.yaml"),
        "PORT": str(port),
        "RATE_LIMIT_RPS": "0",
        "GOMAXPROCS": "1",
    }
    process = Process("ferrogw", [program, "serve"], core=SERVER_CORE, log=home / "output.log", environ=environ)
    process.await_port(port)
    return process, port
