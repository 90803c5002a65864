"""
The form in which parts tell what happened to the process.

The rule: a description only. A part that has something to tell takes such a function as an argument.
"""

from __future__ import annotations

from typing import Protocol


class TellEvent(Protocol):
    """Keeps a line about the process; ``sinks/log.AccessLog.event`` does."""

    def __call__(self, name: str, /, *, level: str = "info", **fields: str | float | None) -> None:
        """Keep the line *name*, a short stable word, with its *fields*."""
