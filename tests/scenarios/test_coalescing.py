"""Equal calls at the same time cost one upstream call, and everybody gets the answer in the form asked for."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Outcome
from sidecar.core.rules import CacheRule, Share
from tests.scenarios.conftest import (
    CHAT,
    CHAT_PATH,
    CLAUDE,
    CLAUDE_EVENTS,
    CLAUDE_PATH,
    LAST_CHUNK,
    STREAM_HEAD,
    chat_events,
    chunks,
    completion,
    said,
    whole,
)

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
    assert not any("set-cookie" in reply.headers or "x-request-id" in reply.headers for reply in replies[1:])
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


@pytest.mark.parametrize("first", [PLAIN, STREAM], ids=["plain-leader", "streaming-leader"])
async def test_upstream_500_reaches_all_once(first, build_lab, script, dial):
    """An upstream's 500 is everybody's answer, is not kept, and the next call tries anew."""
    go = asyncio.Event()
    failing = True

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        error = b'{"error":{"message":"overloaded"}}'
        writer.write(
            whole(error, status="500 Oh", extra=b"X-Request-Id: r\r\n") if failing else whole(completion(TEXT))
        )

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab, first)]
    await lab.until(lambda: upstream.calls == 1)
    callers += [await dial(lab, MIXTURE[n % 4]) for n in range(12)]
    await lab.until(lambda: lab.waiting == 13)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert 1 == upstream.calls
    assert {(500, b'{"error":{"message":"overloaded"}}')} == {(reply.status, reply.body) for reply in replies}
    assert ["sidecar; fwd=miss"] + [COLLAPSED] * 12 == [reply.cache for reply in replies]
    assert ["x-request-id" in reply.headers for reply in replies] == [True] + [False] * 12
    failing = False
    assert 200 == (await lab.ask(PLAIN)).status
    assert 2 == upstream.calls
    await lab.settle()


@pytest.mark.parametrize("status", [401, 402, 403, 429])
async def test_a_credentials_refusal_is_its_own(status, build_lab, script, dial):
    """What a service says of one credential reaches those who present it; the others make calls of their own."""
    go = asyncio.Event()

    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"warm" in body:
            writer.write(whole(completion("warm")))
            return
        await go.wait()
        refused = b"sk-one" in head
        writer.write(whole(b"{}", status=f"{status} No") if refused else whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url, cache=CacheRule(share=Share("service")))
    one, two = {"authorization": "Bearer sk-one"}, {"authorization": "Bearer sk-two"}
    warm = {**CHAT, "messages": [{"role": "user", "content": "warm"}]}
    for headers in (one, two):
        assert 200 == (await lab.ask(warm, headers=headers)).status
    leader = await dial(lab, PLAIN, headers=one)
    await lab.until(lambda: upstream.calls == 3)
    same = [await dial(lab, PLAIN, headers=one), await dial(lab, STREAM, headers=one)]
    others = [await dial(lab, PLAIN, headers=two), await dial(lab, PLAIN, headers=two)]
    await lab.until(lambda: lab.waiting == 5)

    assert 3 == upstream.calls
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *same, *others]))
    assert [status] * 3 + [200] * 2 == [reply.status for reply in replies]
    assert 2 == sum(b"sk-two" in head and b"box" in body for head, body in upstream.seen)
    assert 1 == sum(b"sk-one" in head and b"box" in body for head, body in upstream.seen)
    assert ["sidecar; fwd=miss; stored"] * 2 == [reply.cache for reply in replies[3:]]
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


@pytest.mark.parametrize("field", [b"Content-Encoding: gzip", b"Content-Type: text/html"], ids=["encoded", "html"])
async def test_unshareable_answers_release_the_waiters_together(field, build_lab, script, dial):
    """Such an answer is its own caller's; the waiters go at its head, all at once, and so do the next."""
    go, more = asyncio.Event(), asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 12\r\n\r\n" % field)
        await more.wait()
        writer.write(b"\x1f\x8bnot-really")

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab) for _ in range(6)]
    await lab.until(lambda: lab.waiting == 6)

    assert 1 == upstream.calls
    go.set()
    await lab.until(lambda: upstream.calls == 6)  # the first answer has not ended yet
    late = [await dial(lab) for _ in range(3)]
    await lab.until(lambda: upstream.calls == 9)
    more.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [*callers, *late]))
    name, _, value = field.decode().lower().partition(": ")
    assert {(200, b"\x1f\x8bnot-really", "sidecar; fwd=miss", value)} == {
        (reply.status, reply.body, reply.cache, reply.headers[name]) for reply in replies
    }
    assert all(b"identity" in head for head, _ in upstream.seen)
    await lab.settle()
    assert 0 == lab.sidecar.memory.entries


