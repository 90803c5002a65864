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

SERVICES = (Reachable("openai", "http://127.0.0.1:7400/openai", ("https://api.openai.com",), "OPENAI_BASE_URL", "/v1"),)
SETTINGS = Injection("image@sha256:1", SERVICES)

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

    assert ("", {"app": {"OPENAI_BASE_URL": "http://127.0.0.1:7400/openai/v1"}}) == (finding.reason, finding.arrivals)
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


def test_kinds_of_others():
    """Where a pod stands in their template they are workloads like others."""
    text = f"{{kind: List, items: [{KINDS['Deployment'].replace('Deployment', 'Rollout')}, {KINDS['Job']}]}}"
    documents = read(f"{text}\n---\n{{kind: CloneSet, metadata: [], spec: {{template: {TEMPLATE}}}}}", "f")
    found, findings = inject_all(documents, SETTINGS)

    assert ["Rollout w", "Job w", "CloneSet "] == [str(finding.workload) for finding in findings]
    assert [""] * 3 == [finding.reason for finding in findings]
    assert documents == uninject_all(found)[0]


@pytest.mark.parametrize("template", ["{}", "{spec: {}}", "{spec: {containers: 3}}", "[]", "{spec: {forProvider: {}}}"])
def test_templates_of_something_else(template: str):
    """A template that holds no pod goes out as it came in."""
    documents = read(f"{{kind: Composite, spec: {{template: {template}}}}}", "f")

    assert (documents, []) == inject_all(documents, SETTINGS)


def test_kinds_that_take_no_further_container():
    """They go out as they came in, and are named: their pods are injected by the webhook."""
    text = (
        f"{{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {{name: k}}, spec: {{template: {TEMPLATE}}}}}"
    )
    documents = read(f"{{kind: List, items: [{text}]}}\n---\n{text}", "f")
    found, findings = inject_all(documents, SETTINGS)

    assert documents == found
    assert ["Service k"] * 2 == [str(finding.workload) for finding in findings]
    assert all("takes no further container" in finding.reason for finding in findings)


def test_dates_are_texts():
    """As Kubernetes reads them."""
    assert [{"a": "2026-01-01"}] == read(write(read("a: 2026-01-01", "f")), "f")


@pytest.mark.parametrize(("text", "line"), [("a: [", 2), ("a: 1\nb: : c", 2), ("a: !!python/object:os.system {}", 1)])
def test_what_is_no_yaml(text: str, line: int):
    """Is told with its line, and nothing in it runs."""
    with pytest.raises(ConfigError, match="is not YAML") as caught:
        read(text, "f.yaml")

    assert f"f.yaml:{line}" in str(caught.value) or "f.yaml:1" in str(caught.value)


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
  app: OPENAI_BASE_URL = http://127.0.0.1:7400/openai/v1
  app: ANTHROPIC_BASE_URL = http://127.0.0.1:7400/anthropic
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
        (["inject", "-f", "/nowhere.yaml"], "/nowhere.yaml: cannot be read: No such file or directory"),
        (["uninject", "-f", "/nowhere.yaml", "-f", "/nor-here"], "/nor-here: cannot be read"),
        (["inject", "-f", "FOLDER"], "holds no .yaml, .yml or .json file"),
        (["inject", "-f", "LATIN"], "is not UTF-8"),
        (["inject", "-f", "FILE", "--cluster-version", "new"], "--cluster-version"),
        (["inject", "-f", "FILE", "-f", "BROKEN"], "broken.txt:1: is not YAML"),
    ],
)
def test_wrong_usage(arguments, expected, tmp_path: Path, capsys):
    """It is said, and nothing goes to the output: no half of what was asked for is applied."""
    places = {name: tmp_path / name.lower() for name in ("FOLDER", "LATIN", "FILE")} | {
        "BROKEN": tmp_path / "broken.txt"
    }
    places["FOLDER"].mkdir()
    places["LATIN"].write_bytes(b"a: \xe4")
    places["FILE"].write_text("{}")
    places["BROKEN"].write_text("a: [")

    assert 2 == main([str(places.get(argument, argument)) for argument in arguments])

    out, err = capsys.readouterr()

    assert ("", True) == (out, expected in err)


def test_without_an_image(tmp_path: Path, capsys):
    """What stands in the output cannot be pulled, and that is said; a report needs none."""
    (tmp_path / "pod.yaml").write_text(KINDS["Pod"])

    assert 0 == main(["inject", "-f", str(tmp_path)])

    out, err = capsys.readouterr()

    assert "image: ai-sidecar:latest" in out
    assert err.startswith("sidecar: --image is not given: ai-sidecar:latest stands in the output")
    assert 0 == main(["inject", "-f", str(tmp_path), "--report"])
    assert "" == capsys.readouterr().err


