"""
The credentials that regions and the fleet's Redis need: texts of files, and Azure's tokens, through one interface.

The rule: a credential that is still good is returned at once; only if there is none, the caller waits. After a service
refuses a credential, it is fetched anew once, and used only if it has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from msgspec import Struct

from sidecar.core.rules import AzureIdentity, Service, StoredCredential
from sidecar.identity.access_tokens import Tokens
from sidecar.identity.azure import TokenFetch, asker, describe
from sidecar.identity.files import CredentialFiles
from sidecar.identity.redis_logins import RedisLogins
from sidecar.tasks import Spawn

CredentialField = tuple[bytes, bytes]
"""A header field: lower-case name and value."""


class CredentialStanding(Struct, frozen=True):
    """
    The state of one credential, for people. *usable*: calls can be sent with it now. *seconds* until it expires, None
    if not known. *fault*: why there is no newer one; ``""`` if nothing is wrong.
    """

    name: str
    usable: bool
    seconds: float | None = None
    fault: str = ""


class Credentials:
    """
    Every region's credential, and Redis' logins. *clock* is monotonic and *now* wall-clock seconds, *draw* uniform in
    [0, 1); *environ* is read by identities; *spawn* owns the tasks in which *fetch* asks for tokens. *report* is called
    once for each fault.

    Close it before the tasks of *spawn* are cancelled.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        environ: Mapping[str, str],
        spawn: Spawn,
        fetch: TokenFetch,
        report: Callable[[str], None],
        draw: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._now = now
        self._environ = environ
        self._spawn = spawn
        self._fetch = fetch
        self._report = report
        self._draw = draw
        self._sleep = sleep
        self._files = CredentialFiles(clock, report)
        self._tokens: dict[AzureIdentity, Tokens] = {}
        self._in_redis: set[AzureIdentity] = set()
        self._of_regions: set[AzureIdentity] = set()

    def __repr__(self) -> str:
        return f"<Credentials {self._files!r}, {len(self._tokens)} identities>"

    def adopt(self, services: Iterable[Service]) -> None:
        """
        Keep the credentials of *services*, and forget the others; calls that wait for a token still get it. New ones
        are read, or asked for, so that the first call does not wait for them.
        """
        used = [region.credential for service in services for region in service.regions if region.credential]
        self._files.keep({each.file for each in used if isinstance(each, StoredCredential)})
        self._of_regions = {each for each in used if isinstance(each, AzureIdentity)}
        kept = self._of_regions | self._in_redis
        self._tokens = {identity: source for identity, source in self._tokens.items() if identity in kept}
        for each in used:
            self.field(each)

    def logins(self, identity: AzureIdentity) -> RedisLogins:
        """The logins to Redis of *identity*, whose tokens are kept whatever the regions use."""
        self._in_redis.add(identity)
        name = describe(identity, self._environ)
        return RedisLogins(
            self._source(identity),
            identity.username,
            clock=self._clock,
            report=lambda fault: self._report(f"{name}: {fault}"),
        )

    def field(self, credential: StoredCredential | AzureIdentity) -> CredentialField | None:
        """
        The field to send, at once; None if there is none now. A missing token, or one that is due, is then asked for in
        the background, so this also prepares the next call.
        """
        if isinstance(credential, StoredCredential):
            return self._files.field(credential)
        return _bearer(self._source(credential).current())

    async def obtain(self, credential: StoredCredential | AzureIdentity, *, seconds: float) -> CredentialField | None:
        """
        The field to send, waited for at most *seconds*; None if it cannot be had now. If waiting makes no sense, None
        comes at once.
        """
        if isinstance(credential, StoredCredential):
            return self._files.field(credential)
        return _bearer(await self._source(credential).obtain(seconds))

    async def renew(
        self, credential: StoredCredential | AzureIdentity, used: bytes, *, seconds: float
    ) -> CredentialField | None:
        """
        The field to send after a service's 401 for the value *used*: another value, waited for at most *seconds*; None
        if there is no other. A file is read at once; a token is asked for at most every 30 s.
        """
        if isinstance(credential, StoredCredential):
            return self._files.renew(credential, used)
        return _bearer(await self._source(credential).renew(used.removeprefix(b"Bearer "), seconds))

    def standing(self) -> list[CredentialStanding]:
        """The state of every region's credential that was used; files are checked, tokens are not asked for."""
        files = [CredentialStanding(file.path, file.value() is not None, None, file.fault) for file in self._files]
        tokens = []
        for identity, source in self._tokens.items():
            if identity in self._in_redis - self._of_regions:
                continue  # the part of Redis tells
            seconds = source.remaining()
            tokens.append(
                CredentialStanding(describe(identity, self._environ), seconds is not None, seconds, source.fault)
            )
        return files + tokens

    def fault(self, credential: StoredCredential | AzureIdentity) -> str:
        """Why no call can be sent with *credential*; ``""`` if one can, or if nobody has needed it yet."""
        if isinstance(credential, StoredCredential):
            usable = self._files.field(credential) is not None
            return "" if usable else next(file.fault for file in self._files if file.path == credential.file)
        source = self._tokens.get(credential)
        return source.fault if source is not None and source.remaining() is None else ""

    async def close(self) -> None:
        """Ask for no more tokens; the current ones still serve."""
        await asyncio.gather(*(source.close() for source in self._tokens.values()))

    def _source(self, identity: AzureIdentity) -> Tokens:
        source = self._tokens.get(identity)
        if source is None:
            name = describe(identity, self._environ)
            source = self._tokens[identity] = Tokens(
                asker(identity, environ=self._environ, fetch=self._fetch, now=self._now),
                clock=self._clock,
                draw=self._draw,
                spawn=self._spawn,
                report=lambda fault: self._report(f"{name}: {fault}"),
                sleep=self._sleep,
            )
        return source


def _bearer(token: bytes | None) -> CredentialField | None:
    return None if token is None else (b"authorization", b"Bearer " + token)
