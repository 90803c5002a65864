"""
Plays the demo's workload through a running sidecar, and shows its progress and its result.

The rule: no call leaves this machine. A terminal shows a bar for each part of the workload; a pipe gets a plain line
with the same words and numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

import aiohttp
from msgspec import json

from sidecar.core.rules import Listen, Region, Rules, Service, UpstreamRule
from sidecar.demo.provider import DemoProvider
from sidecar.demo.summary import Bill, DemoUrls, DocumentCounts, documents_happened, happened, totals, try_it
from sidecar.demo.workload import Act, DemoAnswer, Manner, acts, play
from sidecar.dialects import DIALECTS
from sidecar.tasks import Spawn

if TYPE_CHECKING:
    from rich.console import Console

LATENCY = 0.25
"""Seconds that the stand-in takes for an answer: enough for the eye to tell a hit from a call."""

TOKEN_INTERVAL = 0.01

# 80 columns together
_TITLE = 32
_BAR = 8
_WIDTHS = (5, 7, 7, 9, 7)
_WAYS = (Manner.MEMORY, Manner.SHARED, Manner.UPSTREAM, Manner.BYPASS)


_DOCUMENTS = "azure-documents"


def staged(rules: Rules, provider: str) -> Rules:
    """
    *rules*, but *provider* is the only region of every service: no call and no credential goes anywhere else. Where no
    service speaks Azure's document APIs, there is one on the next port: their SDKs take no path in a base URL.
    """
    services = rules.services
    if all(service.dialect.name != _DOCUMENTS for service in services):
        services += (Service("documents", DIALECTS[_DOCUMENTS], (), port=rules.listen.port + 1),)
    return replace(
        rules,
        services=tuple(
            replace(service, regions=(Region("demo", provider, credential_domain=service.name),))
            for service in services
        ),
        upstream=UpstreamRule(proxy="none"),
    )


def url_of(listen: Listen, port: int) -> str:
    """The URL at which this machine reaches a listener at *port*."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104  compared with, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bases_of(rules: Rules, port: int) -> Mapping[str, str]:
    """The base URL of each API, by dialect. Services that are reached only by a host name are left out."""
    bases: dict[str, str] = {}
    for service in rules.services:
        if service.path or service.port:
            base = url_of(rules.listen, port if service.path else service.port) + service.path
            bases.setdefault(service.dialect.name, f"{base}/demo" if service.resource else base)
    return bases


class Show:
    """
    Writes to *out* what happens. *pace* stretches the workload's pauses.

    ``log`` takes the sidecar's log lines: those above the level ``info`` go to standard error.
    """

    def __init__(self, out: TextIO, *, pace: float = 1.0) -> None:
        self._out = out
        self._pace = pace
        self._console: Console | None = None
        if out.isatty():
            from rich.console import Console  # noqa: PLC0415  a quarter of the start-up time, for terminals only

            self._console = Console(file=out, highlight=False, soft_wrap=True)

    def log(self, line: bytes) -> None:
        """Pass on a line of the log."""
        if json.decode(line)["level"] != "info":
            sys.stderr.write(line.decode())
            sys.stderr.flush()

    def say(self, *lines: str) -> None:
        """Write *lines*. A line without indentation is a heading."""
        for line in lines:
            if self._console is None:
                self._out.write(line + "\n")
            else:
                heading = bool(line) and not line.startswith(" ")
                self._console.print(line, style="bold" if heading else None, markup=False)
        self._out.flush()

    async def run(self, rules: Rules, port: int, health: str, provider: DemoProvider, *, spawn: Spawn) -> None:
        """
        Play the workload against a sidecar with *rules* that listens on *port*, before *provider*, then sum up.

        *health* is the base URL of the sidecar's health server.
        """
        bases = bases_of(rules, port)
        bill, papers = Bill(), Bill()
        playable = tuple(act for act in acts() if all(call.api in bases for wave in act.waves for call in wave))
        with self._progress(playable) as show:

            def hear(act: Act, answer: DemoAnswer) -> None:
                (papers if answer.pages else bill).book(answer)
                show(act, answer)

            await play(playable, bases, hear, spawn=spawn, pace=self._pace)
        async with aiohttp.ClientSession() as session, session.get(f"{health}/metrics") as response:
            apart = frozenset(service.name for service in rules.services if service.dialect.name == _DOCUMENTS)
            total = totals(await response.text(), apart)
        did = provider.documents
        counts = DocumentCounts(did.analyses.total(), len(did.analyses), did.pages, did.spent)
        self.say("", *happened(total, bill, provider.calls - did.asked, documents=papers.documents > 0))
        if papers.documents:
            self.say("", *documents_happened(papers, counts))
        self.say("", *try_it(DemoUrls(bases.get("openai", ""), health, bases.get(_DOCUMENTS, ""))), "")

    @contextmanager
    def _progress(self, playing: Sequence[Act]) -> Iterator[Callable[[Act, DemoAnswer], None]]:
        """Gives the function that is to be called with each answer, and that shows it."""
        tallies = {act: Counter[Manner]() for act in playing}
        bar = " " * (_BAR + 1) if self._console is not None else ""
        self.say(f"{'A document platform at work':<{_TITLE + 2}} {bar}{_cells(['calls', *_WAYS])}")
        if self._console is None:

            def tell(act: Act, answer: DemoAnswer) -> None:
                tallies[act][answer.manner] += 1
                if tallies[act].total() == act.size:
                    self.say(f"  {act.title:<{_TITLE}} {_numbers(tallies[act])}")

            yield tell
            return
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415  as above

        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(_BAR),
            TextColumn("{task.fields[numbers]}", markup=False),
        )
        with Progress(*columns, console=self._console) as progress:
            tasks = {
                act: progress.add_task(f"{act.title:<{_TITLE}}", total=act.size, numbers=_numbers(tallies[act]))
                for act in playing
            }

            def draw(act: Act, answer: DemoAnswer) -> None:
                tallies[act][answer.manner] += 1
                progress.update(tasks[act], advance=1, numbers=_numbers(tallies[act]))

            yield draw


def _numbers(tally: Counter[Manner]) -> str:
    failed = f"  {count} failed" if (count := tally[Manner.FAILED]) else ""
    return _cells([tally.total(), *(tally[manner] for manner in _WAYS)]) + failed


def _cells(values: Iterable[object]) -> str:
    return "".join(f"{value!s:>{width}}" for value, width in zip(values, _WIDTHS, strict=True))
