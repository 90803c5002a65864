"""YAML: what is written means to kubectl what it meant before."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.inject.kube_yaml import dump_all, load_all

KUBECTL = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")

SCALARS = {
    "y": True, "N": False, "on": True, "Off": False, "yes": True, "true": True, "tRUE": "tRUE",
    "~": None, "Null": None, "nULL": "nULL",
    "1e3": 1000.0, "12e45": 12e45, "1e+3": 1000.0, ".5": 0.5, "1.": 1.0, "08": 8.0, "1.5": 1.5, "1e": "1e", ".": ".",
    "0": 0, "-1": -1, "+1": 1, "010": 8, "0o17": 15, "0x1f": 31, "0X1F": 31, "0b11": 3, "1_000": 1000, "-0x10": -16,
    "10:30": "10:30", "1:30:20": "1:30:20", "190:20:30.15": "190:20:30.15", "2026-01-01": "2026-01-01",
    "=": "=", "0x": "0x", "0b": "0b", "500m": "500m", "1.2.3": "1.2.3",
}  # fmt: skip
NASTY = [
    *SCALARS,
    "",
    "a: b",
    "#x",
    "- 1",
    "!x",
    "%x",
    "&a",
    "*a",
    "<<",
    "a\nb",
    "a\n",
    "\na",
    "  a\n b",
    "a \nb\t",
    "é",
]

plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.sampled_from(NASTY) | st.text(max_size=20)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NASTY), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("text", "expected"), SCALARS.items())
def test_scalars(text: str, expected: Any):
    """Each is read as kubectl reads it."""
    [found] = load_all(f"a: {text}")

    assert (expected, type(expected)) == (found["a"], type(found["a"]))


@pytest.mark.parametrize("text", NASTY)
def test_texts(text: str):
    """A text stays one, whatever it looks like."""
    assert [{"a": text, text: "a"}] == load_all(dump_all([{"a": text, text: "a"}]))


@given(values)
def test_there_and_back(value: Any):
    """Whatever it is."""
    assert [value] == load_all(dump_all([value]))


def test_long_texts_keep_their_lines():
    """A script or a configuration in a manifest can still be read by people."""
    assert "a: |\n  one\n  two\n" == dump_all([{"a": "one\ntwo\n"}])


def test_merge_keys_and_anchors():
    """They mean the same as copies."""
    assert [{"a": {"x": 1}, "b": {"x": 1, "y": 2}}] == load_all("a: &a {x: 1}\nb: {<<: *a, 'y': 2}")


@pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed; `make setup` installs it")
def test_by_kubectl(tmp_path: Path):
    """It reads the same from what is read and written here as from the file, and what it reads is what is read here."""
    plain_ones = "".join(f"  s{at}: {text}\n" for at, text in enumerate(SCALARS))
    quoted = "".join(f"  q{at}: {json.dumps(text)}\n" for at, text in enumerate(NASTY))
    before, after = tmp_path / "before.yaml", tmp_path / "after.yaml"
    before.write_text(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n{plain_ones}{quoted}")
    after.write_text(dump_all(load_all(before.read_text())))

    assert read_by_kubectl(before) == read_by_kubectl(after)
    assert load_all(before.read_text()) == [read_by_kubectl(before)]


def read_by_kubectl(file: Path) -> Any:
    command = [str(KUBECTL), "patch", "--local", "-f", str(file), "-p", "{}", "--type", "merge", "-o", "json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("indent", ["\t", " ", None])
def test_json(indent: str | None):
    """JSON may have tabs, and writes what lies beyond 16 bits as two escapes."""
    document = {"a": "caf\u00e9 \U0001f600", "b": [1, 1.5, None, True, "y", "010"], "c": {}}
    text = json.dumps(document, indent=indent)

    assert [document] == load_all(f"\n{text}\n")
    assert [document] == load_all(dump_all([document]))


@pytest.mark.parametrize("text", ["{a: b}", "[a, b]", '{"a": 1}\n---\n{"b": 1}', "{}"])
def test_flow_style(text: str):
    """What begins like JSON may be YAML all the same."""
    assert list(yaml.safe_load_all(text)) == load_all(text)


@pytest.mark.parametrize("text", ['a: "\\ud83d"', '"\\ud83d": a', '{"a": "\\ud83d"}'])
def test_half_a_character(text: str):
    """It could not be written again."""
    with pytest.raises(ValueError, match="surrogates"):
        load_all(text)
