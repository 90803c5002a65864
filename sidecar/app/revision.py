"""
A configuration in use, and what is known of a later one.

The rule: it is frozen and stands in one slot (``wiring.Parts.revision``). A request does not look there: its plan holds
what it needs, so it finishes by the rules with which it began.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.rules import Rules
from sidecar.settings.difference import SettingChange


class Revision(Struct, frozen=True):
    """
    The *rules* in use, and when they were accepted, seconds since the epoch (0 for never). *waiting* are the keys whose
    new values wait for a restart; *refused* says why a later configuration is not used, ``""`` if there is none.
    """

    rules: Rules
    loaded_at: float
    waiting: tuple[SettingChange, ...] = ()
    refused: str = ""
