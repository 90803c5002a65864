"""
Load: wrk for rates and for the latency of one connection, and a small client of our own for everything else.

The rule: a measurement in which one call failed is none: it raises.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.bodies import MARK
from tests.bench.machine import LOAD_CORE, tool

_SCRIPT = """\
local seed, count, n = "%s", %d, 0
local concat, format = table.concat, string.format
local requests = {
%s
}
function request()
   n = n + 1
   return concat(requests[n %% count + 1], seed .. format("%%012x", n))
end
function done(summary, latency)
   local e = summary.errors
   io.write(format('measured {"requests":%%d,"seconds":%%f,"errors":%%d,"p50":%%f,"p99":%%f,"longest":%%f}\\n',
      summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
      latency:percentile(50), latency:percentile(99), latency.max))
end
"""

_seeds = itertools.count(1)
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What wrk saw. Latencies in microseconds; closed loop: a call is sent when its connection is free.

    *load_busy* is wrk's own processor time to wall time: near 1, it was wrk that could not go faster.
    """

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    longest: float
    load_busy: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.requests / self.seconds


def wrk(port: int, requests: Sequence[bytes], *, connections: int, seconds: int, directory: Path) -> Measured:
    """Send *requests* in turn for *seconds*, each ``MARK`` in them replaced by a number never used before."""
    script = directory / "load.lua"
    rows = ",\n".join("{" + ",".join(map(_lua, one.split(MARK))) + "}" for one in requests)
    script.write_text(_SCRIPT % (f"{next(_seeds):04x}", len(requests), rows))
    program = tool("wrk")
    assert program is not None
    before = _children_seconds()
    ran = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=partial(os.sched_setaffinity, 0, {LOAD_CORE}),
    )
    found = [line for line in ran.stdout.splitlines() if line.startswith("measured ")]
    if not found:
        raise RuntimeError(f"wrk: {ran.stdout[-300:]} {ran.stderr[-300:]}")
    told = json.loads(found[0].removeprefix("measured "))
    measured = Measured(**told, load_busy=(_children_seconds() - before) / told["seconds"])
    if measured.errors or not measured.requests:
        raise RuntimeError(f"wrk: {measured.errors} of {measured.requests} calls failed on port {port}")
    return measured


class Caller:
    """One keep-alive connection. Its answers must have a Content-Length."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, request: bytes) -> bytes:
        """The body of the answer. Raises ``RuntimeError`` where its status is not 200."""
        self._socket.sendall(request)
        head = end = body = b""
        while not end:
            chunk = self._socket.recv(65_536)
            if not chunk:
                raise RuntimeError("the server hung up")
            head, end, body = (head + chunk).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._socket.recv(65_536)
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            raise RuntimeError(f"answered with {head[:40]!r}: {body[:300]!r}")
        return body

    def get(self, path: str) -> bytes:
        """The body of the answer to a GET."""
        return self.call(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())


def marked(request: bytes) -> bytes:
    """*request* with a number never used before, for one send."""
    return request.replace(MARK, b"ffff%012x" % next(_numbers))


def burst(port: int, request: bytes, *, calls: int, at_once: int) -> None:
    """Send *request* *calls* times over *at_once* connections, marked anew each time."""

    def work(share: int) -> None:
        with Caller(port) as caller:
            together.wait()
            for _ in range(share):
                caller.call(marked(request))

    together = threading.Barrier(at_once)
    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(work, calls // at_once) for _ in range(at_once)]:
            done.result()


def steady(port: int, request: bytes, *, rate: float, seconds: float) -> list[float]:
    """
    Latencies in milliseconds of calls that are due every 1 / *rate* seconds (open loop: each counts from when it was
    due, so a stall counts for all the calls that it held up).
    """
    found = []
    with Caller(port) as caller:
        due = time.perf_counter()
        until = due + seconds
        while due < until:
            time.sleep(max(0.0, due - time.perf_counter()))
            caller.call(marked(request))
            found.append((time.perf_counter() - due) * 1e3)
            due += 1 / rate
    return found


class Sending:
    """*senders* connections that send *requests* one after the other, for as long as the ``with`` block runs."""

    def __init__(self, port: int, requests: Sequence[bytes], *, senders: int) -> None:
        self.sent = 0
        self._port = port
        self._requests = requests
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(senders)
        self._senders = senders

    def __enter__(self) -> Self:
        self._work = [self._pool.submit(self._send, number) for number in range(self._senders)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for work in self._work:
            work.result()
        self._pool.shutdown()

    def _send(self, number: int) -> None:
        with Caller(self._port) as caller:
            for request in itertools.cycle([*self._requests[number:], *self._requests[:number]]):
                if self._over.is_set():
                    return
                caller.call(marked(request))
                self.sent += 1


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lua(text: bytes) -> str:
    return (
        '"' + "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in text) + '"'
    )
