"""
The exceptions of this project, all of them.

    SidecarError
    ├── ConfigError        a configuration cannot be used; carries every problem found
    ├── Refused            we answer the caller ourselves, with a status and a reason
    ├── UpstreamFailed     the AI service could not be reached, was too slow, or broke off
    ├── FleetAway          what the fleet shares (Redis) cannot be asked now
    ├── ClientGone         the caller left before its answer was complete
    └── SlowReader         the caller reads too slowly to be waited for

The rule: the core returns decisions and raises nothing of this; foreign exceptions are translated to one of these at
the border where they occur; only ``core/answer/rescue`` turns them into answers.
"""

from __future__ import annotations

from enum import StrEnum


class SidecarError(Exception):
    """The root of the tree, so that a caller can tell ours from foreign ones."""


class ConfigError(SidecarError):
    """
    A configuration cannot be used.

    *problems* is one line each, ready to print: ``file:line: path: what is wrong; the remedy``.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Refused(SidecarError):
    """
    The caller's request is answered by ourselves.

    *status* is an HTTP status, *code* a short stable word for programs and metrics, *message* a sentence for people
    that names the remedy. *close* says that the connection cannot be used any further. *retry_after*: seconds until it
    is worth trying again, 0 where that is not known.

    *by_own_deadline*: it is by the caller's own deadline, and says nothing of others who ask the same.
    """

    def __init__(self, status: int, code: str, message: str, *, close: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.close = close
        self.retry_after = retry_after
        self.by_own_deadline = False


class Cause(StrEnum):
    """Why an upstream call failed. A closed set: it labels metrics and picks the status of the answer."""

    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect-timeout"
    DNS = "dns"
    TLS = "tls"
    FIRST_BYTE_TIMEOUT = "first-byte-timeout"
    IDLE_TIMEOUT = "idle-timeout"
    DISCONNECTED = "disconnected"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    NO_REGION = "no-region"
    DRAINING = "draining"
    INTERNAL = "internal"


class UpstreamFailed(SidecarError):
    """
    The AI service gave no whole answer.

    *sent* tells whether any byte of the request may have reached it; *answered* whether any byte of an answer came;
    *reused* whether the connection had served a call before (it may have died of old age). *retry_after*: seconds until
    it is worth trying again, 0 where that is not known.

    *final*: we have tried again already, and the caller should not; *by_own_deadline*: the caller
    whose call was sent would not wait any longer.
    """

    def __init__(
        self,
        cause: Cause,
        detail: str = "",
        *,
        sent: bool = True,
        answered: bool = False,
        reused: bool = False,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(f"{cause}: {detail}" if detail else str(cause))
        self.cause = cause
        self.detail = detail
        self.sent = sent
        self.answered = answered
        self.reused = reused
        self.retry_after = retry_after
        self.final = False
        self.by_own_deadline = False


class FleetAway(SidecarError):
    """
    Redis could not be asked, or not in time. Never reaches a caller: the call goes on without it.

    *reason* is from a closed set, for metrics: ``open`` (its breaker), ``busy`` (the time was spent waiting for a
    connection), ``timeout``, ``credential`` (there is none to send), ``refused`` (credentials or rights),
    ``malformed`` (what answers does not answer as Redis does), ``error``.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class ClientGone(SidecarError):
    """The caller closed its connection before its answer was complete."""


class SlowReader(SidecarError):
    """The caller has read nothing for longer than a slow client is waited for."""
