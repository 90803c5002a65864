"""Rules that change while a sidecar runs: what callers, entries, regions and operators see of each change."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.core.region.breaker import State
from sidecar.core.region.regions import Place, Standing
from sidecar.core.rules import Mode
from sidecar.errors import Refused
from tests.redis_servers import free_port
from tests.scenarios.clocks import BothClocks
from tests.scenarios.conftest import CHAT, TOKEN, Lab
from tests.scenarios.operating import act
from tests.scenarios.regions import Region, Way, chat, running
from tests.scenarios.rules_on_disk import RulesOnDisk, events, reload, rules


@pytest.fixture
async def east():
    """A region."""
    async with running("east") as (region,):
        yield region


@pytest.fixture
def lab_of(build_lab, disk):
    """Starts a sidecar by a configuration on disk."""

    async def start(text: str) -> Lab:
        disk.write(text)
        return await build_lab("", on_disk=disk.source())

    return start


async def outcome(lab: Lab, body=CHAT, **more) -> str:
    """What a call was: ``hit_memory``, ``miss`` and so on."""
    reply = await lab.ask(body, **more)
    assert 200 == reply.status
    await lab.settle()
    return lab.records[-1].outcome.value


def standings(lab: Lab) -> list[Standing]:
    """How the regions of the service stand."""
    return [standing for standing in lab.sidecar.operations.table() if standing.service == "openai"]


async def change(lab: Lab, disk: RulesOnDisk, text: str):
    """The configuration becomes *text*, and is read again."""
    disk.write(text)
    return await reload(lab)


async def look(lab: Lab, what: str) -> dict[str, Any]:
    """What the admin port says of *what*."""
    async with lab._session.get(f"http://127.0.0.1:{lab.sidecar.admin_port}/api/{what}") as reply:
        return await reply.json()


# What is stored


async def test_ttl_lowered_and_raised(lab_of, disk, east: Region):
    """An entry lives as long as it was stored with, and as long as the route says now, whichever is less."""
    lab = await lab_of(rules(east, route="cache: {ttl: 1h}"))
    clock = BothClocks(lab)
    await outcome(lab)
    clock.later(600)

    assert "hit_memory" == await outcome(lab)

    told = await change(lab, disk, rules(east, route="cache: {ttl: 5m}"))

    assert ["routes.team: cache.ttl 1h → 5m: answers that are older do not serve"] == told.effects
    assert "team (at most 1 entry)" == events(lab, "config-reloaded")[-1]["answers_away"]
    assert "miss" == await outcome(lab)

    await change(lab, disk, rules(east, route="cache: {ttl: 10h}"))
    clock.later(299)

    assert "hit_memory" == await outcome(lab)

    clock.later(2)

    assert "miss" == await outcome(lab)

    clock.later(9 * 3600)

    assert "hit_memory" == await outcome(lab)


async def test_a_route_off_and_on(lab_of, disk, east: Region):
    """Off, nothing stored serves, at once; on again, what is fresh comes back, and the log says how much that is."""
    on, off = rules(east), rules(east, route="cache: {mode: off}")
    lab = await lab_of(on)
    for number in range(3):
        await outcome(lab, chat(number))
    told = await change(lab, disk, off)

    assert (["team (3 entries)"], "bypass") == (
        [line["answers_away"] for line in events(lab, "config-reloaded")], await outcome(lab, chat(1))
    )  # fmt: skip
    assert ["routes.team: cache.mode deterministic → off: no stored answer serves while it is off"] == told.effects

    told = await change(lab, disk, on)

    assert "team (3 entries)" == events(lab, "config-reloaded")[-1]["answers_back"]
    assert ["routes.team: cache.mode off → deterministic: answers that are still fresh serve again"] == told.effects
    assert "hit_memory" == await outcome(lab, chat(1))


async def test_memory_halved(lab_of, disk, east: Region):
    """What is too much is evicted, step by step; the bound holds in the end, and what comes meanwhile is kept."""
    lab = await lab_of(rules(east, more="cache: {memory: {max_bytes: 512Ki}}"))
    for number in range(150):
        await lab.ask(chat(number))
    memory = lab.sidecar.memory
    before = memory.entries
    await change(lab, disk, rules(east, more="cache: {memory: {max_bytes: 128Ki}}"))
    await lab.ask(chat(999))
    await lab.until(lambda: memory.bytes <= 128 * 1024)

    assert 0 < memory.entries < before
    assert before + 1 - memory.entries == memory.evictions
    assert "hit_memory" == await outcome(lab, chat(999))


async def test_another_eviction(lab_of, disk, east: Region):
    """Every entry stays; the new policy decides from then on."""
    lab = await lab_of(rules(east, more="cache: {memory: {max_bytes: 256Ki, eviction: lru}}"))
    for number in range(20):
        await lab.ask(chat(number))
    for way in ("s3-fifo", "lru"):
        await change(lab, disk, rules(east, more=f"cache: {{memory: {{max_bytes: 256Ki, eviction: {way}}}}}"))

        assert (20, 0) == (lab.sidecar.memory.entries, lab.sidecar.memory.evictions)
        assert ["hit_memory"] * 20 == [await outcome(lab, chat(number)) for number in range(20)]


# Regions


async def test_a_region_added_removed_and_weighed(lab_of, disk):
    """Calls go where the rules say at the time; what is known of a region goes with it, a call under way finishes."""
    async with running("east", "west") as (east, west):
        lab = await lab_of(rules(east))
        await lab.ask(chat(1))
        await change(lab, disk, rules(east, west).replace("name: east,", "name: east, priority: 2,"))
        await lab.ask(chat(2))

        assert (1, 1) == (east.calls, west.calls)

        west.hold = b"box 3"
        held = asyncio.create_task(lab.ask(chat(3)))
        await lab.until(lambda: west.calls == 2)
        await change(lab, disk, rules(east))
        await lab.ask(chat(4))
        west.go.set()

        assert (200, 2, 2) == ((await held).status, east.calls, west.calls)
        assert {("openai", "east")} == {(row.service, row.region) for row in standings(lab)}

        heavy = rules(east, west).replace("name: west,", "name: west, weight: 100,")
        await change(lab, disk, heavy)
        lab.clocks.draw = lambda: 0.5
        await lab.ask(chat(5))

        assert 3 == west.calls


async def test_a_region_moves(lab_of, disk):
    """A region of the same name at another URL is another region: it is not judged by what the former did."""
    async with running("here", "there") as (here, there):
        lab = await lab_of(rules(here.url, service="breaker: {consecutive_errors: 1}"))
        await here.become(Way.DOWN)
        assert 500 == (await lab.ask(chat(1))).status
        place = Place("openai", "", "here")
        assert {("openai", "here", "open"): 1} == lab.sidecar.regions.states()

        await change(lab, disk, rules(there.url, service="breaker: {consecutive_errors: 1}"))

        assert (200, 1) == ((await lab.ask(chat(2))).status, there.calls)
        assert State.CLOSED is lab.sidecar.regions.breaker(place, lab.sidecar.rules.services[0].breaker, 0.0).state


async def test_calls_that_are_left_at_the_former_region(lab_of, disk):
    """They fail there, and are tried again there; the region that has the name now is not judged by that."""
    by = "breaker: {consecutive_errors: 1, consecutive_unanswered: 1}"
    async with running("here", "there") as (here, there):
        lab = await lab_of(rules(here.url, service=by))
        here.hold = b"box 1"
        held = asyncio.create_task(lab.ask(chat(1)))
        await lab.until(lambda: here.calls == 1)
        await change(lab, disk, rules(there.url, service=by))
        await lab.ask(chat(2))
        await here.become(Way.KILLED)

        assert (await held).status >= 500
        assert ({("openai", "here", "closed"): 1}, []) == (lab.sidecar.regions.states(), events(lab, "breaker"))


async def test_a_breaker_tuned_while_open(lab_of, disk, east: Region):
    """Its state stays, and it waits no longer than the new rule says; a new threshold counts from the next verdict."""

    def by(text: str) -> str:
        return rules(east, service=f"breaker: {{{text}}}")

    lab = await lab_of(by("consecutive_errors: 2, open: 10m"))
    await east.become(Way.DOWN)
    for number in range(2):
        await lab.ask(chat(number))
    [standing] = standings(lab)

    assert ("open", True) == (standing.state, standing.seconds > 400)

    await change(lab, disk, by("consecutive_errors: 5, open: 1s"))
    [standing] = standings(lab)

    assert ("open", True) == (standing.state, 0 < standing.seconds <= 1.2)

    await east.become(Way.WELL)
    lab.clocks.ahead = lambda: 2.0

    assert (200, "closed") == ((await lab.ask(chat(9))).status, standings(lab)[0].state)

    await east.become(Way.DOWN)
    lab.clocks.ahead = lambda: 100.0
    for number in range(20, 24):
        await lab.ask(chat(number))

    assert "closed" == standings(lab)[0].state

    await lab.ask(chat(24))

    assert "open" == standings(lab)[0].state


async def test_a_regions_credential(lab_of, disk, east: Region, tmp_path: Path):
    """Another file, or other content of the same: calls carry the new one; none fails."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("sk-one")
    two.write_text("sk-two")

    def by(path: Path) -> str:
        held = f"credential: {{header: authorization, prefix: 'Bearer ', file: {path}}}"
        return rules(east).replace(f"url: '{east.url}'", f"url: '{east.url}', {held}")

    lab = await lab_of(by(one))
    await lab.ask(chat(1))
    await change(lab, disk, by(two))
    await lab.ask(chat(2))
    two.write_text("sk-three")
    await reload(lab)
    lab.clocks.ahead = lambda: 2.0  # a file is looked at once a second
    await lab.ask(chat(3))

    assert [b"sk-one", b"sk-two", b"sk-three"] == [
        next(key for key in (b"sk-one", b"sk-two", b"sk-three") if key in head) for head, _ in east.seen
    ]
    assert f"content of {two}" == events(lab, "config-reloaded")[-1]["changes"]
    assert not [line for line in lab.logs if b"sk-" in line]


