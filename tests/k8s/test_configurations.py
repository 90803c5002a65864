"""
The configurations in ``k8s/``: each is good, teaches by what can be used as it stands, and names files that the Secret
of its folder has.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sidecar.cli.inject import injection
from sidecar.core.pods.inject import inject
from sidecar.core.pods.settings import CONTAINER
from sidecar.settings import load
from tests.k8s.builds import ALL, K8S, label, manifests, the

FOLDERS = sorted(str(path.parent.relative_to(K8S)) for path in K8S.rglob("sidecar.yaml"))
EXAMPLE = re.compile(r"^#(?=[^ ]|  )", re.MULTILINE)
"""What makes an example of a line: a comment goes on with one space."""

MOUNTED = "/etc/sidecar-secret/"


def rules_of(text: str, folder: Path):
    """The rules of a configuration, by everything that ``sidecar check`` demands."""
    (folder / "sidecar.yaml").write_text(text)
    return load(str(folder), environ={}, overrides={}, strict=True)


def secret_files(text: str) -> set[str]:
    """The files of the Secret that a configuration names."""
    return set(re.findall(rf"{MOUNTED}([\w.-]+)", text))


@pytest.mark.parametrize("folder", FOLDERS)
def test_good(folder: str, tmp_path):
    """``sidecar check`` has nothing to say."""
    text = (K8S / folder / "sidecar.yaml").read_text()

    assert () == tuple(rules_of(text, tmp_path).warnings)


def test_examples_are_good(tmp_path):
    """What base shows in comments works, once the # is away."""
    text = (K8S / "base" / "sidecar.yaml").read_text()
    whole = EXAMPLE.sub("", text)
    rules = rules_of(whole, tmp_path)

    assert rules.warnings == ()
    assert {"version", "mode", "log"} == yaml.safe_load(text).keys()
    assert {"version", "mode", "log", "cache", "services", "routes"} == yaml.safe_load(whole).keys()


@pytest.mark.parametrize("name", ALL)
def test_as_config_map(name: str):
    """The ConfigMap is the file, comments and all, under the name that pods mount; the webhook is asked about it."""
    for manifest in manifests(name, "ConfigMap"):
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key in manifest["data"])
        if "sidecar.yaml" in manifest["data"]:
            source = K8S / (name if name in FOLDERS else "base") / "sidecar.yaml"
            assert [CONTAINER, "true"] == [
                manifest["metadata"]["name"],
                manifest["metadata"]["labels"]["ai-sidecar.dev/config"],
            ]
            assert {"sidecar.yaml": source.read_text()} == manifest["data"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_secrets_are_mounted_files(folder: str):
    """A configuration names files of the Secret where injection mounts it."""
    rules = load(str(K8S / folder / "sidecar.yaml"), environ={}, overrides={}, strict=True)
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
    outcome = inject(pod, injection(rules, image="image", version="1.34"))
    [ours] = outcome.pod["spec"]["initContainers"]

    assert MOUNTED.rstrip("/") in {mount["mountPath"] for mount in ours["volumeMounts"]}
    for line in (K8S / folder / "sidecar.yaml").read_text().splitlines():
        if re.search(r"_file: |\bfile: ", line):
            assert MOUNTED in line


def test_secrets_have_what_configurations_name():
    """The examples of Secrets bring every file that the configuration beside them names, under the Secret's name."""
    external = the(manifests("examples/team"), "ExternalSecret", CONTAINER)["spec"]
    csi = the(manifests("examples/team-aks"), "SecretProviderClass", CONTAINER)["spec"]
    [synced] = csi["secretObjects"]
    aliases = {yaml.safe_load(each)["objectAlias"] for each in yaml.safe_load(csi["parameters"]["objects"])["array"]}

    assert CONTAINER == external["target"]["name"] == synced["secretName"]
    for keys, folder in (
        ({each["secretKey"] for each in external["data"]}, "examples/team"),
        ({each["key"] for each in synced["data"]}, "overlays/aks"),
    ):
        assert keys == secret_files((K8S / folder / "sidecar.yaml").read_text())
    assert {each["objectName"] for each in synced["data"]} == aliases


def test_the_volume_of_the_driver_is_mounted():
    """The driver keeps the Secret as long as a pod mounts the volume: one does, and is no application."""
    found = manifests("examples/team-aks")
    holder = the(found, "Deployment", "ai-sidecar-secret-holder")["spec"]["template"]
    [volume] = holder["spec"]["volumes"]

    assert "disabled" == holder["metadata"]["labels"]["ai-sidecar.dev/inject"]
    assert the(found, "SecretProviderClass", volume["csi"]["volumeAttributes"]["secretProviderClass"])
    assert "ServiceAccount team/ai-sidecar-secret-holder" in map(label, found)


def test_identity_on_azure():
    """By the configuration for Azure, injection gives pods the label that workload identity asks for."""
    rules = load(str(K8S / "overlays/aks/sidecar.yaml"), environ={}, overrides={}, strict=True)

    assert injection(rules, image="image", version="1.34").identity
