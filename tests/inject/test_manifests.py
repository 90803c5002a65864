"""Manifests: which pods are found in them, and that they come back as they were."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from sidecar.cli.main import main
from sidecar.core.pods.settings import Injection, Reachable
from sidecar.errors import ConfigError
from sidecar.inject.manifests import inject_all, read, uninject_all, write

SERVICES = (Reachable("openai", "http://127.0.0.1:7400/openai", frozenset({"api.openai.com"})),)
SETTINGS = Injection("image@sha256:1", SERVICES)
PODS = Path(__file__).parents[3] / "shared" / "data" / "pods"

TEMPLATE = "{metadata: {labels: {a: b}}, spec: {containers: [{name: app, image: x}]}}"
KINDS = {
    "Pod": f"{{kind: Pod, metadata: {{name: p}}, {TEMPLATE[1:-1].partition(', ')[2]}}}",
    "CronJob": f"{{kind: CronJob, metadata: {{name: c}}, spec: {{jobTemplate: {{spec: {{template: {TEMPLATE}}}}}}}}}",
    "PodTemplate": f"{{kind: PodTemplate, metadata: {{name: t}}, template: {TEMPLATE}}}",
    **{
        kind: f"{{kind: {kind}, metadata: {{name: w}}, spec: {{template: {TEMPLATE}}}}}"
        for kind in ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Job")
    },
}


@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_kinds(text: str):
    """Each pod is found, injected, and comes back."""
    documents = read(text, "f")
    found, [finding] = inject_all(documents, SETTINGS)

    assert ("", {"app": ["OPENAI_BASE_URL"]}) == (finding.reason, finding.variables)
    assert found != documents
    assert read(write(found), "f") == found
    assert documents == uninject_all(found)[0]


@pytest.mark.parametrize(
    "text", ["", "{}", "a: 1", "- 1", "kind: Service", "{kind: Deployment}", "{kind: Pod, spec: null}", "kind: [x]"]
)
def test_what_holds_no_pod(text: str):
    """Goes out as it came in."""
    documents = read(text, "f")

    assert (documents, []) == inject_all(documents, SETTINGS)


def test_lists():
    """Their items are documents."""
    text = f"{{kind: List, items: [{KINDS['Deployment']}, {{kind: Service}}, {KINDS['Job']}]}}"
    found, findings = inject_all(read(text, "f"), SETTINGS)

    assert ["Deployment w", "Job w"] == [str(finding.workload) for finding in findings]
    assert {"kind": "Service"} == found[0]["items"][1]


def test_dates_are_texts():
    """As Kubernetes reads them."""
    assert [{"a": "2026-01-01"}] == read(write(read("a: 2026-01-01", "f")), "f")


@pytest.mark.parametrize(("text", "line"), [("a: [", 2), ("a: 1\nb: : c", 2), ("a: !!python/object:os.system {}", 1)])
def test_what_is_no_yaml(text: str, line: int):
    """Is told with its line, and nothing in it runs."""
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        read(text, "f.yaml")

    assert f"f.yaml:{line}" in str(caught.value) or "f.yaml:1" in str(caught.value)


@pytest.mark.skipif(not PODS.is_dir(), reason="the recorded manifests are not here")
@pytest.mark.parametrize("version", [(1, 27), (1, 29), (1, 34)])
def test_manifests_of_others(version: tuple[int, int]):
    """Everything that is YAML comes back as it was; injected twice is injected once; only variables change."""
    count = 0
    for file in sorted(PODS.rglob("*.yaml")):
        try:
            documents = read(file.read_text(), file.name)
        except ConfigError:
            continue
        settings = Injection("image@sha256:1", SERVICES, version=version)
        once, findings = inject_all(documents, settings)
        count += sum(not finding.reason for finding in findings)

        assert once == inject_all(once, settings)[0]
        assert documents == uninject_all(once)[0]
    assert count > 20


def test_the_command(tmp_path: Path, capsys, monkeypatch):
    """Manifests go to the output, what became of them to people; and back through the other command."""
    file = tmp_path / "deployment.yaml"
    file.write_text(KINDS["Deployment"])
    code = main(["inject", "-f", str(file), "--image", "me/sidecar@sha256:2"])
    out, err = capsys.readouterr()

    assert (0, "sidecar: Deployment w: injected\n") == (code, err)
    assert "me/sidecar@sha256:2" in out

    monkeypatch.setattr("sys.stdin", io.StringIO(out))

    assert 0 == main(["uninject", "-f", "-"])
    assert yaml.safe_load(KINDS["Deployment"]) == yaml.safe_load(capsys.readouterr().out)


def test_the_report(tmp_path: Path, capsys):
    """For each workload: whether its calls arrive, and by what."""
    file = tmp_path / "all.yaml"
    file.write_text(f"{KINDS['Deployment']}\n---\n{KINDS['Pod'].replace('spec: {', 'spec: {hostNetwork: true, ')}\n")

    assert 0 == main(["inject", "--report", "-f", str(file)])
    assert (
        """\
Deployment w: injected
  app: by OPENAI_BASE_URL, ANTHROPIC_BASE_URL
Pod p: not injected: hostNetwork: the sidecar's ports would be those of the node
"""
        == capsys.readouterr().out
    )


def test_the_ports_of_the_configuration(tmp_path: Path, capsys):
    """Calls, probes and the sidecar itself agree on them, whatever the ConfigMap of the pod's namespace says."""
    (tmp_path / "c.yaml").write_text("{version: 1, listen: {port: 17400}, health: {port: 17491}}")
    (tmp_path / "pod.yaml").write_text(KINDS["Pod"])

    assert 0 == main(["inject", "-f", str(tmp_path / "pod.yaml"), "--config", str(tmp_path / "c.yaml")])
    spec = yaml.safe_load(capsys.readouterr().out)["spec"]
    [ours], [app] = spec["initContainers"], spec["containers"]

    assert {17491} == {ours[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")}
    assert [17491] == [port["containerPort"] for port in ours["ports"]]
    assert {"name": "SIDECAR_HEALTH_PORT", "value": "17491"} in ours["env"]
    assert {"name": "OPENAI_BASE_URL", "value": "http://127.0.0.1:17400/openai/v1"} in app["env"]


def test_any_port(tmp_path: Path, capsys):
    """Nobody could reach it."""
    (tmp_path / "c.yaml").write_text("{version: 1, health: {port: 0}}")
    (tmp_path / "pod.yaml").write_text(KINDS["Pod"])

    assert 2 == main(["inject", "-f", str(tmp_path / "pod.yaml"), "--config", str(tmp_path / "c.yaml")])
    assert "health.port: 0 is any free port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inject", "-f", "/nowhere.yaml"], "/nowhere.yaml"),
        (["inject", "-f", "FILE", "--cluster-version", "new"], "--cluster-version"),
    ],
)
def test_wrong_usage(arguments, expected, tmp_path: Path, capsys):
    """It is said, and nothing goes to the output."""
    file = tmp_path / "f.yaml"
    file.write_text("{}")

    assert 2 == main([str(file) if argument == "FILE" else argument for argument in arguments])

    out, err = capsys.readouterr()

    assert ("", True) == (out, expected in err)
