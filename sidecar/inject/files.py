"""
The manifests that a command names: files, folders, and standard input.

The rule: as with kubectl, a folder stands for the YAML and JSON files in it, by name, and not for those of its folders.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sidecar.errors import ConfigError

STANDARD_INPUT = "-"
SUFFIXES = frozenset({".yaml", ".yml", ".json"})


class ManifestText(NamedTuple):
    """A text with manifests, and the *source* it was read from."""

    source: str
    text: str


def texts(sources: Iterable[str]) -> list[ManifestText]:
    """The texts of *sources*, in their order. Raises ``ConfigError`` with each that cannot be read."""
    found: list[ManifestText] = []
    problems: list[str] = []
    for source in sources:
        try:
            found += _texts(source)
        except OSError as error:
            problems.append(f"{error.filename or source}: cannot be read: {error.strerror or 'not a file'}")
        except ValueError as error:
            problems.append(f"{source}: {'is not UTF-8' if isinstance(error, UnicodeError) else error}")
    if problems:
        raise ConfigError(tuple(problems))
    return found


def _texts(source: str) -> Iterator[ManifestText]:
    if source == STANDARD_INPUT:
        yield ManifestText("standard input", sys.stdin.read())
        return
    place = Path(source)
    if not place.is_dir():
        yield ManifestText(source, place.read_text(encoding="utf-8-sig"))
        return
    files = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise ValueError("holds no .yaml, .yml or .json file; folders in it are not looked into")
    for file in files:
        yield ManifestText(str(file), file.read_text(encoding="utf-8-sig"))
