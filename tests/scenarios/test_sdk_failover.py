"""The providers' SDKs before regions that fail: their retries and ours don't multiply; one good region is enough."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anthropic
import openai
import pytest

from sidecar.core.rules import Region
from tests.scenarios.answers import (
    CLAUDE,
    CLAUDE_EVENTS,
    CLAUDE_PATH,
    LAST_CHUNK,
    STREAM_HEAD,
    chat_events,
    chunk,
    chunks,
    claude_event,
    completion,
    said,
    whole,
)
from tests.scenarios.clocks import RunningClock
from tests.scenarios.conftest import Lab
from tests.scenarios.desks import Desk, question, services
from tests.scenarios.sdk import MANNERS, Said, Voice, without_sleep

RETRIES = {"max_retries": 2}
"""What both SDKs do unless told otherwise; named, so that a new default of theirs shows."""

MESSAGE = json.dumps({
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4",
    "content": [{"type": "text", "text": "It is a box."}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}).encode()  # fmt: skip


def openai_voice(lab: Lab, manner: str, **more: Any) -> Voice:
    build: Any = openai.OpenAI if manner == "sync" else openai.AsyncOpenAI
    return Voice(build(base_url=f"{lab.url}/openai/v1", api_key="sk-story", **more))


def azure_voice(lab: Lab, manner: str, **more: Any) -> Voice:
    build: Any = openai.AzureOpenAI if manner == "sync" else openai.AsyncAzureOpenAI
    place = f"{lab.url}/azure/contoso"
    return Voice(build(azure_endpoint=place, api_version="2024-10-21", api_key="azure-key", **more))


def anthropic_voice(lab: Lab, manner: str, **more: Any) -> Voice:
    build: Any = anthropic.Anthropic if manner == "sync" else anthropic.AsyncAnthropic
    return Voice(build(base_url=f"{lab.url}/anthropic", api_key="sk-ant-story", **more))


class Brand:
    """A provider: its SDK, a call of it, and what its service answers, whole or as *events*."""

    def __init__(self, name: str, errors: Any, voice: Any, method: str, answer: bytes, events: list[bytes]) -> None:
        self.name, self.errors, self.voice, self.method = name, errors, voice, method
        self.good = whole(answer)
        self.stream = STREAM_HEAD + chunks(events) + LAST_CHUNK

    async def ask(self, voice: Voice, number: int = 0, **more: Any) -> Said:
        asked: dict[str, Any] = question(number)
        if self.name == "anthropic":
            asked = {"model": "claude-sonnet-4", "max_tokens": 64, "messages": asked["messages"]}
        return await voice.ask(self.method, **asked, **more)

    def error(self, status: int) -> bytes:
        if self.name == "anthropic":
            body: Any = {"type": "error", "error": {"type": "api_error", "message": "No."}, "request_id": "req_1"}
        else:
            body = {"error": {"message": "No.", "type": "server_error", "param": None, "code": f"code-{status}"}}
        return json.dumps(body).encode()

    def failing(self, status: int, fields: bytes = b"") -> bytes:
        return whole(self.error(status), status=f"{status} Failed", extra=fields)


EVENTS = chat_events("It is a box.")

BRANDS = [
    Brand("openai", openai, openai_voice, "chat.completions.create", completion("It is a box."), EVENTS),
    Brand("azure-openai", openai, azure_voice, "chat.completions.create", completion("It is a box."), EVENTS),
    Brand("anthropic", anthropic, anthropic_voice, "messages.create", MESSAGE, CLAUDE_EVENTS),
]


@pytest.fixture(params=BRANDS, ids=lambda brand: brand.name)
def brand(request) -> Brand:
    return request.param


@pytest.fixture(params=MANNERS)
def manner(request, monkeypatch) -> str:
    """The client to use; with no credential but the one it is given."""
    for name in ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return request.param


@pytest.fixture
async def pair(script, brand):
    """Two regions that answer well until told otherwise."""
    upstreams = []
    for name in ("first", "second"):
        desk = Desk(name, {b"": brand.good})
        upstreams.append(await script(desk))
        upstreams[-1].desk = desk
    return upstreams


@pytest.fixture
def nowhere() -> Iterator[list[str]]:
    """Two addresses where nobody listens."""
    with ExitStack() as stack:
        reserved = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in reserved:
            one.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        yield [f"http://127.0.0.1:{one.getsockname()[1]}" for one in reserved]


def placed(brand, *urls):
    """The brand's service; Azure's regions call the model by names of their own."""
    regions = [
        Region(name, url, priority, deployments={"gpt-4o": f"gpt4o-{name}"} if brand.name == "azure-openai" else {})
        for priority, (name, url) in enumerate(zip(("first", "second"), urls, strict=True), 1)
    ]
    return services(*regions, name=brand.name)


def tries(lab):
    """How often the sidecar tried, one number for each request that it had."""
    return [record.attempts for record in lab.records]


async def test_both_broken(build_lab, brand, manner, pair):
    """One call of the SDK is one request, and one attempt a region: the answer says not to try again."""
    for upstream in pair:
        upstream.desk.says[b""] = brand.failing(500)
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, manner, **RETRIES) as voice:
        for number in range(3):
            with pytest.raises(brand.errors.InternalServerError) as caught:
                await brand.ask(voice, number)

            assert 500 == caught.value.status_code
            assert brand.error(500) == caught.value.response.content
            assert "false" == caught.value.response.headers["x-should-retry"]

    assert [3, 3] == [upstream.calls for upstream in pair]
    assert [2, 2, 2] == tries(lab)


async def test_broken_for_long(build_lab, brand, manner, pair):
    """With both breakers open, each request is one attempt at most, and the SDK is answered each time."""
    for upstream in pair:
        upstream.desk.says[b""] = brand.failing(503)
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, manner, max_retries=0) as voice:
        for number in range(12):
            with pytest.raises(brand.errors.APIStatusError) as caught:
                await brand.ask(voice, number)

            assert 503 == caught.value.status_code

    assert 12 == len(lab.records)
    assert [2] * 5 + [1] * 7 == tries(lab)
    assert 17 == sum(upstream.calls for upstream in pair)


@pytest.mark.parametrize("broken", [0, 1], ids=["first broken", "second broken"])
async def test_one_broken(build_lab, brand, manner, pair, broken):
    """With one good region every call succeeds without a retry of the SDK, and soon without one of ours."""
    pair[broken].desk.says[b""] = brand.failing(500)
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, manner, max_retries=0) as voice:
        answers = [await brand.ask(voice, number) for number in range(8)]

    assert {200} == {answer.http.status_code for answer in answers}
    assert {("second", "first")[broken]} == {answer.http.headers["x-sidecar-region"] for answer in answers}
    assert ([5, 8], [8, 0])[broken] == [upstream.calls for upstream in pair]


async def begin_with_an_error(brand, writer):
    """A stream whose first event, but for a ping, is an error."""
    error = json.loads(brand.error(500))
    if brand.name == "anthropic":
        error["error"]["type"] = "overloaded_error"
        events = [claude_event("ping"), b"event: error\ndata: %b\n\n" % json.dumps(error).encode()]
    else:
        events = [b"data: %b\n\n" % json.dumps(error).encode()]
    writer.write(STREAM_HEAD + chunks(events) + LAST_CHUNK)


async def break_off(brand, writer):
    """A stream that breaks before its first event, but for a ping."""
    first = claude_event("ping") if brand.name == "anthropic" else b": wait\n\n"
    writer.write(STREAM_HEAD + chunk(first))
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("trouble", [begin_with_an_error, break_off], ids=["error event", "broken off"])
async def test_a_stream_that_fails_before_its_first_word(build_lab, brand, manner, pair, trouble):
    """The other region's stream is all that the SDK sees; with both failing it hears so, of one attempt a region."""
    first, second = pair

    async def fail(_head, _body, writer):
        await trouble(brand, writer)

    first.handler = fail
    second.desk.says[b""] = brand.stream
    lab = await build_lab("", services=placed(brand, first.url, second.url))
    async with brand.voice(lab, manner, **RETRIES) as voice:
        answers = [await brand.ask(voice, number, stream=True) for number in range(2)]
        second.handler = fail
        with pytest.raises(brand.errors.APIError):
            await brand.ask(voice, 2, stream=True)

    assert ["second"] * 2 == [answer.http.headers["x-sidecar-region"] for answer in answers]
    assert ["It is a box."] * 2 == [text_of(answer) for answer in answers]
    assert [2, 2, 2] == tries(lab)
    assert [3, 3] == [upstream.calls for upstream in pair]


