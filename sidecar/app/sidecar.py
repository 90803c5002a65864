"""
One process: starts its parts, drains them, stops them, and says how they are.

The rule: an order of starting and one of stopping, both readable here; ``wiring`` makes the parts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from sidecar import __version__
from sidecar.admin.control import ControlServer
from sidecar.admin.health import HealthServer, Part, Readiness
from sidecar.admin.parts import configuration_parts, credential_parts, mode_parts, region_parts, split_parts
from sidecar.app.adoption import Adoption
from sidecar.app.clocks import CLOCKS, Clocks
from sidecar.app.reload import Reloads, Source
from sidecar.app.wiring import Parts
from sidecar.core.model import Record
from sidecar.core.rules import Rules

if TYPE_CHECKING:
    from sidecar.app.fleet import Fleet

_SWEEP_SECONDS = 1.0
_SWEEP_ENTRIES = 2000


class Sidecar:
    """
    One process. *write* takes log lines. *refused*: the configuration could not be used, and *rules* replace it.
    ``start`` raises ``OSError`` if an address is taken.

    After ``start``, *port* and *health_port* are the ports that were bound, also where the rules say 0.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        environ: Mapping[str, str],
        write: Callable[[bytes], None],
        refused: bool = False,
        source: Source | None = None,
        sinks: Sequence[Callable[[Record], None]] = (),
        clocks: Clocks = CLOCKS,
    ) -> None:
        self.port = self.health_port = self.admin_port = 0
        self.ports: set[int] = set()
        self.ready = False
        self._counted: Counter[str] = Counter()
        self._parts = parts = Parts(
            rules,
            environ=environ,
            write=write,
            refused=refused,
            port=lambda: self.port,
            ports=self.ports,
            sinks=sinks,
            clocks=clocks,
        )
        self._clocks = clocks
        self.dispatch = parts.dispatch
        self.purges = parts.purges
        self.log = parts.log
        self.tasks = parts.tasks
        self.ledger = parts.ledger
        self.memory = parts.memory
        self.flights = parts.flights
        self.resolver = parts.resolver
        self.upstream = parts.upstream
        self.regions = parts.regions
        self.fleet = parts.fleet
        self.credentials = parts.credentials
        self.throttle = parts.throttle
        self.metrics = parts.metrics
        self.store = parts.store
        self.proxy = parts.proxy
        self.listener = parts.listener
        self.operations = parts.operations
        self.cleaning = parts.cleaning
        self.erasures = parts.erasures
        self.reloads = Reloads(
            source,
            parts,
            Adoption(parts, self._on_adopt),
            tell=self.log.event,
            report=parts.report,
            now=clocks.wall,
        )
        self.health = HealthServer(self.readiness, self.metrics.exposition, parts.report, names=_names(rules))
        self.control = ControlServer(
            purge=self.operations.purge,
            erase=self.erasures.erase,
            mode=self.operations.change,
            region=self.operations.region,
            reload=lambda _: self.reloads.reload("api"),
            regions=self._regions_told,
            status=self._status,
            audit=self.log.event,
            report=parts.report,
            token_file=rules.admin_token_file,
        )

    def __repr__(self) -> str:
        return f"<Sidecar port {self.port} {'ready' if self.ready else 'not ready'} {self.proxy!r}>"

    @property
    def rules(self) -> Rules:
        """The rules in use."""
        return self._parts.rules

    async def start(self) -> None:
        """Listen; ready when this returns."""
        rules = self.rules
        for line in rules.warnings:
            self.log.event("config-warning", level="warning", message=line)
        await self.upstream.start()
        self.credentials.adopt(rules.services)
        if self.fleet is not None:
            await self.fleet.start(self.store.take)
        self.health_port = await self.health.start(rules.health.host, rules.health.port)
        self.admin_port = await self.control.start(rules.admin.host, rules.admin.port)
        self.port = await self.listener.start(rules.listen.host, rules.listen.port)
        self.ports.update((self.port, self.health_port, self.admin_port))
        for service in rules.services:
            if service.port:
                self.ports.add(await self.listener.start(rules.listen.host, service.port))
        self._sweeping = self.tasks.spawn(self._sweep(), name="sweep")
        self._cleaning = self.tasks.spawn(self.cleaning.run(), name="clean")
        if self.reloads.source is not None:
            self._watching = self.tasks.spawn(self.reloads.watch(self.reloads.source), name="watch")
        self.ready = True
        self.log.event("started", version=__version__, port=self.port, health_port=self.health_port,
                       config=rules.source, mode=rules.mode.value, revision=rules.revision)  # fmt: skip

    async def stop(self) -> None:
        """
        Report not ready; flush at once, because a kubelet may kill the process at any time; let running calls finish
        within the grace period, then cut them; give everything back.
        """
        served, self.ready = self.ready, False
        seconds = self.rules.limits.drain_seconds
        if served:  # a failed start has nothing to finish, and its reason must be the last message
            connections = self.listener.connections
            self.log.event("draining", level="info", connections=connections, seconds=seconds, **self._uncounted())
        flushing = (
            self.tasks.spawn(self._flush(self.fleet), name="flush") if served and self.fleet is not None else None
        )
        await self.listener.drain(seconds)
        if flushing is not None:
            await asyncio.wait([flushing])
        await self.tasks.cancel("flight")  # refreshes: they give their leases back while that is possible
        await self.credentials.close()
        if self.fleet is not None:
            await self.fleet.stop()
        await self.tasks.cancel()
        await self.upstream.close()
        await self.resolver.close()
        await self.control.stop()
        await self.health.stop()
        if served:
            self.log.event("stopped", level="info", **self._uncounted())

    async def _flush(self, fleet: Fleet) -> None:
        unwritten = await fleet.flush()
        self.log.event("flushed", level="warning" if unwritten else "info", unwritten=unwritten)

    def _uncounted(self) -> Counter[str]:
        """What was counted since this was last asked for: the lines of the log that tell it add up."""
        totals = self.metrics.totals()
        found = totals - self._counted
        self._counted = totals
        return found

    def hang_up(self) -> None:
        """SIGHUP has come: read the configuration again, now."""
        self.reloads.wake("SIGHUP")

    def readiness(self) -> Readiness:
        """Ready from listening until draining. Failing services or a full cache do not change that."""
        parts = (
            Part("listener", self.ready, f"port {self.port}, {self.listener.connections} connections"),
            Part("memory", True, self.memory.standing),
            *mode_parts(self.operations.standing(), self.operations.source, self.rules.mode),
            *region_parts(self.operations.table()),
            *credential_parts(self.credentials.standing()),
            *split_parts(self.proxy.splits),
            *self._fleet_part(),
            *configuration_parts(
                self.rules, refused=bool(self._parts.revision.refused), waiting=map(str, self._parts.revision.waiting)
            ),
        )
        return Readiness(self.ready, parts)

    def _fleet_part(self) -> tuple[Part, ...]:
        if self.rules.redis is None:
            return ()
        if self.fleet is None:
            return (Part("redis", False, "not used: the secret file is not usable"),)
        return (Part("redis", self.fleet.link.up, self.fleet.standing),)

    def _on_adopt(self, rules: Rules) -> None:
        self.health.adopt(_names(rules))
        self.control.adopt(rules.admin_token_file)

    async def _status(self) -> Mapping[str, object]:
        revision = self._parts.revision
        return {
            "version": __version__,
            "revision": self.rules.revision,
            "configuration": {
                "file": self.rules.source,
                "accepted_at": revision.loaded_at,
                "refused": revision.refused,
                "needs_restart": [change.path for change in revision.waiting],
            },
            "ready": self.ready,
            "mode": self.operations.standing(),
            "memory": {
                "entries": self.memory.entries,
                "bytes": self.memory.bytes,
                "routes": await self.operations.entries_by_route(),
            },
            "redis": None if self.fleet is None else {"up": self.fleet.link.up},
            "fleet": None
            if self.fleet is None
            else {"pods": self.fleet.presence.count, "revisions": self.fleet.presence.revisions},
        }

    async def _regions_told(self) -> Mapping[str, object]:
        now = self._clocks.running()
        return {
            "regions": self.operations.table(),
            "budgets": {service.name: self.regions.budget(service.name).left(now) for service in self.rules.services},
            "credentials": self.credentials.standing(),
        }

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.memory.sweep(self._clocks.running(), _SWEEP_ENTRIES)
            self.operations.tick()
            self.proxy.operations.table.sweep()
            if self._parts.key_sets.changed():
                self.proxy.forget_requests()
                self.listener.forget()
            await self.operations.sweep()
            await self.store.note_again()


def _names(rules: Rules) -> frozenset[str]:
    """The values of ``Host`` that mean this sidecar."""
    return frozenset(
        (rules.health.host, *rules.listen.names, *[host for each in rules.services for host in each.hosts])
    )
