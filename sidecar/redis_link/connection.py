"""
One connection to a Redis server: its first commands, and when it may be used.

The rule: credentials and certificates are read from files for each new connection, so a rotation needs no restart. A
login that ends is renewed over the open connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import hiredis
from redis._parsers import _AsyncHiredisParser
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio.connection import Connection
from redis.connection import HiredisRespSerializer
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,  # noqa: A004  the client's own
    RedisError,
    ResponseError,
)

from sidecar.core.rules import RedisRule
from sidecar.redis_link.address import HostLookup
from sidecar.redis_link.login import Login, LoginSource
from sidecar.redis_link.login_renewal import NoLoginError, SentLogin
from sidecar.redis_link.replies import ROOM, Garbled, making_sense
from sidecar.redis_link.stream import RedisStream

CONNECT_SECONDS = 2.0
"""How long connecting may take, with TLS, credentials and the question to the Sentinels."""

_PACKER = HiredisRespSerializer()


class ReplyParser(_AsyncHiredisParser):
    """The library's parser of replies. Its connection reads from the same bytes, in ``ask``."""

    def on_connect(self, connection: RedisConnection) -> None:
        """Begin to read the replies of *connection*."""
        super().on_connect(connection)  # type: ignore[no-untyped-call]
        connection.replies = cast("hiredis.Reader", self._reader)

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """
        The exception for a server's error. An error that has the name of a redirection, but is none, is not a valid
        reply.
        """
        try:
            error: Exception = super().parse_error(response)  # type: ignore[no-untyped-call]
        except (IndexError, ValueError):
            return Garbled("an error in a reply is malformed")
        return error


class Trust:
    """
    The TLS context: whom it trusts and its own certificate, from the files of *rule*; with ``ca_file``, only that
    authority.
    """

    def __init__(self, rule: RedisRule) -> None:
        self._rule = rule
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[tuple[int, int], ...] = ()

    def context(self) -> ssl.SSLContext:
        """For a new connection; one serves all until a file changes. Raises ``OSError`` where a file can't be used."""
        rule = self._rule
        files = [Path(path) for path in (rule.ca_file, rule.cert_file, rule.key_file) if path]
        stamps = tuple((status.st_ino, status.st_mtime_ns) for status in (file.stat() for file in files))
        if self._context is None or stamps != self._stamps:
            context = ssl.create_default_context(cafile=rule.ca_file or None)
            if rule.cert_file:
                context.load_cert_chain(rule.cert_file, rule.key_file or None)
            self._context, self._stamps = context, stamps
        return self._context


class RedisConnection(Connection):
    """
    A connection. *lookup* finds the host's addresses; *trust*: how TLS is spoken, or None; *largest*: the bytes of the
    largest value that is read; *logins*: where its logins come from, if these end.

    *replies* is the reader of its parser.
    """

    replies: hiredis.Reader

    def __init__(
        self,
        *,
        lookup: HostLookup,
        trust: Trust | None = None,
        largest: int,
        logins: LoginSource | None = None,
        **kwargs: Any,
    ) -> None:
        self._lookup = lookup
        self._trust = trust
        self._most = largest + ROOM
        self._sent = None if logins is None else SentLogin(logins)
        if self._sent is not None:
            kwargs["credential_provider"] = self._sent
        super().__init__(**{"socket_connect_timeout": CONNECT_SECONDS, "parser_class": ReplyParser, **kwargs})

    @property
    def fresh(self) -> bool:
        """Whether a command may be sent: connected, nothing unread or left over, and not closed by the server."""
        return self._reader is not None and self._stream.fresh and not self.replies.has_data()

    @property
    def login(self) -> Login | None:
        """The login that was sent last, if logins end."""
        return None if self._sent is None else self._sent.login

    async def log_in(self, login: Login) -> None:
        """
        Send *login* over the open connection. Raises the server's refusal, after which the former login still holds;
        after any other error the connection is closed.
        """
        assert self._sent is not None
        self._sent.login = login  # also if it is refused, so that it is sent once
        try:
            await self.send_packed_command(self.pack_command("AUTH", login.user, login.password), check_health=False)
            with making_sense():
                await self.read_response(disconnect_on_error=False)
        except (AuthenticationError, ResponseError):
            raise
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - theirs
        """Send the first commands. A refused login is reported to where it came from."""
        try:
            await super().on_connect_check_health(check_health)
        except AuthenticationError:
            self._refused()
            raise

    def pack_command(self, *args: Any) -> list[bytes]:
        """A command's bytes; by C code, which the library uses only in its blocking client."""
        packed: list[bytes] = _PACKER.pack(*args)
        return packed

    async def ask(self, *command: Any) -> Any:
        """
        The reply to *command*, as the server wrote it. Closes the connection if the caller leaves before the reply has
        come.

        It does in one step what ``send_command`` and ``read_response`` of the library do; the caller must check
        *fresh*.
        """
        stream, replies = self._stream, self.replies
        try:
            stream.write(hiredis.pack_command(command))
            if stream.full:
                await stream.drain()
            while (reply := replies.gets()) is NOT_ENOUGH_DATA:
                replies.feed(await stream.read())
        except BaseException:
            await self.disconnect(nowait=True)
            raise
        if replies.has_data():
            reply = Garbled("there is more than one reply")
        if isinstance(reply, RedisError):
            if isinstance(reply, ConnectionError):  # it concerns everything on this connection
                await self.disconnect(nowait=True)
            raise reply
        return reply

    def _refused(self) -> None:
        if self._sent is not None:
            self._sent.refused()

    async def _connect(self) -> None:
        """
        Try the addresses of the host, one after the other. Raises ``OSError``, and ``NoLoginError`` before anything is
        sent.
        """
        if self._sent is not None:
            self._sent.current()
        failure: Exception = OSError(f"no address for {self.host}")
        for address in await self._lookup(self.host):
            try:
                await self._reach(address)
            except OSError as error:
                failure = error
            else:
                return
        raise failure

    async def _reach(self, address: str) -> None:
        """Connect to *address*. The library does the same, but with its own streams."""
        trust = self._trust
        if self._sent is not None and trust is None and not ip_address(address.partition("%")[0]).is_loopback:
            # A Cluster or a Sentinel may name servers elsewhere.
            raise NoLoginError(f"a token would go to {self.host} in clear; use rediss in the url")
        async with asyncio.timeout(self.socket_connect_timeout):
            transport, stream = await asyncio.get_running_loop().create_connection(
                lambda: RedisStream(self._most),
                address,
                self.port,
                ssl=trust.context() if trust is not None else None,
                server_hostname=self.host if trust is not None else None,
            )
        connection = transport.get_extra_info("socket")
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            transport.abort()
            raise
        self._stream = stream
        self._reader = self._writer = cast("Any", stream)  # it has what the library needs of them


class RedisCredentials(CredentialProvider):
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
