"""
What an exception of the client means for the tier in Redis.

The rule: Redis is faulty if it does not answer, answers that it cannot serve anybody now, or answers as Redis never
does. An error about one command, such as missing memory for a write, is an answer, and reads go on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sidecar.errors import FleetAway

LONGEST_DETAIL = 120

_PART = 6
"""If fewer characters of a password appear in a text, that is chance."""

_QUOTING = frozenset({"refused", "cluster", "connect"})
"""Kinds of faults that are reported in the server's words."""


class RedisFault(NamedTuple):
    """
    *reason*: as in ``FleetAway``. *kind*, a closed set for metrics: ``timeout late connect credential refused malformed
    loading readonly cluster memory script reply other``; ``late`` is a timeout that proves nothing. *sick*: counts
    against Redis. *detail*: for the log, never a key or a value.
    """

    reason: str
    kind: str
    detail: str
    sick: bool = True


_READONLY = RedisFault("error", "readonly", "is a replica, or was made one")
_FULL = RedisFault("error", "memory", "takes no writes: maxmemory is reached", sick=False)
_BY_CODE = {
    "BUSY": RedisFault("error", "script", "a script runs for too long"),
    "READONLY": _READONLY,  # within a script, as Redis 6 says it
    "OOM": _FULL,
}

_IN_SCRIPT = re.compile(r"(?:Error running script \(call to \w+\): )?(?:@user_script: ?\d+: )*-?")
"""What Redis 6 writes before an error within a script."""

_NO_RIGHT = "The user executing the script can't run"


def judge(error: BaseException) -> RedisFault:
    """What *error*, raised by the client or by the clock, means."""
    from redis import exceptions as theirs  # noqa: PLC0415  only where there is a Redis

    if (refusal := _refusal(error)) is not None:
        return refusal
    if detail := _nonsense(error):
        return RedisFault("malformed", "malformed", detail)
    match error:
        case theirs.TimeoutError() | TimeoutError():
            return RedisFault("timeout", "timeout", "no answer in time")
        case theirs.BusyLoadingError():
            return RedisFault("error", "loading", "loads its data")
        case theirs.ReadOnlyError():
            return _READONLY
        case theirs.ClusterError() | theirs.RedisClusterException():
            return RedisFault("error", "cluster", _text(error))
        case theirs.ConnectionError() | OSError():
            return RedisFault("error", "connect", _text(error))
        case theirs.OutOfMemoryError():
            return _FULL
        case theirs.ResponseError():
            code = _code_of(str(error))
            return _BY_CODE.get(code) or RedisFault("error", "reply", code, sick=False)
        case _:
            return RedisFault("error", "other", type(error).__name__, sick=False)


def discreet(fault: RedisFault, passwords: Callable[[], Iterable[str]]) -> RedisFault:
    """*fault* without the server's words, if these quote one of the *passwords* or a part of it."""
    if fault.kind in _QUOTING and any(_quotes(fault.detail, password) for password in passwords()):
        return fault._replace(detail="its words are not shown, for they quote the password")
    return fault


def password_in(path: str) -> Iterator[str]:
    """The password in the file at *path*, if that can be read."""
    if path:
        with suppress(OSError, UnicodeDecodeError):
            yield Path(path).read_text("utf-8").strip()


def _quotes(text: str, password: str) -> bool:
    parts = (password[at : at + _PART] for at in range(max(1, len(password) - _PART + 1)))
    return bool(password) and any(part in text for part in parts)


def is_missing_script(error: BaseException) -> bool:
    """Whether a server says that it does not know a script by its digest."""
    from redis.exceptions import NoScriptError  # noqa: PLC0415  as above

    return isinstance(error, NoScriptError)


def _refusal(error: BaseException) -> RedisFault | None:
    """What the missing login or right means that *error* is or comes from: the Cluster's client wraps it."""
    from redis import exceptions as theirs  # noqa: PLC0415  as above

    from sidecar.redis_link.login_renewal import NoLoginError  # noqa: PLC0415  as above

    if (lacking := _within(error, (NoLoginError,))) is not None:
        return RedisFault("credential", "credential", _text(lacking))
    refused = (theirs.AuthenticationError, theirs.AuthorizationError, theirs.NoPermissionError)
    found = _within(error, (*refused, theirs.AuthenticationWrongNumberOfArgsError))
    return None if found is None else RedisFault("refused", "refused", _text(found))


def _nonsense(error: BaseException) -> str:
    """What is wrong with the reply, if *error* is or comes from one that Redis never gives; otherwise ``""``."""
    from redis.exceptions import InvalidResponse  # noqa: PLC0415  as above

    from sidecar.redis_link.replies import Garbled  # noqa: PLC0415  as above

    if isinstance(error, FleetAway):
        return error.detail or error.reason
    found = _within(error, (Garbled, InvalidResponse))
    if found is None:
        return ""
    return _text(found) if isinstance(found, Garbled) else "a reply is malformed"  # the library's text may quote it


def _within(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kinds):
        cause = cause.__cause__ or cause.__context__
    return cause


def _code_of(text: str) -> str:
    """The first word of an error; the rest may quote keys and arguments."""
    text = _IN_SCRIPT.sub("", text, count=1)
    return "NOPERM" if text.startswith(_NO_RIGHT) else text.partition(" ")[0]


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:LONGEST_DETAIL] or type(error).__name__
