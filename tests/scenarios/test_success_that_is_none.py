"""What is answered with 200 and is no answer reaches its caller as it is, and is never kept."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.rules import CacheMode, CacheRule, MemoryRule, Region, Route, Service
from sidecar.dialects import DIALECTS
from tests.scenarios.conftest import (
    CHAT,
    CHAT_PATH,
    CLAUDE,
    CLAUDE_EVENTS,
    CLAUDE_PATH,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    USAGE,
    chunk,
    chunks,
    claude_event,
    completion,
    delta,
    whole,
)

MIB = 1024 * 1024
ALWAYS = (Route("all", cache=CacheRule(mode=CacheMode.ALWAYS)),)
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ENVOY = b"upstream connect error or disconnect/reset before headers. reset reason: overflow"
ERROR = b'{"error":{"message":"no capacity","type":"server_error","code":null}}'
FORM = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'


def ended(finish, **more):
    """A whole chat that ended so."""
    answer = json.loads(completion("It is"))
    answer["choices"][0] |= {"finish_reason": finish, **more}
    return json.dumps(answer).encode()


def streamed(finish):
    return [ROLE, delta("It is"), delta(None, finish=finish), USAGE, DONE]


def sound(wanted):
    """A request for a transcription in a format."""
    fields = FORM % (b"model", b"whisper-1") + FORM % (b"response_format", wanted)
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
    return fields + file


def vectors(*found):
    return json.dumps({"object": "list", "data": [{"index": n, "embedding": v} for n, v in enumerate(found)]}).encode()


EMBED = {"model": "e", "input": ["a", "b"]}
COUNTED = {name: CLAUDE[name] for name in ("model", "messages")}
FORMS = {"content-type": "multipart/form-data; boundary=b"}
CLAUDE_KEY = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
EMBEDDINGS, MODELS, SOUNDS = "/openai/v1/embeddings", "/openai/v1/models", "/openai/v1/audio/transcriptions"
SPEECH, MODERATIONS = "/openai/v1/audio/speech", "/openai/v1/moderations"
SAY = {"model": "tts", "voice": "x", "input": "hi"}

DOCUMENTS = [
    *[(f"chat {finish!r}", CHAT, CHAT_PATH, {}, ended(finish), "unknown-finish")
      for finish in ("abort", "error", "insufficient_system_resource", "network_error", "cancelled", "SAFETY", "")],
    ("chat with an error in it", CHAT, CHAT_PATH, {}, ended("stop", error={"code": 502}), "failed"),
    ("chat without a message", CHAT, CHAT_PATH, {}, ended("stop", message=None), "misshapen"),
    ("chat with an empty message", CHAT, CHAT_PATH, {}, ended("stop", message={}), "misshapen"),
    ("chat that names its speaker", CHAT, CHAT_PATH, {}, ended("stop", message={"role": "assistant"}), "misshapen"),
    ("chat without its tool call", CHAT, CHAT_PATH, {}, ended("tool_calls"), "misshapen"),
    ("chat with a choice too few", {**CHAT, "n": 2}, CHAT_PATH, {}, completion("It is a box."), "misshapen"),
    ("chat that is an error", CHAT, CHAT_PATH, {}, ERROR, "failed"),
    ("embeddings that are an error", EMBED, EMBEDDINGS, {}, ERROR, "failed"),
    ("embeddings: an object", EMBED, EMBEDDINGS, {}, b"{}", "misshapen"),
    ("embeddings: none", EMBED, EMBEDDINGS, {}, vectors(), "misshapen"),
    ("embeddings: null", EMBED, EMBEDDINGS, {}, vectors([1], None), "misshapen"),
    ("embeddings: an empty one", EMBED, EMBEDDINGS, {}, vectors([1], []), "misshapen"),
    ("embeddings: one for two", EMBED, EMBEDDINGS, {}, vectors([1]), "misshapen"),
    ("embeddings: three for an array of tokens", {**EMBED, "input": [1, 2, 3]}, EMBEDDINGS, {},
     vectors([1], [2], [3]), "misshapen"),
    ("count of tokens", COUNTED, CLAUDE_PATH + "/count_tokens", CLAUDE_KEY, b"{}", "misshapen"),
    ("count of tokens, OpenAI", {"model": "m", "input": "hi"}, "/openai/v1/responses/input_tokens", {}, b"{}",
     "misshapen"),
    ("message", CLAUDE, CLAUDE_PATH, CLAUDE_KEY,
     b'{"type":"message","content":[],"stop_reason":"network_error"}', "unknown-finish"),
    ("transcription: a proxy's text", sound(b"text"), SOUNDS, FORMS, ENVOY, "misshapen"),
    ("transcription: a phrase", sound(b"text"), SOUNDS, FORMS, b"Bad gateway", "misshapen"),
    ("transcription: a network's text", sound(b"text"), SOUNDS, FORMS, b"dial tcp: i/o timeout", "misshapen"),
    ("transcription: an error", sound(b"text"), SOUNDS, FORMS, ERROR, "failed"),
    ("transcription: text for JSON", sound(b"json"), SOUNDS, FORMS, b"Hello.", "misshapen"),
    ("subtitles: a phrase", sound(b"srt"), SOUNDS, FORMS, b"502 Bad Gateway", "misshapen"),
    ("moderation", {"input": ["a", "b"]}, MODERATIONS, {}, b'{"results":[{"flagged":false}]}', "misshapen"),
    ("models", b"", MODELS, {}, b'{"object":"list","data":[]}', "misshapen"),
    ("speech: an error", SAY, SPEECH, {}, ERROR, "failed"),
    ("speech: text", SAY, SPEECH, {}, b"Bad gateway", "misshapen"),
    ("anything: JSON that is none", b"{}", "/any/thing", {}, b'{"rows":[1,2]}}', "unreadable"),
    ("anything: an error", b"{}", "/any/thing", {}, ERROR, "failed"),
]  # fmt: skip


def kind_of(path, body):
    if path in (SOUNDS, SPEECH) and body[:1] != b"{":
        return b"text/plain; charset=utf-8"
    return b"application/json"


@pytest.fixture
def build(build_lab):
    """A lab that keeps whatever may be kept."""

    async def built(upstream, **more):
        regions = (Region("here", upstream.url),)
        services = (
            Service("openai", DIALECTS["openai"], regions, path="/openai"),
            Service("anthropic", DIALECTS["anthropic"], regions, path="/anthropic"),
            Service("any", DIALECTS["generic"], regions, path="/any"),
        )
        return await build_lab(upstream.url, services=services, routes=ALWAYS, **more)

    return built


@pytest.mark.parametrize(
    ("call", "path", "headers", "answer", "reason"), [row[1:] for row in DOCUMENTS], ids=[row[0] for row in DOCUMENTS]
)
async def test_documents(call, path, headers, answer, reason, build, script):
    """The caller gets it byte for byte; nothing of it is kept, and the next call goes upstream."""

    async def handler(_head, _body, writer):
        writer.write(HEAD.replace(b"application/json", kind_of(path, answer)) + chunk(answer) + LAST_CHUNK)

    upstream = await script(handler)
    lab = await build(upstream)
    method = "GET" if path == MODELS else "POST"
    replies = [await lab.ask(call, path=path, headers=headers, method=method) for _ in range(2)]

    assert [(200, answer, False)] * 2 == [(reply.status, reply.body, reply.broken) for reply in replies]
    assert 2 == upstream.calls
    assert 0 == lab.sidecar.memory.entries
    assert [(False, reason)] * 2 == [(record.stored, record.reason) for record in lab.records]
    metrics = lab.sidecar.metrics.exposition().decode()
    assert f'sidecar_not_stored_total{{reason="{reason}",service="{lab.records[0].service}"}} 2.0' in metrics


GOOD = [
    ("chat", {**CHAT, "n": 1}, CHAT_PATH, {}, ended("length")),
    ("embeddings", EMBED, EMBEDDINGS, {}, vectors([1], [2])),
    ("embeddings of tokens", {**EMBED, "input": [1, 2, 3]}, EMBEDDINGS, {}, vectors("AAAA")),
    ("count of tokens", COUNTED, CLAUDE_PATH + "/count_tokens", CLAUDE_KEY, b'{"input_tokens":3}'),
    ("transcription", sound(b"text"), SOUNDS, FORMS, b"Hello.\n"),
    ("moderation", {"input": ["a", "b"]}, MODERATIONS, {}, b'{"results":[{"flagged":false},{"flagged":true}]}'),
    ("models", b"", MODELS, {}, b'{"object":"list","data":[{"id":"gpt-4o"}]}'),
    ("anything", b"{}", "/any/thing", {}, b'{"rows":[1,2]}'),
]


@pytest.mark.parametrize(
    ("call", "path", "headers", "answer"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD]
)  # fmt: skip
async def test_what_has_the_asked_shape_is_kept(call, path, headers, answer, build, script):
    """The other side of the same rule: one call upstream for two."""

    async def handler(_head, _body, writer):
        writer.write(whole(answer, kind=kind_of(path, answer)))

    upstream = await script(handler)
    lab = await build(upstream)
    method = "GET" if path == MODELS else "POST"
    replies = [await lab.ask(call, path=path, headers=headers, method=method) for _ in range(2)]

    assert [(200, answer)] * 2 == [(reply.status, reply.body) for reply in replies]
    assert 1 == upstream.calls


@pytest.mark.parametrize("finish", ["abort", "error", "insufficient_system_resource", "network_error", "SAFETY", ""])
async def test_streams(finish, build, script):
    """A stream that comes to its end for an unknown reason is passed on whole, and its word told in the log."""
    events = streamed(finish)

    async def handler(_head, _body, writer):
        writer.write(STREAM_HEAD + chunks(events) + LAST_CHUNK)

    upstream = await script(handler)
    lab = await build(upstream)
    replies = [await lab.ask(STREAM) for _ in range(2)]

    assert [(200, b"".join(events), False)] * 2 == [(reply.status, reply.body, reply.broken) for reply in replies]
    assert (2, 0) == (upstream.calls, lab.sidecar.memory.entries)
    assert [("unknown-finish", finish)] * 2 == [(record.reason, record.finish) for record in lab.records]


async def test_message_stream(build, script):
    """The same in Anthropic's form."""
    events = [*CLAUDE_EVENTS[:-2], claude_event("message_delta", delta={"stop_reason": "abort"}), CLAUDE_EVENTS[-1]]

    async def handler(_head, _body, writer):
        writer.write(STREAM_HEAD + chunks(events) + LAST_CHUNK)

    upstream = await script(handler)
    lab = await build(upstream)
    replies = [await lab.ask({**CLAUDE, "stream": True}, path=CLAUDE_PATH, headers=CLAUDE_KEY) for _ in range(2)]

    assert [(200, b"".join(events))] * 2 == [(reply.status, reply.body) for reply in replies]
    assert (2, 0) == (upstream.calls, lab.sidecar.memory.entries)
    assert {("unknown-finish", "abort")} == {(record.reason, record.finish) for record in lab.records}