def text_of(said):
    """The words of a stream."""
    if hasattr(said.parsed[0], "choices"):
        return "".join(choice.delta.content or "" for event in said.parsed for choice in event.choices)
    return "".join(event.delta.text for event in said.parsed if event.type == "content_block_delta")


async def test_deployments(build_lab, brand, manner, pair):
    """Each region of Azure's is asked for its own deployment; the others get the call as it is."""
    pair[0].desk.says[b""] = brand.failing(500)
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, manner, max_retries=0) as voice:
        await brand.ask(voice)
    (first, _), (second, _) = pair[0].seen[0], pair[1].seen[0]
    paths = [head.split(b" ")[1].partition(b"?")[0].decode() for head in (first, second)]

    if brand.name == "azure-openai":
        assert [f"/openai/deployments/gpt4o-{name}/chat/completions" for name in ("first", "second")] == paths
    else:
        assert paths[0] == paths[1]
        assert pair[0].seen[0][1] == pair[1].seen[0][1]


async def test_both_unreachable(build_lab, brand, manner, nowhere):
    """Where nobody listens, the SDK hears of it once, as of a server that has no room; and it may come again later."""
    lab = await build_lab("", services=placed(brand, *nowhere))
    async with brand.voice(lab, manner, **RETRIES) as voice:
        with pytest.raises(brand.errors.InternalServerError) as caught:
            await brand.ask(voice)

    assert 503 == caught.value.status_code
    assert "No region of the AI service takes calls now." in str(caught.value)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert "false" == caught.value.response.headers["x-should-retry"]
    assert [2] == tries(lab)


