"""
The way to the fleet's Redis: every command of this process goes through here.

The rule: nobody waits for a faulty Redis. All commands of a call share one time budget; three failures in a row stop
all commands; probes in a task of their own allow them again. Every failure is ``FleetAway`` to the caller.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sidecar.core.events import TellEvent
from sidecar.core.rules import RedisRule
from sidecar.errors import FleetAway
from sidecar.redis_link.address import HostLookup
from sidecar.redis_link.breaker import LinkBreaker
from sidecar.redis_link.client import LARGEST, build, build_single
from sidecar.redis_link.deadline import Deadline
from sidecar.redis_link.fault import RedisFault, discreet, is_missing_script, judge, password_in
from sidecar.redis_link.login import Login, LoginSource
from sidecar.tasks import Spawn

T = TypeVar("T")

PROBE_SECONDS = 1.0
"""How long a probe waits. With the longest pause before it, Redis is used again within 5 s of its return."""

CLOSE_SECONDS = 0.5
"""How long TLS may take to close."""

RESERVE_SECONDS = 0.002
"""How long giving up may take, at most a tenth of the call's time, so that a caller waits no longer than said."""

FAIR_SHARE = 0.5
"""Redis must have had this share of a call's time, after the wait for a connection, for its silence to count."""

SPREAD = 0.2
"""
A newer login is used after a random part, at most this share, of what is left of the former one, so that a fleet's pods
do not all log in anew at once. Of the 5 min that are left of a token of Azure's, at least 4 remain.
"""

_GRAVE = frozenset({"refused", "credential"})
"""Reasons that do not pass by trying again at once."""

_UNSEEN = frozenset({"refused", "readonly", "malformed"})
"""Kinds of faults that a probe may not show: it needs no rights, writes nothing, and has a simple answer."""


class TimeBudget:
    """The seconds that one call has *left* for Redis: for all its commands, and for waiting for a connection."""

    __slots__ = ("left", "whole")

    def __init__(self, seconds: float) -> None:
        self.left = self.whole = seconds

    def __repr__(self) -> str:
        return f"<TimeBudget {self.left:.3f} s left>"


class Script:
    """
    A Lua script, called by its digest and sent only to a server that does not know it. *name* labels its times. *read*
    turns a reply into the script's answer, and raises ``FleetAway`` for an impossible reply (``shapes``).
    """

    __slots__ = ("digest", "name", "read", "text")

    def __init__(self, text: str, name: str = "script", read: Callable[[Any], Any] = lambda reply: reply) -> None:
        self.text = text
        self.name = name
        self.read = read
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.digest}>"


