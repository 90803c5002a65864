"""
The reading side of a connection: whether its client may go on sending.

The rule: a fast sender takes no turn of the event loop from others, and bytes that cannot be used yet stay with their
sender.
"""

from __future__ import annotations

import asyncio

BREATH = 128 * 1024
"""After so many bytes of one connection the others have a turn. libuv reads on as long as a sender is fast."""


class FlowControl:
    """*held*: the sender must wait. *reading*: the transport reads; it is neither held nor giving others a turn."""

    __slots__ = ("_breathing", "_taken", "_transport", "held", "reading")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.held = False
        self._breathing = False
        self._taken = 0
        self.reading = True

    def __repr__(self) -> str:
        return f"<FlowControl{' held' if self.held else ''}{' breathing' if self._breathing else ''}>"

    def hold(self, held: bool) -> None:  # noqa: FBT001 - the state itself, worked out by the caller
        """Set whether the sender must wait."""
        if held != self.held:
            self.held = held
            self._set()

    def took(self, size: int) -> None:
        """*size* bytes have been read: if they are many, give other connections a turn."""
        self._taken += size
        if self._taken > BREATH and self.reading and not self._transport.is_closing():
            self._taken = 0
            self._breathing = True
            self._set()
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        self._breathing = False
        self._set()

    def _set(self) -> None:
        reading = not (self.held or self._breathing)
        if reading != self.reading and not self._transport.is_closing():
            self.reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
