"""
``sidecar diff``: what a change of rules changes, and which routes' answers it takes away or brings back.

The rule: it changes nothing. A running sidecar is asked only how many entries it holds.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.rules import Rules
from sidecar.settings.difference import changes, effects, summary
from sidecar.settings.restart import waiting


def diff(before: Rules, after: Rules, entries: Mapping[str, int] | None) -> str:
    """The difference, for people; *entries* are those of a running sidecar by route, None if none was asked."""
    found = changes(before, after)
    lines = [summary(before, after)]
    if found:
        lines += ["", "changed", *(f"  {change}" for change in found)]
    if meaning := effects(before, after):
        lines += ["", "stored answers"]
        lines += [f"  {effect}{_counted(effect.route, entries)}" for effect in meaning]
    if waits := waiting(before, after):
        lines += ["", "waits for a restart", *(f"  {change}" for change in waits)]
    return "\n".join(lines)


def _counted(route: str, entries: Mapping[str, int] | None) -> str:
    if entries is None:
        return ""
    count = entries.get(route, 0)
    return f" ({count} {'entry' if count == 1 else 'entries'} here)"
