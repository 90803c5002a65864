"""What may be named in alerts, dashboards and runbooks: our metrics, those of Kubernetes that we use, our commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from sidecar.core.model import Outcome
from sidecar.core.reasons import REASONS
from sidecar.inject.admission import ReviewResult
from sidecar.inject.metrics import PARTS, AdmissionMetrics
from sidecar.sinks.metric_type import PREFIX
from sidecar.sinks.table import METRICS

K8S = Path(__file__).parents[2] / "k8s"

TARGET = frozenset({"namespace", "pod", "container"})
"""Labels that a PodMonitor adds to each series of ours."""

OF_KUBERNETES = {
    # kube-state-metrics, docs/metrics/workload/pod-metrics.md: init containers since 1.7, as they are here since 2.0
    **{
        f"kube_pod_{kind}container_status_{what}": {"namespace", "pod", "uid", "container", *more}
        for kind in ("", "init_")
        for what, more in (
            ("waiting_reason", ["reason"]),
            ("restarts_total", []),
            ("last_terminated_reason", ["reason"]),
        )
    },
    # kubernetes.io, "Kubernetes Metrics Reference"
    "apiserver_admission_webhook_rejection_count": {"name", "type", "operation", "error_type", "rejection_code"},
    "apiserver_admission_webhook_fail_open_count": {"name", "type"},
}

VALUES = {
    "outcome": frozenset(Outcome),
    "part": frozenset(PARTS),
    "result": frozenset(ReviewResult),
}
"""Labels of ours whose values are a closed set."""

EXAMPLES = {"NS": "team-a", "POD": "chat-1", "WORKLOAD": "deployment/chat"}
"""What stands here for what the runbooks leave open."""

_NAME = re.compile(r"\b(?:sidecar|kube|apiserver)_[a-z_]+\b(?!\*)")
_SELECTOR = re.compile(r"\b([a-z_]+)\{([^{}]*)\}")
_MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')


def metrics() -> dict[str, set[str]]:
    """The labels of every metric that may be named, by its name as Prometheus has it."""
    found: dict[str, set[str]] = {name: set(labels) for name, labels in OF_KUBERNETES.items()}
    for metric in METRICS:
        for suffix in ("_bucket", "_sum", "_count") if metric.buckets else ("",):
            found[PREFIX + metric.name + suffix] = {*metric.labels, *TARGET, *(["le"] if suffix == "_bucket" else [])}
    admission = AdmissionMetrics()
    admission.certificate_ends(0.0)
    admission.without_secret(0)
    for collector in list(admission.registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        ending = "_total" if collector._type == "counter" else ""
        found[collector._name + ending] = {*collector._labelnames, *TARGET}
    return found


def strangers(expression: str) -> Iterator[str]:
    """What an expression names that does not exist: a metric, a label of it, or a value of a closed set."""
    known = metrics()
    yield from (f"no metric {name}" for name in _NAME.findall(expression) if name not in known)
    for name, matchers in _SELECTOR.findall(expression):
        for label, _, value in _MATCHER.findall(matchers):
            if label not in known.get(name, {label}):
                yield f"{name} has no label {label}"
            if label in VALUES and not value.startswith("$"):
                yield from (f"{label} is never {each}" for each in value.split("|") if each not in VALUES[label])


def unknown_words(text: str) -> Iterator[str]:
    """Single words between backticks, in a panel's sentence, that are neither an outcome nor a reason."""
    for quoted in re.findall(r"`([a-z_-]+)`", text):
        if quoted not in REASONS and quoted not in {*Outcome}:
            yield quoted


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every call of our program in a page: between backticks, or in a block of commands."""
    for line in _typed(text):
        found = re.search(r"(?:^|-- )sidecar ([a-z][^|]*)", line)
        if found:
            yield found[1].split()


def kubectl(text: str) -> Iterator[str]:
    """Every call of kubectl in a page, up to where its output is piped, for a namespace and a pod."""
    for line in _typed(text):
        if line.startswith("kubectl ") and line.count(" ") > 1:
            yield re.sub(r"\b(?:NS|POD|WORKLOAD)\b", lambda word: EXAMPLES[word[0]], re.split(r" [|>] ", line)[0])


def _typed(text: str) -> Iterator[str]:
    """The lines of commands in a page, and what stands between backticks in its sentences."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from map(str.strip, re.sub(r"\\\n *", "", block).splitlines())
    yield from re.findall(r"`([^`\n]+)`", text)
