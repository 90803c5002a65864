"""The page of clients has a row for each client that ``make sdk-matrix`` asks and each program that it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sdk_matrix.applications import APPLICATIONS
from tests.sdk_matrix.clients import CLIENTS
from tests.sdk_matrix.page import HEADING, INJECTED, PAGE, PAST, Seen, injected_row, page, row, standing

MAKEFILE = Path(__file__).parents[1] / "Makefile"
NODE_CLIENTS = Path(__file__).parent / "sdk_matrix" / "clients.mjs"


def rows(heading: str = HEADING) -> list[list[str]]:
    """The cells of a table's rows."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in standing(heading).values()]


def test_rows_are_those_of_the_script():
    """Each client stands there with the setting that the script uses, and the page is as the script writes it."""
    seen = [Seen(version, temperature, first, zero) for _, version, _, _, temperature, first, zero in rows()]
    versions = [cells[1] for cells in rows(INJECTED)]

    assert [client.name for client in CLIENTS] == [cells[0] for cells in rows()]
    assert [application.client for application in APPLICATIONS] == [cells[0] for cells in rows(INJECTED)]
    injected = map(injected_row, APPLICATIONS, versions, ["" if each.by else PAST for each in APPLICATIONS])
    assert page(map(row, CLIENTS, seen), injected) == PAGE.read_text()


def test_each_works():
    """
    A client that does not work has no row that says so quietly: it is to be seen to. One that never hits has a note
    that says why.
    """
    assert {"yes"} == {cells[3] for cells in rows()}
    assert all(client.hits or client.note for client in CLIENTS)
    assert [client.hits for client in CLIENTS] == [cells[-1] == "miss, hit" for cells in rows()]


def test_each_arrives_by_injection():
    """A client whose calls go past the sidecar has a remark that says what to do."""
    assert {"yes", PAST} == {cells[4] for cells in rows(INJECTED)}
    assert [bool(application.by) for application in APPLICATIONS] == [cells[4] == "yes" for cells in rows(INJECTED)]
    assert all(application.by or application.note for application in APPLICATIONS)


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.client)
def test_programs_name_no_address(application):
    """Nothing in a program says where its calls go but the variables that its developers have put there."""
    assert not re.search(r"https?://|base_?url|127\.0\.0\.1|localhost", application.program, re.IGNORECASE)
    assert {"https://"} >= {value[:8] for value in application.literals.values() if "://" in value}


def test_each_node_client_has_a_function():
    """The script for Node has a function for each of its clients, and for no other."""
    functions = re.findall(r'^  "(.+)": async', NODE_CLIENTS.read_text(), re.MULTILINE)

    assert [client.name for client in CLIENTS if not client.ask] == functions


@pytest.mark.parametrize(("variable", "of_python"), [("SDKS", True), ("NODE_SDKS", False)])
def test_each_is_installed(variable: str, of_python: bool):
    """The command installs the packages of the rows."""
    [line] = [line for line in MAKEFILE.read_text().splitlines() if line.startswith(f"{variable} := ")]
    packages = {package for client in CLIENTS if bool(client.ask) == of_python for package in client.installs}
    packages |= {package for each in APPLICATIONS if each.node != of_python for package in each.packages}

    assert packages == set(re.sub(r"'|\[\w+\]", "", line).split()[2:])
