"""The page of clients has a row for each client that ``make sdk-matrix`` asks, and for no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.sdk_matrix.clients import CLIENTS
from tests.sdk_matrix.page import PAGE, Seen, page, row

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def rows() -> list[list[str]]:
    """The cells of the page's rows."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_rows_are_those_of_the_script():
    """Each client stands there with the setting that the script uses, and the page is as the script writes it."""
    seen = [Seen(version, temperature, first, zero) for _, version, _, _, temperature, first, zero in rows()]

    assert [client.package for client in CLIENTS] == [cells[0] for cells in rows()]
    assert page(map(row, CLIENTS, seen)) == PAGE.read_text()


def test_each_works():
    """A client that does not work has no row that says so quietly: it is to be seen to."""

    assert {"yes"} == {cells[3] for cells in rows()}
    assert {"miss, hit"} == {cells[-1] for cells in rows()}


def test_each_is_installed():
    """The command installs the packages of the rows."""
    [line] = [line for line in MAKEFILE.read_text().splitlines() if line.startswith("SDKS := ")]

    assert {client.package for client in CLIENTS} == set(re.sub(r"'|\[\w+\]", "", line).split()[2:])
