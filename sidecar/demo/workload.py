"""
The calls that the demo makes: a morning at a document platform, in a few seconds.

The rule: the calls are plain HTTP as the vendors' SDKs make it, and what is told of their answers is read from the
answers alone: the ``Cache-Status`` header, the tokens in the body.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import aiohttp

from sidecar.demo.canned import Json
from sidecar.demo.documents.pages import pdf
from sidecar.tasks import Spawn

"""``spawn(coroutine, *, name)``: runs it in a task that somebody owns."""

HEADERS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({
    "openai": {"authorization": "Bearer demo"},
    "azure-openai": {"api-key": "demo"},
    "anthropic": {"x-api-key": "demo", "anthropic-version": "2023-06-01"},
    "azure-documents": {"ocp-apim-subscription-key": "demo"},
})  # fmt: skip
"""What each API demands of a call."""

_PATIENCE = aiohttp.ClientTimeout(total=30.0)


@dataclass(frozen=True, slots=True)
class DemoCall:
    """
    One call: *api* is a dialect's name, *members* the body's, *headers* go beside the API's own. *body*: bytes that are
    sent in place of members. Without either it is a GET.
    """

    api: str
    path: str
    members: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Act:
    """
    A part of the workload, compared by identity. The calls of a wave are made at once; *pause* seconds after its last
    answer comes the next wave.
    """

    title: str
    waves: tuple[tuple[DemoCall, ...], ...]
    pause: float = 0.1

    @property
    def size(self) -> int:
        """How many calls it makes."""
        return sum(map(len, self.waves))


class Manner(StrEnum):
    """How a call was answered, in the words of its ``Cache-Status`` (RFC 9211)."""

    MEMORY = "memory"
    SHARED = "shared"
    UPSTREAM = "upstream"
    BYPASS = "bypass"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """What came back: how, from which model, and the tokens that it names, or the pages of a document."""

    manner: Manner
    model: str = ""
    prompt: int = 0
    completion: int = 0
    pages: int = 0


async def play(
    acts: Iterable[Act],
    bases: Mapping[str, str],
    hear: Callable[[Act, DemoAnswer], None],
    *,
    spawn: Spawn,
    pace: float = 1.0,
) -> None:
    """
    Make the calls of *acts* and tell *hear* of each answer.

    *bases* are the base URLs by API. *pace* stretches the pauses, those between two polls included; 0 leaves them out.
    """
    async with aiohttp.ClientSession(timeout=_PATIENCE, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def make(act: Act, call: DemoCall) -> None:
            hear(act, await _make(session, bases[call.api], call, pace))

        for act in acts:
            for wave in act.waves:
                await asyncio.gather(*[spawn(make(act, call), name="demo call") for call in wave])
                await asyncio.sleep(act.pause * pace)


async def _make(session: aiohttp.ClientSession, base: str, call: DemoCall, pace: float) -> DemoAnswer:
    headers = {**HEADERS[call.api], **call.headers}
    method = "GET" if call.members is None and call.body is None else "POST"
    url = base + call.path
    try:
        async with session.request(method, url, json=call.members, data=call.body, headers=headers) as response:
            body = await response.read()
            status = response.headers.get("cache-status", "")
            if response.status == 202:
                return await _polled(session, response.headers["operation-location"], HEADERS[call.api], status, pace)
            if response.status != 200:
                return DemoAnswer(Manner.FAILED)
            return read(status, body, events=response.content_type == "text/event-stream")
    except (aiohttp.ClientError, TimeoutError):
        return DemoAnswer(Manner.FAILED)


async def _polled(
    session: aiohttp.ClientSession, where: str, headers: Mapping[str, str], cache_status: str, pace: float
) -> DemoAnswer:
    """The result of an analysis, of which *cache_status* tells how it began."""
    async with asyncio.timeout(_PATIENCE.total):
        while True:
            async with session.get(where, headers=headers) as response:
                body = await response.read()
                if response.status != 200:
                    return DemoAnswer(Manner.FAILED)
                seconds = response.headers.get("retry-after")
            if seconds is None:
                return read(cache_status, body, events=False)
            await asyncio.sleep(int(seconds) * pace)


def read(cache_status: str, body: bytes, *, events: bool) -> DemoAnswer:
    """What an answer says of itself."""
    model = ""
    usage: Json = {}
    for document in _documents(body, events=events):
        part = document.get("message", document)
        if result := document.get("analyzeResult"):
            return DemoAnswer(_manner(cache_status), result["modelId"], pages=len(result["pages"]))
        if document.get("status") == "failed":
            return DemoAnswer(Manner.FAILED)
        model = part.get("model") or model
        usage |= part.get("usage") or {}
    prompt: int = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    completion: int = usage.get("completion_tokens") or usage.get("output_tokens") or 0
    return DemoAnswer(_manner(cache_status), model, prompt, completion)


def _documents(body: bytes, *, events: bool) -> Iterator[Json]:
    if not events:
        yield json.loads(body)
        return
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            yield json.loads(line.removeprefix(b"data: "))


def _manner(cache_status: str) -> Manner:
    said = {part.strip() for part in cache_status.split(";")}
    if "hit" in said:
        return Manner.MEMORY
    if "collapsed" in said:
        return Manner.SHARED
    return Manner.BYPASS if "fwd=bypass" in said else Manner.UPSTREAM


# The calls.

_SUPPLIERS = ("Amber Paper", "Birch Freight", "Cobalt Tools", "Delta Print", "Ember Heating", "Fern Catering")
_GOODS = ("copy paper A4", "pallet transport", "hex key set", "folding boxes", "heating oil", "lunch, 20 people")
_TOPICS = ("contracts", "travel", "leave", "purchasing", "security", "archive", "vehicles", "training")
_QUESTIONS = (
    "How do I hand in a travel expense?",
    "Who signs a contract above ten thousand?",
    "Where do I find last year's invoices?",
    "How long are delivery notes kept?",
)

_FIELDS: Final = {"type": "string"}, {"type": "number"}
_INVOICE: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "invoice",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"supplier": _FIELDS[0], "number": _FIELDS[0], "net": _FIELDS[1], "gross": _FIELDS[1]},
            "required": ["supplier", "number", "net", "gross"],
            "additionalProperties": False,
        },
    },
}

_LAYOUT = "/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30"
_BOUNDARY = "------------------------demo"

_CHAT = "/v1/chat/completions"
_AZURE_CHAT = "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"


def acts() -> tuple[Act, ...]:
    """The whole workload: about 12 seconds before a stand-in that takes 250 ms for an answer."""
    return (
        Act("Scanned invoices, in three forms", _scanned()),
        Act("Invoice extraction, three jobs", _waves(map(_invoice, range(12)), wide=3, rounds=3)),
        Act("Search index, built three times", _waves(map(_chunks, range(8)), wide=2, rounds=3)),
        Act("Dashboards opened by 16 at once", tuple((_report(day),) * 16 for day in range(3)), pause=0.3),
        Act("Help desk, streamed answers", _waves(map(_question, _QUESTIONS), wide=2, rounds=4)),
        Act("Contract summaries (Anthropic)", _waves(map(_contract, range(6)), wide=2, rounds=3)),
        Act("Ticket triage (Azure OpenAI)", _waves(map(_ticket, range(8)), wide=2, rounds=3)),
        Act("Slogans, private and model lists", _waves(_unrepeatable(), wide=2, rounds=1)),
    )


def _waves(calls: Iterable[DemoCall], *, wide: int, rounds: int) -> tuple[tuple[DemoCall, ...], ...]:
    """The same *calls* in each round, *wide* at once. Every other round writes its members in another order."""
    first = list(calls)
    waves: list[tuple[DemoCall, ...]] = []
    for number in range(rounds):
        written = [_reordered(call) for call in first] if number % 2 else first
        waves += [tuple(written[start : start + wide]) for start in range(0, len(written), wide)]
    return tuple(waves)


def _reordered(call: DemoCall) -> DemoCall:
    members = None if call.members is None else dict(reversed(call.members.items()))
    return replace(call, members=members)


def _scanned() -> tuple[tuple[DemoCall, ...], ...]:
    """
    Six documents, each uploaded as base64, as its bytes, and in a form, as three applications do it; then one more by
    nine at once, in all forms.
    """
    forms = (_as_base64, _as_bytes, _as_form)
    documents = [_document(number) for number in range(7)]
    return (*(tuple(map(form, documents[:6])) for form in forms), tuple(form(documents[6]) for form in forms * 3))


def _document(number: int) -> bytes:
    supplier = _SUPPLIERS[number % len(_SUPPLIERS)]
    pages = [[f"{supplier}, delivery note {815 + number}, page {page}", *_GOODS] for page in range(1, 2 + number % 3)]
    return pdf(pages)


def _as_base64(document: bytes) -> DemoCall:
    return DemoCall("azure-documents", _LAYOUT, {"base64Source": base64.b64encode(document).decode()})


def _as_bytes(document: bytes) -> DemoCall:
    return DemoCall("azure-documents", _LAYOUT, headers={"content-type": "application/pdf"}, body=document)


def _as_form(document: bytes) -> DemoCall:
    head = 'Content-Disposition: form-data; name="file"; filename="scan.pdf"\r\nContent-Type: application/pdf'
    body = f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode() + document + f"\r\n--{_BOUNDARY}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return DemoCall("azure-documents", _LAYOUT, headers=headers, body=body)


def _asked(words: str, system: str) -> list[Json]:
    return [{"role": "system", "content": system}, {"role": "user", "content": words}]


def _invoice(number: int) -> DemoCall:
    supplier = _SUPPLIERS[number % len(_SUPPLIERS)]
    items = [f"{row:>3}  {_GOODS[(number + row) % len(_GOODS)]:<24} {7 * row + number:>8}.50" for row in range(1, 40)]
    page = f"{supplier}\nInvoice {4711 + number}\n" + "\n".join(items)
    messages = _asked(page, "Extract the fields of this invoice.")
    return DemoCall(
        "openai", _CHAT, {"model": "gpt-4o", "temperature": 0, "messages": messages, "response_format": _INVOICE}
    )


def _chunks(number: int) -> DemoCall:
    texts = [f"Handbook, {_TOPICS[number]}, paragraph {row}: " + " ".join(_TOPICS) * 4 for row in range(16)]
    return DemoCall("openai", "/v1/embeddings", {"model": "text-embedding-3-small", "input": texts, "dimensions": 256})


def _report(day: int) -> DemoCall:
    messages = _asked(f"Sum up the figures of day {day}: " + " ".join(_GOODS) * 20, "You write the daily report.")
    return DemoCall("openai", _CHAT, {"model": "gpt-4o", "temperature": 0, "messages": messages})


def _question(words: str) -> DemoCall:
    messages = _asked(words, "You are the help desk. Answer from the handbook. " + " ".join(_TOPICS) * 10)
    shown = {"stream": True, "stream_options": {"include_usage": True}}
    return DemoCall("openai", _CHAT, {"model": "gpt-4o", "temperature": 0, "messages": messages} | shown)


def _contract(number: int) -> DemoCall:
    text = f"Contract {number} with {_SUPPLIERS[number]}: " + " ".join(_GOODS) * 25
    return DemoCall("anthropic", "/v1/messages", {
        "model": "claude-sonnet-5-5", "max_tokens": 500, "temperature": 0, "system": "Sum up this contract.",
        "messages": [{"role": "user", "content": text}],
    })  # fmt: skip


def _ticket(number: int) -> DemoCall:
    messages = _asked(f"Ticket {number}: my question is about {_TOPICS[number]}.", "Name the team for this ticket.")
    return DemoCall("azure-openai", _AZURE_CHAT, {"messages": messages, "temperature": 0, "max_tokens": 100})


def _unrepeatable() -> Iterator[DemoCall]:
    """Calls that reach the service each time, because their answers are not stored."""
    for topic in _TOPICS[:6]:
        messages = _asked(f"A slogan about {topic}, please.", "You write slogans.")
        yield DemoCall("openai", _CHAT, {"model": "gpt-4o", "temperature": 0.9, "messages": messages})
    for name in _SUPPLIERS[:2]:
        members = {"model": "gpt-4o", "temperature": 0, "messages": _asked(f"A dunning letter to {name}.", "Be kind.")}
        yield DemoCall("openai", _CHAT, members, {"cache-control": "no-store"})
    yield DemoCall("openai", "/v1/models")
    yield DemoCall("anthropic", "/v1/models")
