"""
Makes configuration: YAML, variables and options in; frozen rules out, or every problem at once.

Makes rule: files are read only in this package, and only ``app`` and ``cli`` import it.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from sidecar.core.rules import Mode, Rules
from sidecar.errors import ConfigError
from sidecar.net.plain_file import open_plain
from sidecar.settings.build import build
from sidecar.settings.cautions import cautions
from sidecar.settings.checks import check
from sidecar.settings.document_checks import unencrypted, with_effect, withheld
from sidecar.settings.mounted import NEEDED, unfit, unsealed
from sidecar.settings.overrides import Override, apply, from_environment, from_options
from sidecar.settings.pasted import hide, pasted
from sidecar.settings.problems import Problem, in_order
from sidecar.settings.reader import ParsedSettings, read
from sidecar.settings.tolerance import left_alone, mute, warnings
from sidecar.settings.yaml_source import parse

__all__ = ["BUILT_IN", "DEFAULT_FOLDER", "MAX_BYTES", "forwarding", "load"]

DEFAULT_FOLDER = "/etc/sidecar"
"""Where a configuration is looked for if none is named."""

MAX_BYTES = 1024 * 1024
"""The largest configuration file: as much as a ConfigMap holds."""

BUILT_IN = "built-in settings"
"""The source of rules that were read from no file."""

_FORWARDING = "the configuration cannot be used: calls are only forwarded, to the built-in services"


def load(
    path: str | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    strict: bool,
    here: bool = False,
    running: bool = False,
) -> Rules:
    """
    The rules of the file or folder *path*, with what *environ* and *overrides* (``{"listen.port": 7500}``) set.

    None reads ``/etc/sidecar`` if that holds a file, and otherwise gives the built-in settings. A folder holds exactly
    one ``*.yaml`` or ``*.yml``. *strict* refuses unknown keys, a Redis without a secret file, answers to documents that
    would stand unencrypted in Redis for long, and mounted files that are there but unfit. Without it these are
    warnings: an unknown key switches off the cache that it was meant for, as such documents do, a Redis without a
    secret file is not used, and the users of an unfit file deal with it. *here*: the rules are for a
    process that starts now, so the trust anchors that they name must be there and fit. *running*: that process works by
    an earlier configuration, so a file without content is a problem (somebody is writing it, or the disk is full), and
    so are one without any known key and one that can be read only once. Raises ``ConfigError`` with every problem, in
    the order of lines.
    """
    source = _find(path)
    text = _text(source, plain=running) if source is not None else ""
    name = str(source) if source is not None else BUILT_IN
    variables, strange = from_environment(environ)
    changes = [*variables, *from_options(overrides)]
    reading, problems = _read(text, name, changes)
    if running and source is not None and reading.empty and not problems:
        remedy = "write the configuration, or `version: 1` for the built-in settings"
        raise ConfigError((f"{name}: holds nothing; {remedy}",))
    if running and reading.foreign:
        raise ConfigError((f"{name}: holds no key of a configuration; was another file put in its place?",))
    lacking = list(unsealed(reading))
    exposed = list(unencrypted(reading))
    secrets = list(pasted(reading))
    wrong = {problem.path for problem in secrets}
    files = [*secrets, *(problem for problem in unfit(reading, here=here) if problem.path not in wrong)]
    if strict:
        problems += [*reading.unknown, *lacking, *exposed, *files]
    elif here:
        problems += _needed(files)
    if problems:
        raise ConfigError(in_order(problems))
    if not strict:
        hide(reading)
    rules = build(reading.values, state_dir=_state_dir(environ))
    noticed = [*warnings(reading.unknown), *left_alone(lacking), *with_effect(exposed), *files, *cautions(reading)]
    return replace(
        rules,
        routes=withheld(
            mute(rules.routes, reading.unknown), {rules.routes[int(each.path[1])].name for each in exposed}
        ),
        source=name,
        revision=_revision(text, changes),
        warnings=(*in_order(noticed), *strange),
    )


def forwarding(*, environ: Mapping[str, str], overrides: Mapping[str, object]) -> Rules:
    """
    Rules for plain forwarding to the built-in services, for a process whose configuration was refused.

    What *environ* and *overrides* set still holds, above all ports, because the pod's probes and applications use
    these. Left out, with a warning each, are variables that a problem names, and those of a table that is incomplete
    without the file. Raises ``ConfigError`` if options are wrong.
    """
    variables, strange = from_environment(environ)
    options = from_options(overrides)
    left_out: list[Problem] = []
    while True:
        changes = [*variables, *options]
        reading, problems = _read("", BUILT_IN, changes)
        problems += _needed(unfit(reading, here=True))
        kept = [change for change in variables if not any(_concerns(problem, change) for problem in problems)]
        if len(kept) == len(variables):
            break
        left_out += [problem._replace(text=f"{problem.text} (not used)") for problem in problems]
        variables = kept
    if problems:
        raise ConfigError(in_order(problems))
    left_out += pasted(reading)
    hide(reading)
    return replace(
        build(reading.values, state_dir=_state_dir(environ)),
        mode=Mode.PASSTHROUGH,
        source=BUILT_IN,
        revision=_revision("", changes),
        warnings=(_FORWARDING, *in_order(left_out), *strange),
    )


def _read(text: str, name: str, changes: Iterable[Override]) -> tuple[ParsedSettings, list[Problem]]:
    """The reading of the text of file *name* with *changes*, and its problems, wherever they were found."""
    root, problems = parse(text, name)
    reading = read(root, name)
    apply(reading, changes)
    check(reading)
    return reading, [*problems, *reading.problems]


def _needed(files: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in files if problem.path == NEEDED]


def _concerns(problem: Problem, change: Override) -> bool:
    """Whether *problem* is about the value that *change* set, or about a table with that value in it."""
    path = tuple(change.path.split("."))
    return problem.place == change.place or path[: len(problem.path)] == problem.path


def _find(path: str | None) -> pathlib.Path | None:
    """The file to read; None for the built-in settings."""
    if path == "":
        remedy = "name a file or folder (is a variable of a script not set?)"
        raise ConfigError((f"the path of the configuration is empty; {remedy}",))
    place = pathlib.Path(DEFAULT_FOLDER if path is None else path)
    try:
        if not place.is_dir():
            return place if path is not None or place.exists() else None
        # A mounted ConfigMap keeps its versions in folders and links whose names start with dots.
        files = sorted(
            file for file in place.iterdir() if file.suffix in {".yaml", ".yml"} and not file.name.startswith(".")
        )
    except (OSError, ValueError) as error:
        raise _unreadable(place, error) from None
    if len(files) == 1:
        return files[0]
    if files:
        names = ", ".join(file.name for file in files)
        raise ConfigError((f"{place}: holds {len(files)} configurations, {names}; keep one, or name the file",))
    if path is None:
        return None
    raise ConfigError((f"{place}: holds no *.yaml or *.yml; put one configuration there, or name the file",))


def _text(file: pathlib.Path, *, plain: bool) -> str:
    try:
        with open_plain(file) if plain else file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    if len(data) > MAX_BYTES:
        raise ConfigError((f"{file}: is larger than 1Mi, more than a ConfigMap holds; name the right file",))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError((f"{file}:{line}: is not UTF-8; save the file in that encoding",)) from None


def _unreadable(place: pathlib.Path, error: Exception) -> ConfigError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
    return ConfigError((f"{place}: cannot be read: {reason}; check the path and its permissions",))


def _state_dir(environ: Mapping[str, str]) -> str:
    """``$XDG_STATE_HOME/sidecar``, else ``~/.local/state/sidecar``; ``""`` if there is no home folder (XDG 0.8)."""
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if state.startswith("/"):
        return f"{state.rstrip('/')}/sidecar"
    return f"{home.rstrip('/')}/.local/state/sidecar" if home.startswith("/") else ""


def _revision(text: str, changes: Iterable[Override]) -> str:
    """A short digest of everything that the rules are built from."""
    parts = chain((text,), (f"{change.path}={change.text}" for change in changes))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
