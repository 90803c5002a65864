"""
Sending a call to the region that is to answer it.

The rule: whether to try again is decided here and nowhere else. A call is sent once; it is sent a second time only
when a connection that had served before died under it without a byte of an answer, which is how a kept-alive
connection dies of old age.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Protocol

from msgspec import Struct

from sidecar.core.headers import CREDENTIAL_QUERY, forward
from sidecar.core.ledger import Ledger
from sidecar.core.model import Head, Pairs
from sidecar.core.principal import without_credentials
from sidecar.core.recognise import Site
from sidecar.core.rules import StoredCredential, Timeouts
from sidecar.errors import Cause, Refused, UpstreamFailed
from sidecar.net.base import Spool, Stream

KEPT_FOR_RESEND = 256 * 1024
"""Bytes of a streaming body that are kept until the answer's head, so that the call can be sent again."""


class Answer(Protocol):
    """An upstream's answer, its body still to be read."""

    status: int
    pairs: Pairs
    length: int | None

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the clean end. Raises ``UpstreamFailed``."""

    def close(self) -> None:
        """Done with it, read whole or not."""


class Client(Protocol):
    """What makes the call: see ``net/upstream``."""

    async def send(
        self,
        *,
        method: bytes,
        base: str,
        target: bytes,
        pairs: Pairs,
        body: bytes | Spool | Stream,
        timeouts: Timeouts,
        streaming: bool,
        on_sent: Callable[[], None],
    ) -> Answer:
        """Send a request; returns when the answer's head is known. Raises ``UpstreamFailed``."""


class Sent(Struct, frozen=True):
    """A call that is being answered."""

    answer: Answer
    region: str
    attempts: int


class Dispatch:
    """
    Sends calls through *client*. *credential* gives the header field of a region's own credential; *ledger* counts
    what is kept for a second try.
    """

    def __init__(
        self,
        client: Client,
        credential: Callable[[StoredCredential], tuple[bytes, bytes] | None],
        ledger: Ledger,
    ) -> None:
        self._client = client
        self._credential = credential
        self._ledger = ledger

    async def send(
        self,
        site: Site,
        head: Head,
        body: bytes | Spool | Stream,
        *,
        timeouts: Timeouts,
        streaming: bool,
        identity: bool,
        on_sent: Callable[[], None] = lambda: None,
    ) -> Sent:
        """
        Send a call to the first region by priority. *identity*: the answer may be stored, so it must come uncoded.
        *on_sent* is called when the whole request is on its way.

        Raises ``UpstreamFailed``, or what a streaming body raises (``ClientGone``, ``Refused``).
        """
        region = site.regions[0]
        replace: Pairs = ()
        target = site.target
        if region.credential is not None:
            field = self._credential(region.credential)
            if field is None:
                raise Refused(
                    503, "no-credential", f"The credential of region {region.name} cannot be read; see the log."
                )
            replace = (field,)
            target = without_credentials(target, CREDENTIAL_QUERY | site.service.dialect.credential_query)
        pairs = forward(head.pairs, head.fields, identity=identity, replace=replace)
        attempt = partial(
            self._client.send,
            method=head.method,
            base=region.url,
            target=target,
            pairs=pairs,
            timeouts=timeouts,
            streaming=streaming,
            on_sent=on_sent,
        )
        if isinstance(body, bytes) or isinstance(body, Spool):  # noqa: SIM101  in this order: the second look is slow
            rewindable = None
        else:
            rewindable = Rewindable(body, self._ledger)
        try:
            return Sent(await attempt(body=rewindable or body), region.name, 1)
        except UpstreamFailed as failure:
            if not _died_of_age(failure) or (rewindable is not None and rewindable.spent):
                raise
            return Sent(await attempt(body=rewindable or body), region.name, 2)
        finally:
            if rewindable is not None:
                rewindable.forget()


class Rewindable:
    """
    A streaming body that can be sent a second time as long as little of it has passed. *stream* goes on after a read
    of it that was cancelled.

    *spent*: more has passed than is kept, so it cannot.
    """

    def __init__(self, stream: Stream, ledger: Ledger) -> None:
        self.size = stream.size
        self.spent = False
        self._ledger = ledger
        self._rest = stream.chunks()
        self._kept: list[bytes] = []
        self._held = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start."""
        for chunk in tuple(self._kept):  # an early answer's head lets go of them in the middle of a resend
            yield chunk
        async for chunk in self._rest:
            self._keep(chunk)
            yield chunk

    def _keep(self, chunk: bytes) -> None:
        if self.spent:
            return
        if self._held + len(chunk) > KEPT_FOR_RESEND or not self._ledger.take(len(chunk)):
            self.forget()
        else:
            self._held += len(chunk)
            self._kept.append(chunk)

    def forget(self) -> None:
        """Let go of what is kept: from now on the body cannot be sent again."""
        self.spent = True
        self._kept.clear()
        self._ledger.give(self._held)
        self._held = 0


def _died_of_age(failure: UpstreamFailed) -> bool:
    return failure.cause is Cause.DISCONNECTED and failure.reused and not failure.answered
