"""
The golden keys: one file a request in ``golden/``, with its canonical form and its key.

A case is the key's version, a blank line, a request, a line of dashes, the canonical form, a line of dashes, and the
key's proof and address. Run by hand (``python tests/core/key/regenerate_golden.py``) it fills in new cases, which are a
blank line and a request, and writes the old ones anew, but only when ``KEY_VERSION`` has changed: a key that changes
under an unchanged version would be a fleet's cache silently flushed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

from sidecar.core.dialect import Answers, BodyForm, Documents, Endpoint, Kind, Members, Shape
from sidecar.core.key.canonical import read
from sidecar.core.key.fingerprint import KEY_VERSION, fingerprint, partition_of
from sidecar.core.model import Facts
from sidecar.core.request.principal import counted_query
from sidecar.core.request.roles import counted_value

FOLDER = Path(__file__).parent / "golden"
RULER = "-" * 40
SECRET = b"a secret of the golden keys only"
IGNORED = frozenset({"key"})


def facts_of(members: Members) -> Facts:
    return Facts(model=str(members.get("model", "")))


def unasked(*_: object) -> NoReturn:
    """Nobody asks a request's reader about answers."""
    raise AssertionError


def _endpoint(name: str, body: BodyForm, shape: Shape) -> Endpoint:
    answers = Answers(unasked, unasked, unasked, unasked, unasked, unasked)
    return Endpoint(name, Kind.OTHER, body, facts_of, answers, shape)


MESSAGE = Shape(inside={"content": Shape(), "tool_calls": Shape(inside={"function": Shape()})})
CHAT = Shape(
    drop=frozenset({"user", "stream", "stream_options"}),
    inside={"messages": MESSAGE, "tools": Shape(inside={"function": Shape()}), "response_format": Shape()},
)
ENDPOINTS = {
    "/v1/chat/completions": _endpoint("chat", BodyForm.JSON, CHAT),
    "/v1/audio/transcriptions": _endpoint("transcription", BodyForm.MULTIPART, Shape()),
    "/v1/ocr": _endpoint("ocr", BodyForm.RAW, Shape()),
    "/v1/documents": replace(
        _endpoint("documents", BodyForm.DOCUMENT, Shape()),
        documents=Documents(frozenset({"base64Source"}), frozenset({"urlSource"})),
        uncounted=frozenset({b"content-type"}),
    ),
    "/v1/models": _endpoint("models", BodyForm.NONE, Shape()),
}


class Case(NamedTuple):
    """A case as it is on disk; *version*, *form* and *key* are empty in a new one."""

    version: str
    request: str
    form: str
    key: str


def load(path: Path) -> Case:
    version, _, rest = path.read_text("utf-8").partition("\n")
    request, form, key = (*(part.strip("\n") for part in rest.split(f"\n{RULER}\n")), "", "")[:3]
    return Case(version, request, form, key)


def made(request: str) -> Case:
    """
    The case of a request.

    Its lines are: method and target; headers, of which ``partition``, ``service`` and ``resource`` stand for what is
    derived elsewhere, and every one counts; a blank line; the body, with CRLF if it is multipart.
    """
    head, _, body = request.partition("\n\n")
    first, *lines = head.split("\n")
    method, target = first.split(" ")
    path, _, query = target.partition("?")
    headers = dict(line.split(": ", 1) for line in lines)
    content_type = headers.get("content-type", "")
    partition, service, resource = (headers.pop(name, "") for name in ("partition", "service", "resource"))
    if content_type.startswith("multipart"):
        body = body.replace("\n", "\r\n")
    endpoint = ENDPOINTS[path]
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    reading = read(body.encode(), endpoint, content_type.encode(), SECRET)
    key = fingerprint(
        SECRET,
        partition=partition_of(SECRET, partition.encode()),
        service=service or "openai",
        resource=resource,
        endpoint=endpoint.name,
        method=method.encode(),
        path=path,
        query=counted_query(query.encode(), IGNORED),
        headers=tuple((name, counted_value(name, value)) for name, value in fields if name not in endpoint.uncounted),
        model=reading.facts.model,
        reading=reading,
    )
    form = f"{reading.tag.decode()}\n{reading.facts.bypass or reading.material.decode()}".rstrip("\n")
    found = "bypass" if reading.facts.bypass else f"{key.proof.hex()}\n{key.address.hex()}"
    return Case(f"key version {KEY_VERSION}", request, form, found)


def main() -> None:
    for path in sorted(FOLDER.glob("*.txt")):
        old = load(path)
        new = made(old.request)
        if new.version == old.version and new != old:
            sys.exit(f"{path.name}: another key under the same version; change KEY_VERSION, or what broke the key")
        path.write_text(f"{new.version}\n\n{new.request}\n{RULER}\n{new.form}\n{RULER}\n{new.key}\n", "utf-8")


if __name__ == "__main__":
    main()
