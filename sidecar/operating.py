"""
What those who run the sidecar can do to it: purge, and change the mode.

The rule: it takes effect in this process at once, and in the fleet as far as the fleet can be reached; what is said of
it afterwards is what happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Protocol

from sidecar.admin.actions import Fleet, ModeRequest, ModeResult, PurgeRequest, PurgeResult
from sidecar.core.model import Position
from sidecar.core.purges import Purges, Scope, ScopeKind, taking
from sidecar.core.rules import Mode
from sidecar.errors import Refused
from sidecar.flight.table import Flights
from sidecar.net.request_file import read_request
from sidecar.proxy import Proxy
from sidecar.store.memory import Memory

FLEETS_SECONDS = 30 * 86400.0
"""How long a mode holds in the fleet where its end is not said."""


class Log(Protocol):
    """The fleet's log; ``fleet/purge_log.PurgeLog``."""

    async def purge(self, scopes: Iterable[Scope]) -> Position | None:
        """Purge here at once, and everywhere."""

    async def set_mode(self, mode: Mode | None, until: float = 0.0) -> bool:
        """Set the fleet's mode."""


class Operations:
    """
    The actions. *mode* is the configuration's; *forget* has the listener judge requests anew; *now* is wall-clock
    seconds. *log* is None where there is no fleet.
    """

    def __init__(
        self,
        mode: Mode,
        proxy: Proxy,
        memory: Memory,
        flights: Flights,
        purges: Purges,
        *,
        forget: Callable[[], None],
        now: Callable[[], float],
        port: Callable[[], int],
    ) -> None:
        self._configured = self._mode = mode
        self._proxy = proxy
        self._memory = memory
        self._flights = flights
        self._purges = purges
        self._forget = forget
        self._now = now
        self._port = port
        self._own: tuple[Mode, float] | None = None
        self._fleets: Mode | None = None
        self._sweeping = False
        self.log: Log | None = None
        self.purged = 0

    def __repr__(self) -> str:
        return f"<Operations mode {self._mode}, {self.purged} purges>"

    @property
    def mode(self) -> Mode:
        """The mode in force."""
        return self._mode

    def standing(self) -> ModeResult:
        """The mode in force, and for how long yet."""
        own = None if self._fleets else self._own
        left = None if own is None or own[1] == inf else max(own[1] - self._now(), 0.0)
        return ModeResult(self._mode, left, "local" if self._fleets is None else "done")

    def take(self, scopes: tuple[Scope, ...]) -> None:
        """Carry out a purge in this process, whoever asked for it: in memory, and among what is on its way."""
        self.purged += len(scopes)
        self._flights.detach(scopes)
        self._sweeping = self._memory.purge(scopes)

    def take_mode(self, mode: Mode | None) -> None:
        """The fleet's mode has changed; None: it has none."""
        self._fleets = mode
        self.tick()

    def tick(self) -> None:
        """What is due: a purge's next step, the end of a mode. Called every second or so."""
        if self._own is not None and self._own[1] <= self._now():
            self._own = None
        mode = self._fleets or (self._own[0] if self._own is not None else self._configured)
        if mode is not self._mode:
            self._mode = mode
            self._proxy.switch(mode)
            self._forget()

    async def sweep(self) -> None:
        """Go on with a purge that has more to do than it could in one go."""
        while self._sweeping:
            self._sweeping = self._memory.purge_on()
            await asyncio.sleep(0)

    async def purge(self, asked: PurgeRequest) -> PurgeResult:
        """See ``ControlServer``."""
        scope = self._scope(asked)
        entries = await self._count(scope)
        if asked.dry_run:
            return PurgeResult(entries, "", "local")
        if self.log is None or not asked.fleet:
            self._purges.apply((scope,), pending=False)
            self.take((scope,))
            await self.sweep()
            return PurgeResult(entries, "", "local")
        position = await self.log.purge((scope,))
        await self.sweep()
        if position is None:
            return PurgeResult(entries, "", "pending")
        return PurgeResult(entries, f"{position.incarnation.hex()}:{position.number}", "done")

    async def change(self, asked: ModeRequest) -> ModeResult:
        """See ``ControlServer``. The configuration's own mode ends what was said before."""
        mode = None if asked.mode is self._configured and asked.seconds is None else asked.mode
        until = inf if asked.seconds is None else self._now() + asked.seconds
        fleet: Fleet = "local"
        if self.log is not None and asked.fleet:
            fleet = "done" if await self.log.set_mode(mode, min(until, self._now() + FLEETS_SECONDS)) else "pending"
        if fleet == "pending":
            raise Refused(
                503,
                "fleet-away",
                "Redis does not answer, so the fleet may not have heard of it; look with `sidecar mode`, and try again",
            )
        if mode is None:
            self._own = None
        elif fleet == "local":
            self._own = mode, until
        self.tick()
        return ModeResult(self._mode, asked.seconds, fleet)

    def _scope(self, asked: PurgeRequest) -> Scope:
        if asked.scope == "request":
            return self._scope_of_request(asked.request)
        if asked.scope == "request-id":
            key = self._proxy.ids.key(asked.value)
            if key is None:
                raise Refused(
                    404,
                    "unknown-id",
                    "this process has not answered that call lately, or not from a key; ids are known to the process "
                    "that gave them, for its last few thousand calls",
                )
            return Scope(ScopeKind.KEY, key.address.hex())
        return Scope(ScopeKind(asked.scope), asked.value)

    def _scope_of_request(self, raw: bytes) -> Scope:
        head, body = read_request(raw, self._port())
        if head is None:
            raise Refused(400, "no-request", "the file holds no HTTP request: a request line, fields, an empty line")
        key = self._proxy.key_of(head, body)
        if key is None:
            raise Refused(400, "no-key", "this request is never looked up, so it has no entry; see `sidecar explain`")
        return Scope(ScopeKind.KEY, key.address.hex())

    async def _count(self, scope: Scope) -> int:
        taken, found = taking((scope,)), 0
        for entries in self._memory.walk():
            found += sum(taken(key, entry) for key, entry in entries)
            await asyncio.sleep(0)
        return found
