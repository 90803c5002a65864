"""The alerts: their shape, what they name, and that each fires and stays silent where it should."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.inject.certificates import issue
from tests.k8s.names import K8S, strangers
from tests.k8s.prometheus import ALERTS, Prometheus, program, rule_file
from tests.redis_servers import free_port
from tests.scenarios.processes import Process, launch, run_by

CASES = Path(__file__).with_name("alerts.promtool.yaml")
RULE = yaml.safe_load(ALERTS.read_text())
RULES = [rule for group in RULE["spec"]["groups"] for rule in group["rules"]]
LABELS = re.compile(r"\$labels\.([a-z_]+)")


def test_resource():
    """It is a resource of the Prometheus Operator with groups of rules, and no two have one name."""
    names = [rule["alert"] for rule in RULES]

    assert ("monitoring.coreos.com/v1", "PrometheusRule") == (RULE["apiVersion"], RULE["kind"])
    assert sorted(set(names)) == sorted(names)
    assert all(re.fullmatch(r"AiSidecar[A-Za-z]+", name) for name in names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_rule(rule: dict[str, Any]):
    """It says how urgent it is, waits before it fires, and tells people what it means and where to read on."""
    notes = rule["annotations"]
    page = K8S.parent / notes["runbook_url"]

    assert {"alert", "expr", "for", "labels", "annotations"} == rule.keys()
    assert {"summary", "description", "runbook_url"} == notes.keys()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"[1-9][0-9]*[mh]", rule["for"])
    assert page.parent == K8S / "runbooks"
    assert page.is_file()
    assert rule["alert"] in page.read_text()
    assert notes["description"].endswith(".")
    assert len(notes["summary"]) <= 120


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_names(rule: dict[str, Any]):
    """Every metric and every label in it exists, and its texts use no label but those that it groups by."""
    grouped = re.search(r"by \(([a-z_, ]+)\)", rule["expr"])
    left = set(grouped[1].replace(" ", "").split(",")) if grouped else set()
    texts = rule["annotations"]["summary"] + rule["annotations"]["description"]

    assert [] == list(strangers(rule["expr"]))
    assert set(LABELS.findall(texts)) <= left


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("sidecar_no_such_total > 0", ["no metric sidecar_no_such_total"]),
        ('sidecar_requests_total{region="us"}', ["sidecar_requests_total has no label region"]),
        ('sidecar_requests_total{outcome=~"miss|hit"}', ["outcome is never hit"]),
        ('rate(sidecar_redis_duration_seconds_bucket{le="0.25"}[5m])', []),
        ("sidecar_redis_duration_seconds", ["no metric sidecar_redis_duration_seconds"]),
        ('sidecar_admission_cluster_errors_total{part="watch"}', ["part is never watch"]),
    ],
)
def test_what_does_not_exist_is_found(expression: str, named: list[str]):
    """The check of the names finds a metric, a label and a value that don't exist."""

    assert named == list(strangers(expression))


def test_every_alert_has_cases():
    """For each alert there is a case in which it fires, with all that it tells, and one in which it does not."""
    asked = [(case["alertname"], bool(case["exp_alerts"])) for test in yaml.safe_load(CASES.read_text())["tests"]
             for case in test["alert_rule_test"]]  # fmt: skip

    assert {(rule["alert"], fires) for rule in RULES for fires in (True, False)} == set(asked)


def test_promtool(tmp_path: Path):
    """Prometheus takes the rules, and each fires and stays silent as the cases say."""
    promtool, rules = program("promtool"), rule_file(tmp_path)
    (tmp_path / CASES.name).write_text(CASES.read_text())
    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    tested = subprocess.run(
        [promtool, "test", "rules", tmp_path / CASES.name], capture_output=True, text=True, check=False
    )

    assert 0 == checked.returncode, checked.stdout + checked.stderr
    assert 0 == tested.returncode, tested.stdout + tested.stderr


