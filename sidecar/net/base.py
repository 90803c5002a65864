"""
The types that the listener and the proxy share.

The rule: the listener knows HTTP and sockets, and nothing of AI services; the proxy knows nothing of sockets. They use
only the types of this file between them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeGuard

from msgspec import Struct

from sidecar.core.model import Head, Pairs, Reading
from sidecar.errors import Refused


class Observer(Protocol):
    """Reads a large request body while it is collected, so that it need not be read twice."""

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body; never raises."""

    def reading(self) -> Reading:
        """What the whole body is, once all of it has been fed."""


class Admission(Struct, frozen=True, gc=False):
    """
    The proxy's decision about a head, before any of the body is read.

    *collect*: the whole body is needed for a look-up; otherwise it streams through. *observe*: makes the observer of a
    body that grows past 256 KiB. *plan* belongs to the proxy and comes back with the request.
    """

    collect: bool
    plan: Any
    observe: Callable[[], Observer] | None = None


class Spool(Protocol):
    """A collected body that did not fit into memory: an unlinked file."""

    size: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The body from its start, in chunks of at most 256 KiB. It can be read again for another attempt."""

    def share(self) -> None:
        """Another owner needs the body, too, and will also close it."""

    def close(self) -> None:
        """This owner needs it no longer; the file is removed when every owner has closed it."""


class Stream(Protocol):
    """
    A body that is still arriving. *size* is its Content-Length, None when chunked. It can be read once.

    ``chunks`` raises ``Refused`` if the body breaks the rules, and ``ClientGone`` if it stops coming.
    """

    size: int | None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body's bytes as they arrive; the sender is paused while nobody reads."""


def is_spool(body: bytes | Spool | Stream) -> TypeGuard[Spool]:
    """Whether a body stands in a file; only such a one can be shared. Asked of each body, so in the quickest way."""
    return hasattr(body, "share")


class Request(Struct, gc=False):
    """
    A request as the proxy gets it. *body* is ``bytes`` (collected in memory, ``b""`` for none), a ``Spool``, or a
    ``Stream``; *observer* has seen all of a collected body above 256 KiB. *overflowed*: the body was to be collected
    but is too large; it is now a stream, from its first byte. *read* is what ``try_hit`` has worked out.
    """

    head: Head
    body: bytes | Spool | Stream
    plan: Any
    observer: Observer | None = None
    overflowed: bool = False
    read: Any = None


class Response(Struct, frozen=True, gc=False):
    """
    A whole answer, known at once.

    *head* is the field lines, each ended by CRLF, with ``content-length`` but without status line and ``connection``
    (the listener writes both); *close* asks the listener to close the connection afterwards.
    """

    status: int
    head: bytes
    body: bytes
    close: bool = False


class Exchange(Protocol):
    """
    The caller's side of an answer that is not there at once.

    If the caller leaves, the task that runs the exchange is cancelled. A task that ends without ``end`` breaks the
    connection, so half an answer never looks like a whole one.
    """

    started: bool

    def begin(self, status: int, pairs: Pairs, length: int | None) -> None:
        """
        Send the head. *pairs* have no framing and ``connection`` fields. *length* is the body's size; None if unknown:
        then chunked for HTTP/1.1, until close for HTTP/1.0. The listener deals with HEAD.
        """

    async def write(self, chunk: bytes) -> None:
        """Send body bytes; waits for a slow caller. Raises ``SlowReader`` past ``limits.reader_seconds``."""

    def end(self) -> None:
        """The answer is complete. If *length* bytes were not written, this breaks the connection."""

    def respond(self, response: Response) -> None:
        """A whole answer at once, in place of ``begin``, ``write`` and ``end``."""

    def abort(self) -> None:
        """Break the connection, so that the caller sees that the answer is not whole."""


class Pending(Struct, frozen=True, gc=False):
    """An answer that must be waited for: *run* is started in a task of the connection."""

    run: Callable[[Exchange], Coroutine[Any, Any, None]]


class Application(Protocol):
    """The proxy, as the listener calls it. All methods are synchronous and raise only what is documented."""

    @property
    def deciding_fields(self) -> Mapping[bytes, bool]:
        """For each field of a request, by lower-case name: whether a decision of the proxy reads it."""

    def admit(self, head: Head) -> Admission:
        """Judge a head before its body is read. Raises ``Refused``."""

    def answer(self, request: Request) -> Response | Pending:
        """Answer a request whose body is collected or streams."""

    def try_hit(self, plan: Any, body: bytes) -> Response | Any:
        """
        Answer from memory or not at all. The request has the same deciding fields as the earlier one of *plan*. If this
        returns no ``Response``, the request takes the ordinary way, at once, and what was returned comes back with it.
        """

    def refuse(self, head: Head | None, error: Refused) -> Response:
        """The answer to a request that breaks the rules; *head* is None if not even that could be read."""
