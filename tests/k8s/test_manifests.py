"""
The manifests of ``k8s/``: they build, they are valid, and nothing in them is weaker than it must be.

The rule: real tools look at them. What a tool finds and we keep stands in a table, with the reason.
"""

from __future__ import annotations

import json
import re
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from sidecar.cli.inject import inject, injection
from sidecar.inject.files import ManifestText
from sidecar.settings import load
from tests.k8s.builds import ALL, APPLIED, K8S, label, manifests, text, tool
from tests.k8s.custom_resources import SPECS, schema_of

VERSIONS = ("1.27", "1.29", "1.34")

OURS = frozenset({"ai-sidecar-webhook", "ai-sidecar-webhook-canary"})
DEMO = frozenset({"app", "provider"})
SILENT = frozenset({"app", "ai-sidecar-secret-holder"})
ALONE = frozenset({"ai-sidecar-webhook", "ai-sidecar-secret-holder", "redis", "provider"})
FOREIGN = frozenset({"redis", "ai-sidecar-secret-holder"})

KEPT = {
    "PG-CTR-001": (SILENT, "it listens nowhere; if it ends, kubelet starts it again"),
    "PG-CTR-002": (SILENT, "no Service leads to it"),
    "PG-IMG-001": (OURS, "base names no registry and no tag; what is applied does"),
    "PG-IMG-003": (OURS, "as PG-IMG-001"),
    "PG-IMG-002": (OURS | DEMO | FOREIGN, "what serves a cluster is pinned, see test_images; this is for trying out"),
    "PG-IMG-004": (frozenset({"ai-sidecar-webhook"}), "how nodes log in at a registry is the cluster's matter"),
    "PG-RBAC-003": (OURS, "it writes one Secret of its own namespace: its certificate"),
    "PG-RBAC-008": (OURS, "it writes the authority of its certificate into its own two registrations"),
    "PG-WRK-001": (ALONE, "for trying out; and a holder of a Secret may be away for a moment"),
    "PG-WRK-003": (frozenset({"app"}), "nothing waits for the demo's application"),
    "PG-WRK-004": (frozenset({"app"}), "as PG-WRK-003"),
    "PG-WRK-005": (
        OURS | DEMO | FOREIGN,
        "if it is away, pods start all the same; components/fail-closed has a priority",
    ),
    "PG-WRK-007": (OURS | {"app"}, "topologySpreadConstraints spread the webhook; the demo's pods may be neighbours"),
}
"""What policy-guard finds and stays: by rule, of which resources, and why."""

OF_OTHER_TESTS = ("alerts", "dashboards")

WORKLOADS = ("Deployment",)


def scanned(folder, built: str) -> dict[str, set[str]]:
    """What policy-guard finds at the level restricted: the names of resources by rule."""
    folder.mkdir()
    (folder / "all.yaml").write_text(built)
    report = folder / "report.json"
    command = (tool("policy-guard"), "scan", str(folder / "all.yaml"), "--level", "restricted")
    subprocess.run((*command, "--format", "json", "--output", str(report)), check=True, capture_output=True)
    found: dict[str, set[str]] = {}
    for violation in json.loads(report.read_text())["violations"]:
        found.setdefault(violation["rule_id"], set()).add(violation["resource"].split("/")[1])
    return found


def test_every_folder_is_built():
    """No kustomization is left out of these tests, but those that are parts of others or have tests of their own."""
    named = {K8S / name for name in ALL}
    others = {
        K8S / name for name in ("base/webhook", "components/canary/webhook", "overlays/dev/demo", *OF_OTHER_TESTS)
    }
    parts = {path.parent for path in K8S.rglob("kustomization.yaml")}

    assert named <= parts <= named | others


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ALL)
def test_valid(name: str, version: str):
    """Each manifest fits the schema of its kind, and has no key that the schema doesn't know."""
    for manifest in manifests(name):
        schema = schema_of(manifest["apiVersion"], manifest["kind"])
        if schema is None:
            kubernetes_validate.validate(manifest, version, strict=True)
        else:
            jsonschema.validate(manifest, schema)


def test_schemas_are_used():
    """No schema is left over from a manifest that is gone."""
    used = {(manifest["apiVersion"], manifest["kind"]) for name in ALL for manifest in manifests(name)}

    assert SPECS.keys() <= used


def test_each_is_named_once():
    """No build holds a resource twice."""
    for name in ALL:
        found = [label(manifest) for manifest in manifests(name)]

        assert len(set(found)) == len(found), name


