"""
The manifests of the webhook say what the program does: its options, ports, paths, names and rights, and which pods the
API server asks it about.
"""

from __future__ import annotations

import argparse
import inspect
import re
import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.main import _parser
from sidecar.core.pods.reasons import SYSTEM
from sidecar.core.pods.settings import CONTAINER, INJECT, Injection
from sidecar.inject.webhook import Webhook
from tests.k8s.builds import ALL, K8S, Manifest, composed, label, manifests, of_kind, ran, read, the, tool

NAME = "ai-sidecar-webhook"
NAMES = {"base": NAME, "components/canary": f"{NAME}-canary"}
REVISION = "ai-sidecar.dev/revision"

Labels = Mapping[str, str]


def webhook_of(found: list[Manifest], name: str = NAME) -> tuple[dict[str, Any], dict[str, Any], argparse.Namespace]:
    """The pod's specification of the webhook *name*, its container, and its options as the program reads them."""
    spec = the(found, "Deployment", name)["spec"]["template"]["spec"]
    [container] = spec["containers"]
    return spec, container, _parser().parse_args(container["args"])


def matches(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a label selector of Kubernetes takes an object with *labels*."""
    meanings = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, _: key in labels,
        "DoesNotExist": lambda key, _: key not in labels,
    }
    return all(
        meanings[each["operator"]](each["key"], each.get("values", ()))
        for each in (selector or {}).get("matchExpressions", ())
    )


def asked(found: list[Manifest], namespace: Labels, pod: Labels) -> list[str]:
    """The registrations whose webhook the API server asks about a pod with these labels in such a namespace."""
    return [
        configuration["metadata"]["name"]
        for configuration in of_kind(found, "MutatingWebhookConfiguration")
        for each in configuration["webhooks"]
        if matches(each["namespaceSelector"], namespace) and matches(each["objectSelector"], pod)
    ]


@pytest.mark.parametrize("name", [each for each in ALL if not each.startswith("examples")])
def test_options(name: str):
    """Every option is one that the program has, and stands once."""
    for deployment in manifests(name, "Deployment"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            if container["name"] == "webhook":
                options = [each.split("=")[0] for each in container["args"]]
                _parser().parse_args(container["args"])

                assert len(set(options)) == len(options), label(deployment)


@pytest.mark.parametrize(("build", "name"), NAMES.items())
def test_ports_paths_and_names(build: str, name: str):
    """Service, probes and registrations lead to what the program opens."""
    found = manifests(build)
    spec, container, options = webhook_of(found, name)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    [service] = the(found, "Service", name)["spec"]["ports"]

    assert {"https": options.port, "http-metrics": options.health_port} == ports
    assert (443, "https") == (service["port"], service["targetPort"])
    assert name == options.name
    assert name == spec["serviceAccountName"]
    code = inspect.getsource(Webhook)
    for probe in ("livenessProbe", "readinessProbe"):
        assert "http-metrics" == container[probe]["httpGet"]["port"]
        assert f'"{container[probe]["httpGet"]["path"]}"' in code
    for kind, path in (("MutatingWebhookConfiguration", "/mutate"), ("ValidatingWebhookConfiguration", "/validate")):
        assert f'"{path}"' in code
        for each in the(found, kind, name)["webhooks"]:
            service_of_it = {"name": name, "namespace": CONTAINER, "path": path, "port": 443}
            assert {"service": service_of_it} == each["clientConfig"], "no caBundle: the webhook writes it"


def test_what_the_program_finds_in_its_pod():
    """The ConfigMap is there as a folder, /tmp can be written, and POD_NAME is the pod's."""
    spec, container, options = webhook_of(manifests("base"))
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}

    assert {"name": CONTAINER} == volumes[mounts[options.config]]["configMap"]
    assert "emptyDir" in volumes[mounts["/tmp"]]
    assert not any("subPath" in mount for mount in container["volumeMounts"]), "such a file would never change"
    assert [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}] == container["env"]


def test_registrations():
    """What holds for each webhook: a pod never waits long, and never fails for it."""
    for configuration in manifests(
        "components/canary", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"
    ):
        for each in configuration["webhooks"]:
            [rule] = each["rules"]
            common = ("Ignore", 5, "None", "Equivalent", ["v1"], "Namespaced")
            assert common == (
                each["failurePolicy"], each["timeoutSeconds"], each["sideEffects"], each["matchPolicy"],
                each["admissionReviewVersions"], rule["scope"],
            )  # fmt: skip
            if configuration["kind"].startswith("Mutating"):
                assert (["CREATE"], ["pods"], "IfNeeded") == (
                    rule["operations"], rule["resources"], each["reinvocationPolicy"],
                )  # fmt: skip
            else:
                assert (["CREATE", "UPDATE"], ["configmaps"]) == (rule["operations"], rule["resources"])


