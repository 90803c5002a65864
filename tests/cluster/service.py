"""What kube-proxy is for a Service: connections to its cluster address go to its replicas, in turn."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from contextlib import suppress

from tests.cluster.servers import missing


class Service:
    """
    The cluster address *host* with *port*. Without replicas nobody listens there, so that connections are refused.
    ``connections`` counts those to the port of each replica.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._turns = itertools.cycle([0])
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Task[None]] = set()
        self.connections: Counter[int] = Counter()

    async def route(self, *ports: int) -> None:
        """Hand new connections to the replicas on *ports* from now on."""
        self._turns = itertools.cycle(ports)
        if not ports:
            await self.stop()
        elif self._server is None:
            try:
                self._server = await asyncio.start_server(self._on_connection, self._host, self._port)
            except PermissionError:
                missing(
                    f"port {self._port} is root's: sysctl net.ipv4.ip_unprivileged_port_start={self._port} lends it"
                )

    async def stop(self) -> None:
        """Listen no more, and end what is connected."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        while self._running:
            await asyncio.wait(self._running)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        port = next(self._turns)
        self.connections[port] += 1
        self._writers.add(writer)
        with suppress(OSError):
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
            self._writers.add(back_writer)
            await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
            self._close(back_writer)
        self._close(writer)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what is read until its end; then *writer* ends as well, whatever comes from the other side."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
