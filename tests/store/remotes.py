"""Processes that share a tier behind memory, by either arm: what the contract tests run against."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from sidecar import tasks
from sidecar.core.key.keyring import Keyring, SecretKey, name
from sidecar.core.model import Entry, Form, Key
from sidecar.core.rules import RedisRule, SealRule
from sidecar.fleet.lease import Leases
from sidecar.fleet.news import News
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import RedisNames
from sidecar.store.base import Remote
from sidecar.store.memory_remote import MemoryRemote, SharedTier
from sidecar.store.redis import RedisRemote
from sidecar.store.seal import Seal
from sidecar.store.values import Values
from tests.fleet.lookups import as_it_is

LIMIT = 4 * 1024 * 1024
NAMESPACE = "team-a"
OLD = SecretKey.derive("old", bytes(range(32)))
SEALING = SealRule()
NEW = SecretKey.derive("new", bytes(range(32, 64)))

Admits = Callable[[Key, Entry], bool]
Now = Callable[[], float]


def key(number: int, address: int | None = None) -> Key:
    """A key; two numbers have two proofs."""
    return Key((number if address is None else address).to_bytes(16, "big"), number.to_bytes(32, "big"))


def entry(body: bytes = b"an answer", *, at: float | None = None, ttl: float = 60.0, **more: Any) -> Entry:
    """An answer that was complete *at*, or just now."""
    return Entry(
        status=200,
        headers=((b"content-type", b"application/json"),),
        body=body,
        form=Form.WHOLE,
        service="openai",
        route="chat",
        model="gpt-4o",
        at=time.time() if at is None else at,
        ttl=ttl,
        **more,
    )


def enough(_: Entry) -> bool:
    """Any entry suffices."""
    return True


def never(_: Entry) -> bool:
    """No entry suffices."""
    return False


def always(_: Key, __: Entry) -> bool:
    """Nothing was ever purged."""
    return True


async def until(holds: Callable[[], object]) -> None:
    """Let others work until *holds*; the test hangs, and is ended from outside, where it never does."""
    while not holds():  # noqa: ASYNC110 - what is waited for knows no events
        await asyncio.sleep(0.001)


class Tasks(tasks.Tasks):
    """Owns the tasks of a test; *errors* are what they ended with."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        super().__init__(self.errors.append)


class Fleet(Protocol):
    """Processes that share a tier."""

    bugs: list[BaseException]

    def pod(self, *, now: Now = time.time, admits: Admits = always) -> Any:
        """One more process."""

    async def expire(self, key: Key) -> None:
        """The lease on *key* runs out."""

    def leased(self, key: Key, *, second: bool = False) -> bool:
        """Whether a process fetches for *key*; *second*: beside another."""

    async def idle(self) -> None:
        """All that was begun is done."""

    async def life(self, key: Key) -> float:
        """How many seconds what is kept for *key* has to live, 0 where there is nothing."""

    async def close(self) -> None:
        """End all processes."""


class MemoryFleet:
    """In this event loop alone."""

    def __init__(self) -> None:
        self.bugs: list[BaseException] = []
        self.shared = SharedTier(time.monotonic)

    def pod(self, *, now: Now = time.time, admits: Admits = always) -> Remote:
        return MemoryRemote(self.shared, admits=admits, now=now, report=self.bugs.append)

    async def expire(self, key: Key) -> None:
        self.shared.expire(key)

    def leased(self, key: Key, *, second: bool = False) -> bool:
        return key in (self.shared.seconds if second else self.shared.leases)

    async def idle(self) -> None:
        pass

    async def life(self, key: Key) -> float:
        found = self.shared.find(key)
        return 0.0 if found is None else found[1]

    async def close(self) -> None:
        pass


class Pod(RedisRemote):
    """A process with what belongs to it."""

    _link: RedisLink
    news: News
    tasks: Tasks


class RedisFleet:
    """
    By the Redis at *url*. *call* asks it directly. *timeout* is long, for a busy machine is no sick Redis, and so are
    leases, that none runs out unless the test says so. *told* are the lines of the log.
    """

    def __init__(self, url: str, call: Callable[..., Any], *, timeout: float = 5.0) -> None:
        self.bugs: list[BaseException] = []
        self.told: list[str] = []
        self.call = call
        self.names = RedisNames(NAMESPACE)
        self.rule = RedisRule(url, timeout=timeout, namespace=NAMESPACE)
        self.pods: list[Pod] = []

    def pod(
        self,
        *,
        now: Now = time.time,
        admits: Admits = always,
        secrets: tuple[SecretKey, ...] = (NEW,),
        seal: SealRule = SEALING,
        limit: int = LIMIT,
        lease_seconds: float = 50.0,
        news: bool = True,
        timeout: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> Pod:
        tasks = Tasks()
        rule = replace(self.rule, timeout=timeout or self.rule.timeout)
        link = RedisLink(
            rule,
            clock=time.monotonic,
            draw=draw,
            lookup=as_it_is,
            spawn=tasks.spawn,
            tell=lambda event, /, **_: self.told.append(event),
        )
        listener = News(link, self.names.news, spawn=tasks.spawn, draw=draw, report=self.bugs.append)
        leases = Leases(
            link,
            listener,
            self.names,
            timeout=rule.timeout,
            spawn=tasks.spawn,
            draw=draw,
            random=os.urandom,
            seconds=lease_seconds,
        )
        keyring = Keyring(secrets)

        async def let_go() -> None:
            await listener.close()
            await link.close()
            await tasks.cancel()

        pod = Pod(
            link,
            leases,
            Values(link.client),
            self.names,
            Seal(lambda: keyring, seal, random=os.urandom, limit=limit),
            lambda: keyring,
            admits=admits,
            now=now,
            clock=time.monotonic,
            draw=draw,
            spawn=tasks.spawn,
            report=self.bugs.append,
            let_go=let_go,
            limit=limit,
        )
        pod._link, pod.news, pod.tasks = link, listener, tasks
        if news:
            listener.start()
        self.pods.append(pod)
        return pod

    def entry_key(self, key: Key, secret: SecretKey = NEW) -> bytes:
        return self.names.entry(name(secret, key))

    def lease_key(self, key: Key, secret: SecretKey = NEW) -> bytes:
        return self.names.lease(name(secret, key))

    async def expire(self, key: Key) -> None:
        self.call("DEL", self.lease_key(key))

    def leased(self, key: Key, *, second: bool = False) -> bool:
        where = self.names.second if second else self.names.lease
        return self.call("GET", where(name(NEW, key))) not in {None, b"-"}

    async def idle(self) -> None:
        await until(lambda: not any(pod.leases._begun for pod in self.pods))

    async def life(self, key: Key) -> float:
        left: int = self.call("PTTL", self.entry_key(key))
        return max(0, left) / 1000

    def immortal(self) -> list[bytes]:
        """The keys without an expiry: there must be none."""
        return [found for found in self.call("KEYS", "*") if self.call("PTTL", found) == -1]

    async def close(self) -> None:
        for pod in self.pods:
            await pod.close()
