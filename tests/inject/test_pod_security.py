"""
The restricted Pod Security Standard, by the rules of a third party (policy-guard): injection breaks none of them that
the pod keeps by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from policy_guard.analyzers import container_security, pod_security
from policy_guard.parser import parse_manifests

from sidecar.core.pods.settings import CONTAINER, Injection, Reachable
from sidecar.inject.manifests import inject_all, read, write

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = Injection(
    "registry.example/ai-sidecar:1@sha256:0",
    (Reachable("openai", "http://127.0.0.1:7400/openai", setting="OPENAI_BASE_URL", behind="/v1"),),
)
ASKED_OF_PODS = {"PG-CTR-002"}
"""No readinessProbe: a sidecar that is not ready must not take its pod out of service."""


def violations(documents: list[Any], folder: Path) -> set[tuple[str, str]]:
    """The rules that *documents* break, each with the container that breaks it."""
    file = folder / "manifest.yaml"
    file.write_text(write(documents))
    resources = parse_manifests(str(file))
    assert resources
    found = [*pod_security.analyze(resources), *container_security.analyze(resources)]
    return {(each.rule_id, each.container_name) for each in found}


@pytest.mark.parametrize("version", [(1, 27), (1, 34)])
@pytest.mark.parametrize("name", ["restricted", "root", "deployment", "istio", "quota"])
def test_nothing_new(name: str, version: tuple[int, int], tmp_path: Path):
    """What is found after an injection was found before."""
    documents = read((GOLDEN / f"{name}.yaml").read_text(), name)
    settings = Injection(SETTINGS.image, SETTINGS.services, version=version)
    after, [finding] = inject_all(documents, settings)
    new = violations(after, tmp_path) - violations(documents, tmp_path)

    assert "" == finding.reason
    assert {rule for rule, container in new if container == CONTAINER} <= ASKED_OF_PODS
    assert {container for _, container in new} <= {CONTAINER}


def test_a_violation_is_found(tmp_path: Path):
    """The rules are really asked, of init containers, too."""
    [document] = read((GOLDEN / "restricted.yaml").read_text(), "restricted")
    [after], _ = inject_all([document], SETTINGS)
    after["spec"]["initContainers"][0]["securityContext"] = {"privileged": True}

    assert ("PG-PSS-001", CONTAINER) in violations([after], tmp_path)
