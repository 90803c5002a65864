"""Language: what counts, which answers are whole, and jobs as long-running operations."""

import pytest
from msgspec import json

from sidecar.core.dialect import Completeness, Poll, Progress
from sidecar.core.key.canonical import read
from sidecar.core.model import Form, Usage
from sidecar.dialects.azure.language import AZURE_LANGUAGE

JOBS = "/language/analyze-text/jobs"
DOCUMENTS = {"documents": [{"id": "1", "language": "en", "text": "A" * 1001}, {"id": "2", "text": "B"}]}
ASKED = {"kind": "SentimentAnalysis", "parameters": {"modelVersion": "latest"}, "analysisInput": DOCUMENTS}
TASKS = [{"kind": "SentimentAnalysis", "taskName": "a"}, {"kind": "EntityRecognition", "parameters": {}}]
JOB = {"displayName": "mine", "analysisInput": DOCUMENTS, "tasks": TASKS}
RESULTS = {"documents": [{"id": "1"}, {"id": "2"}], "errors": [], "modelVersion": "2024-11-01"}
DONE = {
    "jobId": "a", "displayName": "mine", "createdDateTime": "2026-11-30T23:00:00Z",
    "lastUpdatedDateTime": "2026-11-30T23:00:01Z", "expirationDateTime": "2026-12-01T23:00:00Z", "status": "succeeded",
    "errors": [],
    "tasks": {
        "completed": 2, "failed": 0, "inProgress": 0, "total": 2,
        "items": [{"kind": "X", "status": "succeeded", "results": RESULTS}] * 2,
    },
}  # fmt: skip


def located(path, method=b"POST", query=b""):
    found = AZURE_LANGUAGE.locate(method, path)
    assert found is not None
    return found if found.by_query is None else found.by_query(found, query)


def material(asked, path="/language/:analyze-text"):
    return read(json.encode(asked), located(path), b"", b"k").material


@pytest.mark.parametrize(
    "changed",
    [
        {**ASKED, "parameters": {"loggingOptOut": True, "modelVersion": "latest"}},
        {"parameters": ASKED["parameters"], "displayName": "mine", "analysisInput": DOCUMENTS, "kind": ASKED["kind"]},
    ],
)
def test_what_does_not_count(changed):
    """Whether the service may log, what somebody calls a call, and the order of members."""
    assert material(ASKED) == material(changed)


@pytest.mark.parametrize(
    "changed",
    [
        {**ASKED, "kind": "EntityRecognition"},
        {**ASKED, "parameters": {"modelVersion": "2022-11-01"}},
        {**ASKED, "parameters": {**ASKED["parameters"], "stringIndexType": "UnicodeCodePoint"}},
        {**ASKED, "analysisInput": {"documents": DOCUMENTS["documents"][::-1]}},
        {**ASKED, "unknown": 1},
    ],
)
def test_what_counts(changed):
    """Everything else."""
    assert material(ASKED) != material(changed)


def test_jobs_count_their_tasks():
    """In their order, because the results have it; not the job's name, nor what may be logged."""
    quiet = [{**TASKS[0]}, {"parameters": {"loggingOptOut": False}, "kind": "EntityRecognition"}]

    assert material(JOB, JOBS) == material({**JOB, "displayName": "x", "tasks": quiet}, JOBS)
    assert material(JOB, JOBS) != material({**JOB, "tasks": TASKS[::-1]}, JOBS)


