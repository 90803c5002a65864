"""Polls of long-running operations: what they say, and how one becomes another's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.dialect import Completeness, Progress
from sidecar.core.model import Facts, Form
from sidecar.dialects import DIALECTS
from sidecar.dialects.azure.operations import progress, with_members

DATA = Path(__file__).parents[3] / "../shared/data/documents"
DOCUMENTS = DIALECTS["azure-documents"]
ANALYZE = DOCUMENTS.locate(b"POST", "/documentintelligence/documentModels/prebuilt-layout:analyze")
UNDERSTAND = DOCUMENTS.locate(b"POST", "/contentunderstanding/analyzers/prebuilt-layout:analyze")
READ = DIALECTS["azure-vision"].locate(b"POST", "/vision/v3.2/read/analyze")
AT = "2026-12-01T00:00:00Z"


def complete(endpoint, body, form=Form.WHOLE):
    return endpoint.answers.complete(body, form, Facts(), "application/json")


def recorded():
    """Each recorded poll of an analysis: its name, its answer as it was sent, and the endpoint that was polled for."""
    for path in sorted(DATA.glob("*.json")):
        for at, entry in enumerate(json.loads(path.read_text())["Entries"]):
            place = "/" + entry["RequestUri"].split("/", 3)[3].partition("?")[0]
            found = DOCUMENTS.locate(entry["RequestMethod"].encode(), place)
            if found is not None and found.poll is not None and isinstance(entry["ResponseBody"], dict):
                body = json.dumps(entry["ResponseBody"], ensure_ascii=False, separators=(",", ":")).encode()
                yield f"{path.stem} {at}", body, entry["ResponseBody"]


def test_recordings():
    """The last poll of each recorded operation is whole and tells its pages; those before it are not."""
    if not DATA.is_dir():
        pytest.skip("the shared recordings of documents are not here")
    found = [
        (said["status"], progress(body), complete(ANALYZE, body), ANALYZE.answers.usage(body, Form.WHOLE).pages,
         ANALYZE.answers.model(body, Form.WHOLE))
        for _, body, said in recorded()
    ]  # fmt: skip
    done = [each for each in found if each[0] == "succeeded"]

    assert {("running", Progress.RUNNING, Completeness.UNFINISHED, 0, "")} == {*found} - {*done}
    assert {Progress.SUCCEEDED} == {each[1] for each in done}
    assert {Completeness.WHOLE} == {each[2] for each in done}
    assert [1, 1, 1, 4] == sorted(each[3] for each in done)
    assert {"prebuilt-invoice", "prebuilt-layout", "prebuilt-receipt"} < {each[4] for each in done}


def test_recordings_for_another():
    """Only the times are others; the result stays byte for byte."""
    if not DATA.is_dir():
        pytest.skip("the shared recordings of documents are not here")
    polls = [*recorded()]
    for _, body, said in polls:
        shown = ANALYZE.operation.present(body, "id", AT)

        assert {**said, "createdDateTime": AT, "lastUpdatedDateTime": AT} == json.loads(shown)
        assert body[body.find(b'"analyzeResult"') :] == shown[shown.find(b'"analyzeResult"') :]

    assert len(polls) > 10


STATES = {
    **dict.fromkeys(["notStarted", "NotStarted", "running", "Running"], (Progress.RUNNING, Completeness.UNFINISHED)),
    **dict.fromkeys(["succeeded", "Succeeded"], (Progress.SUCCEEDED, Completeness.WHOLE)),
    **dict.fromkeys(["failed", "Failed", "canceled", "Cancelled", "skipped"], (Progress.FAILED, Completeness.FAILED)),
    "partiallyCompleted": (Progress.UNKNOWN, Completeness.UNKNOWN_FINISH),
    "done": (Progress.UNKNOWN, Completeness.UNKNOWN_FINISH),
    "": (Progress.UNKNOWN, Completeness.MISSHAPEN),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("endpoint", "member"), [(ANALYZE, "analyzeResult"), (READ, "analyzeResult"), (UNDERSTAND, "result")]
)
def test_states(endpoint, member, state):
    """States are compared without case, as the SDKs do; a word that is not known is no good end."""
    body = json.dumps({"status": state, member: {}}).encode()
    judged = endpoint.answers.judged(body, Form.WHOLE, Facts(), "application/json")

    assert STATES[state] == (endpoint.operation.progress(body), judged.complete)
    assert (state if judged.complete is Completeness.UNKNOWN_FINISH else "") == judged.finish


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"status":"succeeded"}', Completeness.MISSHAPEN),
        (b'{"status":"succeeded","analyzeResult":null}', Completeness.MISSHAPEN),
        (b'{"status":"succeeded","analyzeResult":[]}', Completeness.MISSHAPEN),
        (b'{"status":"succeeded","result":{}}', Completeness.MISSHAPEN),
        (b'{"status":"succeeded","analyzeResult":{},"error":{"code":"x"}}', Completeness.FAILED),
        (b'{"status":"succeeded","analyzeResult":{},"error":null}', Completeness.WHOLE),
        (b'{"error":{"code":"NotFound","message":"x"}}', Completeness.FAILED),
        (b'{"status":1,"analyzeResult":{}}', Completeness.MISSHAPEN),
        (b'{"status":"succeeded","analyzeResult":{"content":"\xff"}}', Completeness.UNREADABLE),
        (b'{"status":"succeeded","analyzeResult":{"cont', Completeness.UNREADABLE),
        (b"<html>", Completeness.MISSHAPEN),
        (b"", Completeness.MISSHAPEN),
    ],
)
def test_what_is_not_whole(body, expected):
    """Nothing else is a result."""
    assert expected == complete(ANALYZE, body)
    assert Progress.SUCCEEDED is progress(body) or expected is not Completeness.WHOLE
    assert Completeness.UNREADABLE == complete(ANALYZE, body, Form.EVENTS)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"status":null}', b'{"status":["running"]}', b"<html>"])
def test_polls_that_cannot_be_read(body):
    """Nothing is guessed, and such a body is handed on as it is."""
    assert Progress.UNKNOWN is progress(body)
    assert body == ANALYZE.operation.present(body, "id", AT)


BLANK = st.text(" \t\n\r", max_size=2)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["id", "createdDateTime", "a", "ä", "result"]), VALUES), st.data())
def test_members_are_replaced_in_place(members, data):
    """Strings of these names have another text; every other byte is as it was, blanks included."""
    texts = {"id": 'an "id"', "createdDateTime": AT}

    def written(replaced):
        pieces = []
        for (name, value), (before, middle, after, behind) in zip(members.items(), blanks, strict=True):
            new = texts[name] if replaced and name in texts and isinstance(value, str) else value
            pieces.append(
                f"{before}{json.dumps(name, ensure_ascii=False)}{middle}:{after}"
                f"{json.dumps(new, ensure_ascii=False)}{behind}"
            )
        return ("{" + ",".join(pieces) + "}").encode("utf-8", "surrogatepass")

    blanks = [tuple(data.draw(BLANK) for _ in range(4)) for _ in members]

    assert written(replaced=True) == with_members(written(replaced=False), texts)


@pytest.mark.parametrize("body", [b'{"id":"a","id":"b"}', b'{"\\u0069d":"a"}', b'{"a":1,"id":"x","a":2}'])
def test_odd_names_change_nothing(body):
    """Of a name that stands there twice, or with an escape, nobody knows what it would be."""
    assert body == with_members(body, {"id": "new", "a": "new"})


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (ANALYZE, {"status": "running", "createdDateTime": AT, "lastUpdatedDateTime": AT}),
        (READ, {"status": "running", "createdDateTime": AT, "lastUpdatedDateTime": AT}),
        (UNDERSTAND, {"id": "an-id", "status": "Running"}),
    ],
)
def test_while_it_runs(endpoint, expected):
    """What a poll is answered meanwhile, in the words of its service."""
    body = endpoint.operation.running("an-id", AT)

    assert expected == json.loads(body)
    assert Progress.RUNNING is endpoint.operation.progress(body)


def test_the_id_in_a_body():
    """Content Understanding says it in each poll."""
    body = b'{ "id": "theirs", "status": "Succeeded", "result": {"id": "theirs", "contents": []}}'

    assert body.replace(b'"theirs", "st', b'"ours", "st') == UNDERSTAND.operation.present(body, "ours", AT)


@pytest.mark.parametrize(
    ("endpoint", "path", "query", "expected"),
    [
        (ANALYZE, "/documentintelligence/documentModels/prebuilt-layout:analyze",
         b"_overload=analyzeDocument&api-version=2024-11-30&features=a&subscription-key=k",
         b"/documentintelligence/documentModels/prebuilt-layout/analyzeResults/R?api-version=2024-11-30"),
        (ANALYZE, "//documentintelligence//documentClassifiers/own:analyze", b"api-version=2024-11-30",
         b"/documentintelligence/documentClassifiers/own/analyzeResults/R?api-version=2024-11-30"),
        (ANALYZE, "/formrecognizer/documentModels/prebuilt-read:analyze", b"stringIndexType=x&api-version=2023-07-31",
         b"/formrecognizer/documentModels/prebuilt-read/analyzeResults/R?api-version=2023-07-31"),
        (ANALYZE, "/formrecognizer/documentModels/prebuilt-read:analyze", b"",
         b"/formrecognizer/documentModels/prebuilt-read/analyzeResults/R"),
        (UNDERSTAND, "/contentunderstanding/analyzers/prebuilt-layout:analyzeBinary",
         b"range=1&api-version=2025-11-01", b"/contentunderstanding/analyzerResults/R?api-version=2025-11-01"),
        (READ, "/vision/v3.2/read/analyze", b"language=en&subscription-key=k", b"/vision/v3.2/read/analyzeResults/R"),
    ],
)  # fmt: skip
def test_where_to_poll(endpoint, path, query, expected):
    """The target of a poll stands right after the authority, and has the version alone, never a credential."""
    assert expected == endpoint.operation.poll(path, query, "R")


def test_quantities():
    """What a result says of its price."""
    understood = {
        "analyzerId": "a",
        "contents": [{"kind": "document", "startPageNumber": 2, "endPageNumber": 4, "pages": []}, {"pages": [{}, {}]},
                     {"startTimeMs": 500, "endTimeMs": 3400}],
    }  # fmt: skip
    found = UNDERSTAND.answers.usage(json.dumps({"status": "Succeeded", "result": understood}).encode(), Form.WHOLE)
    read = {"modelVersion": "2022-04-30", "readResults": [{}, {}]}
    body = json.dumps({"status": "succeeded", "analyzeResult": read}).encode()

    assert (5, 3) == (found.pages, found.seconds)
    assert (2, "2022-04-30") == (READ.answers.usage(body, Form.WHOLE).pages, READ.answers.model(body, Form.WHOLE))
    assert 0 == READ.answers.usage(b"{}", Form.WHOLE).pages
    assert 0 == READ.answers.usage(b"{", Form.WHOLE).pages


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ([{"markdown": "text"}], Completeness.WHOLE),
        ([{"KeyFrameTimesMs": []}], Completeness.WHOLE),
        ([{"KeyFrameTimesMs": [1, 2]}], Completeness.PARTS),
        ([{"keyFrameTimesMs": [733]}], Completeness.PARTS),
        ([{"markdown": '![image](figures/1.1 "a chart")'}], Completeness.PARTS),
        ([{"markdown": "![](keyFrame.733.jpg)"}], Completeness.PARTS),
    ],
)
def test_results_with_files(contents, expected):
    """Key frames and figures stay at the service under the operation's id, so such a result is not kept."""
    body = json.dumps({"id": "i", "status": "Succeeded", "result": {"contents": contents}}).encode()

    assert expected == complete(UNDERSTAND, body)