def test_fail_closed():
    """With that component no pod passes by; a ConfigMap can still be changed."""
    found = manifests("components/fail-closed")

    assert {"Fail"} == {
        each["failurePolicy"] for one in of_kind(found, "MutatingWebhookConfiguration") for each in one["webhooks"]
    }
    assert {"Ignore"} == {
        each["failurePolicy"] for one in of_kind(found, "ValidatingWebhookConfiguration") for each in one["webhooks"]
    }


@pytest.mark.parametrize(
    ("namespace", "pod", "expected"),
    [
        ({INJECT: "enabled"}, {}, [NAME]),
        ({INJECT: "enabled"}, {INJECT: "enabled"}, [NAME]),
        ({INJECT: "enabled"}, {INJECT: "disabled"}, []),
        ({}, {}, []),
        ({}, {INJECT: "enabled"}, [NAME]),
        ({INJECT: "disabled"}, {INJECT: "enabled"}, []),
        ({INJECT: "enabled", REVISION: "canary"}, {}, [f"{NAME}-canary"]),
        ({INJECT: "enabled", REVISION: "canary"}, {INJECT: "disabled"}, []),
        ({INJECT: "enabled"}, {REVISION: "canary"}, [f"{NAME}-canary"]),
        ({}, {INJECT: "enabled", REVISION: "canary"}, [f"{NAME}-canary"]),
        ({}, {REVISION: "canary"}, []),
        ({INJECT: "enabled"}, {REVISION: "gone"}, []),
    ],
)
def test_which_webhook_is_asked(namespace: Labels, pod: Labels, expected: list[str]):
    """The label of a pod beats that of its namespace, except where the namespace says disabled."""

    assert expected == asked(manifests("components/canary"), {"kubernetes.io/metadata.name": "team", **namespace}, pod)


def test_no_pod_is_asked_about_twice():
    """Whatever labels namespace and pod bear, at most one webhook is asked."""
    found = manifests("components/canary")
    words = [{}, *({INJECT: word} for word in ("enabled", "disabled", "yes"))]
    revisions = [{}, {REVISION: "canary"}, {REVISION: "other"}]
    for inject, revision, own, own_revision in product(words, revisions, words, revisions):
        namespace = {"kubernetes.io/metadata.name": "team", **inject, **revision}

        assert len(asked(found, namespace, {**own, **own_revision})) <= 1


def test_pods_of_the_system_and_of_the_webhook_are_never_asked_about():
    """Their creation never waits for the webhook: so it can always start."""
    found = manifests("components/canary")
    for name in (*SYSTEM, Injection("", ()).namespace):
        for inject, revision in product(("enabled", "disabled"), ("canary", "")):
            labels = {INJECT: inject} | ({REVISION: revision} if revision else {})
            namespace = {"kubernetes.io/metadata.name": name, INJECT: "enabled", **labels}

            assert [] == asked(found, namespace, labels)


SECRET, CONFIG_MAPS = "secrets", "configmaps"
OWN = {
    (SECRET, "get", f"{NAME}-tls"), (SECRET, "update", f"{NAME}-tls"), (SECRET, "create", ""), ("pods", "get", ""),
    (CONFIG_MAPS, "get", CONTAINER),
}  # fmt: skip
REGISTRATIONS = {
    (f"{kind}webhookconfigurations", verb, NAME) for kind in ("mutating", "validating") for verb in ("get", "patch")
}
LISTS = {("nodes", "list", ""), ("namespaces", "list", ""), ("pods", "list", "")}
SYNC = {
    (CONFIG_MAPS, "get", CONTAINER), (CONFIG_MAPS, "update", CONTAINER), (CONFIG_MAPS, "create", ""),
    (SECRET, "get", CONTAINER),
}  # fmt: skip


def rights(roles: list[Manifest]) -> set[tuple[str, str, str]]:
    """What *roles* allow: resource, verb and name."""
    return {
        right
        for role in roles
        for rule in role["rules"]
        for right in product(rule["resources"], rule["verbs"], rule.get("resourceNames", [""]))
    }


@pytest.mark.parametrize(
    ("build", "own", "cluster"),
    [
        ("base", OWN, REGISTRATIONS | LISTS),
        ("components/sync", OWN, REGISTRATIONS | LISTS | SYNC),
        ("components/cert-manager", {right for right in OWN if right[0] != SECRET}, LISTS),
    ],
)
def test_rights(build: str, own: set[tuple[str, str, str]], cluster: set[tuple[str, str, str]]):
    """The webhook may do what it asks the API server for, and nothing else."""
    found = manifests(build)

    assert own == rights(of_kind(found, "Role"))
    assert cluster == rights(of_kind(found, "ClusterRole"))


