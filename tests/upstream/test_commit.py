"""The commit point: how far an answer is read before anybody has it, and what it says of its region by then."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.headers import fields_of
from sidecar.core.memory_budget import Ledger
from sidecar.core.region.breaker import Sign
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, UpstreamFailed
from sidecar.upstream.commit import COMMIT_BYTES, COMPLAINT_BYTES, CommittedResponse, commit
from tests.scripted import CONTENT, DONE, EVENTS, JSON, Answer, hangs

KIB = 1024
CUT = UpstreamFailed(Cause.TRUNCATED, answered=True)
OPENAI = DIALECTS["openai"]
CHAT = OPENAI.locate(b"POST", "/v1/chat/completions")
TRANSCRIPTION = OPENAI.locate(b"POST", "/v1/audio/transcriptions")
SPEECH = OPENAI.locate(b"POST", "/v1/audio/speech")
MESSAGES = DIALECTS["anthropic"].locate(b"POST", "/v1/messages")
SOUND = ((b"content-type", b"audio/mpeg"),)
GZIPPED = (b"content-encoding", b"gzip")
ERROR_EVENT = b'data: {"error":{"code":"rate_limit_exceeded","message":"x"}}\n\n'
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
START = b'event: message_start\ndata: {"type": "message_start"}\n\n'
QUOTA = b'{"error":{"code":"insufficient_quota"}}'


def events(*steps, more=()):
    return Answer(200, *steps, pairs=(*EVENTS, *more))


async def ahead(answer, endpoint, ledger, **how):
    return await commit(answer, fields_of(answer.pairs), endpoint, ledger, 0.0, **how)


async def committed(answer, endpoint=CHAT, memory=8 * COMMIT_BYTES, **how):
    """The answer up to its commit point, the verdict's cause, and how many bytes it had read by then."""
    ledger = Ledger(memory)
    found, verdict = await ahead(answer, endpoint, ledger, **how)
    begun = found._begun

    assert min(len(begun), memory) >= ledger.held

    body = b""
    try:
        while chunk := await found.read():
            body += chunk
    finally:
        found.close()

        assert 0 == ledger.held
        assert answer.closed

    assert body.startswith(begun)

    return begun, verdict.cause


@pytest.mark.parametrize(
    ("answer", "endpoint", "expected"),
    [
        pytest.param(events(CONTENT, DONE), CHAT, CONTENT, id="content"),
        pytest.param(events(b": x\n\n", PING, CONTENT, DONE), CHAT, b": x\n\n" + PING + CONTENT, id="after pings"),
        pytest.param(events(CONTENT[:9], CONTENT[9:], DONE), CHAT, CONTENT, id="an event in pieces"),
        pytest.param(events(PING, START, b"x"), MESSAGES, PING + START, id="messages"),
        pytest.param(events(b"data: {}\n\n", b"x"), TRANSCRIPTION, b"data: {}\n\n", id="events nobody reads"),
        pytest.param(events(b"data: {}"), CHAT, b"data: {}", id="without its last blank line"),
        pytest.param(events(b'{"a":', b"1}"), CHAT, b'{"a":1}', id="a document, misnamed"),
        pytest.param(events(b"\x1f", b"\x8b", more=[GZIPPED]), CHAT, b"\x1f", id="events, coded"),
        pytest.param(Answer(200, b'{"a":', b"1}"), CHAT, b'{"a":1}', id="a document"),
        pytest.param(Answer(200, b" ", b"\n", b"{", b"}"), CHAT, b" \n{}", id="a document after blanks"),
        pytest.param(Answer(200, *[b" " * KIB] * 1200), CHAT, b" " * COMMIT_BYTES, id="blanks without end"),
        pytest.param(Answer(200, b'{"a":', b"1}", length=7), CHAT, b'{"a":1}', id="its length known"),
        pytest.param(Answer(200, b"ID3", b"x", pairs=SOUND, length=4), SPEECH, b"ID3x", id="short sound"),
        pytest.param(Answer(200, b"ID3", b"x", pairs=SOUND), SPEECH, b"ID3", id="sound"),
        pytest.param(Answer(200, b"I", b"x", pairs=SOUND, length=COMMIT_BYTES + 1), SPEECH, b"I", id="long sound"),
        pytest.param(Answer(200, b"{", b"x", length=COMMIT_BYTES + 1), CHAT, b"{", id="a long document"),
        pytest.param(Answer(200, b"a", b"b", pairs=()), CHAT, b"a", id="of no type"),
        pytest.param(Answer(200, b"{", b"}"), None, b"", id="of no known operation, or HEAD"),
        pytest.param(Answer(200, b"{", b"}", pairs=EVENTS), None, b"", id="a stream of none"),
        pytest.param(Answer(204), CHAT, b"", id="nothing"),
        pytest.param(Answer(302, b"a", b"b"), CHAT, b"", id="elsewhere"),
    ],
)
async def test_commit_point(answer, endpoint, expected):
    """Up to where an answer is read ahead; the rest follows as it comes."""

    assert (expected, "ok") == await committed(answer, endpoint)


