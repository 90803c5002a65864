"""
Finds header fields that make nearly every key of a route unique, so that nothing is ever a hit.

The rule: only recent calls are looked at, with a few names each; no value is kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.core.model import Pairs

WINDOW = 64
"""The number of different heads of a route that are looked at together."""

NEARLY = 58
"""With so many different values among them, a field counts as different each time."""

MOST_NAMES = 64
"""The most names that are looked at in one window."""

MOST_ROUTES = 1024


class Splits:
    """The fields that split keys, by route."""

    __slots__ = ("_found", "_heads", "_values")

    def __init__(self) -> None:
        self._heads: dict[str, int] = {}
        self._values: dict[str, dict[bytes, set[int]]] = {}
        self._found: dict[str, tuple[str, ...]] = {}

    def __repr__(self) -> str:
        return f"<Splits on {len(self._found)} routes>"

    @property
    def found(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the fields that had another value on nearly every head of the last window, by route."""
        return self._found

    def note(self, route: str, counted: Pairs) -> None:
        """Note the fields that count of a new head of *route*."""
        if route not in self._heads and len(self._heads) >= MOST_ROUTES:
            return
        values = self._values.setdefault(route, {})
        for name, value in counted:
            if name in values or len(values) < MOST_NAMES:
                values.setdefault(name, set()).add(hash(value))
        heads = self._heads[route] = self._heads.get(route, 0) + 1
        if heads < WINDOW:
            return
        names = tuple(sorted(name.decode("latin-1")[:64] for name, seen in values.items() if len(seen) >= NEARLY))
        if names:
            self._found[route] = names
        else:
            self._found.pop(route, None)
        self._heads[route] = 0
        values.clear()
