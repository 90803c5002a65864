"""
Waiting for the end of a flight that follows an operation, as long as a poll may be held.

The rule: what the flight has brought is taken before its reader leaves.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from sidecar.core.http.headers import patience
from sidecar.net.base import Request
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.flight.seat import changed

HELD_SECONDS = 4.0
"""How long a poll is held, at most: some HTTP clients wait 5 s for an answer, unless they are told otherwise."""


class Ended(NamedTuple):
    """What a flight has brought. *body* is None where it is too large to be kept; *result* where there is none."""

    body: bytes | None
    result: Opening | None


async def end_of(flight: Flight, request: Request) -> Ended | None:
    """
    What *flight* has brought, once it ends or outgrows what is kept; None if the caller should hear something before.
    It is taken before the reader leaves: the last one takes the flight's bytes along.
    """
    seconds = patience(request.head.fields)
    reader = Reader(flight)
    try:
        async with asyncio.timeout(HELD_SECONDS if seconds is None else min(HELD_SECONDS, seconds / 2)):
            while not (flight.over or flight.windowed):
                await changed(reader)
        return Ended(flight.body(), flight.result)
    except TimeoutError:
        return None
    finally:
        reader.leave()
