"""
The SDKs of Azure's document services before the stand-in, with nothing between: what they send and what they wait for.

Whatever the sidecar must answer, it must answer to this.
"""

from __future__ import annotations

import re

import pytest
from azure.core.exceptions import ResourceNotFoundError

from tests.scenarios.document_sdks import INTELLIGENCE, KEY, SDKS, DocumentVoice, document
from tests.scenarios.sdk import MANNERS


@pytest.fixture(params=MANNERS)
def manner(request):
    return request.param


@pytest.fixture(params=SDKS, ids=repr)
async def voice(provider, request, manner):
    """An SDK, with the stand-in as its endpoint."""
    async with DocumentVoice(request.param, f"http://127.0.0.1:{provider.port}", manner) as speaking:
        yield speaking


async def test_exchange(voice, provider):
    """The key goes over http; the first poll follows at once to where the 202 says, the second a second later."""
    await voice.analyse(document("one"))
    [start], polls = voice.starts, voice.polls

    assert (202, voice.sdk.start) == (start.status, start.target)
    assert [voice.sdk.result.format(voice.ids[0])] * 2 == [poll.target for poll in polls]
    assert ["1", None] == [poll.headers.get("retry-after") for poll in polls]
    assert [KEY] * 3 == [one.sent["Ocp-Apim-Subscription-Key"] for one in voice.heard]
    assert 1 == provider.documents.analyses.total()


async def test_same_document_costs_each_time(voice, provider):
    """Without a sidecar each analysis is one of the service, with an id of its own and the same result."""
    provider.documents.faults.running = 0
    results = [await voice.analyse(document("one")) for _ in range(2)]

    assert 2 == provider.documents.analyses.total()
    assert 2 == len(set(voice.ids)) == len(voice.polls)
    assert _timeless(results[0]) == _timeless(results[1])


def _timeless(result):
    """A result without the moment at which it was made."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "", str(result))


async def test_failed(voice, provider):
    """An analysis that fails is an error of the SDK's, with what the service says."""
    provider.documents.faults.running = 0
    provider.documents.faults.failing = b"e"

    assert "InternalServerError" in await voice.failure(document("one"))
    assert 1 == len(voice.polls)


async def test_refused_poll_is_asked_again(voice, provider):
    """The SDKs repeat a poll that is refused, after the second that the answer names; in the end they give up."""
    provider.documents.faults.running = 0
    provider.documents.faults.polls.append(429)
    await voice.analyse(document("one"))

    assert 2 == provider.documents.polls
    assert [200] == [poll.status for poll in voice.polls]


async def test_ids(provider, manner):
    """The id is that of the operation, which is in the head of the 202 twice."""
    provider.documents.faults.running = 0
    async with DocumentVoice(INTELLIGENCE, f"http://127.0.0.1:{provider.port}", manner) as voice:
        poller = await voice.begin(document("one"))
        await voice.finish(poller)

    assert voice.ids == [poller.details["operation_id"]] == [voice.starts[0].headers["apim-request-id"]]


@pytest.mark.parametrize("sdk", [sdk for sdk in SDKS if sdk.deletes], ids=repr)
async def test_deleted(provider, manner, sdk):
    """A result that was deleted is not found."""
    provider.documents.faults.running = 0
    async with DocumentVoice(sdk, f"http://127.0.0.1:{provider.port}", manner) as voice:
        await voice.analyse(document("one"))
        await voice.delete(voice.ids[0])
        with pytest.raises(ResourceNotFoundError):
            await voice.delete(voice.ids[0])

    assert 1 == provider.documents.deleted


async def test_figures_and_pdf(provider, manner):
    """What a call asked for beside its result is fetched by the operation's id."""
    provider.documents.faults.running = 0
    async with DocumentVoice(INTELLIGENCE, f"http://127.0.0.1:{provider.port}", manner) as voice:
        found = await voice.analyse(document("one"), output=["pdf", "figures"])
        place = ("prebuilt-layout", voice.ids[0])
        picture = await voice.streamed(voice.client.get_analyze_result_figure, *place, found["figures"][0]["id"])
        searchable = await voice.streamed(voice.client.get_analyze_result_pdf, *place)

    assert picture.startswith(b"\x89PNG")
    assert document("one") == searchable
