"""
What the listener and the line say to each other.

The rule: the listener knows HTTP and sockets and nothing of AI services; the line knows nothing of sockets. They meet
in the types of this file only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeGuard

from msgspec import Struct

from sidecar.core.model import Head, Pairs, Reading
from sidecar.errors import Refused


class Observer(Protocol):
    """Looks at a large request body while it is collected, so that nobody has to read it twice."""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body; never raises."""

    def reading(self) -> Reading:
        """What the whole body is, once all of it has been fed."""


class Admission(Struct, frozen=True, gc=False):
    """
    What the line says of a head, before any of the body is read.

    *collect*: the body is needed whole for a look-up; otherwise it streams through, unless it has come with its head.
    *observe*: makes the observer of a body that grows past 256 KiB. *plan* is the line's own and comes back with the
    request.
    """

    collect: bool
    plan: Any
    observe: Callable[[], Observer] | None = None


class Spool(Protocol):
    """A collected body that did not fit into memory: an unlinked file."""

    size: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start, in chunks of at most 256 KiB. May be asked for again for a resend."""

    def share(self) -> None:
        """Somebody else needs the body too, and will close it as well."""

    def close(self) -> None:
        """Not needed any more; the file is given back when everybody has said so."""


class Stream(Protocol):
    """
    A body that is still arriving. *size* is its Content-Length, None when chunked. It can be read once.

    ``chunks`` raises ``Refused`` when the body breaks the rules and ``ClientGone`` when it stops coming.
    """

    size: int | None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they arrive; the sender is paused while nobody asks for more."""


def is_spool(body: bytes | Spool | Stream) -> TypeGuard[Spool]:
    """Whether a body stands in a file; only such a one can be shared. Asked of each body, so in the quickest way."""
    return hasattr(body, "share")


class Request(Struct, gc=False):
    """
    A request as the line gets it. *body* is ``bytes`` (collected in memory, ``b""`` for none), a ``Spool``, or a
    ``Stream``; *observer* has seen all of a collected body above 256 KiB. *overflowed* tells that a body was to be
    collected but is too large: it is a stream now, from its first byte.
    """

    head: Head
    body: bytes | Spool | Stream
    plan: Any
    observer: Observer | None = None
    overflowed: bool = False


class Response(Struct, frozen=True, gc=False):
    """
    A whole answer, known at once.

    *head* is the field lines, each ended by CRLF, with ``content-length`` but without status line and without
    ``connection`` (both are the listener's); *close* asks it to close the connection afterwards.
    """

    status: int
    head: bytes
    body: bytes
    close: bool = False


class Exchange(Protocol):
    """
    The caller's side of an answer that takes its time.

    A caller that leaves cancels the task that runs the exchange. A task that ends without ``end`` breaks the
    connection, so half an answer can never look like a whole one.
    """

    started: bool

    def begin(self, status: int, pairs: Pairs, length: int | None) -> None:
        """
        Send the head. *pairs* without framing and ``connection`` fields. *length* is the body's size; None means
        unknown: chunked for HTTP/1.1, until close for HTTP/1.0. HEAD is the listener's care.
        """

    async def write(self, chunk: bytes) -> None:
        """Send body bytes; waits while the caller is slow. Raises ``SlowReader`` past ``limits.reader_seconds``."""

    def end(self) -> None:
        """The answer is complete. Checks that *length* bytes were written, else breaks the connection."""

    def respond(self, response: Response) -> None:
        """A whole answer at once, in place of ``begin``, ``write`` and ``end``."""

    def abort(self) -> None:
        """Break the connection, so that the caller knows the answer is not whole."""


class Pending(Struct, frozen=True, gc=False):
    """An answer that needs waiting: *run* is started in a task of the connection."""

    run: Callable[[Exchange], Coroutine[Any, Any, None]]


class Application(Protocol):
    """The line, as the listener calls it. All of it is synchronous and never raises anything else than said."""

    @property
    def deciding_fields(self) -> Mapping[bytes, bool]:
        """Of each field of a request, by lower-case name: whether a decision of the line reads it."""

    def admit(self, head: Head) -> Admission:
        """Judge a head before its body is read. Raises ``Refused``."""

    def answer(self, request: Request) -> Response | Pending:
        """Answer a request whose body is collected or streams."""

    def try_hit(self, plan: Any, body: bytes) -> Response | None:
        """
        Answer from memory or not at all: a request that *plan*, of an earlier one, fits in everything that tells.
        None: the request goes its ordinary way, from its head on.
        """

    def refuse(self, head: Head | None, error: Refused) -> Response:
        """The answer to a request that breaks the rules; *head* None when not even that could be read."""
