"""
The rows about calls: hits against nginx, misses against a bare relay.

The rule: a row of hits proves that they were hits: the provider's count stands still while it is measured.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from tests.bench import bodies
from tests.bench.lab import Lab, Missing, Pace, Row, Side, alternate, spread
from tests.bench.load import Caller, marked
from tests.bench.machine import Process

_CONNECTIONS = 16


def hits_64(lab: Lab, pace: Pace) -> list[Row]:
    """Memory hits, 64 byte-different bodies of one meaning; nginx gets the same ones and keeps 64 entries."""
    return [
        _hits(
            lab, pace, "hits-64", "hits/s of a core: 2 KB, 64 variants, 16 conn.", bodies.variants(), bar=1.0, goal=1.2
        )
    ]


def hits_unique(lab: Lab, pace: Pace) -> list[Row]:
    """Memory hits where every body's bytes are new; nginx, which can only miss those, gets its repeated ones."""
    return [
        _hits(
            lab,
            pace,
            "hits-unique",
            "hits/s of a core: every body's bytes unique",
            [bodies.unique()],
            bar=0.8,
            goal=1.0,
        )
    ]


def memos(lab: Lab, pace: Pace) -> list[Row]:
    """``hits-64`` once more, beside a sidecar that parses every head, and one that reads every body."""
    requests = bodies.variants()
    with ExitStack() as stack:
        ours = stack.enter_context(lab.sidecar())
        sides = {"as it is": hits_of(lab, ours.port, ours.process, requests)}
        for beside, part in (("every head parsed", "no-head-memo"), ("every body read", "no-body-memo")):
            other = stack.enter_context(lab.sidecar(otherwise=part))
            sides[beside] = hits_of(lab, other.port, other.process, requests)
        alternate(pace, *sides.values())
    rates = {name: side.core_rates for name, side in sides.items()}
    details = {name: side.told() for name, side in sides.items()}
    return [
        Row("memos", "hits/s of a core: with both memos", spread(rates["as it is"]), f"{name} {spread(theirs)}",
            round(median(a / b for a, b in zip(rates["as it is"], theirs, strict=True)), 2), details=details)
        for name, theirs in rates.items() if name != "as it is"
    ]  # fmt: skip


def hit_one(lab: Lab, pace: Pace) -> list[Row]:
    """One connection, one call at a time: latency as wrk's histogram has it."""
    requests = bodies.variants()
    try:
        process, port = lab.nginx()
    except Missing:
        reference = None
    else:
        reference = _side(lab, port, process, requests, connections=1)
    try:
        with lab.sidecar() as sidecar:
            side = _side(lab, sidecar.port, sidecar.process, requests, connections=1)
            alternate(pace, *[one for one in (side, reference) if one])
    finally:
        if reference:
            reference.process.stop()
    details = {"sidecar": side.told(), "nginx": reference.told() if reference else None}
    rows = []
    for name, bar in (("p50", 150.0), ("p99", 1000.0)):
        ours = [getattr(one, name) for one in side.rounds]
        theirs = [getattr(one, name) for one in reference.rounds] if reference else []
        rows.append(
            Row(
                "hit-one",
                f"hit, one connection, {name}, us",
                spread(ours),
                f"nginx {spread(theirs)}" if theirs else "-",
                round(median(ours) / median(theirs), 2) if theirs else None,
                f"<= {bar:.0f} us",
                median(ours) <= bar,
                details,
                "nginx is above the bar too: other programs had the core" if theirs and median(theirs) > bar else "",
            )
        )
    return rows


def miss_one(lab: Lab, pace: Pace) -> list[Row]:
    """One connection, every call a miss: what is added to calling the provider directly, median latencies."""
    requests = [bodies.fresh()]
    relay, relay_port = lab.relay()
    with relay, lab.sidecar() as sidecar:
        direct = _side(lab, lab.upstream_port, sidecar.process, requests, connections=1)
        bare = _side(lab, relay_port, relay, requests, connections=1)
        side = _side(lab, sidecar.port, sidecar.process, requests, connections=1)
        alternate(Pace(pace.rounds + (not pace.quick), max(1, pace.seconds // 2)), direct, bare, side)
    added = [ours.p50 - none.p50 for ours, none in zip(side.rounds, direct.rounds, strict=True)]
    by_relay = [theirs.p50 - none.p50 for theirs, none in zip(bare.rounds, direct.rounds, strict=True)]
    ratio = median(ours / theirs for ours, theirs in zip(added, by_relay, strict=True))
    details = {"direct": direct.told(), "relay": bare.told(), "sidecar": side.told()}
    return [
        Row(
            "miss-one",
            "miss, one connection, added p50, us",
            spread(added),
            f"bare relay {spread(by_relay)}",
            round(ratio, 2),
            "<= 1.6 x, <= 350 us",
            ratio <= 1.6 and median(added) <= 350,
            details,
        )
    ]


def _hits(lab: Lab, pace: Pace, name: str, what: str, requests: list[bytes], *, bar: float, goal: float) -> Row:
    process, port = lab.nginx()
    with process, lab.sidecar() as sidecar:
        side = _side(lab, sidecar.port, sidecar.process, requests, connections=_CONNECTIONS)
        reference = _side(lab, port, process, bodies.variants(), connections=_CONNECTIONS)
        alternate(pace, side, reference)
    ratios = [ours / theirs for ours, theirs in zip(side.core_rates, reference.core_rates, strict=True)]
    ratio = median(ratios)
    disturbed = side.disturbed + reference.disturbed
    note = f"other programs took part of the server's core in {disturbed} of {2 * pace.rounds} rounds"
    return Row(
        name,
        what,
        spread(side.core_rates),
        f"nginx {spread(reference.core_rates)}",
        round(ratio, 2),
        f">= {bar} x (goal {goal})",
        ratio >= bar,
        {"sidecar": side.told(), "nginx": reference.told(), "ratios": [round(one, 3) for one in ratios]},
        note if disturbed else "",
    )


def hits_of(lab: Lab, port: int, process: Process, requests: list[bytes]) -> Side:
    """A side whose rounds are hits under full load."""
    return _side(lab, port, process, requests, connections=_CONNECTIONS)


def _side(lab: Lab, port: int, process: Process, requests: list[bytes], *, connections: int) -> Side:
    """A side whose rounds are wrk's; where the requests are to be hits, they are stored first and then proven so."""
    hits = requests[0] != bodies.fresh()
    if hits:
        with Caller(port) as caller:
            for request in requests:
                caller.call(marked(request))

    load = lab.hits if hits else lab.load
    return Side(lambda seconds: load(port, requests, seconds=seconds, connections=connections), process)
