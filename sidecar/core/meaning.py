"""
The form of what is told about a reason.

The rule: one sentence of meaning, and one of remedy, for each reason.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Where(StrEnum):
    """Where a reason is shown, in the words of the page."""

    HIT = "hit"
    BYPASS = "not looked up"
    UNKEPT = "not kept"
    ERROR = "answered by the sidecar"


class Meaning(NamedTuple):
    """A reason: *where* it is told, what it *means*, and the *remedy*."""

    where: tuple[Where, ...]
    meaning: str
    remedy: str


HIT, BYPASS, UNKEPT, ERROR = ((where,) for where in Where)

NOTHING = "Nothing to do."
