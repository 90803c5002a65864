"""
Makes this process part of a fleet: the Redis that all share, and everything that uses it.

The rule: parts are joined here, and nothing is decided here. A process without a fleet never loads this file.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from sidecar.app.clocks import running
from sidecar.app.fleet_erasure import FleetErasure
from sidecar.app.operation_eraser import OperationEraser
from sidecar.core.cache.purges import Purges, Scope
from sidecar.core.events import TellEvent
from sidecar.core.key.keyring import Keyring
from sidecar.core.model import Entry, Key, Position
from sidecar.core.region.regions import Order, Place
from sidecar.core.rules import Mode, RedisRule, SealRule
from sidecar.fleet.confirmation import Confirmation, Confirmations, Confirmed
from sidecar.fleet.lease import Leases
from sidecar.fleet.news import News
from sidecar.fleet.operations import FleetOperations
from sidecar.fleet.presence import Presence
from sidecar.fleet.purge_log import PurgeLog
from sidecar.fleet.quota import FleetQuota
from sidecar.fleet.region_sync import FleetRegions
from sidecar.redis_link.address import HostLookup
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.login import LoginSource
from sidecar.redis_link.names import RedisNames
from sidecar.store.redis import RedisRemote
from sidecar.store.redis_erase import RedisEraser
from sidecar.store.seal import ALLOWANCE, Seal
from sidecar.store.values import Values

FLUSH_SECONDS = 0.9
"""
How long the flush may hold up the end of the process. A kubelet may kill a native sidecar two seconds after SIGTERM: it
gets what the application's containers have left of the pod's grace period.
"""

FIRST_LOGIN_SECONDS = 2.0
"""
How long the start waits for the first token: without one Redis counts as away, and a probe finds it only later.
"""


class Fleet:
    """
    The parts of *rule*. *limit* is the largest entry that is kept, bytes; *shared* are the services whose breakers the
    fleet shares; *lookup* finds addresses; *logins* are those of the rule's credential, None without one; *on_purge*
    and *on_mode* are those of ``PurgeLog``, *on_orders* and *on_learn* those of ``FleetRegions``; *on_command* that of
    ``RedisLink``; *revision* is that of the rules in use; *confirmed* is what it confirms: the name
    of this pod, the place in the log up to which purges are carried out, and how many entries they have taken.
    """

    def __init__(
        self,
        rule: RedisRule,
        seal: SealRule,
        keyring: Callable[[], Keyring],
        purges: Purges,
        *,
        limit: int,
        shared: Iterable[str],
        spawn: Callable[..., asyncio.Task[None]],
        lookup: HostLookup,
        logins: LoginSource | None,
        tell: TellEvent,
        report: Callable[[BaseException], None],
        on_purge: Callable[[tuple[Scope, ...]], None],
        on_mode: Callable[[Mode | None, float], None],
        on_orders: Callable[[Mapping[tuple[str, str], Order]], None],
        on_learn: Callable[[Place, float | None], None],
        on_command: Callable[[str, float], None],
        revision: Callable[[], str],
        confirmed: Callable[[], tuple[str, Position, int]],
    ) -> None:
        self._rule = rule
        self._spawn = spawn
        self._logins = logins
        self.link = RedisLink(
            rule,
            clock=running,
            draw=random.random,
            spawn=spawn,
            lookup=lookup,
            tell=tell,
            logins=logins,
            largest=limit + ALLOWANCE,
            on_command=on_command,
        )
        names = RedisNames(rule.namespace)
        self.seal = Seal(keyring, seal, random=os.urandom, limit=limit)
        self.news = News(self.link, names.news, spawn=spawn, draw=random.random, report=report)
        self.log = PurgeLog(
            self.link,
            names,
            self.seal,
            purges,
            now=time.time,  # noqa: TID251  the clocks of the fleet's parts are handed out from here
            clock=running,
            draw=random.random,
            random=os.urandom,
            spawn=spawn,
            on_purge=on_purge,
            on_mode=on_mode,
            tell=tell,
            patience=rule.timeout,
        )
        self.regions = FleetRegions(
            self.link,
            names,
            self.seal,
            shared=shared,
            timeout=rule.timeout,
            now=time.time,  # noqa: TID251  as above
            clock=running,
            draw=random.random,
            random=os.urandom,
            spawn=spawn,
            on_orders=on_orders,
            on_learn=on_learn,
            tell=tell,
        )
        notes = Confirmed(names, self.seal)
        self.presence = Presence(
            self.link,
            names,
            member=os.urandom(12),
            clock=running,
            draw=random.random,
            spawn=spawn,
            revision=revision,
            note=lambda: notes.write(Confirmation(*confirmed())),
        )
        self.quota = FleetQuota(self.link, names, timeout=rule.timeout, spawn=spawn)
        self._leases = leases = Leases(
            self.link,
            self.news,
            names,
            timeout=rule.timeout,
            spawn=spawn,
            draw=random.random,
            random=os.urandom,
            largest=limit + ALLOWANCE,
        )
        self.remote = RedisRemote(
            self.link,
            leases,
            Values(self.link.client),
            names,
            self.seal,
            keyring,
            admits=self.log.admits,
            now=time.time,  # noqa: TID251  as above
            clock=running,
            draw=random.random,
            spawn=spawn,
            report=report,
            let_go=self.link.close,
            limit=limit,
        )
        self.operations = FleetOperations(
            self.link, names, self.seal, keyring, admits=self.remote.admits, timeout=rule.timeout, report=report
        )
        operations = OperationEraser(self.operations, self.link, names, leases.budget)
        values = RedisEraser(
            self.link, Values(self.link.client), names, self.seal, keyring, budget=leases.budget, limit=limit
        )
        confirmations = Confirmations(self.presence, names, self.seal)
        self.erasure = FleetErasure(
            self.log, purges, confirmations, values, announce=lambda: self.news.tell(b"e"), clock=running
        )
        self.erasure.erasers.append(operations)
        self.news.subscribe(b"p", lambda _: self.log.nudge())
        self.news.subscribe(b"r", lambda _: self.regions.nudge())

    def __repr__(self) -> str:
        return f"<Fleet {self.link!r}, {self.log!r}>"

    def adopt(self, rule: RedisRule, seal: SealRule) -> None:
        """
        The time limit of *rule*, and how *seal* says that entries are stored, hold from now on. Whatever else is new
        there waits for a restart (``adoption.RESTART``).
        """
        self._leases.timeout = self.quota.timeout = self.regions.region_board.timeout = rule.timeout
        self.operations.timeout = rule.timeout
        self.log.patience = rule.timeout
        self.seal.rule = seal

    @property
    def standing(self) -> str:
        """The state of Redis, for people."""
        use = "in use" if self.link.up else "away, memory is all there is; it is tried again every few seconds"
        fault = self._logins.fault if self._logins is not None else ""
        login = f"; no newer token: {fault}" if fault else ""
        return f"{self._rule.url} {use}; purges read {self.log.lag:.1f} s ago{login}"

    async def start(self, take: Callable[[Key, Entry], object]) -> None:
        """
        Read the log of purges and the orders about regions. Then, in the background, give *take* some entries, if the
        rule says so.
        """
        if self._logins is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOGIN_SECONDS):
                    await self._logins.newer(None)
        self.link.start()
        self.news.start()
        self.presence.start()
        await asyncio.gather(self.log.start(), self.regions.start())
        if self._rule.warm:
            self._warming = self._spawn(self._warm(take), name="warm")

    async def _warm(self, take: Callable[[Key, Entry], object]) -> None:
        await self.remote.warm(take, self._rule.warm)

    async def flush(self) -> int:
        """
        Sign off, and bring to Redis what waits to be written, all at the same time. Returns, after ``FLUSH_SECONDS`` at
        the latest, how much still waits (its writing goes on) or could not be written.
        """
        drops = self.remote.behind.drops
        work = (
            self.remote.flush(),
            self.log.flush(),
            self.quota.flush(),
            self.regions.flush(),
            self.presence.close(),
        )
        await asyncio.wait([self._spawn(each, name="flush") for each in work], timeout=FLUSH_SECONDS)
        waiting = sum(part.unwritten for part in (self.remote, self.log, self.quota, self.regions))
        return waiting + self.remote.behind.drops - drops

    async def stop(self) -> None:
        """Finish what was begun, within a few seconds."""
        await self.regions.stop()
        await self.quota.close()
        await self.presence.close()
        await self.log.stop()
        await self.news.close()
        await self.remote.close()

    def readings(self) -> Mapping[str, Callable[[], float]]:
        """Its numbers, by the names of ``sinks/metrics``."""
        remote = self.remote
        return {
            "redis_up": lambda: float(self.link.up),
            "redis_pool_waits_total": lambda: self.link.waits,
            "lease_waits_total": lambda: remote.waits,
            "lease_takeovers_total": lambda: remote.takeovers,
            "write_behind_entries": lambda: remote.behind.depth,
            "write_behind_dropped_total": lambda: remote.behind.drops,
            "pods": lambda: self.presence.count or 0,
            "fleet_revisions": lambda: len(self.presence.revisions),
            "region_orders": lambda: len(self.regions.orders),
            "purge_lag_seconds": lambda: self.log.lag,
            **({} if self._logins is None else {"redis_token_seconds": self._token_seconds}),
        }

    def _token_seconds(self) -> float:
        login = self._logins.current() if self._logins is not None else None
        return self._logins.left(login) if self._logins is not None and login is not None else 0.0

    def breakdowns(self) -> Mapping[str, Callable[[], Mapping[str, float]]]:
        """As ``readings``, by label."""
        return {
            "redis_errors_total": lambda: {why: count for why, count in self.link.commands.items() if why != "ok"},
            "envelope_faults_total": lambda: dict(self.seal.faults),
            "envelope_bytes_total": lambda: {"plain": self.seal.plain_bytes, "sealed": self.seal.sealed_bytes},
        }
