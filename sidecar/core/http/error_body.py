"""
Reads a provider's error answer, whatever its form.

The rule: only members that the provider words itself are read (code, type, status, message and the like), never the
rest of the answer, which may repeat the caller's words. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Fields

LONGEST = 64 * 1024
"""The most bytes of an error body that are read. A longer one cannot be parsed and says nothing."""

_decode = json.Decoder().decode


class Complaint(Struct, frozen=True, gc=False):
    """
    *words*: codes, types and statuses in lower case, without separators (``insufficientquota``). *number*: the HTTP
    status repeated in the body, 0 if there is none. *message*: the sentence for people. *delay*: Gemini's
    ``retryDelay`` as written, ``""`` if there is none.
    """

    words: frozenset[str] = frozenset()
    number: int = 0
    message: str = ""
    delay: str = ""


NOTHING = Complaint()


def read(fields: Fields, body: bytes) -> Complaint:
    """
    The complaint of an error answer. The header *fields* are read, too, because Amazon names the error there. *body* is
    whole and without content coding; if it cannot be read, only the fields count.
    """
    found = parse(body)
    # ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/
    name = fields.get(b"x-amzn-errortype", b"").partition(b":")[0].decode("latin-1")
    if not name:
        return found
    return Complaint(found.words | {_word(name)}, found.number, found.message, found.delay)


def parse(text: bytes) -> Complaint:
    """
    The complaint in a JSON document: in its ``error``, in the ``error`` of its ``response`` (OpenAI, Responses API),
    or in itself (Cohere, Mistral, Amazon, gateways).
    """
    try:
        document = _decode(text) if len(text) <= LONGEST else None
    except UNREADABLE:
        return NOTHING
    if isinstance(document, list) and document:  # Gemini's form if a stream was asked for
        document = document[0]
    if not isinstance(document, dict):
        return NOTHING
    error = document.get("error")
    if error is None and isinstance(document.get("response"), dict):
        error = document["response"].get("error")
    if isinstance(error, str):  # Ollama and others: the sentence alone, or a word with the sentence beside it
        word = None if " " in error else error
        error = {"code": word, "message": document.get("message", error), "type": document.get("error_type")}
    if not isinstance(error, dict):
        error = document
    return Complaint(
        frozenset(_word(word) for word in _said(error) if isinstance(word, str)),
        next((number for number in map(_number, (error.get("code"), error.get("status"))) if number), 0),
        next((text for text in map(error.get, ("message", "Message", "detail")) if isinstance(text, str)), ""),
        _delay(error.get("details")),
    )


def _said(error: Mapping[str, Any]) -> Iterator[Any]:
    yield from map(error.get, ("code", "type", "status", "error_code"))
    inner = error.get("innererror")
    if isinstance(inner, dict):
        yield inner.get("code")
    details = error.get("details")
    if isinstance(details, dict):
        yield details.get("error_code")


def _word(text: str) -> str:
    return "".join(text.lower().replace("_", " ").replace("-", " ").split()).removesuffix("exception")


def _number(said: object) -> int:
    if isinstance(said, str) and len(said) == 3 and said.isascii() and said.isdecimal():
        said = int(said)
    return said if isinstance(said, int) and 400 <= said <= 599 else 0


def _delay(details: object) -> str:
    """The ``RetryInfo`` among Google's error details (google.rpc, error_details.proto)."""
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("RetryInfo"):
            said = detail.get("retryDelay")
            return said if isinstance(said, str) else ""
    return ""
