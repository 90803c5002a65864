"""
Files that a configuration names and others mount: secrets, tokens, credentials, certificates, written answers.

The rule: a file that isn't here is no problem, for a configuration is checked far from where it runs; one that is here
and unfit is. Only what a process can't start without has to be there where it starts.
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
"""The file without which no process starts: calls would be refused that it was named for."""

_EXPECTED = frozenset({NEEDED, ("admin", "token_file")})
"""Files that are missed where a process starts: without a token nobody can act on it."""


def unsealed(reading: ParsedSettings) -> Iterator[Problem]:
    """What keeps a Redis that was asked for from being used: nothing goes there that is not sealed."""
    cache: dict[str, Any] = reading.values.get("cache", {})
    if has_redis(reading.values) and "secret_file" not in cache and ("cache", "secret_file") not in reading.places:
        remedy = "make one with `sidecar keygen > FILE`, mount it in every pod, and name it there"
        yield reading.problem(("cache", "redis"), f"is not used without cache.secret_file; {remedy}")


def unfit(reading: ParsedSettings, *, here: bool) -> Iterator[Problem]:
    """The files that cannot be used, if they are here; for a start *here* also those that are missed there."""
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
    return f"{reason}; {kind.remedy}" if missed else ""  # it is elsewhere, or not for us to see


def _kind(reading: ParsedSettings, path: Path) -> FilePurpose | None:
    """What the value at *path* is a file of, None where it is none that others mount."""
    match path:
        case ("admin", "token_file"):
            return fitness.TOKEN
        case ("upstream", "ca_file") | ("cache", "redis", "ca_file"):
            return fitness.CERTIFICATES
        case ("cache", "secret_file"):
            return fitness.SECRET
        case ("cache", "redis", "username_file" | "password_file") | (
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
