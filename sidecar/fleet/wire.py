"""
One connection to a server of Redis: what it says first, and when it may be used.

The rule: what proves who we are and who they are is read from files for each new connection, so that a rotation needs
no restart.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

from redis.asyncio.connection import Connection
from redis.connection import HiredisRespSerializer
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError

from sidecar.core.rules import RedisRule
from sidecar.fleet.client import Trust

CONNECT_SECONDS = 2.0
"""How long connecting may take, TLS, credentials and the question to the Sentinels included."""

_PACKER = HiredisRespSerializer()


_asking: dict[str, Future[list[str]]] = {}


async def addresses(host: str) -> list[str]:
    """
    The addresses of *host*. Raises ``OSError``.

    Each host is asked for in a thread of its own, one at a time: a name server that doesn't answer would otherwise take
    the few threads in which everything else is looked up, the services' names and our own listeners among them.
    """
    asked = _asking.get(host)
    if asked is None:
        asked = _asking[host] = Future()
        Thread(target=_ask, args=(host, asked), name="redis-dns", daemon=True).start()
    answer = asyncio.wrap_future(asked)
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # also where nobody waits any more
    return await asyncio.shield(answer)


def _ask(host: str, asked: Future[list[str]]) -> None:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        asked.set_result(list(dict.fromkeys(str(address[0]) for *_, address in found)))
    except Exception as error:  # noqa: BLE001 - whoever waits hears of it
        asked.set_exception(error)
    finally:
        _asking.pop(host, None)


class Wire(Connection):
    """A connection. *trust*: how TLS is spoken, or None."""

    def __init__(self, *, trust: Trust | None = None, **kwargs: Any) -> None:
        self._trust = trust
        self._address = ""
        super().__init__(**{"socket_connect_timeout": CONNECT_SECONDS, **kwargs})

    @property
    def fresh(self) -> bool:
        """Whether a command may be sent: connected, nothing unread, and not closed by the server."""
        reader = self._reader
        if reader is None or reader.at_eof() or reader.exception() is not None:
            return False
        return bool(self._socket_is_empty())  # type: ignore[no-untyped-call]

    def pack_command(self, *args: Any) -> list[bytes]:
        """A command's bytes; written in C, which the library does for its blocking client alone."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def _connect(self) -> None:
        """Try the addresses of the host, one after the other. Raises ``OSError``."""
        failure: Exception = OSError(f"no address for {self.host}")
        for address in await addresses(self.host):
            self._address = address
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address}
        if self._trust is not None:
            arguments |= {"ssl": self._trust.context(), "server_hostname": self.host}
        return arguments


class Credentials(CredentialProvider):
    """The user and password of *rule*, read from their files for every new connection."""

    def __init__(self, rule: RedisRule) -> None:
        self._rule = rule

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """The arguments of ``AUTH``. Raises ``AuthenticationError``, which closes the connection, without them."""
        password = _text(self._rule.password_file)
        if not self._rule.username_file:
            return (password,)
        return _text(self._rule.username_file), password

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """As ``get_credentials``: a few bytes on a local file system."""
        return self.get_credentials()


def _text(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise AuthenticationError(f"{path}: {reason}") from None
