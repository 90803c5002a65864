"""``sidecar run`` as its users meet it: a process with ports, signals, output and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE

import aiohttp
import pytest

COMMAND = (sys.executable, "-m", "sidecar", "run")
SECONDS = 15
"""The longest that any step may take; none of them comes near it."""

LISTEN = "--port, SIDECAR_LISTEN_PORT or listen.port in the configuration"
HEALTH = "SIDECAR_HEALTH_PORT or health.port in the configuration"
OWN = "services.docs.port in the configuration"

BAD = "version: 1\nlisten: {port: nowhere}\nroutes: [{cache: {}}]\n"

ASK = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]}


class Process:
    """A running command. *out* and *err* are the lines read so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []

    async def line(self, pattern: str, *, err: bool = False) -> re.Match[str]:
        """Read lines up to the first that *pattern* is found in."""
        stream, lines = (self.process.stderr, self.err) if err else (self.process.stdout, self.out)
        async with asyncio.timeout(SECONDS):
            while raw := await stream.readline():
                lines.append(raw.decode())
                if found := re.search(pattern, lines[-1]):
                    return found
        raise AssertionError(f"no {pattern} in:\n{''.join(self.out)}{''.join(self.err)}")

    async def event(self, name: str) -> dict:
        """The fields of the next log line that tells of *name*."""
        return json.loads((await self.line(rf'^.*"event":"{name}".*$', err=True))[0])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after signal *number* if one is given; all of its output is read then."""
        if number is not None:
            self.send(number)
        async with asyncio.timeout(SECONDS):
            out, err = await self.process.communicate()
        self.out += out.decode().splitlines(keepends=True)
        self.err += err.decode().splitlines(keepends=True)
        return self.process.returncode


@pytest.fixture
async def start(tmp_path):
    """Starts commands, and ends those that are left."""
    running: list[Process] = []

    async def begin(*arguments, command=COMMAND, **variables):
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SIDECAR_") and not name.lower().endswith("_proxy")
        }
        environ = (
            kept | {"SIDECAR_HEALTH_PORT": "0", "SIDECAR_ADMIN_PORT": "0", "XDG_STATE_HOME": str(tmp_path)} | variables
        )
        process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=PIPE, stderr=PIPE, env=environ)
        running.append(Process(process))
        return running[-1]

    yield begin
    for each in running:
        if each.process.returncode is None:
            each.process.kill()
            await each.process.communicate()


@pytest.fixture
def taken():
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def config(tmp_path):
    """Writes a configuration; its path."""

    def write(text):
        path = tmp_path / "sidecar.yaml"
        path.write_text(text)
        return str(path)

    return write


async def ask(base, members=ASK):
    """One chat call; status and Cache-Status."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{base}/openai/v1/chat/completions", json=members, headers={"authorization": "Bearer x"}) as got,
    ):
        await got.read()
        return got.status, got.headers.get("cache-status", "")


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        return await got.text()


# Without the demo.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_runs_until_told_to_stop(start, number):
    """It says where it listens, is ready then, and a signal ends it well."""
    sidecar = await start("--port", "0")
    started = await sidecar.event("started")
    assert "built-in settings" == started["config"]
    live = await get(f"http://127.0.0.1:{started['health_port']}/livez")
    code = await sidecar.end(number)

    assert "ok\n" == live
    assert 0 == code
    assert "stopped" == json.loads(sidecar.err[-1])["event"]
    assert [] == sidecar.out


async def test_a_second_interrupt_does_not_wait(start, config):
    """While a call is on its way, Ctrl-C waits for it; another one does not."""
    asked = asyncio.Event()

    async def never_answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as upstream:
        url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}"
        text = f"version: 1\nservices: {{openai: {{regions: [{{name: here, url: '{url}'}}]}}}}\n"
        sidecar = await start("--port", "0", "--config", config(text))
        started = await sidecar.event("started")
        _, writer = await asyncio.open_connection("127.0.0.1", started["port"])
        writer.write(b"GET /openai/v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n")
        async with asyncio.timeout(SECONDS):
            await asked.wait()
        sidecar.send(signal.SIGINT)
        await sidecar.event("draining")
        code = await sidecar.end(signal.SIGINT)
        writer.close()

    assert 130 == code


