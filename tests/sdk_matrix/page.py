"""
The page of clients, and what was seen of each.

The rule: what a client does is read off the calls that came, never off its documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.sdk_matrix.clients import CLIENTS, Client

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"

HEADING = "| client | version | its base URL | works | temperature it sends by itself | then | at temperature 0 |"


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


def standing() -> dict[str, str]:
    """The lines of the table as they stand on the page, by the client's name."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[1:]}


def page(rows: Iterable[str]) -> str:
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
        "|---" * HEADING.count(" | ") + "|---|",
        *rows,
        "",
        "What surprises:",
        "",
        *(f"- {client.name}: {client.note}" for client in CLIENTS if client.note),
        "",
    ))  # fmt: skip
