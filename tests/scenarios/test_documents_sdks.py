"""The SDKs of Azure's document services, sync and async, with their default settings, before a sidecar."""

from __future__ import annotations

import asyncio
import base64

import pytest
from azure.ai.documentintelligence.models import AnalyzeDocumentRequest
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.scenarios.document_desks import DocumentDesks, Elsewhere, raw
from tests.scenarios.document_sdks import INTELLIGENCE, KEY, LANGUAGE, SDKS, UNDERSTANDING, document
from tests.scenarios.sdk import MANNERS

ONE = document("one")


@pytest.fixture(params=MANNERS)
def manner(request):
    return request.param


@pytest.fixture(params=SDKS, ids=repr)
def sdk(request):
    return request.param


@pytest.fixture
async def desk(provider, build_lab):
    """A sidecar without Redis, before a stand-in whose analyses are done at their first poll."""
    provider.documents.faults.running = 0
    return await DocumentDesks(provider, build_lab).open()


@pytest.fixture
def fleet(provider, build_lab, build_fleet):
    """Builds sidecars over one Redis, before the same stand-in."""
    provider.documents.faults.running = 0
    return DocumentDesks(provider, build_lab, build_fleet)


def is_hit(heard) -> bool:
    return heard.cache.startswith("sidecar; hit; ttl=")


def of_polls(heard) -> list[str | None]:
    """What each poll was told to wait."""
    return [one.headers.get("retry-after") for one in heard]


async def test_miss_and_hit(desk, provider, sdk, manner):
    """The second analysis is a hit: one poll, so no wait, an id of its own, the same result, no call upstream."""
    async with desk.voice(sdk, manner) as voice:
        first = await voice.analyse(ONE)
        polls = len(voice.polls)
        second = await voice.analyse(ONE)
        starts, later = voice.starts, voice.polls[polls:]

    assert [202, 202] == [start.status for start in starts]
    assert [False, True] == [is_hit(start) for start in starts]
    assert [None] == of_polls(later)
    assert first == second
    assert 2 == len(set(voice.ids))
    assert voice.ids == [start.headers["apim-request-id"] for start in starts]
    assert (1, 1) == (provider.documents.asked, provider.documents.analyses.total())


@pytest.mark.parametrize("sdk", [INTELLIGENCE], ids=repr)
async def test_what_a_miss_looks_like(desk, provider, sdk, manner):
    """202 without Retry-After, polls that name one second while it runs, where the SDK finds its sidecar again."""
    provider.documents.faults.paused = True
    async with desk.voice(sdk, manner) as voice:
        poller = await voice.begin(ONE)
        analysing = asyncio.ensure_future(voice.finish(poller))
        await desk.lab.until(lambda: len(voice.polls) > 0)
        provider.documents.faults.paused = False
        await analysing

    [start], *_ = (voice.starts,)
    assert start.headers["operation-location"] == desk.url(sdk) + sdk.result.format(voice.ids[0])
    assert "retry-after" not in start.headers
    *running, last = of_polls(voice.polls)
    assert {"1"} == set(running)
    assert last is None


async def test_coalesced(desk, provider, sdk, manner):
    """Three at once share one analysis; each has an id of its own."""
    provider.documents.faults.paused = True
    async with desk.voice(sdk, manner) as one, desk.voice(sdk, manner) as two, desk.voice(sdk, manner) as three:
        voices = (one, two, three)
        pollers = [await voice.begin(ONE) for voice in voices]
        provider.documents.faults.paused = False
        results = await asyncio.gather(*map(_finish, voices, pollers))

    assert [results[0]] * 3 == results
    assert 3 == len({voice.ids[0] for voice in voices})
    assert (1, 1) == (provider.documents.asked, provider.documents.analyses.total())


async def _finish(voice, poller):
    return await voice.finish(poller)


async def test_documents_are_apart(desk, provider, sdk, manner):
    """Another document, and another key of the resource, is another analysis."""
    async with desk.voice(sdk, manner) as voice, desk.voice(sdk, manner, AzureKeyCredential("another-key")) as other:
        results = [await voice.analyse(ONE), await voice.analyse(document("two"))]
        await other.analyse(ONE)

    assert results[0] != results[1]
    assert not any(is_hit(start) for start in (*voice.starts, *other.starts))
    assert 3 == provider.documents.analyses.total()


async def test_failed(desk, provider, sdk, manner):
    """A failed analysis is the SDK's error with the service's code; it is not kept."""
    provider.documents.faults.failing = b"e"
    async with desk.voice(sdk, manner) as voice:
        said = [await voice.failure(ONE) for _ in range(2)]

    assert all("InternalServerError" in each for each in said)
    assert [False, False] == [is_hit(start) for start in voice.starts]
    assert 2 == provider.documents.asked


