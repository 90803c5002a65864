"""
The commit point: up to where an answer is ours to exchange for another one.

The rule: of a stream it is the first event that is no ping, of a whole answer its last byte, up to 1 MiB; of what a
call for a stream got that is neither a stream nor JSON, its first byte; of what we don't know, the head. Nothing is
handed on before it, so a break before it is nobody's but ours.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from sidecar.core.answer.nesting import Nesting
from sidecar.core.answer.truncation import is_cut
from sidecar.core.cache.policy import form_of
from sidecar.core.dialect import Endpoint, Kind, Watch
from sidecar.core.http.headers import NO_RETRY
from sidecar.core.memory_budget import Ledger
from sidecar.core.model import Fields, Form, Pairs
from sidecar.core.region.breaker import Sign
from sidecar.core.region.verdict import GOOD, Verdict, judge_answer, judge_event_error, needs_body
from sidecar.errors import Cause, UpstreamFailed

COMMIT_BYTES = 1024 * 1024
"""A whole answer up to this size is handed on only when it is there to its end; so a broken one becomes an error."""

COMPLAINT_BYTES = 64 * 1024
"""So much of an error is read to see what it says."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32  # either header, told apart by zlib

COMPLAINT_SECONDS = 1.0
"""So long is waited for it; then its status alone tells."""

TALK_SECONDS = 1.0
"""So long an answer may consist of pings, or of blanks, before its caller hears them: some are meant for its timer."""

_BLANKS = b" \t\r\n"
_CUT = "the document ends in its middle"
_INLINE_BYTES = 256 * 1024  # more is looked through in a thread
_EMPTY = Verdict(Sign.ERROR, "truncated", elsewhere=True)


class Answer(Protocol):
    """An upstream's answer, its body still to be read."""

    status: int
    pairs: Pairs
    length: int | None

    async def read(self) -> bytes:
        """The next bytes, ``b""`` at the clean end. Raises ``UpstreamFailed``."""

    def close(self) -> None:
        """Done with it, read whole or not."""


class CommittedResponse:
    """
    An answer past its commit point: what has been read of it, then the rest. *fields* are its head's.

    *heartbeats_only*: it has consisted of pings or blanks for so long that its callers are to hear them. Who reads it
    sets *complete* when all that counts has come, and *tokens* when it is known how many the call took, which somebody
    waits for where it *counts*. *on_break* hears when it breaks after all, *on_close*, once, that it is over.

    *document*: what follows whether it ends in its middle, where that is to be known. Then it breaks there; and the
    last byte of one whose length was said is given out only when it is known not to, for with it a caller has it all.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_document",
        "_held",
        "_last",
        "_ledger",
        "complete",
        "counts",
        "fields",
        "heartbeats_only",
        "length",
        "on_break",
        "on_close",
        "pairs",
        "status",
        "tokens",
    )

    def __init__(
        self,
        answer: Answer,
        fields: Fields,
        begun: bytes = b"",
        ledger: Ledger | None = None,
        held: int = 0,
        document: Nesting | None = None,
    ) -> None:
        self.status, self.pairs, self.length = answer.status, answer.pairs, answer.length
        self.fields = fields
        self.complete = self.counts = self.heartbeats_only = False
        self.tokens: int | None = None
        self.on_break: Callable[[], None] | None = None
        self.on_close: Callable[[CommittedResponse], None] | None = None
        self._answer = answer
        self._begun = begun
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
            else:
                begun = await self._answer.read()
            return begun if self._document is None else await self._follow(self._document, begun)
        except UpstreamFailed:
            on_break, self.on_break = self.on_break, None
            if on_break is not None and not self.complete:
                on_break()
            raise

    async def _follow(self, document: Nesting, chunk: bytes) -> bytes:
        while chunk:
            if len(chunk) <= _INLINE_BYTES:
                document.feed(chunk)
            else:
                await asyncio.to_thread(document.feed, chunk)
            if self.length is None:
                return chunk  # its callers see where it breaks: the last chunk is missing
            given, self._last = self._last + chunk[:-1], chunk[-1:]
            if given:
                return given
            chunk = await self._answer.read()
        if document.incomplete:
            raise UpstreamFailed(Cause.TRUNCATED, _CUT, answered=True)
        last, self._last = self._last, b""
        return last

    def discourage(self) -> None:
        """Have it say that trying again is no use."""
        name, value = NO_RETRY
        self.pairs = (*(pair for pair in self.pairs if pair[0].lower() != name), NO_RETRY)
        self.fields = {**self.fields, name: value}

    def unread(self, begun: bytes) -> None:
        """What has been read so far is to be read once more."""
        self._begun = begun

    def close(self) -> None:
        """Done with it, read whole or not. May be called twice."""
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
    on_sign: Callable[[], None] = lambda: None,
) -> tuple[CommittedResponse, Verdict]:
    """
    Read *answer* up to its commit point, and say what it tells of its region. *fields* are its head's; *endpoint* is
    None where the operation is not known; *now* is wall-clock seconds; *most* is how far, at most, the commit point
    lies, bytes. *judged*: the call was looked up, so what has to be JSON, or calls itself so, has to be there to its
    end. *streaming*: it asked for a stream. *on_sign* is called whenever bytes come.

    Raises ``UpstreamFailed`` where it breaks before. An answer that is not returned is closed.
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
        if form_of(fields) is Form.EVENTS and b"content-encoding" not in fields:
            return await _commit_stream(ahead, endpoint.answers.watch(), most, judged=judged)
        if endpoint.kind is Kind.OTHER and not document:
            return ahead.committed(), GOOD  # not one that we know what to expect of
        if _ends_soon(fields, answer, streaming=streaming, document=document):
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
    """What an error says, as far as it comes soon; that it is one is known anyway."""
    with suppress(TimeoutError, UpstreamFailed):
        async with asyncio.timeout(COMPLAINT_SECONDS):
            await ahead.read(COMPLAINT_BYTES)
    return ahead.begun


