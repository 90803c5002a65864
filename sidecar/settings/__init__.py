"""
The configuration: YAML, variables and options in, frozen rules out, or every problem at once.

The rule: files are read here and nowhere else, and nothing below the composition root imports this package.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from sidecar.core.rules import Rules
from sidecar.errors import ConfigError
from sidecar.settings.build import build
from sidecar.settings.checks import check
from sidecar.settings.mounted import unfit, unsealed
from sidecar.settings.overrides import Override, apply, from_environment, from_options
from sidecar.settings.problems import in_order
from sidecar.settings.reader import read
from sidecar.settings.tolerance import left_alone, mute, warnings
from sidecar.settings.yaml_source import parse

__all__ = ["DEFAULT_FOLDER", "load"]

DEFAULT_FOLDER = "/etc/sidecar"
"""Where a configuration is looked for when none is named."""

MAX_BYTES = 1024 * 1024
"""The largest configuration file: what a ConfigMap holds at most."""

_BUILT_IN = "built-in settings"


def load(path: str | None, *, environ: Mapping[str, str], overrides: Mapping[str, object], strict: bool) -> Rules:
    """
    The rules of the file or folder *path*, with what *environ* and *overrides* (``{"listen.port": 7500}``) set.

    None reads ``/etc/sidecar`` where that holds a file, else gives the built-in settings; ``""`` gives these without
    looking. A folder holds exactly one ``*.yaml`` or ``*.yml``. *strict* refuses keys that this version doesn't know,
    a Redis without a secret file, and mounted files that are there and unfit; otherwise unknown keys are warnings and
    switch off the cache that they were said for, a Redis without a secret file is a warning and none, and files are
    for those who use them. Raises ``ConfigError`` with every problem, in the order of lines.
    """
    source = _find(path)
    text = _text(source) if source is not None else ""
    name = str(source) if source is not None else _BUILT_IN
    root, problems = parse(text, name)
    reading = read(root, name)
    variables, strange = from_environment(environ)
    changes = [*variables, *from_options(overrides)]
    apply(reading, changes)
    check(reading)
    lacking = unsealed(reading)
    problems = [*problems, *reading.problems]
    if strict:
        problems += [*reading.unknown, *lacking, *unfit(reading)]
    if problems:
        raise ConfigError(in_order(problems))
    rules = build(reading.values, state_dir=_state_dir(environ))
    return replace(
        rules,
        routes=mute(rules.routes, reading.unknown),
        revision=_revision(text, changes),
        warnings=(*in_order([*warnings(reading.unknown), *left_alone(lacking)]), *strange),
    )


def _find(path: str | None) -> pathlib.Path | None:
    """The one file to read, None for the built-in settings."""
    if path == "":  # None looks for one
        return None
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


def _text(file: pathlib.Path) -> str:
    try:
        with file.open("rb") as stream:
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
    """``$XDG_STATE_HOME/sidecar``, else ``~/.local/state/sidecar``, ``""`` where nobody is at home (XDG 0.8)."""
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if state.startswith("/"):
        return f"{state.rstrip('/')}/sidecar"
    return f"{home.rstrip('/')}/.local/state/sidecar" if home.startswith("/") else ""


def _revision(text: str, changes: Iterable[Override]) -> str:
    """A short digest of what the rules were built from."""
    parts = chain((text,), (f"{change.path}={change.text}" for change in changes))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
