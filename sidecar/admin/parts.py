"""
The parts of ``/readyz?verbose`` about modes, regions, credentials and the configuration.

The rule: a part is shown if somebody may have to act, and says what to do; no part makes a process unready.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from sidecar.admin.actions import ModeResult, roughly
from sidecar.admin.health import Part
from sidecar.core.region.breaker import State
from sidecar.core.region.regions import Standing
from sidecar.core.rules import Mode, Rules


class Credential(Protocol):
    """The state of a region's credential; ``identity/credentials.CredentialStanding``."""

    @property
    def name(self) -> str:
        """Its file or identity."""

    @property
    def usable(self) -> bool:
        """Whether calls can be sent with it now."""

    @property
    def seconds(self) -> float | None:
        """Seconds until it expires, if known."""

    @property
    def fault(self) -> str:
        """Why there is no newer one; ``""`` if nothing is wrong."""


def mode_parts(standing: ModeResult, source: str, configured: Mode) -> Iterable[Part]:
    """The mode, if it is not normal or not the *configured* one; *source* is that of ``Operations.source``."""
    if source == "configuration":
        if standing.mode is not Mode.NORMAL:
            yield Part("mode", False, f"{standing.mode}, by the configuration")
        return
    whose = "the whole fleet's" if source == "fleet" else "this process's own"
    left = "" if standing.seconds is None else f", for {roughly(standing.seconds)} more"
    yield Part("mode", False, f"{standing.mode}, {whose}{left}; `sidecar mode {configured}` ends it")


def region_parts(table: Iterable[Standing]) -> Iterable[Part]:
    """The regions that do not take calls as usual."""
    for place_now in table:
        if place_now.state == State.CLOSED:
            continue
        place = "/".join(word for word in (place_now.service, place_now.resource, place_now.region) if word)
        why = "by an operator's order" if place_now.order else f"tried again in {place_now.seconds:.1f} s"
        yield Part(f"region {place}", False, f"{place_now.state}, {why}")


def credential_parts(credentials: Iterable[Credential]) -> Iterable[Part]:
    """Credentials that cannot be had, or not renewed. An expired one that nobody needs is no fault."""
    for each in credentials:
        if each.fault and each.usable:
            left = "" if each.seconds is None else f", for {roughly(each.seconds)} more"
            yield Part(f"credential {each.name}", False, f"{each.fault}; the current one is still used{left}")
        elif each.fault:
            yield Part(f"credential {each.name}", False, f"{each.fault}; calls to its regions cannot be sent")


def split_parts(splits: Mapping[str, tuple[str, ...]]) -> Iterable[Part]:
    """Header fields with another value on nearly every call of a route, so that the route never hits."""
    for route, names in sorted(splits.items()):
        said = f"nearly every key is unique by {', '.join(names)}"
        yield Part(f"route {route}", False, f"{said}; name what means nothing in services.*.headers.ignore")


def configuration_parts(rules: Rules, *, refused: bool, waiting: Iterable[str]) -> Iterable[Part]:
    """
    The configuration and each of its warnings. *refused*: a later one is not used; why is not shown here, where
    everybody reads, because it may quote the file. *waiting* are the changes that wait for a restart.
    """
    said = f"revision {rules.revision or 'built in'}"
    if refused:
        why = "`sidecar check` and the log's `config-problem` lines say why"
        said = f"{said} is in use; what was read last is refused; {why}"
    yield Part("configuration", not (rules.warnings or refused), said)
    for change in waiting:
        yield Part("configuration", False, f"{change}; it needs a restart")
    for line in rules.warnings:
        yield Part("configuration", False, line)
