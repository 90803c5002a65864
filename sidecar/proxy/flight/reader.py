"""
One caller as a reader of a flight: it waits for the answer's head, and then for its bytes.

The rule: whoever makes a reader calls ``leave``, in a ``finally``.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.draft import Draft
from sidecar.core.model import Fields
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.flight.flight import Flight, Stage
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.seat import Seat, changed

_NO_FIELDS: Fields = {}


class Reader(Seat):
    """Reads *flight* from its first byte. For the other arguments see ``Seat``."""

    __slots__ = ("flight",)

    def __init__(
        self,
        flight: Flight,
        credential: bytes = b"",
        draft: Draft | None = None,
        question: Callable[[], bytes] = bytes,
        fields: Fields = _NO_FIELDS,
    ) -> None:
        super().__init__(credential, draft, question, fields)
        self.flight = flight
        flight.add(self)

    async def opening(self) -> Opening | None:
        """
        Wait for the answer's head; None if the answer is not for this caller, which must then make its own call. Raises
        the flight's error.
        """
        flight = self.flight
        while flight.opening is None or self.released:
            if self.released:
                return None
            if flight.error is not None:
                raise flight.error
            await changed(self)
        return flight.opening

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end. Raises the flight's error if it broke."""
        flight = self.flight
        while True:
            chunk = flight.take(self)
            if chunk:
                return chunk
            if flight.error is not None:
                raise flight.error
            if flight.stage is Stage.DONE:
                return b""
            if self.released:
                raise UpstreamFailed(Cause.INTERNAL, "read on after being released")
            await changed(self)

    async def whole(self) -> bytes | None:
        """
        Wait for all content of the body, and return it; None if it is too large to be kept whole. Raises the flight's
        error. This does not change what ``read`` returns.
        """
        flight = self.flight
        while not (flight.over or flight.complete or flight.windowed):
            await changed(self)
        if flight.windowed:
            return None
        if flight.error is not None:
            raise flight.error
        return flight.body()

    @property
    def satisfied(self) -> bool:
        """Whether it has received the answer's last event; then it may leave before the last byte."""
        return self.flight.complete and not self.flight.ahead(self)

    @property
    def owes(self) -> bool:
        """Whether a call that still runs, or is being cancelled, is still booked to this reader."""
        flight = self.flight
        booked = self.draft is not None and self.draft is flight.draft and not flight.settled
        return booked and flight.task is not None and not flight.task.done()

    def leave(self) -> None:
        """Stop reading. May be called twice."""
        self.flight.remove(self)
