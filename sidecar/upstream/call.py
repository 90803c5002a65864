"""
Values: a call to a region, and its result.

The rule: nothing here acts. A call is the same for every region; the differences between regions are in the hop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct

from sidecar.core.dialect import Kind
from sidecar.core.model import Fields, Head
from sidecar.core.region.regions import Place, Room
from sidecar.core.region.verdict import Verdict
from sidecar.core.rules import Region, Route
from sidecar.core.site.recognise import Site
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Spool, Stream
from sidecar.upstream.commit import CommittedResponse
from sidecar.upstream.replay import Rewindable

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT"})
"""Methods that may be repeated (RFC 9110, 9.2.2)."""


class AttemptLog(NamedTuple):
    """One sending of a call to *region*. *cause*: why it was sent again, ``""`` for the first time."""

    region: str
    cause: str


class UpstreamCall(Struct, frozen=True):
    """
    A call to be sent upstream. *model*: the model asked for, ``""`` if none; *credential*: a digest of what the caller
    presented; *microsoft*: that is a token issued by Microsoft. *allow*: tags of residency; a region must have one of
    them, any region if empty. *identity*: the answer may be stored, so it must come uncoded. *deadline*: when the
    caller gives up, monotonic seconds; *shared*: others may wait for the same answer. *pinned*: it names what one
    region has stored, so only that region may take it. *batch*: others go first. *cause*: why it is sent after another
    call, ``""`` if it is not.

    If somebody wants to know, *on_sent* is called when the whole request has been sent; *on_head* when an answer's head
    has come, perhaps not the last one (what it returns stays with the answer, as *noted*); *on_sign* at each sign of
    life: an attempt begins, its answer's head comes, or bytes come before the commit point. *attempt_logs* collects the
    attempts.
    """

    site: Site
    head: Head
    body: bytes | Spool | Stream
    route: Route
    model: str
    credential: bytes
    streaming: bool
    identity: bool
    attempt_logs: list[AttemptLog]
    allow: frozenset[str] = frozenset()
    microsoft: bool = False
    deadline: float | None = None
    shared: bool = False
    pinned: bool = False
    batch: bool = False
    cause: str = ""
    on_sent: Callable[[], None] | None = None
    on_head: Callable[[int, Fields], Any] | None = None
    on_sign: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<UpstreamCall to {self.site.service.name}, {len(self.attempt_logs)} attempts>"

    @property
    def limit(self) -> float | None:
        """When no caller waits for an answer any more; None if *shared*, because others may wait."""
        return None if self.shared else self.deadline

    @property
    def creates(self) -> bool:
        """Whether a second sending may do the same work twice: the call is not known to be only a question."""
        endpoint = self.site.endpoint
        return self.head.method not in _SAFE and (endpoint is None or endpoint.kind is Kind.OTHER)

    @property
    def repeats(self) -> bool:
        """Whether to send it again after a timeout, although the region may have understood it."""
        endpoint = self.site.endpoint
        if self.route.retry.on_timeout or self.head.method in {b"GET", b"HEAD"}:
            return True
        return endpoint is not None and not endpoint.generating


class Hop(Struct, frozen=True, gc=False):
    """
    How to reach one region. *own*: the caller's own credential is sent. *room*: the quota that counts the call there.
    *target* and *body* are adapted to it.
    """

    region: Region
    own: bool
    place: Place
    room: Room
    target: bytes
    body: bytes | Spool | Stream | Rewindable


class AttemptResult(Struct, frozen=True):
    """The result of an attempt: an *answer* or else a *failure*, and a verdict on the region."""

    hop: Hop
    verdict: Verdict
    answer: CommittedResponse | None = None
    failure: UpstreamFailed | Refused | None = None

    def close(self) -> None:
        """Close its answer."""
        if self.answer is not None:
            self.answer.close()


def room_of(outgoing: UpstreamCall, place: Place, *, own: bool) -> Room:
    """The quota that counts a call to *place*; *own* as in ``Hop``."""
    return Room(place, outgoing.model[:128], outgoing.credential if own else b"")
