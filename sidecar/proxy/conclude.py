"""
Step 12, and the way there for a request that has failed: its error becomes an answer, and the request one record.

The rule: this is the only place where errors become answers. Each request has one record, written when its cost is
known.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.answer.blame import Blame, blame
from sidecar.core.answer.rescue import cause_of, is_callers, rescue
from sidecar.core.draft import Draft
from sidecar.core.ids import Ids
from sidecar.core.model import Head, Outcome, Record
from sidecar.core.request.plan import RequestPlan
from sidecar.errors import Refused, SidecarError
from sidecar.net.base import Exchange, Response
from sidecar.proxy.deliver import Stamp, rescued

_CLIENT_GONE = 499  # as nginx logs it: the caller left before it had its answer
_CALLERS = frozenset({"client-gone", "slow-reader"})


class Conclusion:
    """*record* gets each request's record, *report* gets bugs. *now* is wall-clock, *clock* monotonic seconds."""

    def __init__(
        self,
        ids: Ids,
        *,
        record: Callable[[Record], None],
        report: Callable[[BaseException], None],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._ids = ids
        self._record = record
        self._report = report
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Conclusion of {self._ids.given} requests>"

    def settle(self, error: Exception, plan: RequestPlan, draft: Draft, exchange: Exchange, status: bytes) -> None:
        """Turn an error into an error answer, or break off an answer that has begun. *status*: ``Cache-Status``."""
        draft.cause, draft.error_origin = cause_of(error), blame(error)
        if not isinstance(error, SidecarError):
            self._report(error)
        if exchange.started or is_callers(error):
            if not is_callers(error):
                draft.outcome = Outcome.ERROR
            exchange.abort()
            return
        answer = rescue(error, plan.site.service.dialect)
        if isinstance(error, Refused):
            status = b"sidecar; detail=%b" % error.code.encode("ascii")
        draft.outcome, draft.status = Outcome.ERROR, answer.status
        close = isinstance(error, Refused) and error.close
        id_field = plan.site.service.dialect.request_id
        stamp = Stamp(draft.request_id, status, draft.model, draft.region, id_field)
        exchange.respond(rescued(answer, stamp, close=close))

    def tell(self, draft: Draft) -> None:
        """The request is over: write its record, unless a call that is booked to it goes on."""
        if draft.recorded:
            return
        if draft.cause in _CALLERS:
            draft.status, draft.error_origin = _CLIENT_GONE, Blame.CALLER
        draft.ended = self._clock()
        if not draft.running:
            self._record(draft.freeze())

    def refuse(self, head: Head | None, error: Refused) -> Response:
        """See ``Application.refuse``: the listener refused the request, or its head was refused."""
        request_id = self._ids.give()
        answer = rescue(error, None)
        self._record(
            Record(
                at=self._now(), request_id=request_id, service="", route="", endpoint="", outcome=Outcome.ERROR,
                status=answer.status, method=head.method if head is not None else b"", cause=error.code,
                error_origin=blame(error),
            )
        )  # fmt: skip
        status = b"sidecar; detail=%b" % error.code.encode("ascii")  # not forwarded, and not stored either
        return rescued(answer, Stamp(request_id, status), close=error.close)