async def test_a_taken_port_is_named(start, taken):
    """Exit code 1, the port, who holds it, and the option to change it."""
    sidecar = await start("--port", str(taken))
    code = await sidecar.end()

    assert 1 == code
    said = [line for line in sidecar.err if line.startswith("sidecar: ")]
    assert 1 == len(said)
    assert f"port {taken} of 127.0.0.1 is held by " in said[0]
    assert f"(process {os.getpid()}); choose another with {LISTEN}" in said[0]
    assert said == sidecar.err[-1:]
    assert not any(word in line for line in sidecar.err for word in ("draining", "stopped"))


async def test_a_taken_health_port_is_named(start, taken):
    """As above, for the other port."""
    sidecar = await start("--port", "0", SIDECAR_HEALTH_PORT=str(taken))
    code = await sidecar.end()

    assert 1 == code
    assert re.search(rf"port {taken} .*; choose another with {HEALTH}$", sidecar.err[-1].strip())


async def test_each_taken_port_is_named(start, config):
    """Beside another sidecar: each port that both want, and each way to choose another one."""
    with contextlib.ExitStack() as held:
        ports = [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(4)]
    listen, health, admin, own = ports
    text = (
        f"version: 1\nhealth: {{port: {health}}}\nadmin: {{port: {admin}}}\nservices:\n"
        f"  docs: {{dialect: openai, port: {own}, regions: [{{name: a, url: 'https://nowhere.invalid'}}]}}\n"
    )
    arguments = ("--port", str(listen), "--config", config(text))
    variables = {"SIDECAR_HEALTH_PORT": "", "SIDECAR_ADMIN_PORT": ""}
    first = await start(*arguments, **variables)
    await first.event("started")
    second = await start(*arguments, **variables)
    code = await second.end()
    by = rf"is held by .* \(process {first.process.pid}\); choose another with"

    assert 1 == code
    said = [line.strip() for line in second.err if line.startswith("sidecar: ")]
    ways = [LISTEN, HEALTH, "SIDECAR_ADMIN_PORT or admin.port in the configuration", OWN]
    for port, way, line in zip(ports, ways, said, strict=True):
        assert re.fullmatch(rf"sidecar: not started: port {port} of 127\.0\.0\.1 {by} {way}", line)
    assert 0 == await first.end(signal.SIGTERM)


async def test_the_file_that_it_runs(start, config):
    """Its line says which configuration it has read, and a token that is not there is warned of."""
    path = config("admin: {token_file: /nowhere/token}\n")
    sidecar = await start("--port", "0", "--config", path)
    started = await sidecar.event("started")
    await sidecar.end(signal.SIGTERM)

    assert path == started["config"]
    warning = f"{path}:1: admin.token_file: /nowhere/token cannot be used: No such file or directory; write one there"
    assert [warning] == [line["message"] for line in map(json.loads, sidecar.err) if line["event"] == "config-warning"]


async def test_a_taken_port_is_told_alone(start, taken, tmp_path):
    """The ports that this process holds itself by then are not named."""
    config = tmp_path / "c.yaml"
    config.write_text(f"services: {{anthropic: {{path: /a, port: {taken}}}}}\n")
    sidecar = await start("--port", "0", "--config", str(config))
    code = await sidecar.end()

    assert 1 == code
    said = [line for line in sidecar.err if line.startswith("sidecar: ")]
    assert 1 == len(said)
    assert said[0].strip().endswith("; choose another with services.anthropic.port in the configuration")


