"""The demo's calls: what they are, how they are made, and what is read from their answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque

import pytest

from sidecar.demo.failure import Failure, FailureMode
from sidecar.demo.provider import DemoProvider
from sidecar.demo.workload import Act, DemoAnswer, DemoCall, Manner, acts, play, read

CHAT = DemoCall("openai", "/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]})


def spawn(work, *, name):
    return asyncio.create_task(work, name=name)


def bases(port):
    return dict.fromkeys(("openai", "anthropic", "azure-openai", "azure-documents"), f"http://127.0.0.1:{port}")


@pytest.fixture
async def provider():
    """A stand-in on a free port."""
    running = DemoProvider()
    running.port = await running.start()
    yield running
    await running.stop()


async def made(playing, port):
    """The answers to *playing*, in the order in which they came."""
    answers = []
    await play(playing, bases(port), lambda _, answer: answers.append(answer), spawn=spawn, pace=0)
    return answers


def events(*documents, end=b""):
    return b"".join(b"event: x\ndata: %b\n\n" % json.dumps(document).encode() for document in documents) + end


WHOLE = json.dumps({"model": "gpt-4o", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}).encode()

OPENAI_EVENTS = events(
    {"model": "gpt-4o", "choices": [{}], "usage": None},
    {"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
    end=b"data: [DONE]\n\n",
)

ANTHROPIC_EVENTS = events(
    {"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "ping"},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}},
)


@pytest.mark.parametrize(
    ("status", "body", "streamed", "expected"),
    [
        pytest.param(
            "sidecar; hit; ttl=9; detail=memory", WHOLE, False, DemoAnswer(Manner.MEMORY, "gpt-4o", 7, 3), id="hit"
        ),
        pytest.param(
            "sidecar; fwd=miss; collapsed", WHOLE, False, DemoAnswer(Manner.SHARED, "gpt-4o", 7, 3), id="collapsed"
        ),
        pytest.param("sidecar; fwd=miss; stored", WHOLE, False, DemoAnswer(Manner.UPSTREAM, "gpt-4o", 7, 3), id="miss"),
        pytest.param(
            "sidecar; fwd=bypass; detail=no-store", WHOLE, False, DemoAnswer(Manner.BYPASS, "gpt-4o", 7, 3), id="bypass"
        ),
        pytest.param(
            "sidecar; hit; ttl=9",
            b'{"status": "succeeded", "analyzeResult": {"modelId": "prebuilt-layout", "pages": [{}, {}]}}',
            False,
            DemoAnswer(Manner.MEMORY, "prebuilt-layout", pages=2),
            id="document",
        ),
        pytest.param(
            "sidecar; hit; ttl=9", b'{"status": "failed", "error": {}}', False, DemoAnswer(Manner.FAILED), id="failed"
        ),
        pytest.param("", b'{"object": "list"}', False, DemoAnswer(Manner.UPSTREAM), id="says-nothing"),
        pytest.param(
            "sidecar; fwd=miss", OPENAI_EVENTS, True, DemoAnswer(Manner.UPSTREAM, "gpt-4o", 7, 3), id="openai-stream"
        ),
        pytest.param(
            "sidecar; hit; ttl=9",
            ANTHROPIC_EVENTS,
            True,
            DemoAnswer(Manner.MEMORY, "claude", 7, 3),
            id="anthropic-stream",
        ),
    ],
)
def test_read(status, body, streamed, expected):
    """The way, the model and the tokens are read from the answer alone."""

    assert expected == read(status, body, events=streamed)


async def test_every_call_is_understood(provider):
    """A provider accepts the whole workload, and counts each of its calls."""
    answers = await made(acts(), provider.port)

    assert sum(act.size for act in acts()) == len(answers) == provider.calls
    assert {Manner.UPSTREAM} == {answer.manner for answer in answers}
    assert {"analyze", "chat", "embeddings", "messages", "models"} == provider.counts.keys()
    assert provider.counts["models"] == sum(1 for answer in answers if not answer.prompt and not answer.pages)


async def test_documents_are_analysed_in_every_form(provider):
    """Nine analyses of one document, three of each other, in three media types; the answers name the pages."""
    provider.seen = deque(maxlen=None)
    answers = await made(acts()[:1], provider.port)
    kinds = Counter(seen.fields[b"content-type"].partition(b";")[0] for seen in provider.seen if seen.method == "POST")

    assert [3] * 6 + [9] == sorted(provider.documents.analyses.values())
    assert {b"application/json": 9, b"application/pdf": 9, b"multipart/form-data": 9} == kinds
    assert provider.documents.pages == sum(answer.pages for answer in answers)
    assert {"prebuilt-layout"} == {answer.model for answer in answers}


async def test_documents_that_fail_count_as_failed(provider):
    """A result that says so, and a poll that is refused."""
    provider.documents.faults.polls.extend([503] * 9)
    refused = await made([Act("Refused", acts()[0].waves[3:])], provider.port)
    provider.documents.faults.failing = b"delivery"
    failed = await made([Act("Failed", acts()[0].waves[:1])], provider.port)

    assert [DemoAnswer(Manner.FAILED)] * 15 == refused + failed


async def test_waves_follow_each_other(provider):
    """The calls of a wave are made at once, those of the next after their answers."""
    running, most = Counter(), Counter()
    whole = provider._serve

    async def serve(call, failure):
        asked = json.loads(call.body)["messages"][0]["content"]
        running[asked] += 1
        most[asked] = max(most[asked], running.total())
        provider.latency = 0.01
        try:
            return await whole(call, failure)
        finally:
            running[asked] -= 1

    provider._serve = serve
    first, second = (
        DemoCall("openai", CHAT.path, {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]})
        for words in ("first", "second")
    )
    await made([Act("Two waves", ((first,) * 3, (second,) * 2))], provider.port)

    assert {"first": 3, "second": 2} == most


async def test_refused_calls_count_as_failed(provider):
    """An error answer is told, and the next call is made all the same."""
    provider.failure = Failure(FailureMode.ERROR, rate=0.5)
    answers = await made([Act("Half", ((CHAT,),) * 4)], provider.port)

    assert {Manner.FAILED: 2, Manner.UPSTREAM: 2} == Counter(answer.manner for answer in answers)


async def test_nobody_there_counts_as_failed(provider):
    """Without a proxy the workload ends, with nothing but failures."""
    await provider.stop()
    answers = await made([Act("Nobody", ((CHAT, CHAT),))], provider.port)

    assert [DemoAnswer(Manner.FAILED)] * 2 == answers


def test_rounds_differ_in_bytes_alone():
    """Every other round writes the same members in another order, as another job would."""
    first, second = acts()[1].waves[0][0], acts()[1].waves[4][0]

    assert first.members == second.members
    assert json.dumps(first.members) != json.dumps(second.members)


def test_every_api_takes_part():
    """Every API that the stand-in has is called, and streams are among the calls."""
    calls = [call for act in acts() for wave in act.waves for call in wave]

    assert {"openai", "anthropic", "azure-openai", "azure-documents"} == {call.api for call in calls}
    assert any(call.members and call.members.get("stream") for call in calls)
