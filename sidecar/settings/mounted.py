"""
Files that a configuration names and others mount: secrets, tokens, credentials, certificates, answer files.

The rule: a missing file is no problem, because a configuration is often checked on another machine. A file that is
there but unfit is a problem. Only files without which a process cannot start must be there at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sidecar.settings import fitness
from sidecar.settings.build import has_redis
from sidecar.settings.fitness import FilePurpose
from sidecar.settings.pasted import is_quotable
from sidecar.settings.problems import Path, Problem, shown
from sidecar.settings.reader import ParsedSettings

NEEDED: Path = ("upstream", "ca_file")
"""Files without which no process starts, because it would refuse the calls that they are for."""

_EXPECTED = frozenset({NEEDED, ("admin", "token_file")})
"""Files that a starting process misses: without a token, nobody can give it orders."""


def unsealed(reading: ParsedSettings) -> Iterator[Problem]:
    """Why a configured Redis cannot be used: nothing goes there without a seal."""
    cache: dict[str, Any] = reading.values.get("cache", {})
    if has_redis(reading.values) and "secret_file" not in cache and ("cache", "secret_file") not in reading.places:
        remedy = "make one with `sidecar keygen > FILE`, mount it in every pod, and name it there"
        yield reading.problem(("cache", "redis"), f"is not used without cache.secret_file; {remedy}")


def unfit(reading: ParsedSettings, *, here: bool) -> Iterator[Problem]:
    """The files that are there and cannot be used; for a start *here* also those that must not be missing."""
    for path, name in reading.said.items():
        kind = _kind(reading, path)
        if kind is not None and (fault := _fault(kind, name, missed=here and path in _EXPECTED)):
            file = f"{name if name.isprintable() else shown(name)} " if is_quotable(name) else ""
            yield reading.problem(path, f"{file}cannot be used: {fault}")


def _fault(kind: FilePurpose, name: str, *, missed: bool) -> str:
    try:
        return kind.fault(name)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:
        reason = "is not a path"
    return f"{reason}; {kind.remedy}" if missed else ""  # it is on another machine, or not ours to see


def _kind(reading: ParsedSettings, path: Path) -> FilePurpose | None:
    """What kind of mounted file the value at *path* names; None if it names none."""
    match path:
        case ("admin", "token_file"):
            return fitness.TOKEN
        case ("upstream", "ca_file") | ("cache", "redis", "ca_file"):
            return fitness.CERTIFICATES
        case ("cache", "secret_file"):
            return fitness.SECRET
        case (
            ("cache", "redis", "username_file" | "password_file")
            | ("cache", "redis", "credential", "workload_identity", "token_file")
        ) | (
            "services",
            _,
            "regions",
            _,
            "credential",
            "workload_identity",
            "token_file",
        ):
            return fitness.LINE
        case ("cache", "redis", "cert_file"):
            return fitness.CERTIFICATES if ("cache", "redis", "key_file") in reading.said else fitness.PAIR
        case ("cache", "redis", "key_file"):
            return fitness.key_of(reading.said.get(("cache", "redis", "cert_file"), ""))
        case ("services", _, "regions", _, "credential", "file"):
            return fitness.CREDENTIAL
        case ("services", _, "tokens", "jwks_file"):
            return fitness.KEY_SET
        case ("routes", _, "fallback", _, "answer_file"):
            return fitness.ANSWER
        case _:
            return None