async def test_an_address_that_is_not_ours(start):
    """What is not about a taken port is told as the system says it."""
    sidecar = await start("--port", "0", SIDECAR_LISTEN_HOST="192.0.2.1")
    code = await sidecar.end()

    assert 1 == code
    assert sidecar.err[-1].startswith("sidecar: not started: ")
    assert "192.0.2.1" in sidecar.err[-1]


async def test_a_bad_configuration(start, config):
    """Exit code 2, a line for each problem, and nothing else."""
    path = config(BAD)
    sidecar = await start("--config", path)
    code = await sidecar.end()

    assert 2 == code
    assert [f"{path}:2:", f"{path}:3:"] == [line[: len(path) + 3] for line in sidecar.err]


async def test_forwarding_in_spite_of_a_bad_configuration(start, config):
    """With passthrough it runs, says each problem loudly, and /readyz?verbose shows it."""
    path = config(BAD)
    sidecar = await start("--config", path, "--port", "0", "--on-bad-config", "passthrough")
    started = await sidecar.event("started")
    ready = await get(f"http://127.0.0.1:{started['health_port']}/readyz?verbose")
    logged = [json.loads(line) for line in sidecar.err]
    problems = [line for line in logged if line["event"] == "config-problem"]
    code = await sidecar.end(signal.SIGTERM)

    assert "passthrough" == started["mode"]
    assert 2 == len(problems)
    assert {"warning"} == {problem["level"] for problem in problems}
    assert all(problem["message"].startswith(path) for problem in problems)
    assert "[-] configuration" in ready
    assert ready.endswith("\nok\n")
    assert 0 == code


@pytest.mark.parametrize("by", ["file", "variable"])
@pytest.mark.parametrize("content", [None, "hunter2"], ids=["missing", "unfit"])
async def test_trust_anchors_that_cannot_be_used(start, config, tmp_path, by, content):
    """They refuse a start as any bad configuration does: with their place, and forwarding goes without them."""
    anchors = tmp_path / "ca.pem"
    if content is not None:
        anchors.write_text(content)
    path = config(f"version: 1\nupstream: {{ca_file: {anchors}}}\n" if by == "file" else "version: 1\n")
    variables = {"SIDECAR_UPSTREAM_CA_FILE": str(anchors)} if by == "variable" else {}
    place = f"{path}:2" if by == "file" else "environment SIDECAR_UPSTREAM_CA_FILE"
    sidecar = await start("--config", path, "--port", "0", **variables)
    code = await sidecar.end()

    assert 2 == code
    assert sidecar.err[0].startswith(f"{place}: upstream.ca_file: {anchors} cannot be used: ")
    assert 1 == len(sidecar.err)

    sidecar = await start("--config", path, "--port", "0", "--on-bad-config", "passthrough", **variables)
    started = await sidecar.event("started")
    live = await get(f"http://127.0.0.1:{started['health_port']}/livez")
    code = await sidecar.end(signal.SIGTERM)

    assert ("passthrough", "ok\n", 0) == (started["mode"], live, code)


