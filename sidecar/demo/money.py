"""
Simulated money: what the demo's calls would cost at list prices.

The rule: nobody is billed, and every text that shows these numbers says so. The table is small, for the demo's models
only, and is not kept current. Amounts are integer nano-dollars, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

NANO = 1_000_000_000


class Price(Struct, frozen=True):
    """Nano-dollars for each token read and each token written."""

    prompt: int
    completion: int


PRICES: Mapping[str, Price] = MappingProxyType({
    "gpt-4o": Price(2_500, 10_000),
    "gpt-4o-mini": Price(150, 600),
    "text-embedding-3-small": Price(20, 0),
    "claude-sonnet-5-5": Price(2_000, 10_000),
})  # fmt: skip
"""Public list prices of the services; 1 dollar for a million tokens is 1000 nano-dollars for one."""

_FREE = Price(0, 0)

PAGE_PRICES: Mapping[str, int] = MappingProxyType({
    "prebuilt-read": 1_500_000,
    "prebuilt-layout": 10_000_000,
    "prebuilt-document": 10_000_000,
    "prebuilt-invoice": 10_000_000,
    "prebuilt-receipt": 10_000_000,
    "vision-read": 1_500_000,
    "content-understanding": 5_000_000,
    "language": 1_000_000,
})  # fmt: skip
"""Nano-dollars for each page that a model of the document services reads, or for each text record."""

CUSTOM_PAGE = 30_000_000
"""The price of a page where the model is the customer's own."""


def cost(model: str, *, prompt: int, completion: int) -> int:
    """Nano-dollars for a call of *model* with so many tokens; 0 for a model without a price."""
    price = PRICES.get(model, _FREE)
    return prompt * price.prompt + completion * price.completion


def page_cost(model: str, pages: int) -> int:
    """Nano-dollars for so many pages, read by *model*."""
    return PAGE_PRICES.get(model, CUSTOM_PAGE) * pages


def dollars(amount: int) -> str:
    """*amount* nano-dollars, for people: to a hundredth of a cent."""
    return f"${amount / NANO:.4f}"
