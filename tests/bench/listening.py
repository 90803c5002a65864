"""
The row about the listener: what asyncio's streams and ``aiohttp.web`` would cost in its place.

The rule: first the whole sidecar, once as it is, once with the same bytes handed to it by a ``StreamReader``; then the
least listener that does the key's work, written three ways (``listener``). Everything in one run, round by round.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from tests.bench import bodies, listener
from tests.bench.calls import hits_of
from tests.bench.lab import Lab, Pace, Row, Side, alternate, spread
from tests.bench.machine import SERVER_CORE, free_port

_NAMES = {"protocol": "a bare protocol class", "streams": "bare streams", "web": "bare aiohttp.web"}


def listeners(lab: Lab, pace: Pace) -> list[Row]:
    """Memory hits as in ``hits-64``: ours, ours behind streams, three bare listeners, nginx."""
    requests = bodies.variants()
    with ExitStack() as stack:
        ours = stack.enter_context(lab.sidecar())
        streamed = stack.enter_context(lab.sidecar(otherwise="streams"))
        sides = {
            "ours": hits_of(lab, ours.port, ours.process, requests),
            "ours behind streams": hits_of(lab, streamed.port, streamed.process, requests),
        }
        for way in listener.WAYS:
            port = free_port()
            process = stack.enter_context(lab.program("listener", SERVER_CORE, port, lab.upstream_port, way))
            sides[_NAMES[way]] = hits_of(lab, port, process, requests)
        process, port = lab.nginx()
        sides["nginx"] = hits_of(lab, port, stack.enter_context(process), requests)
        alternate(pace, *sides.values())
    details = {name: side.told() for name, side in sides.items()}
    pairs = (
        ("ours", "ours behind streams"),
        (_NAMES["protocol"], _NAMES["streams"]),
        (_NAMES["protocol"], _NAMES["web"]),
    )
    rows = [_row(first, sides[first], second, sides[second], details) for first, second in pairs]
    return rows + [
        _row(name, side, "nginx", sides["nginx"], details) for name, side in sides.items() if name != "nginx"
    ]


def _row(name: str, side: Side, beside: str, other: Side, details: dict[str, object]) -> Row:
    ratio = median(ours / theirs for ours, theirs in zip(side.core_rates, other.core_rates, strict=True))
    return Row(
        "listeners",
        f"hits/s of a core: {name}",
        spread(side.core_rates),
        f"{beside} {spread(other.core_rates)}",
        round(ratio, 2),
        details=details,
    )