async def _read_document(ahead: _Ahead, most: int) -> None:
    """A whole answer; not for longer than ``TALK_SECONDS`` while nothing but blanks comes."""
    chunk = await ahead.next()
    if chunk and not chunk[:64].strip(_BLANKS):
        with suppress(TimeoutError):
            async with asyncio.timeout(TALK_SECONDS):
                while chunk and not chunk.strip(_BLANKS) and not ahead.full and ahead.size < most:
                    chunk = await ahead.next()
        if not chunk.strip(_BLANKS):
            ahead.heartbeats_only = True
            return
    await ahead.read(most)


async def _commit_stream(ahead: _Ahead, watch: Watch, most: int, *, judged: bool) -> tuple[CommittedResponse, Verdict]:
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
    document = ahead.begun.lstrip().startswith(b"{")  # misnamed
    if document and judged and not clear:
        _check_end(ahead, {}, empty=False)
    return ahead.committed(), _judge_stream(ahead, watch) if clear or document else _EMPTY


def _is_told(watch: Watch) -> bool:
    return watch.committed or watch.ended or watch.failed


def _judge_stream(ahead: _Ahead, watch: Watch) -> Verdict:
    return judge_event_error(ahead.begun) if watch.failed and not watch.committed else GOOD


class _Ahead:
    """What is read of an answer before anybody has it; booked in the ledger while there is room."""

    def __init__(self, answer: Answer, fields: Fields, ledger: Ledger, on_sign: Callable[[], None]) -> None:
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

    @property
    def begun(self) -> bytes:
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    async def next(self) -> bytes:
        chunk = await self._answer.read()
        if chunk:
            self._on_sign()
            self._chunks.append(chunk)
            self.size += len(chunk)
            if self._ledger.take(len(chunk)):
                self._held += len(chunk)
            else:
                self.full = True
        else:
            self.ended = True
        return chunk

    async def read(self, limit: int) -> bytes:
        """Read on until there are *limit* bytes, the end is reached, or memory is full."""
        while self.size < limit and not self.full and await self.next():
            pass
        return self.begun

    def committed(self, document: Nesting | None = None) -> CommittedResponse:
        found = CommittedResponse(self._answer, self._fields, self.begun, self._ledger, self._held, document)
        found.heartbeats_only = self.heartbeats_only
        return found


def _check_end(ahead: _Ahead, fields: Fields, *, empty: bool) -> None:
    """
    Raises ``UpstreamFailed`` where all of a JSON document has come, and its end is not in it; nothing at all has no end
    either, where an *empty* one is none.
    """
    if not ahead.ended:
        return
    if (empty and not ahead.begun.strip(_BLANKS)) or (not _is_coded(fields) and is_cut(ahead.begun)):
        raise UpstreamFailed(Cause.TRUNCATED, _CUT, answered=True)


def _is_coded(fields: Fields) -> bool:
    return fields.get(b"content-encoding", b"identity").strip().lower() != b"identity"


def _plain(body: bytes, fields: Fields) -> bytes:
    """An error's bytes without their content coding, ``b""`` where we don't know that one (RFC 9110, 8.4.1)."""
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
    """Whether a whole answer is one to wait for: a *document*; sound and the like may be heard while it comes."""
    if form_of(fields) is Form.EVENTS:
        return False  # coded, so that its events cannot be seen
    if streaming and not says_json(fields):
        return False
    if answer.length is not None:
        return answer.length <= COMMIT_BYTES
    return document or says_json(fields)


def says_json(fields: Fields) -> bool:
    """Whether an answer calls itself a JSON document."""
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")
