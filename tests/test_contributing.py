"""What CONTRIBUTING.md says of the code is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def floors():
    [contract] = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return [[room.strip().removeprefix("sidecar.") for room in floor.split("|")] for floor in contract["layers"]]


def test_floors(floors):
    """The floors are those that are checked."""
    block = re.search(r"^    __main__ > (?:.+\n)+", TEXT, re.MULTILINE).group()

    assert floors == [[room.strip() for room in floor.split("|")] for floor in block.split(">")]


def test_every_room_has_a_floor(floors):
    """No module or package of the program stands outside."""
    found = {path.stem for path in (ROOT / "sidecar").glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in (ROOT / "sidecar").glob("*/__init__.py")}

    assert found == {room for floor in floors for room in floor}


def test_dependencies():
    """Each package that is installed with the program has its reason, and no other has one."""
    rows = re.search(r"\| package \| why \|\n\|---\|---\|\n((?:\|.*\|\n)+)", TEXT).group(1)
    told = [row.split("|")[1].strip() for row in rows.splitlines()]
    needed = [re.match(r"[\w.-]+", one).group() for one in PROJECT["project"]["dependencies"]]

    assert sorted(needed) == sorted(told)
