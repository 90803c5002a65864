"""``docs/kubernetes.md`` names what the code has: annotations with their defaults, metrics of the webhook, alerts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from sidecar.core.pods import settings
from sidecar.core.pods.settings import DOMAIN, Injection, tuned
from sidecar.inject.metrics import AdmissionMetrics

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
ANNOTATIONS = dict(re.findall(rf"^\| `{DOMAIN}([a-z-]+)` \| (.+?) \|", PAGE, re.MULTILINE))


def test_annotations():
    """Each that tunes a pod stands in the table, and no other."""
    _, (warning,) = tuned(Injection("image", ()), {f"{DOMAIN}unheard-of": "x"})
    known = warning.rpartition("there are ")[2].split(", ")

    assert sorted(known) == sorted(ANNOTATIONS)


@pytest.mark.parametrize("name", [name for name in ANNOTATIONS if "`" in ANNOTATIONS[name]])
def test_defaults(name: str):
    """A default in the table is that of the code."""
    field = name.replace("-", "_")
    default = getattr(Injection("image", ()), field) or settings.DEFAULT_MEMORY

    assert ANNOTATIONS[name].endswith(f"`{default}`")


def test_metrics():
    """Each metric of the webhook stands in the table, and no other."""
    metrics = AdmissionMetrics()
    metrics.certificate_ends(1.0)
    metrics.without_secret(1)
    found = {name.decode() for name in re.findall(rb"# TYPE (sidecar_admission_\w+)", metrics.text())}
    found = {name for name in found if not name.endswith("_created")}

    assert found == set(re.findall(r"^\| `(sidecar_admission_\w+)", PAGE, re.MULTILINE))


def test_alerts():
    """An alert that the page names is one of the rules."""
    rules = yaml.safe_load((ROOT / "k8s" / "alerts" / "ai-sidecar.yaml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]}

    assert set(re.findall(r"`(AiSidecar\w+)`", PAGE)) <= alerts
