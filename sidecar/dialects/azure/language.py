"""
The dialect of Azure's Language service: texts analysed at once, and in jobs.

The rule: an answer is whole if no document in it has failed: the service answers 200 all the same. A project of one's
own is a model that can be trained again. Source: REST reference of Language 2023-04-01 and later.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Raw, Struct

from sidecar.core.dialect import (
    BodyForm,
    Completeness,
    Dialect,
    Endpoint,
    Kind,
    LongOperation,
    Members,
    Poll,
    Progress,
    Shape,
)
from sidecar.core.model import Facts, Usage
from sidecar.dialects.azure import operations
from sidecar.dialects.azure.ai_services import (
    CONTENT_TYPE,
    CUSTOM_MODEL,
    STATEFUL,
    dialect,
    inner,
    objects,
    records,
)
from sidecar.dialects.azure.answers import Said, has, is_list, is_number_of, is_object, shaped
from sidecar.dialects.azure.query import canonical, values

_LASTS: Final = timedelta(hours=24)
"""How long the service keeps the result of a job."""

_JOBS: Final = re.compile(rf"(/language/analyze-(?:text|conversations)/jobs)(?:/({operations.ID}))?", re.ASCII)

_STATES: Final = MappingProxyType({
    "cancelling": Progress.RUNNING, "partiallycompleted": Progress.FAILED, "partiallysucceeded": Progress.FAILED,
})  # fmt: skip
"""States that only jobs have. A job of which a part has failed is passed on, and not kept."""

_UNCOUNTED = Shape(drop=frozenset({"loggingOptOut"}))

_SHAPE: Final = Shape(
    drop=frozenset({"displayName"}),
    inside={
        "analysisInput": Shape(),
        "parameters": _UNCOUNTED,
        "tasks": Shape(inside={"parameters": _UNCOUNTED}),
    },
)


class _TextResults(Struct, gc=False, rename="camel"):
    documents: list[Raw] = []
    conversations: list[Raw] = []
    errors: list[Raw] = []
    model_version: str = ""


class _Analysed(Said, gc=False, kw_only=True):
    kind: str
    results: _TextResults


class _ConversationResult(Said, gc=False, kw_only=True):
    kind: str
    result: Raw


class _Replied(Said, gc=False, kw_only=True):
    answers: Raw


class _JobTask(Struct, gc=False):
    status: str = ""
    results: _TextResults | None = None


class _JobTasks(Struct, gc=False):
    failed: int = 0
    total: int = 0
    items: list[_JobTask] = []


class _JobResult(Struct, gc=False, kw_only=True, rename="camel"):
    status: str
    next_link: str | None = None
    errors: list[Raw] = []
    tasks: _JobTasks


def _results(found: _TextResults, facts: Facts) -> Completeness:
    """A result for each text; a text that failed is told among the errors."""
    if found.errors:
        return Completeness.FAILED
    return has(is_number_of(len(found.documents) + len(found.conversations), facts))


def _analysed(found: _Analysed, facts: Facts) -> Completeness:
    return _results(found.results, facts)


def _conversation(found: _ConversationResult, _facts: Facts) -> Completeness:
    return has(is_object(found.result))


def _replied(found: _Replied, _facts: Facts) -> Completeness:
    return has(is_list(found.answers))


def _job(found: _JobResult, facts: Facts) -> Completeness:
    """Each task of a job is whole. Of a result in several pages only the first is here."""
    if found.status.lower() != "succeeded" or found.errors or found.tasks.failed:
        return Completeness.FAILED
    if found.next_link:
        return Completeness.UNFINISHED
    tasks = found.tasks.items
    if not tasks or len(tasks) < found.tasks.total:
        return Completeness.MISSHAPEN
    for task in tasks:
        if task.status.lower() != "succeeded" or task.results is None:
            return Completeness.FAILED
        if (complete := _results(task.results, facts)) is not Completeness.WHOLE:
            return complete
    return Completeness.WHOLE


def _texts(members: Members) -> list[str]:
    """The texts of a call, a conversation being one."""
    given = inner(members.get("analysisInput"))
    found = [_text(document) for document in objects(given.get("documents"))]
    conversations = [*objects(given.get("conversations")), inner(given.get("conversationItem"))]
    for conversation in conversations:
        spoken = [_text(item) for item in objects(conversation.get("conversationItems"))]
        if conversation:
            found.append("".join(spoken) or _text(conversation))
    return found


def _text(document: Members) -> str:
    text = document.get("text")
    return text if isinstance(text, str) else ""


def _is_own(task: Members) -> bool:
    """Whether a task names a project of one's own."""
    parameters, kind = inner(task.get("parameters")), task.get("kind")
    own = parameters.get("projectName") or parameters.get("deploymentName")
    return bool(own) or (isinstance(kind, str) and kind.lower().startswith("custom"))


