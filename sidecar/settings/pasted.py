"""
Finds secrets that were written where the path of their file belongs.

The rule: every key that names a file is checked (its form says that it does). A text that is not a path goes no
further: no message and no rule has it. It is replaced by a path that leads nowhere and names the key.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from sidecar.core.pasted import is_plain, is_secret
from sidecar.settings.problems import Path, Problem, dotted
from sidecar.settings.reader import ParsedSettings

NOWHERE = "/dev/null/"
"""No file can be in this folder."""

_TEXT = "looks like the secret itself, and not like the path of a file; write the secret into a file and name that here"
_HINT = " (a file of that name in the working directory is written ./NAME)"
_ANCHORS = ("/", "./", "../", "~/")


def pasted(reading: ParsedSettings) -> Iterator[Problem]:
    """Each file key whose value looks like a secret; the value is not shown."""
    for path in sorted(reading.files, key=str):
        text = reading.said.get(path)
        if text is not None and not _is_path(path, text) and not _is_placeholder(text):
            yield reading.problem(path, _TEXT + ("" if text.startswith(_ANCHORS) else _HINT))


def hide(reading: ParsedSettings) -> None:
    """In *reading*, replace each such value by a path that names the key."""
    for path in reading.files:
        text = reading.said.get(path)
        if text is not None and not _is_path(path, text):
            reading.said[path] = NOWHERE + dotted(path)
            _put(reading, path, NOWHERE + dotted(path))


def _is_path(path: Path, text: str) -> bool:
    """
    Whether *text*, the value at *path*, is a path. A word that may be a password as well as a file name counts as none,
    unless the file exists, or the key names a folder that would be made.
    """
    return is_quotable(text) or (path == ("state", "dir") and not is_secret(text))


def _is_placeholder(text: str) -> bool:
    """Whether *text* is only a placeholder, for instance an ellipsis in an example."""
    return not any(map(str.isalnum, text))


def is_quotable(text: str) -> bool:
    """Whether a message may show *text*: the file exists, or the path is plain."""
    return is_plain(text) or is_here(text)


def is_here(text: str) -> bool:
    """Whether such a file exists, as far as can be seen."""
    try:
        return pathlib.Path(text).exists()
    except (OSError, ValueError):
        return False


def _put(reading: ParsedSettings, path: Path, text: str) -> None:
    *steps, last = path
    table = reading.values
    for step in steps:
        table = table[step]  # type: ignore[index]  # a position, where it is a list
    table[str(last)] = text
