"""
Answers that were written beforehand, into a file.

The rule: callers are told that an answer is JSON, so what isn't is none; and nothing of it is ever told.
"""

from __future__ import annotations

from msgspec import json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.rules import KIB

LARGEST = KIB * KIB
"""Bytes of an answer's file."""

REMEDY = "write a whole answer of the service there, as JSON"


def fault(body: bytes) -> str:
    """What is wrong with a file of these bytes, ``""`` for nothing. Its first ``LARGEST`` + 1 are enough to tell."""
    if not body:
        return "is empty"
    if len(body) > LARGEST:
        return "is larger than 1 MiB"
    try:
        json.decode(body)
    except UNREADABLE:
        return "is not JSON"
    return ""
