"""
Pods that should have a sidecar and have none: created while no webhook answered, or before their namespace got its
label.

The rule: who was left out for a reason is not missed. The webhook counts, and restarts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sidecar.core.pods.reasons import MIRROR, SYSTEM
from sidecar.core.pods.settings import INJECT, REASON, STATUS
from sidecar.inject.api_server import ApiServer, ObjectMetadata

_NAMESPACES = "/api/v1/namespaces"
_LIVING = "status.phase!=Succeeded,status.phase!=Failed"


async def namespaces(api: ApiServer) -> dict[str, str]:
    """
    What the label of each namespace says, ``""`` without one. One that is being deleted takes nothing new, and is not
    named. Raises ``ApiServerError``.
    """
    return {
        each.name: (each.labels or {}).get(INJECT, "")
        async for each in api.listed(_NAMESPACES)
        if each.name not in {*SYSTEM, api.namespace} and each.being_deleted is None
    }


async def missed_pods(api: ApiServer, said: Mapping[str, str]) -> Mapping[str, int]:
    """
    How many pods of each namespace are missed; *said* is what the namespaces' labels say. A namespace whose label says
    enabled is always named. Raises ``ApiServerError``.
    """
    enabled = [name for name, label in said.items() if label == "enabled"]
    counted: Counter[str] = Counter(dict.fromkeys(enabled, 0))
    for name in enabled:
        async for pod in api.listed(
            f"{_NAMESPACES}/{name}/pods", fieldSelector=_LIVING, labelSelector=f"{INJECT}!=disabled"
        ):
            counted[name] += is_missed(pod)
    async for pod in api.listed("/api/v1/pods", fieldSelector=_LIVING, labelSelector=f"{INJECT}=enabled"):
        if said.get(pod.namespace, "disabled") == "" and is_missed(pod):
            counted[pod.namespace] += 1
    return counted


def is_missed(pod: ObjectMetadata) -> bool:
    """Whether a pod that is to be injected bears neither our status nor the reason why it has no sidecar."""
    annotations = pod.annotations or {}
    return pod.being_deleted is None and not {STATUS, REASON, MIRROR} & annotations.keys()