TEXT = ((b"content-type", b"text/plain"),)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(events(PING, CONTENT, DONE), PING + CONTENT, id="events"),
        pytest.param(events(b"\x1f", b"\x8b", more=[GZIPPED]), b"\x1f", id="events, coded"),
        pytest.param(Answer(200, b'{"a":', b"1}"), b'{"a":1}', id="a document"),
        pytest.param(Answer(200, b'{"a":', b"1}", length=7), b'{"a":1}', id="a document, its length known"),
        pytest.param(Answer(200, b"{", b"x", length=COMMIT_BYTES + 1), b"{", id="a long document"),
        pytest.param(Answer(200, b"a", b"b", pairs=TEXT), b"a", id="text"),
        pytest.param(Answer(200, b"a", b"b", pairs=TEXT, length=2), b"a", id="text, its length known"),
        pytest.param(Answer(200, b"a", b"b", pairs=()), b"a", id="of no type"),
        pytest.param(Answer(200, b"a", b"b", pairs=(), length=2), b"a", id="of no type, its length known"),
        pytest.param(Answer(200, b"a", b"b", pairs=SOUND, length=2), b"a", id="sound"),
        pytest.param(Answer(200, pairs=TEXT), b"", id="nothing"),
    ],
)
async def test_commit_point_of_a_call_for_a_stream(answer, expected):
    """Who asked for a stream waits for no end but that of a document."""

    assert (expected, "ok") == await committed(answer, streaming=True)


@pytest.mark.parametrize(
    ("steps", "pairs"),
    [
        pytest.param([b'{"a"', CUT], JSON, id="a document"),
        pytest.param([CUT], JSON, id="without a byte"),
        pytest.param([b"x" * KIB] * 1023 + [CUT], JSON, id="just below 1 MiB"),
        pytest.param([PING, CUT], EVENTS, id="a stream"),
        pytest.param([CONTENT[:-1], CUT], EVENTS, id="an event"),
        pytest.param([CUT], SOUND, id="no sound at all"),
    ],
)
async def test_broken_before(steps, pairs):
    """That is an attempt that failed: the answer is closed, and nothing is held."""
    answer, ledger = Answer(200, *steps, pairs=pairs), Ledger(8 * COMMIT_BYTES)
    with pytest.raises(UpstreamFailed) as caught:
        await ahead(answer, CHAT, ledger)

    assert (Cause.TRUNCATED, True) == (caught.value.cause, caught.value.answered)
    assert (1, 0) == (answer.closed, ledger.held)


PLAIN = ((b"content-type", b"text/plain"),)
GENERIC = DIALECTS["generic"].locate(b"POST", "/x")
EMBEDDINGS = OPENAI.locate(b"POST", "/v1/embeddings")
RESPONSES = OPENAI.locate(b"POST", "/v1/responses")
MODELS = OPENAI.locate(b"GET", "/v1/models")


