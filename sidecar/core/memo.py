"""
A small memory of results.

The rule: keys are compared whole, never by a hash alone, and values are pure functions of their keys; so forgetting one
costs only time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """
    At most *entries* values and *weight* units, which the owner defines; the oldest are dropped first.

    ``get`` is the dict's own method, because memory hits use it.
    """

    __slots__ = ("_entries", "_limit", "_values", "_weight", "_weights", "get")

    def __init__(self, entries: int, weight: int = 0) -> None:
        self._values: OrderedDict[K, V] = (
            OrderedDict()
        )  # finding the oldest key of a plain dict takes longer and longer
        self._weights: dict[K, int] = {}
        self._entries = entries
        self._limit = weight
        self._weight = 0
        self.get = self._values.get

    def __repr__(self) -> str:
        return f"<Memo {len(self._values)} values, weight {self._weight}>"

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Remember *value*, unless it alone is heavier than an eighth of the limit."""
        if weight * 8 > self._limit and weight:
            return
        if key in self._values:
            del self._values[key]
            self._weight -= self._weights.pop(key, 0)
        self._values[key] = value
        if weight:
            self._weights[key] = weight
            self._weight += weight
        while len(self._values) > self._entries or self._weight > self._limit:
            oldest, _ = self._values.popitem(last=False)
            self._weight -= self._weights.pop(oldest, 0)
