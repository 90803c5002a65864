"""
The manifests of ``k8s/`` as kustomize builds them: every folder that is applied, and every component on what it is for.

The rule: each is built once in a process of tests, by the real kubectl.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"

Manifest = Mapping[str, Any]

APPLIED = (
    "base",
    *sorted(f"{kind}/{path.name}" for kind in ("overlays", "examples") for path in (K8S / kind).iterdir()),
)
"""The folders that somebody applies."""

COMPONENTS = tuple(sorted(f"components/{path.name}" for path in (K8S / "components").iterdir()))

FOR_TEAMS = frozenset({"workload-namespace", "secret-csi", "secret-external", "network-policy"})
"""Components for namespaces of applications; the others are for the webhook's own."""

ALL = (*APPLIED, *COMPONENTS)

_NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"


def tool(name: str) -> str:
    """The path of a program that the lock of development installs. Skips if it is missing."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} is missing; `make setup` installs it on Linux")
    return found


def ran(*command: str) -> str:
    """The standard output of *command*."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def text(name: str) -> str:
    """What kustomize builds of ``k8s/NAME``; a component is built on ``base``, or in a namespace of a team."""
    if name in APPLIED:
        return ran(tool("kubectl"), "kustomize", str(K8S / name))
    return composed(name)


@cache
def composed(*components: str, on: str = "base") -> str:
    """What kustomize builds of ``k8s/ON`` with *components*."""
    for_team = components[0].removeprefix("components/") in FOR_TEAMS
    with tempfile.TemporaryDirectory() as folder:
        base = os.path.relpath(K8S, Path(folder).resolve())
        whole: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["namespace.yaml"] if for_team else [f"{base}/{on}"],
            "components": [f"{base}/{each}" for each in components],
        }
        if for_team:
            Path(folder, "namespace.yaml").write_text(_NAMESPACE)
            whole["namespace"] = "team"
        if "components/workload-namespace" in components:
            shutil.copy(K8S / "base" / "sidecar.yaml", folder)
            generated = {"name": "ai-sidecar", "files": ["sidecar.yaml"], "options": {"disableNameSuffixHash": True}}
            whole["configMapGenerator"] = [generated]
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(whole))
        return ran(tool("kubectl"), "kustomize", folder)


def read(built: str) -> list[Manifest]:
    """The documents of a build."""
    return [document for document in yaml.safe_load_all(built) if document is not None]


def manifests(name: str, *kinds: str) -> list[Manifest]:
    """The manifests that kustomize builds of ``k8s/NAME``; with *kinds* those alone."""
    return of_kind(read(text(name)), *kinds)


def of_kind(found: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Those of *found* that are of *kinds*; without any, all."""
    return [each for each in found if not kinds or each["kind"] in kinds]


def the(found: Iterable[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of that *kind* and *name*."""
    [one] = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return one


def label(manifest: Manifest) -> str:
    """How a message names a manifest."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"
