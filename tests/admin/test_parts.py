"""What /readyz?verbose says, a line for each thing that somebody may have to do something about."""

from __future__ import annotations

import pytest

from sidecar.admin.actions import ModeResult
from sidecar.admin.parts import configuration_parts, credential_parts, mode_parts, region_parts
from sidecar.core.region.regions import Standing as Place
from sidecar.core.rules import Mode, Rules
from sidecar.identity.credentials import CredentialStanding

WHY = "`sidecar check` and the log's `config-problem` lines say why"


@pytest.mark.parametrize(
    ("mode", "seconds", "source", "configured", "expected"),
    [
        pytest.param(Mode.NORMAL, None, "configuration", Mode.NORMAL, [], id="normal"),
        pytest.param(
            Mode.CACHE_OFF,
            None,
            "configuration",
            Mode.CACHE_OFF,
            ["[-] mode: cache-off, by the configuration"],
            id="configured",
        ),
        pytest.param(
            Mode.CACHE_OFF,
            1799.6,
            "fleet",
            Mode.NORMAL,
            ["[-] mode: cache-off, the whole fleet's, for 30m more; `sidecar mode normal` ends it"],
            id="fleet",
        ),
        pytest.param(
            Mode.NORMAL,
            None,
            "process",
            Mode.PASSTHROUGH,
            ["[-] mode: normal, this process's own; `sidecar mode passthrough` ends it"],
            id="process",
        ),
    ],
)
def test_mode(mode, seconds, source, configured, expected):
    """Told where it is not normal, or not the configured one: whose it is, for how long, and what ends it."""
    assert expected == [str(part) for part in mode_parts(ModeResult(mode, seconds, "local"), source, configured)]


def place(**members) -> Place:
    known = {
        "service": "ai", "resource": "", "region": "us", "priority": 1, "weight": 1, "residency": "", "state": "open",
        "seconds": 4.26, "share": 0.0, "order": "", "order_seconds": None, "windows": 0, "window_seconds": 0.0,
        "exhausted": 0, "latency": None,
    }  # fmt: skip
    return Place(**(known | members))


def test_regions():
    """Those that take no calls: until when, or by whom."""
    table = [place(), place(state="closed", order="force"), place(resource="*", order="stop")]

    assert [
        "[-] region ai/us: open, tried again in 4.3 s",
        "[-] region ai/*/us: open, by an operator's order",
    ] == [str(part) for part in region_parts(table)]


def test_credentials():
    """Those with a fault: what it is, and what that means for calls. One that only expired unused has none."""
    standings = [
        CredentialStanding("/good", True, 60.0),
        CredentialStanding("/idle", False),
        CredentialStanding("/gone", False, None, "No such file or directory"),
        CredentialStanding("/kept", True, None, "is empty"),
        CredentialStanding("identity", True, 59.7, "answered 500"),
    ]

    assert [
        "[-] credential /gone: No such file or directory; calls to its regions cannot be sent",
        "[-] credential /kept: is empty; the current one is still used",
        "[-] credential identity: answered 500; the current one is still used, for 1m more",
    ] == [str(part) for part in credential_parts(standings)]


@pytest.mark.parametrize(
    ("rules", "refused", "waiting", "expected"),
    [
        pytest.param(Rules((), ()), False, [], ["[+] configuration: revision built in"], id="built in"),
        pytest.param(Rules((), (), revision="ab"), False, [], ["[+] configuration: revision ab"], id="good"),
        pytest.param(
            Rules((), (), revision="ab", warnings=("a.yaml:1: x", "a.yaml:2: y")),
            False,
            [],
            ["[-] configuration: revision ab", "[-] configuration: a.yaml:1: x", "[-] configuration: a.yaml:2: y"],
            id="warnings",
        ),
        pytest.param(
            Rules((), (), revision="ab", warnings=("only forwarded",)),
            True,
            [],
            [
                "[-] configuration: revision ab is in use; what was read last is refused; " + WHY,
                "[-] configuration: only forwarded",
            ],
            id="refused",
        ),
        pytest.param(
            Rules((), (), revision="ab"),
            False,
            ["listen.port: 1 → 2"],
            ["[+] configuration: revision ab", "[-] configuration: listen.port: 1 → 2; it needs a restart"],
            id="waiting",
        ),
    ],
)
def test_configuration(rules, refused, waiting, expected):
    """Which it is, and each of its warnings; why a later one was refused, and what waits for a restart."""
    assert expected == [str(part) for part in configuration_parts(rules, refused=refused, waiting=waiting)]
