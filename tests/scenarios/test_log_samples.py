"""Which calls that went well have a line in the log, as the configuration says."""

from __future__ import annotations

import pytest
from msgspec import json

from sidecar.core.rules import LogRule
from tests.scenarios.conftest import CHAT


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (LogRule(1.0), ["miss", "hit_memory", "hit_memory"] * 2),
        (LogRule(1.0, "key"), ["miss", "hit_memory", "hit_memory"] * 2),
        (LogRule(0.0, "key"), []),
        (LogRule(0.0), []),
    ],
    ids=["all", "all-keys", "no-keys", "none"],
)
async def test_repeats(build_lab, provider, rule, told):
    """A miss and its hits stand there together, or not at all; no line says which key it was."""
    lab = await build_lab(f"http://127.0.0.1:{provider.port}", log=rule)
    for name in ("a", "b"):
        for _ in range(3):
            await lab.ask(CHAT | {"messages": [{"role": "user", "content": name}]})
    await lab.until(lambda: len(lab.records) == 6)
    lines = [line for line in map(json.decode, lab.logs) if line["event"] == "request"]

    assert sorted(told) == sorted(line["outcome"] for line in lines)
    assert 2 == len({record.key for record in lab.records})
    assert not any(record.key.hex() in str(lines) for record in lab.records)
