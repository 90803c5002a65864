"""
What is known of a call while it is handled, and the draft of its record.

The rule: each fact about a call is worked out once, and is kept in one frozen value.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

from msgspec import Struct

from sidecar.core.cache.policy import Freshness, Reason
from sidecar.core.cache.purges import Scope, scopes
from sidecar.core.dialect import Endpoint
from sidecar.core.draft import Draft
from sidecar.core.http.headers import is_secretive, patience
from sidecar.core.key.canonical import whole
from sidecar.core.model import Entry, Facts, Fields, Key, Outcome
from sidecar.core.request.noise import IDEMPOTENCY, is_noise
from sidecar.core.request.plan import RequestPlan
from sidecar.core.request.principal import Principal
from sidecar.core.rules import Route
from sidecar.core.site.recognise import allowed
from sidecar.errors import Refused
from sidecar.net.base import Request, Spool, Stream, is_spool
from sidecar.proxy.flight.flight import Flight
from sidecar.upstream.call import AttemptLog, UpstreamCall

_LONG_NOISE = 1024
"""Bytes: no server refuses a noise field shorter than this for its length."""

_COMPARED = 16 * 1024
"""Bytes up to which bodies of many waiting calls can be read again without a noticeable delay."""

_BOUND = frozenset({
    "stateful", "previous-response-id", "conversation", "item-reference", "file-id", "prompt-template", "container",
    "model-management", "writes-results", "retired-version",
})  # fmt: skip
"""Reasons of calls that name something that only one region has stored."""


class Call(Struct, frozen=True, gc=False):
    """
    A request whose body is read: what it asks, its route, its caller, and the key of its answer.

    *fresh* is how long its answer serves. *bypass*: why it goes upstream unchanged, else ``""``; a call with a *bypass*
    has no key. *observe*: it goes upstream unchanged, and we only measure whether it would have been a hit.
    """

    endpoint: Endpoint
    facts: Facts
    route: Route
    model: str
    principal: Principal
    fresh: Freshness
    key: Key | None
    bypass: str = ""
    observe: bool = False


class Missed(Struct, frozen=True, gc=False):
    """A call of which memory has nothing, found without its request."""

    call: Call
    key: Key


class FetchMode(StrEnum):
    """
    How a fetch gets its answer. COALESCE, COALESCE_LATE: shared; late is for callers that waited too long or could not
    have the first answer. PRIVATE: not shared. BYPASS_STORE: shared by form, because the store lacks that form.
    """

    COALESCE = "shared"
    COALESCE_LATE = "late"
    PRIVATE = "alone"
    BYPASS_STORE = "past"


ANYWAY = frozenset({FetchMode.PRIVATE, FetchMode.BYPASS_STORE})
"""The modes in which an answer is fetched even if one is stored."""


class Fetch(Struct, frozen=True, gc=False):
    """
    One request that memory could not answer, with what is known of it. *deadline*: when the caller gives up, monotonic
    seconds; None if it did not say, or if no caller waits. *known*: the entry to refresh; then no caller waits.
    """

    request: Request
    plan: RequestPlan
    call: Call
    key: Key
    draft: Draft
    deadline: float | None = None
    known: Entry | None = None

    def question(self) -> bytes:
        """
        All that the request asks, with the parts that are not in its key: it tells apart calls of one key. It is used
        only after a service has refused one of them; large bodies are compared byte for byte.
        """
        body = self.request.body
        fields = self.request.head.fields
        asked = b"".join(
            [
                b"%b: %b\n" % (name, _asked_value(name, fields[name]))
                for name in sorted(fields)
                if not is_secretive(name)
            ]
        )
        if not isinstance(body, bytes):
            return asked
        return asked + (whole(body, self.call.endpoint) if len(body) <= _COMPARED else body)


def _asked_value(name: bytes, value: bytes) -> bytes:
    """
    The part of a field's *value* that can cause a refusal. For noise that is an id that was used before, or a value
    longer than servers take (8 KiB for a whole head, and often less).
    """
    if not is_noise(name) or name in IDEMPOTENCY:
        return value
    return b"%d" % (len(value) // _LONG_NOISE)


def draft_of(
    request: Request, call: Call | None, route: Route, outcome: Outcome, request_id: bytes, now: float, started: float
) -> Draft:
    """The draft of a request's record; *call* is None when its body was not read. *started* is monotonic seconds."""
    plan: RequestPlan = request.plan
    site, body = plan.site, request.body
    reason: str = ""
    if call is not None:
        reason = Reason.OBSERVE if call.observe else call.bypass
    elif plan.bypass is not None:
        reason = plan.bypass.reason
    else:
        reason = Reason.BODY_TOO_LARGE
    return Draft(
        request_id=request_id,
        at=now,
        started=started,
        service=site.service.name,
        route=route.name,
        endpoint=site.endpoint.name if site.endpoint is not None else "",
        method=request.head.method,
        outcome=outcome,
        bytes_in=len(body) if isinstance(body, bytes) else body.size or 0,
        model=call.model if call is not None else "",
        streamed=call is not None and call.facts.view.stream,
        reason=reason,
        key=call.key.address if call is not None and call.key is not None else b"",
    )


