"""
Load of every kind at once, as applications and their mishaps make it.

The rule: a kind knows which ends of its calls are right, also those that are errors by script. Any other end is a
failure, and is told with its reason.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from tests.bench import bodies
from tests.bench.fleet import question
from tests.bench.load import marked
from tests.bench.open_loop import Call, Callers, fresh

LARGE = 2 * 1024 * 1024
"""Bytes of a large request."""

SLOW_READ = 0.02
"""Seconds between two reads of a slow reader."""

STANDSTILL = 12.0
"""Seconds for which some readers read nothing: longer than the sidecar waits for them."""

FAILING, LARGE_ANSWERS, HUGE_ANSWERS = "/failing", "/large", "/huge"
"""The services beside ``openai``: one that fails, and two that answer with much."""

BREAKS = "a"
"""The region that resets its connections now and then. A stream that had begun ends there; no region could mend it."""

MOST = 48
"""Calls under way at once; one that is due beyond is left out. A busy machine makes it a lighter load, no overload."""

_QUESTIONS = 40
_TOGETHER = 5
_CHAT = "/v1/chat/completions"


class MixedLoad:
    """
    Calls to the sidecar at *port*; some ask the one at *neighbour* first. *calls* and *failures* count by kind, and
    *answers* by what ``Cache-Status`` says of them; *omitted* are calls that were left out.
    """

    def __init__(self, port: int, neighbour: int) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.omitted = 0
        self._under_way = 0
        self._port = port
        self._callers = Callers(port)
        self._neighbour = Callers(neighbour)
        self._draw = random.Random(7)
        self._variants = bodies.variants()
        self._large = itertools.cycle((bodies.one_string(LARGE), bodies.many_messages(LARGE)))

    def __repr__(self) -> str:
        return f"<MixedLoad {sum(self.calls.values())} calls, {sum(self.failures.values())} failed>"

    async def press(self, seconds: float) -> None:
        """Make calls of every kind for so long; afterwards nothing is under way, and no connection is open."""
        until = time.monotonic() + seconds
        await asyncio.gather(*(self._repeat(kind, until) for kind in KINDS))
        self._callers.close()
        self._neighbour.close()

    async def _repeat(self, kind: Kind, until: float) -> None:
        due = time.monotonic() + self._draw.random() / kind.rate
        calls: set[asyncio.Task[None]] = set()
        while due < until:
            await asyncio.sleep(due - time.monotonic())
            due += 1 / kind.rate
            if self._under_way >= MOST:
                self.omitted += 1
                continue
            call = asyncio.ensure_future(self._once(kind))
            calls.add(call)
            call.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    async def _once(self, kind: Kind) -> None:
        self.calls[kind.name] += 1
        self._under_way += 1
        try:
            async with asyncio.timeout(90):
                failure = await kind.make(self)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            failure = type(error).__name__
        finally:
            self._under_way -= 1
        if failure:
            self.failures[f"{kind.name}: {failure}"] += 1

    async def _ask(self, request: bytes) -> str:
        """An answer with status 200, whole."""
        return _good(self._note(await self._callers.call(request)))

    def _note(self, call: Call) -> Call:
        said = call.said.get("cache-status", "none")
        detail = said.rpartition("detail=")[2] if "detail=" in said else ""
        found = (
            detail if "; hit" in said else "bypass" if "fwd=bypass" in said else "miss" if "fwd=miss" in said else ""
        )
        self.answers[found or "other"] += 1
        return call

    async def miss(self) -> str:
        """A question that nobody has asked."""
        return await self._ask(fresh())

    async def known(self) -> str:
        """One of few questions, in many spellings."""
        number = self._draw.randrange(_QUESTIONS)
        return await self._ask(question(number) if number else self._draw.choice(self._variants))

    async def from_redis(self) -> str:
        """A question that the neighbour was asked a second ago."""
        request = marked(fresh())
        if failure := _good(await self._neighbour.call(request)):
            return f"of the neighbour, {failure}"
        await asyncio.sleep(1.0)
        return await self._ask(request)

    async def stream(self) -> str:
        """A stream, and the same once more."""
        request = marked(fresh(stream=True))
        return await self._ask(request) or await self._ask(request)

    async def together(self) -> str:
        """One question by several callers at once."""
        request = marked(fresh(stream=self._draw.random() < 0.5))
        failures = await asyncio.gather(*(self._ask(request) for _ in range(_TOGETHER)))
        return ", ".join(sorted({failure for failure in failures if failure}))

    async def bypass(self) -> str:
        """A call that is not looked up: because of what it says, or of what it asks."""
        request = self._draw.choice(
            (
                marked(fresh()).replace(b"Accept: ", b"Cache-Control: no-store\r\nAccept: ", 1),
                marked(fresh(store=True)),
                bodies.request(b'{"input":"a"}', path="/openai/v1/moderations"),
            )
        )
        return await self._ask(request)

    async def failing(self) -> str:
        """A call to a service that fails as it is told: the caller gets an answer, whatever it says."""
        body = bodies.body_of(fresh(stream=self._draw.random() < 0.5))
        call = self._note(await self._callers.call(bodies.request(body, path=FAILING + _CHAT)))
        return "" if call.status else "no answer"

    async def large_request(self) -> str:
        """A large body."""
        return await self._ask(next(self._large))

    async def large_answer(self) -> str:
        """A large answer."""
        return await self._ask(marked(bodies.fresh(LARGE_ANSWERS + _CHAT)))

    async def refused(self) -> str:
        """A call that the sidecar itself refuses."""
        request, status = self._draw.choice(
            (
                (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 404),
                (b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: b\r\n\r\n", 400),
                (b"\x16\x03\x01 no HTTP at all \x00\r\n\r\n", 400),
            )
        )
        call = await self._callers.call(request)
        return "" if call.status == status else f"{call.status}, not {status}"

    async def aborted(self) -> str:
        """A caller that is gone: in the middle of its request, after it, or in the middle of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        request = marked(fresh(stream=True))
        parts = self._draw.randrange(3)
        writer.write(request[: len(request) // 2] if not parts else request)
        with suppress(OSError, asyncio.IncompleteReadError):
            if parts == 2:
                await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        return ""

    async def slow_reader(self) -> str:
        """A caller that reads little at a time, and gets all of it."""
        async with _Reader(self._port) as reader:
            while reader.left:
                await reader.some()
                await asyncio.sleep(SLOW_READ)
        return "" if reader.status == 200 else str(reader.status)

    async def standing_reader(self) -> str:
        """A caller that reads nothing for long: it is given up."""
        async with _Reader(self._port) as reader:
            await asyncio.sleep(STANDSTILL)
            try:
                while reader.left:
                    await reader.some()
            except (ConnectionError, asyncio.IncompleteReadError):
                return ""
        return "it got all of its answer"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of call: *rate* a second. *make* returns what was wrong with it, or nothing."""

    name: str
    rate: float
    make: Callable[[MixedLoad], Awaitable[str]]


KINDS: Sequence[Kind] = (
    Kind("misses", 12, MixedLoad.miss),
    Kind("known questions", 20, MixedLoad.known),
    Kind("asked of the neighbour first", 5, MixedLoad.from_redis),
    Kind("streams, twice", 5, MixedLoad.stream),
    Kind("by five callers at once", 1, MixedLoad.together),
    Kind("not looked up", 4, MixedLoad.bypass),
    Kind("to a failing service", 4, MixedLoad.failing),
    Kind("large requests", 0.3, MixedLoad.large_request),
    Kind("large answers", 0.5, MixedLoad.large_answer),
    Kind("refused", 1, MixedLoad.refused),
    Kind("callers that vanish", 3, MixedLoad.aborted),
    Kind("slow readers", 0.2, MixedLoad.slow_reader),
    Kind("readers that stand still", 0.1, MixedLoad.standing_reader),
)


class _Reader:
    """A caller with a small receive buffer who has asked for a huge answer; *left*: bytes that it has not read yet."""

    def __init__(self, port: int) -> None:
        self.status = self.left = 0
        self._port = port

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
        self._writer.write(marked(bodies.fresh(HUGE_ANSWERS + _CHAT)))
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        self.status = int(head[9:12])
        self.left = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def some(self) -> None:
        """Read a little."""
        piece = await self._reader.read(1 << 16)
        if not piece:
            raise asyncio.IncompleteReadError(b"", self.left)
        self.left -= len(piece)


def _good(call: Call) -> str:
    """What was wrong with a call that had to go well."""
    if call.good or (call.begun and not call.whole and call.region == BREAKS):
        return ""
    return f"{call.status or 'no answer'}{'' if call.whole else ', broken'} of {call.region or 'no region'}"
