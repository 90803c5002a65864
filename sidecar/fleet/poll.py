"""
Follows what the fleet writes: reads it again and again, and sooner when there is news.

The rule: only a task of its own waits for it. A fault that lasts is one line of the log, not one a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sidecar.core.events import TellEvent
from sidecar.tasks import Spawn

POLL_SECONDS = 1.0
"""The fleet's word is read at least this often."""

SPREAD_SECONDS = 0.05
"""
News reaches all processes at once; their reads are spread over this time. So one process reads no more often than this.
"""


class Following:
    """
    Calls *exchange*, which must not raise, at ``start`` and then until ``stop``: whenever it is nudged, and otherwise
    between half of *poll*() and *poll*() seconds after the last time. *draw* gives [0, 1); the task has this *name*.
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
        """Stop following."""
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
    """Reports a fault as *event* once, until it is over or another fault takes its place."""

    def __init__(self, tell: TellEvent, event: str) -> None:
        self._tell = tell
        self._event = event
        self._reported_fault = ""

    def __repr__(self) -> str:
        return f"<Alarm {self._event}: {self._reported_fault or 'nothing'}>"

    def ring(self, fault: str) -> None:
        """Report *fault*. Its text must quote nothing that was read."""
        if fault != self._reported_fault:
            self._reported_fault = fault
            self._tell(self._event, level="error", fault=fault)

    def bug(self, error: Exception) -> None:
        """Report an unexpected exception by its type only, because its text may quote what was read."""
        self.ring(type(error).__name__)

    def over(self) -> None:
        """The fault is over."""
        self._reported_fault = ""
