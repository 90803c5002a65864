"""
Why a pod is not injected.

The rule: each check is about what our container would do to the pod: not start, take its ports, never end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.core.pods.container import VOLUMES
from sidecar.core.pods.settings import CONTAINER, INJECT, NATIVE_SINCE, Injection
from sidecar.core.pods.shape import PodShape, SpecShape

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a mirror of a static pod."""

SYSTEM = frozenset({"kube-system", "kube-public", "kube-node-lease"})

MOST_CONTAINERS = 250
"""Of a pod; each gets variables. What holds more was made to exhaust the webhook."""

_ARCHITECTURE = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
_SYSTEM = ("kubernetes.io/os", "beta.kubernetes.io/os")
_BUILD = "node.kubernetes.io/windows-build"
_PROBES = ("liveness_probe", "readiness_probe", "startup_probe")
_ACTIONS = ("httpGet", "tcpSocket", "grpc")


def reason(pod: PodShape, settings: Injection, *, namespace: str, owner: str, injected: bool) -> str | None:
    """
    Why *pod* must not be injected; None if it may. *injected*: it has been, so what is ours is no obstacle; what other
    webhooks have added since is.
    """
    spec, annotations = pod.spec, (pod.metadata and pod.metadata.annotations) or {}
    taken = _taken(spec, settings.ports)
    many = sum(one.name != CONTAINER for one in spec.all_containers())
    occupied = "" if injected else _occupied(spec)
    lacking = _lacking(spec, settings.architectures, settings.node_architectures)
    old = settings.version < NATIVE_SINCE
    checks = (
        (not spec.containers, "it has no containers"),
        (many > MOST_CONTAINERS, f"it has {many} containers, and at most {MOST_CONTAINERS} are given variables"),
        (namespace in {*SYSTEM, settings.namespace}, f"namespace {namespace} is left alone"),
        (MIRROR in annotations, "it is a mirror of a static pod, which no webhook can change"),
        (spec.host_network is True, "hostNetwork: the sidecar's ports would be those of the node"),
        (_is_windows(spec), "os: windows, and the image is for Linux"),
        (bool(lacking), f"architecture {lacking}, for which the image is not built"),
        (old and owner == "Job",
         "a Job on a cluster before 1.29: it would never end beside a container that goes on running"),
        (old and spec.restart_policy in {"Never", "OnFailure"},
         f"restartPolicy {spec.restart_policy} on a cluster before 1.29: it would never end beside a running sidecar"),
        (bool(taken), f"port {', '.join(map(str, taken))} is the application's, and ours"),
        (bool(occupied), f"it has {occupied} already"),
    )  # fmt: skip
    return next((text for holds, text in checks if holds), None)


def refusal(pod: PodShape) -> str | None:
    """Why the owner of *pod* does not want it to be injected; None if the label does not say so."""
    label = ((pod.metadata and pod.metadata.labels) or {}).get(INJECT)
    if label in (None, "enabled"):
        return None
    if label == "disabled":
        return f"its label {INJECT} says disabled"
    return f"its label {INJECT} says {label!r}; write enabled or disabled"


def _is_windows(spec: SpecShape) -> bool:
    selector = spec.node_selector or {}
    if (spec.os is not None and spec.os.name == "windows") or _BUILD in selector:
        return True
    if spec.security_context is not None and spec.security_context.windows_options:
        return True
    if any(selector.get(key) == "windows" for key in _SYSTEM):
        return True
    return any(
        (one.operator == "In" and "windows" in (one.values or ()))
        or (one.operator == "NotIn" and "linux" in (one.values or ()))
        for one in spec.requirements()
        if one.key in _SYSTEM
    )


def _lacking(spec: SpecShape, built: frozenset[str], present: frozenset[str]) -> str:
    """
    The architecture that the pod may be sent to, and the image lacks; ``""`` if there is none. *present*: those of the
    cluster's nodes, as far as they are known.
    """
    selector = spec.node_selector or {}
    for named in (selector.get(key) for key in _ARCHITECTURE):
        if named is not None:
            return "" if named in built else str(named)
    for one in spec.requirements():
        if one.key not in _ARCHITECTURE:
            continue
        values = one.values or ()
        if one.operator == "In" and (others := [each for each in values if each not in built]):
            return ", ".join(others)
        if one.operator == "NotIn" and built <= {*values}:
            return f"other than {', '.join(sorted(values))}"
        present = present & {*values} if one.operator == "In" else present - {*values}
    return ", ".join(sorted(present - built))


def _taken(spec: SpecShape, ports: Sequence[int]) -> list[int]:
    """Ports of ours at which another container of the pod listens, by what it declares or where its probes ask."""
    others = [one for one in spec.all_containers() if one.name != CONTAINER]
    said = {port.container_port for one in others for port in one.ports or () if port.protocol in {"TCP", None}}
    said |= {port for one in others for probe in _PROBES for port in _asked(getattr(one, probe))}
    return [port for port in ports if port in said]


def _asked(probe: Mapping[str, Any] | None) -> Iterator[int]:
    for action in _ACTIONS:
        found = (probe or {}).get(action)
        port = found.get("port") if isinstance(found, Mapping) else None
        if isinstance(port, int):
            yield port


def _occupied(spec: SpecShape) -> str:
    """What bears a name of ours."""
    if any(one.name == CONTAINER for one in spec.all_containers()):
        return f"a container called {CONTAINER}"
    return next((f"a volume called {one.name}" for one in spec.volumes or () if one.name in VOLUMES), "")
