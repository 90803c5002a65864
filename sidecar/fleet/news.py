"""
The fleet's news: short messages between its processes, over one channel of Redis.

The rule: news only makes things faster. A message may be lost, doubled or forged, and everything it says can also be
found out without it, only later. So a process that hears one looks for itself, and believes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from sidecar.redis_link.link import RedisLink, TimeBudget
from sidecar.tasks import Spawn

QUIET_SECONDS = 5.0
"""After so long without a message the server is asked for one. After as long again the connection is given up."""

PAUSE_SECONDS = 2.0
"""The longest time between two tries to subscribe; the shortest is half of it."""

TELL_SECONDS = 0.5
"""The time for sending one piece of news."""

LONGEST = 1024
"""The most bytes of one piece of news. Longer ones are not ours, and are ignored."""

Hear = Callable[[bytes], None]


class _Subscription(NamedTuple):
    client: Any
    pubsub: Any

    async def close(self) -> None:
        with suppress(Exception):
            await self.pubsub.aclose()
        with suppress(Exception):
            await self.client.aclose()


class News:
    """
    One subscription of this process to *channel*, made anew whenever it breaks. If Redis' logins end, another takes
    over before that: on a connection that subscribes, RESP2 forbids AUTH. *draw* is uniform in [0, 1); *report* gets
    bugs.

    *up*: news comes at present. Counters: *heard* and *subscriptions*.
    """

    def __init__(
        self,
        link: RedisLink,
        channel: bytes,
        *,
        spawn: Spawn,
        draw: Callable[[], float],
        report: Callable[[BaseException], None],
    ) -> None:
        self._link = link
        self._channel = channel
        self._spawn = spawn
        self._draw = draw
        self._report = report
        self._hearers: dict[bytes, list[Hear]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._returned = asyncio.Event()
        self._outdated = False
        self._waiting: asyncio.Timeout | None = None
        self.up = False
        self.heard = 0
        self.subscriptions = 0
        link.on_return.append(self._returned.set)
        link.on_login.append(self._on_login)

    def __repr__(self) -> str:
        return f"<News {'up' if self.up else 'down'}, {self.heard} heard>"

    def subscribe(self, kind: bytes, hear: Hear) -> None:
        """Call *hear* with what follows ``kind:`` in each piece of news; *kind* has no colon."""
        self._hearers.setdefault(kind, []).append(hear)

    async def tell(self, kind: bytes) -> None:
        """Send a piece of news without content. Raises ``FleetAway``."""
        await self._link.run(
            lambda client: client.publish(self._channel, kind + b":"), TimeBudget(TELL_SECONDS), op="publish"
        )

    def start(self) -> None:
        """Begin to listen."""
        self._listening = self._spawn(self._listen_on(), name="news")

    async def close(self) -> None:
        """Stop listening, and close the connection."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen_on(self) -> None:
        while True:
            self._returned.clear()
            if self._link.up:
                with suppress(Exception):  # the link reports a sick Redis; here it only means to try again
                    await self._listen()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS * (0.5 + self._draw() / 2)):
                    await self._returned.wait()

    async def _listen(self) -> None:
        """Listen until the connection breaks, or Redis falls silent."""
        self._outdated = False
        subscription = await self._subscribe()
        try:
            asked = False
            while True:
                message = await self._next(subscription.pubsub)
                if message is not None:
                    asked = False
                    self._take(message)
                    await asyncio.sleep(0)  # a flood of news must not keep other tasks from running
                elif self._outdated:
                    subscription = await self._replaced(subscription)
                elif asked:
                    return
                else:
                    asked = True
                    await subscription.pubsub.ping()
        finally:
            self.up = False
            await subscription.close()

    async def _subscribe(self) -> _Subscription:
        """Subscribe over a connection of its own, which has the current login."""
        client = self._link.subscriber()
        subscription = _Subscription(client, client.pubsub())
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                await subscription.pubsub.subscribe(self._channel)
                while (message := await subscription.pubsub.get_message(timeout=None)) is None:
                    pass
            self._take(message)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def _replaced(self, former: _Subscription) -> _Subscription:
        """Another subscription, after which *former* is closed; *former* if there is none now, until its login ends."""
        self._outdated = False
        try:
            newer = await self._subscribe()
        except Exception:  # noqa: BLE001  the link reports a sick Redis
            return former
        with suppress(Exception):
            while (message := await former.pubsub.get_message(timeout=0.0)) is not None:
                self._take(message)
        await former.close()
        return newer

    async def _next(self, pubsub: Any) -> dict[str, Any] | None:
        """The next message; None if none comes for some seconds, or if the subscription is to be replaced."""
        if self._outdated:
            return None
        try:
            async with asyncio.timeout(QUIET_SECONDS) as self._waiting:
                message: dict[str, Any] | None = await pubsub.get_message(timeout=None)
        except TimeoutError:
            return None
        finally:
            self._waiting = None
        return message

    def _on_login(self) -> None:
        """There is a newer login: replace the subscription, without waiting for a message."""
        self._outdated = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0.0)

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.up = True
            self.subscriptions += 1
        elif message["type"] == "message" and len(message["data"]) <= LONGEST:
            self.heard += 1
            kind, _, news = message["data"].partition(b":")
            for hear in self._hearers.get(kind, ()):
                try:
                    hear(news)
                except Exception as error:  # noqa: BLE001 - a bug of one listener must not end the listening
                    self._report(error)