async def test_storm(desk, provider, sdk, manner):
    """Polls that the service refuses reach no caller: nothing is lost, and nothing is paid twice."""
    slept = desk.lab.clocks.without_pauses()
    provider.documents.faults.polls.extend([429, 503, 429, 500, 503])
    async with desk.voice(sdk, manner) as voice:
        await voice.analyse(ONE)
        await voice.analyse(ONE)

    assert {200} == {poll.status for poll in voice.polls}
    assert not provider.documents.faults.polls
    assert min(slept) >= 1
    assert 1 == provider.documents.asked


async def test_restarted(fleet, provider, sdk, manner):
    """The sidecar is stopped while an analysis runs; the next one at the same port knows it, and asks for no other."""
    provider.documents.faults.paused = True
    before = await fleet.open(fleet=True)
    async with before.voice(sdk, manner) as voice:
        poller = await voice.begin(ONE)
        await before.lab.sidecar.stop()
        after = await fleet.open(fleet=True, ports=before.ports)
        provider.documents.faults.paused = False
        first = await voice.finish(poller)
        second = await voice.analyse(ONE)

    assert first == second
    assert is_hit(voice.starts[1])
    assert (1, 1) == (provider.documents.asked, provider.documents.analyses.total())
    assert after.lab.records


@pytest.mark.parametrize("known", [False, True], ids=["miss", "hit"])
async def test_another_replica(fleet, provider, sdk, manner, known):
    """Polls that reach another replica than their call did are answered as well."""
    one, other = [await fleet.open(fleet=True) for _ in range(2)]
    if known:
        async with one.voice(sdk, manner) as voice:
            await voice.analyse(ONE)
    async with one.voice(sdk, manner) as voice:
        straight = await voice.analyse(ONE)
    async with one.voice(sdk, manner, policies=[Elsewhere(other.ports[sdk.service])]) as voice:
        crossed = await voice.analyse(ONE)

    assert straight == crossed
    assert is_hit(voice.starts[0])
    assert [str(other.ports[sdk.service])] == [one.port for one in voice.polls]
    assert 1 == provider.documents.analyses.total()


async def test_another_replica_while_it_runs(fleet, provider, sdk, manner):
    """So are those that come while the analysis runs."""
    provider.documents.faults.paused = True
    one, other = [await fleet.open(fleet=True) for _ in range(2)]
    async with one.voice(sdk, manner, policies=[Elsewhere(other.ports[sdk.service])]) as voice:
        poller = await voice.begin(ONE)
        provider.documents.faults.paused = False
        await voice.finish(poller)

    assert {str(other.ports[sdk.service])} == {one.port for one in voice.polls}
    assert 1 == provider.documents.analyses.total()


@pytest.mark.parametrize("known", [False, True], ids=["miss", "hit"])
async def test_another_principal(desk, provider, sdk, known):
    """Who knows an id and has another key, or none, learns nothing; nor can it delete the result."""
    async with desk.voice(sdk, "async") as voice:
        for _ in range(1 + known):
            await voice.analyse(ONE)
        where = voice.starts[-1].headers["operation-location"]
        polls = provider.documents.polls
        found = [
            await raw(method, where, headers=headers)
            for method in ("GET", "DELETE")[: 1 + bool(sdk.deletes)]
            for headers in ({"ocp-apim-subscription-key": "another-key"}, {"authorization": "Bearer no-token"}, {})
        ]
        own = await raw("GET", where, headers={"ocp-apim-subscription-key": KEY})

    assert {404} == {status for status, *_ in found}
    assert not any(b"Amber" in body for *_, body in found)
    assert 200 == own[0]
    assert (polls, 0) == (provider.documents.polls, provider.documents.deleted)


@pytest.mark.parametrize("sdk", [INTELLIGENCE, UNDERSTANDING], ids=repr)
@pytest.mark.parametrize("known", [False, True], ids=["miss", "hit"])
async def test_deleted(desk, provider, sdk, manner, known):
    """A deletion erases the result here and at the service: the id is not found, the next analysis is a miss."""
    async with desk.voice(sdk, manner) as voice:
        for _ in range(1 + known):
            await voice.analyse(ONE)
        await voice.delete(voice.ids[-1])
        gone = await raw(
            "GET", voice.starts[-1].headers["operation-location"], headers={"ocp-apim-subscription-key": KEY}
        )
        await voice.analyse(ONE)

    assert 404 == gone[0]
    assert not is_hit(voice.starts[-1])
    assert (2, 1) == (provider.documents.analyses.total(), provider.documents.deleted)