class RedisLink:
    """
    The client of *rule*, with its breaker. Made within a running loop or before; ``close`` closes it. *largest*: bytes
    of the largest value that is read.

    *clock* is monotonic seconds, *draw* uniform in [0, 1), *spawn* owns tasks, *lookup* finds addresses. *on_command*
    is called for every command: its name, and the seconds from sending it until its answer, or until it was given up.
    *logins* has the credentials if these end; each of ``on_login`` is called when a newer one is used.
    Counters, all since the start: *commands* by result (``ok`` or a reason of ``FleetAway``), *waits* for a connection
    and those that *ran_out* of time, *errors* of Redis by their kind; openings of the ``breaker``.
    """

    def __init__(
        self,
        rule: RedisRule,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
        spawn: Spawn,
        lookup: HostLookup,
        tell: TellEvent,
        logins: LoginSource | None = None,
        largest: int = LARGEST,
        on_command: Callable[[str, float], None] = lambda _, __: None,
    ) -> None:
        self._rule = rule
        self._clock = clock
        self._draw = draw
        self._spawn = spawn
        self._lookup = lookup
        self._tell = tell
        self._on_command = on_command
        self._slots = asyncio.Semaphore(rule.max_connections)
        self._reviving: asyncio.Task[None] | None = None
        self._reported = self._reported_op = ""
        self._silent_at = float("-inf")
        self._deadlines: set[Deadline] = set()
        self._closed = False
        self._logins = logins
        self._login: Login | None = None
        self._refused: Login | None = None
        self._following: asyncio.Task[None] | None = None
        self.client: Any = build(rule, spawn, lookup, logins=logins, largest=largest)
        self.breaker = LinkBreaker()
        self.on_return: list[Callable[[], None]] = []
        self.on_login: list[Callable[[], None]] = []
        self.commands: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.waits = 0
        self.ran_out = 0

    def __repr__(self) -> str:
        return f"<RedisLink {self._rule.url} {self.breaker!r}>"

    @property
    def up(self) -> bool:
        """Whether Redis is asked."""
        return self.breaker.closed

    def start(self) -> None:
        """From now on, renew logins before they end."""
        if self._logins is not None:
            self._following = self._spawn(self._follow(self._logins), name="redis-logins")

    async def run(self, work: Callable[[Any], Awaitable[T]], budget: TimeBudget, *, op: str = "command") -> T:
        """
        The result of *work* on the client, within *budget*, from which the time is taken; *op* names it for metrics. If
        a reply is impossible, *work* raises ``FleetAway("malformed")``.

        Raises only ``FleetAway``. A command that was given up may have been executed, or may be executed later.
        """
        began, seconds = self._clock(), budget.left
        if not self.breaker.closed or self._closed:
            raise self._away("open")
        if seconds <= 0.0:
            raise self._away("timeout", "nothing is left of the time for Redis")
        try:
            if self._slots.locked():
                await self._wait_for_slot(seconds)
            else:
                await self._slots.acquire()  # at once
            sent = self._clock()
            given = seconds - (sent - began)
            deadline = Deadline(given - min(RESERVE_SECONDS, given / 10))
            try:
                async with deadline:
                    self._deadlines.add(deadline)
                    answer = await work(self.client)
            except Exception as error:  # noqa: BLE001 - a caller goes on without Redis in any case
                had_time = given >= FAIR_SHARE * budget.whole and (deadline.punctual or sent >= self._silent_at)
                raise self._fail(error, op, fair=had_time) from None
            finally:
                self._deadlines.discard(deadline)
                self._slots.release()
                self._on_command(op, self._clock() - sent)
        finally:
            budget.left -= self._clock() - began
        self.breaker.answered()
        self.commands["ok"] += 1
        if self._reported:
            self._tell_return(op)
        return answer

    def evaluate(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Any], budget: TimeBudget
    ) -> Coroutine[Any, Any, Any]:
        """The result of *script* for *keys*, all in one hash slot, and *args*. Raises ``FleetAway``."""

        async def call(client: Any) -> Any:
            try:
                return script.read(await client.ask("EVALSHA", script.digest, len(keys), *keys, *args))
            except Exception as error:
                if not is_missing_script(error):
                    raise
            return script.read(await client.ask("EVAL", script.text, len(keys), *keys, *args))

        return self.run(call, budget, op=script.name)

    def subscriber(self) -> Any:
        """
        Another client, with one connection and no deadlines, for subscriptions; its user closes it with ``aclose``. In
        a Cluster it connects to any of the servers, because all of them get everything that is published.
        """
        return build_single(self._rule, self._spawn, self._lookup, self._draw(), self._logins)

    async def close(self) -> None:
        """Stop probing and close all connections. Running and later commands fail."""
        self._closed = True
        tasks = [task for task in (self._reviving, self._following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.client.aclose()

    async def _wait_for_slot(self, seconds: float) -> None:
        self.waits += 1
        try:
            async with asyncio.timeout(seconds):
                await self._slots.acquire()
        except TimeoutError:
            self.ran_out += 1
            raise self._away("busy") from None
        if not self.breaker.closed:
            self._slots.release()
            raise self._away("open")

    def _away(self, reason: str, detail: str = "") -> FleetAway:
        """Count a command without an answer, and return the error for its caller."""
        self.commands[reason] += 1
        return FleetAway(reason, detail)

    def _fail(self, error: Exception, op: str, *, fair: bool) -> FleetAway:
        """
        Note *error* of *op* in the breaker, and return the error for the caller. *fair*: Redis had its share of the
        time, and this process was not held up itself; otherwise the silence of Redis proves nothing.
        """
        fault = discreet(judge(error), self._passwords)
        if fault.kind == "timeout" and fair:
            self._silent_at = self._clock()
        elif fault.kind == "timeout":
            fault = fault._replace(kind="late")
        self.errors[fault.kind] += 1
        if fault.kind == "late":
            pass  # proves nothing: Redis had hardly any time, or this process itself was held up
        elif not fault.sick:
            self.breaker.answered()
        elif self.breaker.failed(self._clock(), refused=fault.reason in _GRAVE):
            self._tell_away(fault, op)
            for deadline in self._deadlines:
                deadline.expire()  # nobody should wait longer for a Redis that is away
            self._reviving = self._spawn(self._revive(), name="redis-revive")
        return self._away(fault.reason, fault.detail)

    def _passwords(self) -> Iterator[str]:
        """The passwords that may have been sent."""
        yield from password_in(self._rule.password_file)
        if self._logins is not None:
            yield from (login.password for login in (self._login, self._logins.current()) if login is not None)

    def _credentials(self) -> dict[str, str]:
        """
        Whom Redis knows us as, for the log. The name of a file is shown, because its content may be the password by
        mistake.
        """
        rule = self._rule
        if rule.credential is not None and self._logins is not None:
            login = self._logins.current()
            return {"user": "none" if login is None else login.user, "credential": f"{rule.credential.kind}_identity"}
        return {"user": rule.username_file or "default", "password_file": rule.password_file or "none"}

    async def _follow(self, logins: LoginSource) -> None:
        """Use each newer login: open connections log in anew, one after the other, and subscriptions are replaced."""
        while True:
            login = await logins.newer(self._login)
            first = self._login is None
            if self._login is not None:
                await asyncio.sleep(SPREAD * logins.left(self._login) * self._draw())
            self._login = login
            self.client.log_in(login, self._tell_refused)
            for hear in () if first else self.on_login:
                hear()

    def _tell_refused(self, error: Exception) -> None:
        """
        A connection could not log in anew. The former login still holds there; without another, Redis is away when that
        has ended.
        """
        fault = discreet(judge(error), self._passwords)
        self.errors[fault.kind] += 1
        if fault.reason == "refused" and self._logins is not None and self._login is not None:
            if self._refused is not self._login:
                self._refused = self._login
                self._tell("redis-login-refused", level="warning", detail=fault.detail, url=self._rule.url,
                           **self._credentials())  # fmt: skip
            self._logins.refused(self._login)

    async def _revive(self) -> None:
        """Probe until Redis answers."""
        while not self.breaker.closed:
            with suppress(Exception):
                await self.client.renew()
            await asyncio.sleep(self.breaker.pause(self._draw()))
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self.client.probe()
            except Exception as error:  # noqa: BLE001 - any error means that Redis is not back
                fault = discreet(judge(error), self._passwords)
                self.errors[fault.kind] += 1
                self._tell_away(fault)
            else:
                self.breaker.close(self._clock())
        self._reviving = None
        self._tell_return()
        for hear in self.on_return:
            hear()

    def _tell_away(self, fault: RedisFault, op: str = "") -> None:
        """Log that Redis is away, and log again if it later refuses us or our writes."""
        if self._reported and (self._reported in _UNSEEN or fault.kind not in _UNSEEN):
            return
        self._reported, self._reported_op = fault.kind, op
        fields = {"reason": fault.reason, "detail": fault.detail, "url": self._rule.url}
        if fault.reason == "refused":
            fields |= self._credentials()
        self._tell("redis-away", level="warning" if fault.reason != "refused" else "error", **fields)

    def _tell_return(self, op: str = "") -> None:
        """
        Log that Redis is back: *op* was answered, or, without one, a probe. After a refusal only the refused kind of
        command proves that it is over, because probes and simpler commands are answered all the time.
        """
        if self._reported and (self._reported not in _UNSEEN or (op and op == (self._reported_op or op))):
            self._reported = ""
            self._tell("redis-back", level="info", url=self._rule.url)
