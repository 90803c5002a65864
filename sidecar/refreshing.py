"""
Newer answers for entries that still serve.

The rule: nobody waits for one and nobody hears of it if it fails; of one key there is one at a time, and after one that
failed a pause that grows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from sidecar.core.blame import blame
from sidecar.core.changes import target_of
from sidecar.core.memo import Memo
from sidecar.core.model import Key
from sidecar.core.rescue import cause_of
from sidecar.errand import Errand, lend, scopes_within
from sidecar.flight.flight import Flight
from sidecar.flight.table import Flights

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a refresh that brought nothing is tried again, doubled each time."""

_FAILED = 4096

MOST = 64
"""Refreshes at a time; an entry whose turn does not come is refreshed when it is asked for again."""


class Refreshes:
    """Starts flights that nobody joins. *fly* fetches; *tell* hears of an errand whose call is over."""

    def __init__(
        self,
        flights: Flights,
        fly: Callable[[Errand, Flight], Awaitable[None]],
        tell: Callable[[Errand], None],
        clock: Callable[[], float],
    ) -> None:
        self._flights = flights
        self._fly = fly
        self._tell = tell
        self._clock = clock
        self._keys: set[Key] = set()
        self._failed: Memo[Key, tuple[float, float]] = Memo(_FAILED)  # not before, and the pause until then

    def __repr__(self) -> str:
        return f"<Refreshes {len(self)} going on>"

    def __len__(self) -> int:
        return len(self._keys)

    def begin(self, errand: Errand) -> None:
        """Fetch what *errand* wants, unless that is being done, or too much of the kind is."""
        if errand.key in self._keys or len(self._keys) >= MOST:
            return
        if self._clock() < (self._failed.get(errand.key) or (0.0, 0.0))[0]:
            return
        generating = errand.call.endpoint.generating
        fly = partial(self._fly, errand)
        scopes = partial(scopes_within, errand)
        target = target_of(errand.approach.site, errand.call.principal.partition)
        flight = self._flights.lead(None, fly, generating=generating, scopes=scopes, target=target)
        lend(errand.request.body, flight)
        assert flight.task is not None
        self._keys.add(errand.key)
        flight.task.add_done_callback(lambda _: self._end(errand, flight))

    def _end(self, errand: Errand, flight: Flight) -> None:
        self._keys.discard(errand.key)
        draft = errand.draft
        if draft.attempts:  # else another process has seen to it
            _, pause = self._failed.get(errand.key) or (0.0, 0.0)
            pause = 0.0 if draft.stored else min(max(_FIRST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            self._failed.put(errand.key, (self._clock() + pause, pause))
        if flight.error is not None:
            draft.cause, draft.error_origin = cause_of(flight.error), blame(flight.error)
        elif flight.opening is not None:
            draft.error_origin = flight.opening.blame
        if draft.attempts:
            draft.status = draft.upstream_status
            self._tell(errand)
