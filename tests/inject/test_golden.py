"""
Manifests before and after injection, as files: ``golden/NAME.yaml``, ``golden/injected/VERSION/NAME.yaml``, and
``golden/uninjected/NAME.yaml`` for those that had been injected before something else changed them.

The rule: a changed file is a changed promise. ``python -m tests.inject.test_golden`` writes them anew; the
difference is read before it is committed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.cli.inject import inject, injection, uninject
from sidecar.inject.files import ManifestText
from sidecar.inject.manifests import inject_all, read, uninject_all
from sidecar.settings import load

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
UNINJECTED = ("after-other-webhooks", "stripped")
VERSIONS = ("1.27", "1.29", "1.34")
IMAGE = "registry.example/ai-sidecar@sha256:0000"


def source(name: str) -> ManifestText:
    return ManifestText(f"{name}.yaml", (GOLDEN / f"{name}.yaml").read_text())


def noted(text: str, lines: list[str]) -> str:
    """A manifest, with what people are told above it as comments."""
    return "".join(f"# {line}\n" for line in lines) + text


def injected(name: str, version: str) -> str:
    """The manifest *name* injected with the built-in settings."""
    rules = load(None, environ={}, overrides={}, strict=True)
    return noted(*inject([source(name)], injection(rules, image=IMAGE, version=version)))


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch, tmp_path):
    monkeypatch.setattr("sidecar.settings.DEFAULT_FOLDER", str(tmp_path / "none"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, version: str):
    """The manifest and what people are told are as written; twice is once; and it comes back as it was."""
    expected = (GOLDEN / "injected" / version / f"{name}.yaml").read_text()

    assert expected == injected(name, version)

    after = read(expected, name)
    rules = load(None, environ={}, overrides={}, strict=True)
    if name != "stripped":  # ours was taken out there; who asks again has nothing that would strip it again
        assert after == inject_all(after, injection(rules, image=IMAGE, version=version))[0]

    assert uninject_all(read(source(name).text, name))[0] == uninject_all(after)[0]


@pytest.mark.parametrize("name", UNINJECTED)
def test_golden_without(name: str):
    """What others have done since the injection stays."""
    assert (GOLDEN / "uninjected" / f"{name}.yaml").read_text() == noted(*uninject([source(name)]))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNINJECTED])
def test_nothing_to_take_back(name: str):
    """What was never injected goes through unchanged."""
    documents = read(source(name).text, name)

    assert documents == uninject_all(documents)[0]


def test_every_file_is_of_a_manifest():
    """None is left over from a manifest that is gone."""
    for version in VERSIONS:
        assert NAMES == sorted(path.stem for path in (GOLDEN / "injected" / version).glob("*.yaml"))
    assert sorted(UNINJECTED) == sorted(path.stem for path in (GOLDEN / "uninjected").glob("*.yaml"))


if __name__ == "__main__":
    for each in VERSIONS:
        (GOLDEN / "injected" / each).mkdir(parents=True, exist_ok=True)
        for one in NAMES:
            (GOLDEN / "injected" / each / f"{one}.yaml").write_text(injected(one, each))
    (GOLDEN / "uninjected").mkdir(exist_ok=True)
    for one in UNINJECTED:
        (GOLDEN / "uninjected" / f"{one}.yaml").write_text(noted(*uninject([source(one)])))