async def test_the_word_is_told_short(build, script):
    """A word as long as a page, and not for printing, is cut to what a line bears; no metric has it."""
    word = "a\n\x07b" + "x" * 10_000

    async def handler(_head, _body, writer):
        writer.write(whole(ended(word)))

    upstream = await script(handler)
    lab = await build(upstream)
    await lab.ask()

    assert "a??b" + "x" * 60 == lab.records[0].finish
    assert "xxx" not in lab.sidecar.metrics.exposition().decode()


# ---- a document that ends in its middle ----


@pytest.fixture
async def cut(script):
    """A region whose documents end in their middle, although they are sent to their end."""

    async def handler(_head, _body, writer):
        writer.write(HEAD + chunk(completion("It is a box.")[:-30]) + LAST_CHUNK)

    return await script(handler)


async def test_cut_document_fails_over(cut, build_lab, script):
    """Another region answers, nobody hears of it, and what that one says is kept."""

    async def handler(_head, _body, writer):
        writer.write(whole(completion("It is a box.")))

    well = await script(handler)
    regions = (Region("cut", cut.url, priority=1), Region("well", well.url, priority=2))
    services = (Service("openai", DIALECTS["openai"], regions, path="/openai"),)
    lab = await build_lab(cut.url, services=services)
    replies = [await lab.ask() for _ in range(2)]

    assert [(200, completion("It is a box."))] * 2 == [(reply.status, reply.body) for reply in replies]
    assert (1, 1) == (cut.calls, well.calls)
    assert ("well", ("truncated",), 2) == (lab.records[0].region, lab.records[0].retry_causes, lab.records[0].attempts)


