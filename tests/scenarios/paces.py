"""What is usual for a route, told to labs that have not seen any traffic."""

from __future__ import annotations

from tests.scenarios.conftest import Lab

PACE = 0.1

MARKED = b"box 1000?"


def know_the_pace(lab: Lab) -> None:
    """Have *lab* know that calls take no longer than ``PACE`` seconds."""
    for streaming in (False, True):
        for _ in range(256):
            lab.sidecar.dispatch.paces.note("cached", PACE, streaming=streaming)
