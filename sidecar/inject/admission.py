"""
What the webhook answers to the API server (``admission.k8s.io/v1``): a patch for a pod, a verdict on a ConfigMap.

The rule: nothing here stops a pod. Whatever goes wrong, the pod is admitted as it is, and the reason is said.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.pods.inject import Kept, fits, inject
from sidecar.core.pods.patch import diff
from sidecar.core.pods.settings import INJECT, REASON, Injection
from sidecar.errors import ConfigError, Refused

VERSION = "admission.k8s.io/v1"

LONGEST_WARNING = 250
"""Characters of a warning; API servers cut longer ones (KEP-1693)."""

MOST_WARNINGS = 10


class ReviewResult(StrEnum):
    """What became of a review; for metrics."""

    INJECTED = "injected"
    KEPT = "kept"
    FAILED = "failed"
    ALLOWED = "allowed"
    DENIED = "denied"


class Review(Struct, frozen=True):
    """An answer for the API server, and what became of the review."""

    response: Mapping[str, Any]
    result: ReviewResult

    def encode(self) -> bytes:
        """The body of the answer."""
        return json.encode({"apiVersion": VERSION, "kind": "AdmissionReview", "response": self.response})


def request_of(body: bytes) -> Mapping[str, Any]:
    """The request in an AdmissionReview. Raises ``Refused`` for what is none."""
    try:
        document = json.decode(body)
    except UNREADABLE:
        raise Refused(400, "bad-json", "the body is not JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise Refused(400, "no-review", "the body is no AdmissionReview")
    if document.get("apiVersion") != VERSION:
        raise Refused(400, "wrong-version", f"this webhook takes {VERSION}; name it in admissionReviewVersions")
    request = document.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise Refused(400, "no-request", "the review holds no request with a uid")
    return request


def review_pod(request: Mapping[str, Any], settings: Injection, report: Callable[[BaseException], None]) -> Review:
    """Inject the pod of *request*, or say why not. *report* gets bugs."""
    uid = request["uid"]
    try:
        return _reviewed(request, settings)
    except Exception as error:  # noqa: BLE001  no bug of ours may stop a pod
        report(error)
        text = "ai-sidecar: not injected, because of a bug of the webhook; its log says where"
        return Review({"uid": uid, "allowed": True, "warnings": [text]}, ReviewResult.FAILED)


def review_config(request: Mapping[str, Any], check: Callable[[str, str], None]) -> Review:
    """Allow the ConfigMap of *request* if each configuration in it is right. *check* raises ``ConfigError``."""
    uid = request["uid"]
    data = (request.get("object") or {}).get("data") or {}
    problems: list[str] = []
    for name, text in data.items():
        if str(name).endswith((".yaml", ".yml")) and isinstance(text, str):
            try:
                check(text, str(name))
            except ConfigError as error:
                problems += error.problems
    if not problems:
        return Review({"uid": uid, "allowed": True}, ReviewResult.ALLOWED)
    status = {"code": 422, "reason": "Invalid", "message": "\n".join(problems)}
    return Review({"uid": uid, "allowed": False, "status": status}, ReviewResult.DENIED)


def _reviewed(request: Mapping[str, Any], settings: Injection) -> Review:
    pod, uid = request.get("object"), request["uid"]
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        return Review({"uid": uid, "allowed": True}, ReviewResult.KEPT)
    owners = (pod.get("metadata") or {}).get("ownerReferences") or [{}]
    outcome = inject(pod, settings, namespace=request.get("namespace") or "", owner=owners[0].get("kind", ""))
    if isinstance(outcome, Kept):
        after, warnings = _explained(outcome), [f"not injected: {outcome.reason}"]
    else:
        after, warnings = outcome.pod, outcome.warnings
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations := diff(pod, after):
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.encode(operations)).decode()}
    if warnings:
        response["warnings"] = [f"ai-sidecar: {line}"[:LONGEST_WARNING] for line in warnings[:MOST_WARNINGS]]
    return Review(response, ReviewResult.KEPT if isinstance(outcome, Kept) else ReviewResult.INJECTED)


def _explained(kept: Kept) -> Mapping[str, Any]:
    """The pod with the reason why it was not injected; unless its owner has said so, or there is no room for it."""
    metadata = kept.pod.get("metadata") or {}
    if (metadata.get("labels") or {}).get(INJECT) == "disabled":
        return kept.pod
    annotations = {**(metadata.get("annotations") or {}), REASON: kept.reason}
    return {**kept.pod, "metadata": {**metadata, "annotations": annotations}} if fits(annotations) else kept.pod
