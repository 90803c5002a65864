"""The stand-in's document services: forms of a document, keys, faults as told, counts and bills."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import aiohttp
import pytest
from yarl import URL

from sidecar.demo.documents.pages import digest_of, pdf
from sidecar.demo.provider import DemoProvider

DOCUMENT = pdf([["Amber Paper", "Invoice 4711"], ["Total 12.50"]])
ENCODED = base64.b64encode(DOCUMENT).decode()
BOUNDARY = "a-boundary"
FORM = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="note"\r\n\r\nnone\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n'
    "Content-Type: application/pdf\r\n\r\n"
).encode() + DOCUMENT + f"\r\n--{BOUNDARY}--\r\n".encode()  # fmt: skip
KEY = {"ocp-apim-subscription-key": "k"}
JSON = {"content-type": "application/json"}
DAY = 86_400.0

LAYOUT = "/documentintelligence/documentModels/prebuilt-layout:analyze?api-version=2024-11-30"
OLD = "/formrecognizer/documentModels/prebuilt-layout:analyze?api-version=2023-07-31"
ANALYZER = "/contentunderstanding/analyzers/prebuilt-layout:analyze?api-version=2025-11-01"
BINARY = "/contentunderstanding/analyzers/prebuilt-layout:analyzeBinary?api-version=2025-11-01"
READ = "/vision/v3.2/read/analyze"
JOBS = "/language/analyze-text/jobs?api-version=2023-04-01"

BYTES = (DOCUMENT, {"content-type": "application/octet-stream"})
IN_JSON = (json.dumps({"base64Source": ENCODED}).encode(), JSON)
IN_FORM = (FORM, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"})
AS_INPUT = (json.dumps({"inputs": [{"data": ENCODED}]}).encode(), JSON)
BY_URL = (b'{"url": "https://x.example/a.pdf?sig=secret"}', JSON)
TASKS = [
    {"kind": "KeyPhraseExtraction", "taskName": "0", "parameters": {"modelVersion": "latest"}},
    {"kind": "EntityRecognition", "taskName": "1"},
]
JOB = {"analysisInput": {"documents": [{"id": "0", "language": "en", "text": "Hello " * 200}]}, "tasks": TASKS}
AS_JOB = (json.dumps(JOB).encode(), JSON)

CALLS = {
    "v4": (LAYOUT, BYTES),
    "v3": (OLD, BYTES),
    "understanding": (BINARY, BYTES),
    "understanding-json": (ANALYZER, AS_INPUT),
    "vision": (READ, BYTES),
    "vision-url": (READ, BY_URL),
    "language": (JOBS, AS_JOB),
}


class Desk:
    """A stand-in, and somebody who calls it. *now*: its clock."""

    def __init__(self, session, now):
        self._session = session
        self._now = now
        self.provider = DemoProvider(clock=lambda: self._now)
        self.documents = self.provider.documents

    async def start(self):
        self._base = f"http://127.0.0.1:{await self.provider.start()}"

    def pass_time(self, seconds):
        self._now += seconds

    async def call(self, method, target, body=None, headers=KEY):
        """Status, headers, and the document or the bytes that came."""
        url = URL(target if target.startswith("http") else self._base + target, encoded=True)
        async with self._session.request(method, url, data=body, headers=headers) as response:
            found = await response.read()
            is_json = response.content_type == "application/json" and found
            return response.status, response.headers, json.loads(found) if is_json else found

    async def begin(self, target=LAYOUT, call=BYTES):
        """Where the analysis is."""
        status, headers, _ = await self.call("POST", target, call[0], KEY | call[1])
        assert 202 == status
        return headers["operation-location"]

    async def finish(self, where):
        """What the last poll says, and how many there were."""
        for polls in range(1, 10):
            _, headers, document = await self.call("GET", where)
            if "retry-after" not in headers:
                return document, polls
        raise AssertionError("it runs on")


@pytest.fixture
async def desk():
    async with aiohttp.ClientSession() as session:
        desk = Desk(session, 1_700_000_000.0)
        await desk.start()
        yield desk
        await desk.provider.stop()


@pytest.mark.parametrize(("target", "call"), CALLS.values(), ids=CALLS)
async def test_every_service(desk, target, call):
    """202 with an operation of its own, one poll that finds it running, and a result; counted once."""
    status, headers, _ = await desk.call("POST", target, call[0], KEY | call[1])
    where = headers["operation-location"]
    document, polls = await desk.finish(where)

    assert 202 == status
    assert "retry-after" not in headers
    assert UUID(headers["apim-request-id"]).hex in where.replace("-", "")
    assert 2 == polls == desk.documents.polls
    assert "succeeded" == document["status"].lower()
    assert (1, 1) == (desk.documents.asked, desk.documents.analyses.total())
    assert 1 == desk.provider.calls == desk.provider.counts["analyze"]


FORMS = {
    "bytes": (LAYOUT, BYTES),
    "base64": (LAYOUT, IN_JSON),
    "form": (LAYOUT, IN_FORM),
    "doubled-slash": (f"/{LAYOUT}", BYTES),
    "overload": (f"{LAYOUT}&_overload=analyzeDocument", BYTES),
    "upper-case": (LAYOUT.replace("documentModels", "documentmodels"), BYTES),
}


async def test_one_document_in_many_forms(desk):
    """It is the same document with the same result, and each analysis of it is billed."""
    found = [(await desk.finish(await desk.begin(target, call)))[0] for target, call in FORMS.values()]

    assert {digest_of(DOCUMENT): len(FORMS)} == desk.documents.analyses
    assert [found[0]["analyzeResult"]] * len(FORMS) == [each["analyzeResult"] for each in found]
    assert "Amber Paper\nInvoice 4711" in found[0]["analyzeResult"]["content"]
    assert (2 * len(FORMS), 20_000_000 * len(FORMS)) == (desk.documents.pages, desk.documents.spent)


async def test_bills(desk):
    """Pages at the price of the model; texts by the thousand characters, for each task."""
    for target, call in CALLS.values():
        await desk.begin(target, call)

    layouts, understood, read, job = 2 * 2 * 10_000_000, 2 * 2 * 5_000_000, 3 * 1_500_000, 2 * 2 * 1_000_000
    assert layouts + understood + read + job == desk.documents.spent
    assert 4 + 4 + 3 + 4 == desk.documents.pages


DIFFERENCES = ["&pages=1", "&outputContentFormat=markdown", "&stringIndexType=utf16CodeUnit", "&queryFields=Total"]


async def test_what_is_asked_for_shows(desk):
    """Pages, format, index type and query fields each make another result."""
    found = [(await desk.finish(await desk.begin(LAYOUT + more)))[0] for more in ["", *DIFFERENCES]]
    results = [json.dumps(each["analyzeResult"]) for each in found]

    assert len(results) == len(set(results))
    assert 1 == len(found[1]["analyzeResult"]["pages"])
    assert "markdown" == found[2]["analyzeResult"]["contentFormat"]
    assert "Total" in found[4]["analyzeResult"]["documents"][0]["fields"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, 401, id="none"),
        pytest.param({"ocp-apim-subscription-key": "invalid"}, 401, id="wrong-key"),
        pytest.param({"authorization": "Bearer invalid"}, 401, id="wrong-token"),
        pytest.param({"authorization": "Bearer t"}, 202, id="token"),
        pytest.param(KEY, 202, id="key"),
    ],
)
async def test_keys(desk, headers, expected):
    """A key or a token is needed."""
    status, *_ = await desk.call("POST", LAYOUT, DOCUMENT, headers)

    assert expected == status


REFUSED = {
    "locale": (f"{LAYOUT}&locale=notALanguage", BYTES, 400, "InvalidArgument"),
    "format": (f"{LAYOUT}&outputContentFormat=rtf", BYTES, 400, "InvalidArgument"),
    "pages": (f"{LAYOUT}&pages=x", BYTES, 400, "InvalidArgument"),
    "no-version": (LAYOUT.partition("?")[0], BYTES, 404, "404"),
    "no-model": (LAYOUT.replace("prebuilt-layout", ""), BYTES, 404, "404"),
    "unknown-model": (LAYOUT.replace("layout", "poem"), BYTES, 404, "NotFound"),
    "json-as-bytes": (LAYOUT, (IN_JSON[0], BYTES[1]), 400, "InvalidRequest"),
    "empty": (LAYOUT, (b"", BYTES[1]), 400, "InvalidRequest"),
    "no-base64": (LAYOUT, (b'{"base64Source": "*"}', JSON), 400, "InvalidRequest"),
    "no-source": (LAYOUT, (b"{}", JSON), 400, "InvalidArgument"),
    "two-sources": (LAYOUT, (b'{"base64Source": "QQ==", "urlSource": "https://x"}', JSON), 400, "InvalidArgument"),
    "no-json": (LAYOUT, (b"xx", JSON), 400, "InvalidArgument"),
    "no-file": (LAYOUT, (FORM.replace(b"filename", b"nickname"), IN_FORM[1]), 400, "InvalidArgument"),
    "two-inputs": (ANALYZER, (b'{"inputs": [{"data": "QQ=="}, {"data": "QQ=="}]}', JSON), 400, "InvalidArgument"),
    "no-texts": (JOBS, (json.dumps(JOB | {"analysisInput": {}}).encode(), JSON), 400, "InvalidArgument"),
    "no-tasks": (JOBS, (json.dumps(JOB | {"tasks": []}).encode(), JSON), 400, "InvalidArgument"),
    "unknown-task": (JOBS, (json.dumps(JOB | {"tasks": [{"kind": "X"}]}).encode(), JSON), 400, "InvalidArgument"),
}


@pytest.mark.parametrize(("target", "call", "status", "code"), REFUSED.values(), ids=REFUSED)
async def test_refused(desk, target, call, status, code):
    """Nothing is analysed, and the error says what was wrong."""
    found, _, document = await desk.call("POST", target, call[0], KEY | call[1])

    assert (status, code) == (found, document["error"]["code"])
    assert 0 == desk.documents.analyses.total()


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_faults_of_polls(desk, status):
    """As many polls as told are refused, and the result is there after them."""
    desk.documents.faults.polls.extend([status] * 2)
    where = await desk.begin()
    refused = [await desk.call("GET", where) for _ in range(2)]
    document, _ = await desk.finish(where)

    assert [status] * 2 == [each[0] for each in refused]
    assert ["1"] * 2 == [each[1]["retry-after"] for each in refused]
    assert "succeeded" == document["status"]


async def test_faults_of_starts(desk):
    """A refused call is asked, and not analysed."""
    desk.documents.faults.starts.append(503)
    status, *_ = await desk.call("POST", LAYOUT, DOCUMENT)
    await desk.begin()

    assert 503 == status
    assert (2, 1) == (desk.documents.asked, desk.documents.analyses.total())


@pytest.mark.parametrize(("target", "call"), CALLS.values(), ids=CALLS)
async def test_failing_documents(desk, target, call):
    """Status 200 and ``failed``, with code and message; it costs nothing."""
    desk.documents.faults.failing = b"e"
    document, _ = await desk.finish(await desk.begin(target, call))
    error = document.get("error") or document["errors"][0]

    assert "failed" == document["status"].lower()
    assert error["code"]
    assert error["message"]
    assert (0, 0) == (desk.documents.analyses.total(), desk.documents.spent)


async def test_slow_and_paused(desk):
    """An analysis runs for as many polls as told, or for as long as the services are paused."""
    desk.documents.faults.running = 3
    _, polls = await desk.finish(await desk.begin())
    desk.documents.faults.paused = True
    where = await desk.begin()
    running = [(await desk.call("GET", where))[2]["status"] for _ in range(5)]
    desk.documents.faults.paused = False
    document, _ = await desk.finish(where)

    assert 4 == polls
    assert ["running"] * 5 == running
    assert "succeeded" == document["status"]


async def test_parts(desk):
    """The searchable PDF and the pictures of figures are there for who asked for them, once it is done."""
    plain, asked = await desk.begin(), await desk.begin(f"{LAYOUT}&output=pdf,figures")
    early = await desk.call("GET", asked.replace("?", "/pdf?"))
    for where in (plain, asked):
        await desk.finish(where)
    found = {
        (name, part): await desk.call("GET", where.replace("?", f"/{part}?"))
        for name, where in {"plain": plain, "asked": asked}.items()
        for part in ("pdf", "figures/1.1", "figures/9.9")
    }

    assert 404 == early[0]
    assert [404, 404, 404, 200, 200, 404] == [each[0] for each in found.values()]
    assert ("application/pdf", DOCUMENT) == (found["asked", "pdf"][1]["content-type"], found["asked", "pdf"][2])
    assert found["asked", "figures/1.1"][2].startswith(b"\x89PNG")


async def test_gone(desk):
    """A result is kept for a day; one that was deleted is gone at once; those of another service are not found."""
    kept, deleted = await desk.begin(), await desk.begin()
    other = kept.replace("documentintelligence/documentModels/prebuilt-layout", "vision/v3.2/read")
    statuses = [
        (await desk.call("DELETE", deleted))[0],
        (await desk.call("GET", deleted))[0],
        (await desk.call("GET", other))[0],
    ]
    desk.pass_time(DAY - 1)
    statuses.append((await desk.call("GET", kept))[0])
    desk.pass_time(1)
    statuses.append((await desk.call("GET", kept))[0])
    await desk.begin()

    assert [204, 404, 404, 200, 404] == statuses
    assert 1 == desk.documents.deleted
    assert "1 held" in repr(desk.documents)
