"""
What the webhook answers to the API server (``admission.k8s.io/v1``): a patch for a pod, a verdict on a ConfigMap.

The rule: nothing here stops a pod. Whatever goes wrong, the object is admitted as it is, and the reason is said.
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
from sidecar.core.pods.shape import shape_of
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
    """
    An answer for the API server, and what became of the review. *why* is the reason if a pod was kept or a
    configuration denied.
    """

    response: Mapping[str, Any]
    result: ReviewResult
    why: str = ""

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


def review_config(
    request: Mapping[str, Any], check: Callable[[str, str], None], report: Callable[[BaseException], None]
) -> Review:
    """
    Allow the ConfigMap of *request* if each configuration in it is right. *check* raises ``ConfigError``. *report* gets
    bugs.
    """
    uid = request["uid"]
    try:
        return _checked(request, check)
    except Exception as error:  # noqa: BLE001  sidecars say themselves what they cannot use
        report(error)
        text = "ai-sidecar: not checked, because of a bug of the webhook; its log says where"
        return Review({"uid": uid, "allowed": True, "warnings": [text]}, ReviewResult.FAILED)


def _checked(request: Mapping[str, Any], check: Callable[[str, str], None]) -> Review:
    uid = request["uid"]
    found = request.get("object")
    data = found.get("data") if isinstance(found, Mapping) else None
    problems: list[str] = []
    for name, text in data.items() if isinstance(data, Mapping) else ():
        if str(name).endswith((".yaml", ".yml")) and isinstance(text, str):
            try:
                check(text, str(name))
            except ConfigError as error:
                problems += error.problems
    if not problems:
        return Review({"uid": uid, "allowed": True}, ReviewResult.ALLOWED)
    status = {"code": 422, "reason": "Invalid", "message": "\n".join(problems)}
    return Review({"uid": uid, "allowed": False, "status": status}, ReviewResult.DENIED, problems[0])


def _reviewed(request: Mapping[str, Any], settings: Injection) -> Review:
    pod, uid = request.get("object"), request["uid"]
    if not _creates_pod(request) or not isinstance(pod, dict):
        return Review({"uid": uid, "allowed": True}, ReviewResult.KEPT)
    outcome = inject(pod, settings, namespace=_namespace(request), owner=_owner(pod))
    if isinstance(outcome, Kept):
        after, warnings = _explained(outcome), [f"not injected: {outcome.reason}"]
    else:
        after, warnings = outcome.pod, outcome.warnings
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations := diff(pod, after):
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.encode(operations)).decode()}
    if warnings:
        response["warnings"] = _shortened(warnings)
    if isinstance(outcome, Kept):
        return Review(response, ReviewResult.KEPT, outcome.reason)
    return Review(response, ReviewResult.INJECTED)


def subject_of(request: Mapping[str, Any]) -> dict[str, str]:
    """What a review is about, for the log. The ``name`` of a pod that the API server will name is its prefix."""
    found = request.get("object")
    metadata = found.get("metadata") if isinstance(found, Mapping) else None
    names = metadata if isinstance(metadata, Mapping) else {}
    name = request.get("name") or names.get("name") or names.get("generateName") or ""
    return {"namespace": _namespace(request), "name": name if isinstance(name, str) else ""}


def _creates_pod(request: Mapping[str, Any]) -> bool:
    """
    Whether a pod is about to be made. Nothing else can be injected: of a pod that is there, the API server takes no new
    container.
    """
    kind = request.get("kind", {"kind": "Pod"})
    group = kind.get("group", "") if isinstance(kind, Mapping) else None
    return (
        isinstance(kind, Mapping)
        and (kind.get("kind"), group) == ("Pod", "")
        and request.get("operation", "CREATE") == "CREATE"
        and not request.get("subResource")
    )


def _namespace(request: Mapping[str, Any]) -> str:
    found = request.get("namespace")
    return found if isinstance(found, str) else ""


def _owner(pod: Mapping[str, Any]) -> str:
    """``Job`` if one of the owners of *pod* is one."""
    metadata = pod.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    listed = owners if isinstance(owners, list) else []
    return "Job" if any(isinstance(owner, Mapping) and owner.get("kind") == "Job" for owner in listed) else ""


def _shortened(warnings: list[str]) -> list[str]:
    """*warnings* within what an API server hands on."""
    shown = warnings if len(warnings) <= MOST_WARNINGS else warnings[: MOST_WARNINGS - 1]
    lines = [f"ai-sidecar: {line}"[:LONGEST_WARNING] for line in shown]
    more = len(warnings) - len(shown)
    return [*lines, f"ai-sidecar: and {more} more; `sidecar inject --report` shows all"] if more else lines


def _explained(kept: Kept) -> Mapping[str, Any]:
    """
    The pod with the reason why it was not injected; unless its owner has said so, it has no form of a pod, or there is
    no room for it.
    """
    if isinstance(shape_of(kept.pod), str):
        return kept.pod
    metadata = kept.pod.get("metadata") or {}
    if (metadata.get("labels") or {}).get(INJECT) == "disabled":
        return kept.pod
    annotations = {**(metadata.get("annotations") or {}), REASON: kept.reason}
    return {**kept.pod, "metadata": {**metadata, "annotations": annotations}} if fits(annotations) else kept.pod
