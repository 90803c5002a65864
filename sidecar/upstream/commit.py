"""
The commit point: until an answer has reached it, we can still replace that answer by another one.

The rule: a stream commits at its first event that is no ping; a whole answer at its last byte, up to 1 MiB; an answer
to a call for a stream that is neither a stream nor JSON, at its first byte; an unknown answer at its head. Before the
commit point the caller has received nothing, so it does not notice a break there.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from sidecar.core.answer.nesting import Nesting
from sidecar.core.answer.truncation import is_cut
from sidecar.core.cache.policy import form_of
from sidecar.core.dialect import Endpoint, Kind, Watch
from sidecar.core.http.headers import NO_RETRY
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Fields, Form, Pairs
from sidecar.core.region.breaker import Sign
from sidecar.core.region.verdict import GOOD, Verdict, judge_answer, judge_event_error, needs_body
from sidecar.core.request.operation import ACCEPTED
from sidecar.errors import Cause, UpstreamFailed
from sidecar.tasks import SCANNED_IN_LOOP, in_thread_if_large

COMMIT_BYTES = 1024 * 1024
"""A whole answer up to this size is sent to the caller only when it is complete; so a broken one becomes an error."""

COMPLAINT_BYTES = 64 * 1024
"""Bytes of an error that are read to learn its reason, at most."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # either header, told apart by zlib

COMPLAINT_SECONDS = 1.0
"""Seconds to wait for the body of an error; after that its status alone is judged."""

TALK_SECONDS = 1.0
"""Seconds an answer may consist of pings or blanks only; then the caller gets them, as some are for its timer."""

_BLANKS = b" \t\r\n"
_CUT = "the document ends in its middle"
_EMPTY = Verdict(Sign.ERROR, "truncated", elsewhere=True)


