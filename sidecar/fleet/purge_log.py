"""
What this process knows of the fleet's purges, kept in step with the log in Redis; the fleet's mode comes the same way.

The rule: a purge or a mode holds here at once, whether Redis answers or not, and waits until it is written. What comes
from Redis is current only while the log has been read lately.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from sidecar.core.cache.purges import ALL, Purges, Scope
from sidecar.core.events import TellEvent
from sidecar.core.model import Entry, Key, Position
from sidecar.core.rules import Mode
from sidecar.core.term import term
from sidecar.errors import FleetAway
from sidecar.fleet.poll import Alarm, Following
from sidecar.fleet.purge_log_in_redis import EXCHANGE_SECONDS, LONGEST_MODE, Journal
from sidecar.fleet.scope_notes import ScopeNotes
from sidecar.fleet.tagged import AGAIN_SECONDS, Tagged
from sidecar.redis_link.deadline import Deadline
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import Notes, RedisNames
from sidecar.tasks import Spawn

CURRENT_SECONDS = 3.0
"""
For how many seconds after a reading of the log entries from Redis may be judged by it; entries in memory too, unless
Redis is away. The log is read at least every 1.5 s or so; if more time has passed, this process did not run for the
rest of it.
"""


class _Held(NamedTuple):
    """The fleet's mode and its end, wall clock; None where it has none."""

    mode: Mode | None = None
    until: float = -math.inf