def test_several_files(tmp_path: Path, capsys, monkeypatch):
    """As with kubectl: again and again, a folder without its folders, and standard input, in the order given."""
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    for name, text in (
        ("b.json", '{"kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [{"name": "x"}]}}'),
        ("a.yml", f"---\n---\n{KINDS['Job']}\n---\n{KINDS['Pod']}\n---\n"),
        ("deeper/c.yaml", KINDS["Pod"]),
        ("notes.txt", "kind: ["),
    ):
        (folder / name).write_text(text)
    (tmp_path / "last.txt").write_text(f"\ufeff{KINDS['DaemonSet']}")
    monkeypatch.setattr("sys.stdin", io.StringIO(KINDS["CronJob"]))

    assert 0 == main(["inject", "--image", "i", "-f", str(folder), "-f", "-", "--file", str(tmp_path / "last.txt")])

    out, err = capsys.readouterr()

    assert ["Job w", "Pod p", "Pod b", "CronJob c", "DaemonSet w"] == [
        line.removeprefix("sidecar: ").removesuffix(": injected") for line in err.splitlines()
    ]
    assert ["Job", "Pod", "Pod", "CronJob", "DaemonSet"] == [each["kind"] for each in yaml.safe_load_all(out)]


@pytest.mark.parametrize(
    ("kind", "expected"), [("Deployment", True), ("CronJob", True), ("PodTemplate", True), ("Pod", False)]
)
def test_a_label_in_the_wrong_place(kind, expected, tmp_path: Path, capsys):
    """A workload's own label does nothing: that of its pods counts. People write it there, and wonder."""
    name = {"Deployment": "w", "CronJob": "c", "PodTemplate": "t", "Pod": "p"}[kind]
    text = KINDS[kind].replace(f"name: {name}}}", f"name: {name}, labels: {{ai-sidecar.dev/inject: disabled}}}}", 1)
    (tmp_path / "f.yaml").write_text(text)

    assert 0 == main(["inject", "--report", "-f", str(tmp_path)])

    out = capsys.readouterr().out

    assert expected == ("of the workload itself does nothing; set it on its pods" in out)
    assert expected == (": injected" in out)


def test_the_report_of_what_does_not_arrive(tmp_path: Path, capsys):
    """For each container: what leads here and where, what goes elsewhere, and what cannot be known."""
    (tmp_path / "pod.yaml").write_text("""\
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: app
      args: [--url=https://api.openai.com/v1]
      env:
        - {name: OPENAI_BASE_URL, value: 'https://my-proxy.corp/v1'}
        - {name: DOCUMENTS, value: 'https://contoso.openai.azure.com/'}
    - {name: tables, envFrom: [{secretRef: {name: s}}]}
""")

    assert 0 == main(["inject", "--report", "-f", str(tmp_path / "pod.yaml")])
    assert (
        """\
Pod p: injected
  app: DOCUMENTS = http://127.0.0.1:7400/azure/contoso/
  app: ANTHROPIC_BASE_URL = http://127.0.0.1:7400/anthropic
  tables: no variable leads here; calls of this container do not arrive
  app: OPENAI_BASE_URL goes elsewhere: to my-proxy.corp, which is no configured service
  app: a URL of api.openai.com stands in its args, where it is not rewritten; calls to it do not arrive
  tables: OPENAI_BASE_URL is not set: envFrom may supply it; set it to http://127.0.0.1:7400/openai/v1 there
  tables: ANTHROPIC_BASE_URL is not set: envFrom may supply it; set it to http://127.0.0.1:7400/anthropic there
  tables: proxy variables may come from elsewhere; if they do, annotate the pod with ai-sidecar.dev/no-proxy, else \
SDKs send key and prompt to that proxy
"""
        == capsys.readouterr().out
    )


def test_services_of_a_configuration(tmp_path: Path, capsys):
    """Only what is configured is rewritten, to where it is served; a URL of a region has its port and path."""
    (tmp_path / "c.yaml").write_text("""\
version: 1
listen: {host: '::1'}
services:
  openai:
    regions: [{name: gateway, url: 'https://gw.corp:8443/openai'}]
  anthropic: {dialect: generic, regions: [{name: a, url: 'https://api.anthropic.com'}]}
  documents: {dialect: generic, port: 7401, regions: [{name: eu, url: 'https://di.cognitiveservices.azure.com'}]}
  llm: {dialect: openai, path: /llm, regions: [{name: in, url: 'http://vllm.svc:8000'}]}
""")
    (tmp_path / "pod.yaml").write_text("""\
kind: Pod
metadata: {name: p}
spec:
  containers:
    - name: app
      env:
        - {name: GATEWAY, value: 'https://gw.corp:8443/openai/v1'}
        - {name: OTHER, value: 'https://gw.corp/openai/v1'}
        - {name: DI, value: 'https://di.cognitiveservices.azure.com/'}
        - {name: VLLM, value: 'http://vllm.svc:8000/v1'}
""")

    assert 0 == main(["inject", "--report", "-f", str(tmp_path / "pod.yaml"), "--config", str(tmp_path / "c.yaml")])
    assert (
        """\
Pod p: injected
  app: GATEWAY = http://[::1]:7400/openai/v1
  app: DI = http://[::1]:7401/
  app: VLLM = http://[::1]:7400/llm/v1
  app: OPENAI_BASE_URL = http://[::1]:7400/openai/v1
"""
        == capsys.readouterr().out
    )


@pytest.mark.parametrize("command", ["inject", "uninject"])
def test_the_help(command, capsys):
    """It says what is lost, and what the exit codes are."""
    with pytest.raises(SystemExit):
        main([command, "--help"])

    out = " ".join(capsys.readouterr().out.split())

    assert "comments and layout are lost" in out
    assert "Exit codes: 0 done, 2 a manifest, an option or the configuration cannot be used." in out