# Limits, ports, operators


async def test_a_limit_while_calls_wait(lab_of, disk, east: Region):
    """More room lets waiting calls go at once; without a limit all of them go."""
    east.hold = b"box"
    lab = await lab_of(rules(east, route="limits: {concurrency: 1}"))
    calls = [asyncio.create_task(lab.ask(chat(number))) for number in range(5)]
    await lab.until(lambda: {"team": 4} == lab.sidecar.throttle.waiting())
    await change(lab, disk, rules(east, route="limits: {concurrency: 3}"))
    await lab.until(lambda: east.calls == 3)

    assert {"team": 2} == lab.sidecar.throttle.waiting()

    await change(lab, disk, rules(east))
    await lab.until(lambda: east.calls == 5)
    east.go.set()

    assert [200] * 5 == [(await call).status for call in calls]


async def test_a_lower_limit_while_calls_wait(lab_of, disk, east: Region):
    """Calls that have begun are not cut; those that wait go one by one, when there is room under the new limit."""
    east.hold = b"box"
    lab = await lab_of(rules(east, route="limits: {concurrency: 3}"))
    calls = [asyncio.create_task(lab.ask(chat(number))) for number in range(5)]
    await lab.until(lambda: (3, {"team": 2}) == (east.calls, lab.sidecar.throttle.waiting()))
    await change(lab, disk, rules(east, route="limits: {concurrency: 1}"))

    assert (3, {"team": 2}) == (east.calls, lab.sidecar.throttle.waiting())
    assert not any(call.done() for call in calls)

    east.go.set()

    assert [200] * 5 == [(await call).status for call in calls]
    assert 5 == east.calls


