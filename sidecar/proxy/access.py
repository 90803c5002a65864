"""
The one question about a stored answer: may this caller have it?

The rule: whoever serves an entry asks here first, and nowhere else. A caller has it where the service has accepted its
credential, where its request has what the answer's ``Vary`` names, and where the answer is as fresh as route and caller
want it; and only once a purge by this call's tags takes the entry, too.
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
        How *entry* serves at the time *at*, None where it may not. *fields* are the request's, None where they are not
        known: then no entry serves that depends on them. *draw* is for an early refresh (``policy.judge``). *stale*: no
        new answer can be had, so an old one may serve.
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
        *entry* serves this call: a purge by the tags that came with the call, or by its route, takes the entry from now
        on. False where that cannot be seen to: then the entry must not serve.
        """
        tags = tags_of(call, plan)
        if entry.route != call.route.name:
            tags += (mark_of(call.route.name),)
        return not tags or self._store.note(key, entry, tags)
