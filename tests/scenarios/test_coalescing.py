"""Equal calls at the same time cost one upstream call, and everybody gets the answer in the form asked for."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import CacheRule, Share
from tests.scenarios.answers import CLAUDE, CLAUDE_EVENTS, CLAUDE_PATH, chat_events, chunks, said
from tests.scenarios.conftest import CHAT, CHAT_PATH, LAST_CHUNK, STREAM_HEAD, completion, whole

PLAIN = CHAT
STREAM = {**CHAT, "stream": True}
SHOWN = {**STREAM, "stream_options": {"include_usage": True}}
HIDDEN = {**STREAM, "stream_options": {"include_usage": False}}
MIXTURE = (PLAIN, STREAM, SHOWN, HIDDEN)

EVENTS = chat_events("It", " is", " a box.")
TEXT = "It is a box."
EMBEDDINGS = "/openai/v1/embeddings"
EMBED = {"model": "text-embedding-3-small", "input": "box"}

MISS = "sidecar; fwd=miss; stored"
COLLAPSED = "sidecar; fwd=miss; collapsed"


def is_right(asked: dict, body: bytes) -> bool:
    """Whether *body* is the answer in the form that *asked* wants, to the end."""
    if not asked.get("stream"):
        return 5 == json.loads(body)["usage"]["total_tokens"] and said(body) == TEXT
    shown = asked.get("stream_options", {}).get("include_usage", False)
    return said(body) == TEXT and body.endswith(b"data: [DONE]\n\n") and (b'"total_tokens"' in body) is shown


class Box:
    """A provider that answers in the form asked for; of a stream it holds back all but the beginning until *go*."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(EVENTS[:2]))
            await self.go.wait()
            writer.write(chunks(EVENTS[2:]) + LAST_CHUNK)
        else:
            await self.go.wait()
            writer.write(whole(completion(TEXT), extra=b"X-Request-Id: req-1\r\nSet-Cookie: a=b\r\n"))


@pytest.mark.parametrize("first", [STREAM, SHOWN, PLAIN], ids=["stream", "stream-with-usage", "plain"])
async def test_one_hundred_cost_one(first, build_lab, script, dial):
    """100 equal calls of every form are one upstream call, whichever form leads."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, first)
    await lab.until(lambda: upstream.calls == 1)
    asked = [MIXTURE[n % len(MIXTURE)] for n in range(99)]
    joiners = [await dial(lab, call) for call in asked]
    await lab.until(lambda: lab.waiting == 100)
    box.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *joiners]))
    await lab.settle()

    assert 1 == upstream.calls
    assert {200} == {reply.status for reply in replies}
    assert [MISS] + [COLLAPSED] * 99 == [reply.cache for reply in replies]
    assert [] == [reply for call, reply in zip([first, *asked], replies, strict=True) if not is_right(call, reply.body)]
    assert not any(reply.broken for reply in replies)
    assert ["text/event-stream" if call.get("stream") else "application/json" for call in asked] == [
        reply.headers["content-type"].partition(";")[0] for reply in replies[1:]
    ]
    assert not any("set-cookie" in reply.headers for reply in replies[1:])
    assert all(reply.headers["x-request-id"] == reply.headers["x-sidecar-request-id"] for reply in replies[1:])
    await lab.until(lambda: len(lab.records) == 100)
    assert 99 == sum(record.outcome is Outcome.COLLAPSED for record in lab.records)
    assert len({record.request_id for record in lab.records}) == 100
    assert (await lab.ask(PLAIN)).cache.startswith("sidecar; hit; ")


async def test_late_caller_reads_from_the_first_byte(build_lab, script, dial):
    """Who comes while the stream is open gets all that has been, and then what comes, with everybody else."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, STREAM)
    await leader.until(b'"content":"It"')
    late = [await dial(lab, STREAM), await dial(lab, SHOWN)]
    for caller in late:
        await caller.until(b'"content":"It"')

    assert not box.go.is_set()
    assert [COLLAPSED] * 2 == [caller.headers["cache-status"] for caller in late]
    box.go.set()
    replies = [await caller.reply() for caller in (leader, *late)]
    assert replies[0].body == replies[1].body
    assert b"".join(EVENTS) == replies[2].body
    assert 1 == upstream.calls


