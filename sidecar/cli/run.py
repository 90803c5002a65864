"""
``sidecar run``: one process from its first line of log to its exit code.

The rule: signals, the event loop, output past the log, and messages about the start are handled here. ``app/sidecar``
is the program that runs.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import uvloop

from sidecar.app.reload import Source
from sidecar.app.sidecar import Sidecar
from sidecar.core.rules import Rules
from sidecar.errors import ConfigError
from sidecar.settings import forwarding, load
from sidecar.settings.overrides import variable_of
from sidecar.settings.watch import FileWatch
from sidecar.sinks.log import Pipe
from sidecar.sinks.strays import Strays

_OPTIONS = {"listen.port": "--port"}
"""Keys that have an option of their own."""


def run(
    config: str | None, *, port: int | None, demo: bool, passthrough_on_bad_config: bool = False, pace: float = 1.0
) -> int:
    """
    Run until SIGTERM or SIGINT; returns the exit code. *pace* stretches the demo; 0 leaves out its waiting.

    Raises ``ConfigError`` for a configuration that cannot be used, unless plain forwarding was asked for instead.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is somebody to hear it
    overrides: Mapping[str, object] = {"listen.port": port}
    environ = dict(os.environ)
    watch = FileWatch(config)
    read = partial(load, config, environ=environ, overrides=overrides, strict=False, here=True)
    problems: tuple[str, ...] = ()
    try:
        rules = read()
    except ConfigError as error:
        if not passthrough_on_bad_config:
            raise
        problems = error.problems
        rules = forwarding(environ=environ, overrides=overrides)
    source = Source(partial(read, running=True), watch)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_demonstrate(rules, problems, pace) if demo else _serve(rules, problems, source))


async def _serve(rules: Rules, problems: tuple[str, ...], source: Source) -> int:
    stopping = _on_signals()
    sidecar = Sidecar(rules, environ=os.environ, write=Pipe(sys.stderr.fileno()), refused=bool(problems), source=source)
    _on_hangup(stopping, sidecar.hang_up)
    Strays(sidecar.log.event).install()
    for problem in problems:
        sidecar.log.event("config-problem", level="warning", message=problem)
    if await _start(sidecar):
        return 1
    gc.collect()
    gc.freeze()  # what the start made stays; looking through it again would stop all calls for 40 ms
    await stopping.wait()
    await sidecar.stop()
    return 0


async def _demonstrate(rules: Rules, problems: tuple[str, ...], pace: float) -> int:
    # The demo is imported only here, because in a pod it would only cost memory.
    from sidecar.demo.provider import DemoProvider  # noqa: PLC0415
    from sidecar.demo.show import LATENCY, TOKEN_INTERVAL, Show, staged, url_of  # noqa: PLC0415

    stopping = _on_signals()
    _on_hangup(stopping, lambda: None)
    show = Show(sys.stdout, pace=pace)
    provider = DemoProvider(latency=LATENCY * pace, token_interval=TOKEN_INTERVAL * pace)
    demo_url = f"http://127.0.0.1:{await provider.start()}"
    try:
        sidecar, moved, why = await _start_beside(staged(rules, demo_url), show.log, refused=bool(problems))
        if why:
            print(*why, sep="\n", file=sys.stderr)
            return 1
        Strays(sidecar.log.event).install()
        rules = sidecar.rules
        health = url_of(rules.health, sidecar.health_port)
        show.say(
            "Sidecar demo: no key needed, a stand-in answers, no call leaves this machine",
            f"  proxy      {url_of(rules.listen, sidecar.port)}",
            f"  health     {health}",
            f"  stand-in   {demo_url}   (canned answers, {LATENCY * pace * 1000:.0f} ms each)",
            *(f"  note       {line}" for line in moved),
            *(f"  warning    {line}" for line in (*rules.warnings, *problems)),
            "",
        )
        playing = sidecar.tasks.spawn(
            show.run(rules, sidecar.port, health, provider, spawn=sidecar.tasks.spawn), name="demo"
        )
        await stopping.wait()
        show.say("Stopping: calls on their way are finished first.")
        playing.cancel()
        await asyncio.wait([playing])
        await sidecar.stop()
    finally:
        await provider.stop()
    return 0


