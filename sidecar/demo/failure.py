"""
How the stand-in provider fails when told to.

The rule: the number of a call decides whether it fails, and nothing else does. So a test fails the same way each time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import floor


class FailureMode(StrEnum):
    """
    The ways to fail. ``RESET``: the connection dies without an answer. ``TRUNCATE``: it dies in the middle of the
    body. ``SLOW``: the head comes late, but right. ``STREAM_ERROR``: a stream reports an error of its own and ends;
    a whole answer is a 500.
    """

    ERROR = "500"
    UNAVAILABLE = "503"
    OVERLOADED = "529"
    RATE_LIMIT = "429"
    RESET = "reset"
    TRUNCATE = "truncate"
    STREAM_ERROR = "stream-error"
    SLOW = "slow"

    @property
    def status(self) -> int | None:
        """The status of the error answer; None if the call fails in another way."""
        return int(self) if self.isdigit() else None


@dataclass(frozen=True, slots=True)
class Failure:
    """
    Calls that fail: the share *rate* of them (0 to 1), evenly spread. *retry_after* is what a 429 or 503 asks for,
    *seconds* how late a slow answer is.
    """

    mode: FailureMode = FailureMode.ERROR
    rate: float = 1.0
    retry_after: int = 1
    seconds: float = 30.0

    def strikes(self, number: int) -> bool:
        """Whether the call with this number, counted from 1, fails."""
        return floor(number * self.rate) > floor((number - 1) * self.rate)
