"""
Logins that end: a user, and a password that holds for a while, such as a token of Azure's.

The rule: a connection is logged in anew before its login ends, and stays open. One connection at a time logs in, so
that callers have the others. A password is never shown: in no repr, report or error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import Struct
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError  # noqa: A004  the client's own

from sidecar.redis_link.login import Login, LoginSource
from sidecar.tasks import Spawn

LOGIN_SECONDS = 2.0
"""How long a server may take to accept a login over an open connection."""


class NoLoginError(ConnectionError):
    """There is no login to send; the text says why."""


class SentLogin(CredentialProvider):
    """The login that one connection has sent last, *login*; each new connection sends the current one of *source*."""

    def __init__(self, source: LoginSource) -> None:
        self._source = source
        self.login: Login | None = None

    def get_credentials(self) -> tuple[str, str]:
        """The arguments of ``AUTH``. Raises ``NoLoginError`` if there is no login."""
        self.login = login = self.current()
        return login.user, login.password

    async def get_credentials_async(self) -> tuple[str, str]:
        """As ``get_credentials``, which does not wait."""
        return self.get_credentials()

    def current(self) -> Login:
        """The current login. Raises ``NoLoginError`` if there is none."""
        login = self._source.current()
        if login is None:
            raise NoLoginError(self._source.fault or "no token has come yet")
        return login

    def refused(self) -> None:
        """A server has refused the login."""
        if self.login is not None:
            self._source.refused(self.login)


class LoggedIn(Protocol):
    """A connection that can log in again; ``RedisConnection``."""

    @property
    def fresh(self) -> bool:
        """Whether a command may be sent."""

    @property
    def login(self) -> Login | None:
        """The login that was sent last."""

    async def log_in(self, login: Login) -> None:
        """Log in anew. Raises the refusal, after which the former login still holds, or what broke the connection."""


class IdleConnection(Struct, frozen=True):
    """A connection that was taken out of the idle ones, and how it is given back."""

    connection: LoggedIn
    give_back: Callable[[], Awaitable[None]]


class LoginRenewal:
    """
    Logs the connections of a client in anew. *take_idle* takes out an idle connection for which ``is_due`` holds; None
    if there is none.
    """

    def __init__(self, spawn: Spawn, take_idle: Callable[[], IdleConnection | None]) -> None:
        self._spawn = spawn
        self._take_idle = take_idle
        self._login: Login | None = None
        self._tell: Callable[[Exception], None] = lambda _: None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LoginRenewal {self._login}{', one under way' * (self._task is not None)}>"

    def begin(self, login: Login, tell: Callable[[Exception], None]) -> None:
        """
        Use *login* from now on: idle connections log in at once, the others when they come back. *tell* gets the
        failures.
        """
        self._login, self._tell = login, tell
        self._go_on()

    def is_due(self, connection: LoggedIn) -> bool:
        """Whether *connection* can log in anew, and has a login that ends earlier."""
        sent = connection.login
        return self._login is not None and connection.fresh and (sent is None or sent.until < self._login.until)

    def wants(self, connection: LoggedIn) -> bool:
        """Whether *connection*, which comes back from a call, is to log in now."""
        return self._login is not None and self._task is None and self.is_due(connection)

    def take(self, idle: IdleConnection) -> None:
        """Log in on a connection that nobody uses, then give it back."""
        assert self._login is not None
        self._task = self._spawn(self._log_in(idle, self._login), name="redis-login")

    async def close(self) -> None:
        """Log in no more."""
        self._login = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _log_in(self, idle: IdleConnection, login: Login) -> None:
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await idle.connection.log_in(login)
        except Exception as error:  # noqa: BLE001  the link judges it, whatever it is
            self._tell(error)
        finally:
            await idle.give_back()  # before the next one: until then it does not want this one again
            self._task = None
        self._go_on()

    def _go_on(self) -> None:
        if self._login is not None and self._task is None and (idle := self._take_idle()) is not None:
            self.take(idle)