@pytest.mark.parametrize(
    ("answer", "endpoint", "cut"),
    [
        pytest.param(Answer(200, b'{"a":', b"1"), CHAT, True, id="cut"),
        pytest.param(Answer(200, b'{"a":1', length=6), CHAT, True, id="cut, its length met"),
        pytest.param(
            Answer(200, b" [1,", pairs=((b"content-type", b"application/vnd.x+json"),)), CHAT, True, id="an array"
        ),
        pytest.param(Answer(200, b'{"a":1}'), CHAT, False, id="whole"),
        pytest.param(Answer(200, b"{'a':1}"), CHAT, False, id="no JSON"),
        pytest.param(Answer(200, b"Bad gateway"), CHAT, False, id="text"),
        pytest.param(Answer(200, b'{"a":', pairs=PLAIN, length=5), CHAT, True, id="as text"),
        pytest.param(Answer(200, b'{"a":', b"1", pairs=PLAIN), EMBEDDINGS, True, id="as text, its length not known"),
        pytest.param(Answer(200, b'{"a":', b"1", pairs=()), RESPONSES, True, id="of no type"),
        pytest.param(Answer(200, b'{"a":', pairs=()), MODELS, True, id="of no type, models"),
        pytest.param(Answer(200, b'{"a":', pairs=()), MESSAGES, True, id="of no type, messages"),
        pytest.param(events(b'{"a":', b"1"), CHAT, True, id="as a stream"),
        pytest.param(events(b'{"a":', b"1}"), CHAT, False, id="a whole one, as a stream"),
        pytest.param(Answer(200, b'{"a":', pairs=PLAIN), TRANSCRIPTION, False, id="what may be text"),
        pytest.param(Answer(200), CHAT, True, id="nothing"),
        pytest.param(Answer(200, length=0, pairs=()), EMBEDDINGS, True, id="nothing, of no type"),
        pytest.param(Answer(200, b" \r\n", b"\n"), CHAT, True, id="blanks"),
        pytest.param(Answer(202), CHAT, False, id="nothing, and another status"),
        pytest.param(Answer(200, b"{\x1f\x8b", pairs=(*JSON, GZIPPED)), CHAT, False, id="coded"),
        pytest.param(Answer(200, b'{"a":[1,2'), GENERIC, True, id="generic"),
        pytest.param(Answer(200, b'{"a":[1,2', length=9), GENERIC, True, id="generic, its length met"),
        pytest.param(Answer(200, b'{"a":[1,2', pairs=PLAIN), GENERIC, False, id="generic, as text"),
        pytest.param(Answer(200), GENERIC, False, id="generic, nothing"),
    ],
)
async def test_document_that_ends_in_its_middle(answer, endpoint, cut):
    """To a call that was looked up that is a broken answer, however cleanly it was sent."""
    if cut:
        with pytest.raises(UpstreamFailed) as caught:
            await committed(answer, endpoint, judged=True)

        assert (Cause.TRUNCATED, True, 1) == (caught.value.cause, caught.value.answered, answer.closed)
    else:
        assert "ok" == (await committed(answer, endpoint, judged=True))[1]


async def test_whose_document_is_judged():
    """A call that goes by is handed on what there is; of an operation that is not known nothing is expected."""

    assert (b'{"a":', "ok") == await committed(Answer(200, b'{"a":'))
    assert (b"", "ok") == await committed(Answer(200))
    assert (b"", "ok") == await committed(Answer(200, b'{"a":'), GENERIC)
    assert (b"", "ok") == await committed(Answer(200, b'{"a":'), None, judged=True)