async def test_ids(desk, manner):
    """``.details["operation_id"]`` is the id of the operation, for a miss and for a hit."""
    async with desk.voice(INTELLIGENCE, manner) as voice:
        pollers = [await voice.begin(ONE)]
        await voice.finish(pollers[0])
        pollers.append(await voice.begin(ONE))
        await voice.finish(pollers[1])

    assert voice.ids == [poller.details["operation_id"] for poller in pollers]


async def test_forms(desk, provider, manner):
    """Bytes, base64, a multipart form, and an endpoint that ends in a slash: one document, one analysis."""
    async with desk.voice(INTELLIGENCE, manner) as voice:
        results = [await voice.analyse(ONE), await voice.analyse(AnalyzeDocumentRequest(bytes_source=ONE))]
    slashed = type(voice)(INTELLIGENCE, desk.url(INTELLIGENCE) + "/", manner)
    async with slashed:
        results.append(await slashed.analyse(ONE))
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.pdf"\r\n\r\n' + ONE + b"\r\n--b--\r\n"
    headers = {"ocp-apim-subscription-key": KEY, "content-type": "multipart/form-data; boundary=b"}
    _, answered, _ = await raw("POST", desk.url(INTELLIGENCE) + INTELLIGENCE.start, body=form, headers=headers)

    assert [results[0]] * 3 == results
    assert slashed.starts[0].target.startswith("//documentintelligence")
    assert [True, True, True] == [
        is_hit(voice.starts[1]), is_hit(slashed.starts[0]), answered["cache-status"].startswith("sidecar; hit"),
    ]  # fmt: skip
    assert 1 == provider.documents.asked


async def test_figures_and_pdf(desk, provider, manner):
    """A call that asks for more than the result is not kept, and gets all that it asked for."""
    async with desk.voice(INTELLIGENCE, manner) as voice:
        for _ in range(2):
            found = await voice.analyse(ONE, output=["pdf", "figures"])
            place = ("prebuilt-layout", voice.ids[-1])
            picture = await voice.streamed(voice.client.get_analyze_result_figure, *place, found["figures"][0]["id"])
            searchable = await voice.streamed(voice.client.get_analyze_result_pdf, *place)

            assert picture.startswith(b"\x89PNG")
            assert ONE == searchable
        await voice.analyse(ONE)
        with pytest.raises(ResourceNotFoundError):
            await voice.streamed(voice.client.get_analyze_result_pdf, "prebuilt-layout", voice.ids[-1])

    assert 3 == provider.documents.analyses.total()
    assert "detail=extra-output" in voice.starts[0].cache


async def test_features_in_any_order(desk, provider, manner):
    """Lists without an order are one question in each order; pages, format and query fields each make another."""
    async with desk.voice(INTELLIGENCE, manner) as voice:
        for features in (["languages", "barcodes"], ["barcodes", "languages"]):
            await voice.analyse(ONE, features=features)
        for more in ({"pages": "1"}, {"output_content_format": "markdown"}, {"string_index_type": "utf16CodeUnit"}):
            await voice.analyse(ONE, **more)

    assert [False, True, False, False, False] == [is_hit(start) for start in voice.starts]
    assert 4 == provider.documents.asked


async def test_refused(desk, provider, manner):
    """What the service refuses is the SDK's error, and is asked again."""
    async with desk.voice(INTELLIGENCE, manner) as voice:
        for _ in range(2):
            with pytest.raises(HttpResponseError) as caught:
                await voice.analyse(ONE, locale="notALanguage")

            assert "The language code is invalid" in str(caught.value)
            assert 400 == caught.value.status_code

    assert 2 == provider.documents.asked


async def test_tasks_are_apart(desk, provider, manner):
    """A job's name and statistics don't count; its texts do."""
    async with desk.voice(LANGUAGE, manner) as voice:
        for more in ({}, {"display_name": "a name"}, {"language": "de"}):
            await voice.analyse(ONE, **more)

    assert [False, True, False] == [is_hit(start) for start in voice.starts]
    assert 2 == provider.documents.asked


async def test_base64_of_raw_callers(desk, provider):
    """A caller without an SDK, who writes its JSON in another way, has the same document."""
    async with desk.voice(INTELLIGENCE, "async") as voice:
        await voice.analyse(ONE)
    body = b'{ "base64Source" : "%b" }' % base64.b64encode(ONE)
    headers = {"ocp-apim-subscription-key": KEY, "content-type": "application/json; charset=utf-8"}
    status, answered, _ = await raw("POST", desk.url(INTELLIGENCE) + INTELLIGENCE.start, body=body, headers=headers)

    assert (202, True) == (status, answered["cache-status"].startswith("sidecar; hit"))
    assert 1 == provider.documents.asked
