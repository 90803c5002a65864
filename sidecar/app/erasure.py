"""
Erasing: a purge after which the bytes are gone too, in every pod and in Redis, with a receipt.

The rule: the purge comes first, so no pod serves or keeps what it removes. Whatever could not be reached is named, and
then the receipt is not complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.admin.erasure import ErasedPlace, EraseRequest, PodReceipt, Receipt, ReceiptDraft
from sidecar.app.cleaning import Cleaning
from sidecar.app.operations import Operations
from sidecar.core.cache.purges import Purges, Scope, ScopeKind

if TYPE_CHECKING:
    from sidecar.app.fleet_erasure import FleetErasure

_SHOWN = 8
"""Digits of a key or of a partition that a receipt shows."""

_HERE = "this process only: the configuration names no Redis, and each pod has a memory of its own"
_FORBIDDEN = "this process only: Redis and the other pods were not touched; set admin.token_file in every pod"
_UNUSED = "this process only: Redis is configured but not in use here; see cache.secret_file"
_SPOOLS = "a large body's file has no name from its first moment, and ends with its call"


class Erasures:
    """
    Erases on request. *fleet* is None if there is none; *redis* tells whether the configuration names a Redis. *name*
    is this pod's; *dropped* counts the entries that purges have taken from memory. *now* is the wall clock.
    """

    def __init__(
        self,
        operations: Operations,
        purges: Purges,
        cleaning: Cleaning,
        fleet: FleetErasure | None,
        *,
        name: str,
        redis: bool,
        dropped: Callable[[], int],
        now: Callable[[], float],
    ) -> None:
        self._operations = operations
        self._purges = purges
        self._cleaning = cleaning
        self._fleet = fleet
        self._name = name
        self._redis = redis
        self._dropped = dropped
        self._now = now

    def __repr__(self) -> str:
        return f"<Erasures {'in the fleet' if self._fleet is not None else 'here'}>"

    async def erase(self, asked: EraseRequest) -> Receipt:
        """Erase what is *asked* for. Raises ``Refused``."""
        scope, key = self._operations.named(asked.purge)
        dry_run = asked.purge.dry_run
        draft = ReceiptDraft(_shown(asked.purge.scope, scope), asked.by, self._now, dry_run=dry_run)
        fleet = self._fleet if asked.purge.fleet else None
        if dry_run:
            draft.pods.append(PodReceipt(self._name, await self._operations.count(scope), why="only counted"))
            if fleet is not None:
                await fleet.count(scope, draft)
        elif fleet is not None:
            before = self._dropped()
            draft.pods.append(PodReceipt(self._name, 0))
            await fleet.erase(scope, key, asked.wait, draft, clean=lambda: self._clean(asked.wait, before, draft))
        else:
            before = self._dropped()
            self._purges.apply((scope,), pending=False)
            self._operations.take((scope,))
            draft.pods.append(PodReceipt(self._name, 0))
            await self._clean(asked.wait, before, draft)
        if not dry_run:
            draft.places.append(ErasedPlace("uploads on disk", 0, note=_SPOOLS))
        if fleet is None:
            draft.notes.append(_HERE if not self._redis else _UNUSED if self._fleet is None else _FORBIDDEN)
            draft.complete &= not self._redis
        return draft.receipt()

    async def _clean(self, wait: float, before: int, draft: ReceiptDraft) -> None:
        """Let go of everything here, within *wait* seconds; *before*: how much had been dropped before the purge."""
        why = ""
        self._cleaning.overwrite()
        try:
            async with asyncio.timeout(wait):
                await self._cleaning.clean()
        except TimeoutError:
            calls = self._cleaning.waiting
            why = f"{calls} calls are still under way" if calls else "a write to Redis is still under way"
        draft.pods[0] = PodReceipt(self._name, self._dropped() - before, "" if why else draft.time(), why)


def _shown(asked: str, scope: Scope) -> str:
    """What is erased, as a receipt may show it."""
    match scope.kind:
        case ScopeKind.ALL:
            return "every answer"
        case ScopeKind.KEY:
            by = "" if asked == "key" else f" (by --{asked})"
            return f"the answer of key {scope.value[:_SHOWN]}...{by}"
        case ScopeKind.PARTITION:
            return f"the answers of partition {scope.value[:_SHOWN]}..."
        case _:
            return f"the answers of {scope.kind.value} {scope.value}"
