"""A configuration that changes on disk, as kubelet, editors and scripts do it; nobody tells the sidecar."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.sidecar import Sidecar
from sidecar.cli.keygen import line
from sidecar.core.rules import Mode
from sidecar.settings import forwarding
from tests.scenarios.conftest import Lab
from tests.scenarios.desks import metric
from tests.scenarios.regions import Region, chat
from tests.scenarios.rules_on_disk import OPEN, RulesOnDisk, WarmCaller, events, live, reload, rules

ANCHOR = Path(__file__).parents[1] / "anchor.pem"


def ttl(lab: Lab) -> float | None:
    """The TTL of the route that the stories change."""
    return lab.sidecar.rules.routes[0].cache.ttl


@pytest.mark.parametrize("way", ["write", "rename", "mount"])
async def test_ways_of_writing(build_lab, disk, upstream: Region, way: str):
    """Whichever way it is written, the new rules are in use soon."""
    getattr(disk, way if way != "rename" else "write")(rules(upstream, route="cache: {ttl: 1s}"))
    lab = await build_lab("", on_disk=disk.source())
    for seconds in (2, 3):
        getattr(disk, way)(rules(upstream, route=f"cache: {{ttl: {seconds}s}}"))
        await live(lab, lambda seconds=seconds: len(events(lab, "config-reloaded")) == seconds - 1)

        assert seconds == ttl(lab)
    assert ["change", "change"] == [line["by"] for line in events(lab, "config-reloaded")]


async def test_gone_and_back(build_lab, disk, upstream: Region):
    """While the folder is away the last good rules serve; when it is back, those in it do."""
    disk.mount(rules(upstream, route="cache: {ttl: 1s}"))
    lab = await build_lab("", on_disk=disk.source())
    disk.remove()
    await live(lab, lambda: bool(events(lab, "config-refused")))

    assert (1.0, 200) == (ttl(lab), (await lab.ask(chat(1))).status)

    disk.mount(rules(upstream, route="cache: {ttl: 2s}"))
    await live(lab, lambda: ttl(lab) == 2.0)

    assert not lab.sidecar._parts.revision.refused


async def test_many_swaps_under_load(build_lab, disk, upstream: Region):
    """
    A hundred swaps, every third of them invalid, while eight connections call: no call fails, no connection breaks, the
    last valid rules are in use in the end, and what was stored is still there.
    """
    disk.mount(rules(upstream))
    lab = await build_lab("", on_disk=disk.source())
    callers = [WarmCaller(lab) for _ in range(8)]
    for number in range(8):
        await callers[number].ask("a", chat(number))
    done = asyncio.Event()
    asked = 0

    async def call(caller: WarmCaller, number: int) -> None:
        nonlocal asked
        while not done.is_set():
            await caller.ask("a", chat(number))
            asked += 1

    calls = [asyncio.create_task(call(*each)) for each in zip(callers, range(8), strict=True)]
    for number in range(100):
        disk.mount("routes: [" if number % 3 == 1 else rules(upstream, route=f"cache: {{ttl: {number + 1}h}}"))
        if number % 20 == 0:
            await asyncio.gather(reload(lab), return_exceptions=True)  # an operator asks meanwhile
        await asyncio.sleep(0.01)
    await live(lab, lambda: ttl(lab) == 100 * 3600.0)
    done.set()
    await asyncio.gather(*calls)
    for caller in callers:
        caller.close()

    assert asked > 100
    assert 8 == lab.sidecar.memory.entries
    late = WarmCaller(lab)

    assert ["hit_memory"] * 8 == [await late.ask("a", chat(number)) for number in range(8)]

    late.close()


async def test_trust_anchors_that_rotate(build_lab, disk, upstream: Region, tmp_path: Path):
    """New connections trust the new anchors; a call on an old connection finishes there. Unfit ones change nothing."""
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(ANCHOR.read_bytes())
    disk.mount(rules(upstream, more=f"upstream: {{ca_file: {anchors}}}"))
    lab = await build_lab("", on_disk=disk.source())
    await lab.ask(chat(1))
    pool = lab.sidecar.upstream._pool
    upstream.hold = b"box 2"
    held = asyncio.create_task(lab.ask(chat(2)))
    await lab.until(lambda: upstream.calls == 2)
    anchors.write_bytes(b"# rotated\n" + ANCHOR.read_bytes())
    await live(lab, lambda: lab.sidecar.upstream._pool is not pool)
    await lab.ask(chat(3))
    upstream.go.set()

    assert 200 == (await held).status

    await lab.until(lambda: not lab.sidecar.upstream._retired)
    fresh = lab.sidecar.upstream._pool
    anchors.write_bytes(b"no certificate")
    await live(lab, lambda: bool(events(lab, "config-refused")))

    assert fresh is lab.sidecar.upstream._pool
    assert 200 == (await lab.ask(chat(4))).status


async def test_a_process_that_only_forwards(disk, upstream: Region):
    """A process whose configuration could not be read takes up its work as soon as that is put right."""
    disk.mount("routes: [")
    logs: list[bytes] = []
    sidecar = Sidecar(
        forwarding(environ={}, overrides=OPEN), environ={}, write=logs.append, refused=True, source=disk.source()
    )
    await sidecar.start()
    try:
        assert (Mode.PASSTHROUGH, False) == (sidecar.operations.mode, not sidecar._parts.revision.refused)

        disk.mount(rules(upstream))
        await live(Lab(sidecar, logs=logs), lambda: sidecar.operations.mode is Mode.NORMAL)

        assert "team" == sidecar.rules.routes[0].name
        assert "sidecar_config_last_reload_successful 1.0" in sidecar.metrics.exposition().decode()
    finally:
        await sidecar.stop()


async def test_a_fleet_on_two_revisions(build_lab, disk, tmp_path: Path, upstream: Region, redis_server):
    """While one pod has the new rules and the other has not, both say so; once both have them, that ends."""
    secret = tmp_path / "cache.key"
    secret.write_text(line() + "\n")
    late = RulesOnDisk(tmp_path / "late")

    def by(ttl: str) -> str:
        redis = f"redis: {{url: '{redis_server.url}', namespace: team-a, timeout: 10s}}"
        return rules(upstream, route=f"cache: {{ttl: {ttl}}}", more=f"cache: {{secret_file: {secret}, {redis}}}\n")

    for each in (disk, late):
        each.mount(by("1h"))
    labs = [await build_lab("", on_disk=each.source()) for each in (disk, late)]

    async def told() -> list[tuple[set[str], float]]:
        """What each pod says: the revisions of the fleet in its status, and their number in its metrics."""
        for lab in (*labs, *labs):
            await lab.sidecar.fleet.presence.beat()
        found = []
        for lab in labs:
            async with lab._session.get(f"http://127.0.0.1:{lab.sidecar.admin_port}/api/status") as reply:
                revisions = (await reply.json())["fleet"]["revisions"]
            found.append((set(revisions), metric(lab, "fleet_revisions")[""]))
        return found

    old = labs[0].sidecar.rules.revision

    assert [({old}, 1.0)] * 2 == await told()

    disk.mount(by("2h"))
    await reload(labs[0])
    new = labs[0].sidecar.rules.revision

    assert [({old, new}, 2.0)] * 2 == await told()

    late.mount(by("2h"))
    await reload(labs[1])
    redis_server.call("DEL", *redis_server.call("KEYS", "*revisions*"))  # as its time does, later

    assert [({new}, 1.0)] * 2 == await told()


async def test_redis_rules(build_lab, disk, upstream: Region, redis_server, tmp_path: Path):
    """The time limit, the wait for another pod and the sealing are adopted; the address waits for a restart."""
    secret = tmp_path / "cache.key"
    secret.write_text("a:" + "A" * 43 + "=\n")

    def by(url: str, more: str = "", sealing: str = "") -> str:
        redis = f"redis: {{url: '{url}', namespace: team-a{more}}}"
        return rules(upstream, more=f"cache: {{secret_file: {secret}, {redis}{sealing}}}\n")

    disk.mount(by(redis_server.url, ", timeout: 1s"))
    lab = await build_lab("", on_disk=disk.source())
    await lab.ask(chat(1))
    disk.mount(by("redis://127.0.0.1:1", ", timeout: 300ms, lease_wait: 7s", ", compress_above: 7Ki"))
    await reload(lab)
    fleet = lab.sidecar.fleet

    assert (0.3, 0.3, 7.0, 7 * 1024) == (
        fleet.quota.timeout, fleet._leases.timeout, lab.sidecar.proxy._origin.lease_wait, fleet.seal.rule.compress_above
    )  # fmt: skip
    assert ["cache.redis.url"] == [change.path for change in lab.sidecar._parts.revision.waiting]
    assert 200 == (await lab.ask(chat(2))).status
    assert fleet.link.up


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
async def test_a_file_without_content(build_lab, disk, upstream: Region, text: str):
    """A file that was emptied, to be written next, or because the disk is full, takes no service away."""
    disk.write(rules(upstream, route="cache: {ttl: 1s}"))
    lab = await build_lab("", on_disk=disk.source())
    disk.write(text)
    await live(lab, lambda: bool(events(lab, "config-refused")))

    assert (1.0, 200) == (ttl(lab), (await lab.ask(chat(1))).status)


async def test_a_file_that_comes_later(build_lab, disk, upstream: Region, tmp_path: Path):
    """A ConfigMap may come before the Secret that it names: it is read again, though it has not changed."""
    disk.mount(rules(upstream))
    lab = await build_lab("", on_disk=disk.source())
    anchors = tmp_path / "later.pem"
    disk.mount(rules(upstream, more=f"upstream: {{ca_file: {anchors}}}"))
    await live(lab, lambda: bool(events(lab, "config-refused")))
    anchors.write_bytes(ANCHOR.read_bytes())
    await live(lab, lambda: lab.sidecar.rules.upstream.ca_file == str(anchors))

    assert 1 == len(events(lab, "config-refused"))
    assert not lab.sidecar._parts.revision.refused


async def test_a_file_that_changes_while_it_is_read(build_lab, disk, upstream: Region, tmp_path: Path):
    """What a reload did not read any more is read by the next one."""
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(ANCHOR.read_bytes())
    disk.mount(rules(upstream, more=f"upstream: {{ca_file: {anchors}}}"))
    lab = await build_lab("", on_disk=disk.source())
    adoption = lab.sidecar.reloads._adoption
    prepare = adoption.prepare

    def late(*arguments: Any, **more: Any) -> Any:
        prepared = prepare(*arguments, **more)
        anchors.write_bytes(b"# rotated\n" + ANCHOR.read_bytes())
        adoption.prepare = prepare
        return prepared

    adoption.prepare = late
    pool = lab.sidecar.upstream._pool
    await reload(lab)
    await live(lab, lambda: lab.sidecar.upstream._pool is not pool)

    assert 200 == (await lab.ask(chat(1))).status


async def test_a_configuration_out_of_a_pipe(upstream: Region, tmp_path: Path):
    """``--config <(...)`` is read whole at the start, and once: nobody asks an empty pipe for other rules."""
    end, other = os.pipe()
    text = rules(upstream, more="listen: {port: 0}\nhealth: {port: 0}\nadmin: {port: 0}\nlog: {sample: 100%}\n")
    os.write(other, text.encode())
    os.close(other)
    command = (sys.executable, "-m", "sidecar", "run", "--config", f"/dev/fd/{end}")
    child = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, pass_fds=(end,))
    os.close(end)
    assert child.stderr is not None
    seen: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(60):
            while not seen or seen[-1]["event"] != "config-refused":
                seen.append(json.loads(await child.stderr.readline()))
                if seen[-1]["event"] == "started":
                    child.send_signal(signal.SIGHUP)
    finally:
        child.terminate()
        await child.wait()
    started = next(line for line in seen if line["event"] == "started")

    assert started["revision"] == seen[-1]["revision"] != hashlib.sha256(b"").hexdigest()[:12]
    assert started["port"] != 7400
