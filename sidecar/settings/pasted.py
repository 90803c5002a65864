"""
Secrets that stand where the path of their file belongs.

The rule: every key that names a file is looked at (its form says that it does), and what is no path never goes on from
here: neither a message nor a rule has it. In its place stands a path that leads nowhere and names the key.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from sidecar.core.pasted import is_plain, is_secret
from sidecar.settings.problems import Path, Problem, dotted
from sidecar.settings.reader import ParsedSettings

NOWHERE = "/dev/null/"
"""No file can be in it."""

_TEXT = "looks like the secret itself, and not like the path of a file; write the secret into a file and name that here"
_HINT = " (a file of that name in the working directory is written ./NAME)"
_ANCHORS = ("/", "./", "../", "~/")


def pasted(reading: ParsedSettings) -> Iterator[Problem]:
    """Each file key that looks like a secret; nothing of it is shown."""
    for path in sorted(reading.files, key=str):
        text = reading.said.get(path)
        if text is not None and not _is_path(path, text) and not _is_placeholder(text):
            yield reading.problem(path, _TEXT + ("" if text.startswith(_ANCHORS) else _HINT))


def hide(reading: ParsedSettings) -> None:
    """Put a path that names the key in the place of what is no path, in what *reading* says."""
    for path in reading.files:
        text = reading.said.get(path)
        if text is not None and not _is_path(path, text):
            reading.said[path] = NOWHERE + dotted(path)
            _put(reading, path, NOWHERE + dotted(path))


def _is_path(path: Path, text: str) -> bool:
    """
    Whether *text*, the value at *path*, is a path. A word that could be a password as well as a file's name is none,
    unless there is that file, or it is a folder that would be made.
    """
    return is_quotable(text) or (path == ("state", "dir") and not is_secret(text))


def _is_placeholder(text: str) -> bool:
    """Whether *text* says nothing: an ellipsis in an example, say."""
    return not any(map(str.isalnum, text))


def is_quotable(text: str) -> bool:
    """Whether a message may show it: it is here, or it is plain."""
    return is_plain(text) or is_here(text)


def is_here(text: str) -> bool:
    """Whether there is such a file, as far as can be seen."""
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
