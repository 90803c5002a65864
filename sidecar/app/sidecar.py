"""
The composition root: builds every part, hands each its collaborators, starts them, drains them, stops them.

The rule: everything is made here and nowhere else; nothing below knows how it came to be.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import __version__
from sidecar.admin.control import ControlServer
from sidecar.admin.health import HealthServer, Part, Readiness
from sidecar.admin.parts import configuration_parts, credential_parts, mode_parts, region_parts, split_parts
from sidecar.app.clocks import CLOCKS, Clocks
from sidecar.app.operations import Operations
from sidecar.app.tasks import Tasks
from sidecar.core.cache.observation import Observations
from sidecar.core.cache.purges import Purges
from sidecar.core.key.fingerprint import fleet_secret
from sidecar.core.key.keyring import Keyring
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Record
from sidecar.core.region.breaker import State, Transition
from sidecar.core.region.regions import Place, Regions
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Accepted, Pod
from sidecar.core.rules import Mode, Rules
from sidecar.flight.table import Flights
from sidecar.identity.client import TokenClient
from sidecar.identity.credentials import Credentials
from sidecar.identity.key_sets import KeySets
from sidecar.identity.secret_file import SecretFile
from sidecar.net.inbound.listener import Listener
from sidecar.net.outbound.client import Upstream
from sidecar.net.outbound.connection import trust
from sidecar.net.outbound.egress import choose
from sidecar.net.outbound.resolve import Resolver
from sidecar.proxy.handler import Proxy
from sidecar.sinks.log import AccessLog
from sidecar.sinks.metrics import Metrics
from sidecar.sinks.series import names_of
from sidecar.sinks.strays import trail
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered
from sidecar.upstream.commit import COMMIT_BYTES
from sidecar.upstream.dispatch import Dispatch
from sidecar.upstream.fallback import Fallback
from sidecar.upstream.limiter import Throttle

if TYPE_CHECKING:
    from sidecar.app.fleet import Fleet

_SWEEP_SECONDS = 1.0
_SWEEP_ENTRIES = 2000


class Sidecar:
    """
    One process. *write* takes log lines. *refused*: *rules* only stand in for a configuration that could not be used.
    *sinks* hear of each request, too, after metrics and log. *clocks* are those of all parts but the fleet's, for Redis
    lives in real time. ``start`` raises ``OSError`` where an address is taken.

    After ``start``, *port* and *health_port* are the ports that were bound, also where the rules say 0.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        environ: Mapping[str, str],
        write: Callable[[bytes], None],
        refused: bool = False,
        sinks: Sequence[Callable[[Record], None]] = (),
        clocks: Clocks = CLOCKS,
    ) -> None:
        self.rules = rules
        self._refused = refused
        self._environ = environ
        self._clocks = clocks
        self._shared = frozenset(service.name for service in rules.services if service.breaker.shared)
        self.port = self.health_port = self.admin_port = 0
        self.log = AccessLog(write, now=clocks.wall, rule=rules.log)
        self.tasks = Tasks(self._report)
        self.ledger = Ledger(rules.limits.inflight_memory)
        self.memory = Memory(
            rules.memory,
            now=clocks.wall,
            clock=clocks.running,
        )
        self.flights = Flights(
            spawn=self.tasks.spawn,
            ledger=self.ledger,
            limit=rules.memory.max_entry_bytes,
            report=self._report,
        )
        self.resolver = Resolver(rules.upstream.nameservers, clock=clocks.running)
        self.upstream = Upstream(
            rules.upstream,
            environ=environ,
            own=self._is_own,
            spawn=self.tasks.spawn,
            resolver=self.resolver,
            clock=clocks.running,
            draw=clocks.draw,
        )
        self.ports: set[int] = set()
        self.ready = False
        self.purges = Purges()
        self.regions = Regions(self._on_transition)
        self.fleet = self._join()
        self.credentials = Credentials(
            clock=clocks.running,
            now=clocks.wall,
            environ=environ,
            spawn=self.tasks.spawn,
            fetch=TokenClient(way=self._way, trust=lambda: trust(rules.upstream.ca_file), resolver=self.resolver),
            report=lambda line: self.log.event("credential-unusable", level="warning", message=line),
            draw=clocks.draw,
        )
        self.throttle = Throttle(
            quota=self.fleet.quota if self.fleet is not None else None,
            pods=lambda: self.fleet.presence.count if self.fleet is not None else None,
            clock=clocks.running,
            spawn=self.tasks.spawn,
        )
        self.dispatch = Dispatch(
            self.upstream,
            self.credentials,
            self.regions,
            self.ledger,
            spawn=self.tasks.spawn,
            now=clocks.wall,
            clock=clocks.running,
            draw=clocks.draw,
            throttle=self.throttle,
            most=min(COMMIT_BYTES, rules.memory.max_entry_bytes),
            sharing=self.fleet.regions if self.fleet is not None else None,
            sleep=clocks.pause,
        )
        fallback = Fallback(
            self.dispatch,
            clocks.running,
            lambda line: self.log.event("answer-file-unusable", level="warning", file=line),
        )
        secret = os.urandom(32) if rules.redis is None else fleet_secret(rules.redis.namespace)
        pod = Pod(environ.get("SIDECAR_POD_NAMESPACE", ""), environ.get("SIDECAR_SERVICE_ACCOUNT", ""), os.urandom(16))
        loaded = 0.0 if refused else clocks.wall()
        self.metrics = Metrics(
            __version__,
            names_of(rules),
            {
                "cache_bytes": lambda: self.memory.bytes,
                "cache_entries": lambda: self.memory.entries,
                "cache_evictions_total": lambda: self.memory.evictions,
                "cache_collisions_total": lambda: self.memory.collisions,
                "inflight_memory_bytes": lambda: self.ledger.held,
                "connections": lambda: self.listener.connections,
                "log_lines_lost_total": lambda: self.log.failed,
                "purges_total": lambda: self.operations.purged,
                "config_last_reload_successful": lambda: float(not refused),
                "config_last_reload_success_timestamp_seconds": lambda: loaded,
                **(self.fleet.readings() if self.fleet is not None else {}),
            },
            {
                "mode": lambda: {} if self.operations.mode is Mode.NORMAL else {self.operations.mode.value: 1},
                "breaker_state": self.regions.states,
                "rate_windows": lambda: self.regions.spent(clocks.running()),
                "credentials_unusable": self._credentials_unusable,
                "retry_budget_left": lambda: self.regions.budgets_left(clocks.running()),
                "dns_lookups_total": lambda: self.resolver.results,
                "upstream_connections_total": lambda: self.upstream.census.counts,
                "calls_waiting": self.throttle.waiting,
                "calls_shed_total": self.throttle.shed,
                "key_splitting_headers": lambda: {
                    route: float(len(names)) for route, names in self.proxy.splits.items()
                },
                **(self.fleet.breakdowns() if self.fleet is not None else {}),
            },
        )
        self._sinks = (self.metrics.record, self.log.record, *sinks)
        self.key_sets = KeySets(
            {service.name: service.tokens for service in rules.services},
            clock=clocks.running,
            report=lambda line: self.log.event("key-set-unusable", level="error", message=line),
        )
        remote = self.fleet.remote if self.fleet is not None else Nowhere()
        log = self.fleet.log if self.fleet is not None else None
        self.store = Tiered(self.memory, remote, self.purges, log)
        self.proxy = Proxy(
            plans=RequestPlans(rules, secret, pod, self.key_sets.verify),
            secret=secret,
            store=self.store,
            flights=self.flights,
            dispatch=self.dispatch,
            fallback=fallback,
            accepted=Accepted(),
            observations=Observations(),
            record=self._record,
            report=self._report,
            now=clocks.wall,
            clock=clocks.running,
            draw=lambda: 1.0 - clocks.draw(),
            lease_wait=rules.redis.lease_wait if rules.redis is not None else 0.0,
            instance=os.urandom(4).hex().encode(),
        )
        self.listener = Listener(
            self.proxy,
            rules.limits,
            self.ledger,
            spawn=self.tasks.spawn,
            clock=clocks.running,
            wall=clocks.wall,
            spool_dir=self._spool_dir(),
            report=self._report,
        )
        self.operations = Operations(
            rules.mode,
            self.proxy,
            self.memory,
            self.flights,
            self.purges,
            self.regions,
            rules.services,
            forget=self.listener.forget,
            on_mode=self._on_mode,
            now=clocks.wall,
            clock=clocks.running,
            port=lambda: self.port,
        )
        if self.fleet is not None:
            self.operations.log = self.fleet.log
            self.operations.orders = self.fleet.regions
        names = {rules.health.host, *rules.listen.names, *[host for each in rules.services for host in each.hosts]}
        self.health = HealthServer(self.readiness, self.metrics.exposition, self._report, names=frozenset(names))
        self.control = ControlServer(
            purge=self.operations.purge,
            mode=self.operations.change,
            region=self.operations.region,
            regions=self._regions_told,
            status=self._status,
            audit=self.log.event,
            report=self._report,
            token_file=rules.admin_token_file,
        )

    def __repr__(self) -> str:
        return f"<Sidecar port {self.port} {'ready' if self.ready else 'not ready'} {self.proxy!r}>"

    async def start(self) -> None:
        """Listen; ready when this returns."""
        rules = self.rules
        for line in rules.warnings:
            self.log.event("config-warning", level="warning", message=line)
        await self.upstream.start()
        for region in (region for service in rules.services for region in service.regions):
            if region.credential is not None:
                self.credentials.field(region.credential)  # so that the first call need not wait for a token
        if self.fleet is not None:
            await self.fleet.start(self.store.take)
        self.health_port = await self.health.start(rules.health.host, rules.health.port)
        self.admin_port = await self.control.start(rules.admin.host, rules.admin.port)
        self.port = await self.listener.start(rules.listen.host, rules.listen.port)
        self.ports = {self.port, self.health_port, self.admin_port}
        for service in rules.services:
            if service.port:
                self.ports.add(await self.listener.start(rules.listen.host, service.port))
        self._sweeping = self.tasks.spawn(self._sweep(), name="sweep")
        self.ready = True
        self.log.event("started", version=__version__, port=self.port, health_port=self.health_port,
                       config=rules.source, mode=rules.mode.value, revision=rules.revision)  # fmt: skip

    async def stop(self) -> None:
        """Not ready; finish what runs within the grace period, then cut; give everything back."""
        served, self.ready = self.ready, False
        if served:  # a start that failed has nothing to finish, and its reason is the last that is said
            self.log.event("draining", connections=self.listener.connections, seconds=self.rules.limits.drain_seconds)
        await self.listener.drain(self.rules.limits.drain_seconds)
        await self.tasks.cancel("flight")  # refreshes: they give their leases back while that can be done
        await self.credentials.close()
        if self.fleet is not None:
            await self.fleet.stop()
        await self.tasks.cancel()
        await self.upstream.close()
        await self.resolver.close()
        await self.control.stop()
        await self.health.stop()
        if served:
            self.log.event("stopped")

    def readiness(self) -> Readiness:
        """Ready from listening until draining; neither a service nor a full cache can change that."""
        parts = (
            Part("listener", self.ready, f"port {self.port}, {self.listener.connections} connections"),
            Part("memory", True, self.memory.standing),
            *mode_parts(self.operations.standing(), self.operations.source, self.rules.mode),
            *region_parts(self.operations.table()),
            *credential_parts(self.credentials.standing()),
            *split_parts(self.proxy.splits),
            *self._fleet_part(),
            *configuration_parts(self.rules, refused=self._refused),
        )
        return Readiness(self.ready, parts)

    def _fleet_part(self) -> tuple[Part, ...]:
        if self.rules.redis is None:
            return ()
        if self.fleet is None:
            return (Part("redis", False, "not used: the secret file is not usable"),)
        return (Part("redis", self.fleet.link.up, self.fleet.standing),)

    def _join(self) -> Fleet | None:
        """The fleet's part, where the rules name one and its secret can be had; else memory is all there is."""
        rule, seal = self.rules.redis, self.rules.seal
        if rule is None:
            return None
        secrets = SecretFile(seal.secret_file, self._clocks.running, lambda why: self.log.event(
            "secret-unusable", level="error", message=why))  # fmt: skip
        if secrets.keyring() is None:
            self.log.event("memory-only", level="error", message="Redis is not used: the secret file is not usable")
            return None

        if os.environ.get("AIOCACHE_DISABLE") == "1":
            self.log.event(
                "memory-only", level="error", message="Redis is not used: AIOCACHE_DISABLE=1 is set; unset it"
            )
            return None

        def keyring() -> Keyring:
            found = secrets.keyring()
            assert found is not None, "what was read last serves"
            return found

        from sidecar.app.fleet import Fleet  # noqa: PLC0415  Redis' client is weight that not everyone needs

        return Fleet(
            rule,
            seal,
            keyring,
            self.purges,
            limit=self.rules.memory.max_entry_bytes,
            shared=self._shared,
            spawn=self.tasks.spawn,
            lookup=self.resolver.addresses,
            tell=self.log.event,
            report=self._report,
            on_purge=lambda scopes: self.operations.take(scopes),  # noqa: PLW0108  these are made later
            on_mode=lambda mode, until: self.operations.take_mode(mode, until),  # noqa: PLW0108  as above
            on_orders=lambda orders: self.operations.take_orders(orders),  # noqa: PLW0108  as above
            on_learn=self._on_learn,
            on_command=lambda seconds: self.metrics.redis(seconds),  # noqa: PLW0108  as above
        )

    def _status(self) -> Mapping[str, object]:
        return {
            "version": __version__,
            "revision": self.rules.revision,
            "ready": self.ready,
            "mode": self.operations.standing(),
            "memory": {"entries": self.memory.entries, "bytes": self.memory.bytes},
            "redis": None if self.fleet is None else {"up": self.fleet.link.up},
        }

    def _regions_told(self) -> Mapping[str, object]:
        now = self._clocks.running()
        return {
            "regions": self.operations.table(),
            "budgets": {service.name: self.regions.budget(service.name).left(now) for service in self.rules.services},
            "credentials": self.credentials.standing(),
        }

    def _credentials_unusable(self) -> Mapping[tuple[str, str], float]:
        return {
            (service.name, region.name): float(bool(self.credentials.fault(region.credential)))
            for service in self.rules.services
            for region in service.regions
            if region.credential is not None
        }

    def _on_learn(self, place: Place, open_for: float | None) -> None:
        """Another process has found a region failing, or well again."""
        service = next((service for service in self.rules.services if service.name == place.service), None)
        if service is not None:
            self.regions.learn(place, open_for, service.breaker, self._clocks.running())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.memory.sweep(self._clocks.running(), _SWEEP_ENTRIES)
            self.operations.tick()
            if self.key_sets.changed():
                self.proxy.forget_callers()
                self.listener.forget()
            await self.operations.sweep()
            await self.store.note_again()

    def _record(self, record: Record) -> None:
        for sink in self._sinks:
            sink(record)

    def _report(self, error: BaseException) -> None:
        if isinstance(error, ssl.SSLError | ConnectionError):
            return  # a caller that hangs up is no bug
        self.log.event("bug", level="error", error=type(error).__name__, trail=trail(error))  # no text, as there

    def _spool_dir(self) -> str:
        """Where bodies go that do not fit into memory: the state folder, or the system's own where that fails."""
        folder = self.rules.state_dir
        if not folder:
            return ""
        try:
            Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
            reason = "not writable"
        except OSError as error:
            reason = error.strerror or "not usable"
        self.log.event("state-unusable", level="warning", folder=folder, reason=reason)
        return ""

    def _on_mode(self, before: Mode) -> None:
        """The mode has changed: one line, whoever said so, at its end too."""
        standing = self.operations.standing()
        lasting = {} if standing.seconds is None else {"seconds": round(standing.seconds)}
        level = "info" if standing.mode is self.rules.mode else "warning"
        self.log.event("mode", level=level, before=before.value, after=standing.mode.value,
                       by=self.operations.source, **lasting)  # fmt: skip

    def _on_transition(self, place: Place, transition: Transition) -> None:
        """A breaker has changed: one line, and word to the fleet where it judges together."""
        after = transition.after
        lasting = {"seconds": round(transition.seconds, 3)} if transition.seconds else {}
        detail = {"detail": transition.detail} if transition.detail else {}
        resource = {"resource": place.resource} if place.resource else {}
        self.log.event(
            "breaker",
            level="warning" if after is State.OPEN else "info",
            service=place.service,
            **resource,
            region=place.region,
            before=transition.before.value,
            after=after.value,
            cause=transition.cause,
            **detail,
            **lasting,
        )
        shared = self.fleet is not None and place.service in self._shared
        if self.fleet is None or not shared or transition.cause in {"fleet", "operator"}:
            return
        if after is State.OPEN:
            self.fleet.regions.opened(place, transition.seconds, transition.cause)
        elif after is State.CLOSED:
            self.fleet.regions.closed(place, transition.cause)

    def _way(self, url: str) -> tuple[str, str]:
        """The egress proxy for a request of our own, and what it asks for."""
        egress = choose(url, proxy=self.rules.upstream.proxy, environ=self._environ, own=self._is_own)
        return egress.proxy, egress.authorization

    def _is_own(self, host: str, port: int) -> bool:
        return port in self.ports and host in {"127.0.0.1", "::1", "localhost", self.rules.listen.host}
