"""
When a process fetches an answer beside another that fetches it already.

The rule: of one key there are two who do, at most.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Beside(Enum):
    """
    Never; where the call of the other is stuck; now, since it is this process's own call that is stuck. ``LOOK``: it
    only looks whether there is an answer, and fetches in no case.
    """

    NEVER = b""
    STUCK = b"?"
    NOW = b"1"
    LOOK = b"0"


Asked = Callable[[], Beside]
"""Asked before each look: whether there is an extra attempt left changes while a process waits."""


def never() -> Beside:
    """At no time."""
    return Beside.NEVER