def _facts(members: Members, tasks: list[Members]) -> Facts:
    texts = _texts(members)
    needs = (CUSTOM_MODEL,) if any(map(_is_own, tasks)) else ()
    charged = Usage(records=records(texts) * len(tasks))
    return Facts(deterministic=True, needs=needs, expects=len(texts), charged=charged)


def _read(members: Members) -> Facts:
    return _facts(members, [members])


def _read_job(members: Members) -> Facts:
    return _facts(members, [*objects(members.get("tasks"))])


def _read_question(members: Members) -> Facts:
    texts = [_text(record) for record in objects(members.get("records"))]
    return Facts(deterministic=True, charged=Usage(records=records(texts)))


def _poll(path: str, query: bytes, operation: str) -> bytes:
    return operations.target(f"{path}/{operation}", query)


def _expiry(at: str) -> str:
    return f"{datetime.fromisoformat(at) + _LASTS:%Y-%m-%dT%H:%M:%SZ}"


def _present(body: bytes, operation: str, at: str) -> bytes:
    """The result under another id. The name that somebody gave to the job is theirs, and left empty."""
    return operations.with_members(body, {"jobId": operation, "displayName": "", **_times(at)})


def _times(at: str) -> dict[str, str]:
    return {
        "createdDateTime": at,
        "lastUpdatedDateTime": at,
        "lastUpdateDateTime": at,
        "expirationDateTime": _expiry(at),
    }


def _is_running(operation: str, at: str) -> bytes:
    state = {"completed": 0, "failed": 0, "inProgress": 1, "total": 1, "items": []}
    return msgspec.json.encode({"jobId": operation, **_times(at), "status": "running", "errors": [], "tasks": state})


_ANALYZE_TEXT: Final = Endpoint(
    "analyze-text",
    Kind.LANGUAGE,
    BodyForm.JSON,
    _read,
    shaped(_Analysed, _analysed, model=lambda found: found.results.model_version),
    _SHAPE,
    generating=False,
    query=canonical(),
    uncounted=CONTENT_TYPE,
)

_ANALYZE_CONVERSATIONS: Final = replace(
    _ANALYZE_TEXT, name="analyze-conversations", answers=shaped(_ConversationResult, _conversation)
)

_QUERY_TEXT: Final = replace(
    _ANALYZE_TEXT, name="query-text", read=_read_question, answers=shaped(_Replied, _replied), shape=Shape()
)

_JOB: Final = replace(
    _ANALYZE_TEXT,
    name="language-jobs",
    read=_read_job,
    answers=shaped(_JobResult, _job),
    operation=LongOperation(
        poll=_poll, progress=partial(operations.progress, more=_STATES), present=_present, running=_is_running
    ),
)


def _paged(endpoint: Endpoint, query: bytes) -> Endpoint:
    """A poll that asks for statistics, or for a page, asks for something else than the result."""
    assert endpoint.poll is not None
    asked = [name for name in ("showstats", "top", "$top", "skip", "$skip") if _asks(name, query)]
    part = "statistics" if asked == ["showstats"] else "page" if asked else ""
    return replace(endpoint, poll=Poll(endpoint.poll.id, part))


def _asks(name: str, query: bytes) -> bool:
    found = values(query, name)
    return bool(found) and (name != "showstats" or any(value.lower() != "false" for value in found))


_POLL: Final = replace(operations.POLL, by_query=_paged)

_OPERATIONS: Final = {
    "/language/:analyze-text": _ANALYZE_TEXT,
    "/language/:analyze-conversations": _ANALYZE_CONVERSATIONS,
    "/language/:query-text": _QUERY_TEXT,
}


def locate(method: bytes, path: str) -> Endpoint | None:
    """The operation at *path*, or None."""
    if method == b"POST" and (known := _OPERATIONS.get(path)) is not None:
        return known
    if (found := _JOBS.fullmatch(path)) is not None:
        if method == b"POST" and not found[2]:
            return _JOB
        if method == b"GET" and found[2]:
            return replace(_POLL, poll=Poll(found[2]))
    return STATEFUL if method == b"DELETE" or path.startswith("/language/") else None


AZURE_LANGUAGE: Final[Dialect] = dialect(
    "azure-language", locate, words=("LANGUAGE", "TEXT_ANALYTICS", "TEXTANALYTICS")
)
