"""
A request body that is still arriving, and may have to be sent again.

The rule: the bytes that were sent are kept while they are few and memory has room. After that the body can be sent only
once, because its beginning is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from sidecar.core.memory_budget import Ledger
from sidecar.net.base import Stream

KEPT_FOR_RESEND = 256 * 1024
"""Bytes of a streaming body that are kept until the commit point, so that the call can be sent again."""


class Rewindable:
    """
    A streaming body that can be sent again as long as few of its bytes were read. *stream* must be readable again after
    one of its reads was cancelled.

    *spent*: more was read than can be kept, so it cannot be sent again. *ended*: all of it has been read.
    """

    def __init__(self, stream: Stream, ledger: Ledger) -> None:
        self.size = stream.size
        self.spent = False
        self.ended = False
        self._ledger = ledger
        self._rest = stream.chunks()
        self._kept: list[bytes] = []
        self._held = 0
        self._begun = False

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start. If the start is no longer kept, reading raises ``RuntimeError``."""
        # copy it now: the head of an early answer drops it during a resend, or before the resend's first byte
        return self._read(tuple(self._kept), whole=not (self.spent and self._begun))

    async def _read(self, kept: tuple[bytes, ...], *, whole: bool) -> AsyncIterator[bytes]:
        if not whole:
            raise RuntimeError("the beginning of this body is gone: it was to be sent once")
        for chunk in kept:
            yield chunk
        async for chunk in self._rest:
            self._keep(chunk)
            yield chunk
        self.ended = True

    def _keep(self, chunk: bytes) -> None:
        self._begun = True
        if self.spent:
            return
        if self._held + len(chunk) > KEPT_FOR_RESEND or not self._ledger.take(len(chunk)):
            self.forget()
        else:
            self._held += len(chunk)
            self._kept.append(chunk)

    def forget(self) -> None:
        """Drop the kept bytes: from now on the body cannot be sent again."""
        self.spent = True
        self._kept.clear()
        self._ledger.give(self._held)
        self._held = 0
