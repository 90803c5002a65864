"""
Load on a schedule: calls that are due at a fixed rate, whatever becomes of those before them.

The rule: a call counts from when it was due, and nothing that happens to it ends the measurement: its failure is what
is measured. (``load.wrk`` is a closed loop, which sends less as soon as answers are late.)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, TypeVar

import uvloop

from tests.bench import bodies
from tests.bench.load import marked
from tests.bench.machine import LOAD_CORE, on_core
from tests.scenarios.caller import Caller as Stream

PATIENCE = 60.0
"""Seconds after which a caller gives up."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """
    What became of a call. *due*: ``time.monotonic``; *seconds* from then to the answer's last byte. *status* 0: no
    answer; *whole*: all of it came; *begun*: some of it did. *said*: the answer's fields.
    """

    due: float
    seconds: float
    status: int
    whole: bool
    begun: bool
    said: dict[str, str]

    @property
    def good(self) -> bool:
        """Whether the caller has what it asked for."""
        return self.status == 200 and self.whole

    @property
    def region(self) -> str:
        """Which region answered."""
        return self.said.get("x-sidecar-region", "")

    @property
    def retry_after(self) -> float:
        """Seconds, 0 where none are named."""
        return float(self.said.get("retry-after", 0))


class Callers:
    """As many keep-alive connections to *port* as calls are under way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def prepare(self, count: int) -> None:
        """Open connections ahead."""
        self._idle += await asyncio.gather(*(self._connect() for _ in range(count)))

    async def call(self, request: bytes, due: float | None = None) -> Call:
        """One call, due now unless said otherwise."""
        due = time.monotonic() if due is None else due
        stream, connection = None, None
        try:
            async with asyncio.timeout(PATIENCE):
                connection = self._take() or await self._connect()
                stream = Stream(*connection)
                connection[1].write(marked(request))
                await stream.reply()
        except (OSError, TimeoutError):
            pass
        seconds = time.monotonic() - due
        if stream is None or connection is None:
            return Call(due, seconds, 0, whole=False, begun=False, said={})
        said, body, ended = stream.headers, stream.body, stream.ended
        if ended and said.get("connection") != "close":
            self._idle.append(connection)
        else:
            stream.close()
        streamed = "event-stream" in said.get("content-type", "")
        whole = ended and (not streamed or b"data: [DONE]" in body)
        return Call(due, seconds, stream.status, whole, b'"content":"I' in body, said)

    def close(self) -> None:
        """Close what is open."""
        while self._idle:
            self._idle.pop()[1].close()

    def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)


async def press(callers: Callers, requests: Sequence[bytes], *, rate: float, seconds: float) -> list[Call]:
    """Calls due every 1 / *rate* seconds for so long, *requests* in turn; what became of each."""
    calls = []
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(due - time.monotonic())
        calls.append(asyncio.ensure_future(callers.call(requests[number % len(requests)], due)))
    return list(await asyncio.gather(*calls))


def on_load_core(main: Coroutine[Any, Any, T]) -> T:
    """Run *main* where load generators run."""
    with on_core(LOAD_CORE):
        return uvloop.run(main)


def fresh(**more: Any) -> bytes:
    """A question that nobody has asked before each time it is sent, with *more* members."""
    members = bodies.chat(**more)
    members["messages"][-1]["content"] += f" Page {bodies.MARK.decode()}."
    return bodies.request(json.dumps(members, separators=(",", ":")).encode())


def p99(calls: Iterable[Call]) -> float:
    """Of their seconds, in milliseconds."""
    return quantiles((call.seconds for call in calls), n=100)[-1] * 1e3


def tally(calls: Iterable[Call], of: Callable[[Call], object]) -> str:
    """How many calls were what, in words."""
    found: dict[str, int] = {}
    for call in calls:
        found[str(of(call))] = found.get(str(of(call)), 0) + 1
    return ", ".join(f"{count} x {what}" for what, count in sorted(found.items(), key=lambda one: -one[1])) or "none"
