"""Which pods stay as they are, and why."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.pods.inject import Injected, Kept, inject, uninject
from sidecar.core.pods.settings import INJECT, Injection, Reachable

SERVICES = (Reachable("openai", "http://127.0.0.1:7400/openai", (), "OPENAI_BASE_URL", "/v1"),)
NATIVE = Injection("image@sha256:1", SERVICES)
CLASSIC = Injection("image@sha256:1", SERVICES, version=(1, 28))


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}], **spec}}


def affinity(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    selector = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def must(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": f"kubernetes.io/{key}", "operator": operator, "values": [*values]}


def listening(**more: Any) -> dict[str, Any]:
    return {"name": "app", **more}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ""),
        ({"affinity": None}, ""),
        ({"affinity": {"nodeAffinity": None, "podAffinity": {}}}, ""),
        ({"affinity": affinity([must("arch", "In", "amd64", "arm64")])}, ""),
        ({"affinity": affinity([must("arch", "In", "amd64", "s390x")])}, "s390x"),
        ({"affinity": affinity([must("arch", "In", "amd64")], [must("arch", "In", "ppc64le")])}, "ppc64le"),
        ({"affinity": affinity([must("arch", "NotIn", "amd64", "arm64")])}, "other than amd64, arm64"),
        ({"affinity": affinity([must("arch", "NotIn", "arm64")])}, ""),
        ({"affinity": affinity([must("os", "In", "windows")])}, "windows"),
        ({"affinity": affinity([must("os", "NotIn", "linux")])}, "windows"),
        ({"affinity": affinity([must("os", "In", "linux")])}, ""),
        ({"affinity": affinity([must("hostname", "In", "windows")])}, ""),
        ({"nodeSelector": {"beta.kubernetes.io/arch": "s390x"}}, "s390x"),
        ({"nodeSelector": {"beta.kubernetes.io/os": "windows"}}, "windows"),
        ({"nodeSelector": {"node.kubernetes.io/windows-build": "10.0.20348"}}, "windows"),
        ({"nodeSelector": {"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}}, ""),
        ({"os": {"name": "linux"}}, ""),
        ({"os": None}, ""),
        ({"securityContext": {"windowsOptions": {"hostProcess": True}}}, "windows"),
        ({"hostNetwork": False}, ""),
        ({"hostPID": True, "hostIPC": True, "shareProcessNamespace": True}, ""),
        ({"containers": [listening(ports=[{"containerPort": 7400}])]}, "port 7400"),
        ({"containers": [listening(ports=[{"containerPort": 7400, "protocol": "TCP"}])]}, "port 7400"),
        ({"containers": [listening(ports=[{"containerPort": 7400, "protocol": "UDP"}])]}, ""),
        ({"containers": [listening(ports=[{"containerPort": 80, "hostPort": 7400}])]}, ""),
        ({"containers": [listening(ports=[{"name": "sidecar-metrics", "containerPort": 80}])]}, ""),
        ({"initContainers": [listening(name="first", ports=[{"containerPort": 7491}])]}, "port 7491"),
        ({"containers": [listening(livenessProbe={"tcpSocket": {"port": 7490}})]}, "port 7490"),
        ({"containers": [listening(startupProbe={"httpGet": {"port": "http"}})]}, ""),
        ({"containers": [listening(startupProbe={"exec": {"command": ["true"]}})]}, ""),
        ({"volumes": [{"name": "ai-sidecar-tmp"}]}, "a volume called ai-sidecar-tmp"),
        ({"initContainers": [{"name": "ai-sidecar"}]}, "a container called ai-sidecar"),
        ({"containers": []}, "no containers"),
        ({"containers": None}, "no containers"),
        ({"containers": [{"name": ""}]}, "form of a pod"),
        ({"containers": [{"name": "a", "env": {}}]}, "form of a pod"),
        ({"volumes": {}}, "form of a pod"),
    ],
)
def test_native(spec, expected):
    """A pod that stays is the very same object."""
    one = pod(**spec)
    outcome = inject(one, NATIVE)

    assert isinstance(outcome, Kept) == bool(expected), outcome
    if isinstance(outcome, Kept):
        assert one is outcome.pod
        assert expected in outcome.reason
    else:
        assert one == uninject(outcome.pod)


@pytest.mark.parametrize(
    ("policy", "owner", "kept"),
    [(None, "", False), ("Always", "ReplicaSet", False), ("Never", "", True), ("OnFailure", "Workflow", True),
     ("Never", "Job", True), (None, "Job", True)],
)  # fmt: skip
def test_what_runs_to_its_end(policy, owner, kept):
    """It would not end beside a container that goes on running, whoever made it; a native sidecar ends with it."""
    one = pod(restartPolicy=policy)

    assert kept is isinstance(inject(one, CLASSIC, owner=owner), Kept)
    assert isinstance(inject(one, NATIVE, owner=owner), Injected)


@pytest.mark.parametrize("label", ["disabled", "false", "", 0, [], {}])
def test_labels_that_say_no(label):
    """Whatever is written there that is not `enabled` is no consent."""
    one = {**pod(), "metadata": {"labels": {INJECT: label}}}

    assert isinstance(inject(one, NATIVE), Kept)


def test_what_became_impossible():
    """Another webhook gives the pod the node's network after us: ours is taken out again."""
    once = inject(pod(), NATIVE)
    assert isinstance(once, Injected)
    outcome = inject({**once.pod, "spec": {**once.pod["spec"], "hostNetwork": True}}, NATIVE)

    assert isinstance(outcome, Kept)
    assert pod(hostNetwork=True) == outcome.pod
