"""
What a row measures with: the servers side by side, and rounds that alternate between them.

The rule: the sidecar is a real process, started by its own command with a configuration file, fresh for each row.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

from tests.bench import nginx
from tests.bench.load import Caller, Measured, wrk
from tests.bench.machine import LOAD_CORE, SERVER_CORE, Process, free_port, tool
from tests.mounted import mount

_BUSY = 0.9

_CONFIG = """\
version: 1
health: {{port: {health}}}
admin: {{port: {admin}, token_file: "{token}"}}
state: {{dir: {state}}}
upstream: {{proxy: none}}
services:
  openai:
    dialect: openai
    path: /openai
    regions: [{regions}]
    {service}
routes:
  - {{name: bench, match: {{service: openai}}, cache: {{mode: always, ttl: 24h}}{route}}}
{more}
"""

TOKEN = "bench-0123456789abcdef"
"""Of who may act on the fleet."""


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table. *ratio* is what *bar* speaks of, where it speaks of a ratio; *reached* is None where there
    is no bar, or nothing was measured; *required* bars fail the run where they are not reached; *details* go to the
    JSON only; *note* is printed below the table.
    """

    name: str
    what: str
    sidecar: str
    reference: str = "-"
    ratio: float | None = None
    bar: str = "-"
    reached: bool | None = None
    required: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """For the last column."""
        if self.reached is None:
            return "-"
        return "reached" if self.reached else "NOT REACHED"


@dataclass(frozen=True, slots=True)
class Pace:
    """
    How long to measure: *rounds* of *seconds* for each side; *quick* where a row has a shorter form of its own; *named*
    where rows were asked for by name, so that one with a long form takes its time.
    """

    rounds: int = 4
    seconds: int = 4
    quick: bool = False
    named: bool = False


class Missing(Exception):
    """A row cannot be measured on this machine; the message says what it takes."""


class Sidecar(AbstractContextManager["Sidecar"]):
    """
    A running sidecar and its ports; its configuration *config* is mounted at *folder*. *upstream* is the port of its
    only region, or how its regions are written in YAML; *inside* is what ``within`` shall watch, and its file;
    *otherwise* names the part that is replaced, as the module of that name has it; *service* and *route* are more
    members of its service and of its route, and *more* stands at the end of its configuration. *environ* is added to
    the environment.
    """

    def __init__(
        self,
        home: Path,
        upstream: int | str,
        inside: tuple[str, Path] | None = None,
        *,
        service: str = "",
        route: str = "",
        more: str = "",
        environ: Mapping[str, str] | None = None,
        otherwise: str = "",
    ) -> None:
        home.mkdir()
        self.port, self.health_port, self.admin_port = free_port(), free_port(), free_port()
        token = home / "admin.token"
        token.write_text(TOKEN)
        self.folder = home / "etc"
        self.config = _CONFIG.format(
            health=self.health_port,
            admin=self.admin_port,
            token=token,
            state=home,
            regions=at("here", upstream) if isinstance(upstream, int) else upstream,
            service=service,
            route=route and f", {route}",
            more=more,
        )
        mount(self.folder, self.config)
        module = ["sidecar"] if inside is None else ["tests.bench.within", inside[0], str(inside[1])]
        module = ["tests.bench.otherwise", otherwise] if otherwise else module
        arguments = ["run", "--config", str(self.folder), "--port", str(self.port)]
        self.process = Process(
            "sidecar",
            [sys.executable, "-m", *module, *arguments],
            core=SERVER_CORE,
            log=home / "output.log",
            environ={**os.environ, **(environ or {})},
        )
        self.process.await_port(self.port)

    def __exit__(self, kind: object, *_: object) -> None:
        self.process.stop()
        if kind not in {None, Missing}:
            print(self.process.last_words(), file=sys.stderr)

    def metric(self, name: str) -> float:
        """The sum of one metric over its labels."""
        return self.metrics().get(f"sidecar_{name}", 0.0)

    def metrics(self) -> Mapping[str, float]:
        """The sum of each metric over its labels, by its whole name."""
        with Caller(self.health_port) as caller:
            lines = caller.get("/metrics").decode().splitlines()
        found: dict[str, float] = {}
        for line in lines:
            if not line.startswith("#"):
                name = line.partition(" ")[0].partition("{")[0]
                found[name] = found.get(name, 0.0) + float(line.rpartition(" ")[2])
        return found


class Region(AbstractContextManager["Region"]):
    """A stand-in region in a process of its own: see ``region``."""

    def __init__(self, lab: Lab) -> None:
        self.port, self._control_port = free_port(), free_port()
        self._process = lab.program("region", LOAD_CORE, self.port, self._control_port)
        self._process.await_port(self._control_port)

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def be(self, how: str = "well", **more: object) -> None:
        """Behave like that from now on: see ``region.Behaviour``."""
        self._ask(f"/be?{urlencode({'how': how, **more})}")

    def calls(self, name: str = "v1") -> int:
        """How many requests have come whose path begins with *name*."""
        return int(self._ask("/calls").get(name, 0))

    def usage(self) -> list[tuple[float, str, int]]:
        """Of each answer: when (``time.monotonic``), the first segment of the path, how many tokens."""
        return [(when, name, tokens) for when, name, tokens in self._ask("/usage")]

    def _ask(self, path: str) -> Any:
        with Caller(self._control_port) as caller:
            return json.loads(caller.get(path))