@pytest.mark.parametrize("endpoint", [CHAT, GENERIC], ids=["chat", "generic"])
@pytest.mark.parametrize("known", [False, True], ids=["chunked", "its length met"])
@pytest.mark.parametrize(
    ("end", "cut"),
    [(b"", True), (b"x", True), (b'x"', True), (b'x"]}', False)],
    ids=["string", "byte", "array", "whole"],
)
async def test_end_past_the_commit_point(endpoint, known, end, cut):
    """Then it breaks where it ends; and what has been given out by then is less than its length, if that was said."""
    steps = [b'{"a":["', *[b"x" * 300 * KIB] * 5, *([end] if end else [])]
    size = sum(map(len, steps))
    answer, broken, given = Answer(200, *steps, length=size if known else None), [], []
    found, _ = await ahead(answer, endpoint, Ledger(8 * COMMIT_BYTES), judged=True)
    found.on_break = lambda: broken.append(True)

    async def read():
        while chunk := await found.read():
            given.append(chunk)

    if cut:
        with pytest.raises(UpstreamFailed) as caught:
            await read()

        assert (Cause.TRUNCATED, True) == (caught.value.cause, caught.value.answered)
    else:
        await read()

    assert b"".join(steps)[: size - (known and cut)] == b"".join(given)
    assert [True] * cut == broken
    found.close()


async def test_blanks_past_the_commit_point(monkeypatch):
    """A document of nothing but blanks, of which its caller has heard, is broken too."""
    monkeypatch.setattr("sidecar.upstream.commit.TALK_SECONDS", 0.0)
    later = asyncio.Event()
    answer = Answer(200, b" ", later, b"\n")
    found, _ = await ahead(answer, CHAT, Ledger(KIB), judged=True)
    later.set()

    assert (True, b" ", b"\n") == (found.heartbeats_only, await found.read(), await found.read())

    with pytest.raises(UpstreamFailed):
        await found.read()
    found.close()


@pytest.mark.parametrize("steps", [[], [b": x\n\n"], [PING, PING]], ids=["nothing", "comments", "pings"])
async def test_no_event(steps):
    """A stream that ends without one is a failure, handed on as it is where no other region answers."""

    assert (b"".join(steps), "truncated") == await committed(Answer(200, *steps, pairs=EVENTS), CHAT)


@pytest.mark.parametrize(
    ("steps", "pairs"),
    [([PING, hangs()], EVENTS), ([b"  ", b"\n", hangs()], JSON), ([b"  ", hangs()], JSON)],
    ids=["pings", "blanks", "blanks at once"],
)
async def test_talk(steps, pairs, monkeypatch):
    """What is meant for the caller's timer is heard by the caller, if nothing else comes."""
    monkeypatch.setattr("sidecar.upstream.commit.TALK_SECONDS", 0.0)
    found, verdict = await ahead(Answer(200, *steps, pairs=pairs), CHAT, Ledger(COMMIT_BYTES))

    assert ("ok", b"".join(steps[:-1])[:2]) == (verdict.cause, (await found.read())[:2])
    assert found.heartbeats_only


@pytest.mark.parametrize("kind", [b"application/x-ndjson", b"application/jsonl", b"application/json-seq"])
async def test_lines(kind):
    """Answers of many documents are handed on from their first bytes on."""
    answer = Answer(200, b"{}\n", b"{}\n", pairs=((b"Content-Type", kind), (b"Transfer-Encoding", b"chunked")))

    assert (b"{}\n", "ok") == await committed(answer, CHAT)


@pytest.mark.parametrize(
    ("steps", "pairs", "most", "expected"),
    [
        pytest.param([b"x" * KIB] * 1030, JSON, COMMIT_BYTES, COMMIT_BYTES, id="a document"),
        pytest.param([b":" + b"x" * 1021 + b"\n\n"] * 1030, EVENTS, COMMIT_BYTES, COMMIT_BYTES, id="comments"),
        pytest.param([b"x" * KIB] * 9, JSON, 2 * KIB, 2 * KIB, id="as little as is wanted"),
        pytest.param([b": x\n"] * 9, EVENTS, 8, 8, id="of a stream, too"),
    ],
)
async def test_limit(steps, pairs, most, expected):
    """However long an answer is: so much of it is read ahead."""
    begun, cause = await committed(Answer(200, *steps, pairs=pairs), most=most)

    assert (expected, "ok") == (len(begun), cause)


