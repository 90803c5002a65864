"""
Answers that were written into a file beforehand.

The rule: callers are told that the answer is JSON, so a file that is not JSON is refused; no error quotes the file.
"""

from __future__ import annotations

from msgspec import json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.rules import KIB

LARGEST = KIB * KIB
"""The largest answer file, in bytes."""

REMEDY = "write a whole answer of the service there, as JSON"


def fault(body: bytes) -> str:
    """What is wrong with a file of these bytes; ``""`` if nothing is. The first ``LARGEST`` + 1 bytes are enough."""
    if not body:
        return "is empty"
    if len(body) > LARGEST:
        return "is larger than 1 MiB"
    try:
        json.decode(body)
    except UNREADABLE:
        return "is not JSON"
    return ""
