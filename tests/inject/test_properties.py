"""What holds of every pod: valid as before, twice is once, and back again; and whatever arrives is admitted."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.pods.environment import EXCEPTIONS
from sidecar.core.pods.inject import MESH, Injected, Kept, inject, is_injected, uninject
from sidecar.core.pods.settings import CONTAINER, INJECT, Injection, Reachable
from sidecar.inject.admission import LONGEST_WARNING, MOST_WARNINGS, ReviewResult, request_of, review_config, review_pod
from tests.core.pods.applied import applied
from tests.inject.pods import containers, names, pods
from tests.inject.schemas import problem

HERE = "http://127.0.0.1:7400"
SERVICES = (
    Reachable("openai", f"{HERE}/openai", ("https://api.openai.com",), "OPENAI_BASE_URL", "/v1"),
    Reachable("anthropic", f"{HERE}/anthropic", ("https://api.anthropic.com",), "ANTHROPIC_BASE_URL"),
    Reachable("azure-openai", f"{HERE}/azure", ("https://{resource}.openai.azure.com",), azure=True),
)
VERSIONS = {"1.27": (1, 27), "1.34": (1, 34)}


def injection(version: str, *, identity: bool = False) -> Injection:
    return Injection("image@sha256:1", SERVICES, version=VERSIONS[version], identity=identity)


def as_document(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod with what makes it a document; a null is what is not there."""
    spec = {name: value for name, value in pod["spec"].items() if value is not None}
    metadata = {name: value for name, value in (pod.get("metadata") or {}).items() if value is not None}
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [{name: value for name, value in one.items() if value is not None} for one in spec[kind]]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("version", VERSIONS)
@given(pod=pods(), identity=st.booleans())
@settings(max_examples=100)
def test_every_pod(version: str, pod: dict[str, Any], *, identity: bool):
    """Valid as before, twice is once, back as it was, and nothing of it changed but the environment."""
    before = deepcopy(pod)
    outcome = inject(pod, injection(version, identity=identity))

    assert before == pod

    if not isinstance(outcome, Injected):
        assert pod is outcome.pod
        return

    again = inject(outcome.pod, injection(version, identity=identity))

    assert isinstance(again, Injected)
    assert (outcome.pod, outcome.warnings, outcome.arrivals) == (again.pod, again.warnings, again.arrivals)
    assert is_injected(outcome.pod)
    assert before == uninject(outcome.pod)
    assert "" == problem(as_document(outcome.pod), version)
    for kind in ("containers", "initContainers"):
        theirs = [one for one in outcome.pod["spec"].get(kind) or () if one["name"] != CONTAINER]

        assert [bare(one) for one in pod["spec"].get(kind) or ()] == [bare(one) for one in theirs]
        for was, become in zip(pod["spec"].get(kind) or (), theirs, strict=True):
            unharmed(was, become)


def bare(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name != "env"}


def unharmed(was: dict[str, Any], become: dict[str, Any]) -> None:
    """No variable is lost or moved; what is changed leads here, or keeps loopback away from a proxy."""
    old, new = was.get("env") or [], become.get("env") or []

    assert [each["name"] for each in old] == [each["name"] for each in new[: len(old)]]
    for changed in [each for at, each in enumerate(new) if at >= len(old) or each != old[at]]:
        assert changed["value"].startswith(f"{HERE}/") or changed["name"] in EXCEPTIONS
    if was["name"] in MESH:
        assert old == new


@given(pod=pods(), later=containers, name=names, first=st.booleans(), env=st.sampled_from(["https://x.example", ""]))
@settings(max_examples=100)
def test_other_webhooks(pod: dict[str, Any], later: dict[str, Any], name: str, *, first: bool, env: str):
    """Whatever one adds or changes after us, the second call settles it, and ours stands before what needs it."""
    outcome = inject(pod, injection("1.34"))
    if not isinstance(outcome, Injected):
        return
    changed = deepcopy(dict(outcome.pod))
    spec = changed["spec"]
    if name not in {one["name"] for one in (*spec["initContainers"], *spec["containers"])}:
        if first:
            spec["initContainers"].insert(0, {"name": name, **later})
        else:
            spec["containers"].append({"name": name, **later})
    for variable in spec["containers"][0].get("env") or ():
        if env and "value" in variable:
            variable["value"] = env
    settled = inject(changed, injection("1.34"))
    if isinstance(settled, Kept):
        assert settled.reason.startswith("port ")
        assert not is_injected(settled.pod)
        assert "" == problem(as_document(dict(settled.pod)), "1.34")
        return

    again = inject(settled.pod, injection("1.34"))

    assert isinstance(again, Injected)
    assert settled.pod == again.pod

    order = [one["name"] for one in settled.pod["spec"]["initContainers"]]

    assert set(order[: order.index(CONTAINER)]) <= MESH

    back = uninject(settled.pod)

    assert not is_injected(back)
    assert "" == problem(as_document(dict(back)), "1.34")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9000) | st.sampled_from(["", "x", "Pod", "Job", CONTAINER, "disabled"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([
                "metadata", "spec", "containers", "initContainers", "name", "env", "annotations", "labels", "volumes",
                INJECT, "ai-sidecar.dev/status", "ports", "containerPort", "resources", "limits", "affinity", "value",
                "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", "kind", "os",
                "matchExpressions", "ownerReferences", "nodeSelector", "kubernetes.io/arch", "data", "a.yaml",
            ]),
            inner, max_size=5,
        )
    ),
    max_leaves=15,
)  # fmt: skip


nearly_pods = st.fixed_dictionaries({"spec": st.fixed_dictionaries({"containers": st.lists(json_values, max_size=2)})})
requests = st.dictionaries(
    st.sampled_from(["namespace", "operation", "kind", "subResource", "dryRun"]), json_values, max_size=2
)


@given(pod=json_values | nearly_pods, request=requests)
@settings(max_examples=200)
def test_whatever_arrives(pod: Any, request: dict[str, Any]):
    """It is admitted, under its own uid, without a bug, with few and short warnings."""
    review = review_pod({**request, "uid": "u-1", "object": pod}, injection("1.34"), pytest.fail)
    response = json.loads(review.encode())["response"]

    assert ("u-1", True) == (response["uid"], response["allowed"])
    assert review.result in {ReviewResult.KEPT, ReviewResult.INJECTED}
    assert len(response.get("warnings", ())) <= MOST_WARNINGS
    assert all(len(line) <= LONGEST_WARNING for line in response.get("warnings", ()))
    if "patch" in response:
        assert isinstance(applied(pod, json.loads(base64.b64decode(response["patch"]))), dict)


@given(json_values)
def test_whatever_configuration_arrives(value: Any):
    """What is no ConfigMap is nobody's business."""
    assert review_config({"uid": "u", "object": value}, lambda *_: None, pytest.fail).response["allowed"]


@given(pod=pods())
def test_the_patch_is_the_injection(pod: dict[str, Any]):
    """What an API server makes of the pod is what the pure function makes of it."""
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u", "object": pod}}
    request = request_of(json.dumps(body).encode())
    outcome = inject(pod, injection("1.34"))
    response = json.loads(review_pod(request, injection("1.34"), pytest.fail).encode())["response"]
    patch = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []

    if isinstance(outcome, Injected):
        assert outcome.pod == applied(pod, patch)
    else:
        assert {"/metadata"} >= {"/" + each["path"].split("/")[1] for each in patch}
