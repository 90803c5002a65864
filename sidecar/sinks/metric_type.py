"""
What a metric is: its name, labels and buckets.

The rule: this file names no metric; ``table`` does.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "sidecar_"

DURATIONS = (0.005, 0.05, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 180.0, 600.0)
"""
Buckets in seconds, 14 with the one for infinity: short ones for memory and the fleet, then doubled up to the first-byte
timeout, so that a quantile of a model's time is known within a factor of two.
"""

OVERHEADS = (0.0005, 0.001, 0.01, 0.1)
"""Buckets in seconds for what we add ourselves."""

LATENCIES = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25)
"""Buckets in seconds for Redis; its usual deadline is among them."""


@dataclass(frozen=True, slots=True)
class Metric:
    """
    A line of the reference. *question* is what its reader wants to know; *buckets* are a histogram's bounds.

    *yields*: the labels in the order in which they become ``other`` where there is no room for a series; if empty, in
    the order of *labels*. *closed*: every value of the one label; all of them are reserved.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    question: str
    buckets: tuple[float, ...] = ()
    yields: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Series for each set of labels: a histogram has its buckets, one for infinity, the sum and the count."""
        return len(self.buckets) + 3 if self.buckets else 1
