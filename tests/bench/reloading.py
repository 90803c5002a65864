"""
The rows about rules that change while calls run.

The rule: files change as kubelet changes them, in the load generator's process; a call that fails ends the row.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager
from statistics import median
from threading import Event, Thread
from typing import Self

from sidecar.settings import load
from tests.bench import bodies
from tests.bench.lab import TOKEN, Lab, Pace, Row, Sidecar
from tests.bench.load import Caller, marked
from tests.mounted import mount

_CONNECTIONS = 16
_A_SECOND = 100
_ROUTES = 200
_NOTICED = 2.0
_STALL = 20.0


class Swaps(AbstractContextManager["Swaps"]):
    """Changes the configuration of *sidecar* all the time: valid, invalid, gone and back. *made* counts."""

    def __init__(self, sidecar: Sidecar, *, at_once: int = _A_SECOND) -> None:
        self._sidecar = sidecar
        self._pause = 1.0 / at_once
        self._over = Event()
        self._thread = Thread(target=self._run)
        self.made = 0
        self.late = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def text(self, hours: int) -> str:
        """The configuration with another TTL."""
        return self._sidecar.config.replace("ttl: 24h", f"ttl: {hours}h")

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.is_set():
            self.made += 1
            match self.made % 10:
                case 3 | 7:
                    mount(self._sidecar.folder, "routes: [")
                case 5:
                    away = self._sidecar.folder.with_name("away")
                    self._sidecar.folder.rename(away)
                    away.rename(self._sidecar.folder)
                case _:
                    mount(self._sidecar.folder, self.text(24 + self.made % 100))
            due += self._pause
            self.late += time.monotonic() > due
            time.sleep(max(due - time.monotonic(), 0.0))


def swaps(lab: Lab, pace: Pace) -> list[Row]:
    """A hundred swaps a second under load: no call fails, the last valid rules are in use soon, memory stays flat."""
    requests = bodies.variants()
    seconds = 5 if pace.quick else 30
    with lab.sidecar() as sidecar:
        lab.load(sidecar.port, requests, connections=_CONNECTIONS, seconds=2)
        calm = lab.hits(sidecar.port, requests, max(seconds // 3, 2), connections=_CONNECTIONS)
        with Swaps(sidecar) as swapping:
            time.sleep(1.0)
            before = sidecar.process.memory()["rss"]
            loaded = lab.hits(sidecar.port, requests, seconds, connections=_CONNECTIONS)
            after = sidecar.process.memory()["rss"]
        mount(sidecar.folder, swapping.text(7))
        took = _seconds_until_in_use(sidecar)
        reloads = _logged(sidecar, "config-reloaded")
        refusals = _logged(sidecar, "config-refused")
    details = {
        "swaps": swapping.made, "late": swapping.late, "calls": loaded.requests, "failed": loaded.errors,
        "reloads": reloads, "refusals": refusals, "rss_before": before, "rss_after": after, "noticed_seconds": took,
        "p99_calm": calm.p99, "p99_swapping": loaded.p99,
    }  # fmt: skip
    return [
        Row("reload-swaps", f"{swapping.made} swaps in {seconds} s, {_CONNECTIONS} conn.: calls that failed",
            f"{loaded.errors} of {loaded.requests} ({reloads} reloads, {refusals} refused)", bar="0",
            reached=not loaded.errors, details=details),
        Row("reload-swaps", "the last valid rules in use after, s", f"{took:.2f}", bar=f"<= {_NOTICED:.0f} s",
            reached=took <= _NOTICED, details=details),
        Row("reload-swaps", "resident memory, MiB more", f"{after - before:.1f}", bar="<= 4 MiB",
            reached=after - before <= 4.0, details=details),
    ]  # fmt: skip


def stall(lab: Lab, pace: Pace) -> list[Row]:
    """How long the loop stands still while a configuration of 200 routes is read, checked and adopted."""
    routes = "".join(
        f"  - {{name: r{number}, match: {{path: '*/r{number}/*', model: 'm-{number}*', header: {{x-r: '{number}'}}}},"
        f" cache: {{ttl: %dm}}}}\n"
        for number in range(_ROUTES)
    )
    gaps_file = lab.folder()
    spans = []
    with lab.sidecar(("gaps", gaps_file)) as sidecar:
        with Caller(sidecar.port) as caller:
            caller.call(marked(bodies.variants(1)[0]))
        text = sidecar.config.replace("routes:\n", "routes:\n" + routes)
        for number in range(3 if pace.quick else 10):
            time.sleep(0.5)
            began = time.monotonic()
            mount(sidecar.folder, text % tuple([number + 1] * _ROUTES))
            _post(sidecar, "/api/reload")
            spans.append((began, time.monotonic()))
    gaps = [(at, length) for at, length, _ in json.loads(gaps_file.read_text())]
    longest = [max((length for at, length in gaps if began <= at <= ended), default=0.0) for began, ended in spans]
    took = median([1e3 * (ended - began) for began, ended in spans])
    details = {"longest_ms": longest, "reload_ms": took}
    return [
        Row("reload-stall", f"longest stall, reload of {_ROUTES} routes, ms", f"{max(longest):.1f} ({took:.0f} in all)",
            bar=f"<= {_STALL:.0f} ms", reached=max(longest) <= _STALL, details=details)
    ]  # fmt: skip


def _seconds_until_in_use(sidecar: Sidecar) -> float:
    """How long it takes from now until the configuration that is mounted is in use."""
    began = time.monotonic()
    rules = load(str(sidecar.folder), environ=os.environ, overrides={"listen.port": sidecar.port}, strict=False)
    wanted = f'revision="{rules.revision}"'
    while time.monotonic() - began < 30:
        with Caller(sidecar.health_port) as caller:
            if wanted in caller.get("/metrics").decode():
                return time.monotonic() - began
        time.sleep(0.02)
    raise RuntimeError("the last valid rules never came into use")


def _logged(sidecar: Sidecar, event: str) -> int:
    return sidecar.process.output().count(f'"event":"{event}"')


def _post(sidecar: Sidecar, path: str) -> None:
    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{sidecar.admin_port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    with Caller(sidecar.admin_port) as caller:
        caller.call(request.encode())


ROWS = {"reload-swaps": swaps, "reload-stall": stall}
