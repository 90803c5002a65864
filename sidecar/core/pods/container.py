"""
Our container, its volumes, and what it needs of a pod.

The rule: nothing of it can stop a pod: whatever it mounts is optional, its command forwards calls where its
configuration cannot be read, and it fits the restricted Pod Security Standard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sidecar.core.pods.settings import CONTAINER, DEFAULT_MEMORY, Injection, amount, started_by

CONFIG, SECRET, STATE, TEMPORARY = (
    f"{CONTAINER}-config",
    f"{CONTAINER}-secret",
    f"{CONTAINER}-state",
    f"{CONTAINER}-tmp",
)

VOLUMES = frozenset({CONFIG, SECRET, STATE, TEMPORARY})

USER = 10001
"""The numeric user of the image."""

STARTUP_SECONDS = 120
"""How long a start may take. A configuration that cannot be read does not make it longer: then calls are forwarded."""


HOLD = ("sidecar", "wait", "--config", "/etc/sidecar", "--for", "30s", "--", "sidecar", "version")
"""
What holds the application of a classic sidecar back until ours is ready, or for half a minute. Its exit code is always
0, because kubelet would kill our container for another one.
"""

ASK = ("sidecar", "wait", "--config", "/etc/sidecar", "--for", "3s")
"""What kubelet runs in our container behind a mesh, to see whether it works."""

GRACE_SECONDS = 30
"""The grace period of a pod that names none."""

STOP_SECONDS = 5
"""What a pod's grace period leaves us after the drain: to write what is left, and to end."""


def container(settings: Injection, spec: Mapping[str, Any], *, native: bool) -> dict[str, Any]:
    """Our container for the pod of *spec*. *native*: as an init container that goes on running."""
    requests = {"cpu": settings.cpu_request, "memory": settings.memory_request}
    limits = {"memory": settings.memory_limit} | ({"cpu": settings.cpu_limit} if settings.cpu_limit else {})
    if is_guaranteed(spec):
        limits = {"cpu": settings.cpu_limit or started_by(settings.cpu_request), "memory": settings.memory_limit}
        requests = dict(limits)
    memory = "SIDECAR_CACHE_MEMORY_MAX_BYTES" if settings.memory else "SIDECAR_DEFAULT_CACHE_MEMORY_MAX_BYTES"
    found: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.image,
        "args": ["run", "--config", "/etc/sidecar", "--on-bad-config", "passthrough"],
        "env": [
            {"name": "SIDECAR_POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "SIDECAR_SERVICE_ACCOUNT", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
            {"name": "SIDECAR_HEALTH_HOST", "value": "0.0.0.0"},  # noqa: S104  kubelet asks from outside of the pod
            # the probes ask there, whatever the ConfigMap of the pod's namespace says
            {"name": "SIDECAR_HEALTH_PORT", "value": str(settings.health_port)},
            {"name": memory, "value": settings.memory or DEFAULT_MEMORY},
            {"name": "SIDECAR_STATE_DIR", "value": "/var/lib/sidecar"},
            *_drain(settings, spec.get("terminationGracePeriodSeconds")),
        ],
        "ports": [{"name": "sidecar-metrics", "containerPort": settings.health_port, "protocol": "TCP"}],
        **probes(settings.health_port, behind_mesh=False),
        "resources": {"requests": requests, "limits": limits},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": CONFIG, "mountPath": "/etc/sidecar", "readOnly": True},
            {"name": SECRET, "mountPath": "/etc/sidecar-secret", "readOnly": True},
            {"name": STATE, "mountPath": "/var/lib/sidecar"},
            {"name": TEMPORARY, "mountPath": "/tmp"},  # noqa: S108  of its own container
        ],
    }  # fmt: skip
    if has_resources(spec):
        del found["resources"]
    if native:
        found["restartPolicy"] = "Always"
    else:
        found["lifecycle"] = {"postStart": {"exec": {"command": list(HOLD)}}}
    return found


def probes(port: int, *, behind_mesh: bool) -> dict[str, Any]:
    """
    What kubelet asks our container. *behind_mesh*: by a command in it, for a mesh takes what comes from outside: before
    its proxy runs nothing would arrive, and with strict mutual TLS never.
    """
    start: dict[str, Any]
    live: dict[str, Any]
    slow = {"periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 4}
    if behind_mesh:
        start, live = ({"exec": {"command": list(ASK)}} for _ in range(2))
        often = {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": STARTUP_SECONDS // 2}
    else:
        start, live = ({"httpGet": {"path": path, "port": port, "scheme": "HTTP"}} for path in ("/readyz", "/livez"))
        often = {"periodSeconds": 1, "failureThreshold": STARTUP_SECONDS}
    return {"startupProbe": {**start, **often}, "livenessProbe": {**live, **slow}}


def volumes() -> list[dict[str, Any]]:
    """What our container mounts; a pod starts although the ConfigMap or the Secret is not there."""
    return [
        {"name": CONFIG, "configMap": {"name": CONTAINER, "optional": True}},
        {"name": SECRET, "secret": {"secretName": CONTAINER, "optional": True}},
        {"name": STATE, "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": TEMPORARY, "emptyDir": {"sizeLimit": "64Mi"}},
    ]


def _drain(settings: Injection, grace: Any) -> list[dict[str, str]]:
    """A shorter drain for a pod whose *grace* period would end before ours."""
    grace = GRACE_SECONDS if grace is None else grace
    if type(grace) is not int or grace < 0 or grace >= settings.drain + STOP_SECONDS:
        return []
    return [{"name": "SIDECAR_LIMITS_DRAIN", "value": f"{max(grace - STOP_SECONDS, grace // 2)}s"}]


def has_resources(spec: Mapping[str, Any]) -> bool:
    """
    Whether the pod as a whole has requests or limits, as from 1.34 on. Those of its containers must fit in, else the
    API server refuses the pod; so ours has none and shares what there is.
    """
    resources = spec.get("resources") or {}
    return bool(resources.get("requests") or resources.get("limits"))


def is_guaranteed(spec: Mapping[str, Any]) -> bool:
    """Whether a pod has the quality of service Guaranteed: in each of its containers requests are the limits."""
    for one in (*(spec.get("initContainers") or ()), *spec["containers"]):
        resources = one.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        if not {"cpu", "memory"} <= limits.keys():
            return False
        if any(amount(requests.get(name, limits[name])) != amount(limits[name]) for name in ("cpu", "memory")):
            return False
    return True
