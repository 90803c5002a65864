"""
The webhook's metrics.

The rule: labels are from closed sets, but for namespaces, of which a cluster has as many as somebody labelled.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

from sidecar.inject.admission import ReviewResult

PARTS = ("certificate", "missed", "nodes", "sync")
"""What the webhook asks the API server for."""

MISSED = "sidecar_admission_missed_pods"
REVIEWS = "sidecar_admission_reviews_total"
MEMORY_ONLY = "sidecar_admission_namespaces_without_secret"
EXPIRY = "sidecar_admission_certificate_expiry_timestamp_seconds"
CONFIG_GOOD = "sidecar_admission_config_last_reload_successful"
ERRORS = "sidecar_admission_cluster_errors_total"


class AdmissionMetrics:
    """All of them, in a registry of their own. A gauge has no value until its part was looked at once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reviews = Counter(
            REVIEWS,
            "Reviews answered: pods injected, kept as they are, failed by a bug; configurations allowed, denied.",
            ("result",),
            registry=self.registry,
        )
        self._errors = Counter(
            ERRORS,
            "Requests to the API server that failed, by what they were for.",
            ("part",),
            registry=self.registry,
        )
        self._missed = Gauge(
            MISSED,
            "Living pods that should have a sidecar and have neither one nor a reason; restart their workloads.",
            ("namespace",),
            registry=self.registry,
        )
        self._config_good = Gauge(
            CONFIG_GOOD,
            "1 if the webhook's configuration was right when it was last read, 0 if an older one holds.",
            registry=self.registry,
        )
        for result in ReviewResult:
            self._reviews.labels(result.value)
        for part in PARTS:
            self._errors.labels(part)
        self._expiry: Gauge | None = None
        self._without_secret: Gauge | None = None

    def __repr__(self) -> str:
        return "<AdmissionMetrics>"

    def reviewed(self, result: ReviewResult) -> None:
        """Count a review."""
        self._reviews.labels(result.value).inc()

    def cluster_failed(self, part: str) -> None:
        """Count a failed request to the API server."""
        self._errors.labels(part).inc()

    def config_read(self, *, is_good: bool) -> None:
        """Set whether the configuration that was read last is in use."""
        self._config_good.set(is_good)

    def missed(self, pods: Mapping[str, int]) -> None:
        """Set the missed pods of each namespace; one that is not named any more is forgotten."""
        self._missed.clear()
        for namespace, count in pods.items():
            self._missed.labels(namespace).set(count)

    def certificate_ends(self, seconds: float) -> None:
        """Set when the certificate that is served ends, in seconds of the epoch."""
        if self._expiry is None:
            self._expiry = Gauge(EXPIRY, "When the certificate that the webhook serves ends.", registry=self.registry)
        self._expiry.set(seconds)

    def without_secret(self, count: int) -> None:
        """Set how many namespaces have no Secret, so that their sidecars share nothing by Redis."""
        if self._without_secret is None:
            text = "Labelled namespaces without the Secret ai-sidecar: their sidecars cache in memory only."
            self._without_secret = Gauge(MEMORY_ONLY, text, registry=self.registry)
        self._without_secret.set(count)

    def text(self) -> bytes:
        """The page for Prometheus."""
        return generate_latest(self.registry)
