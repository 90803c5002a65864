"""
Manifests before and after injection, as files: ``golden/NAME.yaml``, and ``golden/injected/VERSION/NAME.yaml``.

The rule: a changed file is a changed promise. ``python -m tests.inject.test_golden`` writes them anew; the
difference is read before it is committed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.cli.inject import inject, injection
from sidecar.inject.manifests import read, uninject_all
from sidecar.settings import load

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))
VERSIONS = ("1.27", "1.29", "1.34")
IMAGE = "registry.example/ai-sidecar@sha256:0000"


def injected(name: str, version: str) -> str:
    """The manifest *name* injected with the built-in settings; what people are told stands above it as comments."""
    rules = load(None, environ={}, overrides={}, strict=True)
    path = GOLDEN / f"{name}.yaml"
    text, lines = inject(path.read_text(), path.name, injection(rules, image=IMAGE, version=version))
    return "".join(f"# {line}\n" for line in lines) + text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, version: str, monkeypatch, tmp_path):
    """The manifest and what people are told are as written, and the manifest comes back as it was."""
    monkeypatch.setattr("sidecar.settings.DEFAULT_FOLDER", str(tmp_path / "none"))
    expected = (GOLDEN / "injected" / version / f"{name}.yaml").read_text()

    assert expected == injected(name, version)
    assert read((GOLDEN / f"{name}.yaml").read_text(), name) == uninject_all(read(expected, name))[0]


def test_every_file_is_of_a_manifest():
    """None is left over from a manifest that is gone."""
    for version in VERSIONS:
        assert NAMES == sorted(path.stem for path in (GOLDEN / "injected" / version).glob("*.yaml"))


if __name__ == "__main__":
    for each in VERSIONS:
        (GOLDEN / "injected" / each).mkdir(parents=True, exist_ok=True)
        for one in NAMES:
            (GOLDEN / "injected" / each / f"{one}.yaml").write_text(injected(one, each))
