"""``sidecar diff``: what a change changes, counted at a running sidecar where one answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sidecar.cli.main import main
from tests.redis_servers import free_port
from tests.scenarios.conftest import build_lab  # noqa: F401  a fixture
from tests.scenarios.regions import chat, running
from tests.scenarios.rules_on_disk import RulesOnDisk, rules

OLD = "routes: [{name: team, match: {path: '*/chat/completions'}, cache: {ttl: 1h}}]\n"
NEW = (
    "routes: [{name: team, match: {path: '*/chat/completions'}, cache: {ttl: 5m}}]\n"
    "cache: {memory: {max_bytes: 128Mi}}\nlisten: {port: 7500}\n"
)


def files(folder: Path, old: str, new: str) -> list[str]:
    """Both configurations, written down."""
    (folder / "old.yaml").write_text(old)
    (folder / "new.yaml").write_text(new)
    return [str(folder / "old.yaml"), str(folder / "new.yaml")]


def test_a_change(tmp_path: Path, capsys):
    """A line that sums it up, each key, what it means for stored answers, and what waits."""
    nobody = f"admin: {{port: {free_port()}}}\n"
    code = main(["diff", *files(tmp_path, OLD + nobody, NEW + nobody)])
    out, err = capsys.readouterr()

    assert (
        0,
        """\
routes: ~1; listen.port: 7400 → 7500; cache.memory.max_bytes: 64Mi → 128Mi

changed
  routes.team.cache.ttl: 1h → 5m
  listen.port: 7400 → 7500
  cache.memory.max_bytes: 64Mi → 128Mi

stored answers
  routes.team: cache.ttl 1h → 5m: answers that are older do not serve

waits for a restart
  listen.port: 7400 → 7500
""",
    ) == (code, out)
    assert "sidecar: no sidecar of OLD answers here, so its entries are not counted\n" == err


def test_nothing(tmp_path: Path, capsys):
    """A comment is no change."""
    assert 0 == main(["diff", *files(tmp_path, OLD, f"# tuned\n{OLD}")])
    assert "nothing that counts\n" == capsys.readouterr().out


def test_one_that_is_wrong(tmp_path: Path, capsys):
    """Its problems are told, as by ``check``, and nothing else."""
    assert 2 == main(["diff", *files(tmp_path, OLD, "mode: odd\n")])

    out, err = capsys.readouterr()

    assert ("", True) == (out, "mode" in err)


async def test_counted(build_lab, tmp_path: Path, capsys):  # noqa: F811  the fixture
    """Of a running sidecar it tells how many entries a change takes away."""
    disk = RulesOnDisk(tmp_path / "etc")
    async with running("here") as (upstream,):
        disk.write(rules(upstream))
        lab = await build_lab("", on_disk=disk.source())
        for number in range(3):
            await lab.ask(chat(number))
        await lab.settle()
        at = f"admin: {{port: {lab.sidecar.admin_port}}}\n"
        new = rules(upstream, route="cache: {mode: off}")
        code = await asyncio.to_thread(main, ["diff", *files(tmp_path, rules(upstream) + at, new + at)])
        shorter = rules(upstream, route="cache: {ttl: 1m}")
        await asyncio.to_thread(main, ["diff", *files(tmp_path, rules(upstream) + at, shorter + at)])

    out, err = capsys.readouterr()

    assert (0, "") == (code, err)
    assert "no stored answer serves while it is off (3 entries here)" in out
    assert "answers that are older do not serve (at most 3 entries here)" in out, "their ages are not looked at"