def test_charges():
    """Each begun thousand of characters is a record, once for each task."""
    assert Usage(records=3) == located("/language/:analyze-text").read(ASKED).charged
    assert Usage(records=6) == located(JOBS).read(JOB).charged


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Completeness.WHOLE),
        ({"errors": [{"id": "2", "error": {"code": "InvalidDocument"}}], "documents": [{"id": "1"}]},
         Completeness.FAILED),
        ({"documents": [{"id": "1"}]}, Completeness.MISSHAPEN),
        ({"documents": []}, Completeness.MISSHAPEN),
    ],
)  # fmt: skip
def test_whole_answers(changed, expected):
    """The service answers 200 with a text that has failed; such an answer is not kept."""
    found = located("/language/:analyze-text")
    body = json.encode({"kind": "SentimentAnalysisResults", "results": {**RESULTS, **changed}})
    judged = found.answers.judged(body, Form.WHOLE, found.read(ASKED), "application/json")

    assert expected is judged.complete
    assert "2024-11-01" == judged.model


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Completeness.WHOLE),
        ({"status": "partiallyCompleted"}, Completeness.FAILED),
        ({"nextLink": "https://x/language/analyze-text/jobs/a?$skip=20"}, Completeness.UNFINISHED),
        ({"errors": [{"code": "x"}]}, Completeness.FAILED),
        ({"tasks": {**DONE["tasks"], "failed": 1}}, Completeness.FAILED),
        ({"tasks": {**DONE["tasks"], "total": 3}}, Completeness.MISSHAPEN),
        ({"tasks": {**DONE["tasks"], "items": []}}, Completeness.MISSHAPEN),
        ({"tasks": {"total": 1, "items": [{"status": "failed", "results": RESULTS}]}}, Completeness.FAILED),
        ({"tasks": {"total": 1, "items": [{"status": "succeeded", "results": {**RESULTS, "errors": [{}]}}]}},
         Completeness.FAILED),
    ],
)  # fmt: skip
def test_whole_jobs(changed, expected):
    """Whole is what has succeeded in each task, for each text, and is all on one page."""
    found = located(JOBS)

    body = json.encode({**DONE, **changed})
    assert expected is found.answers.judged(body, Form.WHOLE, found.read(JOB), "application/json").complete


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("notStarted", Progress.RUNNING), ("running", Progress.RUNNING), ("cancelling", Progress.RUNNING),
        ("succeeded", Progress.SUCCEEDED), ("failed", Progress.FAILED), ("cancelled", Progress.FAILED),
        ("partiallyCompleted", Progress.FAILED), ("made-up", Progress.UNKNOWN),
    ],
)  # fmt: skip
def test_states(status, expected):
    """The states of a job."""
    operation = located(JOBS).operation

    assert expected is operation.progress(json.encode({"status": status}))


def test_polls():
    """Where a job is polled, and what is shown to somebody else, at another time."""
    operation = located(JOBS).operation
    shown = json.decode(operation.present(json.encode(DONE), "b", "2026-12-01T01:00:00Z"))
    begun = json.decode(operation.running("b", "2026-12-01T01:00:00Z"))

    assert f"{JOBS}/a?api-version=2023-04-01".encode() == operation.poll(JOBS, b"x=1&api-version=2023-04-01", "a")
    assert {
        **DONE, "jobId": "b", "displayName": "", "createdDateTime": "2026-12-01T01:00:00Z",
        "lastUpdatedDateTime": "2026-12-01T01:00:00Z", "expirationDateTime": "2026-12-02T01:00:00Z",
    } == shown  # fmt: skip
    assert Progress.RUNNING is operation.progress(json.encode(begun))
    assert ("b", shown["expirationDateTime"]) == (begun["jobId"], begun["expirationDateTime"])


@pytest.mark.parametrize(
    ("query", "part"),
    [
        (b"", ""), (b"api-version=2023-04-01", ""), (b"showStats=false", ""), (b"showStats=true", "statistics"),
        (b"$top=5", "page"), (b"%24skip=5&api-version=2023-04-01", "page"), (b"showStats=true&top=1", "page"),
    ],
)  # fmt: skip
def test_parts(query, part):
    """Statistics, and pages, are not the result."""
    assert Poll("a-1", part) == located(f"{JOBS}/a-1", b"GET", query).poll
    assert Poll("a-1", part) == located("/language/analyze-conversations/jobs/a-1", b"GET", query).poll
