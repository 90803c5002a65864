"""
Kubernetes manifests: the pods and pod templates in them, and their injection offline.

The rule: a document that holds no pod goes out as it came in. What a document says in comments is lost, as YAML readers
lose it; what it means stays. What people should know of a manifest as a whole is found here, what of a pod in ``core``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml

from sidecar.core.pods.inject import Kept, inject, is_injected, uninject
from sidecar.core.pods.settings import INJECT, Injection
from sidecar.errors import ConfigError
from sidecar.inject.kube_yaml import dump_all, load_all

PodManifest = Mapping[str, Any]

TEMPLATES = frozenset(
    {"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job", "PodTemplate"}
)
"""
Kinds of Kubernetes whose pods are made from ``spec.template`` (``PodTemplate``: ``template``). Kinds of others are
taken for such ones if a pod stands there, as in a ``Rollout`` of Argo.
"""

_TEMPLATE = ("spec", "template")

_CLOSED = ("serving.knative.dev/",)
"""Groups whose templates look like those of pods, and accept no container of ours."""

_KEPT = "its kind takes no further container; its pods get the sidecar from the webhook, as they are created"


class Workload(NamedTuple):
    """
    Where a pod comes from, and the *owner* of its pods: ``Job`` or its own kind, ``""`` for a pod by itself. *notes*:
    what people should know of it.
    """

    kind: str
    name: str
    namespace: str
    owner: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"


class Finding(NamedTuple):
    """
    What became of one workload: the *reason* why it was kept, or ``""``; *warnings*; and by which variables the calls
    of each of its containers arrive, with their addresses.
    """

    workload: Workload
    reason: str
    warnings: tuple[str, ...] = ()
    arrivals: Mapping[str, Mapping[str, str]] = MappingProxyType({})


def read(text: str, source: str) -> list[Any]:
    """The documents of *text*. Raises ``ConfigError``."""
    try:
        return load_all(text)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark is not None else 0) + 1
        raise ConfigError((f"{source}:{line}: is not YAML; check indentation, brackets and quotes here",)) from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError((f"{source}: is not YAML",)) from None


def write(documents: list[Any]) -> str:
    """*documents* as YAML."""
    return dump_all(documents)


def inject_all(documents: list[Any], settings: Injection) -> tuple[list[Any], list[Finding]]:
    """Every pod and pod template of *documents* injected, where that may be."""
    findings: list[Finding] = []

    def change(pod: PodManifest, workload: Workload) -> PodManifest:
        outcome = inject(pod, settings, namespace=workload.namespace, owner=workload.owner)
        if isinstance(outcome, Kept):
            findings.append(Finding(workload, outcome.reason, workload.notes))
        else:
            warnings = (*workload.notes, *outcome.warnings)
            findings.append(Finding(workload, "", warnings, outcome.arrivals))
        return outcome.pod

    after = [_changed(document, change) for document in documents]
    findings += [Finding(workload, _KEPT) for document in documents for workload in _closed(document)]
    return after, findings


def uninject_all(documents: list[Any]) -> tuple[list[Any], list[Finding]]:
    """Every pod and pod template of *documents* as it was before its injection."""
    findings: list[Finding] = []

    def change(pod: PodManifest, workload: Workload) -> PodManifest:
        findings.append(Finding(workload, "" if is_injected(pod) else "it is not injected"))
        return uninject(pod)

    return [_changed(document, change) for document in documents], findings


def workloads(document: Any) -> Iterator[tuple[Workload, PodManifest]]:
    """The pods and pod templates of a document, with their workloads."""
    found: list[tuple[Workload, PodManifest]] = []

    def look(pod: PodManifest, workload: Workload) -> PodManifest:
        found.append((workload, pod))
        return pod

    _changed(document, look)
    yield from found


def _closed(document: Any) -> Iterator[Workload]:
    """What makes pods, and whose template must stay as it is."""
    if not isinstance(document, Mapping):
        return
    kind = str(document.get("kind", ""))
    if kind.endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _closed(item)
    if _is_closed(document) and _has_template(document):
        yield _workload(document, kind)


def _is_closed(document: Mapping[str, Any]) -> bool:
    return str(document.get("apiVersion", "")).startswith(_CLOSED)


def _has_template(document: Mapping[str, Any]) -> bool:
    """Whether a pod stands in ``spec.template``."""
    return _holds(document, _TEMPLATE) and isinstance(document["spec"]["template"]["spec"].get("containers"), list)


def _changed(document: Any, change: Callable[[PodManifest, Workload], PodManifest]) -> Any:
    """*document* with each of its pods changed."""
    if not isinstance(document, Mapping):
        return document
    kind = str(document.get("kind", ""))
    if kind.endswith("List") and isinstance(document.get("items"), list):
        return {**document, "items": [_changed(item, change) for item in document["items"]]}
    steps = _steps(document, kind)
    if steps is None or not _holds(document, steps):
        return document
    workload = _workload(document, kind)
    return _put(document, steps, lambda pod: change(pod, workload))


def _workload(document: Mapping[str, Any], kind: str) -> Workload:
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    owner = "Job" if kind in {"Job", "CronJob"} else "" if kind == "Pod" else kind
    name = str(metadata.get("name") or metadata.get("generateName") or "")
    notes = _misplaced(metadata) if kind != "Pod" else ()
    return Workload(kind, name, str(metadata.get("namespace") or ""), owner, notes)


def _misplaced(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What to say of our label on a workload: only that of its pods counts."""
    labels = metadata.get("labels")
    if not isinstance(labels, Mapping) or INJECT not in labels:
        return ()
    return (f"the label {INJECT} of the workload itself does nothing; set it on its pods, in the template's metadata",)


def _steps(document: Mapping[str, Any], kind: str) -> tuple[str, ...] | None:
    """The way from *document*, of *kind*, to its pod; None if it holds none."""
    if kind == "Pod":
        return ()
    if kind == "CronJob":
        return ("spec", "jobTemplate", "spec", "template")
    if kind == "PodTemplate":
        return ("template",)
    if kind in TEMPLATES:
        return _TEMPLATE
    return _TEMPLATE if _has_template(document) and not _is_closed(document) else None


def _holds(document: Mapping[str, Any], steps: tuple[str, ...]) -> bool:
    at: Any = document
    for step in (*steps, "spec"):
        if not isinstance(at, Mapping) or not isinstance(at.get(step), Mapping):
            return False
        at = at[step]
    return True


def _put(document: Mapping[str, Any], steps: tuple[str, ...], change: Callable[[PodManifest], PodManifest]) -> Any:
    if not steps:
        return change(document)
    first, *others = steps
    return {**document, first: _put(document[first], tuple(others), change)}
