"""
Which regions may take a call, and in which order they are asked.

The rule: a caller's own credential stays in its domain, whatever else fails. Ordering neither adds nor drops regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import log1p

from msgspec import Struct

from sidecar.core.rules import Region


class Candidate(Struct, frozen=True, gc=False):
    """A region that may take a call. *own*: the caller's own credential is sent."""

    region: Region
    own: bool


def eligible(regions: Sequence[Region], allow: frozenset[str]) -> tuple[Candidate, ...]:
    """
    The candidates among a service's *regions*, in their listed order. *allow*: tags of residency, one of which a region
    must have; if empty, any region.

    A caller's credential belongs to one domain: that of the first region, by priority and then as listed, without a
    credential of its own. Regions of other domains without a credential of their own cannot be asked. *allow* does not
    change the domain; otherwise it would send a credential to where it was never valid.
    """
    first = min((region for region in regions if region.credential is None), key=_priority, default=None)
    home = None if first is None else first.credential_domain
    return tuple(
        Candidate(region, own=region.credential is None)
        for region in regions
        if (not allow or region.residency in allow)
        and (region.credential is not None or region.credential_domain == home)
    )


def arrange(
    candidates: tuple[Candidate, ...],
    *,
    balance: str,
    draws: Sequence[float],
    latency: Callable[[Region], float | None],
) -> tuple[Candidate, ...]:
    """
    *candidates* in the order in which they are asked: the lowest priority number first, and within one priority drawn
    by weight without replacement; those of weight 0 come last. *draws*: a number in [0, 1) for each.

    If *balance* is ``latency``, the quicker of the first two drawn goes first (power of two choices, Mitzenmacher
    2001). *latency* gives seconds; None for a region that was not asked lately, which then goes first to be measured.
    """
    if len(candidates) < 2:
        return candidates
    drawn = sorted(zip(candidates, draws, strict=True), key=_place)
    if balance != "latency":
        return tuple(candidate for candidate, _ in drawn)
    arranged: list[Candidate] = []
    for _, group in groupby((candidate for candidate, _ in drawn), key=lambda candidate: candidate.region.priority):
        first, *others = group
        if others and others[0].region.weight and _seconds(latency, others[0]) < _seconds(latency, first):
            first, others[0] = others[0], first
        arranged += (first, *others)
    return tuple(arranged)


def _place(drawn: tuple[Candidate, float]) -> tuple[int, bool, float]:
    """Exponential variates with the weights as their rates come in weighted order (Efraimidis and Spirakis 2006)."""
    candidate, draw = drawn
    region = candidate.region
    return region.priority, region.weight == 0, -log1p(-draw) / (region.weight or 1)


def _seconds(latency: Callable[[Region], float | None], candidate: Candidate) -> float:
    return latency(candidate.region) or 0.0


def _priority(region: Region) -> int:
    return region.priority