async def test_a_port_added_and_removed(lab_of, disk, east: Region):
    """A service's own port opens and closes with the rules; calls under way there finish, and no other is disturbed."""
    port = free_port()
    lab = await lab_of(rules(east))
    await change(lab, disk, rules(east, service=f"port: {port}"))
    east.hold = b"box 2"
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    async def ask(number: int) -> int:
        async with lab._session.post(url, json=chat(number), headers={"authorization": "Bearer sk-story"}) as reply:
            await reply.read()
            return reply.status

    assert 200 == await ask(1)

    held = asyncio.create_task(ask(2))
    await lab.until(lambda: east.calls == 2)
    await change(lab, disk, rules(east))

    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    east.go.set()

    assert (200, 200) == (await held, (await lab.ask(chat(3))).status)


async def test_a_connection_to_a_port_that_goes(lab_of, disk, east: Region):
    """It closes after its answer, and says so: no later call on it finds a port without a service."""
    port = free_port()
    lab = await lab_of(rules(east, service=f"port: {port}"))
    east.hold = b"box 1"
    body = json.dumps(chat(1)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-story\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await lab.until(lambda: east.calls == 1)
    await change(lab, disk, rules(east))
    east.go.set()
    async with asyncio.timeout(30):
        answer = (await reader.read()).lower()
    writer.close()

    assert (True, True) == (answer.startswith(b"http/1.1 200"), b"\r\nconnection: close\r\n" in answer)


async def test_a_port_that_comes_too_late(lab_of, disk, east: Region):
    """A process that drains takes no more callers, also at a port that only new rules name."""
    port = free_port()
    lab = await lab_of(rules(east))
    east.hold = b"box 1"
    held = asyncio.create_task(lab.ask(chat(1)))
    await lab.until(lambda: east.calls == 1)
    stopping = asyncio.create_task(lab.sidecar.stop())
    await lab.until(lambda: not lab.sidecar.ready)
    with pytest.raises(Refused, match="stopping"):
        await change(lab, disk, rules(east, service=f"port: {port}"))
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    east.go.set()

    assert 200 == (await held).status

    await stopping


async def test_a_port_that_is_taken(lab_of, disk, east: Region):
    """Then nothing of the configuration is used; the reason stands in the answer and the log."""
    port = free_port()
    lab = await lab_of(rules(east))
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)
    try:
        with pytest.raises(Refused, match="port"):
            await change(lab, disk, rules(east, service=f"port: {port}", route="cache: {mode: off}"))
    finally:
        server.close()

    assert ("miss", "hit_memory") == (await outcome(lab), await outcome(lab))
    assert 1 == len(events(lab, "config-refused"))


