"""
Logins to Redis by tokens of Azure's: the token is the password, and the user is the object id that the token names.

The rule: the token's claims are read, never verified: Redis does that, and nothing here is granted by them. See
https://learn.microsoft.com/azure/redis/entra-for-authentication.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.identity.access_tokens import AccessToken, Tokens
from sidecar.redis_link.login import Login

LOOK_SECONDS = 1.0
"""How often it is seen whether a token is due."""

_NAMELESS = "the token names no object id (oid); set username in cache.redis.credential"

_USER = re.compile(r"[0-9A-Za-z-]{1,64}\Z")


class _Claims(Struct):
    oid: str | None = None


class RedisLogins:
    """
    The logins that *tokens* make, a ``LoginSource``. *user* is who Redis knows them as; ``""`` for the object id in
    each. *clock* is that of *tokens*; *report* is called with the reason if a token makes no login.
    """

    def __init__(self, tokens: Tokens, user: str, *, clock: Callable[[], float], report: Callable[[str], None]) -> None:
        self._tokens = tokens
        self._user = user
        self._clock = clock
        self._report = report
        self._read: AccessToken | None = None
        self._login: Login | None = None
        self._arrived = asyncio.Event()
        tokens.on_grant.append(self._arrived.set)

    def __repr__(self) -> str:
        return f"<RedisLogins {self._login} of {self._tokens!r}>"

    @property
    def fault(self) -> str:
        """Why there is no login, or no newer one; ``""`` if nothing is wrong."""
        return self._tokens.fault or (_NAMELESS if self._read is not None and self._login is None else "")

    def current(self) -> Login | None:
        """The login that holds now; None if there is none. If the token is missing or due, the next is asked for."""
        token = self._tokens.valid()
        if token is None:
            return None
        if token is not self._read:
            user = self._user or object_id(token.text)
            self._login = Login(user, token.text.decode("ascii"), token.until) if user else None
            self._read = token
            if self._login is None:
                self._report(_NAMELESS)
        return self._login

    async def newer(self, known: Login | None) -> Login:
        """The first login that is not *known*. Waits as long as it takes; a token is asked for when it is due."""
        while True:
            self._arrived.clear()
            login = self.current()
            if login is not None and login is not known:
                return login
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SECONDS, self._tokens.rest())):
                    await self._arrived.wait()

    def left(self, login: Login) -> float:
        """Seconds until *login* ends; 0.0 if it has ended."""
        return max(0.0, login.until - self._clock())

    def refused(self, login: Login) -> None:
        """*login* was refused although it should hold: ask for another token, at most every 30 s."""
        self._tokens.doubt(login.password.encode("ascii"))


def object_id(token: bytes) -> str:
    """The object id that *token*, a JWT, names; ``""`` if it names none."""
    parts = token.split(b".")
    if len(parts) != 3:
        return ""
    try:
        claims = msgspec.json.decode(urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)), type=_Claims)
    except (binascii.Error, ValueError, *UNREADABLE):
        return ""
    return claims.oid if claims.oid is not None and _USER.match(claims.oid) else ""
