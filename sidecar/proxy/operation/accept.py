"""
The answer to a call that starts a long-running operation: 202, and the id by which its caller asks for the result.

The rule: each caller has an id of its own, and the fleet knows the id before the caller does. The caller whose call was
sent keeps the service's own id, so that a process which has lost everything can still send its polls there.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from sidecar.core.cache.policy import Freshness, Serve
from sidecar.core.dialect import LongOperation
from sidecar.core.http.headers import lines
from sidecar.core.key.fingerprint import key_of_id
from sidecar.core.model import Head, Pairs
from sidecar.core.request.operation import (
    ACCEPTED,
    ALONE,
    Started,
    accepted_pairs,
    address_of,
    origin_in,
    origin_of,
)
from sidecar.core.request.plan import RequestPlan
from sidecar.core.rules import Route
from sidecar.core.site.base_url import reached
from sidecar.net.base import Exchange, Response
from sidecar.proxy.deliver import Stamp
from sidecar.proxy.flight.opening import Opening
from sidecar.proxy.flight.reader import Reader
from sidecar.proxy.operation.follow import Follower
from sidecar.proxy.operation.records import OperationRecords
from sidecar.proxy.operation.table import OperationTable
from sidecar.proxy.request import Fetch
from sidecar.upstream.dispatch import Sent


class Acceptance:
    """
    Gives operations their ids. *random* gives that many random bytes; *now* is wall-clock seconds, *clock* monotonic
    seconds.
    """

    def __init__(
        self,
        follower: Follower,
        table: OperationTable,
        records: OperationRecords,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self._follower = follower
        self._table = table
        self._records = records
        self._now = now
        self._clock = clock
        self._random = random

    def __repr__(self) -> str:
        return f"<Acceptance {self._table!r}>"

    async def accept(self, fetch: Fetch, exchange: Exchange, opening: Opening, reader: Reader, status: bytes) -> None:
        """
        Answer a call that has started or joined an operation. *reader* stays in the flight, for the result. *status* is
        the ``Cache-Status``.
        """
        reader.question = bytes  # it has its answer; what it asked may be large, and the operation runs for long
        running = opening.started
        assert running is not None, "the flight follows an operation"
        first, own = reader.owner and not opening.joined, running.origin.id
        id_ = own if first and own == own.lower() else self._new_id()  # polls look ids up in lower case
        started = self._follower.started(fetch, id_, running.origin, reader.flight)
        self._table.add(started, reader=reader)
        await self._reply(fetch, exchange, started, status, opening.pairs if first else (), region=opening.region)

    async def promise(self, fetch: Fetch, exchange: Exchange, found: Serve, status: bytes) -> None:
        """Answer a call whose result is stored."""
        started = self._follower.started(fetch, self._new_id(), origin_in(found.entry))
        self._table.add(started, entry=found.entry)
        await self._reply(fetch, exchange, started, status, ((b"age", b"%d" % found.age),))

    async def pin(
        self, plan: RequestPlan, route: Route, sent: Sent, head: Head, operation: LongOperation, pairs: Pairs
    ) -> Pairs:
        """
        A call that is not looked up was answered with *pairs*, and has started an operation in one of several regions:
        remember in which. Returns *pairs* with the address here at which the caller asks.
        """
        site = plan.site
        region = next((region for region in site.regions if region.name == sent.region), None)
        if region is None or reached(head, site.service) is None:
            return pairs
        origin = origin_of(sent.answer.fields, region, operation, site.path, site.query)
        if origin is None:
            return pairs
        principal = plan.identities.shared_as(plan, route.cache.share)
        started = Started(
            id=origin.id.lower(),
            key=key_of_id(origin.id),
            partition=principal.partition,
            owner=plan.identities.shared_as(plan, ALONE).partition,
            share=route.cache.share,
            service=site.service.name,
            resource=site.resource,
            path=site.path,
            query=site.query,
            route=route.name,
            model="",
            origin=origin,
            at=self._now(),
            fresh=Freshness(0.0),
            known=False,
            credential=principal.credential,
        )
        self._table.add(started)
        if not principal.local:
            await self._records.put(started)
        return accepted_pairs(address_of(head, site, operation, origin.id), origin.id, pairs)

    async def _reply(
        self, fetch: Fetch, exchange: Exchange, started: Started, status: bytes, said: Pairs, *, region: str = ""
    ) -> None:
        operation, draft = fetch.call.endpoint.operation, fetch.draft
        assert operation is not None, "the endpoint starts operations"
        if not fetch.call.principal.local:
            await self._records.put(started)
        address = address_of(fetch.request.head, fetch.plan.site, operation, started.id)
        stamp = Stamp(draft.request_id, status, fetch.call.model, region)
        pairs = (*accepted_pairs(address, started.id, said), *stamp.pairs(), (b"content-length", b"0"))
        draft.status = ACCEPTED
        exchange.respond(Response(ACCEPTED, lines(pairs), b""))
        draft.began = self._clock()

    def _new_id(self) -> str:
        return str(UUID(bytes=self._random(16), version=4))