class Answer(Protocol):
    """An upstream's answer whose body has not been read yet."""

    status: int
    pairs: Pairs
    length: int | None

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the clean end. Raises ``UpstreamFailed``."""

    def close(self) -> None:
        """Done with it, read whole or not."""


class CommittedResponse:
    """
    An answer past its commit point: first the bytes already read, then the rest, unless they are the *whole* of it.
    *fields* are its head's.

    *heartbeats_only*: it has sent only pings or blanks for so long that the callers must get them. The reader of the
    answer sets *complete* when all content has come, and *tokens* when the token count of the call is known; if
    *counts* is True, somebody waits for it. *on_break* is called if the answer breaks, *on_close* once, when it is
    over. *noted* is what ``UpstreamCall.on_head`` has made of its head. *watch* is the watch of a stream that was
    committed by its events; it has seen the bytes read ahead.

    *document*: checks that a JSON document is not cut. A cut document breaks the answer. If its length was given, its
    last byte is held back until the document is known to be whole, because with that byte the caller has it all.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_document",
        "_held",
        "_last",
        "_ledger",
        "_whole",
        "complete",
        "counts",
        "fields",
        "heartbeats_only",
        "length",
        "noted",
        "on_break",
        "on_close",
        "pairs",
        "status",
        "tokens",
        "watch",
    )

    def __init__(
        self,
        answer: Answer,
        fields: Fields,
        begun: bytes = b"",
        ledger: Ledger | None = None,
        held: int = 0,
        document: Nesting | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self.status, self.pairs, self.length = answer.status, answer.pairs, answer.length
        self.fields = fields
        self.complete = self.counts = self.heartbeats_only = False
        self.tokens: int | None = None
        self.on_break: Callable[[], None] | None = None
        self.on_close: Callable[[CommittedResponse], None] | None = None
        self.watch: Watch | None = None
        self.noted: Any = None
        self._answer = answer
        self._begun = begun
        self._whole = whole
        self._document = document
        self._last = b""
        self._ledger = ledger
        self._held = held

    def __repr__(self) -> str:
        return f"<CommittedResponse {self.status}, {len(self._begun)} bytes read ahead>"

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the clean end. Raises ``UpstreamFailed``."""
        begun = self._begun
        try:
            if begun:
                self._let_go()
            elif not self._whole:
                begun = await self._answer.read()
            return begun if self._document is None else await self._follow(self._document, begun)
        except UpstreamFailed:
            on_break, self.on_break = self.on_break, None
            if on_break is not None and not self.complete:
                on_break()
            raise

    async def _follow(self, document: Nesting, chunk: bytes) -> bytes:
        while chunk:
            await in_thread_if_large(len(chunk), SCANNED_IN_LOOP, document.feed, chunk)
            if self.length is None:
                return chunk  # without a length, callers see the break: the last chunk is missing
            given, self._last = self._last + chunk[:-1], chunk[-1:]
            if given:
                return given
            chunk = await self._answer.read()
        if document.incomplete:
            raise UpstreamFailed(Cause.TRUNCATED, _CUT, answered=True)
        last, self._last = self._last, b""
        return last

    def discourage(self) -> None:
        """Add the header field that tells the caller not to try again."""
        name, value = NO_RETRY
        self.pairs = (*(pair for pair in self.pairs if pair[0].lower() != name), NO_RETRY)
        self.fields = {**self.fields, name: value}

    def unread(self, begun: bytes) -> None:
        """Put *begun*, which was already read, back, so that it is read again."""
        self._begun = begun

    def close(self) -> None:
        """Done with it, read whole or not. May be called twice."""
        if self._begun:
            self._let_go()
        self._answer.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close(self)

    def _let_go(self) -> None:
        self._begun = b""
        if self._held and self._ledger is not None:
            self._ledger.give(self._held)
            self._held = 0


async def commit(
    answer: Answer,
    fields: Fields,
    endpoint: Endpoint | None,
    ledger: Ledger,
    now: float,
    *,
    most: int = COMMIT_BYTES,
    judged: bool = False,
    streaming: bool = False,
    on_sign: Callable[[], None] | None = None,
) -> tuple[CommittedResponse, Verdict]:
    """
    Read *answer* up to its commit point, and judge its region by it. *fields* are the head's; *endpoint* is None if the
    operation is unknown; *now* is wall-clock seconds; *most* is the latest commit point, bytes. *judged*: the call was
    looked up, so an answer that must be JSON, or says that it is, must be complete. *streaming*: the call asked for a
    stream. *on_sign*, where there is one, is called whenever bytes come.

    Raises ``UpstreamFailed`` if the answer breaks before that. An answer that is not returned is closed.
    """
    status = answer.status
    ahead = _Ahead(answer, fields, ledger, on_sign)
    strict = judged and not streaming and endpoint is not None and endpoint.answers.documents
    document = strict or (judged and says_json(fields))
    try:
        if status >= 400:
            body = _plain(await _read_complaint(ahead), fields) if needs_body(status) else b""
            return ahead.committed(), judge_answer(status, fields, body, now)
        if endpoint is None or not 200 <= status < 300:
            return ahead.committed(), GOOD
        if endpoint.operation is not None and status == ACCEPTED:
            return ahead.committed(), GOOD  # its head says all; a second try would start a second operation
        events = form_of(fields) is Form.EVENTS
        if events and b"content-encoding" not in fields:
            return await _commit_stream(ahead, endpoint.answers.watch(), most, judged=judged)
        if endpoint.kind is Kind.OTHER and not document:
            return ahead.committed(), GOOD  # we do not know what this operation answers
        if not events and _ends_soon(fields, answer, streaming=streaming, document=document):
            await _read_document(ahead, most)
            if document:
                _check_end(ahead, fields, empty=strict and status == 200)
        else:
            await ahead.read(1)
        follows = document and not ahead.ended and not _is_coded(fields)
        return ahead.committed(Nesting(blank=not strict) if follows else None), GOOD
    except BaseException:
        ahead.committed().close()
        raise


async def _read_complaint(ahead: _Ahead) -> bytes:
    """Read the body of an error, as far as it comes soon; the status already says that it is an error."""
    with suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(COMPLAINT_SECONDS):
            await ahead.read(COMPLAINT_BYTES)
    return ahead.begun


async def _read_document(ahead: _Ahead, most: int) -> None:
    """Read a whole answer; stop after ``TALK_SECONDS`` if only blanks have come."""
    chunk = await ahead.next()
    if chunk and not chunk[:64].strip(_BLANKS):
        with suppress(TimeoutError):
            async with asyncio.timeout(TALK_SECONDS):
                while chunk and not chunk.strip(_BLANKS) and not ahead.full and ahead.size < most:
                    chunk = await ahead.next()
        if not chunk.strip(_BLANKS):
            ahead.heartbeats_only = True
            return
    if not ahead.ended:
        await ahead.read(most)


async def _commit_stream(ahead: _Ahead, watch: Watch, most: int, *, judged: bool) -> tuple[CommittedResponse, Verdict]:
    ahead.watch = watch
    watch.feed(await ahead.next())
    if _is_told(watch):
        return ahead.committed(), _judge_stream(ahead, watch)
    try:
        async with asyncio.timeout(TALK_SECONDS):
            while not (_is_told(watch) or ahead.full or ahead.size >= most):
                chunk = await ahead.next()
                if not chunk:
                    watch.close()
                    break
                watch.feed(chunk)
            else:
                return ahead.committed(), _judge_stream(ahead, watch)
    except TimeoutError:
        ahead.heartbeats_only = True
        return ahead.committed(), GOOD
    clear = _is_told(watch)
    document = ahead.begun.lstrip().startswith(b"{")  # a JSON document with the content type of a stream
    if document and judged and not clear:
        _check_end(ahead, {}, empty=False)
    return ahead.committed(), _judge_stream(ahead, watch) if clear or document else _EMPTY


def _is_told(watch: Watch) -> bool:
    return watch.committed or watch.ended or watch.failed


def _judge_stream(ahead: _Ahead, watch: Watch) -> Verdict:
    return judge_event_error(ahead.begun) if watch.failed and not watch.committed else GOOD


class _Ahead:
    """The bytes of an answer before its commit point; counted in the ledger while that has room."""

    def __init__(self, answer: Answer, fields: Fields, ledger: Ledger, on_sign: Callable[[], None] | None) -> None:
        self._on_sign = on_sign
        self._answer = answer
        self._fields = fields
        self._ledger = ledger
        self._chunks: list[bytes] = []
        self._held = 0
        self.size = 0
        self.ended = False  # all of it is there
        self.full = False  # memory has no room for more
        self.heartbeats_only = False
        self.watch: Watch | None = None

    @property
    def begun(self) -> bytes:
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def next(self) -> bytes:
        chunk = await self._answer.read()
        if chunk:
            if self._on_sign is not None:
                self._on_sign()
            self._chunks.append(chunk)
            self.size += len(chunk)
            self.ended = self.size == self._answer.length
            if self._ledger.take(len(chunk)):
                self._held += len(chunk)
            else:
                self.full = True
        else:
            self.ended = True
        return chunk

    async def read(self, limit: int) -> None:
        """Read on until there are *limit* bytes, the end is reached, or memory is full."""
        while self.size < limit and not (self.full or self.ended):
            await self.next()

    def committed(self, document: Nesting | None = None) -> CommittedResponse:
        found = CommittedResponse(
            self._answer, self._fields, self.begun, self._ledger, self._held, document, whole=self.ended
        )
        found.heartbeats_only = self.heartbeats_only
        found.watch = self.watch
        return found


def _check_end(ahead: _Ahead, fields: Fields, *, empty: bool) -> None:
    """Raises ``UpstreamFailed`` if a JSON document has ended but is cut. *empty*: an empty body is an error."""
    if not ahead.ended:
        return
    if (empty and not ahead.begun.strip(_BLANKS)) or (not _is_coded(fields) and is_cut(ahead.begun)):
        raise UpstreamFailed(Cause.TRUNCATED, _CUT, answered=True)


def _is_coded(fields: Fields) -> bool:
    return fields.get(b"content-encoding", b"identity").strip().lower() != b"identity"


def _plain(body: bytes, fields: Fields) -> bytes:
    """The bytes of an error without their content coding; ``b""`` if we don't know that coding (RFC 9110, 8.4.1)."""
    match fields.get(b"content-encoding", b"identity").strip().lower():
        case b"identity":
            return body
        case b"gzip" | b"x-gzip" | b"deflate":
            try:
                return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, COMPLAINT_BYTES)
            except zlib.error:
                return b""
        case _:
            return b""


def _ends_soon(fields: Fields, answer: Answer, *, streaming: bool, document: bool) -> bool:
    """Whether to wait for the whole answer: yes for a *document*; sound and the like can be used while it comes."""
    if streaming and not says_json(fields):
        return False
    if answer.length is not None:
        return answer.length <= COMMIT_BYTES
    return document or says_json(fields)


def says_json(fields: Fields) -> bool:
    """Whether an answer calls itself a JSON document."""
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")
