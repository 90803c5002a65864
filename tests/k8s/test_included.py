"""Alerts and dashboards as others include them, by kustomize."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.names import K8S
from tests.k8s.prometheus import ALERTS


def built(folder: Path) -> list[dict[str, Any]]:
    """What ``kubectl kustomize`` makes of a folder."""
    program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("kubectl is missing: make setup")
    ended = subprocess.run([program, "kustomize", folder], capture_output=True, text=True, check=False)

    assert 0 == ended.returncode, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


def test_alerts():
    """The rules come out as they stand, in our namespace."""
    [rule] = built(K8S / "alerts")

    assert yaml.safe_load(ALERTS.read_text())["spec"] == rule["spec"]
    assert "ai-sidecar" == rule["metadata"]["namespace"]


def test_dashboards():
    """Each dashboard is in a ConfigMap that Grafana's sidecar container finds."""
    maps = built(K8S / "dashboards")
    files = {name: text for each in maps for name, text in each["data"].items()}

    assert {"ConfigMap"} == {each["kind"] for each in maps}
    assert {"1"} == {each["metadata"]["labels"]["grafana_dashboard"] for each in maps}
    assert {file.name: file.read_text() for file in (K8S / "dashboards").glob("*.json")} == files
    assert all(json.loads(text)["panels"] for text in files.values())


def test_runbooks_as_links(tmp_path: Path):
    """The overlay that the page shows makes links of the runbooks' paths, and leaves everything else alone."""
    [overlay] = re.findall(r"```yaml\n(.*?)```", (K8S / "alerts" / "README.md").read_text(), re.DOTALL)
    shutil.copytree(K8S / "alerts", tmp_path / "k8s" / "alerts")
    folder = tmp_path / "overlays" / "ours"
    folder.mkdir(parents=True)
    (folder / "kustomization.yaml").write_text(overlay)
    [before] = built(K8S / "alerts")
    [after] = built(folder)
    base = "https://git.example.com/platform/sidecar/blob/main/"
    for group in before["spec"]["groups"]:
        for rule in group["rules"]:
            rule["annotations"]["runbook_url"] = base + rule["annotations"]["runbook_url"]

    assert before["spec"] == after["spec"]
    assert "prometheus" == after["metadata"]["labels"]["release"]
