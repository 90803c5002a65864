"""
When a process may fetch an answer although another process is already fetching it.

The rule: at most two processes fetch the answer of one key.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Beside(Enum):
    """
    Never; if the call of the other process is stuck; now, because this process's own call is stuck. ``LOOK``: only look
    whether there is an answer, and never fetch.
    """

    NEVER = b""
    STUCK = b"?"
    NOW = b"1"
    LOOK = b"0"


Asked = Callable[[], Beside]
"""Asked before each look, because it changes during a wait whether an extra attempt is left."""


def never() -> Beside:
    """The answer is always "never"."""
    return Beside.NEVER