@pytest.mark.parametrize("build", [each for each in ALL if not each.startswith("examples")])
def test_rights_are_bound(build: str):
    """Each role is bound to the account of a webhook that stands beside it."""
    found = manifests(build)
    accounts = {label(each) for each in of_kind(found, "ServiceAccount")}
    roles = {(each["kind"], each["metadata"]["name"]) for each in of_kind(found, "Role", "ClusterRole")}
    bound = set()
    for binding in of_kind(found, "RoleBinding", "ClusterRoleBinding"):
        bound.add((binding["roleRef"]["kind"], binding["roleRef"]["name"]))
        [subject] = binding["subjects"]
        assert f"ServiceAccount {subject['namespace']}/{subject['name']}" in accounts

    assert roles == bound


def test_rights_of_a_canary():
    """It may change its own certificate and registrations, and not those of the other."""
    found = [each for each in manifests("components/canary") if each["metadata"]["name"].endswith("-canary")]
    canary = {(what, verb, name.replace(NAME, f"{NAME}-canary")) for what, verb, name in OWN | REGISTRATIONS | LISTS}

    assert canary == rights(of_kind(found, "Role", "ClusterRole"))
    assert ("canary", False) == (
        webhook_of(found, f"{NAME}-canary")[2].revision,
        webhook_of(found, f"{NAME}-canary")[2].sync,
    )


def test_certificates_of_cert_manager():
    """The program reads what cert-manager writes, and the API server trusts it."""
    found = manifests("components/cert-manager")
    spec, container, options = webhook_of(found)
    certificate = the(found, "Certificate", NAME)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    [volume] = [each for each in spec["volumes"] if each["name"] == mounts["/etc/sidecar-tls"]]

    assert certificate["spec"]["secretName"] == volume["secret"]["secretName"]
    assert ("/etc/sidecar-tls/tls.crt", "/etc/sidecar-tls/tls.key") == (options.tls_cert, options.tls_key)
    assert f"{NAME}.{CONTAINER}.svc" in certificate["spec"]["dnsNames"]
    for configuration in of_kind(found, "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        assert f"{CONTAINER}/{NAME}" == configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]


def test_components_go_together():
    """Those that change the same Deployment leave each other's changes alone."""
    names = ("sync", "cert-manager", "fail-closed", "canary", "redis", "monitoring")
    found = read(composed(*(f"components/{name}" for name in names)))
    spec, _, options = webhook_of(found)

    assert (True, "/etc/sidecar-tls/tls.crt") == (options.sync, options.tls_cert)
    assert "system-cluster-critical" == spec["priorityClassName"]
    assert {"webhook", "redis"} == {
        container["name"]
        for each in of_kind(found, "Deployment")
        for container in each["spec"]["template"]["spec"]["containers"]
    }


@pytest.mark.parametrize("overlay", ["production", "aks"])
def test_what_the_overlay_for_production_offers(overlay: str, tmp_path: Path):
    """The components that stand there in comments can be taken, and each webhook is still spread by its own label."""
    shutil.copytree(K8S, tmp_path / "k8s")
    path = tmp_path / "k8s" / "overlays" / "production" / "kustomization.yaml"
    path.write_text(re.sub("^  # - ../../", "  - ../../", path.read_text(), flags=re.MULTILINE))
    found = read(ran(tool("kubectl"), "kustomize", str(tmp_path / "k8s" / "overlays" / overlay)))

    for name in NAMES.values():
        spec, _, options = webhook_of(found, name)
        selected = [each["labelSelector"]["matchLabels"] for each in spec["topologySpreadConstraints"]]
        assert name == options.name
        assert all({"app.kubernetes.io/name": name} == each for each in selected)


def test_prometheus_finds_the_ports():
    """The PodMonitors name ports that the webhook and injected pods have."""
    for name, version in (("components/monitoring", "monitoring"), ("overlays/aks", "azmonitoring")):
        found = manifests(name)
        monitors = {each["metadata"]["name"]: each for each in of_kind(found, "PodMonitor")}
        ports = {which: each["spec"]["podMetricsEndpoints"][0]["port"] for which, each in monitors.items()}

        assert {f"{version}.coreos.com/v1"} == {each["apiVersion"] for each in monitors.values()}
        assert {NAME: "http-metrics", CONTAINER: "sidecar-metrics"} == ports
        assert not manifests(name, "PrometheusRule") or version == "monitoring"
