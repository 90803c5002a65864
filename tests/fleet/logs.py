"""Processes of the fleet as far as its log of purges goes."""

from __future__ import annotations

import asyncio
import itertools
import time
from base64 import b64encode

from sidecar.core.cache.purges import ALL, Purges, Scope
from sidecar.core.key.keyring import parse
from sidecar.core.model import Position
from sidecar.core.rules import Mode, RedisRule, SealRule
from sidecar.fleet.purge_log import PurgeLog
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import RedisNames
from sidecar.store.seal import Seal
from tests.fleet.lookups import as_it_is

FRESH = itertools.count(1)


def secrets(*numbers: int) -> bytes:
    return b"\n".join(b"s%d:%b" % (number, b64encode(bytes([number]) * 32)) for number in numbers)


class Pod:
    """A process of the fleet: its log, and what it was told."""

    def __init__(self, url: str, *, namespace: str, secret: bytes, now: list[float]):
        self.tasks: set[asyncio.Task[None]] = set()
        self.purged: list[tuple[Scope, ...]] = []
        self.modes: list[Mode | None] = []
        self.ends: list[float] = []
        self.told: list[str] = []
        self.heard = asyncio.Event()
        self.secret = secret
        rule = RedisRule(url, namespace=namespace, timeout=5.0)
        self.link = RedisLink(
            rule, clock=time.monotonic, draw=lambda: 0.5, lookup=as_it_is, spawn=self.spawn, tell=self.tell
        )
        seal = Seal(lambda: parse(self.secret), SealRule(), random=bytes, limit=1024)
        self.purges = Purges()
        self.log = PurgeLog(
            self.link,
            RedisNames(namespace),
            seal,
            self.purges,
            now=lambda: now[0],
            clock=time.monotonic,
            draw=lambda: 0.5,
            random=lambda size: next(FRESH).to_bytes(size, "big"),
            spawn=self.spawn,
            on_purge=self.on_purge,
            on_mode=self.on_mode,
            tell=self.tell,
        )

    def spawn(self, coroutine, *, name):
        task = asyncio.create_task(coroutine, name=name)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def tell(self, name, /, *, level, **fields):
        self.told.append(name)

    def on_mode(self, mode, until):
        self.modes.append(mode)
        self.ends.append(until)

    def on_purge(self, scopes):
        self.purged.append(scopes)
        self.heard.set()

    async def read(self) -> list[tuple[Scope, ...]]:
        """Read the log once; what that purges here."""
        before = len(self.purged)
        await self.log._exchange()
        return self.purged[before:]

    def admits(self, scope: Scope, position: Position) -> bool:
        return self.purges.admits((ALL, scope), position)

    async def close(self):
        await self.log.stop()
        await self.link.close()

        assert set() == self.tasks
