"""
The listener: accepts connections, checks their deadlines, and lets them finish when the process ends.

The rule: one timer for all connections, and no timer while there are none.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from sidecar.core.memory_budget import Ledger
from sidecar.core.rules import Limits
from sidecar.net.base import Application
from sidecar.net.inbound import http1
from sidecar.net.inbound.connection import CallerConnection
from sidecar.net.inbound.shared import ListenerState
from sidecar.net.inbound.spool import Spools
from sidecar.tasks import Spawn

TICK = 0.5
"""Seconds between two sweeps: every deadline is only as exact as this."""

BACKLOG = 1024

CUT_SECONDS = 1.0
"""How long cancelled tasks may take to end after the grace period."""


class Listener:
    """
    Serves *app* on as many addresses as it is started on.

    *clock* is monotonic seconds, *wall* seconds since the epoch (for the ``date`` field). *spool_dir* is for bodies
    that do not fit into memory, ``""`` for the system's folder. *report* gets unexpected exceptions of *app*.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits,
        ledger: Ledger,
        *,
        spawn: Spawn,
        clock: Callable[[], float],
        wall: Callable[[], float],
        spool_dir: str = "",
        report: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._spools = Spools(spool_dir)
        self._shared = ListenerState(
            app, limits, ledger, spawn=spawn, spools=self._spools, report=report, came=self._came, gone=self._gone
        )
        self._servers: dict[int, asyncio.Server] = {}
        self._open: set[CallerConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event = asyncio.Event()

    def __repr__(self) -> str:
        state = "draining" if self._shared.draining else f"on {len(self._servers)} addresses"
        return f"<Listener {state}, {self.connections} connections>"

    @property
    def connections(self) -> int:
        """Connections that are open, or whose last answer's task still runs."""
        return len(self._open)

    async def start(self, host: str, port: int) -> int:
        """Listen on one more address; returns the port, which was chosen if *port* is 0. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, host, port, backlog=BACKLOG, reuse_address=True)
        if self._shared.draining:  # other rules came while the process ends
            server.close()
            raise OSError(errno.ESHUTDOWN, "this process is stopping")
        bound: int = server.sockets[0].getsockname()[1]
        self._servers[bound] = server
        return bound

    def close(self, port: int) -> None:
        """Accept nobody at *port* any more, and close its connections that have no call."""
        server = self._servers.pop(port, None)
        if server is not None:
            server.close()
        for connection in tuple(self._open):
            if connection.port == port:
                connection.retire()

    def forget(self) -> None:
        """Judge every request anew: the application's earlier plans are no longer valid."""
        self._shared.forget()

    def adopt(self, limits: Limits) -> None:
        """New *limits*, for connections that are opened from now on, and other plans of the application."""
        self._shared.limits = limits
        self._shared.forget()

    def stop_accepting(self) -> None:
        """Close the addresses; open connections go on."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    async def drain(self, seconds: float) -> None:
        """
        Finish: accept nothing new, close idle connections, and each of the others after its answer. What is not done
        after *seconds* is cut. Returns when every connection is gone.
        """
        self.stop_accepting()
        self._shared.draining = True
        for connection in tuple(self._open):
            connection.retire()
        if not await self._empty(seconds):
            for connection in tuple(self._open):
                connection.abort()
            await self._empty(CUT_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._spools.close()

    def sweep(self) -> None:
        """Check the deadlines of every connection. Runs by itself about twice a second."""
        self._look_at_clocks()
        for connection in tuple(self._open):
            connection.sweep(self._shared.now)

    async def _empty(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while self._open:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def _accept(self) -> CallerConnection:
        if self._timer is None:
            self._look_at_clocks()
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        return CallerConnection(self._shared)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick) if self._open else None
        self.sweep()

    def _look_at_clocks(self) -> None:
        self._shared.now = self._clock()
        self._shared.date = http1.date_line(self._wall())

    def _came(self, connection: CallerConnection) -> None:
        self._open.add(connection)

    def _gone(self, connection: CallerConnection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
