"""
Regions of a service as upstreams on real sockets: each behaves as a story says, and otherwise while it runs.

Calls are counted where they arrive: *calls* is requests read, *refused* connections that were reset at once. What
never gets as far as that can only be counted by who sends it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import aiohttp
import pytest

from sidecar.core.region.breaker import Breaker, State
from sidecar.core.region.regions import Place
from sidecar.core.rules import BreakerRule, CacheMode, CacheRule, Match, Route, Service, Timeouts
from sidecar.core.rules import Region as Rule
from sidecar.dialects import DIALECTS
from tests.scenarios.answers import CLAUDE_START, LAST_CHUNK, STREAM_HEAD, chat_events, chunks, completion, whole
from tests.scenarios.caller import Reply
from tests.scenarios.lab import CHAT, KEY, Ear, Lab, Script

PATIENT = Timeouts(connect=60.0, first_byte=60.0, stream_first_byte=60.0, idle=60.0)
"""What a region that is well never takes, however busy the machine is."""

HASTY = Timeouts(connect=0.05, first_byte=0.05, stream_first_byte=0.05, idle=5.0)
"""Where nobody says anything at all."""

QUICK = Timeouts(connect=0.25, first_byte=0.5, stream_first_byte=0.5, idle=5.0)
"""Where a region says nothing, and calls come one by one."""

BUSY = Timeouts(connect=1.0, first_byte=2.0, stream_first_byte=2.0, idle=10.0)
"""Where a region says nothing, and the other is asked by many at once."""

MIB = 1024 * 1024

ERROR = b'{"error": {"message": "It broke.", "type": "server_error", "code": null}}'

THROTTLED = (
    b'{"error": {"message": "Rate limit reached for requests", "type": "requests", "code": "rate_limit_exceeded"}}'
)


class Way(StrEnum):
    """
    How a region is. ``KILLED``: every connection is reset, ``CLOSED``: nothing listens, ``BLACK_HOLED``: connections
    are not accepted and calls on open ones not answered, ``SLOW``: answers never come, ``HALF``: every other call
    fails; ``DROPPED``: the connection is reset once the call has arrived; ``BROKEN_BEFORE`` and ``BROKEN_AFTER`` the
    commit point.
    """

    WELL = "well"
    KILLED = "killed"
    CLOSED = "closed"
    BLACK_HOLED = "black-holed"
    SLOW = "slow"
    DOWN = "500"
    HALF = "500-to-half"
    THROTTLED = "429"
    DROPPED = "dropped"
    BROKEN_BEFORE = "broken-before-commit"
    BROKEN_AFTER = "broken-after-commit"


class Region(Script):
    """
    A region that is as *way* says.

    *takes*: models that are answered also where others are not. *retry_after* is what it says when it throttles. Calls
    whose body contains *hold* are not answered before *go* is set, nor is the end of streams that *hold_tail* is in.
    """

    def __init__(self, name: str) -> None:
        super().__init__(self._answer)
        self.name = name
        self.way = Way.WELL
        self.takes: frozenset[str] = frozenset()
        self.retry_after = "7"
        self.hold = b"\0"
        self.hold_tail = b"\0"
        self.go = asyncio.Event()
        self.refused = 0
        self._answered = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._deaf: list[socket.socket] = []

    @property
    def attempts(self) -> int:
        """Calls that came as far as here."""
        return self.calls + self.refused

    def rule(self, **members: Any) -> Rule:
        """It as a configuration has it."""
        return Rule(self.name, self.url, **members)

    def wrote(self, text: bytes) -> bool:
        """Whether *text* came over the wire here, in any head or body."""
        return any(text in head or text in body for head, body in self.seen)

    async def become(self, way: Way) -> None:
        """From now on it is as *way* says."""
        listening = self.way not in {Way.CLOSED, Way.BLACK_HOLED}
        self.way = way
        self._hear()
        if way in {Way.KILLED, Way.CLOSED}:
            for writer in tuple(self._writers):
                reset(writer)
        if way is Way.CLOSED or way is Way.BLACK_HOLED:
            if listening:
                assert self._server is not None
                self._server.close()
            if way is Way.BLACK_HOLED:
                self._deafen()
        elif not listening:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: asyncio.StreamReaderProtocol(Ear(), self._accept), "127.0.0.1", self.port, backlog=1024
            )

    async def stop(self) -> None:
        self._hear()
        await super().stop()

    def _deafen(self) -> None:
        """Listen with a queue that is full, so that the kernel answers nobody."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(0)
        self._deaf.append(listener)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._deaf.append(filler)

    def _hear(self) -> None:
        while self._deaf:
            self._deaf.pop().close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.way is Way.KILLED:
            self.refused += 1
            reset(writer)
            return
        super()._accept(reader, writer)

    async def _serve(self, reader: Ear, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await super()._serve(reader, writer)
        finally:
            self._writers.discard(writer)

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self._answered += 1
        number = self._answered
        asked = json.loads(body)
        model = asked.get("model", "")
        await asyncio.sleep(0.002)  # so that calls are under way when something happens
        if self.hold in body:
            await self.go.wait()
        way = Way.WELL if model in self.takes else self.way
        if way is Way.HALF:
            way = Way.DOWN if number % 2 else Way.WELL
        stream = asked.get("stream", False)
        text = f"{self.name} says {model}"
        match way:
            case Way.DOWN:
                writer.write(whole(ERROR, status="500 Internal Server Error"))
            case Way.THROTTLED:
                wait = b"Retry-After: %b\r\n" % self.retry_after.encode()
                writer.write(whole(THROTTLED, status="429 Too Many Requests", extra=wait))
            case Way.DROPPED:
                reset(writer)
            case Way.BROKEN_BEFORE:
                writer.write(STREAM_HEAD + b"20\r\ndata:" if stream else whole(completion(text))[:-10])
                await writer.drain()
                writer.close()
            case Way.BROKEN_AFTER:
                large = whole(completion("x" * 2 * MIB))
                writer.write(STREAM_HEAD + chunks(chat_events(text)[:2]) if stream else large[:-10])
                await writer.drain()
                writer.close()
            case Way.BLACK_HOLED | Way.SLOW:
                await asyncio.Event().wait()
            case _ if b"/messages" in head.partition(b"\r\n")[0]:
                content = [{"type": "text", "text": text}]
                writer.write(
                    whole(json.dumps({**CLAUDE_START, "content": content, "stop_reason": "end_turn"}).encode())
                )
            case _ if stream:
                events = [event.replace(b'"gpt-4o"', b'"%b"' % model.encode()) for event in chat_events(text)]
                writer.write(STREAM_HEAD + chunks(events[:2]))
                if self.hold_tail in body:
                    await writer.drain()
                    await self.go.wait()
                writer.write(chunks(events[2:]) + LAST_CHUNK)
            case _:
                writer.write(whole(completion(text).replace(b'"gpt-4o"', b'"%b"' % model.encode())))


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection with a reset."""
    sock = writer.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def running(*names: str) -> AsyncIterator[list[Region]]:
    """Regions with these names, well."""
    started: list[Region] = []
    try:
        for name in names:
            region = Region(name)
            await region.start()
            started.append(region)
        yield started
    finally:
        for region in started:
            await region.stop()


def hangs(way: Way) -> bool:
    """Whether only a timeout tells that a region is in this *way*."""
    return way in {Way.BLACK_HOLED, Way.SLOW}


def service(
    *regions: Rule, name: str = "openai", path: str = "/openai", breaker: BreakerRule | None = None, **members: Any
) -> tuple[Service, ...]:
    """One service with these regions."""
    return (Service(name, DIALECTS[name], regions, path=path, breaker=breaker or BreakerRule(), **members),)


def route(**members: Any) -> tuple[Route, ...]:
    """One route for all calls; patient, and cached where it makes sense."""
    given = {"match": Match(), "cache": CacheRule(mode=CacheMode.DETERMINISTIC), "timeouts": PATIENT, **members}
    return (Route("cached", **given),)


def chat(number: int, *, stream: bool = False, bypassed: bool = False, **members: Any) -> dict[str, Any]:
    """A call like no other: looked up, or *bypassed* for its temperature."""
    asked = {**CHAT, "messages": [{"role": "user", "content": f"What is in box {number}?"}], **members}
    return {**asked, **({"stream": True} if stream else {}), **({"temperature": 1} if bypassed else {})}


def mixed(number: int) -> dict[str, Any]:
    """Calls of all four forms in turn."""
    return chat(number, stream=number % 2 == 1, bypassed=number % 4 > 1)


def breaker_of(lab: Lab, region: str, service: str = "openai") -> Breaker:
    return lab.sidecar.regions._breakers[Place(service, "", region)]


def state_of(lab: Lab, region: str) -> State:
    return breaker_of(lab, region).state


def attempts_of(lab: Lab) -> int:
    """What *lab* says it has sent."""
    return sum(record.attempts for record in lab.records)


async def order(lab: Lab, region: str, action: str) -> int:
    """An operator's order, by way of the control server; its status."""
    url = f"http://127.0.0.1:{lab.sidecar.admin_port}/api/regions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json={"service": "openai", "region": region, "action": action}) as reply,
    ):
        return reply.status


async def direct(region: Region, calls: Sequence[dict[str, Any]]) -> list[int]:
    """The statuses that callers without a sidecar get of *region*, one after another; 0 for no whole answer."""
    found = []
    async with aiohttp.ClientSession() as session:
        for asked in calls:
            try:
                url = region.url + "/v1/chat/completions"
                async with session.post(url, json=asked, headers={"authorization": KEY}) as reply:
                    await reply.read()
                    found.append(reply.status)
            except aiohttp.ClientError:
                found.append(0)
    return found


def seen_by(replies: Sequence[Reply]) -> list[str]:
    """The region that each of *replies* came from."""
    return [reply.headers.get("x-sidecar-region", "") for reply in replies]


@pytest.fixture
async def pair():
    """Two regions."""
    async with running("a", "b") as regions:
        yield regions


@pytest.fixture
async def upstream():
    """One region."""
    async with running("here") as (region,):
        yield region
