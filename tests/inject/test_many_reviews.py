"""Many reviews at once, large and wrong ones among them: the short form of the benchmark's row."""

from __future__ import annotations

from pathlib import Path

from tests.bench.admission import Webhook, common, large, probing, send, wrong

PODS = 40


def test_many_reviews(tmp_path: Path):
    """Each has its right answer, probes are answered meanwhile, and the metrics count what was reviewed."""
    asks = [*common(PODS), *large(), *wrong()]
    with Webhook(tmp_path / "webhook") as webhook:
        with probing(webhook) as probes:
            answered = send(webhook, asks)
        results = webhook.results()

    assert {} == answered.wrong
    assert len(asks) == sum(map(len, answered.milliseconds.values()))
    assert PODS + len(large()) == results["injected"]
    assert 0 == results["failed"] + results["kept"]
    assert probes
