"""
What a flight knows of one of its readers, and how it wakes it.

The rule: only the flight changes a seat, apart from the draft and the future that its caller waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.core.draft import Draft
from sidecar.core.model import Fields


class Seat:
    """
    One caller. *credential* and *question* (all that it asks) tell which answers are for it; *fields* are those of its
    request. The call's cost may be booked in its *draft*.

    *owner*: the request that was sent is this caller's own. *released*: the answer is not for this caller; *together*:
    one answer of another call may be for all that were released with it. *stays*: it outlives the call, because the
    caller asks for the rest by an operation's id. *at*: chunks that it has received. *waiter* is
    set while it waits for a change.
    """

    __slots__ = ("at", "credential", "draft", "fields", "owner", "question", "released", "stays", "together", "waiter")

    def __init__(self, credential: bytes, draft: Draft | None, question: Callable[[], bytes], fields: Fields) -> None:
        self.credential = credential
        self.draft = draft
        self.question = question
        self.fields = fields
        self.owner = self.released = self.together = self.stays = False
        self.at = 0
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Something has changed."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


async def changed(*seats: Seat) -> None:
    """Wait until something changes in a flight of *seats*, which all belong to one caller."""
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    for seat in seats:
        seat.waiter = waiter
    try:
        await waiter
    finally:
        for seat in seats:
            seat.waiter = None
