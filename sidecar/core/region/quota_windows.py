"""
Rate windows: where a quota is spent, and until when.

The rule: a window is about one place: a service's region, deployment and credential. It is never about the whole
region, which has room for others. It only advises: the last candidate is called in spite of it.

Times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from msgspec import Struct


class Window(Struct, frozen=True, gc=False):
    """No room before *until*. *exhausted*: the credential itself is spent, not only its share of a minute."""

    until: float
    exhausted: bool = False


class Windows:
    """
    The windows by place, at most *limit*; those opened longest ago are dropped first. A forgotten window costs one
    refused call, which opens it again.
    """

    __slots__ = ("_limit", "_windows")

    def __init__(self, limit: int = 4096) -> None:
        self._windows: OrderedDict[Hashable, Window] = OrderedDict()
        self._limit = limit

    def __repr__(self) -> str:
        return f"<Windows {len(self._windows)} of {self._limit}>"

    def __len__(self) -> int:
        return len(self._windows)

    def open(self, place: Hashable, until: float, *, exhausted: bool = False) -> bool:
        """
        There is no room at *place* before *until*. Returns whether that is news: there was no window.

        Of two windows the longer one holds, because calls sent together are told different waits. A window that is over
        still counts until ``until`` notices it.
        """
        known = self._windows.pop(place, None)
        longer = known if known is not None and known.until > until else Window(until, exhausted)
        self._windows[place] = longer
        if len(self._windows) > self._limit:
            self._windows.popitem(last=False)
        return known is None

    def until(self, place: Hashable, now: float) -> float:
        """When the window at *place* ends; 0.0 if there is none."""
        if not self._windows:
            return 0.0
        window = self._windows.get(place)
        if window is None:
            return 0.0
        if window.until <= now:
            del self._windows[place]
            return 0.0
        return window.until

    def drop(self, is_gone: Callable[[Hashable], bool]) -> None:
        """Forget the windows of all places that are gone."""
        for place in [place for place in self._windows if is_gone(place)]:
            del self._windows[place]

    def good(self, place: Hashable) -> None:
        """An answer came from *place*: there is room again."""
        if self._windows:
            self._windows.pop(place, None)

    def places(self, now: float) -> list[Hashable]:
        """The places with windows."""
        return [place for place, window in self._windows.items() if window.until > now]

    def among(self, prefix: tuple[Hashable, ...], now: float) -> list[Window]:
        """The windows of the places, all tuples, that begin with *prefix*, without those that are over."""
        size = len(prefix)
        return [
            window
            for place, window in self._windows.items()
            if window.until > now and isinstance(place, tuple) and place[:size] == prefix
        ]
