"""
A call on its way to a region, and what became of it: values.

The rule: nothing here acts. A call is the same whatever region it goes to; what differs is in the hop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
    """That a call was sent to *region*, and why once more: ``""`` for the first time."""

    region: str
    cause: str


class UpstreamCall(Struct, frozen=True):
    """
    A call on its way out. *model* is the one asked for, ``""`` where there is none; *credential* a digest of what the
    caller presented; *microsoft*: that is a token issued by Microsoft. *allow*: tags of residency, one of which a
    region must have, none for any. *identity*: the answer may be stored, so it must come uncoded. *deadline*: when the
    caller gives up, monotonic seconds; *shared*: others may wait for the same answer. *pinned*: it names what one
    region has stored, and is for no other. *batch*: it can wait for others. *cause*: why it is sent although another
    call was before it, ``""`` for none.

    *on_sent* is called when the whole request is on its way, *on_head* when an answer's head has come, which may not be
    the last one, *on_sign* at each sign of life: an attempt is begun, its answer's head comes, or bytes up to the
    commit point. *attempt_logs* fills up with what was tried.
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
    on_sent: Callable[[], None] = lambda: None
    on_head: Callable[[int, Fields], None] = lambda _, __: None
    on_sign: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<UpstreamCall to {self.site.service.name}, {len(self.attempt_logs)} attempts>"

    @property
    def limit(self) -> float | None:
        """When nobody waits for an answer any more: others may wait for a *shared* one."""
        return None if self.shared else self.deadline

    @property
    def creates(self) -> bool:
        """Whether sending it twice may do twice what it asks for: it isn't known to be a question only."""
        endpoint = self.site.endpoint
        return self.head.method not in _SAFE and (endpoint is None or endpoint.kind is Kind.OTHER)

    @property
    def repeats(self) -> bool:
        """Whether it is sent again although it may have been understood, and only the answer took too long."""
        endpoint = self.site.endpoint
        if self.route.retry.on_timeout or self.head.method in {b"GET", b"HEAD"}:
            return True
        return endpoint is not None and not endpoint.generating


class Hop(Struct, frozen=True, gc=False):
    """
    The way to one region. *own*: the caller's own credential goes along. *target* and *body* are as that region wants
    them.
    """

    region: Region
    own: bool
    place: Place
    target: bytes
    body: bytes | Spool | Stream | Rewindable


class AttemptResult(Struct, frozen=True):
    """What became of an attempt: an *answer*, or else a *failure*; and what that says of the region."""

    hop: Hop
    verdict: Verdict
    answer: CommittedResponse | None = None
    failure: UpstreamFailed | Refused | None = None

    def close(self) -> None:
        """Let go of its answer."""
        if self.answer is not None:
            self.answer.close()


def room_of(outgoing: UpstreamCall, hop: Hop) -> Room:
    """Which quota a call by way of *hop* is counted against."""
    return Room(hop.place, outgoing.model[:128], outgoing.credential if hop.own else b"")
