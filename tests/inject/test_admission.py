"""Reviews of the API server, and what is answered."""

from __future__ import annotations

import base64
import json
from copy import deepcopy
from typing import Any

import pytest

from sidecar.core.pods.settings import INJECT, Injection, Reachable
from sidecar.errors import ConfigError, Refused
from sidecar.inject.admission import REASON, ReviewResult, request_of, review_config, review_pod
from tests.core.pods.applied import applied

SETTINGS = Injection(
    "image@sha256:1", (Reachable("openai", "http://127.0.0.1:7400/openai", setting="OPENAI_BASE_URL", behind="/v1"),)
)
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}]}}


def body(uid: Any = "u", **more: Any) -> bytes:
    document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": uid}}
    return json.dumps(document | more).encode()


def reviewed(pod: Any, **request: Any):
    """The answer, and the pod after it."""
    bugs: list[BaseException] = []
    review = review_pod({"uid": "u", "object": pod, **request}, SETTINGS, bugs.append)
    assert [] == bugs
    response = json.loads(review.encode())["response"]
    assert ("u", True) == (response["uid"], response["allowed"])
    operations = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    return review.result, response, applied(pod, operations)


def test_a_pod():
    """It is patched; nothing else is said."""
    result, response, after = reviewed(deepcopy(POD))

    assert (ReviewResult.INJECTED, "JSONPatch") == (result, response["patchType"])
    assert ["ai-sidecar"] == [one["name"] for one in after["spec"]["initContainers"]]


def test_a_pod_that_is_injected():
    """A second review changes nothing."""
    _, _, after = reviewed(deepcopy(POD))
    result, response, again = reviewed(after)

    assert (ReviewResult.INJECTED, after) == (result, again)
    assert "patch" not in response


def test_a_pod_that_is_kept():
    """The reason is written into it, and told."""
    result, response, after = reviewed({**POD, "spec": {**POD["spec"], "hostNetwork": True}})

    assert ReviewResult.KEPT is result
    assert "hostNetwork" in after["metadata"]["annotations"][REASON]
    assert any("hostNetwork" in line for line in response["warnings"])


def test_a_pod_without_room():
    """An API server takes so many annotations: the pod stays as it is, and the reason is only told."""
    pod = {**POD, "metadata": {"annotations": {"x": "y" * (256 * 1024 - 10)}}}
    result, response, after = reviewed(pod)

    assert (ReviewResult.KEPT, pod) == (result, after)
    assert any("annotations" in line for line in response["warnings"])


def test_a_pod_whose_owner_said_no():
    """It stays exactly as it is."""
    pod = {"metadata": {"labels": {INJECT: "disabled"}}, "spec": POD["spec"]}

    assert (ReviewResult.KEPT, pod) == reviewed(pod)[::2]


def test_the_owner_counts():
    """A Job's pod, on an old cluster, is kept."""
    pod = {**POD, "metadata": {"ownerReferences": [{"kind": "Workflow"}, {"kind": "Job"}]}}
    old = Injection("image", SETTINGS.services, version=(1, 27))

    assert ReviewResult.KEPT is review_pod({"uid": "u", "object": pod}, old, pytest.fail).result


@pytest.mark.parametrize("pod", [None, [], 3, "x"])
def test_what_is_no_object(pod):
    """Is admitted as it is."""
    review = review_pod({"uid": "u", "object": pod}, SETTINGS, pytest.fail)

    assert {"uid": "u", "allowed": True} == review.response


@pytest.mark.parametrize(
    "pod",
    [
        {},
        {"spec": None},
        {"spec": []},
        {"spec": {"containers": [1]}},
        {"spec": {"containers": [{}]}},
        {"spec": {"containers": [{"name": "a", "env": [{}]}]}},
        {"spec": {"containers": [{"name": "a"}]}, "metadata": 3},
    ],
)
def test_what_is_no_pod(pod):
    """Is admitted as it is, and its sender is told what is wrong."""
    result, response, after = reviewed(pod)

    assert (ReviewResult.KEPT, pod) == (result, after)
    assert "does not have the form of a pod" in response["warnings"][0]


