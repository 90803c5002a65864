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

SETTINGS = Injection("image@sha256:1", (Reachable("openai", "http://127.0.0.1:7400/openai"),))
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
    pod = {**POD, "metadata": {"ownerReferences": [{"kind": "Job"}]}}
    old = Injection("image", SETTINGS.services, version=(1, 27))

    assert ReviewResult.KEPT is review_pod({"uid": "u", "object": pod}, old, pytest.fail).result


@pytest.mark.parametrize("pod", [None, [], {}, {"spec": None}, {"spec": []}])
def test_what_is_no_pod(pod):
    """Is admitted as it is."""
    review = review_pod({"uid": "u", "object": pod}, SETTINGS, pytest.fail)

    assert {"uid": "u", "allowed": True} == review.response


@pytest.mark.parametrize("pod", [{"spec": {"containers": [1]}}, {"spec": {"containers": [{}]}, "metadata": 3}])
def test_a_bug_stops_no_pod(pod):
    """The pod is admitted, the caller hears of it, and so does the log."""
    bugs: list[BaseException] = []
    review = review_pod({"uid": "u", "object": pod}, SETTINGS, bugs.append)

    assert (True, ReviewResult.FAILED, 1) == (review.response["allowed"], review.result, len(bugs))
    assert "patch" not in review.response


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
        return review_config({"uid": "u", "object": {"data": data}}, check)

    assert ReviewResult.ALLOWED is answer({"sidecar.yaml": "good", "notes.txt": "bad"}).result
    assert ReviewResult.ALLOWED is review_config({"uid": "u"}, check).result

    denied = answer({"sidecar.yaml": "bad"})

    assert (False, "sidecar.yaml:1: wrong") == (denied.response["allowed"], denied.response["status"]["message"])
