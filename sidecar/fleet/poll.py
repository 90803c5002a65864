"""
Following what the fleet writes: it is read again and again, and sooner when there is news.

The rule: nobody but a task of its own waits for it, and what goes wrong with it is one line of the log, not one a
second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sidecar.core.events import TellEvent
from sidecar.tasks import Spawn

POLL_SECONDS = 1.0
"""What the fleet says is read at least this often."""

SPREAD_SECONDS = 0.05
"""Over how much the fleet's reads are spread when news comes to all at once; so one process reads no more often."""


class Following:
    """
    Calls *exchange*, which must not raise, at ``start`` and from then on until ``stop``: whenever it is nudged, and at
    most *poll*() seconds after the last time, at least half of that. *draw* gives [0, 1); the task has this *name*.
    """

    def __init__(
        self,
        exchange: Callable[[], Awaitable[object]],
        *,
        poll: Callable[[], float] = lambda: POLL_SECONDS,
        draw: Callable[[], float],
        spawn: Spawn,
        name: str,
    ) -> None:
        self._exchange = exchange
        self._poll = poll
        self._draw = draw
        self._spawn = spawn
        self._name = name
        self._nudged = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Following {self._name}{'' if self._task is not None else ', not started'}>"

    async def start(self) -> None:
        """Exchange once, and begin to follow."""
        await self._exchange()
        self._task = self._spawn(self._follow(), name=self._name)

    async def stop(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def nudge(self) -> None:
        """There may be news: exchange soon."""
        self._nudged.set()

    async def _follow(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll() * (1.0 + self._draw()) / 2):
                    await self._nudged.wait()
                    await asyncio.sleep(SPREAD_SECONDS * self._draw())
            self._nudged.clear()
            await self._exchange()


class Alarm:
    """Tells of what is wrong as *event*: once, until it is over or something else is wrong."""

    def __init__(self, tell: TellEvent, event: str) -> None:
        self._tell = tell
        self._event = event
        self._reported_fault = ""

    def __repr__(self) -> str:
        return f"<Alarm {self._event}: {self._reported_fault or 'nothing'}>"

    def ring(self, fault: str) -> None:
        """*fault* is wrong; it must quote nothing that was read."""
        if fault != self._reported_fault:
            self._reported_fault = fault
            self._tell(self._event, level="error", fault=fault)

    def bug(self, error: Exception) -> None:
        """Something was raised that nobody expected: its kind is told, for its text may quote what was read."""
        self.ring(type(error).__name__)

    def over(self) -> None:
        """All is well."""
        self._reported_fault = ""
