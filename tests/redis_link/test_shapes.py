"""What the answers of scripts look like: every script judges every reply."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sidecar.fleet
from sidecar.errors import FleetAway
from sidecar.redis_link.link import Script

MODULES = [
    importlib.import_module(f"sidecar.fleet.{found.name}") for found in pkgutil.iter_modules(sidecar.fleet.__path__)
]
SCRIPTS = {value.name: value for module in MODULES for value in vars(module).values() if isinstance(value, Script)}
TRUE: dict[str, list[Any]] = {
    "look": [[b"value", 5, b"sealed"], [b"taken", b"5000"], [b"held", 400], [b"none", 0]],
    "keep": [-1, 0, 1],
    "renew": [0, 1],
    "release": [0, 1],
    "stall": [0, 1],
    "purge-log": [
        [bytes(16), b"2", b"", b"abc", [b"note", b"1", b"note 2", b"2"], None, 0, [b"note 3"]],
        [bytes(16), b"0", bytes(32), b"", [], b"note", 1, []],
    ],
    "mode": [1],
    "regions": [[0], [1, b"1700000000000", 0, [b"note", b"1"]], [2, b"1700000000000", 1, [], [b"note", b"inf"]]],
    "probe": [0, 1],
    "quota": [[], [1, 0, 0, 0, 2000, -5], [0, 5, 6, 1, -1, -1]],
    "presence": [[0], [3, b"abc"]],
    "members": [[b"1700000000000"], [b"1700000000000", b"member", b"1699999999000"]],
    "tags": [[], [0, 99]],
}

scalars = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, 1, 2, 5, b"value", b"taken", b"held", b"none", b"0", b"1", b"inf", b""])
    | st.binary(max_size=40)
    | st.builds(Exception)
)
anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=8), max_leaves=12)


def test_every_script_is_judged():
    """None takes a reply as it is."""
    assert TRUE.keys() == SCRIPTS.keys()


@pytest.mark.parametrize(("name", "reply"), [(name, reply) for name, many in TRUE.items() for reply in many])
def test_what_a_script_answers(name: str, reply: Any):
    """It is read; cut short, longer or within another it is none."""
    read = SCRIPTS[name].read
    read(reply)
    others = [[reply], None, b"OK", Exception("x"), {b"a": 1}, 2**62]
    if isinstance(reply, list):
        others += [[*reply, 1, 1], *([reply[: len(reply) // 2]] if len(reply) > 1 else [])]
        others += [[*reply[:at], Exception("x"), *reply[at + 1 :]] for at in range(len(reply))]
    for other in others:
        if (name, other) in [("presence", [3]), ("members", [b"1700000000000"]), ("quota", []), ("tags", [0])]:
            continue  # an answer, too
        with pytest.raises(FleetAway, match=r"\Amalformed: "):
            read(other)


@pytest.mark.parametrize("name", SCRIPTS)
@given(anything)
def test_anything(name: str, reply: Any):
    """It is an answer, or none: nothing else is ever raised."""
    reasons = {"malformed"}
    try:
        SCRIPTS[name].read(reply)
    except FleetAway as away:
        reasons.add(away.reason)

    assert {"malformed"} == reasons
