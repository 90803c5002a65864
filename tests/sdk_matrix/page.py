"""
The page of clients, and what was seen of each: told a base URL, and in the environment that injection makes.

The rule: what a client does is read off the calls that came, never off its documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.sdk_matrix.applications import Application
from tests.sdk_matrix.clients import CLIENTS, Client

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"

HEADING = "| client | version | its base URL | works | temperature it sends by itself | then | at temperature 0 |"
INJECTED = "| client | version | in the program | its calls arrive by | works | remark |"

PAST = "no: its calls go past the sidecar"


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What was seen of a client: its *version*, the *temperature* of its first call, ``none`` where it said none, what
    became of that call, and of two at temperature 0. *fault* is what went wrong, ``""`` for nothing.
    """

    version: str
    temperature: str = "none"
    first: str = "-"
    at_zero: str = "-"
    fault: str = ""


def row(client: Client, seen: Seen) -> str:
    """One line of the table."""
    setting = client.setting.replace("{url}", "http://127.0.0.1:7400")
    works = "yes" if not seen.fault else f"no: {seen.fault}"
    cells = (client.name, seen.version, setting, works, seen.temperature, seen.first, seen.at_zero)
    return f"| {' | '.join(cells)} |"


def injected_row(application: Application, version: str, fault: str) -> str:
    """One line of the table by injection. *fault* is what went wrong, ``""`` for nothing."""
    works = "yes" if not fault else PAST if not application.by else f"no: {fault}"
    by = f"`{application.by}`" if application.by else "-"
    cells = (application.client, version, application.made, by, works, application.note or "-")
    return f"| {' | '.join(cells)} |"


def standing(heading: str) -> dict[str, str]:
    """The lines of the table under *heading* as they stand on the page, by the client's name."""
    lines = PAGE.read_text().partition(f"{heading}\n")[2].partition("\n\n")[0].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


def page(rows: Iterable[str], injected: Iterable[str]) -> str:
    """The whole page."""
    return "\n".join((
        "# Clients",
        "",
        "<!-- Written by `make sdk-matrix`, which asks the stand-in provider through a sidecar with each of them. -->",
        "",
        "A client needs its base URL, and nothing else. What it sends by itself decides what is looked up: a chat is",
        "looked up only where it says a temperature of 0, or where its route has `cache: {mode: always}`.",
        "",
        HEADING,
        _ruled(HEADING),
        *rows,
        "",
        "What surprises:",
        "",
        *(f"- {client.name}: {client.note}" for client in CLIENTS if client.note),
        "",
        "## By what injection sets",
        "",
        "What arrives from a container that `sidecar inject` or the webhook has changed, and whose program names no",
        "base URL. The manifest has keys from a Secret and, for Azure, the real address of the resource; the variable",
        "that injection has set or rewritten does the rest. Each program ran twice: as it is, and with all proxy",
        "variables set to a proxy that answers nothing. Its calls reach the sidecar all the same, because injection",
        "puts loopback into `NO_PROXY` and `no_proxy`.",
        "",
        INJECTED,
        _ruled(INJECTED),
        *injected,
        "",
        "Document Intelligence needs a service in the configuration; the built-in services are those of OpenAI,",
        "Anthropic and Azure OpenAI:",
        "",
        "```yaml",
        "services:",
        "  documents:",
        "    dialect: azure-documents",
        "    port: 7401",
        '    regions: [{name: here, url: "https://RESOURCE.cognitiveservices.azure.com"}]',
        "```",
        "",
    ))  # fmt: skip


def _ruled(heading: str) -> str:
    """The line under a table's heading."""
    return "|---" * heading.count(" | ") + "|---|"
