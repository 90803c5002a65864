"""
A token that expires, and is replaced before that.

The rule: at most one request for a token runs, in a task of its own. Each waiting caller has a future of its own, and
may leave. A token serves until it expires, whether the requests for the next one succeed or not.

The life of a token is counted by the monotonic clock, from before it was asked for, so a wall clock that jumps changes
nothing. (If the monotonic clock stands still while a machine sleeps, the service refuses the token, and ``renew``
replaces it.) The text of a token is never shown: in no repr, report or error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from sidecar.tasks import Spawn

AHEAD_SECONDS = 300.0
"""How long before its expiry a token is replaced."""

LONG_SECONDS = 7200.0
"""A token that lasts this long or longer is replaced after half of its life."""

RETRY_SECONDS = 30.0
"""
Seconds until the next try: in the background, while the old token serves; after a failure that does not pass without
action; and between two renewals after a 401.
"""

PATIENCE_SECONDS = 75.0
"""
How long a passing fault is retried when nobody waits, and waited for by those who ask. Azure's identity endpoint may
answer 410 for 70 s.
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
    There is no token; why, in words for the log. *passing*: it may pass without action. *wait*: seconds for which the
    endpoint does not want to be asked.
    """

    reason: str
    passing: bool = False
    wait: float = 0.0


class AccessToken(Struct, frozen=True, gc=False):
    """The current token. *due* and *until*, monotonic seconds: when to ask for the next one, and when it expires."""

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
    The tokens of one identity, one after another. *ask* makes one request; *clock* is monotonic seconds, *draw* uniform
    in [0, 1), *spawn* owns tasks, *report* is called once for each outage with the reason.

    *fault* is that reason, ``""`` while there is none; *requests* counts the requests made. Each of *on_grant* is
    called when another token has come.
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
        self.on_grant: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        under_way = f", one asked for, {len(self._waiters)} wait" if self._task is not None else ""
        return f"<Tokens {self._token or 'none'}{under_way}{', ' * bool(self.fault)}{self.fault}>"

    def current(self) -> bytes | None:
        """The text of ``valid``."""
        token = self.valid()
        return None if token is None else token.text

    def valid(self) -> AccessToken | None:
        """The current token, if it is valid. If it is missing or due, another is asked for in the background."""
        now = self._clock()
        token = self._token
        if token is None or now >= token.due:
            self._want(now)
        return token if token is not None and now < token.until else None

    def rest(self) -> float:
        """Seconds until the next change that no request brings: until the token is due, or until it has expired."""
        now = self._clock()
        if self._token is None or now >= self._token.until:
            return RETRY_SECONDS
        return (self._token.due if now < self._token.due else self._token.until) - now

    async def obtain(self, seconds: float) -> bytes | None:
        """The current token, or the next one, waited for at most *seconds*; None: there is none now."""
        text = self.current()
        return text if text is not None else await self._wait(seconds)

    async def renew(self, used: bytes, seconds: float) -> bytes | None:
        """
        Another token than *used*, which was refused; None if there is none. A token that is still valid is replaced at
        most every 30 s, and stays in use if it cannot be replaced: the service may have refused it for another reason.
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

    def doubt(self, used: bytes) -> None:
        """*used* was refused: ask for another in the background, as ``renew`` does and as seldom, but don't wait."""
        now = self._clock()
        if self._valid(now) != used or self._task is not None or self._closed or self._is_vain(now):
            return
        if now >= self._renewed + RETRY_SECONDS:
            self._renewed = now
            self._start()

    def remaining(self) -> float | None:
        """Seconds until the current token expires; None: there is no valid one."""
        now = self._clock()
        return self._token.until - now if self._token is not None and now < self._token.until else None

    async def close(self) -> None:
        """Stop asking. Waiting callers get what is there."""
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
        """Whether waiting makes no sense: the last failure does not pass without action, or has lasted for long."""
        if not self._failures or now >= self._failed + RETRY_SECONDS:
            return False
        return not self._passing or self._failed - self._failing >= PATIENCE_SECONDS

    def _start(self) -> None:
        self._task = self._spawn(self._fetch(), name="identity")
        self._task.add_done_callback(self._landed)

    async def _fetch(self) -> None:
        """Ask until there is a token, or until nobody needs one enough."""
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
        """End in the same step as the decision to end, so that the next caller finds no task and starts another."""
        self._task = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _landed(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled (perhaps before its first step) or hit a bug has not ended through ``_end``."""
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
        for hear in self.on_grant:
            hear()

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
