"""
Long-running operations of Azure's AI services: what their polls are, and what the answers to these say.

The rule: of a poll's answer only the members of its top level are read. The result, which may be large, stays byte for
byte. Source: REST reference of Document Intelligence 2023-07-31 and 2024-11-30, Content Understanding 2025-11-01 and
Computer Vision 3.2, and what the SDKs of these do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import Answers, BodyForm, Completeness, Endpoint, Kind, Progress
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Facts, Form, Usage
from sidecar.dialects.azure.ai_services import nothing
from sidecar.dialects.plain import NULL, OPAQUE, begins, document, failure_of, is_null, is_utf8

_T = TypeVar("_T")

ID: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
"""The id of an operation in a path."""

_PROGRESS: Final[Mapping[str, Progress]] = MappingProxyType({
    "notstarted": Progress.RUNNING, "running": Progress.RUNNING, "succeeded": Progress.SUCCEEDED,
    "failed": Progress.FAILED, "canceled": Progress.FAILED, "cancelled": Progress.FAILED, "skipped": Progress.FAILED,
    "validationfailed": Progress.FAILED,
})  # fmt: skip
"""What the states mean, in lower case, as SDKs compare them."""

_NO_MORE: Final[Mapping[str, Progress]] = MappingProxyType({})
_NAME: Final = re.compile(rb'[{,]?[ \t\n\r]*+"((?:[^"\\]|\\.)*+)"[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_SLASHES: Final = re.compile(r"/{2,}")
_BLANKS: Final = re.compile(rb"[ \t\n\r]*+")
_TIMES: Final = ("createdDateTime", "lastUpdatedDateTime")


class _PollStatus(Struct, gc=False):
    status: str = ""


class LastPoll(Struct, gc=False, rename="camel"):
    """What a poll's answer has once the operation has ended; the result stands in one of the last two."""

    status: str = ""
    error: Raw = NULL
    analyze_result: Raw = NULL
    result: Raw = NULL


_ENDS: Final = MappingProxyType({
    Progress.FAILED: Completeness.FAILED, Progress.RUNNING: Completeness.UNFINISHED,
    Progress.UNKNOWN: Completeness.UNKNOWN_FINISH,
})  # fmt: skip
_STATUS: Final = msgspec.json.Decoder(_PollStatus)
_FINAL: Final = msgspec.json.Decoder(LastPoll)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Raw])
_encode: Final = msgspec.json.Encoder().encode


POLL: Final = Endpoint("operation", Kind.OTHER, BodyForm.NONE, nothing, OPAQUE, generating=False)
"""A call that asks about an operation, or deletes its result."""


def progress(body: bytes, more: Mapping[str, Progress] = _NO_MORE) -> Progress:
    """What a poll's answer says of its operation. *more*: states of this service alone, in lower case."""
    try:
        state = _STATUS.decode(body).status.lower()
        return _PROGRESS.get(state) or more.get(state, Progress.UNKNOWN)
    except UNREADABLE:
        return Progress.UNKNOWN


def present(*ids: str) -> Callable[[bytes, str, str], bytes]:
    """
    What makes a poll's answer that of another operation at another time. *ids*: the members that hold the operation's
    id. Times are those of the operation; a time within the result is part of the result.
    """

    def presented(body: bytes, operation: str, at: str) -> bytes:
        return with_members(body, {**dict.fromkeys(ids, operation), **dict.fromkeys(_TIMES, at)})

    return presented


def with_members(body: bytes, texts: Mapping[str, str]) -> bytes:
    """
    *body*, a JSON object, with other texts in those of its top-level members that *texts* names and that are strings;
    all else byte for byte. A body that cannot be read so is returned as it is.
    """
    try:
        members = _MEMBERS.decode(body)
    except UNREADABLE:
        return body
    pieces: list[bytes | memoryview] = []
    whole = memoryview(body)
    done = 0
    at = _end(_BLANKS, body, 0)
    for name, value in members.items():
        found = _NAME.match(body, at)
        if found is None or found[1] != name.encode():
            return body  # an escape in a name, or a name that stands there twice
        start = found.end()
        end = start + memoryview(value).nbytes
        if name in texts and begins(value, b'"'):
            pieces += (whole[done:start], _encode(texts[name]))
            done = end
        at = _end(_BLANKS, body, end)
    if body[at : at + 1] != b"}":
        return body  # as above
    return b"".join([*pieces, whole[done:]])


def running(**members: str) -> Callable[[str, str], bytes]:
    """
    What makes a poll's answer while the operation runs, from its id and the time of its beginning. *members* are those
    of the answer; ``{id}`` and ``{at}`` in them stand for these.
    """

    def made(operation: str, at: str) -> bytes:
        return _encode({name: text.format(id=operation, at=at) for name, text in members.items()})

    return made


def answers(
    result: Callable[[LastPoll], Raw],
    *,
    usage: Callable[[Raw], Usage],
    model: Callable[[Raw], str],
    parts: Callable[[Raw], bool] = lambda _: False,
) -> Answers:
    """
    The answers of operations: what their last polls say. *result* gives the member with the result, which *usage* and
    *model* read. *parts*: whether it has parts that the service gives out one by one under the operation's id.
    """

    def read(body: bytes, form: Form) -> Raw:
        try:
            return result(_FINAL.decode(body)) if form is Form.WHOLE else NULL
        except UNREADABLE:
            return NULL

    def complete(body: bytes, form: Form, _facts: Facts, _media: str = "") -> Completeness:
        if form is not Form.WHOLE:
            return Completeness.UNREADABLE
        try:
            found = _FINAL.decode(body)
        except UNREADABLE:
            return failure_of(body)
        if not is_null(found.error):
            return Completeness.FAILED
        state = _PROGRESS.get(found.status.lower(), Progress.UNKNOWN)
        if state is not Progress.SUCCEEDED:
            return _ENDS[state] if found.status else Completeness.MISSHAPEN
        if not begins(result(found), b"{"):
            return Completeness.MISSHAPEN
        if not is_utf8(body):
            return Completeness.UNREADABLE
        return Completeness.PARTS if parts(result(found)) else Completeness.WHOLE

    return replace(
        document(complete),
        usage=lambda body, form: usage(read(body, form)),
        model=lambda body, form: model(read(body, form)),
        finish=lambda body, _form: _STATUS.decode(body).status,
        documents=True,
    )


def decoded(result: Raw, kind: type[_T]) -> _T | None:
    """*result* as *kind*, None where it is of another form."""
    try:
        return msgspec.json.decode(result, type=kind)
    except UNREADABLE:
        return None


def single_slashes(path: str) -> str:
    """*path* without doubled slashes, which an SDK writes if its endpoint ends in one."""
    return _SLASHES.sub("/", path)


def target(path: str, query: bytes) -> bytes:
    """The target of a poll: *path*, and of the query of the call that began the operation its version alone."""
    versions = [member for member in query.split(b"&") if member.partition(b"=")[0].lower() == b"api-version"]
    return b"?".join((path.encode("latin-1"), *versions[:1]))


def _end(pattern: re.Pattern[bytes], text: bytes, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