@pytest.mark.parametrize(("accepting", "fires"), [(18, True), (19, False), (20, False)])
def test_share_of_refused_reloads(tmp_path: Path, accepting: int, fires: bool):
    """One of twenty sidecars is 5 %, which is not yet above it."""
    promtool, _ = program("promtool"), rule_file(tmp_path)
    series = [f'sidecar_config_last_reload_successful{{namespace="team-a", pod="{pod}"}}' for pod in range(accepting)]
    refusing = 'sidecar_config_last_reload_successful{namespace="team-a", pod="bad"}'
    [rule] = [rule for rule in RULES if rule["alert"] == "AiSidecarReloadFailed"]
    share = [{"labels": '{namespace="team-a"}', "value": 1 / (accepting + 1)}]
    (tmp_path / "share.yaml").write_text(
        yaml.safe_dump({
            "rule_files": ["ai-sidecar.rules.yaml"],
            "tests": [{
                "interval": "1m",
                "input_series": [
                    *({"series": each, "values": "1x5"} for each in series), {"series": refusing, "values": "0x5"},
                ],
                "promql_expr_test": [{"expr": rule["expr"], "eval_time": "3m", "exp_samples": share if fires else []}],
            }],
        })
    )  # fmt: skip
    tested = subprocess.run(
        [promtool, "test", "rules", tmp_path / "share.yaml"], capture_output=True, text=True, check=False
    )

    assert 0 == tested.returncode, tested.stdout + tested.stderr


async def test_webhook_down(tmp_path: Path):
    """
    A real Prometheus over a real webhook: while it runs, nothing is wrong, also before any pod was reviewed. When it is
    gone, the expression of the alert is true.
    """
    program("prometheus")
    issued = issue(["localhost"], datetime.now(UTC))
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(issued.certificate)
    key.write_bytes(issued.key)
    port = free_port()
    child = launch(
        tmp_path, sys.executable, "-m", "sidecar", "webhook", "--image", "image@sha256:1", "--cluster-version", "1.29",
        "--host", "127.0.0.1", "--port", "0", "--health-port", str(port), "--tls-cert", str(certificate),
        "--tls-key", str(key),
    ).child  # fmt: skip
    [rule] = [rule for rule in RULES if rule["alert"] == "AiSidecarWebhookDown"]
    try:
        async with Prometheus(tmp_path, {port: {"namespace": "ai-sidecar"}}) as prometheus:
            await prometheus.until("up", lambda found: [1] == [value for _, value in found])

            assert [] == await prometheus.query(rule["expr"])
            assert [] == await prometheus.alerts("AiSidecarWebhookClusterErrors")
            assert {"certificate", "missed", "nodes", "sync"} == {
                labels["part"] for labels, _ in await prometheus.query("sidecar_admission_cluster_errors_total")
            }

            child.kill()
            child.wait()

            assert [({}, 1.0)] == await prometheus.until(rule["expr"], bool)
    finally:
        child.kill()
        child.wait()


async def test_reload_failed(tmp_path: Path):
    """
    A real Prometheus over real sidecars: of two in one namespace, one gets a wrong configuration. The alert is pending
    for that namespace, with that share, and for no other.
    """
    program("prometheus")
    running: list[tuple[Process, Path]] = []
    try:
        for name in ("bad", "good", "other"):
            folder = tmp_path / name
            folder.mkdir()
            file = folder / "sidecar.yaml"
            free = {"port": 0}
            file.write_text(json.dumps({"version": 1, "listen": free, "health": free, "admin": free}))
            running.append((launch(folder, *run_by(file)), file))
        for process, _ in running:
            await process.started()
        ports = [process.health_port for process, _ in running]
        labels = [{"namespace": namespace} for namespace in ("team-a", "team-a", "team-b")]
        async with Prometheus(tmp_path, dict(zip(ports, labels, strict=True))) as prometheus:
            accepted = "count by (namespace) (sidecar_config_last_reload_successful == 1)"
            await prometheus.until(accepted, lambda found: sorted(value for _, value in found) == [1, 2])

            assert [] == await prometheus.alerts("AiSidecarReloadFailed")

            running[0][1].write_text("routes: [")
            [rule] = [rule for rule in RULES if rule["alert"] == "AiSidecarReloadFailed"]
            found = await prometheus.until(rule["expr"], bool)

            assert [({"namespace": "team-a"}, 0.5)] == found

            await prometheus.until('ALERTS{alertname="AiSidecarReloadFailed"}', bool)
            [alert] = await prometheus.alerts("AiSidecarReloadFailed")

            assert ("pending", "team-a", "ticket") == (
                alert["state"], alert["labels"]["namespace"], alert["labels"]["severity"]
            )  # fmt: skip
            assert "50% of the sidecars in team-a refuse their configuration" == alert["annotations"]["summary"]
    finally:
        for process, _ in running:
            process.child.kill()
            process.child.wait()
