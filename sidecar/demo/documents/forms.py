"""
The forms in which a call carries a document: its bytes, base64 or a URL in JSON, a file in a multipart form.

The rule: what comes out is the document's bytes. A URL is not fetched: it stands for a document of its own, named by
the URL without its signature.
"""

from __future__ import annotations

import base64
import json
from email.message import Message
from typing import Any, Final

from sidecar.demo.documents.refusals import bad_body, bad_content

_EMBEDDED: Final = ("base64Source", "data")
_LINKED: Final = ("urlSource", "url")


def members_of(body: bytes) -> dict[str, Any]:
    """The members of a JSON body. Raises ``ServiceRefusal`` where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise bad_body("The request body is not a JSON object.")
    return found


def document_of(body: bytes, media: str) -> bytes:
    """The document in *body*, by its media type with its parameters. Raises ``ServiceRefusal`` where there is none."""
    kind = media.partition(";")[0].strip().lower()
    if kind == "application/json":
        return _in_json(members_of(body))
    data = _in_multipart(body, media) if kind == "multipart/form-data" else body
    if not data.strip() or data.lstrip()[:1] in (b"{", b"["):
        raise bad_content()
    return data


def inner_members(members: dict[str, Any]) -> dict[str, Any]:
    """The object that holds the document: *members*, or the first of its ``inputs``."""
    match members:
        case {"inputs": [dict() as first]}:
            return first
        case {"inputs": _}:
            raise bad_body("The request must have exactly one input.")
        case _:
            pass
    return members


def _in_json(members: dict[str, Any]) -> bytes:
    inner = inner_members(members)
    found = [(name, inner[name]) for name in (*_EMBEDDED, *_LINKED) if inner.get(name) is not None]
    if len(found) != 1 or not isinstance(found[0][1], str):
        raise bad_body("The request must have exactly one source: a URL or base64.")
    [(name, value)] = found
    if name in _LINKED:
        return f"document at {value.partition('?')[0]}".encode()
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        data = b""
    if not data:
        raise bad_content()
    return data


def _in_multipart(body: bytes, media: str) -> bytes:
    """The first file of a form."""
    head = Message()
    head["content-type"] = media
    boundary = str(head.get_param("boundary", "")).encode("latin-1")
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        fields, found, data = part.partition(b"\r\n\r\n")
        if found and b"filename=" in fields.lower():
            return data
    raise bad_body("The form has no file.")
