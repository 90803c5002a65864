"""Records, and what Prometheus reads after them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.model import Outcome, Record
from sidecar.sinks.metrics import Metrics


def record(outcome: Outcome = Outcome.HIT_MEMORY, status: int = 200, *, route: str = "chat", **more) -> Record:
    return Record(0.0, b"id", more.pop("service", "openai"), route, "chat.completions", outcome, status, **more)


def sent(outcome: Outcome = Outcome.MISS, status: int = 200, *, region: str = "us", **more) -> Record:
    """A request that was sent to a service."""
    more = {"attempts": 1, "upstream_status": status, "seconds": 1.5, "upstream_seconds": 1.25, **more}
    return record(outcome, status, region=region, **more)


def scrape(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every series of an exposition, by name and label values (in the order of the labels' names)."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }


def total(series: dict[tuple[str, ...], float], name: str) -> float:
    return sum(value for (found, *_), value in series.items() if found == name)
