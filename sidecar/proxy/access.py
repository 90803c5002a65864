"""
May this caller have this stored answer?

The rule: all code that serves an entry asks here first, and only here. The service must have accepted the caller's
credential, the request must match the answer's ``Vary``, and the answer must be fresh enough for route and caller. The
call's tags must be noted, so that a purge by them removes the entry too.
"""

from __future__ import annotations

from collections.abc import Callable

from sidecar.core.cache.policy import Absent, Refresh, Serve, judge, judge_stale
from sidecar.core.cache.purges import mark_of
from sidecar.core.cache.variants import fits
from sidecar.core.model import Entry, Fields, Key
from sidecar.core.request.plan import RequestPlan
from sidecar.core.request.principal import Accepted, Principal
from sidecar.proxy.request import Call, tags_of
from sidecar.store.base import Store


class Access:
    """
    Judges by what services have *accepted*. *now* is wall-clock seconds, *clock* monotonic seconds; *store* keeps the
    tags that are noted beside entries.
    """

    def __init__(
        self, accepted: Accepted, store: Store, *, now: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self._accepted = accepted
        self._store = store
        self._now = now
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Access {self._accepted!r}>"

    def proven(self, plan: RequestPlan, principal: Principal) -> bool:
        """Whether the caller may read in its partition: its credential needs no proof, or was accepted."""
        return not principal.needs_proof or self._accepted.knows(plan.site.place, principal, self._now(), self._clock())

    def accept(self, plan: RequestPlan, principal: Principal) -> None:
        """The service has just accepted the caller's credential."""
        self._accepted.note(plan.site.place, principal, self._now(), self._clock())

    def may_have(
        self,
        plan: RequestPlan,
        call: Call,
        key: Key,
        fields: Fields | None,
        entry: Entry,
        at: float,
        *,
        draw: float = 1.0,
        stale: bool = False,
    ) -> Serve | Refresh | None:
        """
        How *entry* may serve at the time *at*; None if it may not. *fields* are the request's. If they are None (not
        known), an entry that depends on fields does not serve. *draw* is for an early refresh (``policy.judge``).
        *stale*: no new answer can be had, so an old one may serve.
        """
        principal = call.principal
        if principal.needs_proof and not self.proven(plan, principal):
            return None
        if entry.vary and (fields is None or not fits(key, entry.vary, fields)):
            return None
        if stale:
            return judge_stale(entry, plan.asked, call.fresh, at)
        verdict = judge(entry, plan.asked, call.fresh, at, draw)
        return None if isinstance(verdict, Absent) else verdict

    def note(self, plan: RequestPlan, call: Call, key: Key, entry: Entry) -> bool:
        """
        *entry* serves this call: from now on a purge by the call's tags, or by its route, removes the entry. False:
        that could not be noted, so the entry must not serve.
        """
        tags = tags_of(call, plan)
        if entry.route != call.route.name:
            tags += (mark_of(call.route.name),)
        return not tags or self._store.note(key, entry, tags)
