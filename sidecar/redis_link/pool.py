"""
Connections that outlive the calls for which they were opened.

The rule: a connection goes to the next call only after a whole reply; one that was left in the middle is closed.
Connecting goes on when the waiting call has left, because TLS may take longer than one call may wait; the connection
then serves the next call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError  # noqa: A004  the client's own

from sidecar.redis_link.connection import CONNECT_SECONDS, RedisConnection
from sidecar.redis_link.login import Login
from sidecar.redis_link.login_renewal import IdleConnection, LoginRenewal
from sidecar.redis_link.replies import Garbled, making_sense
from sidecar.tasks import Spawn


class RedisPool(ConnectionPool):
    """
    A pool whose callers wait for the first connection that is free or new, for whatever call it was opened.

    The pool sets no limit for the wait: callers have a deadline, and leave by being cancelled.
    """

    def __init__(self, *args: Any, spawn: Spawn, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._spawn = spawn
        self._waiters: deque[asyncio.Future[AbstractConnection]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self.renewal = LoginRenewal(spawn, self._take_idle)

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """A fresh connection, to be released. Raises the error of opening one."""
        while self._available_connections:
            connection = self._available_connections.pop()
            if cast("RedisConnection", connection).fresh:
                self._in_use_connections.add(connection)
                return connection
            await connection.disconnect(nowait=True)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._grow()
        try:
            return cast("AbstractConnection", await waiter)
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:
                await self.release(waiter.result())  # it came as the caller left
            raise

    async def release(self, connection: AbstractConnection) -> None:
        """
        Give *connection* to a waiting caller, or keep it. A closed one makes room for another: at once for one who
        waits, and otherwise when it would be taken. One whose login is to be renewed serves others after that.
        """
        if self.renewal.wants(known := cast("RedisConnection", connection)):
            self.renewal.take(IdleConnection(known, partial(self.release, known)))
            return
        self._in_use_connections.discard(connection)
        if not self._waiters:
            self._available_connections.append(connection)
        elif cast("RedisConnection", connection).fresh:
            self._hand(connection)
        else:
            await connection.disconnect(nowait=True)
            self._grow()

    async def drop_idle(self) -> None:
        """Close the connections that nobody uses."""
        while self._available_connections:
            await self._available_connections.pop().disconnect(nowait=True)

    async def aclose(self) -> None:
        """Close all connections, also those not open yet; waiting callers fail."""
        await self.renewal.close()
        while waiter := self._next():
            waiter.set_exception(ConnectionError("closed"))
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        with suppress(Exception):
            await self.disconnect()

    def _take_idle(self) -> IdleConnection | None:
        """Take out an idle connection whose login is to be renewed, if there is one."""
        for connection in self._available_connections:
            if self.renewal.is_due(known := cast("RedisConnection", connection)):
                self._available_connections.remove(connection)
                self._in_use_connections.add(connection)
                return IdleConnection(known, partial(self.release, known))
        return None

    def _grow(self) -> None:
        while self._waiters and self._waiters[0].done():
            _ = self._waiters.popleft()  # this caller left
        there = len(self._in_use_connections) + len(self._available_connections)
        while len(self._opening) < min(len(self._waiters), self.max_connections - there):
            task = self._spawn(self._open(), name="redis-connect")
            self._opening.add(task)
            task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        self._grow()

    async def _open(self) -> None:
        connection: AbstractConnection = self.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 - the waiting caller gets it, whatever it is
            await connection.disconnect(nowait=True)
            if waiter := self._next():
                waiter.set_exception(error)
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        else:
            self._hand(connection)

    def _hand(self, connection: AbstractConnection) -> None:
        if waiter := self._next():
            self._in_use_connections.add(connection)
            waiter.set_result(connection)
        else:
            self._available_connections.append(connection)

    def _next(self) -> asyncio.Future[AbstractConnection] | None:
        """The caller that has waited longest and has not left."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None


class Single(Redis):
    """redis-py's client of one server."""

    connection_pool: RedisPool

    async def ask(self, *command: Any) -> Any:
        """The raw reply to *command*; the library's own way takes twice as long."""
        pool = self.connection_pool
        connection = await pool.get_connection()
        try:
            return await cast("RedisConnection", connection).ask(*command)
        finally:
            await pool.release(connection)

    async def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """The library's reading of a reply. Raises ``Garbled`` if it cannot be read."""
        with making_sense():
            return await super().parse_response(connection, command_name, **options)

    async def probe(self) -> None:
        """Ask whether the server answers."""
        if await self.ping() is not True:
            raise Garbled("PING has another answer than PONG")

    async def renew(self) -> None:
        """Close idle connections, because they may lead to a server that is no longer the primary."""
        await self.connection_pool.drop_idle()

    def log_in(self, login: Login, tell: Callable[[Exception], None]) -> None:
        """Log the open connections in anew; *tell* gets the failures."""
        self.connection_pool.renewal.begin(login, tell)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002, FBT001  theirs
        """Close all connections."""
        await self.connection_pool.aclose()
