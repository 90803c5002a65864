"""
One connection to a server of Redis: what it says first, and when it may be used.

The rule: what proves who we are and who they are is read from files for each new connection, so that a rotation needs
no restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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


class Wire(Connection):
    """A connection. *trust*: how TLS is spoken, or None."""

    def __init__(self, *, trust: Trust | None = None, **kwargs: Any) -> None:
        self._trust = trust
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

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self._trust is not None:
            arguments["ssl"] = self._trust.context()
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