@pytest.mark.parametrize("pairs", [JSON, EVENTS], ids=["a document", "a stream"])
async def test_no_memory(pairs):
    """Where memory has no room, an answer is handed on before its commit point, with what was read of it."""
    chunk = b": " + b"x" * 96 + b"\n\n"

    assert (chunk * 3, "ok") == await committed(Answer(200, *[chunk] * 9, pairs=pairs), memory=250)


@pytest.mark.parametrize(
    ("code", "body", "pairs", "expected"),
    [
        pytest.param(429, QUOTA, (), "exhausted", id="plain"),
        pytest.param(429, gzip.compress(QUOTA), (GZIPPED,), "exhausted", id="gzip"),
        pytest.param(429, gzip.compress(QUOTA), ((b"Content-Encoding", b"X-GZIP"),), "exhausted", id="x-gzip"),
        pytest.param(429, zlib.compress(QUOTA), ((b"content-encoding", b"deflate"),), "exhausted", id="deflate"),
        pytest.param(429, QUOTA, ((b"content-encoding", b"identity"),), "exhausted", id="identity"),
        pytest.param(429, QUOTA, ((b"content-encoding", b"br"),), "quota", id="a coding that we don't know"),
        pytest.param(429, QUOTA, (GZIPPED,), "quota", id="not coded after all"),
        pytest.param(429, gzip.compress(QUOTA)[:-20], (GZIPPED,), "quota", id="cut off"),
        pytest.param(429, QUOTA + b" " * COMPLAINT_BYTES, (), "quota", id="too long to read"),
        pytest.param(404, b'{"error":{"code":"DeploymentNotFound"}}', (), "no-deployment", id="404"),
        pytest.param(500, QUOTA, (), "5xx", id="not asked"),
    ],
)
async def test_errors(code, body, pairs, expected):
    """What an error says is read, whatever its coding; its bytes are handed on as they are."""
    answer = Answer(code, body, pairs=(*JSON, *pairs))
    found, verdict = await ahead(answer, CHAT, Ledger(COMMIT_BYTES))

    assert (expected, code) == (verdict.cause, found.status)
    assert body == await found.read()


async def test_error_that_stops(monkeypatch):
    """An error whose words don't come in time, or not whole, is judged by its status."""
    monkeypatch.setattr("sidecar.upstream.commit.COMPLAINT_SECONDS", 0.0)
    answer, ledger = Answer(429, b"{", hangs()), Ledger(COMMIT_BYTES)
    found = [await ahead(one, CHAT, ledger) for one in (answer, Answer(429, b"{", CUT), Answer(500, b"{", hangs()))]

    assert ["quota", "quota", "5xx"] == [verdict.cause for _, verdict in found]
    assert [b"{"] * 2 == [await committed.read() for committed, _ in found[:2]]


async def test_error_of_an_unknown_operation():
    """That is judged as well."""

    assert (QUOTA, "exhausted") == await committed(Answer(429, QUOTA), None)


async def test_bomb():
    """Of a small error that is large without its coding, no more is unfolded than is read of any."""
    found, verdict = await ahead(
        Answer(429, gzip.compress(b" " * 50 * COMMIT_BYTES), pairs=(GZIPPED,)), CHAT, Ledger(COMMIT_BYTES)
    )

    assert ("quota", 429) == (verdict.cause, found.status)


@pytest.mark.parametrize(
    ("steps", "sign", "cause"),
    [
        pytest.param([ERROR_EVENT], Sign.NEUTRAL, "quota", id="quota"),
        pytest.param([PING, b'data: {"error":{"message":"x"}}\n\n'], Sign.ERROR, "5xx", id="a failure"),
        pytest.param([CONTENT + ERROR_EVENT], Sign.GOOD, "ok", id="after content, in one piece"),
    ],
)
async def test_error_events(steps, sign, cause):
    """An error inside a stream counts as one as long as nothing else was in it."""
    found, verdict = await ahead(events(*steps), CHAT, Ledger(COMMIT_BYTES))

    assert (sign, cause) == (verdict.sign, verdict.cause)
    assert b"".join(steps) == await found.read()


