"""
What an operator can order about a region, in words.

The rule: a word says what happens to the traffic, not to the breaker, because a breaker's ``open`` reads like the
opposite.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STOP = "stop"
"""No calls go there."""

FORCE = "force"
"""Calls go there whatever happens."""

AUTO = "auto"
"""The region's breaker judges again."""

FORMER: Mapping[str, str] = MappingProxyType({"open": STOP, "close": FORCE})
"""What the last version called them. These words are understood until the next version."""