@pytest.mark.parametrize("first", [HIDDEN, PLAIN], ids=["leader-hides-usage", "plain-leader"])
async def test_usage_is_shown_to_who_asked(first, build_lab, script, dial):
    """A caller that asked for usage gets it, also where the leader's own call did not ask the provider for it."""

    async def literal(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        asked = json.loads(body)
        shown = asked.get("stream_options", {}).get("include_usage")
        events = (
            EVENTS if shown else [event.replace(b',"usage":null', b"") for event in EVENTS if b"total" not in event]
        )
        if not asked.get("stream"):
            await go.wait()
            writer.write(whole(completion(TEXT)))
            return
        writer.write(STREAM_HEAD + chunks(events[:2]))
        await go.wait()
        writer.write(chunks(events[2:]) + LAST_CHUNK)

    go = asyncio.Event()
    upstream = await script(literal)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, first)
    await lab.until(lambda: upstream.calls == 1)
    asked = [PLAIN, SHOWN]
    joiners = [await dial(lab, call) for call in asked]
    await lab.until(lambda: lab.waiting >= 1 + len(joiners) or upstream.calls >= 2)
    go.set()
    replies = await asyncio.gather(leader.reply(), *(caller.reply() for caller in joiners))

    assert [True, True, True] == [
        is_right(call, reply.body) for call, reply in zip([first, *asked], replies, strict=True)
    ]


@pytest.mark.parametrize("many", [2, 20])
async def test_who_finds_no_form_of_an_answer_shares_one(many, build_lab, script, dial):
    """A stream without its usage can become no whole answer: those who want one have one call between them."""
    opened, go = asyncio.Event(), asyncio.Event()

    async def without_usage(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if not json.loads(body).get("stream"):
            await go.wait()
            writer.write(whole(completion(TEXT)))
            return
        events = [event.replace(b',"usage":null', b"") for event in EVENTS if b"total" not in event]
        writer.write(STREAM_HEAD + chunks(events[:2]))
        await opened.wait()
        writer.write(chunks(events[2:]) + LAST_CHUNK)

    upstream = await script(without_usage)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, STREAM)
    await lab.until(lambda: upstream.calls == 1)
    others = [await dial(lab, PLAIN) for _ in range(many)]
    await lab.until(lambda: lab.waiting == 1 + many)
    opened.set()
    await leader.reply()
    await lab.until(lambda: upstream.calls == 2 and lab.waiting == many)
    go.set()
    replies = [await caller.reply() for caller in others]

    assert [True] * many == [is_right(PLAIN, reply.body) for reply in replies]
    assert 2 == upstream.calls
    again = await lab.ask(PLAIN)
    assert is_right(PLAIN, again.body)
    assert 2 == upstream.calls
    await lab.settle()


