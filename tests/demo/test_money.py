"""Simulated money: exact sums, and a price for whatever the workload uses."""

from __future__ import annotations

import pytest

from sidecar.demo.money import PRICES, cost, dollars
from sidecar.demo.workload import acts


@pytest.mark.parametrize(
    ("model", "prompt", "completion", "expected"),
    [
        pytest.param("gpt-4o", 1_000_000, 0, 2_500_000_000, id="prompt"),
        pytest.param("gpt-4o", 0, 1_000_000, 10_000_000_000, id="completion"),
        pytest.param("text-embedding-3-small", 3, 5, 60, id="embeddings-write-nothing"),
        pytest.param("nobody's", 1_000, 1_000, 0, id="no-price"),
    ],
)
def test_cost(model, prompt, completion, expected):
    """Tokens times their price."""

    assert expected == cost(model, prompt=prompt, completion=completion)


@pytest.mark.parametrize(
    ("amount", "expected"), [(0, "$0.0000"), (123_450_000, "$0.1235"), (2_000_000_000, "$2.0000")], ids=str
)
def test_dollars(amount, expected):
    """Nano-dollars become dollars."""

    assert expected == dollars(amount)


def test_every_model_of_the_workload_has_a_price():
    """No call of the demo counts as free by accident."""
    named = {
        call.members["model"]
        for act in acts()
        for wave in act.waves
        for call in wave
        if call.members and "model" in call.members
    }

    assert named
    assert named <= PRICES.keys()
