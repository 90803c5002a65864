"""
Who caused an error: the caller, the sidecar or the service.

The rule: one word of a closed set, chosen where the error occurs; it labels metrics and stands in the log.
"""

from __future__ import annotations

from enum import StrEnum

from sidecar.errors import Cause, ClientGone, Refused, SlowReader, UpstreamFailed


class Blame(StrEnum):
    """
    Who has to do something about an error: the *caller* (its request, its credential, its patience), this *sidecar* (a
    bug, a limit, its configuration, its end), the service *upstream* (it failed, or had no room).
    """

    CALLER = "caller"
    SIDECAR = "sidecar"
    UPSTREAM = "upstream"


NOBODY = ""
"""There was no error."""

_OURS = frozenset({Cause.DRAINING, Cause.INTERNAL})
_LIMIT = "route-limit"
_ONLY_STORED = "only-if-cached"
_FULL = frozenset({402, 408, 424, 425, 429})
"""Statuses below 500 by which a service says that it cannot answer now, whatever the request."""


def blame(error: BaseException) -> str:
    """Who caused *error*, which ended a call."""
    match error:
        case UpstreamFailed():
            if error.cause in _OURS:
                return Blame.SIDECAR
            return Blame.CALLER if error.by_own_deadline else Blame.UPSTREAM
        case Refused():
            asked = error.status < 500 and error.code != _LIMIT
            return Blame.CALLER if asked or error.code == _ONLY_STORED else Blame.SIDECAR
        case ClientGone() | SlowReader():
            return Blame.CALLER
        case _:
            return Blame.SIDECAR


def blame_of_answer(status: int, *, own: bool) -> str:
    """Who caused the error in a service's answer. *own*: the call carried the caller's own credential."""
    if status < 400:
        return NOBODY
    if status >= 500 or status in _FULL:
        return Blame.UPSTREAM
    return Blame.SIDECAR if status in {401, 403} and not own else Blame.CALLER