async def test_cut_document_of_the_only_region(cut, build_lab):
    """Then its callers get an error in the API's own form, and no 200."""
    lab = await build_lab(cut.url)
    reply = await lab.ask()

    assert (502, "upstream-truncated") == (reply.status, reply.json()["error"]["code"])
    assert (1, 0) == (cut.calls, lab.sidecar.memory.entries)


CUTS = [
    ("JSON of anything", b"{}", "/any/thing", b"application/json", b'{"a":[1,2'),
    ("JSON by its suffix", b"{}", "/any/thing", b"application/geo+json", b'{"a":[1,2'),
    ("a chat as text", CHAT, CHAT_PATH, b"text/plain", completion("It is a box.")[:-30]),
    ("embeddings as bytes", EMBED, EMBEDDINGS, b"application/octet-stream", vectors([1], [2])[:-3]),
    ("an empty chat", CHAT, CHAT_PATH, b"application/json", b""),
    ("empty embeddings", EMBED, EMBEDDINGS, b"text/plain", b""),
]


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "its length met"])
@pytest.mark.parametrize(("call", "path", "kind", "body"), [row[1:] for row in CUTS], ids=[row[0] for row in CUTS])
async def test_every_cut_document_is_a_failure(call, path, kind, body, chunked, build_lab, script):
    """Another region is asked; where there is none, that is an error."""

    async def handler(_head, _body, writer):
        if chunked:
            content = chunk(body) if body else b""
            writer.write(HEAD.replace(b"application/json", kind) + content + LAST_CHUNK)
        else:
            writer.write(whole(body, kind=kind))

    async def good(_head, _body, writer):
        writer.write(whole(b'{"rows":[1,2]}'))

    cut, well = await script(handler), await script(good)
    regions = (Region("cut", cut.url, priority=1), Region("well", well.url, priority=2))
    for known in (regions, regions[:1]):
        services = (
            Service("openai", DIALECTS["openai"], known, path="/openai"),
            Service("any", DIALECTS["generic"], known, path="/any"),
        )
        lab = await build_lab(cut.url, services=services, routes=ALWAYS)
        reply = await lab.ask(call, path=path)
        if len(known) == 2:
            assert (200, b'{"rows":[1,2]}', 1) == (reply.status, reply.body, well.calls)
            assert ("well", ("truncated",)) == (lab.records[0].region, lab.records[0].retry_causes)
        else:
            assert (502, "upstream-truncated") == (reply.status, reply.json()["error"]["code"])
            assert (1, 0) == (well.calls, lab.sidecar.memory.entries)


