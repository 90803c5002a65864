"""
Fetching newer answers for entries that may still serve.

The rule: no caller waits for a refresh, and no caller is told if it fails. Each key has at most one refresh at a time.
After a failed refresh there is a pause, which grows with each failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from sidecar.core.answer.blame import blame
from sidecar.core.answer.rescue import cause_of
from sidecar.core.cache.changes import target_of
from sidecar.core.memo import Memo
from sidecar.core.model import Key
from sidecar.proxy.flight.flight import Flight
from sidecar.proxy.flight.table import Flights
from sidecar.proxy.request import Fetch, lend, scopes_within

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Pauses after a refresh that brought nothing, seconds: the first and the longest. Each is twice the one before."""

_FAILED = 4096

MOST = 64
"""Refreshes at a time, at most. An entry beyond that is refreshed when it is asked for again."""


class Refreshes:
    """Starts flights that no caller joins. *fly* fetches; *tell* is called when the call of a fetch is over."""

    def __init__(
        self,
        flights: Flights,
        fly: Callable[[Fetch, Flight], Awaitable[None]],
        tell: Callable[[Fetch], None],
        clock: Callable[[], float],
    ) -> None:
        self._flights = flights
        self._fly = fly
        self._tell = tell
        self._clock = clock
        self._keys: set[Key] = set()
        self._failed: Memo[Key, tuple[float, float]] = Memo(
            _FAILED
        )  # the earliest time of the next refresh, and the pause before it

    def __repr__(self) -> str:
        return f"<Refreshes {len(self)} going on>"

    def __len__(self) -> int:
        return len(self._keys)

    def begin(self, fetch: Fetch) -> None:
        """Start the refresh *fetch*, unless its key is being refreshed or there are too many refreshes."""
        if fetch.key in self._keys or len(self._keys) >= MOST:
            return
        if self._clock() < (self._failed.get(fetch.key) or (0.0, 0.0))[0]:
            return
        generating = fetch.call.endpoint.generating
        fly = partial(self._fly, fetch)
        scopes = partial(scopes_within, fetch)
        target = target_of(fetch.plan.site, fetch.call.principal.partition)
        flight = self._flights.lead(None, fly, generating=generating, scopes=scopes, target=target)
        lend(fetch.request.body, flight)
        assert flight.task is not None
        self._keys.add(fetch.key)
        flight.task.add_done_callback(lambda _: self._end(fetch, flight))

    def _end(self, fetch: Fetch, flight: Flight) -> None:
        self._keys.discard(fetch.key)
        draft = fetch.draft
        if draft.attempts:  # else another process has refreshed it
            _, pause = self._failed.get(fetch.key) or (0.0, 0.0)
            pause = 0.0 if draft.stored else min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            self._failed.put(fetch.key, (self._clock() + pause, pause))
        if flight.error is not None:
            draft.cause, draft.error_origin = cause_of(flight.error), blame(flight.error)
        elif flight.opening is not None:
            draft.error_origin = flight.opening.blame
        if draft.attempts:
            draft.status = draft.upstream_status
            self._tell(fetch)
