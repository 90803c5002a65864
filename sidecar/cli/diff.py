"""
``sidecar diff``: what a change of rules changes, and which routes' answers it takes away or brings back.

The rule: it changes nothing. A running sidecar is asked only how many entries it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.rules import Rules
from sidecar.settings.difference import Effect, as_entries, changes, effects, summary
from sidecar.settings.restart import waiting


def diff(before: Rules, after: Rules, entries: Mapping[str, int] | None) -> str:
    """The difference, for people; *entries* are those of a running sidecar by route, None if none was asked."""
    found = changes(before, after)
    lines = [summary(before, after)]
    if found:
        lines += ["", "changed", *(f"  {change}" for change in found)]
    if meaning := effects(before, after):
        lines += ["", "stored answers"]
        lines += [f"  {effect}{_counted(effect, entries)}" for effect in meaning]
    if waits := waiting(before, after):
        lines += ["", "waits for a restart", *(f"  {change}" for change in waits)]
    return "\n".join(lines)


def _counted(effect: Effect, entries: Mapping[str, int] | None) -> str:
    return "" if entries is None else f" ({as_entries(entries.get(effect.route, 0), whole=effect.whole)} here)"
