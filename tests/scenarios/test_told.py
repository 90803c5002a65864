"""What is out of the ordinary can be seen: in the log of every sidecar, in its metrics, and at /readyz?verbose."""

from __future__ import annotations

import pytest
from msgspec import json

from sidecar.app.sidecar import Sidecar
from sidecar.core.rules import Mode, Region, StoredCredential
from tests.redis_servers import RedisServer
from tests.scenarios.conftest import Lab
from tests.scenarios.desks import Desk, metric, question, services
from tests.scenarios.operating import act, in_mode


def lines(lab: Lab, event: str, *names: str) -> list[tuple[object, ...]]:
    """These fields of each line of an event."""
    found = [json.decode(line) for line in lab.logs]
    return [tuple(line.get(name) for name in names) for line in found if line["event"] == event]


def parts(sidecar: Sidecar, name: str) -> list[str]:
    """The parts of a name that begins so, as they are shown; the sidecar is ready, whatever they say."""
    ready, found = sidecar.readiness()

    assert ready
    return [str(part) for part in found if part.name.startswith(name)]


@pytest.fixture
async def upstream(script):
    return await script(Desk("first"))


async def test_nothing_is_told_as_programs_show_it(build_fleet, upstream):
    """No part is a ``repr``: people read it."""
    (lab, _) = await build_fleet(upstream.url)
    _, found = lab.sidecar.readiness()

    assert ["0 entries, 0 of 67108864 bytes, 0 evicted"] == [part.detail for part in found if part.name == "memory"]
    assert [] == [part for part in found if any(mark in str(part) for mark in "<>")]


async def test_a_mode(build_fleet, upstream, token_file):
    """Every sidecar says that it has changed, whose it is, how long it lasts, and that it is over."""
    labs = await build_fleet(upstream.url, admin_token_file=token_file)
    await act(labs[0], "mode", {"mode": "cache-off"})
    await in_mode(labs, Mode.CACHE_OFF)

    month = 30 * 86400
    for lab in labs:
        assert [("normal", "cache-off", "fleet", "warning")] == lines(lab, "mode", "before", "after", "by", "level")
        assert [(pytest.approx(month, abs=60),)] == lines(lab, "mode", "seconds")
        assert pytest.approx(month, abs=60) == lab.sidecar.operations.standing().seconds
        assert parts(lab.sidecar, "mode")[0].startswith("[-] mode: cache-off, the whole fleet's, for ")
        assert {'mode="cache-off"': 1.0} == metric(lab, "mode")

    await act(labs[1], "mode", {"mode": "normal"})
    await in_mode(labs, Mode.NORMAL)

    for lab in labs:
        assert ("cache-off", "normal", "configuration", "info") == lines(lab, "mode", "before", "after", "by", "level")[
            -1
        ]
        assert ([], {}) == (parts(lab.sidecar, "mode"), metric(lab, "mode"))


async def test_a_mode_that_ends(build_fleet, upstream, token_file):
    """The end is told, too, by all of them, though nobody does anything."""
    labs = await build_fleet(upstream.url, admin_token_file=token_file)
    await act(labs[0], "mode", {"mode": "passthrough", "for": "1s"})
    await in_mode(labs, Mode.PASSTHROUGH)
    await in_mode(labs, Mode.NORMAL)

    assert [[("passthrough",), ("normal",)]] * 2 == [lines(lab, "mode", "after") for lab in labs]


async def test_a_credential_that_is_not_there(build_lab, upstream, tmp_path):
    """Seen before anybody calls, and gone when it is mounted, though nobody calls; callers are told not to insist."""
    path = tmp_path / "key"
    own = Region("first", upstream.url, credential=StoredCredential("api-key", str(path)))
    lab = await build_lab("", services=services(own))

    fault = f"[-] credential {path}: No such file or directory; calls to its regions cannot be sent"
    assert [fault] == parts(lab.sidecar, "credential")
    assert {'region="first",service="openai"': 1.0} == metric(lab, "credentials_unusable")
    reply = await lab.ask(question(1))
    assert (503, "30", "false") == (reply.status, reply.headers["retry-after"], reply.headers["x-should-retry"])

    path.write_text("key-of-the-region")
    await lab.until(lambda: parts(lab.sidecar, "credential") == [])

    assert {'region="first",service="openai"': 0.0} == metric(lab, "credentials_unusable")


async def test_an_order_for_resources_that_nobody_called(build_fleet, upstream, token_file):
    """It shows everywhere, and is told when it is given and when it is taken back."""
    labs = await build_fleet(upstream.url, admin_token_file=token_file)
    asked = {"service": "azure-openai", "region": "here"}
    _, told = await act(labs[0], "regions", {**asked, "action": "stop"})
    for lab in labs:
        await lab.until(lambda lab=lab: parts(lab.sidecar, "region") != [])

        assert ["[-] region azure-openai/*/here: open, by an operator's order"] == parts(lab.sidecar, "region")

    assert [("*", "open", "stop")] == [(each["resource"], each["state"], each["order"]) for each in told["regions"]]

    await act(labs[1], "regions", {**asked, "action": "auto"})
    for lab in labs:
        await lab.until(lambda lab=lab: parts(lab.sidecar, "region") == [])

        assert [("here", "open", "operator"), ("here", "closed", "operator")] == lines(
            lab, "breaker", "region", "after", "cause"
        )


async def test_an_order_that_redis_will_not_have(build_fleet, upstream, token_file):
    """Without the right to the clock the order is one process's own, and the answer names the right."""
    with RedisServer() as server:
        server.call("ACL", "SETUSER", "default", "-time")
        one, two = await build_fleet(upstream.url, admin_token_file=token_file, redis={"url": server.url})
        status, told = await act(one, "regions", {"service": "openai", "region": "here", "action": "stop"})

    assert (200, "local", "Redis forbids TIME to this user; grant +time") == (status, told["fleet"], told["why"])
    assert [["[-] region openai/here: open, by an operator's order"], []] == [
        parts(lab.sidecar, "region openai") for lab in (one, two)
    ]


async def test_a_configuration_that_was_refused(build_lab, upstream):
    """Where plain forwarding stands in for it, it is not told as accepted."""
    accepted = await build_lab(upstream.url)
    refused = Lab(Sidecar(accepted.sidecar.rules, environ={}, write=lambda _: None, refused=True))
    names = ("config_last_reload_successful", "config_last_reload_success_timestamp_seconds")

    assert [{"": 0.0}, {"": 0.0}] == [metric(refused, name) for name in names]
    assert {"": 1.0} == metric(accepted, names[0])
    assert metric(accepted, names[1])[""] > 1e9
    part = str(refused.sidecar.readiness().parts[-1])

    assert part.startswith("[-] configuration: revision built in is in use; what was read last is refused")
