"""
Files that a configuration names and others mount: the secret of the fleet's cache, the token of who may act.

The rule: a file that isn't here is no problem, for a configuration is checked far from where it runs; one that is here
and unfit is. Nothing that stands in a file is shown.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from sidecar.admin.access import token_of
from sidecar.core.keyring import parse
from sidecar.settings.build import has_redis
from sidecar.settings.problems import Path, Problem
from sidecar.settings.reader import Reading

_LARGEST = 64 * 1024


def unsealed(reading: Reading) -> Iterator[Problem]:
    """What keeps a Redis that was asked for from being used: nothing goes there that is not sealed."""
    cache: dict[str, Any] = reading.values.get("cache", {})
    if has_redis(reading.values) and "secret_file" not in cache and ("cache", "secret_file") not in reading.places:
        remedy = "make one with `sidecar keygen > FILE`, mount it in every pod, and name it there"
        yield reading.problem(("cache", "redis"), f"is not used without cache.secret_file; {remedy}")


def unfit(reading: Reading) -> Iterator[Problem]:
    """The files that are here and cannot be used."""
    for path, what, remedy in (
        (("cache", "secret_file"), _secret, "write it with `sidecar keygen > FILE`"),
        (("admin", "token_file"), _token, "write one there"),
    ):
        file = _at(reading, path)
        data = _content(file)
        if data is not None and (fault := what(data)):
            yield reading.problem(path, f"its file cannot be used: {fault}{'' if '; ' in fault else f'; {remedy}'}")


def _at(reading: Reading, path: Path) -> str:
    table, key = path
    file: str = reading.values.get(str(table), {}).get(key, "")
    return file


def _content(file: str) -> bytes | None:
    if not file:
        return None
    try:
        with pathlib.Path(file).open("rb") as stream:
            return stream.read(_LARGEST)
    except (OSError, ValueError):
        return None


def _secret(data: bytes) -> str:
    found = parse(data)
    return found if isinstance(found, str) else ""


def _token(data: bytes) -> str:
    try:
        token_of(data)
    except ValueError as error:
        return str(error)
    return ""
