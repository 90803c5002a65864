"""
Checks the form of our scripts' answers where they are read.

The rule: an answer of another form is a fault of the way to Redis, never of the call that met it, and is not quoted.
Code that reads an answer relies only on what is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from sidecar.errors import FleetAway

_DIGITS = re.compile(rb"[0-9]{1,18}").fullmatch


def misshapen() -> FleetAway:
    """The error for an impossible answer; the link counts it against Redis."""
    return FleetAway("malformed", "the reply does not fit the command; is this a Redis?")


def one_of(*numbers: int) -> Callable[[Any], int]:
    """A reader of answers that are one of *numbers*."""

    def read(reply: Any) -> int:
        if type(reply) is not int or reply not in numbers:
            raise misshapen()
        return reply

    return read


def number(text: Any) -> int:
    """The number in decimal digits. Raises ``FleetAway`` for anything else."""
    if type(text) is not bytes or not _DIGITS(text):
        raise misshapen()
    return int(text)


def pairs(reply: Any) -> list[bytes]:
    """Members and their scores, one after the other. Raises ``FleetAway`` for anything else."""
    if type(reply) is not list or len(reply) % 2 or any(type(item) is not bytes for item in reply):
        raise misshapen()
    return reply


def texts(reply: Any) -> list[bytes]:
    """Any number of texts. Raises ``FleetAway`` for anything else."""
    if type(reply) is not list or any(type(item) is not bytes for item in reply):
        raise misshapen()
    return reply


def places(most: int) -> Callable[[Any], list[int]]:
    """A reader of answers that are places in a list of at most *most*, in their order."""

    def read(reply: Any) -> list[int]:
        if type(reply) is not list or any(type(item) is not int or not 0 <= item < most for item in reply):
            raise misshapen()
        if any(later <= earlier for earlier, later in pairwise(reply)):
            raise misshapen()
        return reply

    return read