async def test_the_admin_token(lab_of, disk, east: Region, tmp_path: Path):
    """Another file, or another token in it: from then on the new one counts, and the old one is worth nothing."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(TOKEN)
    two.write_text("another-token-of-24-bytes")
    lab = await lab_of(rules(east, more=f"admin: {{token_file: {one}}}"))

    assert 200 == (await act(lab, "mode", {"mode": "normal"}, token=TOKEN))[0]

    await change(lab, disk, rules(east, more=f"admin: {{token_file: {two}}}"))

    assert 401 == (await act(lab, "mode", {"mode": "normal"}, token=TOKEN))[0]
    assert 200 == (await act(lab, "mode", {"mode": "normal"}, token="another-token-of-24-bytes"))[0]

    two.write_text("a-third-token-of-24-bytes")

    assert 200 == (await act(lab, "mode", {"mode": "normal"}, token="a-third-token-of-24-bytes"))[0]


async def test_the_logs_sample(lab_of, disk, east: Region):
    """It counts from the next call on."""
    lab = await lab_of(rules(east, more="log: {sample: off}"))
    await lab.ask(chat(1))
    before = len(events(lab, "request"))
    await change(lab, disk, rules(east, more="log: {sample: 100%}"))
    await lab.ask(chat(2))

    assert (0, 1) == (before, len(events(lab, "request")))


async def test_the_mode_while_an_operators_stands(lab_of, disk, east: Region):
    """An operator's mode goes on until its end; then that of the file holds."""
    lab = await lab_of(rules(east))
    await act(lab, "mode", {"mode": "cache-off", "for": "10m"})
    await change(lab, disk, rules(east, route="cache: {ttl: 1h}"))

    assert "bypass" == await outcome(lab), "another rule that changes does not end it"

    await change(lab, disk, rules(east, more="mode: passthrough"))

    assert Mode.CACHE_OFF is lab.sidecar.operations.mode

    clock = lab.clocks
    clock.ahead = lambda: 700.0
    lab.sidecar.operations.tick()

    assert Mode.PASSTHROUGH is lab.sidecar.operations.mode
    assert "bypass" == await outcome(lab)

    await change(lab, disk, rules(east))

    assert (Mode.NORMAL, "miss", "hit_memory") == (
        lab.sidecar.operations.mode, await outcome(lab), await outcome(lab)
    )  # fmt: skip


# What is told