@pytest.mark.parametrize("name", ALL)
def test_nothing_against_the_restricted_profile(name: str, tmp_path):
    """The scan finds what stands in the table and nothing else, above all nothing of Pod Security."""
    found = scanned(tmp_path / "scan", text(name))

    assert {} == {rule: who for rule, names in found.items() if (who := names - KEPT.get(rule, (frozenset(), ""))[0])}


def test_the_table_of_findings_is_needed(tmp_path):
    """What is no longer found leaves the table."""
    found: dict[str, set[str]] = {}
    for name in ALL:
        for rule, names in scanned(tmp_path / name.replace("/", "-"), text(name)).items():
            found.setdefault(rule, set()).update(names)

    assert {rule: set(names) for rule, (names, _) in KEPT.items()} == found


def test_images():
    """What serves a cluster has every image of ours by digest; the demo has one tag, which no node pulls anew."""
    for name, expected in (
        ("production", r"@sha256:[0-9a-f]{64}\Z"),
        ("aks", r"@sha256:[0-9a-f]{64}\Z"),
        ("dev", r":dev\Z"),
    ):
        found = {
            container["image"]
            for manifest in manifests(f"overlays/{name}", *WORKLOADS)
            for container in manifest["spec"]["template"]["spec"]["containers"]
            if "ai-sidecar" in container["image"]
        }

        assert len(found) == 1, name
        assert re.search(expected, *found), name


@pytest.mark.parametrize("name", APPLIED)
def test_namespaces_are_restricted(name: str):
    """Every namespace refuses pods outside of the restricted profile."""
    for manifest in manifests(name, "Namespace"):
        assert "restricted" == manifest["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]


@pytest.mark.parametrize("name", ALL)
def test_selectors_find_their_pods(name: str):
    """Deployment, Service, budget, policy and spread of a workload mean its pods, and those of no other workload."""
    found = manifests(name)
    pods = {
        label(each): (each["metadata"]["namespace"], each["spec"]["template"]["metadata"]["labels"])
        for each in found
        if each["kind"] in WORKLOADS
    }

    def selected(namespace: str, labels: dict[str, str]) -> list[str]:
        return [who for who, (where, theirs) in pods.items() if where == namespace and labels.items() <= theirs.items()]

    for manifest in found:
        spec, namespace = manifest.get("spec") or {}, manifest["metadata"].get("namespace", "")
        match manifest["kind"]:
            case "Deployment":
                labels = spec["selector"]["matchLabels"]
                assert [label(manifest)] == selected(namespace, labels)
                for spread in spec["template"]["spec"].get("topologySpreadConstraints") or ():
                    assert labels == spread["labelSelector"]["matchLabels"]
            case "Service":
                assert 1 == len(selected(namespace, spec["selector"]))
            case "PodDisruptionBudget":
                assert 1 == len(selected(namespace, spec["selector"]["matchLabels"]))
            case "NetworkPolicy" if spec["podSelector"]:
                assert 1 == len(selected(namespace, spec["podSelector"]["matchLabels"]))


@pytest.mark.parametrize("name", ALL)
def test_tokens_are_mounted_where_they_are_needed(name: str):
    """Only the webhook gets the token of its service account."""
    for manifest in manifests(name, *WORKLOADS):
        mounted = manifest["spec"]["template"]["spec"]["automountServiceAccountToken"]

        assert mounted == manifest["metadata"]["name"].startswith("ai-sidecar-webhook"), label(manifest)


def test_injected_pods_of_the_demo_are_restricted_too(tmp_path):
    """The demo's application is injected, its base URL leads to the sidecar, and the namespace still takes the pod."""
    rules = load(str(K8S / "overlays/dev/sidecar.yaml"), environ={}, overrides={}, strict=True)
    demo = [each for each in manifests("overlays/dev", *WORKLOADS) if each["metadata"]["namespace"] == "demo"]
    text = ManifestText("demo", yaml.safe_dump_all(demo))
    after, notes = inject([text], injection(rules, image="ai-sidecar:dev", version="1.34"))
    app, provider = sorted(yaml.safe_load_all(after), key=lambda each: each["metadata"]["name"])
    [container] = app["spec"]["template"]["spec"]["containers"]

    assert {"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:7400/openai/v1"} in container["env"]
    assert "initContainers" not in provider["spec"]["template"]["spec"], notes
    kubernetes_validate.validate(app, "1.34", strict=True)
    assert not {rule for rule in scanned(tmp_path / "scan", yaml.safe_dump(app)) if rule.startswith("PG-PSS")}


def test_folders_are_told():
    """README.md says of each folder what it is for."""
    rows = re.findall(r"^\| `([a-z/-]+)/` \|", (K8S / "README.md").read_text(), re.MULTILINE)

    assert {*ALL, "gitops"} <= set(rows)
    assert all((K8S / row).is_dir() for row in rows)
