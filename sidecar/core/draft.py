"""
A record that is still being filled in.

The rule: there is one for each request. It is made when the body has arrived, and frozen once, when the request is over
and its cost is known.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.model import Outcome, Record, Usage

LONGEST_WORD = 64
"""The most characters of a word from an answer that a record shows."""


def shown(word: str) -> str:
    """A service's word as a record shows it: short and printable."""
    return "".join(char if char.isprintable() else "?" for char in word[:LONGEST_WORD])


class Draft(Struct, gc=False):
    """
    What is known of a request so far; see ``Record`` for the fields. *recorded*: its record has been emitted. *began*:
    when its caller got the first content; *ended*: when it had all, or left; monotonic seconds. *running*: calls that
    continue without this caller, and whose cost counts as its cost.
    """

    request_id: bytes
    at: float
    started: float
    service: str
    route: str
    endpoint: str
    method: bytes
    outcome: Outcome
    bytes_in: int = 0
    model: str = ""
    streamed: bool = False
    status: int = 0
    reason: str = ""
    region: str = ""
    upstream_seconds: float = 0.0
    upstream_status: int = 0
    upstream_id: str = ""
    upstream_region: str = ""
    attempts: int = 0
    retry_causes: tuple[str, ...] = ()
    bytes_out: int = 0
    usage: Usage | None = None
    stored: bool = False
    cause: str = ""
    observed: str = ""
    finish: str = ""
    key: bytes = b""
    error_origin: str = ""
    recorded: bool = False
    began: float | None = None
    ended: float | None = None
    running: int = 0

    def inherit(self, other: Draft) -> None:
        """Take over the cost of a call from *other*, whose caller left before the call was over."""
        self.attempts, other.attempts = self.attempts + other.attempts, 0
        self.retry_causes, other.retry_causes = self.retry_causes + other.retry_causes, ()
        self.upstream_seconds, other.upstream_seconds = self.upstream_seconds + other.upstream_seconds, 0.0
        self.upstream_id = other.upstream_id
        self.upstream_region = other.upstream_region
        self.upstream_status = other.upstream_status
        self.region = other.region
        self.reason = other.reason
        self.finish = other.finish

    def freeze(self) -> Record:
        """The record of a request that has *ended*."""
        assert self.ended is not None, "it has ended"
        return Record(
            at=self.at,
            request_id=self.request_id,
            service=self.service,
            route=self.route,
            endpoint=self.endpoint,
            outcome=self.outcome,
            status=self.status,
            method=self.method,
            model=self.model,
            reason=self.reason,
            region=self.region,
            seconds=self.ended - self.started,
            upstream_seconds=self.upstream_seconds,
            attempts=self.attempts,
            retry_causes=self.retry_causes,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            usage=self.usage,
            stored=self.stored,
            streamed=self.streamed,
            upstream_status=self.upstream_status,
            upstream_id=self.upstream_id,
            upstream_region=self.upstream_region,
            cause=self.cause,
            observed=self.observed,
            finish=self.finish,
            key=self.key,
            first_content_seconds=None if self.began is None else self.began - self.started,
            error_origin=self.error_origin,
        )
