"""
The part of erasing that concerns the fleet: the log of purges, the other pods, and Redis.

The rule: Redis is emptied last, when the pods have confirmed that none of their writes is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, Protocol

from sidecar.admin.erasure import COPIES, ErasedPlace, PodReceipt, ReceiptDraft
from sidecar.core.cache.held import Held
from sidecar.core.cache.purges import Purges, Scope, scopes_of, taking
from sidecar.core.model import Entry, Key, Position
from sidecar.errors import FleetAway
from sidecar.fleet.confirmation import Confirmations, Peer
from sidecar.fleet.operations import IsGone
from sidecar.fleet.presence import LIFE_SECONDS
from sidecar.fleet.purge_log import PurgeLog
from sidecar.store.redis_erase import RedisEraser

LOOK_SECONDS: Final = 0.25
"""How often the pods' confirmations are read."""

SIGNED_OFF_SECONDS: Final = LIFE_SECONDS - 2.0
"""A pod that is gone from the fleet within so many seconds after its last sign of life has signed off."""

QUIET_SECONDS: Final = 5.0
"""A pod that gives no sign of life for so long does not run: the longest time between two signs is shorter."""

_AWAY = "Redis is away: the purge holds in this process, and in the fleet when Redis is back; then erase again"


class Eraser(Protocol):
    """Erases one kind of thing that the fleet has in Redis beside entries."""

    where: str
    """Its name on a receipt."""

    async def erase(self, scope: Scope, gone: IsGone, *, dry_run: bool) -> ErasedPlace:
        """Delete, or only count, what *scope* names and what is *gone*. Raises ``FleetAway``."""


class FleetErasure:
    """
    Erases in the fleet of *log*. *purges* are those that this process knows. *announce* tells the other pods that this
    purge is an erasure. *clock* is monotonic seconds. ``erasers`` come after the entries, one after the other.
    """

    def __init__(
        self,
        log: PurgeLog,
        purges: Purges,
        confirmations: Confirmations,
        values: RedisEraser,
        *,
        announce: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._purges = purges
        self._confirmations = confirmations
        self._values = values
        self._announce = announce
        self._clock = clock
        self.erasers: list[Eraser] = []

    def __repr__(self) -> str:
        return f"<FleetErasure {self._values!r}, {len(self.erasers)} kinds beside entries>"

    async def count(self, scope: Scope, draft: ReceiptDraft) -> None:
        """Count what Redis has of *scope*."""
        in_scope = taking((scope,))
        await self._from_redis(scope, None, lambda key, entry: in_scope(key, Held(entry, 0.0)), draft)

    async def erase(
        self, scope: Scope, key: Key | None, wait: float, draft: ReceiptDraft, *, clean: Callable[[], Awaitable[None]]
    ) -> None:
        """
        Erase *scope*; *key* is its whole key if that is known. *clean* lets go of everything in this process. The other
        pods may take *wait* seconds.
        """
        until = self._clock() + wait
        before: Mapping[bytes, Peer] = {}
        with suppress(FleetAway):
            before = await self._confirmations.peers()
        position = await self._log.purge((scope,))
        with suppress(FleetAway):
            await self._announce()
        await clean()
        if position is None:
            draft.notes.append(_AWAY)
            draft.complete = False
            return
        draft.position = f"{position.incarnation.hex()}:{position.number}"
        draft.pods += await self._await_pods(before, position, until, draft)
        await self._from_redis(scope, key, self._is_gone, draft)
        draft.notes.append(COPIES)

    def _is_gone(self, key: Key, entry: Entry) -> bool:
        return not self._purges.admits(scopes_of(key, entry), entry.position)

    async def _await_pods(
        self, before: Mapping[bytes, Peer], position: Position, until: float, draft: ReceiptDraft
    ) -> list[PodReceipt]:
        """Wait until every other pod has confirmed, has ended, or has fallen silent."""
        roll = _Roll(self._confirmations.own, position)
        roll.look(before, self._clock(), draft.time())
        read = False
        while True:
            try:
                roll.look(await self._confirmations.peers(), self._clock(), draft.time())
                read = True
            except FleetAway:
                pass  # it is asked again
            if (read and roll.complete) or self._clock() >= until:
                break
            await asyncio.sleep(LOOK_SECONDS)
        if not read:
            draft.notes.append("which pods there are could not be read from Redis; erase again")
            draft.complete = False
        return [*roll.receipts(self._clock())]

    async def _from_redis(self, scope: Scope, key: Key | None, gone: IsGone, draft: ReceiptDraft) -> None:
        dry_run = draft.dry_run
        try:
            if key is not None and not dry_run:
                found = await self._values.erase_key(key)
            else:
                found = await self._values.erase(gone, dry_run=dry_run)
            draft.places.append(ErasedPlace("Redis", found.erased, note=_left(found.unopened, found.names)))
        except FleetAway as away:
            draft.miss("Redis", away)
        for eraser in self.erasers:
            try:
                draft.places.append(await eraser.erase(scope, gone, dry_run=dry_run))
            except FleetAway as away:
                draft.miss(eraser.where, away)


class _Roll:
    """The pods other than *own*, while they are waited for. Each look at the fleet may bring more of them."""

    def __init__(self, own: bytes, position: Position) -> None:
        self._own = own
        self._position = position
        self._known: dict[bytes, Peer] = {}
        self._heard: dict[bytes, float] = {}
        self._before: dict[bytes, int] = {}
        self._done: dict[bytes, PodReceipt] = {}

    def look(self, present: Mapping[bytes, Peer], clock: float, time: str) -> None:
        """*present* are the pods of the fleet at *clock*, monotonic seconds; *time* is for receipts."""
        for name, peer in present.items():
            if name == self._own:
                continue
            self._known[name], self._heard[name] = peer, clock - peer.quiet_seconds
            if peer.says is None:
                continue
            before = self._before.setdefault(name, peer.says.dropped)
            if name not in self._done and peer.says.covers(self._position):
                self._done[name] = PodReceipt(_pod(name, peer), peer.says.dropped - before, time)
        for name in self._known.keys() - present.keys() - self._done.keys():
            # A pod that signs off is gone from the set at once; a silent one only at the end of its life there.
            if clock - self._heard[name] < SIGNED_OFF_SECONDS:
                self._done[name] = PodReceipt(f"{_pod(name, self._known[name])}, which has ended", 0, time)
            else:
                self._done[name] = PodReceipt(_pod(name, self._known[name]), 0, why="gives no sign of life")

    @property
    def complete(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._known.keys() <= self._done.keys()

    def receipts(self, clock: float) -> Iterator[PodReceipt]:
        """All of them, at the end of the wait."""
        for name, peer in self._known.items():
            yield self._done.get(name) or PodReceipt(_pod(name, peer), 0, why=self._why(name, clock))

    def _why(self, name: bytes, clock: float) -> str:
        if self._known[name].says is None:
            return "does not tell which purges it has carried out: an older release, or it has no secret of ours"
        quiet = clock - self._heard[name]
        if quiet > QUIET_SECONDS:
            return f"has given no sign of life for {quiet:.0f} s"
        return "has not confirmed in time: a call that had begun before is still under way, or it cannot read the log"


def _pod(name: bytes, peer: Peer) -> str:
    """The name of a pod, with what tells it from another of the same host."""
    mark = name[:6].decode("ascii", "replace")
    return f"{peer.says.name} ({mark})" if peer.says is not None else f"unnamed ({mark})"


def _left(count: int, names: tuple[str, ...]) -> str:
    if not count:
        return ""
    return f"{count} values were left alone, because no present secret opens them: {', '.join(names)}"
