"""
What was valid stays valid: by the schemas of Kubernetes, over manifests of others and our golden ones.

The rule: a manifest that was wrong before may be wrong in the same place afterwards, and nowhere else.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.inject import injection
from sidecar.core.pods.container import VOLUMES
from sidecar.core.pods.settings import CONTAINER
from sidecar.errors import ConfigError
from sidecar.inject.manifests import inject_all, read, uninject_all, workloads
from sidecar.settings import load
from tests.inject.schemas import VERSIONS, documents, problem

PODS = Path(__file__).parents[3] / "shared" / "data" / "pods"
GOLDEN = Path(__file__).parent / "golden"
LATER = {
    "pod-resources": "'resources' was unexpected",
    **dict.fromkeys(("after-other-webhooks", "istio-native", "linkerd"), "'restartPolicy' was unexpected"),
}
"""Golden manifests that use what the oldest of these versions does not have, and what it says of them."""


def of_others() -> dict[str, list[Any]]:
    """The manifests of others that are YAML, by file."""
    found = {}
    for file in sorted(PODS.rglob("*.yaml")):
        try:
            found[file.stem] = read(file.read_text(), file.name)
        except ConfigError:
            assert ".bad." in file.name
    return found


def settings(version: str):
    return injection(load(None, environ={}, overrides={}, strict=True), image="image@sha256:1", version=version)


def without_env_and_mounts(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in {"env", "volumeMounts"}}


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr("sidecar.settings.DEFAULT_FOLDER", str(tmp_path / "none"))


@pytest.mark.skipif(not PODS.is_dir(), reason="the recorded manifests are not here")
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_of_others(version: str):
    """Valid as before; twice is once; back as they were; and nothing of a container is changed but its environment."""
    pods = injected = valid = 0
    for name, before in of_others().items():
        untouched = deepcopy(before)
        after, findings = inject_all(before, settings(version))
        injected += sum(not finding.reason for finding in findings)

        assert before == untouched, name
        assert after == inject_all(after, settings(version))[0], name
        assert before == uninject_all(after)[0], name

        for was, become in zip(before, after, strict=True):
            for old, new in zip(documents(was), documents(become), strict=True):
                assert problem(new, version) in {"", problem(old, version)}, name
                valid += not problem(new, version)
            for (_, old), (_, new) in zip(workloads(was), workloads(become), strict=True):
                pods += 1
                compare(old, new)

    assert (30, 27 if version == "1.27" else 29, 29) == (pods, injected, valid)


def compare(old: Any, new: Any) -> None:
    """All of the old pod is in the new one, in its order; what is new bears our names."""
    for kind in ("initContainers", "containers"):
        theirs = [one for one in new["spec"].get(kind) or () if one["name"] != CONTAINER]

        assert [without_env_and_mounts(one) for one in old["spec"].get(kind) or ()] == [
            without_env_and_mounts(one) for one in theirs
        ]
    kept = [volume for volume in new["spec"].get("volumes") or () if volume["name"] not in VOLUMES]

    assert kept == list(old["spec"].get("volumes") or ())
    rest = {name for name in new["spec"] if new["spec"][name] != old["spec"].get(name)}

    assert rest <= {"initContainers", "containers", "volumes"}


@pytest.mark.parametrize("version", VERSIONS)
def test_golden_manifests(version: str):
    """Each is valid, before and after."""
    files = sorted((GOLDEN / "injected" / version).glob("*.yaml"))

    for file in files:
        for source in (GOLDEN / file.name, file):
            for document in read(source.read_text(), source.name):
                found = problem(document, version)

                assert not found or LATER.get(file.stem, "nothing") in found, source

    assert len(files) >= 30


def test_a_wrong_manifest_is_found():
    """The schemas are really asked, and strictly."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "app"}]}}

    assert "" == problem(pod, "1.29")
    assert "'container' was unexpected" in problem({**pod, "spec": {**pod["spec"], "container": []}}, "1.29")
    assert "" != problem({**pod, "spec": {"containers": [{"name": "app", "env": {}}]}}, "1.29")
