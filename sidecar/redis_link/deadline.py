"""
A deadline for an answer, in a process that may have been held up itself.

The rule: an answer that has arrived is not given up only because this process had no time to read it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

GRACE_TURNS = 4
"""
Turns of the event loop that an answer still gets at its deadline. They cost nothing if there is nothing else to do. If
this process was held up, the answer has arrived by now and needs these turns to be read.
"""

PUNCTUAL_SECONDS = 0.01
"""How late a deadline may be, with these turns, in a process that had time."""


class Deadline:
    """
    ``async with Deadline(seconds)``: cancels what is waited for after *seconds*, and raises ``TimeoutError``.

    *punctual*: the deadline came on time by itself, so this process did not cause the silence.
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
        # As in asyncio.timeout: if others have cancelled the task, too, it is told so.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Expire now, unless it has expired or is over."""
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
