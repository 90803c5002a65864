"""The runbooks: each belongs to an alert, and what they tell people to type, and to look at, exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sidecar.cli.main import _parser
from sidecar.core.pods.settings import _OTHERS, _OURS, _TUNED, DOMAIN, INJECT
from tests.k8s.names import K8S, commands, kubectl, strangers
from tests.k8s.prometheus import ALERTS

FOLDER = K8S / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
PARAMETERS = [pytest.param(page, id=page.name) for page in (*PAGES, K8S / "alerts" / "README.md")]
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["spec"]["groups"] for rule in group["rules"]]

OF_DOMAIN = {INJECT, *_OTHERS, *_OURS, *(DOMAIN + word for word in _TUNED), f"{DOMAIN}revision", f"{DOMAIN}config"}
"""Our labels and annotations."""


def test_list():
    """The list of the runbooks has every alert, its severity and its page, and no other."""
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| (`Ai.*`) \| (\w+) \| \[.*\]\((.*)\) \|$", text, re.MULTILINE)
    listed = {(alert, severity, page) for names, severity, page in rows for alert in re.findall(r"`(\w+)`", names)}

    assert listed == {
        (rule["alert"], rule["labels"]["severity"], Path(rule["annotations"]["runbook_url"]).name) for rule in RULES
    }
    assert {page for _, _, page in listed} | {"README.md"} == {page.name for page in PAGES}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES if page.name != "README.md"])
def test_parts(page: Path):
    """A page says what users feel, how to look and what to do, and how urgent each of its alerts is."""
    text = page.read_text()
    named = dict(re.findall(r"`(AiSidecar\w+)`,? (?:and `AiSidecar\w+`, )?(ticket|page)", text))
    mine = {rule["alert"]: rule["labels"]["severity"] for rule in RULES
            if rule["annotations"]["runbook_url"].endswith(f"/{page.name}")}  # fmt: skip

    assert mine == named
    assert "**What users feel.**" in text
    assert "## How to look" in text
    assert "## What to do" in text


@pytest.mark.parametrize("page", PARAMETERS)
def test_names(page: Path):
    """Metrics, alerts, labels, annotations and links exist."""
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]

    assert [] == list(strangers(text))
    assert set(re.findall(r"AiSidecar\w+", text)) <= {rule["alert"] for rule in RULES}
    assert set(re.findall(re.escape(DOMAIN) + r"[a-z-]*[a-z]", text)) <= OF_DOMAIN
    assert [] == [target for target in links if not (page.parent / target).exists()]


def test_pages_elsewhere():
    """An alert that another page names exists."""
    pages = [*(K8S.parent / "docs").glob("*.md"), K8S.parent / "README.md"]
    named = {name for page in pages for name in re.findall(r"\bAiSidecar\w+", page.read_text())}

    assert "AiSidecarPodsMissed" in named
    assert named <= {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("page", PARAMETERS)
def test_our_commands(page: Path, capsys: pytest.CaptureFixture[str]):
    """Each call of our program is one that it understands."""
    for arguments in commands(page.read_text()):
        if len(arguments) > 1:
            _parser().parse_args(arguments)  # else it ends the test
        else:
            with pytest.raises(SystemExit) as ended:
                _parser().parse_args([*arguments, "--help"])

            assert 0 == ended.value.code, (arguments, capsys.readouterr().err)


@pytest.mark.parametrize("page", PARAMETERS)
def test_kubectl(page: Path, tmp_path: Path):
    """Each call of kubectl is one that it understands: it only misses its cluster."""
    program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("kubectl is missing: make setup")
    for call in sorted(set(kubectl(page.read_text()))):
        words = shlex.split(call)
        shown = [word for word in words if word.startswith("jsonpath=")]
        for option, value in pairwise(words):
            if option == "-p":
                json.loads(value)
        for arguments, code, said in (
            ([*words[1:], "--server", "http://127.0.0.1:9"], 1, "refused"),
            *((["config", "view", "-o", each], 0, "") for each in shown),  # without a server: the path can be read
        ):
            ended = subprocess.run(
                [program, *arguments], capture_output=True, text=True, check=False, cwd=K8S.parent,
                env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            )  # fmt: skip

            assert code == ended.returncode, (call, ended.stderr)
            assert said in ended.stderr, (call, ended.stderr)


def test_some_commands_are_checked():
    """The checks above find the commands, those in blocks and those in sentences."""
    text = (FOLDER / "reload-failed.md").read_text()

    assert ["check", "/etc/sidecar"] in list(commands(text))
    assert ["diff"] in list(commands(text))
    assert "kubectl -n team-a get configmap ai-sidecar -o yaml" in list(kubectl(text))
    assert "kubectl -n team-a rollout restart deployment/chat" in list(kubectl(text))
