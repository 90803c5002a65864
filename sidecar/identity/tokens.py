"""
A token that expires, and is replaced before anybody notices.

The rule: at most one request for a token is under way, in a task of its own; whoever waits has a future of its own, and
may leave. A token serves until it expires, whatever becomes of the requests for the next.

How long a token holds is counted by the monotonic clock, from before it was asked for: a wall clock that jumps changes
nothing. (Where the monotonic clock stands still, in a machine that sleeps, a service refuses the token, and ``renew``
is what follows.) The text is never told: not by a repr, a report or an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from sidecar.tasks import Spawn

AHEAD_SECONDS = 300.0
"""A token is replaced so long before it expires."""

LONG_SECONDS = 7200.0
"""One that lasts this long or longer is replaced after half of its life."""

RETRY_SECONDS = 30.0
"""
Seconds until the next try: in the background, while the old token serves; after a failure that won't pass by itself;
and between two renewals that an upstream's 401 asks for.
"""

PATIENCE_SECONDS = 75.0
"""
So long a fault that passes by itself is tried over for nobody, and waited for by those who ask. Azure's identity
endpoint may answer 410 for 70 s.
"""

FIRST_BACKOFF = 0.8
LAST_BACKOFF = 10.0
LONGEST_BACKOFF = 60.0
"""Seconds between tries while somebody waits: doubling, jittered; an endpoint may ask for more, up to the longest."""


class GrantedToken(Struct, frozen=True, gc=False):
    """A token as an endpoint gave it. *seconds*: how long it holds, > 0."""

    text: bytes
    seconds: float

    def __repr__(self) -> str:
        return f"<GrantedToken for {self.seconds:g} s>"


class Denial(Struct, frozen=True, gc=False):
    """
    No token, and why, in words for the log. *passing*: it may pass by itself. *wait*: seconds for which the endpoint
    does not want to be asked.
    """

    reason: str
    passing: bool = False
    wait: float = 0.0


class AccessToken(Struct, frozen=True, gc=False):
    """A token in hand; *due* and *until*, monotonic seconds: when to ask for the next, and when it expires."""

    text: bytes
    due: float
    until: float

    def __repr__(self) -> str:
        return f"<AccessToken due {self.due:.1f} until {self.until:.1f}>"


def hold(grant: GrantedToken, began: float) -> AccessToken:
    """The token of *grant*, asked for at *began*. A short-lived one is replaced after half its life."""
    seconds = grant.seconds
    ahead = seconds / 2 if seconds >= LONG_SECONDS else min(AHEAD_SECONDS, seconds / 2)
    return AccessToken(grant.text, began + seconds - ahead, began + seconds)


class Tokens:
    """
    The tokens of one identity, one after another. *ask* makes one request for one; *clock* is monotonic seconds, *draw*
    uniform in [0, 1), *spawn* owns tasks, *report* hears once per outage why there is no new token.

    *fault* is that reason, ``""`` while there is none; *requests* counts the requests made.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[GrantedToken | Denial]],
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        spawn: Spawn,
        report: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._draw = draw
        self._spawn = spawn
        self._report = report
        self._sleep = sleep
        self._token: AccessToken | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._wanted = self._renewed = float("-inf")
        self._failures = 0
        self._failed = self._failing = self._soonest = float("-inf")
        self._passing = True
        self.fault = ""
        self.requests = 0

    def __repr__(self) -> str:
        under_way = f", one asked for, {len(self._waiters)} wait" if self._task is not None else ""
        return f"<Tokens {self._token or 'none'}{under_way}{', ' * bool(self.fault)}{self.fault}>"

    def current(self) -> bytes | None:
        """The token in hand, if it is valid. Where it is none or due, another is asked for in the background."""
        now = self._clock()
        token = self._token
        if token is None or now >= token.due:
            self._want(now)
        return token.text if token is not None and now < token.until else None

    async def obtain(self, seconds: float) -> bytes | None:
        """The token in hand, or the next, waited for at most *seconds*; None: there is none now."""
        text = self.current()
        return text if text is not None else await self._wait(seconds)

    async def renew(self, used: bytes, seconds: float) -> bytes | None:
        """
        Another token than *used*, which was refused; None where there is none. A token that is still valid is replaced
        at most every 30 s, and serves on where it can't be: perhaps it was refused for something else.
        """
        now = self._clock()
        text = self._valid(now)
        if text is not None and text != used:
            return text
        if text is not None and not self._is_vain(now):
            if self._task is None and now < self._renewed + RETRY_SECONDS:
                return None
            self._renewed = now
        text = await self._wait(seconds)
        return None if text == used else text

    def remaining(self) -> float | None:
        """Seconds until the token in hand expires; None: there is no valid one."""
        now = self._clock()
        return self._token.until - now if self._token is not None and now < self._token.until else None

    async def close(self) -> None:
        """Ask no more. Who waits gets what is there."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _valid(self, now: float) -> bytes | None:
        return self._token.text if self._token is not None and now < self._token.until else None

    def _want(self, now: float) -> None:
        self._wanted = now
        if self._task is not None or self._closed:
            return
        unhurried = not self._passing or self._valid(now) is not None
        if not self._failures or not unhurried or now >= self._failed + RETRY_SECONDS:
            self._start()

    async def _wait(self, seconds: float) -> bytes | None:
        now = self._clock()
        if self._closed or self._is_vain(now):
            return None
        self._wanted = now
        if self._task is None:
            self._start()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)
        return self._valid(self._clock())

    def _is_vain(self, now: float) -> bool:
        """Whether waiting is no use: what failed lately won't pass, or has not passed for long."""
        if not self._failures or now >= self._failed + RETRY_SECONDS:
            return False
        return not self._passing or self._failed - self._failing >= PATIENCE_SECONDS

    def _start(self) -> None:
        self._task = self._spawn(self._fetch(), name="identity")
        self._task.add_done_callback(self._landed)

    async def _fetch(self) -> None:
        """Ask until there is a token, or nobody wants one that badly."""
        while True:
            delay = self._soonest - self._clock()
            if delay > 0.0:
                await self._sleep(delay)
            began = self._clock()
            self.requests += 1
            match await self._ask():
                case GrantedToken() as grant:
                    self._take(grant, began)
                    return self._end()
                case Denial() as denial:
                    now = self._clock()
                    self._fail(denial, now)
                    wanted = self._valid(now) is None and now - self._wanted < PATIENCE_SECONDS
                    if not denial.passing or not (self._waiters or wanted):
                        return self._end()

    def _end(self) -> None:
        """In one step with the decision to end: who comes after it finds no task, and starts another."""
        self._task = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _landed(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled, perhaps before its first step, or hit a bug, has not ended by itself."""
        if task is not self._task:
            return
        if not task.cancelled() and task.exception() is not None:
            self._fail(Denial("an error of our own; see the log"), self._clock())
        self._end()

    def _take(self, grant: GrantedToken, began: float) -> None:
        self._token = hold(grant, began)
        self._failures = 0
        self._failed = self._failing = self._soonest = float("-inf")
        self._passing = True
        self.fault = ""

    def _fail(self, denial: Denial, now: float) -> None:
        if not self._failures:
            self._failing = now
        if not self.fault or (not denial.passing and denial.reason != self.fault):
            self._report(denial.reason)
        self.fault = denial.reason
        backoff = min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(self._failures, 10)) * (0.5 + self._draw() / 2)
        self._failures += 1
        self._failed, self._passing = now, denial.passing
        self._soonest = now + min(LONGEST_BACKOFF, max(backoff, denial.wait))
