"""
Makes every part that a request may pass, and hands each its collaborators.

The rule: parts are made here and nowhere else; none of them knows how it came to be. Whatever connects two parts that
don't know each other (a record and its sinks, a breaker and the fleet) is a method here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from sidecar import __version__
from sidecar.app.cleaning import Cleaning
from sidecar.app.clocks import Clocks
from sidecar.app.erasure import Erasures
from sidecar.app.operations import Operations
from sidecar.app.revision import Revision
from sidecar.app.state_folder import state_folder
from sidecar.core.cache.observation import Observations
from sidecar.core.cache.purges import Purges, Scope
from sidecar.core.key.fingerprint import fleet_secret
from sidecar.core.key.keyring import Keyring
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Record
from sidecar.core.region.breaker import State, Transition
from sidecar.core.region.regions import Place, Regions
from sidecar.core.request.plan import RequestPlans
from sidecar.core.request.principal import Accepted, Pod
from sidecar.core.rules import Mode, Rules
from sidecar.identity.caller_tokens import KeySets
from sidecar.identity.client import TokenClient
from sidecar.identity.credentials import Credentials
from sidecar.identity.secret_file import SecretFile
from sidecar.net.inbound.listener import Listener
from sidecar.net.outbound.client import Upstream
from sidecar.net.outbound.connection import trust
from sidecar.net.outbound.egress import choose
from sidecar.net.outbound.resolve import Resolver
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.handler import Proxy
from sidecar.proxy.operation.parts import LongOperations
from sidecar.proxy.operation.records import NoRecords
from sidecar.sinks.log import AccessLog
from sidecar.sinks.metrics import Breakdown, Metrics
from sidecar.sinks.records import Records
from sidecar.sinks.series import names_of
from sidecar.sinks.strays import trail
from sidecar.store.memory import Memory
from sidecar.store.tiered import Nowhere, Tiered
from sidecar.tasks import Tasks
from sidecar.upstream.commit import COMMIT_BYTES
from sidecar.upstream.dispatch import Dispatch
from sidecar.upstream.fallback import Fallback
from sidecar.upstream.limiter import Throttle

if TYPE_CHECKING:
    from sidecar.app.fleet import Fleet


_UNUSED = "`sidecar check` and the log's `config-problem` lines say why"


class Parts:
    """
    The parts of one process. *write* takes log lines. *refused*: *rules* only stand in for a configuration that could
    not be used. *port* tells the port of callers; *ports* are all that this process listens on, once they are bound.
    *sinks* hear of each request, too, after metrics and log. *clocks* are those of all parts but the fleet's.
    """

    def __init__(
        self,
        rules: Rules,
        *,
        environ: Mapping[str, str],
        write: Callable[[bytes], None],
        refused: bool,
        port: Callable[[], int],
        ports: set[int],
        sinks: Sequence[Callable[[Record], None]],
        clocks: Clocks,
    ) -> None:
        self.revision = Revision(rules, 0.0 if refused else clocks.wall(), refused=_UNUSED if refused else "")
        self.ports = ports
        self.name = environ.get("HOSTNAME") or os.uname().nodename
        self._environ = environ
        self.clocks = clocks
        self._shared = frozenset(service.name for service in rules.services if service.breaker.shared)
        self.log = AccessLog(write, now=clocks.wall, rule=rules.log)
        self.tasks = Tasks(self.report)
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
            report=self.report,
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
        self.purges = Purges()
        self.regions = Regions(self._on_transition)
        self.credentials = Credentials(
            clock=clocks.running,
            now=clocks.wall,
            environ=environ,
            spawn=self.tasks.spawn,
            fetch=TokenClient(
                proxy_for=self._hop_to, trust=lambda: trust(self.rules.upstream.ca_file), resolver=self.resolver
            ),
            report=lambda line: self.log.event("credential-unusable", level="warning", message=line),
            draw=clocks.draw,
        )
        self.fleet = self._join()
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
            most=commit_bytes(rules),
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
        self.metrics = Metrics(
            __version__, names_of(rules), self._readings(), self._breakdowns(), revision=rules.revision
        )
        records = Records(self.metrics.record, self.log.record, *sinks)
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
            operations=partial(
                LongOperations,
                dispatch=self.dispatch,
                flights=self.flights,
                store=self.store,
                records=self.fleet.operations if self.fleet is not None else NoRecords(),
                limit=rules.memory.max_entry_bytes,
                purge=self._remove,
                spawn=self.tasks.spawn,
                now=clocks.wall,
                clock=clocks.running,
                random=os.urandom,
                sleep=clocks.pause,
            ),
            record=records.tell,
            report=self.report,
            now=clocks.wall,
            clock=clocks.running,
            draw=lambda: 1.0 - clocks.draw(),
            instance=os.urandom(4).hex().encode(),
        )
        self.listener = Listener(
            self.proxy,
            rules.limits,
            self.ledger,
            spawn=self.tasks.spawn,
            clock=clocks.running,
            wall=clocks.wall,
            spool_dir=state_folder(rules.state_dir, self.log.event),
            report=self.report,
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
            port=port,
        )
        self.cleaning = Cleaning(self.purges, self.flights, self.operations.sweep)
        self.cleaning.forget += [self._forget_requests, self.proxy.operations.table.forget]
        self.operations.on_purge = self.cleaning.take
        self.erasures = Erasures(
            self.operations,
            self.purges,
            self.cleaning,
            None if self.fleet is None else self.fleet.erasure,
            name=self.name,
            redis=rules.redis is not None,
            dropped=lambda: self.memory.purged,
            now=clocks.wall,
        )
        if self.fleet is not None:
            self.operations.log = self.fleet.log
            self.operations.orders = self.fleet.regions
            self.cleaning.settle = self.fleet.remote.settle
            self.cleaning.on_confirm = self.fleet.presence.nudge
            self.fleet.news.subscribe(b"e", lambda _: self.cleaning.overwrite())

    @property
    def rules(self) -> Rules:
        """The rules in use."""
        return self.revision.rules

    def __repr__(self) -> str:
        return f"<Parts {self.proxy!r} {self.fleet!r}>"

    def _readings(self) -> Mapping[str, Callable[[], float]]:
        return {
            "cache_bytes": lambda: self.memory.bytes,
            "cache_entries": lambda: self.memory.entries,
            "cache_evictions_total": lambda: self.memory.evictions,
            "cache_collisions_total": lambda: self.memory.collisions,
            "inflight_memory_bytes": lambda: self.ledger.held,
            "connections": lambda: self.listener.connections,
            "tasks": lambda: len(asyncio.all_tasks()),
            "log_lines_lost_total": lambda: self.log.failed,
            "purges_total": lambda: self.operations.purged,
            "config_last_reload_successful": lambda: float(not self.revision.refused),
            "config_last_reload_success_timestamp_seconds": lambda: self.revision.loaded_at,
            "config_needs_restart": lambda: len(self.revision.waiting),
            **(self.fleet.readings() if self.fleet is not None else {}),
        }

    def _breakdowns(self) -> Mapping[str, Callable[[], Breakdown]]:
        return {
            "mode": lambda: {} if self.operations.mode is Mode.NORMAL else {self.operations.mode.value: 1},
            "breaker_state": self.regions.states,
            "rate_windows": lambda: self.regions.spent(self.clocks.running()),
            "credentials_unusable": self._credentials_unusable,
            "retry_budget_left": lambda: self.regions.budgets_left(self.clocks.running()),
            "dns_lookups_total": lambda: self.resolver.results,
            "upstream_connections_total": lambda: self.upstream.census.counts,
            "calls_waiting": self.throttle.waiting,
            "calls_shed_total": self.throttle.shed,
            "key_splitting_headers": lambda: {route: float(len(names)) for route, names in self.proxy.splits.items()},
            **(self.fleet.breakdowns() if self.fleet is not None else {}),
        }

    def _credentials_unusable(self) -> Mapping[tuple[str, str], float]:
        return {
            (service.name, region.name): float(bool(self.credentials.fault(region.credential)))
            for service in self.rules.services
            for region in service.regions
            if region.credential is not None
        }

    def _join(self) -> Fleet | None:
        """The fleet's part, if the rules name one and its secret can be had; otherwise memory is everything."""
        rule, seal = self.rules.redis, self.rules.seal
        if rule is None:
            return None
        secrets = SecretFile(seal.secret_file, self.clocks.running, lambda why: self.log.event(
            "secret-unusable", level="error", message=why))  # fmt: skip
        if secrets.keyring() is None:
            self.log.event("memory-only", level="error", message="Redis is not used: the secret file is not usable")
            return None

        if os.environ.get("AIOCACHE_DISABLE") == "1":
            self.log.event(
                "memory-only", level="error", message="Redis is not used: AIOCACHE_DISABLE=1 is set; unset it"
            )
            return None

        from sidecar.app.fleet import Fleet  # noqa: PLC0415  Redis' client is weight that not everyone needs

        return Fleet(
            rule,
            seal,
            cast("Callable[[], Keyring]", secrets.keyring),  # it was usable, and what was read last serves
            self.purges,
            limit=self.rules.memory.max_entry_bytes,
            shared=self._shared,
            spawn=self.tasks.spawn,
            lookup=self.resolver.addresses,
            logins=self.credentials.logins(rule.credential) if rule.credential is not None else None,
            tell=self.log.event,
            report=self.report,
            on_purge=lambda scopes: self.operations.take(scopes),  # noqa: PLW0108  these are made later
            on_mode=lambda mode, until: self.operations.take_mode(mode, until),  # noqa: PLW0108  as above
            on_orders=lambda orders: self.operations.take_orders(orders),  # noqa: PLW0108  as above
            on_learn=self._on_learn,
            on_command=lambda _, seconds: self.metrics.redis(seconds),
            revision=lambda: self.rules.revision,
            confirmed=lambda: (self.name, self.cleaning.confirmed, self.memory.purged),
        )

    def _forget_requests(self, _: tuple[Scope, ...]) -> None:
        """A purge: what is remembered of requests may be what it is about, and is learnt again as they come."""
        self.proxy.forget_requests()
        self.listener.forget()

    def _on_learn(self, place: Place, open_for: float | None) -> None:
        """Another process has found a region failing, or working again."""
        service = next((service for service in self.rules.services if service.name == place.service), None)
        if service is not None:
            self.regions.learn(place, open_for, service.breaker, self.clocks.running())

    async def _remove(self, scopes: tuple[Scope, ...]) -> None:
        await self.operations.remove(scopes)

    def report(self, error: BaseException) -> None:
        """Log a bug, by its kind and place only."""
        if isinstance(error, ssl.SSLError | ConnectionError):
            return  # a caller that hangs up is no bug
        self.log.event("bug", level="error", error=type(error).__name__, trail=trail(error))  # no text, as there

    def _on_mode(self, before: Mode) -> None:
        """The mode has changed, or ended: write one log line, whoever changed it."""
        standing = self.operations.standing()
        lasting = {} if standing.seconds is None else {"seconds": round(standing.seconds)}
        level = "info" if standing.mode is self.rules.mode else "warning"
        self.log.event("mode", level=level, before=before.value, after=standing.mode.value,
                       by=self.operations.source, **lasting)  # fmt: skip

    def _on_transition(self, place: Place, transition: Transition) -> None:
        """A breaker has changed: write one log line, and tell the fleet if it judges together."""
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

    def _hop_to(self, url: str) -> tuple[str, str]:
        """The egress proxy for a request of the sidecar itself, and the credentials for that proxy."""
        egress = choose(url, proxy=self.rules.upstream.proxy, environ=self._environ, own=self._is_own)
        return egress.proxy, egress.authorization

    def _is_own(self, host: str, port: int) -> bool:
        return port in self.ports and host in {"127.0.0.1", "::1", "localhost", self.rules.listen.host}


def commit_bytes(rules: Rules) -> int:
    """The latest commit point, bytes."""
    return min(COMMIT_BYTES, rules.memory.max_entry_bytes)
