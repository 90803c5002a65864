"""
What the fleet says of regions: operators' orders and, where breakers are shared, what other processes found out.

The rule: what other processes say only helps. Each process judges for itself, and uses its own judgement alone while
Redis is away or holds nonsense. Only ``order`` raises; only an operator and a probe wait for Redis.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sidecar.core.events import TellEvent
from sidecar.core.region.breaker import State
from sidecar.core.region.regions import Order, Place
from sidecar.errors import FleetAway
from sidecar.fleet.poll import POLL_SECONDS, Alarm, Following
from sidecar.fleet.region_board import (
    LONGEST_OPENING,
    LONGEST_ORDER,
    MOST_NOTES,
    BoardNote,
    Change,
    Ordered,
    RegionBoard,
)
from sidecar.redis_link.link import RedisLink
from sidecar.redis_link.names import Notes, RedisNames
from sidecar.tasks import Spawn

REFUSED_SECONDS = 60.0
"""The time between two tries while Redis refuses: each try may be a line in Redis' own log."""

SILENT_SECONDS = 3.0
"""If nothing was read for so long although the link is up, the log gets a line about it."""

CLOSED_SECONDS = 60.0
"""How long a closing is told. A process that was away for longer finds it out by its own probe."""

AUTO_SECONDS = 60.0
"""
How long it is told that an order was taken back. A process that still knows the order might otherwise give it again
when Redis loses data.
"""

_WORDS = {State.OPEN: "open", State.CLOSED: "close"}
"""How an order is written in Redis: in the words of the first version, so that pods of every version understand it."""

_STATES = {word: state for state, word in _WORDS.items()}
_HEARSAY = {"fleet", "operator"}
_FULL = "Redis takes no writes"


class _News(NamedTuple):
    """What this process found out about a place, told until *due*, monotonic seconds; ``""``: its probe is over."""

    word: str
    due: float


