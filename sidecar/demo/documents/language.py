"""
The jobs of Language; there is no recording of them.

The rule: a job is the JSON of its call, its document the texts in it. Tasks whose results the stand-in does not know
how to make are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from sidecar.demo.canned import Json
from sidecar.demo.documents.pages import digest_of
from sidecar.demo.documents.refusals import bad_body, error_of
from sidecar.demo.documents.service import (
    FAILED,
    ID,
    Analysis,
    AnalysisAsk,
    AnalysisTimes,
    DocumentService,
)

_RECORD = 1000
"""Characters of a text record, by which a job is billed."""


def _mark(text: str) -> str:
    """A word that only this text has."""
    return digest_of(text.encode())[:16]


def _entities(text: str) -> Json:
    words = text.split()
    entity = {"text": words[0], "category": "Other", "offset": text.index(words[0]), "length": len(words[0])}
    return {"entities": [{**entity, "confidenceScore": 0.9}]}


def _key_phrases(text: str) -> Json:
    return {"keyPhrases": [*text.split()[:3], _mark(text)]}


def _sentiment(text: str) -> Json:
    scores = {"positive": 0.1, "neutral": 0.8, "negative": 0.1}
    sentence = {"sentiment": "neutral", "confidenceScores": scores, "offset": 0, "length": len(text), "text": text}
    return {"sentiment": "neutral", "confidenceScores": scores, "sentences": [sentence]}


def _personal(text: str) -> Json:
    return {"redactedText": "*" * len(text), **_entities(text)}


def _sentences(text: str) -> Json:
    return {"sentences": [{"text": text, "rankScore": 1.0, "offset": 0, "length": len(text)}]}


_TASKS: Final[Mapping[str, tuple[str, Callable[[str], Json]]]] = MappingProxyType({
    "EntityRecognition": ("EntityRecognitionLROResults", _entities),
    "KeyPhraseExtraction": ("KeyPhraseExtractionLROResults", _key_phrases),
    "SentimentAnalysis": ("SentimentAnalysisLROResults", _sentiment),
    "PiiEntityRecognition": ("PiiEntityRecognitionLROResults", _personal),
    "ExtractiveSummarization": ("ExtractiveSummarizationLROResults", _sentences),
    "CustomEntityRecognition": ("CustomEntityRecognitionLROResults", _entities),
})  # fmt: skip
"""The kind of a task's result, and what it says of one text."""


def _texts(members: Json) -> list[Json]:
    """The documents of a job."""
    given = members.get("analysisInput")
    texts: object = given.get("documents") if isinstance(given, dict) else None
    if not isinstance(texts, list) or not texts or not all(map(_is_text, texts)):
        raise bad_body("The request has no documents.")
    return texts


def _is_text(found: object) -> bool:
    if not isinstance(found, dict):
        return False
    text = found.get("text")
    return isinstance(found.get("id"), str) and isinstance(text, str) and bool(text.strip())


def _check(ask: AnalysisAsk) -> None:
    tasks = ask.members.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise bad_body("The request has no tasks.")
    for task in tasks:
        if not isinstance(task, dict) or task.get("kind") not in _TASKS:
            raise bad_body("The demo provider does not know this kind of task.")
    _texts(ask.members)


def _analyse(_: bytes, ask: AnalysisAsk) -> Analysis:
    texts = _texts(ask.members)
    items = [_item(task, texts) for task in ask.members["tasks"]]
    records = sum(-(-len(each["text"]) // _RECORD) for each in texts) * len(items)
    return Analysis({"items": items}, records, "language")


def _item(task: Json, texts: list[Json]) -> Json:
    kind, say = _TASKS[task["kind"]]
    model: Any = (task.get("parameters") or {}).get("modelVersion", "latest")
    return {
        "kind": kind,
        "taskName": task.get("taskName", ""),
        "status": "succeeded",
        "results": {
            "documents": [{"id": each["id"], **say(each["text"]), "warnings": []} for each in texts],
            "errors": [],
            "modelVersion": "2023-09-01" if model == "latest" else model,
        },
    }


def _job(status: str, number: str, times: AnalysisTimes, ask: AnalysisAsk) -> Json:
    named = {"displayName": ask.members["displayName"]} if ask.members.get("displayName") else {}
    return {
        "jobId": number, "lastUpdatedDateTime": times.updated, "createdDateTime": times.created,
        "expirationDateTime": times.expires, "status": status, "errors": [], **named,
    }  # fmt: skip


def _running(number: str, times: AnalysisTimes, ask: AnalysisAsk) -> Json:
    total = len(ask.members["tasks"])
    tasks = {"completed": 0, "failed": 0, "inProgress": total, "total": total, "items": []}
    return {**_job("running", number, times, ask), "tasks": tasks}


def _succeeded(number: str, times: AnalysisTimes, ask: AnalysisAsk, result: Json) -> Json:
    items = [{**item, "lastUpdateDateTime": times.updated} for item in result["items"]]
    tasks = {"completed": len(items), "failed": 0, "inProgress": 0, "total": len(items), "items": items}
    return {**_job("succeeded", number, times, ask), "tasks": tasks}


def _failed(number: str, times: AnalysisTimes, ask: AnalysisAsk) -> Json:
    total = len(ask.members["tasks"])
    tasks = {"completed": 0, "failed": total, "inProgress": 0, "total": total, "items": []}
    return {**_job("failed", number, times, ask), "errors": [error_of(*FAILED)], "tasks": tasks}


def texts_of(members: Json) -> bytes:
    """The document of a job: its texts, however their JSON is written."""
    return json.dumps(members.get("analysisInput"), sort_keys=True).encode()


_START: Final = re.compile(r"/language/analyze-text/jobs(?P<model>)", re.IGNORECASE)
_RESULT: Final = re.compile(rf"/language/analyze-text/jobs/(?P<id>{ID})(?P<part>)", re.IGNORECASE)

LANGUAGE: Final = DocumentService(
    name="language",
    start=_START,
    result=_RESULT,
    location=lambda path, number: f"{path}/{number}",
    check=_check,
    analyse=_analyse,
    running=_running,
    succeeded=_succeeded,
    failed=_failed,
    carries=False,
    deletes=False,
)
