"""
Every task of the process, and the work on large answers that is done in a thread.

The rule: nothing else makes tasks, or decides what is large. A task without a reference may be collected while it runs,
and its exception lost. Long work in the event loop delays every other call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

SCANNED_IN_LOOP = 256 * 1024
"""
Bytes that the event loop reads through itself: to seal, to open, to judge, or to see where JSON ends. This takes 4 ms
at the most, for a stream of small events, and mostly 0.1 ms. Handing work to a thread takes 0.04 ms.
"""

CONVERTED_IN_LOOP = 64 * 1024
"""Bytes that the event loop converts itself. A stream that becomes a whole answer takes 2 ms for these."""

P = ParamSpec("P")
T = TypeVar("T")


class Spawn(Protocol):
    """Starts *work* in a task that its owner holds and waits for at the end; ``Tasks.spawn`` does."""

    def __call__(self, work: Coroutine[Any, Any, None], /, *, name: str) -> asyncio.Task[None]:
        """Start *work* in a task named *name*."""


class Tasks:
    """Owns tasks while they run; *report* hears of what they raise."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._report = report

    def __repr__(self) -> str:
        return f"<Tasks {len(self._tasks)} running>"

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run *work* in a task of its own."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self, name: str = "") -> None:
        """Cancel what still runs, or what of it has this *name*, and wait for it."""
        tasks = [task for task in self._tasks if not name or task.get_name() == name]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report(error)


async def in_thread_if_large(size: int, most: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of *work* on *size* bytes: in the event loop up to *most* bytes, in a thread beyond."""
    if size <= most:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)  # noqa: TID251  elsewhere it is banned in favour of this
