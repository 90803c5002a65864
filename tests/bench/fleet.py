"""
The rows about the fleet: what Redis adds to a call, what it costs when it is sick, how fast a fleet hears of things.

The rule: every process is a real one, and so is Redis; it has the load generator's core.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from statistics import median, quantiles
from typing import Self

import pytest

from sidecar.cli.keygen import line
from tests.bench import bodies
from tests.bench.lab import TOKEN, Lab, Missing, Pace, Row, Sidecar, spread
from tests.bench.load import Caller, Measured, marked
from tests.bench.machine import LOAD_CORE, free_port, on_core
from tests.redis_servers import RedisServer
from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, whole
from tests.scenarios.caller import Caller as Stream

DEADLINE_MS = 50.0
LEASE_WAIT = 1.0
PROCESSES = 8
CALLERS = 50

_RATE = 200
_FREEZE_SECONDS = 4.0
_WATCHED_SECONDS = 2.0
_QUICK_ANSWER = 0.4
_SLOW_ANSWER = 3.0


def redis_hit(lab: Lab, pace: Pace) -> list[Row]:
    """
    One connection, every call answered from Redis, for there is room for one entry in memory, and 16 take turns: what
    is added to calling the provider directly, median latencies.
    """
    requests = [question(number) for number in range(16)]
    relay, relay_port = lab.relay()
    with relay, redis() as server, running(lab, server, 1, memory="max_entries: 1") as (sidecar,):
        with Caller(sidecar.port) as caller:
            for request in requests * 2:
                caller.call(marked(request))
        found: list[Measured] = []
        direct: list[float] = []
        relayed: list[float] = []
        for _ in range(pace.rounds):
            direct.append(lab.load(lab.upstream_port, requests, connections=1, seconds=1).p50)
            relayed.append(lab.load(relay_port, requests, connections=1, seconds=1).p50)
            asked, hits = lab.answered(), _outcomes(sidecar, "hit_redis")
            found.append(lab.load(sidecar.port, requests, connections=1, seconds=pace.seconds))
            if lab.answered() != asked or _outcomes(sidecar, "hit_redis") - hits < found[-1].requests:
                raise RuntimeError("not every call was a hit in Redis")
        bare = _round_trip(server)
    added = [one.p50 - none for one, none in zip(found, direct, strict=True)]
    by_relay = [one - none for one, none in zip(relayed, direct, strict=True)]
    details = {
        "p50": [one.p50 for one in found],
        "p99": [one.p99 for one in found],
        "direct": direct,
        "relayed": relayed,
        "bare_get": bare,
    }
    return [
        Row(
            "redis-hit", "hit in Redis, one connection, added p50, us", spread(added),
            f"bare relay of a miss {spread(by_relay)}", bar="<= 400 us", reached=median(added) <= 400, details=details,
        )
    ]  # fmt: skip


def redis_freeze(lab: Lab, pace: Pace) -> list[Row]:
    """Redis stands still for four seconds under 200 calls a second, half of them hits in memory, half misses."""
    found = [_freeze(lab) for _ in range(1 if pace.quick else 3)]
    added, back = [one["added_p99"] for one in found], [one["back"] for one in found]
    return [
        Row(
            "redis-freeze", f"added p99, {_WATCHED_SECONDS:.0f} s after it froze, ms", spread(added, ".1f"),
            bar=f"< {DEADLINE_MS:.0f} ms", reached=max(added) < DEADLINE_MS, details={"rounds": found},
        ),
        Row(
            "redis-freeze", "from thaw until all use Redis, s", spread(back, ".2f"),
            bar="<= 5 s", reached=max(back) <= 5, details={"rounds": found},
        ),
    ]  # fmt: skip


def redis_purge(lab: Lab, pace: Pace) -> list[Row]:
    """From a purge at one of eight processes until all eight have carried it out; and from FLUSHALL."""
    rounds = 2 if pace.quick else 6
    with redis() as server, running(lab, server, PROCESSES) as fleet:
        purge = [_until_purged(fleet, lambda: act(fleet[0], "purge", {"scope": "all"})) for _ in range(rounds)]
        flush = [_until_purged(fleet, lambda: server.call("FLUSHALL")) for _ in range(rounds)]
    return [
        Row(
            "redis-purge", f"{what}, seen by {PROCESSES} processes, s", spread(seconds, ".2f"),
            bar="<= 2 s", reached=max(seconds) <= 2, details={"seconds": seconds},
        )
        for what, seconds in (("a purge", purge), ("FLUSHALL", flush))
    ]  # fmt: skip


def fleet_8x50(lab: Lab, _: Pace) -> list[Row]:
    """Eight processes, each asked the same by fifty callers at once: how often the provider is."""
    port = free_port()
    with redis() as server, running(lab, server, PROCESSES, upstream=port) as fleet:
        plain, quick, slow = asyncio.run(_ask_fleet(fleet, port))
    callers = f"{PROCESSES} x {CALLERS} callers"
    details = {"plain": plain, "quick": quick, "slow": slow}
    return [
        Row("fleet-8x50", f"{callers}, plain: upstream calls", str(plain[0]), bar="1", reached=plain[0] == 1,
            details=details),
        Row("fleet-8x50", f"streams of {_QUICK_ANSWER} s: upstream calls", str(quick[0]), bar="1",
            reached=quick[0] == 1, details=details),
        Row("fleet-8x50", f"streams of {_SLOW_ANSWER} s: upstream calls", str(slow[0]), bar=f"<= {PROCESSES}",
            reached=slow[0] <= PROCESSES, details=details),
        Row("fleet-8x50", "their longest wait for a first token, s", f"{slow[1]:.2f}",
            bar=f"<= {LEASE_WAIT} s + 0.1", reached=slow[1] <= LEASE_WAIT + 0.1, details=details),
    ]  # fmt: skip


def redis_memory(lab: Lab, _: Pace) -> list[Row]:
    """Resident memory with Redis, idle after one entry was written and another read, with and without encryption."""
    rows = []
    for encrypt, bar in ((False, 64), (True, 72)):
        with redis() as server, running(lab, server, 2, encrypt=encrypt) as (one, two):
            for sidecar in (one, two):
                with Caller(sidecar.port) as caller:
                    caller.call(marked(question(1)))
                time.sleep(1)
            found = two.process.memory()
        how = "encrypted" if encrypt else "signed only"
        rows.append(
            Row(
                "redis-memory", f"resident idle with Redis, {how}, MiB", f"{found['rss']:.1f}",
                bar=f"<= {bar} MiB", reached=found["rss"] <= bar, details=found,
            )
        )  # fmt: skip
    return rows


@contextmanager
def redis(*options: str) -> Iterator[RedisServer]:
    """A server on the load generator's core; *options* as on its command line."""
    try:
        with on_core(LOAD_CORE):
            server = RedisServer(options=options).__enter__()
    except pytest.skip.Exception as skipped:
        raise Missing(str(skipped)) from None
    try:
        yield server
    finally:
        server.__exit__(None, None, None)