async def test_one_unreachable(build_lab, brand, manner, nowhere, pair):
    """A region that refuses connections costs no call anything."""
    lab = await build_lab("", services=placed(brand, nowhere[0], pair[1].url))
    async with brand.voice(lab, manner, max_retries=0) as voice:
        for number in range(5):
            await brand.ask(voice, number)

    assert 5 == pair[1].calls
    assert [2, 2, 2, 1, 1] == tries(lab)


async def test_nobody_answers_for_long(build_lab, brand, manner, nowhere):
    """Both breakers open by calls without an answer: most calls get a prompt 503, with a Retry-After that all heed."""
    lab = await build_lab("", services=placed(brand, *nowhere))
    found = set()
    async with brand.voice(lab, manner, max_retries=0) as voice:
        for number in range(40):
            with pytest.raises(brand.errors.InternalServerError) as caught:
                await brand.ask(voice, number)
            error = caught.value
            found.add(error.status_code)
            assert 1 <= int(error.response.headers["retry-after"]) <= 60
            assert "No region of the AI service takes calls now." in str(error)

    assert {503} == found
    assert [2, 2, 2] == tries(lab)[:3]
    assert tries(lab)[20:].count(0) > 8


@pytest.mark.parametrize(
    ("wait", "retries"), [("retry-after: 1", 1), ("retry-after-ms: 100", 2)], ids=["seconds", "milliseconds"]
)
async def test_both_out_of_quota(build_lab, brand, manner, pair, wait, retries, monkeypatch):
    """A 429 invites the SDK to come again after its Retry-After: no request is more than one attempt a region."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.later(seconds)

    without_sleep(monkeypatch, brand.errors, sleep)
    for upstream in pair:
        upstream.desk.says[b""] = brand.failing(429, f"{wait}\r\n".encode())
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    clock = RunningClock(lab)
    async with brand.voice(lab, manner, max_retries=retries) as voice:
        with pytest.raises(brand.errors.RateLimitError) as caught:
            await brand.ask(voice)

    assert 429 == caught.value.status_code
    assert wait == f"{wait.partition(':')[0]}: {caught.value.response.headers[wait.partition(':')[0]]}"
    assert "x-should-retry" not in caught.value.response.headers
    assert [1.0 if retries == 1 else 0.1] * retries == slept
    assert 1 + retries == len(lab.records)
    assert 2 == tries(lab)[0]
    assert max(tries(lab)) == 2
    assert sum(tries(lab)) == sum(upstream.calls for upstream in pair)


async def test_one_out_of_quota(build_lab, brand, manner, pair):
    """The other region has room: nobody hears of the quota."""
    pair[0].desk.says[b""] = brand.failing(429, b"retry-after: 7\r\n")
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, manner, max_retries=0) as voice:
        for number in range(4):
            await brand.ask(voice, number)

    assert [1, 4] == [upstream.calls for upstream in pair]


@pytest.mark.parametrize(
    "field",
    ["retry-after: 259200", "retry-after-ms: 1000000000", "retry-after: Fri, 31 Dec 2100 23:59:59 GMT"],
)
async def test_waits_of_days(build_lab, brand, pair, field):
    """A service says when to come back, in its own words; no SDK that reads on waits for it within a call."""
    for upstream in pair:
        upstream.desk.says[b""] = brand.failing(429, f"{field}\r\n".encode())
    lab = await build_lab("", services=placed(brand, *(upstream.url for upstream in pair)))
    async with brand.voice(lab, "async", **RETRIES) as voice:
        with pytest.raises(brand.errors.RateLimitError) as caught:
            await brand.ask(voice)
    headers = caught.value.response.headers
    name, _, value = field.partition(": ")

    assert (value, "false") == (headers[name], headers["x-should-retry"])
    assert 1 == len(lab.records)


async def test_a_free_tier_that_is_used_up(build_lab, script):
    """The 403 of Azure's free tier says when the month is over, to whom it concerns: in its own words, and at once."""
    text = b'{"error":{"code":"403","message":"Out of call volume quota for CognitiveServices F0 pricing tier."}}'
    upstream = await script(
        Desk(
            says={
                b"": whole(
                    text, status="403 Forbidden", extra=b"Retry-After: 259200\r\nx-ms-retry-after-ms: 9000000\r\n"
                )
            }
        )
    )
    lab = await build_lab("", services=services(upstream.url, name="azure-openai"))
    path = "/azure/contoso/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21"
    reply = await lab.ask(question(0), path=path, headers={"authorization": None, "api-key": "k"})

    assert (403, text) == (reply.status, reply.body)
    assert ("259200", "9000000") == (reply.headers["retry-after"], reply.headers["x-ms-retry-after-ms"])
    assert "false" == reply.headers["x-should-retry"]
    assert 1 == upstream.calls