class FleetRegions:
    """
    What the fleet says of regions. *shared* are the services whose breakers the fleet shares, except places that have a
    resource; if there are none, only orders are read. *timeout* is how long a probe waits for Redis, seconds. *now* is
    the wall clock, *clock* seconds that run on, *draw* gives [0, 1), *random* as many random bytes as it is asked for.

    *on_orders* is called with all orders of the fleet, by service and region, when they change; *on_learn* with a place
    that another process opened, and for how many seconds yet, or closed (None). ``counts``: ``reads`` and ``failures``,
    what was ``told`` and ``learned`` of breakers, ``claims`` of probes and those ``denied``, orders ``lost`` with
    Redis' data.
    """

    def __init__(
        self,
        link: RedisLink,
        names: RedisNames,
        notes: Notes,
        *,
        shared: Iterable[str] = (),
        timeout: float,
        now: Callable[[], float],
        clock: Callable[[], float],
        draw: Callable[[], float],
        random: Callable[[int], bytes],
        spawn: Spawn,
        on_orders: Callable[[Mapping[tuple[str, str], Order]], None],
        on_learn: Callable[[Place, float | None], None],
        tell: TellEvent,
    ) -> None:
        self._link = link
        self._shared = frozenset(shared)
        self._now = now
        self._clock = clock
        self._on_orders = on_orders
        self._on_learn = on_learn
        self._tell = tell
        self._exchanging = asyncio.Lock()
        self._read_at = clock()
        self._refused = ""
        self._full = False
        self._mark = b""
        self._orders: dict[tuple[str, str], Order] = {}
        self._told_orders: dict[tuple[str, str], Order] = {}
        self._known: dict[Place, BoardNote] = {}
        self._pending: dict[Place, _News] = {}
        self.region_board = RegionBoard(
            link, names, notes, findings=bool(self._shared), timeout=timeout, clock=clock, random=random
        )
        self.counts: Counter[str] = Counter()
        self._alarm = Alarm(tell, "regions-fault")
        self._following = Following(
            self._exchange,
            poll=lambda: REFUSED_SECONDS if self._refused else POLL_SECONDS,
            draw=draw,
            spawn=spawn,
            name="regions",
        )
        link.on_return.append(self.nudge)

    def __repr__(self) -> str:
        return f"<FleetRegions {len(self.orders)} orders, {len(self._known)} places, read {self.lag:.1f} s ago>"

    @property
    def lag(self) -> float:
        """Seconds since the fleet's word was last read, or since this object was made."""
        return self._clock() - self._read_at

    @property
    def orders(self) -> Mapping[tuple[str, str], Order]:
        """The fleet's orders now, by service and region."""
        now = self._now()
        return {place: order for place, order in self._orders.items() if order.until > now}

    async def start(self) -> None:
        """Read the board, if Redis answers in time, and go on reading it until ``stop``."""
        await self._following.start()

    async def stop(self) -> None:
        """Stop following. What was not told yet the others find out for themselves."""
        await self._following.stop()

    @property
    def unwritten(self) -> int:
        """How many findings wait to be told."""
        return len(self._pending)

    async def flush(self) -> None:
        """Tell what waits to be told."""
        if self._pending:
            await self._exchange()

    def nudge(self) -> None:
        """There may be news: read soon."""
        self._following.nudge()

    async def order(self, service: str, region: str, order: Order | None) -> str:
        """
        Let *order* hold in the whole fleet, at most for ``LONGEST_ORDER``. None, or an end that has passed, ends the
        order. Returns ``""``; where Redis refuses, returns why, with the remedy, and nothing has changed. Raises
        ``FleetAway``; then nothing has changed as far as is known.
        """
        left = 0.0 if order is None else min(order.until - self._now(), LONGEST_ORDER)
        word, left = (_WORDS[order.state], left) if order is not None and left > 0.0 else ("auto", AUTO_SECONDS)
        if await self._exchange(Change(Ordered(service, region), word, left)):
            return ""
        if self._refused or self._full:
            return self._refused or _FULL
        raise FleetAway("error", "the order was not told")

    def opened(self, place: Place, seconds: float, cause: str) -> None:
        """
        The breaker of *place* opened here for *seconds*. *cause*: that of the transition; what came from others is not
        told on.
        """
        if cause not in _HEARSAY:
            self._note(place, "opened", min(seconds, LONGEST_OPENING))

    def closed(self, place: Place, cause: str) -> None:
        """The breaker of *place* closed here; *cause* as above."""
        if cause not in _HEARSAY:
            self._note(place, "closed", CLOSED_SECONDS)

    async def claim(self, place: Place, seconds: float) -> bool:
        """
        Whether this process may probe *place*. Then no other process does, for *seconds* or until this one has opened,
        closed or released it. Where breakers are not shared, or Redis cannot be asked, each process may.
        """
        if not self._shares(place):
            return True
        try:
            mine = await self.region_board.claim(place, seconds)
        except FleetAway:
            return True
        except Exception as error:  # noqa: BLE001 - a bug must not keep a region shut
            self._alarm.bug(error)
            return True
        self.counts["claims"] += 1
        self.counts["denied"] += not mine
        return mine

    def release(self, place: Place) -> None:
        """A probe of *place* ended without a verdict: another process may probe it."""
        if place not in self._pending:
            self._note(place, "", CLOSED_SECONDS)

    def _shares(self, place: Place) -> bool:
        """Places with a resource are not shared: callers could make up names and so push out other findings."""
        return place.service in self._shared and not place.resource

    def _note(self, place: Place, word: str, seconds: float) -> None:
        """Have *word* told at the next exchange, which is soon."""
        if not self._shares(place) or seconds <= 0.0:
            return
        self._pending.pop(place, None)
        self._pending[place] = _News(word, self._clock() + seconds)
        if len(self._pending) > MOST_NOTES:
            del self._pending[next(iter(self._pending))]
        self.nudge()

    async def _exchange(self, *changes: Change) -> bool:
        """Write *changes* and what is pending, and take in what the fleet says. Whether that was done."""
        done = False
        async with self._exchanging:
            try:
                done = await self._try_exchange(changes)
            except FleetAway as away:
                self._refused, self._full = "", False
                self.counts["failures"] += 1
                if self._link.up and self.lag > SILENT_SECONDS:  # otherwise the link reports it
                    self._alarm.ring(str(away))
            except Exception as error:  # noqa: BLE001 - a bug, or foreign data under our keys, must not end the reading
                self._refused, self._full = "", False
                self.counts["failures"] += 1
                self._alarm.bug(error)
        self._announce()
        return done

    async def _try_exchange(self, changes: tuple[Change, ...]) -> bool:
        at = self._clock()
        news = self._pending = {place: news for place, news in self._pending.items() if news.due > at}
        findings = (Change(place, word, due - at) for place, (word, due) in news.items())
        answer = await self.region_board.exchange((*changes, *findings))
        lost: list[Change] = []
        if not isinstance(answer, str) and self._mark and answer.mark != self._mark:
            there = {*answer.orders, *(change.subject for change in changes)}
            lost = [change for change in self._given_again() if change.subject not in there]
            answer = await self.region_board.exchange(lost) if lost else answer
        self._refused = answer if isinstance(answer, str) else ""
        if isinstance(answer, str):
            self._alarm.ring(answer)
            return False
        self._read_at = self._clock()
        self.counts["reads"] += 1
        self._full = answer.full
        if answer.full:  # the notes are read all the same; what was to be told waits
            self._alarm.ring(_FULL)
            if not lost:
                self._take_orders(answer.orders)
            self._take_findings(answer.findings, {})
            return False
        if lost:
            self.counts["lost"] += len(lost)
            self._tell("region-orders-lost", level="warning", orders=len(lost), remedy="given again")
        self._mark = answer.mark
        self._alarm.over()
        self.counts["told"] += sum(bool(each.word) for each in news.values())
        self._pending = {place: each for place, each in self._pending.items() if news.get(place) is not each}
        self._take_orders(answer.orders)
        self._take_findings(answer.findings, news)
        return True

    def _given_again(self) -> Iterable[Change]:
        """The orders that are known here and missing on the board, to be given again."""
        for place, order in self.orders.items():
            yield Change(Ordered(*place), _WORDS[order.state], order.until - self._now(), unless=True)

    def _take_orders(self, found: Mapping[Ordered, BoardNote]) -> None:
        now, before, self._orders = self._now(), self._orders, {}
        for place, said in found.items():
            if said.word == "auto":
                continue
            order, known = Order(_STATES[said.word], now + said.seconds), before.get(place)
            # The same end, read by two clocks, differs by a little.
            same = (
                known is not None and known.state is order.state and math.isclose(known.until, order.until, abs_tol=2.0)
            )
            self._orders[place] = known if known is not None and same else order

    def _take_findings(self, found: Mapping[Place, BoardNote], published: Mapping[Place, _News]) -> None:
        """Pass on what is new, except what this process said itself or has found out since."""
        before = self._known
        self._known = {place: said for place, said in found.items() if self._shares(place)}
        for place, said in self._known.items():
            known, ours, later = before.get(place), published.get(place), self._pending.get(place)
            if known is not None and (known.word, known.ends) == (said.word, said.ends):
                continue
            if (ours is not None and ours.word == said.word) or (later is not None and later.word):
                continue
            self.counts["learned"] += 1
            try:
                self._on_learn(place, said.seconds if said.word == "opened" else None)
            except Exception as error:  # noqa: BLE001 - a bug of a listener must not end the reading
                self._alarm.bug(error)

    def _announce(self) -> None:
        orders = dict(self.orders)
        if orders == self._told_orders:
            return
        self._told_orders = orders
        try:
            self._on_orders(orders)
        except Exception as error:  # noqa: BLE001 - as above
            self._alarm.bug(error)
