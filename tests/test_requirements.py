"""The locks hold what pyproject.toml asks for, all of it with hashes, and nothing of the machine that wrote them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUN, BUILD, DEVELOPMENT = "requirements.txt", "requirements-build.txt", "requirements-dev.txt"

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\Z")


def locked(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """What a lock pins, by name: the requirement and its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    pins = [line.split(" --hash=") for line in lines]
    found = [(Requirement(pin), [f"--hash={one.strip()}" for one in hashes]) for pin, *hashes in pins]
    return {canonicalize_name(pin.name): (pin, hashes) for pin, hashes in found}


LOCKS = {name: locked(name) for name in (RUN, BUILD, DEVELOPMENT)}
RUNNING = [Requirement(one) for one in PROJECT["project"]["dependencies"]]
DEVELOPING = [Requirement(one) for one in PROJECT["dependency-groups"]["dev"]]


def version_of(pin: Requirement) -> str:
    """The one version that *pin* allows."""
    [only] = pin.specifier
    assert "==" == only.operator, pin
    return only.version


@pytest.mark.parametrize("needed", RUNNING, ids=str)
@pytest.mark.parametrize("lock", [RUN, DEVELOPMENT])
def test_dependencies(lock, needed):
    """Each dependency is locked at a version within its range, wherever the program runs."""
    pin, _ = LOCKS[lock][canonicalize_name(needed.name)]

    assert needed.specifier.contains(version_of(pin))
    assert pin.marker is None


@pytest.mark.parametrize("needed", DEVELOPING, ids=str)
def test_development(needed):
    """Each tool is locked at a version within its range, where it is needed."""
    pin, _ = LOCKS[DEVELOPMENT][canonicalize_name(needed.name)]

    assert needed.specifier.contains(version_of(pin))
    for machine in (
        {"python_version": version, "python_full_version": f"{version}.1", "platform_machine": machine}
        for version in ("3.11", "3.12", "3.13")
        for machine in ("x86_64", "aarch64")
    ):
        asked = needed.marker is None or needed.marker.evaluate(machine | {"sys_platform": "linux"})
        given = pin.marker is None or pin.marker.evaluate(machine | {"sys_platform": "linux"})
        assert asked == given


@pytest.mark.parametrize("lock", LOCKS)
def test_hashes(lock):
    """Each pin has its hashes, none of them twice."""
    for pin, hashes in LOCKS[lock].values():
        assert hashes, pin
        assert all(_HASH.match(one) for one in hashes), pin
        assert len(hashes) == len(set(hashes)), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_nothing_of_a_machine(lock):
    """No address, no option, no path: what is locked comes from wherever the reader's pip is told to look."""
    for line in (ROOT / lock).read_text(encoding="utf-8").splitlines():
        assert not re.search(r"://|file:|@|(?:^|\s)/|~/", line), line
        assert "--" not in line.replace("--hash=sha256:", ""), line
        assert re.match(r"\S+==|    --hash=|    *#|#", line), line


def test_one_version_of_each():
    """Development uses what runs and what builds: whatever two locks hold is the same file in both."""
    for name, (pin, hashes) in (LOCKS[RUN] | LOCKS[BUILD]).items():
        other, others = LOCKS[DEVELOPMENT][name]
        assert (version_of(pin), hashes) == (version_of(other), others)


def test_ranges():
    """Each dependency has a lowest and a first untested version; of a tool as well, or it is one version."""
    for needed in (*RUNNING, *DEVELOPING, *(Requirement(one) for one in PROJECT["build-system"]["requires"])):
        assert {one.operator for one in needed.specifier} in [{">=", "<"}, {"=="}], needed


def test_what_builds_is_what_is_locked():
    """The build needs no more than its own lock holds, and the development lock too, so it needs no network."""
    [builder] = PROJECT["build-system"]["requires"]

    assert [builder] == PROJECT["dependency-groups"]["build"]
    assert builder in PROJECT["dependency-groups"]["dev"]
    assert canonicalize_name(Requirement(builder).name) in LOCKS[BUILD]