@pytest.mark.parametrize("pairs", [JSON, EVENTS], ids=["a document", "a stream"])
async def test_cancelled(pairs):
    """Who is cancelled while it reads closes the answer, and gives back what was held."""
    answer, ledger = Answer(200, b"{", hangs(), pairs=pairs), Ledger(COMMIT_BYTES)
    task = asyncio.create_task(ahead(answer, CHAT, ledger))
    await asyncio.sleep(0)

    assert 1 == ledger.held

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (1, 0) == (answer.closed, ledger.held)


async def test_committed():
    """What was read comes first and is let go of then; a break is told once, the end once."""
    heard, ledger = [], Ledger(100)
    ledger.take(3)
    answer = Answer(200, b"d", CUT, CUT, pairs=JSON, length=9)
    found = CommittedResponse(answer, {}, b"abc", ledger, 3)
    found.on_break = lambda: heard.append("break")
    found.on_close = lambda which: heard.append(which is found)

    assert "<CommittedResponse 200, 3 bytes read ahead>" == repr(found)
    assert (200, JSON, 9) == (found.status, found.pairs, found.length)
    assert (b"abc", 0, b"d") == (await found.read(), ledger.held, await found.read())

    for _ in range(2):
        with pytest.raises(UpstreamFailed):
            await found.read()
    found.close()
    found.close()

    assert (["break", True], 2) == (heard, answer.closed)


async def test_broken_when_all_was_there():
    """A break after all that counts is none."""
    heard = []
    found = CommittedResponse(Answer(200, CUT), {})
    found.on_break = lambda: heard.append("break")
    found.complete = True
    with pytest.raises(UpstreamFailed):
        await found.read()

    assert [] == heard


async def test_closed_early():
    """An answer that nobody reads gives back what it held."""
    ledger = Ledger(100)
    found, _ = await ahead(Answer(200, b"{}"), CHAT, ledger)

    assert 2 == ledger.held

    found.close()

    assert (0, b"") == (ledger.held, found._begun)


async def test_discourage():
    """The word that it is no use to try again takes the place of any other."""
    pairs = ((b"a", b"b"), (b"X-Should-Retry", b"true"))
    found = CommittedResponse(Answer(500, pairs=pairs), fields_of(pairs))
    found.discourage()

    assert ((b"a", b"b"), (b"x-should-retry", b"false")) == found.pairs
    assert fields_of(found.pairs) == found.fields


async def test_unread():
    """What was read to be looked at is read again."""
    found = CommittedResponse(Answer(400, b"abc"), {})
    found.unread(await found.read())

    assert [b"abc", b""] == [await found.read(), await found.read()]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    memory=st.integers(0, 200),
    most=st.integers(1, 200),
    code=st.sampled_from([200, 204, 400, 429, 500]),
    pairs=st.sampled_from([JSON, EVENTS, SOUND, ()]),
    cut=st.booleans(),
)
async def test_nothing_is_lost(chunks, memory, most, code, pairs, cut):
    """Whatever comes, in whichever pieces: it is handed on byte for byte, or fails before anybody saw it."""
    ledger = Ledger(memory)
    answer = Answer(code, *chunks, *[CUT] * cut, pairs=pairs)
    body = b""
    try:
        found, _ = await ahead(answer, CHAT, ledger, most=most)
    except UpstreamFailed:
        assert (1, 0) == (answer.closed, ledger.held)
        return

    try:
        while chunk := await found.read():
            body += chunk
    except UpstreamFailed:
        assert cut
    found.close()

    assert b"".join(chunks) == body
    assert (1, 0) == (answer.closed, ledger.held)