@pytest.mark.parametrize("path", [CHAT_PATH, "/any/thing"], ids=["chat", "anything"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "its length met"])
@pytest.mark.parametrize("size", [2, 20], ids=["kept whole", "too large for that"])
async def test_cut_document_past_its_commit_point(path, chunked, size, build, script):
    """Its caller's connection is broken before it has all of it, and nothing is stored."""
    body = completion("x" * size * MIB)[:-30]

    async def handler(_head, _body, writer):
        writer.write(
            HEAD if chunked else HEAD.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(body))
        )
        for at in range(0, len(body), MIB):
            piece = body[at : at + MIB]
            writer.write(chunk(piece) if chunked else piece)
            await writer.drain()
        if chunked:
            writer.write(LAST_CHUNK)

    upstream = await script(handler)
    lab = await build(upstream)
    reply = await lab.ask(path=path)

    assert (200, True) == (reply.status, reply.broken)
    assert (1, 0) == (upstream.calls, lab.sidecar.memory.entries)
    assert not lab.records[0].stored


async def test_cut_document_of_a_call_that_goes_by(cut, build_lab):
    """What is not looked up is nobody's to judge."""
    lab = await build_lab(cut.url)
    reply = await lab.ask({**CHAT, "temperature": 1})

    assert (200, completion("It is a box.")[:-30]) == (reply.status, reply.body)


