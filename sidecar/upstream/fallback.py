"""
Fallback answers, for when no region answers: another model's answer, or an answer from a file.

The rule: a fallback answer says that it is one, and is never stored as the answer to the request. A caller that does
not want one says so (``x-sidecar-fallback: none``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from msgspec import Struct, structs

from sidecar.core.answer.answer_file import LARGEST, REMEDY, fault
from sidecar.core.answer.rewrite import deployed, with_model
from sidecar.core.dialect import Endpoint
from sidecar.core.http.headers import fields_of
from sidecar.core.memo import Memo
from sidecar.core.model import Fields, Form, Pairs, View
from sidecar.errors import Refused, UpstreamFailed
from sidecar.net.plain_file import open_plain
from sidecar.upstream.call import UpstreamCall
from sidecar.upstream.commit import CommittedResponse
from sidecar.upstream.dispatch import FALLBACK, Dispatch, Sent

RECHECK_SECONDS = 1.0
_FILES = 64
_EVENTS: Pairs = ((b"content-type", b"text/event-stream; charset=utf-8"),)
_JSON: Pairs = ((b"content-type", b"application/json"),)


def refuses(fields: Fields) -> bool:
    """Whether the caller refuses fallback answers."""
    return fields.get(b"x-sidecar-fallback", b"").strip().lower() == b"none"


def has_room(failure: UpstreamFailed | Refused | Sent) -> bool:
    """Whether a model may be asked after *failure*: not if the route's own limits refused the call."""
    return not (isinstance(failure, Refused) and failure.code == "route-limit")


class FallbackAnswer(Struct, frozen=True):
    """A fallback answer; *model* gave it, ``""`` if it is from a file."""

    sent: Sent
    model: str


class Fallback:
    """Finds fallback answers. *clock* is monotonic seconds; *tell* is called for a file that cannot be used."""

    def __init__(self, dispatch: Dispatch, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._dispatch = dispatch
        self._clock = clock
        self._tell = tell
        self._files: Memo[str, tuple[float, bytes]] = Memo(_FILES)

    def __repr__(self) -> str:
        return f"<Fallback {self._files!r}>"

    async def answer(
        self, outgoing: UpstreamCall, endpoint: Endpoint | None, view: View, *, models: bool = True
    ) -> FallbackAnswer | None:
        """
        The first of the route's fallbacks that answers *outgoing*, whose body is in memory; None if none does. Stale
        entries are not looked for here: the proxy has tried them before. *models* False: no model is called, because
        the route has no room for one more call.
        """
        if refuses(outgoing.head.fields) or endpoint is None:
            return None
        for fallback in outgoing.route.fallback:
            found = None
            if fallback.kind == "model" and models and (outgoing.limit is None or self._clock() < outgoing.limit):
                found = await self._ask(outgoing, fallback.value)
            elif fallback.kind == "answer_file":
                found = await self._read(fallback.value, endpoint, view)
            if found is not None:
                return found
        return None

    async def _ask(self, outgoing: UpstreamCall, model: str) -> FallbackAnswer | None:
        other = _with_model(outgoing, model)
        if other is None:
            return None
        try:
            sent = await self._dispatch.send(other)
        except (UpstreamFailed, Refused):
            return None
        if sent.good:
            return FallbackAnswer(sent, model)
        sent.answer.close()
        return None

    async def _read(self, path: str, endpoint: Endpoint, view: View) -> FallbackAnswer | None:
        now = self._clock()
        known = self._files.get(path)
        if known is None or now - known[0] >= RECHECK_SECONDS:
            known = now, await asyncio.to_thread(self._load, path)  # noqa: TID251  a disk may be slow, whatever the size
            self._files.put(path, known)
        body: bytes | None = known[1]
        if not body:
            return None
        if view.stream and endpoint.answers.streams:
            convert = endpoint.answers.convert
            # Token counts can be shown only if the file has them.
            body = convert(body, Form.WHOLE, view) or convert(body, Form.WHOLE, View(stream=True, usage=False))
            if body is None:
                self._tell(f"{path}: cannot be given as a stream; it has to be a whole answer of this API")
                return None
            return FallbackAnswer(Sent(_written(_EVENTS, body), ""), "")
        return FallbackAnswer(Sent(_written(_JSON, body), ""), "")

    def _load(self, path: str) -> bytes:
        """The answer in the file *path*; ``b""`` if it cannot be used."""
        body = b""
        try:
            with open_plain(path) as file:
                body = file.read(LARGEST + 1)
        except OSError as error:
            why = error.strerror or type(error).__name__
        else:
            why = fault(body)
        if why:
            self._tell(f"{path}: {why}; {REMEDY}")
        return b"" if why else body


class _Written:
    """The contents of a file as an answer."""

    status = 200

    def __init__(self, pairs: Pairs, body: bytes) -> None:
        self.pairs = pairs
        self.length: int | None = len(body)
        self._body = body

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        self._body = b""


def _written(pairs: Pairs, body: bytes) -> CommittedResponse:
    return CommittedResponse(_Written(pairs, body), fields_of(pairs))


def _with_model(outgoing: UpstreamCall, model: str) -> UpstreamCall | None:
    """*outgoing* with *model* instead; None if the name cannot be written there, or is the same."""
    site, body = outgoing.site, outgoing.body
    if model == outgoing.model or not isinstance(body, bytes) or site.endpoint is None:
        return None
    if site.endpoint.model:
        target = deployed(site.target, outgoing.model, model)
        if target is None:
            return None
        site = structs.replace(site, target=target, endpoint=replace(site.endpoint, model=model))
    else:
        changed = with_model(body, model)
        if changed is None:
            return None
        body = changed
    return structs.replace(outgoing, site=site, body=body, model=model, cause=FALLBACK, on_sent=None)