def at(name: str, port: int, path: str = "", **more: object) -> str:
    """A region on *port*, as YAML has it; by *path*, it knows whose calls are whose."""
    members = {"name": name, "url": f'"http://127.0.0.1:{port}{path}"', **more}
    return "{" + ", ".join(f"{key}: {value}" for key, value in members.items()) + "}"


class Lab(AbstractContextManager["Lab"]):
    """The stand-in provider, a folder for everything that is written, and the means to start the rest."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._numbers = count(1)
        self.upstream_port = free_port()
        self._upstream = self.program("upstream", LOAD_CORE, self.upstream_port)

    def __exit__(self, *_: object) -> None:
        self._upstream.stop()

    def sidecar(self, inside: tuple[str, Path] | None = None, *, otherwise: str = "") -> Sidecar:
        """A fresh sidecar."""
        return Sidecar(self.folder(), self.upstream_port, inside, otherwise=otherwise)

    def nginx(self) -> tuple[Process, int]:
        """A fresh nginx and its port. Raises ``Missing``."""
        if tool("nginx") is None:
            raise Missing("nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
        port = free_port()
        return nginx.start(port, self.upstream_port, self.folder()), port

    def region(self) -> Region:
        """A fresh region that does what it is told."""
        return Region(self)

    def relay(self) -> tuple[Process, int]:
        """A fresh bare relay and its port."""
        port = free_port()
        return self.program("relay", SERVER_CORE, port, self.upstream_port), port

    def load(self, port: int, requests: Sequence[bytes], *, connections: int, seconds: int) -> Measured:
        """Load by wrk. Raises ``Missing``."""
        if tool("wrk") is None:
            raise Missing("wrk is not installed (Debian, Ubuntu: apt install wrk)")
        return wrk(port, requests, connections=connections, seconds=seconds, directory=self.home)

    def hits(self, port: int, requests: Sequence[bytes], seconds: int, *, connections: int) -> Measured:
        """Load of what is stored already. Raises ``RuntimeError`` where the provider is asked for any of it."""
        before = self.answered()
        measured = self.load(port, requests, connections=connections, seconds=seconds)
        if missed := self.answered() - before:
            raise RuntimeError(f"{missed} of {measured.requests} calls to port {port} were no hits")
        return measured

    def answered(self) -> int:
        """How many calls the stand-in provider has answered so far."""
        with Caller(self.upstream_port) as caller:
            return int(caller.get("/count"))

    def folder(self) -> Path:
        """A path in the lab's folder where nothing is yet."""
        return self.home / str(next(self._numbers))

    def program(self, name: str, core: int, port: int, *more: int | str) -> Process:
        """One of the programs of this folder, listening on *port*."""
        argv = [sys.executable, "-m", f"tests.bench.{name}", str(port), *map(str, more)]
        process = Process(name, argv, core=core, log=self.home / f"{name}-{port}.log")
        process.await_port(port)
        return process


@dataclass(slots=True)
class Side:
    """One of the things compared: what one round of it is, the process whose time it takes, and what was measured."""

    run: Callable[[int], Measured]
    process: Process
    rounds: list[Measured] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    def once(self, seconds: int) -> None:
        """One round."""
        before = self.process.cpu_seconds()
        measured = self.run(seconds)
        self.busy.append(max(self.process.cpu_seconds() - before, 0.01) / measured.seconds)
        self.rounds.append(measured)

    @property
    def core_rates(self) -> list[float]:
        """
        Calls for each second of processor time that the server had. With a core to itself and more load than it can
        take, that is its rate; unlike the rate, it hardly changes when another program takes a part of the core.
        """
        return [one.rate / share for one, share in zip(self.rounds, self.busy, strict=True)]

    @property
    def disturbed(self) -> int:
        """In how many rounds a full load kept neither the server nor the load generator busy: others had the core."""
        return sum(share < _BUSY and one.load_busy < _BUSY for one, share in zip(self.rounds, self.busy, strict=True))

    def told(self) -> dict[str, Any]:
        """For the JSON. *busy* is the server's processor time to wall time, *load_busy* the load generator's."""
        return {
            "rate": [round(one.rate) for one in self.rounds],
            "p50": [one.p50 for one in self.rounds],
            "p99": [one.p99 for one in self.rounds],
            "load_busy": [round(one.load_busy, 3) for one in self.rounds],
            "busy": [round(share, 3) for share in self.busy],
            "core_rate": [round(rate) for rate in self.core_rates],
        }


def alternate(pace: Pace, *sides: Side) -> None:
    """A round of each side in turn, so that what the machine does meanwhile hits all of them."""
    for side in sides:
        side.run(1)  # warm-up
    for _ in range(pace.rounds):
        for side in sides:
            side.once(pace.seconds)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median, and the least and the greatest where there are several."""
    middle = format(median(values), form)
    return middle if len(values) < 2 else f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def to_json(machine: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The whole run, for other programs."""
    told = [
        {
            "name": row.name, "what": row.what, "sidecar": row.sidecar, "reference": row.reference, "ratio": row.ratio,
            "bar": row.bar, "verdict": row.verdict, "note": row.note, "details": dict(row.details),
        }
        for row in rows
    ]  # fmt: skip
    return json.dumps({"machine": dict(machine), "rows": told}, indent=2) + "\n"
