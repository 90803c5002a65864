"""
The row about the client of Redis: ours over redis-py's connections, redis-py's own, and hiredis alone.

The rule: one connection, one command after the other, each under the link's deadline, on the program's event loop;
rounds alternate. hiredis alone is the floor: it packs, writes, parses, and cares for nothing else.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import hiredis
import uvloop

from sidecar.core.rules import RedisRule
from sidecar.redis_link.client import build
from sidecar.redis_link.deadline import Deadline
from tests.bench import fleet, otherwise
from tests.bench.lab import Lab, Pace, Row, Side, alternate, spread
from tests.bench.load import Caller, marked
from tests.bench.machine import SERVER_CORE, on_core
from tests.fleet.lookups import as_it_is

_KEY = b"bench:{0123456789abcdef}:e"
_VALUE = b"x" * 2048
_COMMANDS = 2000
_IMPORTS = {
    "hiredis": "import hiredis",
    "redis-py": "import redis.asyncio",
    "ours": "import sidecar.redis_link.pool",
    "ours, Sentinel, Cluster": "import sidecar.redis_link.sentinels, sidecar.redis_link.cluster",
    "aiocache's Redis": "import aiocache.backends.redis",
}
_RESIDENT = """\
import asyncio, json, ssl, uvloop, aiohttp, msgspec, sidecar.redis_link.link
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) / 1024
before = resident()
%s
print(json.dumps(resident() - before))
"""

Ask = Callable[[], Awaitable[Any]]


def redis_client(lab: Lab, pace: Pace) -> list[Row]:
    """A GET of 2 KB, a whole hit in Redis, and what an import holds."""
    return [*_gets(pace), _hits(lab, pace), *_imports()]


def _gets(pace: Pace) -> list[Row]:
    with fleet.redis() as server, on_core(SERVER_CORE):
        found = uvloop.run(_measure(server.port, pace.rounds * (2 if pace.quick else 4)))
    ours = found["ours"]
    rows = []
    for name, theirs in found.items():
        if name != "ours":
            for what, at in (("of a core", 0), ("to the reply", 1)):
                mine, other = [one[at] for one in ours], [one[at] for one in theirs]
                ratio = median(a / b for a, b in zip(mine, other, strict=True))
                rows.append(
                    Row("redis-client", f"GET of 2 KB, us {what}", spread(mine, ".1f"),
                        f"{name} {spread(other, '.1f')}", round(ratio, 2), details=found)
                )  # fmt: skip
    return rows


async def _measure(port: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Microseconds of processor time and of time for each command, by round."""
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Any, *, name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    ours = build(RedisRule(f"redis://127.0.0.1:{port}"), spawn, as_it_is)
    stock = otherwise.stock_redis("127.0.0.1", port)
    _, bare = await asyncio.get_running_loop().create_connection(Bare, "127.0.0.1", port)
    await ours.set(_KEY, _VALUE)
    ways: dict[str, Ask] = {
        "ours": lambda: ours.ask("GET", _KEY),
        "our get": lambda: ours.get(_KEY),
        "redis-py": lambda: stock.get(_KEY),
        "hiredis alone": lambda: bare.ask("GET", _KEY),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, ask in ways.items():
            assert await ask() == _VALUE
            spent, began = time.process_time(), time.perf_counter()
            for _ in range(_COMMANDS):
                async with Deadline(1.0):
                    await ask()
            ended = time.perf_counter()
            found[name].append(((time.process_time() - spent) / _COMMANDS * 1e6, (ended - began) / _COMMANDS * 1e6))
    await ours.aclose()
    await stock.aclose()
    bare.close()
    return found


class Bare(asyncio.Protocol):
    """A connection that can do one thing: ask, and be answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._replies = hiredis.Reader(notEnoughData=self)

    async def ask(self, *command: Any) -> Any:
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(hiredis.pack_command(command))
        return await self._reply

    def data_received(self, data: bytes) -> None:
        self._replies.feed(data)
        reply = self._replies.gets()
        if reply is not self and not self._reply.done():
            self._reply.set_result(reply)

    def close(self) -> None:
        self._transport.close()


def _hits(lab: Lab, pace: Pace) -> Row:
    """
    As ``redis-hit``: every call answered from Redis; the sidecar as it is, and with redis-py's client. Redis has time
    enough, for a neighbour on its core makes misses of hits otherwise.
    """
    requests = [fleet.question(number) for number in range(16)]
    with (
        fleet.redis() as one,
        fleet.redis() as another,
        fleet.running(lab, one, 1, memory="max_entries: 1", timeout="2s") as (ours,),
        fleet.running(lab, another, 1, memory="max_entries: 1", otherwise="stock-redis", timeout="2s") as (stock,),
    ):
        sides = []
        for sidecar in (ours, stock):
            with Caller(sidecar.port) as caller:
                for request in requests * 2:
                    caller.call(marked(request))
            sides.append(
                Side(
                    lambda seconds, port=sidecar.port: lab.hits(port, requests, seconds, connections=1), sidecar.process
                )
            )
        alternate(pace, *sides)
    rates = [side.core_rates for side in sides]
    ratio = median(a / b for a, b in zip(*rates, strict=True))
    return Row("redis-client", "hits in Redis a core's second", spread(rates[0]), f"redis-py {spread(rates[1])}",
               round(ratio, 2), details={"ours": sides[0].told(), "redis-py": sides[1].told()})  # fmt: skip


def _imports() -> list[Row]:
    rows = []
    for name, what in _IMPORTS.items():
        ran = [subprocess.run([sys.executable, "-c", _RESIDENT % what], capture_output=True, check=True).stdout
               for _ in range(3)]  # fmt: skip
        rows.append(Row("redis-client", f"import, MiB: {name}", spread([json.loads(one) for one in ran], ".1f")))
    return rows