async def test_what_is_told(lab_of, disk, east: Region):
    """The answer, the log, the metrics and the parts of readiness say the same."""
    lab = await lab_of(rules(east, more="cache: {memory: {max_bytes: 64Mi}}"))
    before = lab.sidecar.rules.revision
    disk.write(
        rules(east, route="cache: {ttl: 2h}", more="cache: {memory: {max_bytes: 128Mi}}\nlisten: {host: 0.0.0.0}\n")
        + "log: {sample: 2%}\n"
    )
    status, told = await act(lab, "reload", {})

    assert (200, ["listen.host"]) == (status, told["needs_restart"])
    assert "routes: ~1; log.sample: 1% → 2%; cache.memory.max_bytes: 64Mi → 128Mi" == told["changes"]
    assert before != told["revision"] == lab.sidecar.rules.revision

    [line] = events(lab, "config-reloaded")

    assert (told["revision"], told["changes"], str(disk.file), "api", "listen.host") == (
        line["revision"], line["changes"], line["file"], line["by"], line["needs_restart"],
    )  # fmt: skip

    text = lab.sidecar.metrics.exposition().decode()

    assert f'sidecar_config_info{{revision="{told["revision"]}"}} 1.0' in text
    assert "sidecar_config_last_reload_successful 1.0" in text
    assert "sidecar_config_needs_restart 1.0" in text
    assert [f"[+] configuration: revision {told['revision']}",
            "[-] configuration: listen.host: 127.0.0.1 → 0.0.0.0; it needs a restart"] == [
        str(part) for part in lab.sidecar.readiness().parts if part.name == "configuration"
    ]  # fmt: skip

    status = await look(lab, "status")

    assert (told["revision"], ["listen.host"], {"team": 0}) == (
        status["revision"], status["configuration"]["needs_restart"], {"team": 0, **status["memory"]["routes"]}
    )  # fmt: skip


async def test_a_configuration_that_is_refused(lab_of, disk, east: Region):
    """The last good one stays, with every problem named; once put right, all is well again."""
    lab = await lab_of(rules(east))
    before, at = lab.sidecar.rules.revision, lab.sidecar._parts.revision.loaded_at
    disk.write(rules(east, route="cache: {ttl: 5}") + "mode: odd\n")
    status, told = await act(lab, "reload", {})

    assert (422, "config-refused") == (status, told["error"]["code"])
    assert "routes.0.cache.ttl" in told["error"]["message"].replace("[0]", ".0")
    assert "mode" in told["error"]["message"]

    text = lab.sidecar.metrics.exposition().decode()

    assert "sidecar_config_last_reload_successful 0.0" in text
    assert f'sidecar_config_info{{revision="{before}"}} 1.0' in text
    assert at == lab.sidecar._parts.revision.loaded_at
    assert (2, 1) == (len(events(lab, "config-problem")), len(events(lab, "config-refused")))
    assert lab.sidecar.readiness().ready

    for by, told_so_far in (("change", 1), ("SIGHUP", 2)):
        with pytest.raises(Refused):
            await lab.sidecar.reloads.reload(by)

        assert told_so_far == len(events(lab, "config-refused")), "the same problems are told again to who asks"

    disk.write(rules(east, route="cache: {ttl: 5s}"))
    await reload(lab)

    assert "sidecar_config_last_reload_successful 1.0" in lab.sidecar.metrics.exposition().decode()


async def test_nothing_to_read_again(build_lab, east: Region):
    """A sidecar that was not started from a file says so."""
    lab = await build_lab(east.url)
    status, told = await act(lab, "reload", {})

    assert (409, "no-source") == (status, told["error"]["code"])


async def test_series_of_what_is_gone(lab_of, disk):
    """A route and a region that are configured no more are no longer exposed; the new ones are told apart."""
    async with running("east", "west") as (east, west):
        lab = await lab_of(rules(east))
        await lab.ask(chat(1))
        await lab.settle()
        await change(lab, disk, rules(west).replace("name: team,", "name: talk,"))
        await lab.ask(chat(2))
        await lab.settle()
        text = lab.sidecar.metrics.exposition().decode()

        assert ('route="team"' not in text, 'route="talk"' in text) == (True, True)
        assert ('region="east"' not in text, 'region="west"' in text) == (True, True)


async def test_many_revisions(lab_of, disk, east: Region):
    """Neither parts nor series pile up."""
    lab = await lab_of(rules(east))
    for number in range(60):
        await change(lab, disk, rules(east).replace("name: team,", f"name: team-{number},"))
        await lab.ask(chat(number))
    await lab.settle()
    text = lab.sidecar.metrics.exposition().decode()

    assert 1 == len({line.split('route="')[1].split('"')[0] for line in text.splitlines() if 'route="team' in line})
    assert 1 == text.count("sidecar_config_info{")
    assert len(lab.sidecar.regions.states()) <= 1


async def test_waiting_for_a_restart_ends(lab_of, disk, east: Region):
    """A key that goes back to its value of the start waits no more."""
    lab = await lab_of(rules(east))
    await change(lab, disk, rules(east, more="state: {dir: /elsewhere}"))

    assert ["state.dir"] == [each.path for each in lab.sidecar._parts.revision.waiting]

    await change(lab, disk, rules(east))

    assert () == lab.sidecar._parts.revision.waiting
    assert json.loads(lab.logs[-1])["level"] == "info"