@contextmanager
def running(
    lab: Lab,
    server: RedisServer,
    size: int,
    *,
    upstream: int = 0,
    memory: str = "",
    encrypt: bool = True,
    otherwise: str = "",
    timeout: str = "50ms",
) -> Iterator[list[Sidecar]]:
    """*size* sidecars over *server*, each a process of its own; *otherwise* as in ``lab.Sidecar``."""
    more = sealed(lab, server, f"  encrypt: {str(encrypt).lower()}\n  memory: {{{memory}}}\n", timeout)
    with ExitStack() as stack:
        yield [
            stack.enter_context(Sidecar(lab.folder(), upstream or lab.upstream_port, more=more, otherwise=otherwise))
            for _ in range(size)
        ]


def sealed(lab: Lab, server: RedisServer, more: str = "", timeout: str = "50ms") -> str:
    """
    The part of a configuration that is about the cache in *server*, which has *timeout* for a call; *more* lines stand
    at its end.
    """
    secret = lab.folder()
    secret.write_text(line() + "\n")
    rule = f'{{url: "{server.url}", namespace: bench, timeout: {timeout}}}'
    return f"cache:\n  redis: {rule}\n  secret_file: {secret}\n{more}"


def question(number: int) -> bytes:
    """A call that differs from those with other numbers."""
    members = bodies.chat()
    members["messages"][-1]["content"] += f" Page {number}."
    return bodies.request(json.dumps(members).encode())


def _outcomes(sidecar: Sidecar, outcome: str) -> float:
    """How many requests had that outcome."""
    with Caller(sidecar.health_port) as caller:
        lines = caller.get("/metrics").decode().splitlines()
    wanted = f'outcome="{outcome}"'
    return sum(float(one.split()[-1]) for one in lines if one.startswith("sidecar_requests_total{") and wanted in one)


def _round_trip(server: RedisServer) -> float:
    """The median of a GET's microseconds, over a connection of its own, blocking."""
    found = []
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2000):
            began = time.perf_counter()
            connection.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n")
            connection.recv(4096)
            found.append((time.perf_counter() - began) * 1e6)
    return median(found)


def _freeze(lab: Lab) -> dict[str, float]:
    with redis() as server, running(lab, server, 3) as fleet, _Mix(fleet) as mix:
        time.sleep(2)
        frozen = time.perf_counter()
        server.pause()
        time.sleep(_FREEZE_SECONDS)
        if any(sidecar.metric("redis_up") for sidecar in fleet):
            raise RuntimeError("a frozen Redis is still used")
        server.resume()
        thawed = time.perf_counter()
        while not all(sidecar.metric("redis_up") for sidecar in fleet) and time.perf_counter() < thawed + 20:
            time.sleep(0.02)
        back = time.perf_counter() - thawed
    calls = mix.over()
    usual = {
        kind: median(seconds for due, seconds, one in calls if one == kind and frozen - 1.5 < due < frozen)
        for kind in ("hit", "miss")
    }
    added = {
        kind: [
            seconds - usual[kind] for due, seconds, one in calls if one == kind and 0 <= due - frozen < _WATCHED_SECONDS
        ]
        for kind in ("hit", "miss")
    }
    everything = [*added["hit"], *added["miss"]]
    return {
        "back": back,
        "calls": len(calls),
        "added_p99": quantiles(everything, n=100)[-1] * 1e3,
        "added_longest": max(everything) * 1e3,
        "hits_p99": quantiles(added["hit"], n=100)[-1] * 1e3,
        "misses_p99": quantiles(added["miss"], n=100)[-1] * 1e3,
        "usual_hit": usual["hit"] * 1e3,
        "usual_miss": usual["miss"] * 1e3,
        "late": sum(seconds > 0.04 for seconds in everything),
    }


