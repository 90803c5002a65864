"""
Hands each record to all who want it.

The rule: a record is told once, to every sink in the same order, and no sink knows another.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.model import Record


class Records:
    """Tells *sinks* of each record; a sink must not raise."""

    __slots__ = ("_sinks",)

    def __init__(self, *sinks: Callable[[Record], None]) -> None:
        self._sinks = sinks

    def __repr__(self) -> str:
        return f"<Records for {len(self._sinks)} sinks>"

    def tell(self, record: Record) -> None:
        """Tell of *record*."""
        for sink in self._sinks:
            sink(record)