def _to_people(why: list[str]) -> None:
    print(*why, sep="\n", file=sys.stderr, flush=True)


async def _start(sidecar: Sidecar, tell: Callable[[list[str]], None] = _to_people) -> list[str]:
    """Start the sidecar. If that fails, report the reason before anything else happens, and return it."""
    try:
        await sidecar.start()
    except OSError as error:
        why = _why_not(sidecar, error)
        tell(why)
        await sidecar.stop()
        return why
    return []


async def _start_beside(
    wanted: Rules, write: Callable[[bytes], None], *, refused: bool
) -> tuple[Sidecar, list[str], list[str]]:
    """A sidecar on the next free ports, a line for each port that moved, and what to tell if it did not start."""
    tries = 5  # others that start at the same moment find the same ports
    while True:
        tries -= 1
        rules, moved = _on_free_ports(wanted)
        sidecar = Sidecar(rules, environ={}, write=write, refused=refused)
        why = await _start(sidecar, tell=lambda _: None)
        if not why or not tries:
            return sidecar, moved, why


def _on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second Ctrl-C does not wait for running calls."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _on_hangup(stopping: asyncio.Event, hear: Callable[[], None]) -> None:
    """
    On SIGHUP call *hear*, which reads the configuration again, as many daemons do. If the terminal that started the
    process is gone, SIGHUP ends it.
    """
    terminals = [descriptor for descriptor in range(3) if os.isatty(descriptor)]

    def on_signal() -> None:
        if terminals and not any(map(os.isatty, terminals)):
            stopping.set()
        else:
            hear()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)


def _on_free_ports(rules: Rules) -> tuple[Rules, list[str]]:
    """*rules* with the next free ports, so that a second demo can run beside the first; a line for each moved port."""
    from sidecar.net.ports import holder, next_free  # noqa: PLC0415  for people, not on the way of a start

    taken: set[int] = set()
    moved: list[str] = []

    def free(host: str, port: int) -> int:
        found = next_free(host, port, frozenset(taken)) if port else 0
        taken.add(found)
        if found != port:
            by = f"held by {who}" if (who := holder(port)) else "taken"
            moved.append(f"port {port} is {by}: this one uses {found or 'any that is free'}")
        return found

    host = rules.listen.host
    rules = replace(
        rules,
        listen=replace(rules.listen, port=free(host, rules.listen.port)),
        health=replace(rules.health, port=free(rules.health.host, rules.health.port)),
        admin=replace(rules.admin, port=free(rules.admin.host, rules.admin.port)),
        services=tuple(replace(service, port=free(host, service.port)) for service in rules.services),
    )
    return rules, moved


def _ways(key: str) -> str:
    """How *key* can be set: an option, a variable, and the configuration."""
    *others, last = filter(None, (_OPTIONS.get(key), variable_of(key), f"{key} in the configuration"))
    return f"{', '.join(others)} or {last}" if others else last


def _why_not(sidecar: Sidecar, error: OSError) -> list[str]:
    """What to report of a failed start: which port is taken and by what, otherwise the system's message."""
    from sidecar.net.ports import holder, is_free  # noqa: PLC0415  as above

    rules = sidecar.rules
    host = rules.listen.host
    wanted = [
        ("listen.port", host, rules.listen.port, sidecar.port),
        ("health.port", rules.health.host, rules.health.port, sidecar.health_port),
        ("admin.port", rules.admin.host, rules.admin.port, sidecar.admin_port),
    ]
    wanted += [
        (f"services.{service.name}.port", host, service.port, service.port in sidecar.ports)
        for service in rules.services
        if service.port
    ]
    lines = []
    for key, address, port, ours in wanted:
        if not ours and not is_free(address, port):
            by = f"held by {who}" if (who := holder(port)) else "not to be had"
            lines.append(f"sidecar: not started: port {port} of {address} is {by}; choose another with {_ways(key)}")
    said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    return lines or [f"sidecar: not started: {said}"]
