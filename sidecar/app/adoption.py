"""
How a running process takes on other rules.

The rule: whatever may fail or take time comes first, and changes nothing. Then every part adopts the rules in one step
between two awaits, in the order that stands here.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Iterable

from msgspec import Struct

from sidecar.admin.control import check_reach
from sidecar.app.revision import Revision
from sidecar.app.wiring import Parts, commit_bytes
from sidecar.core.cache.purges import Scope, ScopeKind
from sidecar.core.rules import Rules
from sidecar.identity.caller_tokens import KeySets
from sidecar.net.outbound.connection import trust
from sidecar.sinks.series import ConfiguredNames, Plan, names_of, plan


class Prepared(Struct, frozen=True):
    """
    All that could fail or take time is done: *rules* are checked, *key_sets* read. *anchors* are other trust anchors,
    None if they are the same; *names* and *series* are what the metrics tell apart.
    """

    rules: Rules
    key_sets: KeySets
    anchors: ssl.SSLContext | None
    names: ConfiguredNames
    series: Plan


class Adoption:
    """Brings other rules into the running *parts*. *on_adopt* is called with them."""

    def __init__(self, parts: Parts, on_adopt: Callable[[Rules], None]) -> None:
        self._parts = parts
        self._on_adopt = on_adopt

    def __repr__(self) -> str:
        return f"<Adoption by {self._parts!r}>"

    def prepare(self, rules: Rules, files: Collection[str]) -> Prepared:
        """
        Do whatever may fail or take time, in a thread; *files* are those that have other content now. Raises
        ``ConfigError``.
        """
        check_reach(rules.admin.host, rules.admin_token_file)
        parts, before = self._parts, self._parts.rules
        tokens, others = ({each.name: each.tokens for each in one.services} for one in (rules, before))
        known = tokens == others and not any(rule.jwks_file in files for rule in tokens.values())
        key_sets = parts.key_sets if known else parts.key_sets.revised(tokens)
        same = rules.upstream.ca_file == before.upstream.ca_file and rules.upstream.ca_file not in files
        names = names_of(rules)
        return Prepared(rules, key_sets, None if same else trust(rules.upstream.ca_file), names, plan(names))

    async def open(self, rules: Rules) -> Callable[[], None]:
        """
        Open the ports of *rules* that are not open yet; returns what closes the others. The rules must be adopted
        before the next await, for these ports mean nothing under the former ones. Raises ``OSError``.
        """
        parts = self._parts
        wanted, present = ({service.port for service in each.services if service.port} for each in (rules, parts.rules))
        listener, opened = parts.listener, set[int]()
        try:
            for port in wanted - present:
                opened.add(await listener.start(rules.listen.host, port))
        except BaseException:  # also if the process ends meanwhile
            for port in opened:
                listener.close(port)
            raise

        def close_others() -> None:
            parts.ports.update(opened)
            for port in present - wanted:
                parts.ports.discard(port)
                listener.close(port)

        return close_others

    def adopt(self, prepared: Prepared, revision: Revision) -> None:
        """
        Take it on, everywhere, in one step. Nothing here can fail. The plans come last, so no call under the new rules
        meets a part that still has the old ones.
        """
        parts, rules, before = self._parts, prepared.rules, self._parts.rules
        parts.revision, parts.key_sets = revision, prepared.key_sets
        parts.log.adopt(rules.log)
        parts.ledger.limit = rules.limits.inflight_memory
        parts.memory.adopt(rules.memory)
        parts.flights.adopt(rules.memory.max_entry_bytes)
        parts.resolver.adopt(rules.upstream.nameservers)
        parts.upstream.adopt(rules.upstream, prepared.anchors)
        parts.regions.adopt(before.services, rules.services, parts.clocks.running())
        parts.credentials.adopt(rules.services)
        parts.throttle.adopt(rules.routes)
        parts.dispatch.adopt(commit_bytes(rules))
        if parts.fleet is not None and rules.redis is not None:
            parts.fleet.adopt(rules.redis, rules.seal)
        parts.metrics.adopt(prepared.names, prepared.series, rules.revision)
        parts.proxy.adopt(rules, parts.operations.mode, parts.key_sets.verify)
        parts.listener.adopt(rules.limits)
        parts.operations.adopt(rules.mode, rules.services)
        remade = tuple(Scope(ScopeKind.SERVICE, name) for name in _remade(before, rules))
        if remade:
            parts.purges.apply(remade, pending=False)
            parts.operations.take(remade)
        self._on_adopt(rules)


def _remade(before: Rules, after: Rules) -> Iterable[str]:
    """
    The services that are others under the same name: they speak another dialect, or stand at another kind of host. Then
    the same request is another question, so what is stored here for them goes.
    """
    was = {service.name: (service.dialect.name, service.own) for service in before.services}
    for service in after.services:
        if was.get(service.name, (service.dialect.name, service.own)) != (service.dialect.name, service.own):
            yield service.name