# ---- an event too large to be read ----


class Oversized:
    """A chat stream with an event past 8 MiB, and *after* it what a story says."""

    def __init__(self, *after, size=9 * MIB):
        self.event = delta("x" * size)
        self.events = [ROLE, self.event, *after]

    async def __call__(self, _head, _body, writer):
        writer.write(STREAM_HEAD + chunk(ROLE))
        for at in range(0, len(self.event), MIB):
            writer.write(chunk(self.event[at : at + MIB]))
            await writer.drain()
        writer.write(chunks(self.events[2:]) + LAST_CHUNK)


@pytest.mark.parametrize(
    "after", [[], [delta("a")], [delta(None, finish="stop"), USAGE]], ids=["none", "more", "finish"]
)
async def test_oversized_event_is_no_end(after, build, script):
    """A stream that ends behind it without its last event is broken, and its callers see that."""
    oversized = Oversized(*after)
    upstream = await script(oversized)
    lab = await build(upstream)
    reply = await lab.ask(STREAM)

    assert reply.broken
    assert reply.body.startswith(b"".join(oversized.events))
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


@pytest.mark.parametrize(("room", "kept"), [(4 * MIB, 0), (16 * MIB, 1)], ids=["too large", "kept"])
async def test_oversized_event_before_the_end(room, kept, build, script):
    """A stream that comes to its last event behind it is passed on, and kept where all of it could be judged."""
    oversized = Oversized(delta(None, finish="stop"), USAGE, DONE)
    upstream = await script(oversized)
    lab = await build(upstream, memory=MemoryRule(max_bytes=64 * MIB, max_entry_bytes=room))
    reply = await lab.ask(STREAM)

    assert (200, False) == (reply.status, reply.broken)
    assert reply.body == b"".join(oversized.events)
    await lab.settle()
    assert kept == lab.sidecar.memory.entries


async def test_oversized_event_cut_in_its_middle(build, script):
    """So is one that the stream ends in."""
    oversized = Oversized()

    async def handler(_head, _body, writer):
        writer.write(STREAM_HEAD + chunk(ROLE))
        for at in range(0, len(oversized.event) - MIB, MIB):
            writer.write(chunk(oversized.event[at : at + MIB]))
            await writer.drain()
        writer.write(LAST_CHUNK)

    upstream = await script(handler)
    lab = await build(upstream)
    reply = await lab.ask(STREAM)

    assert reply.broken
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_waiting_callers_in_the_other_form(build, script):
    """Who waits for a document of such a stream gets one of its own, for nobody knows what the stream came to."""
    events = streamed("abort")
    go = asyncio.Event()

    async def handler(_head, body, writer):
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(events[:2]))
            await writer.drain()
            await go.wait()
            writer.write(chunks(events[2:]) + LAST_CHUNK)
        else:
            writer.write(whole(completion("It is a box.")))

    upstream = await script(handler)
    lab = await build(upstream)
    leader = asyncio.create_task(lab.ask(STREAM))
    await lab.until(lambda: upstream.calls == 1)
    joiner = asyncio.create_task(lab.ask(CHAT))
    await lab.until(lambda: lab.waiting == 2)
    go.set()

    assert b"".join(events) == (await leader).body
    assert completion("It is a box.") == (await joiner).body
    assert 2 == upstream.calls
