"""
What the answers of our scripts look like, judged where they are read.

The rule: an answer of another shape is a fault of the way to Redis, never of the call that met it, and nothing of it is
quoted. Who reads an answer relies on what is checked here and on nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from sidecar.errors import FleetAway

_DIGITS = re.compile(rb"[0-9]{1,18}").fullmatch


def misshapen() -> FleetAway:
    """To be raised for an answer that is none of those that can be; the link counts it against Redis."""
    return FleetAway("malformed", "the answer is none of the command's; is it Redis that answers?")


def one_of(*numbers: int) -> Callable[[Any], int]:
    """What reads an answer that is one of *numbers*."""

    def read(reply: Any) -> int:
        if type(reply) is not int or reply not in numbers:
            raise misshapen()
        return reply

    return read


def number(text: Any) -> int:
    """What decimal digits say. Raises ``FleetAway`` for anything else."""
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
    """What reads an answer that is places in a list of at most *most*, in their order."""

    def read(reply: Any) -> list[int]:
        if type(reply) is not list or any(type(item) is not int or not 0 <= item < most for item in reply):
            raise misshapen()
        if any(later <= earlier for earlier, later in pairwise(reply)):
            raise misshapen()
        return reply

    return read