async def test_strangers_do_not_wait_for_each_other(build_lab, script, dial):
    """Who has not proved itself to a shared service leads a flight of its own, beside that of another credential."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url, cache=CacheRule(share=Share("service")))
    one, two = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
    callers = [await dial(lab, PLAIN, headers=headers) for headers in (one, one, two, two)]
    await lab.until(lambda: lab.waiting == 4)
    box.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 2 == upstream.calls
    assert sorted([MISS, MISS, COLLAPSED, COLLAPSED]) == sorted(reply.cache for reply in replies)


async def test_caller_whose_form_cannot_be_made_calls_itself(build_lab, script, dial):
    """A spoken answer has no streamed form: the streaming joiner makes its own call and gets its own answer."""
    spoken = json.loads(completion(TEXT))
    spoken["choices"][0]["message"]["audio"] = {"id": "audio_1", "data": "AAAA", "transcript": TEXT, "expires_at": 1}
    go = asyncio.Event()

    async def handler(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(EVENTS) + LAST_CHUNK)
            return
        await go.wait()
        writer.write(whole(json.dumps(spoken).encode()))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    leader = await dial(lab, PLAIN)
    await lab.until(lambda: upstream.calls == 1)
    joiners = [await dial(lab, STREAM), await dial(lab, SHOWN), await dial(lab, PLAIN)]
    await lab.until(lambda: lab.waiting == 4)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *joiners]))

    assert [spoken, spoken] == [json.loads(replies[n].body) for n in (0, 3)]
    assert all(is_right(call, replies[n].body) for n, call in ((1, STREAM), (2, SHOWN)))
    assert {MISS} == {replies[n].cache for n in (1, 2)}
    assert 3 == upstream.calls
    assert [Outcome.COLLAPSED] + [Outcome.MISS] * 3 == sorted(record.outcome for record in lab.records)
    await lab.settle()


@pytest.mark.parametrize("path", [CHAT_PATH, EMBEDDINGS], ids=["chat", "embeddings"])
async def test_different_principals_never_share(path, build_lab, script, dial):
    """Two keys asking the same are two calls, at the same time and afterwards."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    call = CHAT if path == CHAT_PATH else EMBED
    callers = [await dial(lab, call, path=path, headers={"authorization": f"Bearer sk-{n}"}) for n in range(3)]
    await lab.until(lambda: upstream.calls == 3)
    box.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert not any("collapsed" in reply.cache for reply in replies)
    assert 3 == len({reply.headers["x-sidecar-request-id"] for reply in replies})


@pytest.mark.parametrize("first", [True, False], ids=["streaming-leader", "plain-leader"])
async def test_messages_in_both_forms(first, build_lab, script, dial):
    """Anthropic's messages: callers of both forms share one call, whichever form it was made in."""
    document = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4", "stop_sequence": None,
        "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    go = asyncio.Event()

    async def handler(_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if json.loads(body).get("stream"):
            writer.write(STREAM_HEAD + chunks(CLAUDE_EVENTS[:2]))
            await go.wait()
            writer.write(chunks(CLAUDE_EVENTS[2:]) + LAST_CHUNK)
        else:
            await go.wait()
            writer.write(whole(json.dumps(document).encode()))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    headers = {"x-api-key": "sk-ant", "anthropic-version": "2023-06-01"}
    asked = [{**CLAUDE, "stream": stream} for stream in (first, True, False, True, False)]
    callers = [await dial(lab, call, path=CLAUDE_PATH, headers=headers) for call in asked]
    await lab.until(lambda: lab.waiting == 5)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 1 == upstream.calls
    assert 4 == [reply.cache for reply in replies].count(COLLAPSED)
    for call, reply in zip(asked, replies, strict=True):
        if call["stream"]:
            assert TEXT.encode() in reply.body
            assert b'{"type":"message_stop"}' == reply.body.rpartition(b"data: ")[2].replace(b" ", b"").strip()
        else:
            assert TEXT == reply.json()["content"][0]["text"]
            assert "end_turn" == reply.json()["stop_reason"]


async def test_late_caller_of_a_large_document(build_lab, script, dial):
    """A document past 1 MiB is handed on while it comes, also to who joins in the middle of it."""
    body = completion("x" * 3_000_000)
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        answer = whole(body)
        writer.write(answer[:2_000_000])
        await go.wait()
        writer.write(answer[2_000_000:])

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    leader = await dial(lab)
    await leader.until(b"x" * 100_000)
    late = await dial(lab)
    await late.until(b"x" * 1_500_000)

    assert not go.is_set()
    go.set()
    replies = await asyncio.gather(leader.reply(), late.reply())
    assert [body, body] == [reply.body for reply in replies]
    assert [MISS, COLLAPSED] == [reply.cache for reply in replies]
    assert [str(len(body))] * 2 == [reply.headers["content-length"] for reply in replies]
    assert 1 == upstream.calls
    await lab.settle()