async def test_forwarding_keeps_the_ports_of_variables(start):
    """One bad variable costs that one: kubelet's probes still find the others' ports."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    variables = {"SIDECAR_HEALTH_PORT": str(free), "SIDECAR_LIMITS_DRAIN": "soon"}
    sidecar = await start("--port", "0", "--on-bad-config", "passthrough", **variables)
    started = await sidecar.event("started")
    code = await sidecar.end(signal.SIGTERM)

    assert ("passthrough", free, 0) == (started["mode"], started["health_port"], code)
    assert "environment SIDECAR_LIMITS_DRAIN: limits.drain: " in "".join(sidecar.err)


async def test_an_option_that_makes_no_sense(start):
    """A wrong option is wrong with passthrough, too."""
    sidecar = await start("--port", "70000", "--on-bad-config", "passthrough")
    code = await sidecar.end()

    assert 2 == code
    assert "listen.port" in "".join(sidecar.err)


async def test_loads_nothing_for_show(start):
    """Neither the demo nor what draws on terminals is loaded in a pod."""
    sidecar = await start("--port", "0", PYTHONPROFILEIMPORTTIME="1")
    await sidecar.event("started")
    await sidecar.end(signal.SIGTERM)
    loaded = {line.rpartition("|")[2].strip() for line in sidecar.err if line.startswith("import time:")}

    assert "sidecar.cli.run" in loaded
    assert set() == {name for name in loaded if re.match(r"rich\b|sidecar\.(demo|explain|net\.ports)\b", name)}


# The demo.


async def test_demo(start):
    """It says where it listens, answers calls, remembers them, and ends well; without control characters."""
    demo = await start("--demo", "--port", "0")
    base = (await demo.line(r"proxy +(http://\S+)"))[1]
    health = (await demo.line(r"health +(http://\S+)"))[1]
    first, second = await ask(base), await ask(base)
    ready = await get(f"{health}/readyz?verbose")
    code = await demo.end(signal.SIGTERM)

    assert (200, "sidecar; fwd=miss; stored") == first
    assert 200 == second[0]
    assert second[1].startswith("sidecar; hit; ttl=")
    assert "[+] listener" in ready
    assert 0 == code
    assert "".join(demo.out).replace("\n", "").isprintable()
    assert [] == demo.err


async def test_demo_to_its_end(start):
    """After the workload come the summary and where to look next, and the proxy stays up."""
    code = "from sidecar.cli.run import run; raise SystemExit(run(None, port=0, demo=True, pace=0.02))"
    demo = await start(command=(sys.executable, "-c", code))
    base = (await demo.line(r"proxy +(http://\S+)"))[1]
    reached = int((await demo.line(r"upstream calls +(\d+)"))[1])
    await demo.line("Ctrl-C")
    answer = await ask(base)
    code = await demo.end(signal.SIGTERM)

    assert reached > 0
    assert (200, "sidecar; fwd=miss; stored") == answer
    assert f"OPENAI_BASE_URL={base}/openai/v1 " in "".join(demo.out)
    assert 0 == code
    assert [] == demo.err


async def test_demo_beside_another(start, taken):
    """A second one takes the next free port, and says who holds the first."""
    demo = await start("--demo", "--port", str(taken))
    base = (await demo.line(r"proxy +(http://\S+)"))[1]
    note = (await demo.line(r"note +(port .*)"))[1]
    answer = await ask(base)
    code = await demo.end(signal.SIGINT)
    port = int(base.rpartition(":")[2])

    assert taken < port
    assert re.fullmatch(rf"port {taken} is held by .* \(process {os.getpid()}\): this one uses {port}", note)
    assert 200 == answer[0]
    assert 0 == code


async def test_demos_at_the_same_moment(start):
    """Those that find the same port free do not both fail: each ends up with its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    demos = [await start("--demo", "--port", str(port)) for _ in range(3)]
    bases = [(await demo.line(r"proxy +(http://\S+)"))[1] for demo in demos]
    codes = [await demo.end(signal.SIGTERM) for demo in demos]

    assert 3 == len(set(bases))
    assert [0, 0, 0] == codes


async def test_demo_calls_no_real_service(start, config):
    """Also with a configuration: its services answer from the stand-in, without its credentials."""
    text = (
        "version: 1\nservices:\n  mine:\n    dialect: openai\n    path: /openai\n    regions:\n"
        "      - {name: eu, url: 'https://nowhere.invalid', credential: {header: authorization, file: /nowhere}}\n"
        "  openai: {path: /other}\n"
    )
    demo = await start("--demo", "--port", "0", "--config", config(text))
    answer = await ask((await demo.line(r"proxy +(http://\S+)"))[1])
    code = await demo.end(signal.SIGTERM)

    assert (200, "sidecar; fwd=miss; stored") == answer
    assert 0 == code
