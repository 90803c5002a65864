"""
Takes one request after another: admits it, collects or streams its body, and passes it to the proxy.

The rule: whatever a request holds (memory of the ledger, a spool file, a stream) is held here and given back in
``release``, on every path.
"""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.core.model import Head
from sidecar.errors import ClientGone, Refused
from sidecar.net.base import Admission, Request
from sidecar.net.inbound.body import OBSERVED, Collection, Inflow
from sidecar.net.inbound.head_memo import KnownHead
from sidecar.net.inbound.parser import RequestParser
from sidecar.net.inbound.shared import ListenerState


class Owner(Protocol):
    """What the intake needs from its connection."""

    def ask(self, request: Request) -> None:
        """Pass *request* to the proxy; its body is collected or streams."""

    def refuse(self, error: Refused) -> None:
        """Answer the request with *error*."""

    def fault(self, error: Exception) -> None:
        """The proxy has failed: answer the request with that error."""

    def invite(self) -> None:
        """The body is going to be read: tell a client that waits for ``100 Continue`` to send it."""

    def pace(self) -> None:
        """What is waited for has changed."""


class Intake:
    """The current request of *parser*. *opened*: its head has been judged; *inflow*: its body, if it streams."""

    _admission: Admission

    def __init__(self, shared: ListenerState, parser: RequestParser, owner: Owner) -> None:
        self._shared = shared
        self._parser = parser
        self._owner = owner
        self._held = 0
        self._collection: Collection | None = None
        self._admitted = self._asked = False
        self.inflow: Inflow | None = None
        self.opened = False

    def __repr__(self) -> str:
        return f"<Intake {self.inflow or self._collection or self._held}>"

    @property
    def full(self) -> bool:
        """The sender of the body must wait."""
        if self.inflow is not None:
            return self.inflow.full
        return self._collection is not None and self._collection.backed_up

    @property
    def starved(self) -> bool:
        """More of the body is needed to go on."""
        if self.inflow is not None:
            return self.inflow.starved
        return self.opened and not self._asked and not self._parser.done and not self.full

    def advance(self, available: int) -> None:
        """Bring the request forward, as far as the bytes allow; *available* more bytes are at hand."""
        parser = self._parser
        if not self.opened:
            self.opened = True
            self._open(available)
        if self.inflow is not None:
            for chunk in parser.chunks:
                self.inflow.feed(chunk)
            parser.chunks.clear()
            if parser.done:
                self.inflow.end()
        elif self._collection is not None:
            for chunk in parser.chunks:
                self._collection.add(chunk)
            parser.chunks.clear()
            if parser.done:
                self._collection.end()
            self._collected()
        elif parser.done and self.opened and not self._asked:
            head = parser.head
            assert head is not None
            self._ask(Request(head, b"".join(parser.chunks), self._admission.plan))

    def fail(self, error: Exception) -> None:
        """No more of the body will come."""
        if self.inflow is not None:
            self.inflow.fail(error)

    def learn(self, raw: bytes) -> None:
        """Remember the head just judged, *raw* as it came, if requests like it need not be read again."""
        parser, memo = self._parser, self._memo
        head, framing = parser.head, parser.framing
        if head is None or framing is None or not self._admitted:
            return
        if head.minor and head.method == b"POST" and framing.keep and not framing.expects and framing.length:
            known = KnownHead(head, self._admission)
            if memo.read(raw[:-4], known) == head:
                memo.learn(raw, head.port, known)

    def repeat(self, known: KnownHead, body: bytes, data: bytes, read: Any) -> bool:
        """
        Pass on the whole request *data*, whose head is like *known*, with what ``try_hit`` has *read* of it. False:
        memory has no room for its *body*, so it must be read as usual.
        """
        size = len(body)
        if not self._shared.ledger.take(size):
            return False
        self._held = size
        self.opened = self._admitted = self._asked = True
        self._admission = known.admission
        head = self._shared.head_memo.read(data[: -size - 4], known)
        self._parser.repeat(head, size)
        self._owner.ask(Request(head, body, known.admission.plan, read=read))
        return True

    def release(self) -> None:
        """The answer is done: give back what the request held."""
        if self._held:
            self._shared.ledger.give(self._held)
            self._held = 0
        if self._collection is not None:
            self._collection.close()
            self._collection = None
        if self.inflow is not None:
            self.inflow.fail(ClientGone("the request is over"))
            self.inflow = None

    def next(self) -> None:
        """Make ready for the next request."""
        self.opened = self._admitted = self._asked = False

    def _open(self, available: int) -> None:
        parser, shared = self._parser, self._shared
        head, framing = parser.head, parser.framing
        assert head is not None
        assert framing is not None
        try:
            self._memo = shared.head_memo  # a plan is learnt where its rules hold, and not where newer ones do
            admission = self._admission = shared.app.admit(head)
            self._admitted = True
        except Refused as error:
            self._asked = True
            self._owner.refuse(error)
            return
        except Exception as error:  # noqa: BLE001 - a bug in the proxy must cost one answer, not the process
            self._asked = True
            self._owner.fault(error)
            return
        length = framing.length
        if parser.done:
            return
        here = length is not None and length <= available and length <= min(OBSERVED, shared.limits.collect)
        if here and length is not None and shared.ledger.take(length):
            self._held = length  # all of it has come with the head, so nothing is gained by reading it as a stream
        elif not admission.collect or (length is not None and length > shared.limits.collect):
            self._stream(head, Inflow(length, self._wanted), overflowed=admission.collect)
        else:
            self._collection = Collection(
                length,
                limit=shared.limits.collect,
                ledger=shared.ledger,
                spools=shared.spools,
                observe=admission.observe,
                changed=self._spooled,
            )
            if not available:
                self._owner.invite()

    def _spooled(self) -> None:
        self._collected()
        self._owner.pace()

    def _collected(self) -> None:
        collection, head, framing = self._collection, self._parser.head, self._parser.framing
        if collection is None or not collection.settled or self._asked:
            return
        assert head is not None
        if collection.overflowed:
            assert framing is not None
            inflow = Inflow(framing.length, self._wanted, collection.spool, collection.chunks)
            if self._parser.done:
                inflow.end()
            self._stream(head, inflow, overflowed=True)
        elif self._parser.done:
            self._ask(Request(head, collection.body(), self._admission.plan, observer=collection.observer))

    def _stream(self, head: Head, inflow: Inflow, *, overflowed: bool) -> None:
        self.inflow = inflow
        self._ask(Request(head, inflow, self._admission.plan, overflowed=overflowed))

    def _ask(self, request: Request) -> None:
        self._asked = True
        self._owner.ask(request)

    def _wanted(self) -> None:
        if self.inflow is not None and self.inflow.starved:
            self._owner.invite()
        self._owner.pace()