async def test_a_caller_that_does_not_try_again(build_lab, script):
    """Who has no retries of its own, by its headers, gets one of ours at the only region; who has gets none."""
    upstream = await script(Desk(says={b"": whole(b'{"error":{"message":"No."}}', status="500 Broken")}))
    lab = await build_lab("", services=services(upstream.url))
    first = await lab.ask(question(0))
    second = await lab.ask(question(1), headers={"x-stainless-retry-count": None})

    assert [500, 500] == [first.status, second.status]
    assert [None, "false"] == [reply.headers.get("x-should-retry") for reply in (first, second)]
    assert [1, 2] == tries(lab)


async def test_raw_claude(build_lab, script):
    """Of two overloaded regions each is asked once; the answer is the service's own."""
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}'
    desks = [Desk(says={b"": whole(body, status="529 Overloaded")}) for _ in range(2)]
    upstreams = [await script(desk) for desk in desks]
    lab = await build_lab("", services=services(*(upstream.url for upstream in upstreams), name="anthropic"))
    reply = await lab.ask(CLAUDE, path=CLAUDE_PATH)

    assert (529, body, "false") == (reply.status, reply.body, reply.headers["x-should-retry"])
    assert [1, 1] == [upstream.calls for upstream in upstreams]
    desks[1].says[b""] = whole(completion("It is a box."))

    assert "It is a box." == said((await lab.ask(CLAUDE, path=CLAUDE_PATH)).body)
