"""The demo on stage: where its calls may go, and what a terminal and a pipe get to see."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace

import pytest

from sidecar.app.sidecar import Sidecar
from sidecar.core.rules import Listen, Region, Rules, Service, StoredCredential, UpstreamRule
from sidecar.demo.provider import DemoProvider
from sidecar.demo.show import Show, bases_of, staged, url_of
from sidecar.demo.workload import acts
from sidecar.dialects import DIALECTS
from sidecar.net.ports import next_free
from sidecar.settings import load

COLUMNS = 100
PROVIDER = "http://127.0.0.1:1"


class Terminal(io.StringIO):
    """An output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def service(name, dialect="openai", **more):
    regions = (
        Region("us", "https://us.example", credential=StoredCredential("authorization", "/secret")),
        Region("eu", "https://{resource}.example", priority=2),
    )
    return Service(name, DIALECTS[dialect], regions, **more)


def test_staged_points_everything_at_the_stand_in():
    """No region, stored credential or egress proxy of the rules is left."""
    rules = Rules((service("a", path="/a"), service("b", resource=True)), (), upstream=UpstreamRule("http://p", "/ca"))

    assert UpstreamRule("none") == staged(rules, PROVIDER).upstream
    for found in staged(rules, PROVIDER).services:
        assert (Region("demo", PROVIDER, credential_domain=found.name),) == found.regions


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        pytest.param([service("a", path="/a")], {"a": 0, "documents": 7401}, id="added"),
        pytest.param([service("mine", "azure-documents", port=7500)], {"mine": 7500}, id="there-already"),
    ],
)
def test_documents_have_a_port(services, expected):
    """The demo adds a service for documents, on the next port, where the rules have none."""
    rules = staged(Rules(tuple(services), (), listen=Listen(port=7400)), PROVIDER)

    assert expected == {found.name: found.port for found in rules.services}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1", "http://127.0.0.1:7400", id="loopback"),
        pytest.param("0.0.0.0", "http://127.0.0.1:7400", id="every-address"),
        pytest.param("::", "http://[::1]:7400", id="every-address-v6"),
        pytest.param("localhost", "http://localhost:7400", id="name"),
    ],
)
def test_url_of(host, expected):
    """A listener on every address is reached by loopback."""

    assert expected == url_of(Listen(host, 1), 7400)


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        pytest.param([service("a", path="/a")], {"openai": "http://127.0.0.1:7400/a"}, id="path"),
        pytest.param([service("a", port=7411)], {"openai": "http://127.0.0.1:7411"}, id="own-port"),
        pytest.param([service("a", hosts=("a.example",))], {}, id="host-alone"),
        pytest.param(
            [service("a", path="/a"), service("b", path="/b")], {"openai": "http://127.0.0.1:7400/a"}, id="first-of-two"
        ),
        pytest.param(
            [service("a", "azure-openai", path="/azure", resource=True)],
            {"azure-openai": "http://127.0.0.1:7400/azure/demo"},
            id="resource",
        ),
    ],
)
def test_bases_of(services, expected):
    """How each API is reached through the proxy."""

    assert expected == bases_of(Rules(tuple(services), ()), 7400)


EVERY = ("openai", "anthropic", "azure-openai", "documents")


async def played(out, *, names=EVERY):
    """What *out* got of a whole show through a real sidecar, and the provider behind it."""
    provider = DemoProvider(latency=0.005)
    provider.documents.faults.running = 0
    rules = staged(
        load(os.devnull, environ={}, overrides={}, strict=True), f"http://127.0.0.1:{await provider.start()}"
    )
    services = tuple(
        replace(each, port=each.port and next_free("127.0.0.1", each.port))
        for each in rules.services
        if each.name in names
    )
    rules = replace(rules, listen=Listen(port=0), health=Listen(port=0), admin=Listen(port=0), services=services)
    show = Show(out, pace=0)
    sidecar = Sidecar(rules, environ={}, write=show.log)
    await sidecar.start()
    try:
        health = url_of(rules.health, sidecar.health_port)
        await show.run(rules, sidecar.port, health, provider, spawn=sidecar.tasks.spawn)
    finally:
        await sidecar.stop()
        await provider.stop()
    return out.getvalue(), provider


def number(text, name):
    """The number in the summary's line *name*."""
    return int(re.search(rf"^  {re.escape(name)} +(\d+)", text, re.MULTILINE)[1])


async def test_in_a_pipe():
    """Plain lines, one for each part, and sums that agree with each other and with the provider."""
    text, provider = await played(io.StringIO())
    reached = provider.calls - provider.documents.asked
    rows = {act.title: re.search(rf"^  {re.escape(act.title)} +(.*)$", text, re.MULTILINE)[1].split() for act in acts()}
    papers = [int(each) for each in rows.pop(acts()[0].title)]
    calls, memory, shared, missed, bypassed = (sum(map(int, each)) for each in zip(*rows.values(), strict=True))

    assert text.replace("\n", "").isprintable()
    assert all(len(line) <= COLUMNS for line in text.splitlines())
    assert sum(act.size for act in acts()[1:]) == calls == number(text, "calls made")
    assert memory == number(text, "answered from memory")
    assert shared == number(text, "shared a call on its way")
    assert missed == number(text, "fetched (miss)")
    assert bypassed == number(text, "passed through (bypass)")
    assert reached == number(text, "upstream calls") == missed + bypassed
    assert memory > 0
    assert shared > 0
    assert "without the documents, which follow" in text
    assert acts()[0].size == papers[0] == number(text, "analyses asked for")
    assert provider.documents.analyses.total() == papers[3] + papers[4] == number(text, "analyses done")


async def test_on_a_terminal(monkeypatch):
    """A bar for each part, drawn in place, and the same summary."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERM", "xterm-256color")
    text, provider = await played(Terminal())
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    last = plain.rindex("━")

    assert "\x1b[" in text
    for act in acts():
        row = plain[plain.rindex(act.title) : last + COLUMNS].splitlines()[0]
        assert str(act.size) == row.rpartition("━")[2].split()[0]
    assert provider.calls - provider.documents.asked == number(plain, "upstream calls")
    assert all(len(line) <= COLUMNS for line in plain.replace("\r", "\n").splitlines())


async def test_parts_that_no_service_speaks_are_left_out():
    """A configuration without Anthropic and Azure still has a show."""
    text, provider = await played(io.StringIO(), names=("openai",))

    assert "(Anthropic)" not in text
    assert "(Azure OpenAI)" not in text
    assert "Documents" not in text
    assert 0 < provider.calls == number(text, "upstream calls")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param("info", "", id="info"),
        pytest.param("warning", '{"level":"warning"}\n', id="warning"),
        pytest.param("error", '{"level":"error"}\n', id="error"),
    ],
)
def test_log(level, expected, capsys):
    """What is merely informative is left out; the rest goes to standard error."""
    show = Show(io.StringIO())
    show.log(b'{"level":"%b"}\n' % level.encode())

    assert ("", expected) == tuple(capsys.readouterr())
