"""
The row about the key: microseconds of the pure steps of a look-up, and of what is told of it, without sockets.

The rule: for information; what a step costs depends on the body, so three sizes stand side by side.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from timeit import Timer

from sidecar.app.clocks import running
from sidecar.core.cache.policy import Freshness, judge
from sidecar.core.http.directives import NOTHING_ASKED
from sidecar.core.key import canonical
from sidecar.core.key.fingerprint import prefix, seal
from sidecar.core.model import Entry, Facts, Form, Outcome, Reading, Record
from sidecar.core.rules import MemoryRule
from sidecar.dialects.openai.dialect import OPENAI
from sidecar.sinks.metrics import Metrics
from sidecar.sinks.series import ConfiguredNames
from sidecar.store.memory import Memory
from tests.bench import bodies
from tests.bench.lab import Lab, Pace, Row
from tests.bench.machine import SERVER_CORE

_KIB = 1024


def key_micro(_: Lab, pace: Pace) -> list[Row]:
    """From a body to its key, and from the key to a verdict."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        return _measure(0.02 if pace.quick else 0.1)
    finally:
        os.sched_setaffinity(0, before)


def _measure(seconds: float) -> list[Row]:
    endpoint = OPENAI.locate(b"POST", "/v1/chat/completions")
    assert endpoint is not None
    secret = bytes(32)
    before = prefix(
        partition=bytes(16), service="openai", resource="", endpoint=endpoint.name, method=b"POST",
        path="/v1/chat/completions", query=b"", headers=(),
    )  # fmt: skip
    rows = []
    for size in (2, 32, 256):
        body = _body(size * _KIB)
        reading = canonical.read(body, endpoint, b"application/json", secret)
        assert not reading.facts.bypass
        read = _microseconds(partial(canonical.read, body, endpoint, b"application/json", secret), seconds)
        sealed = _microseconds(partial(seal, secret, before, "gpt-4o-mini", reading), seconds)
        shown = f"{read + sealed:.1f} = {read:.1f} + {sealed:.1f}"
        rows.append(
            Row("key-micro", f"canonical.read + seal, {size} KB, us", shown, details={"read": read, "seal": sealed})
        )
    now = time.time()
    key = seal(secret, before, "gpt-4o-mini", Reading(b"json", b"", Facts()))
    memory, fresh = Memory(MemoryRule(), now=time.time, clock=running), Freshness(3600.0)
    started = running()
    memory.put(key, Entry(200, (), b"x" * 2048, Form.WHOLE, "openai", "bench", "gpt-4o-mini", now, 3600.0))

    def find() -> object:
        held = memory.find(key)
        assert held is not None
        return judge(held.entry, NOTHING_ASKED, fresh, held.time(time.time(), started))

    found = _microseconds(find, seconds)
    rows.append(Row("key-micro", "peek + judge, us", f"{found:.2f}", details={"peek_judge": found}))
    metrics = Metrics("1", ConfiguredNames({"openai": ("default",)}, {"bench": ("openai",)}), {})

    def tell() -> None:
        spent = running() - started
        metrics.record(
            Record(
                now, b"id", "openai", "bench", "chat.completions", Outcome.HIT_MEMORY, 200, seconds=spent,
                first_content_seconds=spent,
            )
        )  # fmt: skip

    told = _microseconds(tell, seconds)
    return [*rows, Row("key-micro", "a hit's record, counted, us", f"{told:.2f}", details={"record": told})]


def _body(size: int) -> bytes:
    """A chat of about *size* bytes, at most."""
    members = bodies.chat(user="u1")
    turns = members["messages"][1:]
    while len(json.dumps(members)) + 1600 < size:
        members["messages"] += turns
    return json.dumps(members).encode()


def _microseconds(work: Callable[[], object], seconds: float) -> float:
    timer = Timer(work)
    number = max(1, int(seconds / min(timer.repeat(3, 1))))
    return median(timer.repeat(7, number)) / number * 1e6
