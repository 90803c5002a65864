"""Pods that should have a sidecar and have none."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.pods.reasons import MIRROR
from sidecar.core.pods.settings import INJECT, REASON, STATUS
from sidecar.inject.api_server import ObjectMetadata
from sidecar.inject.missed import is_missed, missed_pods, namespaces


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, True),
        ({"annotations": {"other": "x"}}, True),
        ({"annotations": {STATUS: "{}"}}, False),
        ({"annotations": {REASON: "hostNetwork"}}, False),
        ({"annotations": {MIRROR: "x"}}, False),
        ({"being_deleted": "2026-11-30T00:00:00Z"}, False),
    ],
    ids=["nothing", "annotated", "injected", "reason", "mirror", "leaving"],
)
def test_who_is_missed(metadata: dict[str, Any], expected: bool):
    """Who has neither a sidecar nor a reason."""
    assert expected == is_missed(ObjectMetadata(**metadata))


async def test_a_cluster(small_api):
    """Counted where a namespace or a pod asks for it; elsewhere nothing is."""
    server, api = small_api
    for name, label in (("a", "enabled"), ("b", ""), ("c", "disabled"), ("d", "enabled"), ("kube-system", "enabled")):
        server.namespace(name, label)
    server.namespace("ai-sidecar", "enabled")
    leaving = {"labels": {INJECT: "enabled"}, "deletionTimestamp": "2026-11-30T00:00:00Z"}
    server.put("/api/v1/namespaces/leaving", {"metadata": leaving})
    server.pod("a", "missed")
    server.pod("a", "asks", labels={INJECT: "enabled"})
    server.pod("a", "opted-out", labels={INJECT: "disabled"})
    server.pod("a", "injected", annotations={STATUS: "{}"})
    server.pod("a", "done", phase="Succeeded")
    server.pod("b", "asks", labels={INJECT: "enabled"})
    server.pod("b", "does-not")
    server.pod("c", "asks-in-vain", labels={INJECT: "enabled"})
    server.pod("kube-system", "p")
    server.pod("ai-sidecar", "p", labels={INJECT: "enabled"})
    said = await namespaces(api)

    assert {"a": "enabled", "b": "", "c": "disabled", "d": "enabled"} == said
    assert {"a": 2, "b": 1, "d": 0} == await missed_pods(api, said)