class PurgeLog:
    """
    Keeps *purges* in step with the log. *now* is the wall clock; *clock* is seconds that run on, also while the machine
    sleeps; *draw* gives [0, 1); *random* as many random bytes as it is asked for. *patience*: how long a call waits for
    Redis, seconds.

    *on_purge* is called with what has just been purged here, by any process, in the same step in which *purges* learns
    it. *on_mode* is called with the fleet's mode and its end, wall clock, when either changes; None where there is
    none. Nothing raises except cancellation. ``counts``: ``tails`` and ``failures`` of reading, ``purges`` written from
    here, ``learned`` from the log, ``unreadable`` notes (each is a purge of everything), ``lost`` logs.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        notes: Notes,
        purges: Purges,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        random: Callable[[int], bytes],
        spawn: Spawn,
        on_purge: Callable[[tuple[Scope, ...]], None],
        on_mode: Callable[[Mode | None, float], None],
        tell: TellEvent,
        patience: float = 0.05,
    ) -> None:
        self._link = link
        self.patience = patience
        self._purges = purges
        self._now = now
        self._clock = clock
        self._on_purge = on_purge
        self._on_mode = on_mode
        self._tell = tell
        self._exchanging = asyncio.Lock()
        self._catching_up = asyncio.Lock()
        self._read_at = clock()
        self._away = False
        self._held = self._told_mode = _Held()
        self._term = term(-math.inf, now(), clock())  # of the mode that holds
        purges.until = clock() + CURRENT_SECONDS
        self._waiting: _Held | None = None
        self.counts: Counter[str] = Counter()
        self._journal = Journal(link, names, notes, now=now, random=random)
        self._alarm = Alarm(tell, "purge-log-fault")
        self._tagged = Tagged(link, names, ScopeNotes(names, notes), clock=clock, now=now)
        self._noted_at = clock()
        self._forgot = False
        self._following = Following(self._turn, draw=draw, spawn=spawn, name="purge-log")
        link.on_return.append(self._return)

    def __repr__(self) -> str:
        return f"<PurgeLog {self._purges!r}, mode {self.mode or 'unset'}, read {self.lag:.1f} s ago>"

    @property
    def lag(self) -> float:
        """Seconds since this process asked for what it read of the log last, or since this object was made."""
        return self._clock() - self._read_at

    @property
    def current(self) -> bool:
        """Whether the known purges are recent enough to judge entries from Redis."""
        return not self._away and self._clock() - self._read_at <= CURRENT_SECONDS

    def admits(self, key: Key, entry: Entry) -> bool:
        """Whether purges allow an entry from Redis to serve and be kept; False if they are not known well enough."""
        return self.current and self._purges.allows(key, entry)

    @property
    def mode(self) -> Mode | None:
        """The fleet's mode now."""
        return self._held.mode if self._term.left(self._now(), self._clock()) > 0.0 else None

    async def start(self) -> None:
        """Read the log if it answers in time, and go on reading it until ``stop``."""
        await self._following.start()

    @property
    def unwritten(self) -> int:
        """How many purges, notes and modes wait to be written."""
        return len(self._purges.pending) + len(self._tagged) + (self._waiting is not None)

    async def flush(self) -> None:
        """Write what waits, if one try is enough."""
        if self.unwritten:
            await self._turn()

    async def stop(self) -> None:
        """Stop following the log. What still waits is written if one try is enough."""
        await self._following.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * EXCHANGE_SECONDS):
                await self.flush()

    def _return(self) -> None:
        """Redis was away, so purges may have been missed: nothing from Redis is current until the log has been read."""
        self._away = True
        self.nudge()

    def nudge(self) -> None:
        """There may be news: read the log soon."""
        self._following.nudge()

    async def purge(self, scopes: Iterable[Scope]) -> Position | None:
        """
        Purge *scopes*: here at once, and everywhere within a second or two after it is in the log. Returns its place in
        the log; None where Redis is away and the purge waits for its return.
        """
        scopes = tuple(scopes)
        self._purges.apply(scopes)
        self._carry_out(scopes)
        await self._turn()
        pending = self._purges.pending
        if ALL in pending or not pending.keys().isdisjoint(scopes):
            return None
        return self._purges.position

    async def set_mode(self, mode: Mode | None, until: float = 0.0) -> bool:
        """
        Set the fleet's mode until *until*, wall clock, at most for ``LONGEST_MODE``: here at once, and everywhere
        within a second or two after it is in Redis. None, or a time that has passed, ends the mode.

        Returns False where Redis is away or takes no writes. Then the mode is written when that is over, whatever
        others have set meanwhile.
        """
        until = min(until, self._now() + LONGEST_MODE)
        self._waiting = _Held(mode, until) if mode is not None else _Held()
        self._hold(self._waiting)
        self._announce_mode()
        await self._exchange()
        return self._waiting is None

    @property
    def forgot(self) -> bool:
        """Whether Redis may have lost the notes: it has other data now, or the notes are old."""
        return self._forgot or self._clock() - self._noted_at > AGAIN_SECONDS

    @forgot.setter
    def forgot(self, forgot: bool) -> None:
        self._forgot, self._noted_at = forgot, self._clock()

    def note(self, key: Key, entry: Entry, tags: tuple[str, ...]) -> bool:
        """
        Note that *entry* served a call with *tags*, so that a purge of one of them takes the entry of *key*, wherever
        it is. Redis gets the note at the next turn. Returns False where too many notes wait for Redis.
        """
        return self._tagged.note(key, entry, tags)

    async def catch_up(self) -> None:
        """
        Read the log where this process has not run for a while, because memory may hold what has been purged meanwhile.
        Where Redis does not answer in time, memory goes on serving.
        """
        if self._clock() <= self._purges.until:
            return
        with suppress(TimeoutError):
            async with Deadline(self.patience), self._catching_up:
                if self._clock() > self._purges.until:  # otherwise another call has read it meanwhile
                    await self._exchange()
        if self._clock() > self._purges.until:
            self._go_by(self._clock())

    def _go_by(self, at: float) -> None:
        """The log was read at *at* or later, or could not be read: what is known here may be used from then on."""
        self._purges.until = max(self._purges.until, at + CURRENT_SECONDS)

    async def _turn(self) -> None:
        """Keep in step with the log and write the notes. An answer that was noted too late is purged."""
        await self._exchange()
        late: list[Scope] = []
        try:
            late = await self._tagged.write()
            if len(self._tagged):
                self.nudge()
        except FleetAway:
            pass  # the notes wait for the next turn
        except Exception as error:  # noqa: BLE001 - as in _exchange
            self._alarm.bug(error)
        if late:
            self._purges.apply(late)
            self._carry_out(tuple(late))
            await self._exchange()

    async def _exchange(self) -> None:
        """Write what is pending, read what is new and apply it, if Redis answers."""
        async with self._exchanging:
            began = self._clock()
            try:
                await self._try_exchange()
            except FleetAway as away:
                self.counts["failures"] += 1
                if self._link.up and self.lag > CURRENT_SECONDS:  # otherwise the link reports it
                    self._alarm.ring(str(away))
            except Exception as error:  # noqa: BLE001 - a bug, or foreign data under our keys, must not end the reading
                self.counts["failures"] += 1
                self._alarm.bug(error)
            self._go_by(began)
        self._announce_mode()

    async def _try_exchange(self) -> None:
        mode_written = await self._tell_mode()
        sent, known, asked = self._purges.pending, self._purges.position, self._clock()
        answer = await self._journal.exchange(known, sent)
        self.counts["unreadable"] += answer.unreadable
        sent = {} if answer.full else sent
        if answer.full or not mode_written:
            self._alarm.ring("Redis takes no writes")
        else:
            self._alarm.over()
        tail = answer.tail
        news = self._purges.learn(tail, self._clock(), sent)
        if news:
            self._carry_out(news)
        self._read_at = asked  # this process may have been stopped since: later purges are not in the answer
        self._away = False
        self.counts["tails"] += 1
        self.counts["purges"] += len(sent)
        self.counts["learned"] += len(news)
        changed = bool(known.incarnation) and tail.incarnation != known.incarnation
        self._forgot = self._forgot or changed
        if changed and not tail.before:
            self.counts["lost"] += 1
            self._tell("purge-log-lost", level="warning", memory="purged" if ALL in news else "kept")
        if self._waiting is not None:
            return  # Redis has an older mode than the one that waits to be written
        if changed and not answer.noted and self.mode is not None:
            await self._put_mode(self._held, unless=True)
        else:
            self._hold(_Held(answer.mode, answer.until))

    def _hold(self, held: _Held) -> None:
        """Hold this mode of the fleet. If the mode is the same as before, its end by the clock that runs on stays."""
        if held != self._held:
            self._held, self._term = held, term(held.until, self._now(), self._clock())

    async def _tell_mode(self) -> bool:
        """
        Write the mode that waits. Returns False while it must go on waiting. A mode that has ended meanwhile is
        dropped.
        """
        waiting = self._waiting
        over = waiting is None or (waiting.mode is not None and self.mode is None)
        if waiting is not None and not over and not await self._put_mode(waiting):
            return False
        if self._waiting is waiting:
            self._waiting = None
        return True

    async def _put_mode(self, held: _Held, *, unless: bool = False) -> bool:
        try:
            await self._journal.put_mode(held.mode, held.until, unless=unless)
        except FleetAway:
            return False
        except Exception as error:  # noqa: BLE001 - as above
            self._alarm.bug(error)
            return False
        return True

    def _carry_out(self, purged: tuple[Scope, ...]) -> None:
        try:
            self._on_purge(purged)
        except Exception as error:  # noqa: BLE001 - the purge is known here, and what it covers is no longer used
            self._alarm.bug(error)

    def _announce_mode(self) -> None:
        held = self._held if self.mode is not None else _Held()
        if held == self._told_mode:
            return
        self._told_mode = held
        try:
            self._on_mode(*held)
        except Exception as error:  # noqa: BLE001 - as above
            self._alarm.bug(error)
