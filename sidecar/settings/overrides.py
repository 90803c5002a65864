"""
Values that options and environment variables set.

The rule: an option beats a variable, a variable beats the file, and the file beats a variable that gives a default
(``SIDECAR_DEFAULT_…``): by that, whoever starts the sidecar replaces what is built in. A variable that Kubernetes makes
for a Service named ``sidecar`` is not reported as a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sidecar.settings.problems import Problem, SourceLocation, listed, nearest
from sidecar.settings.reader import ParsedSettings
from sidecar.settings.schema import scalars

PREFIX = "SIDECAR_"
DEFAULT_PREFIX = PREFIX + "DEFAULT_"

POD_VARIABLES = frozenset({"SIDECAR_POD_NAMESPACE", "SIDECAR_SERVICE_ACCOUNT"})
"""Variables that other code reads: who the pod is."""

VARIABLES: Mapping[str, tuple[str, ...]] = {
    PREFIX + "_".join(path).upper(): path for path, _ in scalars() if path != ("version",)
}
"""The variables that set keys, each with the path of its key."""


def variable_of(key: str) -> str:
    """The variable that sets *key* (dotted); ``""`` if there is none."""
    return next((name for name, path in VARIABLES.items() if ".".join(path) == key), "")


_KEYS = {".".join(path): form for path, form in scalars() if path != ("version",)}

# Kubernetes: "Accessing the Service / Environment variables". A service named sidecar-health makes SIDECAR_HEALTH_PORT.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_SERVICE_NAME = re.compile(r"\w*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z")


class Override(NamedTuple):
    """A value for the key *path* (dotted), as text, from *place*. *default*: only where the file says nothing."""

    place: SourceLocation
    path: str
    text: str
    default: bool = False


def from_environment(environ: Mapping[str, str]) -> tuple[list[Override], list[str]]:
    """What variables set, and a line for each unknown one that looks like ours. An empty variable sets nothing."""
    found: list[Override] = []
    strange: list[str] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in POD_VARIABLES or _SERVICE_LINK.match(text):
            continue
        default = name.startswith(DEFAULT_PREFIX)
        if (path := VARIABLES.get(name.replace(DEFAULT_PREFIX, PREFIX, 1))) is not None:
            if text:
                found.append(Override(SourceLocation(f"environment {name}"), ".".join(path), text, default))
        elif not _SERVICE_NAME.match(name):
            meant = _nearest_variable(name)
            remedy = f"did you mean {meant}?" if meant else "remove it, or see docs/configuration.md for those known"
            strange.append(f"environment {name}: unknown variable, not used; {remedy}")
    return sorted(found, key=lambda override: not override.default), strange


def _nearest_variable(name: str) -> str:
    prefix = DEFAULT_PREFIX if name.startswith(DEFAULT_PREFIX) else PREFIX
    known = VARIABLES if prefix == DEFAULT_PREFIX else (*VARIABLES, *POD_VARIABLES)
    short = {each.removeprefix(PREFIX).lower(): each.replace(PREFIX, prefix, 1) for each in known}
    return short.get(nearest(name.removeprefix(prefix), short), "")


def from_options(options: Mapping[str, object]) -> list[Override]:
    """What options set. An option that is None was not given."""
    return [
        Override(SourceLocation("option"), path, str(value)) for path, value in options.items() if value is not None
    ]


def apply(reading: ParsedSettings, overrides: Iterable[Override]) -> None:
    """Set each value; a later one wins, and a default loses against whatever stands there, be it wrong."""
    for place, key, text, default in overrides:
        path = tuple(key.split("."))
        if default and path in reading.places:
            continue
        form = _KEYS.get(key)
        if form is None:
            what = f"no option sets this key; those that can be set are {listed(_KEYS)}"
            reading.problems.append(Problem(place, path, what))
            continue
        try:
            value = form.read(text)
        except ValueError as error:
            reading.problems.append(Problem(place, path, str(error)))
            continue
        table = reading.values
        for step in path[:-1]:
            table = table.setdefault(step, {})
        table[path[-1]] = reading.said[path] = value
        reading.places[path] = place
        if form.file:
            reading.files.add(path)
