"""
The stand-in's document services on the wire: they take calls, hold analyses, and answer polls.

The rule: ids, times and faults come from outside. What a document's result is, the tables of each service say.
"""

from __future__ import annotations

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from struct import pack
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID
from zlib import compress, crc32

from aiohttp import web

from sidecar.demo.canned import Json
from sidecar.demo.documents.forms import document_of, members_of
from sidecar.demo.documents.intelligence import FIGURE, INTELLIGENCE
from sidecar.demo.documents.language import LANGUAGE, texts_of
from sidecar.demo.documents.pages import digest_of, pdf
from sidecar.demo.documents.refusals import ServiceRefusal, no_key, no_operation, no_resource, too_busy
from sidecar.demo.documents.service import Analysis, AnalysisAsk, AnalysisTimes, DocumentService
from sidecar.demo.documents.understanding import UNDERSTANDING
from sidecar.demo.documents.vision import VISION_READ
from sidecar.demo.money import page_cost

SERVICES: Final = (INTELLIGENCE, UNDERSTANDING, VISION_READ, LANGUAGE)

_ROOTS: Final = re.compile(
    r"/(?:documentintelligence|formrecognizer|contentunderstanding|vision|language)/", re.IGNORECASE
)
_KEPT = 86_400.0
"""Seconds for which a service keeps a result."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return pack(">I", len(data)) + kind + data + pack(">I", crc32(kind + data))


_PNG: Final = (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + _chunk(b"IDAT", compress(b"\x00\xff"))
    + _chunk(b"IEND", b"")
)
"""A picture of one pixel."""


@dataclass(slots=True)
class DocumentFaults:
    """
    What goes wrong, as told; everything may be changed at any time.

    *starts* and *polls* are the statuses with which the next calls and the next polls are refused. *running*: how many
    polls of an analysis find it running. While *paused* all do. Documents that hold the bytes *failing* end as failed.
    """

    starts: deque[int] = field(default_factory=deque)
    polls: deque[int] = field(default_factory=deque)
    running: int = 1
    paused: bool = False
    failing: bytes = b""


@dataclass(slots=True)
class HeldAnalysis:
    """An analysis that is held. *finished* is None where it fails; *runs*: how many polls still find it running."""

    id: str
    service: DocumentService
    ask: AnalysisAsk
    data: bytes
    began: float
    finished: Analysis | None
    runs: int
    updated: float | None = None

    @property
    def times(self) -> AnalysisTimes:
        """Its times; the last update is that of its end."""
        updated = self.began if self.updated is None else self.updated
        return AnalysisTimes(*(_rfc3339(each) for each in (self.began, updated, self.began + _KEPT)))


class _ServiceCall(NamedTuple):
    """A call whose path is known: *id* is empty where it starts an analysis."""

    service: DocumentService
    path: str
    model: str
    id: str
    part: str


class DocumentServices:
    """
    Every service at one endpoint, with one store of results.

    *clock* gives seconds since the epoch, *fresh* a new word of 32 hexadecimal digits for ids.

    *asked* counts the calls that wanted an analysis, *analyses* those that were done, by a digest of the document: each
    is billed, and *pages* and *spent* sum up the bills. *polls* counts questions after a result, *deleted* results that
    were deleted.
    """

    def __init__(self, *, clock: Callable[[], float], fresh: Callable[[], str]) -> None:
        self.faults = DocumentFaults()
        self.asked = 0
        self.polls = 0
        self.deleted = 0
        self.pages = 0
        self.spent = 0
        self.analyses: Counter[str] = Counter()
        self._clock = clock
        self._fresh = fresh
        self._held: dict[str, HeldAnalysis] = {}

    def __repr__(self) -> str:
        return f"<DocumentServices {self.asked} asked, {self.analyses.total()} analysed, {len(self._held)} held>"

    @staticmethod
    def knows(path: str) -> bool:
        """Whether *path* lies below the root of one of the services."""
        return _ROOTS.match(re.sub("/+", "/", path)) is not None

    def starts(self, method: str, path: str) -> bool:
        """Whether this call wants an analysis."""
        found = _located(path)
        return method == "POST" and found is not None and not found.id

    def answer(self, request: web.Request, body: bytes) -> web.Response:
        """The answer to a call of a known path."""
        now = self._clock()
        try:
            return self._answer(request, body, now)
        except ServiceRefusal as refused:
            return self._response(refused.document, status=refused.status, more=refused.headers)

    def _answer(self, request: web.Request, body: bytes, now: float) -> web.Response:
        found = _located(request.path)
        self.asked += request.method == "POST" and found is not None and not found.id
        self.polls += request.method == "GET" and found is not None and bool(found.id)
        _check_key(request.headers)
        if found is None or (found.service.versioned and not request.query.get("api-version")):
            raise no_resource()
        match request.method, bool(found.id):
            case "POST", False:
                return self._start(found, request, body, now)
            case "GET", True:
                return self._poll(found, now)
            case "DELETE", True if found.service.deletes and not found.part:
                self._one(found, now)
                del self._held[found.id]
                self.deleted += 1
                return self._response(None, status=204)
        raise no_resource()

    def _start(self, found: _ServiceCall, request: web.Request, body: bytes, now: float) -> web.Response:
        if self.faults.starts:
            raise too_busy(self.faults.starts.popleft())
        service = found.service
        in_json = request.content_type == "application/json"
        ask = AnalysisAsk(
            found.path, found.model, request.query, members_of(body) if in_json or not service.carries else {}
        )
        service.check(ask)
        data = document_of(body, request.headers.get("content-type", "")) if service.carries else texts_of(ask.members)
        finished = service.analyse(data, ask)
        held = HeldAnalysis(str(UUID(self._fresh())), service, ask, data, now, finished, self.faults.running)
        if self.faults.failing and self.faults.failing in data:
            held.finished = None
        else:
            self.analyses[digest_of(data)] += 1
            self.pages += finished.pages
            self.spent += page_cost(finished.priced, finished.pages)
        self._drop_old(now)
        self._held[held.id] = held
        versioned = f"?api-version={request.query['api-version']}" if service.versioned else ""
        where = f"{request.scheme}://{request.host}{service.location(found.path, held.id)}{versioned}"
        more = {"Operation-Location": where, "apim-request-id": held.id}
        return self._response(service.accepted(held.id), status=202, more=more)

    def _poll(self, found: _ServiceCall, now: float) -> web.Response:
        if self.faults.polls:
            raise too_busy(self.faults.polls.popleft())
        held = self._one(found, now)
        if found.part:
            return self._part(held, found.part)
        if self.faults.paused or held.runs > 0:
            held.runs -= 1
            return self._response(held.service.running(held.id, held.times, held.ask), more={"Retry-After": "1"})
        if held.updated is None:
            held.updated = now
        if held.finished is None:
            return self._response(held.service.failed(held.id, held.times, held.ask))
        return self._response(held.service.succeeded(held.id, held.times, held.ask, held.finished.result))

    def _part(self, held: HeldAnalysis, part: str) -> web.Response:
        """What a call asked for beside its result: there only for who asked."""
        wanted = held.ask.listed("output")
        if held.finished is None or held.runs > 0:
            raise no_operation()
        if part == "pdf" and "pdf" in wanted:
            body = held.data if held.data.startswith(b"%PDF") else pdf([[held.finished.result["content"]]])
            return self._bytes(body, "application/pdf")
        if part == f"figures/{FIGURE}" and "figures" in wanted and held.finished.result.get("figures"):
            return self._bytes(_PNG, "image/png")
        raise no_operation()

    def _one(self, found: _ServiceCall, now: float) -> HeldAnalysis:
        """The analysis that a call asks about, of this service and not older than a day."""
        held = self._held.get(found.id)
        if held is None or held.service is not found.service or now >= held.began + _KEPT:
            raise no_operation()
        return held

    def _drop_old(self, now: float) -> None:
        for number in [each.id for each in self._held.values() if now >= each.began + _KEPT]:
            del self._held[number]

    def _response(
        self, document: Json | None, *, status: int = 200, more: Mapping[str, str] = MappingProxyType({})
    ) -> web.Response:
        body = b"" if document is None else json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        kind = {} if document is None else {"Content-Type": "application/json; charset=utf-8"}
        response = web.Response(body=body, status=status, headers={**self._headers(), **kind, **more})
        if document is None:
            response.headers.pop("Content-Type", None)
        return response

    def _bytes(self, body: bytes, kind: str) -> web.Response:
        response = web.Response(body=body, headers={**self._headers(), "Content-Type": kind})
        response.enable_chunked_encoding()
        return response

    def _headers(self) -> dict[str, str]:
        return {
            "apim-request-id": str(UUID(self._fresh())),
            "server": "sidecar-demo",
            "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
            "X-Content-Type-Options": "nosniff",
            "x-envoy-upstream-service-time": "1",
            "x-ms-region": "Nowhere",
        }


def _located(path: str) -> _ServiceCall | None:
    """What a path asks for; doubled slashes count once."""
    path = re.sub("/+", "/", path)
    for service in SERVICES:
        if found := service.start.fullmatch(path):
            return _ServiceCall(service, path, found["model"], "", "")
        if found := service.result.fullmatch(path):
            return _ServiceCall(service, path, "", found["id"], found["part"] or "")
    return None


def _check_key(headers: Mapping[str, str]) -> None:
    """Refuse a call without a key or token, or with one that has ``invalid`` in it."""
    key = headers.get("Ocp-Apim-Subscription-Key", "") or headers.get("Authorization", "").removeprefix("Bearer ")
    if not key.strip() or "invalid" in key:
        raise no_key()


def _rfc3339(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
