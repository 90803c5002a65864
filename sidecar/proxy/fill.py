"""
Fetching an answer from the fleet's store or from the service.

The rule: if no answer can be had, a stale entry serves, or else a fallback answer. This is decided before any caller
has received the head of an answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from sidecar.core.answer.rescue import cause_of
from sidecar.core.answer.usage import names_usage, with_usage
from sidecar.core.cache.beside import Asked, Beside, never
from sidecar.core.cache.held import Held
from sidecar.core.cache.policy import FAILING, Audience, Refresh, Serve, audience
from sidecar.core.memo import Memo
from sidecar.core.model import Entry, Fields, Form, Outcome
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.base import Spool, Stream
from sidecar.proxy.access import Access
from sidecar.proxy.deliver import viewed
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.pulse import patience as silence
from sidecar.proxy.operation.follow import Follower
from sidecar.proxy.receive import Receiver
from sidecar.proxy.request import Fetch, book, booked, upstream_call_of
from sidecar.store.base import Fetched, Store
from sidecar.store.tiered import Nowhere
from sidecar.tasks import CONVERTED_IN_LOOP, in_thread_if_large
from sidecar.upstream.call import AttemptLog, UpstreamCall
from sidecar.upstream.commit import COMPLAINT_BYTES, CommittedResponse
from sidecar.upstream.dispatch import Dispatch, Sent
from sidecar.upstream.fallback import Fallback, has_room

_NOWHERE = Nowhere()
_REFUSES_BYTES = 64 * 1024  # limit for the names of deployments in this memo: callers choose the model names


class Origin:
    """
    Fetches answers: first from the fleet's store behind memory, then from the service. *lease_wait* is how long a
    streaming call waits for another process's answer, seconds; *now* is wall-clock seconds, *clock* monotonic seconds.
    """

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        fallback: Fallback,
        receiver: Receiver,
        follower: Follower,
        store: Store,
        access: Access,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._fallback = fallback
        self._receiver = receiver
        self.follower = follower
        self._store = store
        self._access = access
        self.lease_wait = 0.0
        self._now = now
        self._clock = clock
        self._refuses_usage: Memo[tuple[str, str, str], bool] = Memo(256, _REFUSES_BYTES)

    def __repr__(self) -> str:
        return f"<Origin {self._access!r}>"

    def patience(self, fetch: Fetch) -> float:
        """How many seconds to wait for another process's answer."""
        call, deadline = fetch.call, fetch.deadline
        seconds = self.lease_wait if call.facts.view.stream else call.route.timeouts.first_byte
        return seconds if deadline is None else max(min(seconds, deadline - self._clock()), 0.0)

    def silence(self, fetch: Fetch) -> float:
        """How many seconds a call may be silent; derived from its route's usual time, once that is known."""
        route, streaming = fetch.call.route, fetch.call.facts.view.stream
        timeouts = route.timeouts
        first_byte = timeouts.stream_first_byte if streaming else timeouts.first_byte
        return silence(self._dispatch.paces.usual(route.name, streaming=streaming), first_byte)

    def beside(self, fetch: Fetch, flight: Flight) -> Beside:
        """When *flight*, which may wait for another process, fetches although that process does: if it is stuck."""
        may = flight.patience > 0 and self._dispatch.spares(fetch.plan.site.service.name)
        return Beside.STUCK if may else Beside.NEVER

    def spares(self, fetch: Fetch) -> bool:
        """Whether the budget of its service has an extra attempt left."""
        return self._dispatch.spares(fetch.plan.site.service.name)

    def take(self, fetch: Fetch) -> bool:
        """Take an extra attempt from the budget of its service. False: none is left."""
        return self._dispatch.take(fetch.plan.site.service.name)

    def left(self, fetch: Fetch) -> float | None:
        """How many seconds the caller will still wait, or None if it did not say."""
        deadline = fetch.deadline
        return None if deadline is None else deadline - self._clock()

    def look(self, fetch: Fetch, *, patience: float, beside: Asked = never) -> Awaitable[Fetched]:
        """
        Look in the fleet's store, if this caller may read it. *patience*: how long to wait for another process's fetch,
        seconds; *beside* tells when to fetch although that process fetches.
        """
        plan, call, known, now = fetch.plan, fetch.call, fetch.known, self._now
        fields = fetch.request.head.fields
        principal = call.principal
        unproven = principal.needs_proof and not self._access.proven(plan, principal)

        def suffices(entry: Entry) -> Serve | Refresh | None:
            if known is not None and entry.at <= known.at:
                return None
            return self._access.may_have(plan, call, fetch.key, fields, entry, now())

        store = _NOWHERE if principal.local or plan.asked.no_cache or unproven else self._store
        return store.fetch(fetch.key, suffices, patience=patience, beside=beside)

    def note(self, fetch: Fetch, entry: Entry) -> bool:
        """*entry* answers this call: note the call's tags. False: that failed, so *entry* must not answer."""
        return self._access.note(fetch.plan, fetch.call, fetch.key, entry)

    async def fetch(self, fetch: Fetch, flight: Flight, behind: Held | None, *, cause: str = "") -> None:
        """
        Send a call and write its answer into *flight*. If there is none, a stale entry (from memory or *behind* it) or
        a fallback answer serves, if allowed. *cause*: why this call is sent although another was sent before.
        """
        if await self.follower.join(fetch, flight):
            return
        try:
            sent = await self.send(fetch, flight, cause=cause)
        except (UpstreamFailed, Refused) as failure:
            if not await self._make_do(fetch, flight, behind, failure):
                raise
            return
        try:
            if sent.failing and await self._make_do(fetch, flight, behind, sent):
                return
            if not await self.follower.begin(fetch, flight, sent):
                await self._receiver.receive(fetch, flight, sent)
        except UpstreamFailed as failure:
            if flight.opening is not None:
                raise
            failure.final = sent.final
            flight.rewind()
            if not await self._make_do(fetch, flight, behind, failure):
                raise
        finally:
            sent.answer.close()

    async def _make_do(
        self, fetch: Fetch, flight: Flight, behind: Held | None, failure: UpstreamFailed | Refused | Sent
    ) -> bool:
        """Serve a stale entry or a fallback answer instead of a region's answer. False: there is none."""
        if isinstance(failure, Refused) and failure.status not in FAILING:
            return False
        stale = await self._stale_entry(fetch, flight, behind)
        if stale is not None:
            if not isinstance(failure, Sent):
                booked(fetch, flight).cause = cause_of(failure)
            await substitute(flight, stale, Outcome.STALE_ERROR)
            return True
        if not fetch.call.route.fallback or fetch.known is not None:
            return False
        if isinstance(failure, Sent) and (failure.personal or audience(failure.answer.status) is not Audience.EVERYONE):
            credential = fetch.call.principal.credential
            flight.release(lambda reader: reader.credential == credential)  # others may have room left
        outgoing = self._upstream_call(fetch, fetch.request.body, [])
        try:
            call, models = fetch.call, has_room(failure)
            found = await self._fallback.answer(outgoing, call.endpoint, call.facts.view, models=models)
        finally:
            book(outgoing, booked(fetch, flight))
        if found is None:
            return False
        try:
            await self._receiver.receive_fallback(fetch, flight, found)
        finally:
            found.sent.answer.close()
        return True

    async def _stale_entry(self, fetch: Fetch, flight: Flight, behind: Held | None) -> Serve | None:
        """
        A stale entry, if this caller may have it and a form of it fits. It is looked for only when needed: a call may
        take minutes, and a purge in that time removes the stale entry too.
        """
        await self._store.catch_up()
        call, plan, view = fetch.call, fetch.plan, fetch.call.facts.view
        if not self._access.proven(plan, call.principal):
            return None
        held = self._store.find(fetch.key) or (None if flight.superseded else behind)
        if held is None:
            return None
        at, fields = held.time(self._now(), self._clock()), fetch.request.head.fields
        found = self._access.may_have(plan, call, fetch.key, fields, held.entry, at, stale=True)
        if not isinstance(found, Serve) or not self.note(fetch, found.entry):
            return None
        if view.stream == (found.entry.form is Form.EVENTS):
            return found
        convert = partial(viewed, found.entry, call.endpoint, view)
        body = await in_thread_if_large(len(found.entry.body), CONVERTED_IN_LOOP, convert)
        return found if body is not None else None

    async def send(self, fetch: Fetch, flight: Flight, *, cause: str = "") -> Sent:
        """Send a call. If the caller did not ask for a stream's usage, ask for it; if that is refused, send without."""
        call, facts, body = fetch.call, fetch.call.facts, fetch.request.body
        began = self._clock()
        on_head = partial(self._receiver.on_head, fetch, flight)
        outgoing = self._upstream_call(fetch, body, [], flight.mark_sent, on_head)
        outgoing = replace(outgoing, cause=cause, on_sign=flight.sign)
        try:
            if facts.inject_usage and isinstance(body, bytes) and self._takes_usage(fetch):
                flight.usage = True
                sent = await self._dispatch.send(replace(outgoing, body=with_usage(body)))
                if sent.answer.status in {400, 422}:
                    complaint = await _read_complaint(sent.answer)
                    if names_usage(complaint):
                        deployment = _deployment(fetch)
                        self._refuses_usage.put(deployment, True, sum(map(len, deployment)))
                        sent.answer.close()
                        flight.usage = False
                        sent = await self._dispatch.send(replace(outgoing, cause="usage-refused"))
                    else:
                        sent.answer.unread(complaint)
            else:
                flight.usage = facts.view.usage
                sent = await self._dispatch.send(outgoing)
        finally:
            draft = booked(fetch, flight)
            draft.upstream_seconds += self._clock() - began
            book(outgoing, draft)
        self._receiver.note(fetch.plan.site.place, call.principal, sent, draft)
        return sent

    def _upstream_call(
        self,
        fetch: Fetch,
        body: bytes | Spool | Stream,
        attempt_logs: list[AttemptLog],
        on_sent: Callable[[], None] | None = None,
        on_head: Callable[[int, Fields], Any] | None = None,
    ) -> UpstreamCall:
        outgoing = upstream_call_of(
            fetch.request,
            fetch.call,
            fetch.call.route,
            fetch.call.principal,
            body=body,
            attempt_logs=attempt_logs,
            deadline=fetch.deadline,
            shared=True,
            on_sent=on_sent,
            on_head=on_head,
        )
        if fetch.known is None:
            return outgoing
        return replace(outgoing, batch=True, deadline=None)  # nobody waits for a refresh

    def _takes_usage(self, fetch: Fetch) -> bool:
        return self._refuses_usage.get(_deployment(fetch)) is None


async def substitute(flight: Flight, serve: Serve, outcome: Outcome) -> None:
    """Serve an entry instead of a service's answer."""
    entry = serve.entry
    pairs = (*entry.headers, (b"age", b"%d" % serve.age))
    length = len(entry.body)
    flight.open(Opening(entry.status, pairs, pairs, entry.form, length, found=serve, outcome=outcome))
    await flight.push(entry.body)


def _deployment(fetch: Fetch) -> tuple[str, str, str]:
    site = fetch.plan.site
    return site.service.name, site.resource, fetch.call.model


async def _read_complaint(answer: CommittedResponse) -> bytes:
    read = b""
    try:
        while len(read) < COMPLAINT_BYTES and (chunk := await answer.read()):
            read += chunk
    except BaseException:
        answer.close()
        raise
    return read