class _Mix:
    """Calls due 200 times a second (open loop), spread over *fleet*, for as long as the ``with`` block runs."""

    def __init__(self, fleet: Sequence[Sidecar]) -> None:
        self._ports = [sidecar.port for sidecar in fleet]
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(64)
        self._end = threading.Event()
        self._calls: list[Future[tuple[float, float, str]]] = []
        self._thread = threading.Thread(target=self._press)

    def __enter__(self) -> Self:
        for port in self._ports:
            with Caller(port) as caller:
                caller.call(marked(question(0)))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._pool.shutdown()

    def over(self) -> list[tuple[float, float, str]]:
        """When each call was due, its seconds, its kind. Raises what one met."""
        return [call.result() for call in self._calls]

    def _press(self) -> None:
        os.sched_setaffinity(0, {LOAD_CORE})  # of this thread
        due = time.perf_counter()
        for number in count():
            if self._end.is_set():
                return
            time.sleep(max(0.0, due - time.perf_counter()))
            port = self._ports[number % len(self._ports)]
            kind = "hit" if number // len(self._ports) % 2 else "miss"
            self._calls.append(self._pool.submit(self._call, port, due, kind))
            due += 1 / _RATE

    def _call(self, port: int, due: float, kind: str) -> tuple[float, float, str]:
        callers = self._local.__dict__
        name = str(port)
        if name not in callers:
            callers[name] = Caller(port)
        callers[name].call(marked(question(0) if kind == "hit" else bodies.fresh()))
        return due, time.perf_counter() - due, kind


def act(sidecar: Sidecar, action: str, asked: dict[str, object]) -> None:
    """Do to the whole fleet what ``/api`` offers."""
    body = json.dumps(asked)
    with Caller(sidecar.admin_port) as caller:
        caller.call(
            f"POST /api/{action} HTTP/1.1\r\nHost: 127.0.0.1:{sidecar.admin_port}\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )


def _until_purged(fleet: Sequence[Sidecar], purge: Callable[[], object]) -> float:
    """Seconds from *purge* until no process has an entry, each having had one."""
    for sidecar in fleet:
        with Caller(sidecar.port) as caller:
            caller.call(marked(question(1)))
    if not all(sidecar.metric("cache_entries") for sidecar in fleet):
        raise RuntimeError("a process has nothing to purge")
    began = time.perf_counter()
    purge()
    left = list(fleet)
    while left and time.perf_counter() < began + 20:
        left = [sidecar for sidecar in left if sidecar.metric("cache_entries")]
    return time.perf_counter() - began


async def _ask_fleet(fleet: Sequence[Sidecar], port: int) -> list[tuple[int, float]]:
    """For a plain answer, a quick stream and a slow one: calls at the provider, and the longest first token."""
    calls, seconds = 0, 0.0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                calls += 1
                if json.loads(body).get("stream"):
                    events = chat_events("It is", " a box.")
                    writer.write(STREAM_HEAD + chunks(events[:2]))
                    await asyncio.sleep(seconds)
                    writer.write(chunks(events[2:]) + LAST_CHUNK)
                else:
                    await asyncio.sleep(seconds)
                    writer.write(whole(completion("It is a box.")))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the last: the loop ends
        finally:
            writer.close()

    async def ask(sidecar: Sidecar, request: bytes, mark: bytes) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
        stream = Stream(reader, writer)
        ready.append(stream)
        await together.wait()
        began = time.perf_counter()
        writer.write(request)
        await stream.until(mark)
        first = time.perf_counter() - began
        reply = await stream.reply()
        stream.close()
        if reply.status != 200 or reply.broken:
            raise RuntimeError(f"answered with {reply.status}")
        return first

    found: list[tuple[int, float]] = []
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    for stream, lasting, mark in ((False, _QUICK_ANSWER, b"box"), (True, _QUICK_ANSWER, b"data:"),
                                  (True, _SLOW_ANSWER, b"data:")):  # fmt: skip
        calls, seconds = 0, lasting
        ready: list[Stream] = []
        together = asyncio.Event()
        request = marked(bodies.request(json.dumps(bodies.chat(stream=stream, seed=len(found))).encode()))
        asking = [asyncio.ensure_future(ask(sidecar, request, mark)) for sidecar in fleet for _ in range(CALLERS)]
        while len(ready) < len(asking):  # noqa: ASYNC110  a few milliseconds, before the clock runs
            await asyncio.sleep(0.01)
        together.set()
        firsts = await asyncio.gather(*asking)
        found.append((calls, max(firsts)))
    server.close()
    return found
