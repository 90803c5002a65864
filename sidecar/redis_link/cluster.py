"""
The client of a Redis Cluster: redis-py's, with our own code for asking one server.

The rule: one command, one server, and redirections. redis-py's own code loses connections whose commands are cancelled,
sends ``ASKING`` and its command over different connections, sleeps, and closes all connections on one server's error.
Here, if it is uncertain which server has which slots, a background task finds out, while the other servers stay in use.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from redis.asyncio.cluster import ClusterNode, NodesManager, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.cluster import PRIMARY
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    ConnectionError,  # noqa: A004  the client's own
    MovedError,
    SlotNotCoveredError,
    TimeoutError,  # noqa: A004  as above
)

from sidecar.redis_link.connection import CONNECT_SECONDS, RedisConnection
from sidecar.redis_link.login import Login
from sidecar.redis_link.login_renewal import IdleConnection, LoginRenewal
from sidecar.redis_link.replies import Garbled, making_sense
from sidecar.tasks import Spawn

REDIRECTIONS = 8
"""The most redirections of a command: a slot that moves costs one or two."""

LEARN_SECONDS = 2.0
"""How long it may take to learn which server has which slots, with all servers asked in turn."""

SERVER_SECONDS = 0.5
"""How long one server may take for that before the next one is asked."""

DOUBT_SECONDS = 1.0
"""The shortest time between two such look-ups."""


class _Asked(ClusterNode):
    """A server that is asked which server has which slots."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """The reply to a command. Raises ``Garbled`` for slots that no Cluster has."""
        with making_sense():
            reply = await super().execute_command(*args, **kwargs)
        if args[0] == "CLUSTER SLOTS" and not _are_slots(reply):
            raise Garbled("the slots that it names are malformed")
        return reply


def _are_slots(reply: Any) -> bool:
    """Whether *reply* names ranges of slots, each with its servers, the primary first."""
    return isinstance(reply, list) and len(reply) <= REDIS_CLUSTER_HASH_SLOTS and all(map(_is_range, reply))


def _is_range(item: Any) -> bool:
    match item:
        case [int(first), int(last), *servers] if servers and 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
            return all(map(_is_server, servers))
        case _:
            return False


def _is_server(item: Any) -> bool:
    match item:
        case [bytes() | None, int(port), *_]:
            return 0 < port < 65536
        case _:
            return False


class _Nodes(NodesManager):
    """Which server has which slots. Known servers keep their connections and the commands on them."""

    def set_nodes(self, old: dict[str, ClusterNode], new: dict[str, ClusterNode], remove_old: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
        """Put *new* into *old*."""
        for name, node in new.items():
            known = old.get(name)
            if known is not None and known is not node:
                known.server_type = node.server_type
                new[name] = known
        for nodes in {id(nodes): nodes for nodes in self.slots_cache.values()}.values():
            nodes[:] = [new.get(node.name, node) for node in nodes]
        super().set_nodes(old, new, remove_old)


class Cluster(RedisCluster):
    """
    Commands by the slot of their keys; all keys of a command share one slot. Pipelines and subscriptions are not
    supported.

    *hosts* are asked which server has which slots; *spawn* owns the tasks that ask and connect. *wiring* is the
    arguments of every connection.
    """

    def __init__(self, hosts: tuple[tuple[str, int], ...], *, spawn: Spawn, wiring: dict[str, Any]) -> None:
        host, port = hosts[0]
        super().__init__(host, port, retry=Retry(NoBackoff(), 0))
        self.connection_kwargs = {
            "connection_class": RedisConnection,
            "response_callbacks": self.response_callbacks,
            **wiring,
        }
        self._hosts = hosts
        self._spawn = spawn
        self._tasks: set[asyncio.Task[None]] = set()
        self._learning: asyncio.Future[None] | None = None
        self._learnt_at = float("-inf")
        self._renewal = LoginRenewal(spawn, self._take_idle)
        self.nodes_manager = _Nodes([], False, self.connection_kwargs, dynamic_startup_nodes=False)

    async def aclose(self) -> None:
        """Close all connections, also those not open yet."""
        await self._renewal.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._initialize = True
        await self.nodes_manager.aclose()

    async def initialize(self) -> Cluster:
        """Learn which server has which slots, if that was never learnt. Raises what prevented it."""
        if self._initialize:
            await asyncio.shield(self._learn())
        return self

    async def ask(self, *command: Any) -> Any:
        """The reply to *command*."""
        return await self.execute_command(*command)

    async def probe(self) -> None:
        """
        Learn which server has which slots, and ask all of these whether they answer.

        If one does not answer, the probe fails until it does, or a replica has taken its place. Otherwise every call
        for a third of the slots would wait in vain.
        """
        await asyncio.shield(self._learn())
        answers = await asyncio.gather(*(self._ask(node, ("PING",), {}, asking=False) for node in self.get_primaries()))
        if not all(answer is True for answer in answers):
            raise Garbled("PING has another answer than PONG")

    async def renew(self) -> None:
        """Nothing to do: a probe learns everything anew."""

    def log_in(self, login: Login, tell: Callable[[Exception], None]) -> None:
        """Log the open connections to all servers in anew; *tell* gets the failures."""
        self._renewal.begin(login, tell)

    def doubt(self) -> None:
        """
        A server did not answer, or is the wrong one: learn again which server has which slots, unless that was just
        done.
        """
        if not self._initialize and asyncio.get_running_loop().time() - self._learnt_at >= DOUBT_SECONDS:
            _ = self._learn()  # nobody waits for its result

    def _learn(self) -> asyncio.Future[None]:
        """Learn it, together with others that already ask. Goes on when they leave."""
        if self._learning is None or self._learning.done():
            loop = asyncio.get_running_loop()
            self._learning = loop.create_future()
            self._learnt_at = loop.time()
            self._start(self._ask_around(self._learning), name="redis-cluster-slots")
        return self._learning

    async def _ask_around(self, learning: asyncio.Future[None]) -> None:
        self._hosts = (*self._hosts[1:], self._hosts[0])  # another one first, each time
        limits: dict[str, Any] = {"socket_timeout": SERVER_SECONDS, "socket_connect_timeout": SERVER_SECONDS}
        asked: list[ClusterNode] = [
            _Asked(host, port, **limits, **self.connection_kwargs) for host, port in self._hosts
        ]
        self.nodes_manager.startup_nodes = {node.name: node for node in asked}
        try:
            async with asyncio.timeout(LEARN_SECONDS):
                with making_sense():
                    await self._take_in()
            self._initialize = False
        except Exception as error:  # noqa: BLE001  the waiting calls get it, whatever it is
            learning.set_exception(error)
            learning.exception()  # otherwise it would be reported when everybody has left
        else:
            learning.set_result(None)
        finally:
            learning.cancel()
            for node in asked:
                await node.disconnect()

    async def _take_in(self) -> None:
        await self.nodes_manager.initialize()
        if self._initialize:
            await self.commands_parser.initialize(self.nodes_manager.default_node)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """The reply to a command from the server of its keys' slot."""
        try:
            return await super().execute_command(*args, **kwargs)
        except KeyError:
            self.doubt()
            raise SlotNotCoveredError("nobody has the slot") from None
        except (asyncio.CancelledError, ConnectionError, TimeoutError, ClusterDownError, SlotNotCoveredError):
            self.doubt()
            raise

    async def _execute_command(self, target_node: ClusterNode, *args: Any, **kwargs: Any) -> Any:
        """The reply of *target_node*, or of the server to which it redirects."""
        node, asking = target_node, False
        for _ in range(REDIRECTIONS):
            try:
                return await self._ask(node, args, kwargs, asking=asking)
            except MovedError as moved:
                self.nodes_manager.update_moved_exception(moved)  # type: ignore[no-untyped-call]
                node, asking = self.nodes_manager.get_node_from_slot(moved.slot_id), False
            except AskError as ask:
                node, asking = self._node(ask.host, ask.port), True
        raise ClusterError("redirected too often")

    async def _ask(self, node: ClusterNode, args: Any, kwargs: Any, *, asking: bool) -> Any:
        connection = await self._connection(node)
        try:
            commands = [("ASKING",), args] if asking else [args]
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            if asking:
                await connection.read_response()
            with making_sense():
                return await node.parse_response(connection, args[0], **kwargs)
        finally:
            self._release(node, connection)

    def _release(self, node: ClusterNode, connection: RedisConnection) -> None:
        """Give *connection* back to *node*; first renew its login if that is due."""
        if self._renewal.wants(connection):
            self._renewal.take(IdleConnection(connection, partial(_give_back, node, connection)))
        else:
            node.release(connection)

    def _take_idle(self) -> IdleConnection | None:
        """Take out an idle connection whose login is to be renewed, if any server has one."""
        for node in self.nodes_manager.nodes_cache.values():
            idle = cast("deque[RedisConnection]", node._free)  # noqa: SLF001  the library has no other way
            for connection in idle:
                if self._renewal.is_due(connection):
                    idle.remove(connection)
                    return IdleConnection(connection, partial(_give_back, node, connection))
        return None

    async def _connection(self, node: ClusterNode) -> RedisConnection:
        """A fresh connection to *node*, to be released. Opening goes on when the waiting call leaves."""
        connection = cast("RedisConnection", node.acquire_connection())
        if connection.fresh:
            return connection
        opened = asyncio.get_running_loop().create_future()
        self._start(_open(node, connection, opened), name="redis-connect")
        try:
            await opened
        except asyncio.CancelledError:
            if not opened.cancelled() and opened.exception() is None:
                node.release(connection)  # it was opened as the call left
            raise
        return connection

    def _node(self, host: str, port: int) -> ClusterNode:
        """The server at that address, which may just have joined."""
        node = self.get_node(host, port)
        if node is None:
            node = ClusterNode(host, port, PRIMARY, **self.connection_kwargs)
            self.nodes_manager.nodes_cache[node.name] = node
        return node

    def _start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = self._spawn(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _give_back(node: ClusterNode, connection: RedisConnection) -> None:
    node.release(connection)


async def _open(node: ClusterNode, connection: RedisConnection, opened: asyncio.Future[None]) -> None:
    """Connect; give *connection* back to *node* if nobody waits for it any more."""
    try:
        await connection.disconnect(nowait=True)
        async with asyncio.timeout(CONNECT_SECONDS):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException as error:
        await connection.disconnect(nowait=True)
        node.release(connection)
        if not isinstance(error, Exception):
            raise
        if not opened.done():
            opened.set_exception(error)
    else:
        if opened.done():
            node.release(connection)
        else:
            opened.set_result(None)
