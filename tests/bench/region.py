"""
A stand-in region that fails as it is told: ``python -m tests.bench.region PORT CONTROL_PORT``.

The rule: a failure is one of real sockets: a reset is a RST, a black hole drops the SYN of whoever connects. On the
control port ``GET /be?how=…`` says how it behaves from now on (see ``Behaviour``), ``/calls`` how many requests have
come, by the first segment of their path, and ``/usage`` when each was answered, as what, and with how many tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import uvloop

from tests.scenarios.answers import LAST_CHUNK, STREAM_HEAD, chat_events, chunks, whole

SLOW = 20.0
"""Seconds until a slow answer's head."""

_GAP = 0.005  # between the parts of a stream
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends a RST
_PING = b": ping\n\n"
_EVENTS = chat_events("It is", " a delivery note.")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    *how*: ``well``; ``rst``, nobody listens and whoever is connected is reset; ``blackhole``, nothing comes through;
    ``silent``, it listens and never answers; ``slow``; ``500-half``, every second answer, by chance, is a 500; ``429``;
    ``break-before`` and ``break-after``: streams are reset before, or after, their first event.

    *seconds*: until an answer's head; *share* of the answers, by chance, take *times* as long. *keys*: the only bearer
    tokens that are taken, separated by commas; *expiring*: they end in the epoch second at which they expire.
    *tokens*: of each answer, at least and at most. *retry_after*: seconds that a 429 asks for. *size*: bytes of what a
    whole answer says.
    """

    how: str = "well"
    seconds: float = 0.02
    share: float = 0.0
    times: float = 20.0
    keys: str = ""
    expiring: bool = False
    tokens: str = "5-5"
    retry_after: int = 5
    size: int = 920


class Place:
    """The region: its listener, its connections and its counts."""

    def __init__(self, port: int) -> None:
        self.behaviour = Behaviour()
        self.calls: Counter[str] = Counter()
        self.usage: list[tuple[float, str, int]] = []
        self.open: set[Connection] = set()
        self.draw = random.Random(7)
        self._port = port
        self._listener: socket.socket | None = None
        self._fillers: list[socket.socket] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def be(self, behaviour: Behaviour) -> None:
        """Behave like that from now on. Requests under way are answered as it was, if anything comes through."""
        self.behaviour = behaviour
        if behaviour.how == "rst":
            self._stop_listening()
            for connection in tuple(self.open):
                connection.reset()
        elif behaviour.how == "blackhole":
            self._drop()
        else:
            self._accept()

    def _accept(self) -> None:
        while self._fillers:
            self._fillers.pop().close()
        if self._listener is None:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.setblocking(False)
            self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen(2048)
        asyncio.get_running_loop().add_reader(self._listener, self._accepted, self._listener)
        for connection in self.open:
            connection.hear(True)

    def _drop(self) -> None:
        """Whatever comes from outside is lost: a listener whose queue is full drops SYNs, connections aren't read."""
        self._accept()
        assert self._listener is not None
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.listen(0)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self._port))
            self._fillers.append(filler)
        for connection in self.open:
            connection.hear(False)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accepted(self, listener: socket.socket) -> None:
        try:
            while True:
                connection, _ = listener.accept()
                accepting = asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self), connection)
                task = asyncio.ensure_future(accepting)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except BlockingIOError:
            pass


class Connection(asyncio.Protocol):
    """One connection. Bodies need a Content-Length."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._place.open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._place.open.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if end and len(body) == int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or b"0"):
            self._received = b""
            self._take(head, body)

    def hear(self, on: bool) -> None:
        """Read what comes, or don't."""
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def reset(self) -> None:
        """End with a RST."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _take(self, head: bytes, body: bytes) -> None:
        place, be = self._place, self._place.behaviour
        name = head.split(b"/", 2)[1].decode()
        place.calls[name] += 1
        seconds = be.seconds * (be.times if place.draw.random() < be.share else 1.0)
        parts = [*_answer(be, head, body, place, name), b""]
        if be.how == "silent":
            return
        self._write(SLOW if be.how == "slow" else seconds, parts)

    def _write(self, seconds: float, parts: list[bytes | None]) -> None:
        """Write *parts*, the first after so many seconds; None stands for a reset."""
        asyncio.get_running_loop().call_later(seconds, self._now, parts)

    def _now(self, parts: list[bytes | None]) -> None:
        first, *rest = parts
        if self._transport.is_closing() or self._place.behaviour.how == "blackhole":
            return
        if first is None:
            self.reset()
            return
        self._transport.write(first)
        if any(part != b"" for part in rest):
            self._write(_GAP, rest)


def _answer(be: Behaviour, head: bytes, body: bytes, place: Place, name: str) -> list[bytes | None]:
    """The parts of an answer."""
    if be.keys or be.expiring:
        key = head.lower().partition(b"authorization: bearer ")[2].partition(b"\r\n")[0].decode()
        known = float(key.rpartition("-")[2] or 0) > time.time() if be.expiring else key in be.keys.split(",")
        if not known:
            place.calls["unauthorized"] += 1
            return [_error("401 Unauthorized", "invalid_api_key")]
    if be.how == "429":
        return [_error("429 Too Many Requests", "rate_limit_exceeded", b"retry-after: %d\r\n" % be.retry_after)]
    if be.how == "500-half" and place.draw.random() < 0.5:
        return [_error("500 Internal Server Error", "server_error")]
    if b'"stream":true' not in body:
        least, _, most = be.tokens.partition("-")
        used = place.draw.randint(int(least), int(most))
        place.usage.append((time.monotonic(), name, used))
        return [whole(_completion(used, be.size))]
    if be.how == "break-before":
        return [STREAM_HEAD + chunks([_PING]), None]
    begun = STREAM_HEAD + chunks(_EVENTS[:2])
    return [begun, None] if be.how == "break-after" else [begun, chunks(_EVENTS[2:]) + LAST_CHUNK]


def _completion(tokens: int, size: int) -> bytes:
    return json.dumps({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 1730000000, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is a delivery note. " * (size // 23)},
                     "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens // 3, "completion_tokens": tokens - tokens // 3, "total_tokens": tokens},
    }).encode()  # fmt: skip


def _error(status: str, code: str, extra: bytes = b"") -> bytes:
    error = {"error": {"message": f"The stand-in says {code}.", "type": code, "param": None, "code": code}}
    return whole(json.dumps(error).encode(), status=status, extra=extra)


def behaviour(query: str) -> Behaviour:
    """The behaviour that a query tells."""
    kinds = {name: type(value) for name, value in asdict(Behaviour()).items()}
    return Behaviour(**{name: kinds[name](value) for name, value in parse_qsl(query)})


async def _serve(port: int, control_port: int) -> None:
    place = Place(port)
    place.be(Behaviour())

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                asked = urlsplit((await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1].decode())
                if asked.path == "/be":
                    place.be(behaviour(asked.query))
                writer.write(whole(json.dumps(place.usage if asked.path == "/usage" else place.calls).encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(control, "127.0.0.1", control_port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
