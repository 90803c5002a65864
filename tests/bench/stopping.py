"""
The row about an early end: what a kubelet that kills a native sidecar soon after SIGTERM leaves undone.

The rule: the sidecar is killed one second after SIGTERM, with a call open, and Redis says what it has.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterable
from datetime import datetime
from statistics import median
from threading import Thread
from typing import Any

from tests.bench.fleet import question, redis, running
from tests.bench.lab import Lab, Pace, Row, Sidecar, spread
from tests.bench.load import Caller, marked

_ANSWERS = 500
_CALLERS = 8
_KILLED_AFTER = 1.0


def stop_flush(lab: Lab, pace: Pace) -> list[Row]:
    """
    Eight callers get 500 answers, and SIGTERM comes with the last one while another call waits: milliseconds until
    ``flushed``, and answers that are not in Redis when the process is killed a second later.
    """
    found = [_killed(lab) for _ in range(1 if pace.quick else pace.rounds)]
    flushed, lost = [one["flushed"] for one in found], sum(one["lost"] for one in found)
    return [
        Row(
            "stop-flush", f"SIGTERM, then SIGKILL after 1 s: ms until flushed; answers lost of {_ANSWERS}",
            f"{spread(flushed)}; {lost} lost", bar="<= 1000 ms, 0 lost", reached=median(flushed) <= 1000 and not lost,
            details={"rounds": found},
        )
    ]  # fmt: skip


def _killed(lab: Lab) -> dict[str, Any]:
    with lab.region() as region, redis() as server, running(lab, server, 1, upstream=region.port) as (sidecar,):
        callers = [Thread(target=_ask, args=(sidecar, range(first, _ANSWERS, _CALLERS))) for first in range(_CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        region.be("silent")
        with socket.create_connection(("127.0.0.1", sidecar.port)) as waiting:
            waiting.sendall(marked(question(_ANSWERS)))
            while region.calls() <= _ANSWERS:
                time.sleep(0.005)
            sidecar.process.signal(signal.SIGTERM)
            time.sleep(_KILLED_AFTER)
            sidecar.process.signal(signal.SIGKILL)
        events = {event["event"]: event for event in map(json.loads, sidecar.process.output().splitlines())}
        kept = sum(name.endswith(b":e") for name in server.call("KEYS", "*"))
    at = {name: _seconds(events[name]["time"]) for name in ("draining", "flushed")}
    return {
        "flushed": (at["flushed"] - at["draining"]) * 1000,
        "unwritten": events["flushed"]["unwritten"],
        "lost": _ANSWERS - kept,
        "requests": events["draining"]["requests"],
    }


def _ask(sidecar: Sidecar, numbers: Iterable[int]) -> None:
    with Caller(sidecar.port) as caller:
        for number in numbers:
            caller.call(marked(question(number)))


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