def deadline_of(fields: Fields, started: float) -> float | None:
    """When the caller of a request with *fields* gives up; None if it does not say. Both are monotonic seconds."""
    seconds = patience(fields)
    return None if seconds is None else started + seconds


def is_batch(fields: Fields) -> bool:
    """Whether the caller asked for batch priority: other calls go first."""
    return fields.get(b"x-sidecar-priority", b"").strip().lower() == b"batch"


def upstream_call_of(
    request: Request,
    call: Call | None,
    route: Route,
    principal: Principal,
    *,
    body: bytes | Spool | Stream,
    attempt_logs: list[AttemptLog],
    deadline: float | None,
    shared: bool = False,
    on_sent: Callable[[], None] | None = None,
    on_head: Callable[[int, Fields], Any] | None = None,
) -> UpstreamCall:
    """
    The upstream call of *request*, with *body*. *call* is None if the request's body was not read. *deadline* is when
    its caller gives up, monotonic seconds. Raises ``Refused`` if it is unknown which regions are allowed.
    """
    site, fields = request.plan.site, request.head.fields
    endpoint = site.endpoint
    model = call.model if call is not None else endpoint.model if endpoint is not None else ""
    allow = allowed(site, fields, model, route)
    if allow is None:
        raise Refused(
            403,
            "no-region-allowed",
            "The model that this call is for cannot be told, and its routes allow no region in common; send a body "
            "that names its model, uncompressed and no larger than limits.collect.",
        )
    return UpstreamCall(
        site=site,
        head=request.head,
        body=body,
        route=route,
        model=model,
        allow=allow,
        credential=principal.credential,
        streaming=call is not None and call.facts.view.stream,
        identity=call is not None and call.key is not None and not call.observe,
        attempt_logs=attempt_logs,
        microsoft=principal.microsoft,
        deadline=deadline,
        shared=shared,
        pinned=(endpoint is not None and endpoint.bypass in _BOUND)
        or (call is not None and call.facts.bypass in _BOUND),
        batch=is_batch(fields),
        on_sent=on_sent,
        on_head=on_head,
    )


def book(outgoing: UpstreamCall, draft: Draft) -> None:
    """Add the attempts, their causes and the region to the draft."""
    if outgoing.attempt_logs:
        draft.attempts += len(outgoing.attempt_logs)
        if len(outgoing.attempt_logs) > 1 or outgoing.attempt_logs[0].cause:
            draft.retry_causes += tuple([one.cause for one in outgoing.attempt_logs if one.cause])
        draft.region = outgoing.attempt_logs[-1].region


def booked(fetch: Fetch, flight: Flight) -> Draft:
    """The draft to which the cost of the call is booked at present."""
    return flight.draft or fetch.draft


def tags_of(call: Call, plan: RequestPlan) -> tuple[str, ...]:
    """The tags of a call: those of its route and those of its caller."""
    return call.route.cache.tags + plan.asked.tags


def scopes_within(fetch: Fetch) -> tuple[Scope, ...]:
    """The scopes whose purge removes the answer of *fetch*."""
    call, plan = fetch.call, fetch.plan
    tags = tags_of(call, plan)
    return scopes(fetch.key, plan.site.service.name, call.route.name, tags, call.principal.partition)


def lend(body: bytes | Spool | Stream, flight: Flight) -> None:
    """Keep a spooled body open until the flight ends: the flight may live longer than the request."""
    if not isinstance(body, bytes) and is_spool(body) and flight.task is not None:
        body.share()
        flight.lent = body
        flight.task.add_done_callback(lambda _: flight.give_back())


def let_go(fetch: Fetch, flight: Flight) -> None:
    """
    The service has taken the call of *flight* and will not get it again: nobody needs its body any longer, which may be
    large, and an operation runs for long. A second call beside this one may still need it.
    """
    if flight.seconded or flight.second is not None:
        return
    fetch.request.body = b""
    flight.give_back()