async def test_mark_ends_with_a_shareable_answer(build_lab, script, dial):
    """Once an answer could be shared again, equal calls wait for each other again."""
    encoded = True
    go = asyncio.Event()
    go.set()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(whole(b"zz", extra=b"Content-Encoding: gzip\r\n") if encoded else whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    await lab.ask()
    encoded = False
    stored = await lab.ask()
    go.clear()
    callers = [await dial(lab, headers={"cache-control": "no-cache"})]
    await lab.until(lambda: lab.waiting == 1)
    callers.append(await dial(lab, headers={"cache-control": "max-age=0"}))
    await lab.until(lambda: lab.waiting == 2)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert MISS == stored.cache
    assert [MISS, COLLAPSED] == [reply.cache for reply in replies]
    assert 3 == upstream.calls


async def test_no_store_neither_leads_nor_joins(build_lab, script, dial):
    """A call with no-store goes its own way, beside a flight and before one, and leaves nothing."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab)
    await lab.until(lambda: lab.waiting == 1)
    private = [await dial(lab, headers={"cache-control": "no-store"}) for _ in range(2)]
    await lab.until(lambda: upstream.calls == 3)
    box.go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in [leader, *private]))

    assert [MISS] + ["sidecar; fwd=bypass; detail=no-store"] * 2 == [reply.cache for reply in replies]
    assert 1 == lab.sidecar.memory.entries


@pytest.mark.parametrize("newest_ends", ["first", "last"])
async def test_no_cache_leads_anew(newest_ends, build_lab, script, dial):
    """A no-cache call fetches while an older flight runs; those after it join it; its answer is the one kept."""
    ends = [asyncio.Event(), asyncio.Event()]
    count = 0

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        mine, count = count, count + 1
        await ends[mine].wait()
        writer.write(whole(completion(("old", "new")[mine])))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    older = await dial(lab)
    await lab.until(lambda: upstream.calls == 1)
    newer = await dial(lab, headers={"cache-control": "no-cache"})
    await lab.until(lambda: upstream.calls == 2)
    joiner = await dial(lab)
    await lab.until(lambda: lab.waiting == 3)
    order = [(1, (newer, joiner)), (0, (older,))]
    replies = {}
    for number, callers in order if newest_ends == "first" else reversed(order):
        ends[number].set()
        replies |= {caller: await caller.reply() for caller in callers}
    await lab.settle()

    assert ["old", "new", "new"] == [said(replies[caller].body) for caller in (older, newer, joiner)]
    assert COLLAPSED == replies[joiner].cache
    assert "new" == said((await lab.ask()).body)
    assert 2 == upstream.calls


async def test_only_if_cached_never_waits(build_lab, script, dial):
    """only-if-cached gets what is stored, or 504 at once, also while the answer is on its way."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    leader = await dial(lab)
    await lab.until(lambda: lab.waiting == 1)
    early = await lab.ask(headers={"cache-control": "only-if-cached"})
    box.go.set()
    await leader.reply()
    late = await lab.ask(headers={"cache-control": "only-if-cached"})

    assert (504, "only-if-cached", "false") == (
        early.status, early.json()["error"]["code"], early.headers["x-should-retry"],
    )  # fmt: skip
    assert late.cache.startswith("sidecar; hit; ")
    assert 1 == upstream.calls


@pytest.mark.parametrize(
    ("first", "second", "calls"),
    [
        ({}, {"cache-control": "max-age=0"}, 2),
        ({}, {"cache-control": "max-age=600"}, 1),
        ({"x-sidecar-ttl": "0"}, {}, 2),
        ({"x-sidecar-ttl": "10m"}, {}, 1),
        ({"x-sidecar-ttl": "nonsense"}, {}, 2),
        ({}, {"x-sidecar-ttl": "0s"}, 2),
        ({"x-sidecar-ttl": "900d"}, {}, 1),
    ],
    ids=["max-age-0", "max-age", "ttl-0", "ttl", "ttl-unreadable", "reader's-ttl-0", "ttl-longer"],
)
async def test_callers_shorten_lifetimes(first, second, calls, build_lab, script):
    """max-age and x-sidecar-ttl shorten what is served and kept, and never make it longer."""

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(completion(TEXT)))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    await lab.ask(headers=first)
    reply = await lab.ask(headers=second)

    assert calls == upstream.calls
    if calls == 1:
        ttl = int(reply.cache.partition("ttl=")[2].partition(";")[0])
        assert ttl <= (600 if first.get("x-sidecar-ttl") == "10m" else 3600)


async def test_one_callers_ttl_does_not_queue_the_others(build_lab, script, dial):
    """A caller that wants nothing kept does not stop the others from sharing the next answer."""
    box = Box()
    upstream = await script(box)
    lab = await build_lab(upstream.url)
    box.go.set()
    await lab.ask(headers={"x-sidecar-ttl": "0"})
    box.go.clear()
    callers = [await dial(lab) for _ in range(4)]
    await lab.until(lambda: lab.waiting == 4)
    box.go.set()
    await asyncio.gather(*(caller.reply() for caller in callers))

    assert 2 == upstream.calls


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


async def test_waiters_hear_when_to_try_again(build_lab, script, dial):
    """What an overloaded service says of trying again is for all who waited."""
    go = asyncio.Event()

    async def handler(_head: bytes, _body: bytes, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(whole(b"{}", status="503 Busy", extra=b"Retry-After: 7\r\nX-Should-Retry: true\r\n"))

    upstream = await script(handler)
    lab = await build_lab(upstream.url)
    callers = [await dial(lab) for _ in range(3)]
    await lab.until(lambda: lab.waiting == 3)
    go.set()
    replies = await asyncio.gather(*(caller.reply() for caller in callers))

    assert [("7", "true")] * 3 == [
        (reply.headers.get("retry-after"), reply.headers.get("x-should-retry")) for reply in replies
    ]


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