def test_a_bug_stops_no_pod(monkeypatch):
    """The pod is admitted, the caller hears of it, and so does the log."""
    bugs: list[BaseException] = []
    monkeypatch.setattr("sidecar.inject.admission.inject", lambda *_, **__: 1 / 0)
    review = review_pod({"uid": "u", "object": POD}, SETTINGS, bugs.append)

    assert (True, ReviewResult.FAILED, 1) == (review.response["allowed"], review.result, len(bugs))
    assert "patch" not in review.response
    assert "bug" in review.response["warnings"][0]


@pytest.mark.parametrize(
    "request_more",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None, "oldObject": POD},
        {"operation": "CONNECT"},
        {"subResource": "ephemeralcontainers", "operation": "UPDATE"},
        {"subResource": "binding"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
        {"kind": "Pod"},
        {"kind": None},
    ],
)
def test_what_makes_no_pod(request_more):
    """An update, a subresource, another kind: it is admitted as it is, and nothing is said."""
    review = review_pod({"uid": "u", "object": POD, **request_more}, SETTINGS, pytest.fail)

    assert (ReviewResult.KEPT, {"uid": "u", "allowed": True}) == (review.result, review.response)


@pytest.mark.parametrize(
    "request_more",
    [
        {"dryRun": True},
        {"operation": "CREATE", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "subResource": ""},
        {"namespace": ""},
        {"namespace": None},
        {"namespace": ["kube-system"]},
        {"name": ""},
    ],
)
def test_what_makes_a_pod(request_more):
    """A dry run is answered as any other, and a pod may have neither name nor namespace."""
    nameless = {"metadata": {"generateName": "p-"}, "spec": POD["spec"]}

    assert ReviewResult.INJECTED is reviewed(nameless, **request_more)[0]


def test_many_warnings():
    """An API server hands on 4 096 bytes of them, and 256 of each."""
    containers = [{"name": f"{'n' * 300}{at}", "envFrom": [{}]} for at in range(20)]
    _, response, _ = reviewed({**POD, "spec": {"containers": containers}})
    lines = response["warnings"]

    assert (10, "ai-sidecar: and 31 more; `sidecar inject --report` shows all") == (len(lines), lines[-1])
    assert all(len(line) <= 250 for line in lines)


@pytest.mark.parametrize("owners", [None, [], {}, [1], [{}], [{"kind": "ReplicaSet"}, 3]])
def test_owners_of_any_form(owners):
    """Only a Job counts, wherever it stands."""
    assert ReviewResult.INJECTED is reviewed({**POD, "metadata": {"ownerReferences": owners}})[0]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "bad-json"),
        (b"{", "bad-json"),
        (body()[:-3], "bad-json"),
        (b"[]", "no-review"),
        (body(kind="Pod"), "no-review"),
        (body(apiVersion="admission.k8s.io/v1beta1"), "wrong-version"),
        (body(request={}), "no-request"),
        (body(3), "no-request"),
        (body(""), "no-request"),
        (b'{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}', "no-request"),
    ],
)
def test_what_is_no_review(data: bytes, code: str):
    """It is refused, and says what would be one."""
    with pytest.raises(Refused) as caught:
        request_of(data)

    assert (400, code) == (caught.value.status, caught.value.code)


def test_configurations():
    """A wrong one is denied with its problems; other files of the ConfigMap are nobody's business."""

    def check(text: str, name: str) -> None:
        if text == "bad":
            raise ConfigError((f"{name}:1: wrong",))

    def answer(data: Any):
        return review_config({"uid": "u", "object": {"data": data}}, check, pytest.fail)

    assert ReviewResult.ALLOWED is answer({"sidecar.yaml": "good", "notes.txt": "bad"}).result
    assert ReviewResult.ALLOWED is review_config({"uid": "u"}, check, pytest.fail).result

    denied = answer({"sidecar.yaml": "bad"})

    assert (False, "sidecar.yaml:1: wrong") == (denied.response["allowed"], denied.response["status"]["message"])


def test_a_bug_refuses_no_configuration():
    """It is admitted unchecked, which is said: a disk without room is no fault of who applies it."""
    bugs: list[BaseException] = []

    def check(*_: str) -> None:
        raise OSError(28, "No space left on device")

    review = review_config({"uid": "u", "object": {"data": {"sidecar.yaml": ""}}}, check, bugs.append)

    assert (True, ReviewResult.FAILED, 1) == (review.response["allowed"], review.result, len(bugs))
    assert "not checked" in review.response["warnings"][0]
