"""
Passing a call through, byte for byte.

The rule: nothing is looked up and nothing kept; what goes by is at most watched, to be counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from sidecar.core.draft import Draft
from sidecar.core.headers import fields_of, relay
from sidecar.core.model import Fields
from sidecar.core.observation import Observations, essence
from sidecar.core.policy import form_of
from sidecar.core.principal import Principal
from sidecar.core.rules import Route
from sidecar.delivery import Stamp
from sidecar.dispatch import Dispatch, Sent
from sidecar.errand import Call
from sidecar.net.base import Exchange, Request
from sidecar.origin import Origin

_OBSERVED_BYTES = 1024 * 1024


class Passage(Struct, frozen=True):
    """Where a call's answer goes, and what is said of it: *status* is its ``Cache-Status``."""

    draft: Draft
    status: bytes
    exchange: Exchange


class Relay:
    """Sends calls on and their answers back. *now* is wall-clock seconds, *clock* monotonic seconds."""

    def __init__(
        self,
        dispatch: Dispatch,
        origin: Origin,
        observations: Observations,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._dispatch = dispatch
        self._origin = origin
        self._observations = observations
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Relay {self._observations!r}>"

    async def run(
        self, request: Request, call: Call | None, route: Route, principal: Principal, passage: Passage
    ) -> None:
        """One call. *call* is None when its body was not read."""
        draft, exchange = passage.draft, passage.exchange
        watch = None
        try:
            sent = await self._dispatch.send(
                request.plan.site,
                request.head,
                request.body,
                timeouts=route.timeouts,
                streaming=draft.streamed,
                identity=False,
            )
            try:
                draft.upstream_seconds = self._clock() - draft.started
                self._origin.note(request.plan, principal, sent, draft)
                fields = self._begin(sent, passage)
                watch = call.endpoint.answers.watch() if call is not None and draft.streamed else None
                seen: list[bytes] | None = [] if call is not None and call.observe else None
                while chunk := await self._origin.read(sent.answer, draft):
                    if watch is not None:
                        watch.feed(chunk)
                    draft.bytes_out += len(chunk)
                    if seen is not None and draft.bytes_out <= _OBSERVED_BYTES:
                        seen.append(chunk)
                    await exchange.write(chunk)
            finally:
                sent.answer.close()
            exchange.end()
            if seen is not None and call is not None and call.key is not None and draft.status == 200:
                said = essence(call.endpoint, b"".join(seen), form_of(fields))
                draft.observed = self._observations.note(call.key, said)
        except asyncio.CancelledError:
            if watch is None or not watch.ended:
                draft.cause = "client-gone"
            raise

    def _begin(self, sent: Sent, passage: Passage) -> Fields:
        answer, draft = sent.answer, passage.draft
        fields = fields_of(answer.pairs)
        stamp = Stamp(draft.request_id, passage.status, draft.model, sent.region)
        pairs = (*relay(answer.pairs, fields, self._now()), *stamp.pairs())
        passage.exchange.begin(answer.status, pairs, answer.length)
        draft.status = answer.status
        return fields
