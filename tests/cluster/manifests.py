"""
The manifests in ``k8s/`` as kustomize builds them, and the webhook as its Deployment says that it runs.

The rule: what is applied is what stands there. Left out is only what an API server of 1.20 doesn't know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sidecar.inject.manifests import read, workloads
from tests.cluster.servers import program

K8S = Path(__file__).parents[2] / "k8s"

UNKNOWN = {"PodDisruptionBudget", "PodMonitor", "PrometheusRule"}
"""``policy/v1`` came with 1.21, and the two others are Prometheus Operator's."""


class Right(NamedTuple):
    """What a role allows: in *namespace*, ``""`` for all; *name* is ``""`` where it is for every name."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str

    def allows(self, asked: dict[str, Any]) -> bool:
        """Whether the request that an audit's event tells of needs this right."""
        about = asked["objectRef"]
        return (
            self.namespace in {"", about.get("namespace", "")}
            and self.group == about.get("apiGroup", "")
            and self.resource == about["resource"]
            and self.verb == asked["verb"]
            and self.name in {"", about.get("name", "")}
        )


def built(folder: Path, resource: Path, *components: str) -> list[dict[str, Any]]:
    """The objects that kustomize makes of *resource* with *components*, by a kustomization in *folder*."""
    folder.mkdir()
    said = {
        "kind": "Kustomization",
        "resources": [os.path.relpath(resource, folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in components],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(said))
    kubectl = program("kubectl", "`make setup` installs it")
    done = subprocess.run([kubectl, "kustomize", str(folder)], check=True, capture_output=True, text=True)
    return [each for each in yaml.safe_load_all(done.stdout) if each["kind"] not in UNKNOWN]


def listed(objects: Sequence[dict[str, Any]]) -> str:
    """*objects* as one document, for kubectl's standard input."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def templates(path: Path) -> Iterator[dict[str, Any]]:
    """The pods that the manifests at *path* are about, as their controllers would create them."""
    for document in read(path.read_text(encoding="utf-8"), path.name):
        for _, found in workloads(document):
            metadata = {name: (found.get("metadata") or {}).get(name) for name in ("labels", "annotations")}
            yield {"metadata": {"generateName": "any-", **metadata}, "spec": found["spec"]}


def only(objects: Sequence[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """The one object of *kind*, with *name* if there is one."""
    [found] = [each for each in objects if each["kind"] == kind and name in {"", each["metadata"]["name"]}]
    return found


def rights(objects: Sequence[dict[str, Any]]) -> Iterator[Right]:
    """What the roles in *objects* allow."""
    for role in objects:
        if role["kind"] in {"Role", "ClusterRole"}:
            namespace = role["metadata"].get("namespace", "")
            for rule in role["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        for verb in rule["verbs"]:
                            for name in rule.get("resourceNames", [""]):
                                yield Right(namespace, group, resource, verb, name)


def command(objects: Sequence[dict[str, Any]], deployment: str, config: Path) -> list[str]:
    """
    The command of a webhook's *deployment*, on free ports of the loopback, with the ConfigMap of *objects* in the
    folder *config*, which stands for where its volume is mounted.
    """
    [container] = only(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    [mounted] = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "config"]
    config.mkdir(exist_ok=True)
    for name, text in only(objects, "ConfigMap", "ai-sidecar")["data"].items():
        (config / name).write_text(text)
    arguments = [each.replace(mounted, str(config)) for each in container["args"]]
    loopback = ["--host=127.0.0.1", "--port=0", "--health-port=0", "--drain=0s"]
    return [sys.executable, "-m", "sidecar", *arguments, *loopback]
