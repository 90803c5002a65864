"""Whether a configuration has changed on disk, however it is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.core.rules import AzureIdentity, Rules, UpstreamRule
from sidecar.settings.watch import FileWatch, named_files
from tests.scenarios.rules_on_disk import RulesOnDisk


@pytest.fixture
def disk(tmp_path: Path) -> RulesOnDisk:
    disk = RulesOnDisk(tmp_path / "etc")
    disk.mount("mode: normal\n")
    return disk


@pytest.mark.parametrize("way", ["write", "rename", "mount"])
def test_ways_of_writing(disk: RulesOnDisk, way: str):
    """Each is seen, and once; the same content again is none."""
    watch = FileWatch(str(disk.folder))
    write = getattr(disk, way)
    if way != "mount":
        disk.file.unlink()
    write("mode: normal\n")
    seen = [watch.look()[0]]
    for text in ("mode: cache-off\n", "mode: cache-off\n", "mode: normal\n"):
        write(text)
        seen.append(watch.look()[0])

    assert seen[1] == seen[2]
    assert seen[0] == seen[3] != seen[1]


def test_the_file_itself(disk: RulesOnDisk):
    """Where a file is named, and not its folder, it is found again after it was replaced."""
    watch = FileWatch(str(disk.file))
    before = watch.look()
    disk.mount("mode: cache-off\n")

    assert before != watch.look()


def test_gone_and_back(disk: RulesOnDisk):
    """A folder that is away is a change, and its return is one."""
    watch = FileWatch(str(disk.folder))
    before = watch.look()
    disk.remove()
    away = watch.look()
    disk.mount("mode: normal\n")

    assert before != away
    assert before == watch.look()


def test_a_second_file(disk: RulesOnDisk):
    """It makes the folder's configuration another (a wrong one)."""
    watch = FileWatch(str(disk.folder))
    before = watch.look()
    (disk.folder / ".hidden.yaml").write_text("x")
    (disk.folder / "notes.txt").write_text("x")

    assert before == watch.look()

    (disk.folder / "other.yml").write_text("x")

    assert before != watch.look()


def test_times_with_coarse_grains(disk: RulesOnDisk):
    """Another content of the same size, under the same times, is seen while the file is young."""
    disk.write("mode: normal\n")
    watch = FileWatch(str(disk.folder))
    before = watch.look()
    state = disk.file.stat()
    disk.file.write_text("mode: normax\n")
    os.utime(disk.file, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert before != watch.look()


def test_named_files(disk: RulesOnDisk, tmp_path: Path):
    """They count apart from the configuration: rotated, changed in their rules, or gone."""
    ca = tmp_path / "ca.pem"
    ca.write_text("one")
    watch = FileWatch(str(disk.folder))
    rules = Rules((), (), upstream=UpstreamRule(ca_file=str(ca)))
    watch.follow(rules)
    config, files = watch.look()
    ca.write_text("two")

    assert (config, True) == (watch.look()[0], files != watch.look()[1])

    ca.unlink()
    gone = watch.look()[1]

    assert ([str(ca)], True) == ([*gone], gone != files)
    assert config == watch.look()[0]

    watch.follow(replace(rules, upstream=UpstreamRule()))

    assert gone != watch.look()[1]


def test_every_kind_of_file_is_named(load_rules):
    """No key that names a file is forgotten."""
    rules = load_rules(
        """
admin: {token_file: /token}
upstream: {ca_file: /ca}
cache:
  secret_file: /secret
  redis: {url: "rediss://r", username_file: /user, password_file: /password, ca_file: /rca, cert_file: /cert,
          key_file: /key}
services:
  openai:
    tokens: {issuer: "https://i", audience: a, jwks_file: /jwks}
    regions:
    - {name: a, url: "https://a.example", credential: {header: authorization, file: /credential}}
    - {name: b, url: "https://b.example", credential_domain: microsoft,
       credential: {workload_identity: {token_file: /federated}}}
routes: [{name: r, fallback: [{answer_file: /answer}]}]
"""
    )

    identity = AzureIdentity("workload", token_file="/redis-federated")
    rules = replace(rules, redis=replace(rules.redis, credential=identity))

    assert {
        "/redis-federated",
        "/token", "/ca", "/secret", "/user", "/password", "/rca", "/cert", "/key", "/jwks", "/credential", "/federated",
        "/answer",
    } == set(named_files(rules))  # fmt: skip


@pytest.fixture
def load_rules(tmp_path: Path):
    """Rules from the text of a configuration."""
    from sidecar.settings import load  # noqa: PLC0415  used here alone

    def read(text: str) -> Rules:
        file = tmp_path / "rules.yaml"
        file.write_text(text)
        return load(str(file), environ={}, overrides={}, strict=False)

    return read


def test_a_pipe_is_left_alone(tmp_path: Path):
    """What stands in a pipe is for whoever reads the configuration, and looking there waits for nobody."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    watch = FileWatch(str(pipe))
    end = os.open(pipe, os.O_RDWR)
    os.write(end, b"mode: cache-off\n")

    assert watch.first == watch.look()[0]
    assert b"mode: cache-off\n" == os.read(end, 100)

    os.close(end)
