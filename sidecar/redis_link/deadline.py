"""
How long an answer is waited for, in a process that may have been held up itself.

The rule: an answer that has come is not given up because nobody had time to read it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

GRACE_TURNS = 4
"""
Turns of the event loop that an answer still has at its deadline. They cost nothing where there is nothing else to do;
where this process was held up, the answer has come by now, and needs them to be read.
"""

PUNCTUAL_SECONDS = 0.01
"""By how much, those turns included, a deadline may be late in a process that had time."""


class Deadline:
    """
    ``async with Deadline(seconds)``: what is waited for within is cancelled then, and ``TimeoutError`` raised.

    *punctual*: it came by itself and on time, so that the silence was not of our own making.
    """

    __slots__ = ("_cancelling", "_due", "_expired", "_handle", "_loop", "_over", "_task", "_turns", "punctual")

    _task: asyncio.Task[Any]
    _cancelling: int

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + seconds
        self._turns = GRACE_TURNS
        self._handle: asyncio.Handle = self._loop.call_at(self._due, self._ring)
        self._expired = self._over = False
        self.punctual = False

    def __repr__(self) -> str:
        return f"<Deadline at {self._due:.3f}>"

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None, "waiting is done in tasks"
        self._task, self._cancelling = task, task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        self._over = True
        # as asyncio.timeout does: who has been cancelled by others, too, is told of that
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Let it be now, unless it has been already, or is past."""
        self._handle.cancel()
        if not self._over:
            self._expired = self._over = True
            self._task.cancel()

    def _ring(self) -> None:
        if self._turns:
            self._turns -= 1
            self._handle = self._loop.call_soon(self._ring)
        else:
            self.punctual = self._loop.time() - self._due <= PUNCTUAL_SECONDS
            self.expire()
