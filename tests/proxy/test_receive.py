"""Receiving an answer: what is kept of it and when, who has it, and in whose record its cost stands."""

import asyncio

import pytest

from sidecar.core.http.headers import fields_of
from sidecar.core.model import Form, Usage
from sidecar.errors import Cause, UpstreamFailed
from sidecar.proxy.flight.reader import Reader
from sidecar.upstream.commit import COMMIT_BYTES, CommittedResponse
from sidecar.upstream.dispatch import Sent
from tests.fetched import (
    ASK,
    CHUNKED,
    DONE,
    EVENTS,
    JSON,
    NOW,
    SAID,
    STREAM,
    Answer,
    completion,
    delta,
    read,
    streamed,
    whole,
)

# ---- what is kept ----


async def test_kept(desks):
    """An entry has the answer's bytes, what every caller may see of its head, and what the route says of it."""
    desk = desks(Answer(completion(), pairs=(JSON, CHUNKED, (b"Set-Cookie", b"c"), (b"X-Request-Id", b"up"))))
    fetch = desk.fetch_of(fields={b"x-team": b"docs", b"x-sidecar-tags": b"a, b"})
    opening, got = await desk.fetch(fetch)
    entry = desk.store.peek(fetch.key)

    assert completion() == got == entry.body
    assert ((b"content-type", b"application/json"),) == entry.headers == opening.shared
    assert (b"Set-Cookie", b"c") in opening.pairs
    assert (200, Form.WHOLE, "openai", "team", "gpt-4o-2024", "us") == (
        entry.status, entry.form, entry.service, entry.route, entry.model, entry.region
    )  # fmt: skip
    assert (NOW, 60.0, ("ocr", "a", "b"), Usage(3, 2), 1.5) == (
        entry.at, entry.ttl, entry.tags, entry.usage, entry.seconds
    )  # fmt: skip
    assert (True, "", "up", True) == (fetch.draft.stored, fetch.draft.reason, fetch.draft.upstream_id, opening.kept)


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [({}, 3600.0), ({b"x-sidecar-ttl": b"5m"}, 300.0), ({b"x-sidecar-ttl": b"9h"}, 3600.0)],
    ids=["the kind's", "shorter", "never longer"],
)
async def test_kept_for(desks, fields, ttl):
    """How long it is kept: the caller may only shorten it."""
    desk = desks(whole())
    fetch = desk.fetch_of(fields=fields)
    await desk.fetch(fetch)

    assert ttl == desk.store.peek(fetch.key).ttl


async def test_kept_at_the_last_event(desks):
    """A stream is kept when its last event has come, before its last byte; whoever leaves then has had it all."""
    gate = asyncio.Event()
    desk = desks(streamed(*SAID, gate, b": bye\n\n"))
    fetch = desk.fetch_of(STREAM)
    flight, reader = desk.fly(fetch)
    await desk.settle()
    entry = desk.store.peek(fetch.key)

    assert (b"".join(SAID), Form.EVENTS) == (entry.body, entry.form)
    assert (True, True, Usage(3, 2)) == (flight.complete, fetch.draft.stored, fetch.draft.usage)
    assert not flight.over
    assert not reader.satisfied

    got = await reader.read()

    assert reader.satisfied
    assert b"".join(SAID) == got

    reader.leave()
    gate.set()
    await desk.settle()

    assert flight.over
    assert (1, Usage(3, 2)) == (fetch.draft.attempts, fetch.draft.usage)
    assert entry is desk.store.peek(fetch.key)


@pytest.mark.parametrize("broken", [True, False], ids=["broken off", "ended early"])
async def test_stream_that_breaks_is_not_kept(desks, broken):
    """Without its last event a stream is an error, and nothing of it is kept."""
    end = [UpstreamFailed(Cause.TRUNCATED, answered=True)] if broken else []
    desk = desks(streamed(*SAID[:2], *end))
    fetch = desk.fetch_of(STREAM)
    with pytest.raises(UpstreamFailed, match="truncated"):
        await desk.fetch(fetch)

    assert desk.store.peek(fetch.key) is None


async def test_stream_that_breaks_after_its_last_event(desks):
    """After the last event an answer is whole, whatever becomes of the transfer: it is handed on and kept."""
    desk = desks(streamed(*SAID, UpstreamFailed(Cause.TRUNCATED, answered=True)))
    fetch = desk.fetch_of(STREAM)
    read = await desk.fetch(fetch)

    assert b"".join(SAID) == read[1]
    assert b"".join(SAID) == desk.store.peek(fetch.key).body


@pytest.mark.parametrize("size", [10, COMMIT_BYTES + 1], ids=["small", "past the commit point"])
@pytest.mark.parametrize(
    ("framing", "kept"),
    [((CHUNKED,), True), (((b"content-length", b"9"),), True), ((), False)],
    ids=["chunked", "length", "unframed"],
)
async def test_unframed(desks, size, framing, kept):
    """An answer that ends with its connection may have been cut: it is handed on, not kept, and never said to be."""
    desk = desks(Answer(completion("x" * size), b"", pairs=(JSON, *framing)))
    fetch = desk.fetch_of()
    opening, got = await desk.fetch(fetch)

    assert completion("x" * size) == got
    assert kept == opening.kept == fetch.draft.stored == (desk.store.peek(fetch.key) is not None)
    assert ("" if kept else "unframed") == fetch.draft.reason


async def test_unframed_stream(desks):
    """A stream says itself where it ends."""
    desk = desks(Answer(*SAID, pairs=(EVENTS,)))
    fetch = desk.fetch_of(STREAM)
    await desk.fetch(fetch)

    assert fetch.draft.stored


async def test_too_large(desks):
    """What is too large to be kept whole is handed on, not kept, and not said to be."""
    desk = desks(Answer(completion("x" * 5000), pairs=(JSON, CHUNKED)), limit=1000)
    fetch = desk.fetch_of()
    opening, got = await desk.fetch(fetch)

    assert completion("x" * 5000) == got
    assert (False, "answer-too-large", False) == (opening.kept, fetch.draft.reason, fetch.draft.stored)
    assert desk.store.peek(fetch.key) is None


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_superseded(desks, stream):
    """An answer in whose place a newer one has been asked for reaches its callers, and is not kept over the newer."""
    gate = asyncio.Event()
    older = streamed(SAID[0], gate, *SAID[1:]) if stream else Answer(gate, completion("old"))
    desk = desks(older, streamed() if stream else whole("new"))
    first, second = (desk.fetch_of(STREAM if stream else ASK, number=number) for number in (1, 2))
    _, reader = desk.fly(first)
    await desk.settle()
    await desk.fetch(second)
    kept = desk.store.peek(second.key)
    gate.set()
    _, got = await read(reader)

    assert first.key == second.key
    assert (b"".join(SAID) if stream else completion("old")) == got
    assert (False, "superseded", Usage(3, 2)) == (first.draft.stored, first.draft.reason, first.draft.usage)
    assert second.draft.stored
    assert kept is desk.store.peek(second.key)


@pytest.mark.parametrize("early", [True, False], ids=["as its head comes", "as it is poured"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((b"Cache-Control", b"no-store"), (False, True, "private")),
        ((b"Cache-Control", b"private"), (False, True, "private")),
        ((b"Cache-Control", b"no-cache"), (False, False, "")),
        ((b"Vary", b"X-Tone"), (True, False, "")),
        ((b"Vary", b"*"), (True, True, "vary")),
    ],
    ids=["no-store", "private", "no-cache", "vary", "vary on anything"],
)
async def test_what_it_says_of_others(desks, said, expected, early):
    """Of those who wait, the ones go whom it is not for: with the same credential, and with another one."""
    desk = desks()
    gate = asyncio.Event()
    fetch = desk.fetch_of(fields={b"x-team": b"docs"})
    answer = Answer(gate, completion(), pairs=(JSON, CHUNKED, said))
    fields = fields_of(answer.pairs)

    async def work(flight):
        if early:
            desk.receiver.on_head(fetch, flight, 200, fields)
            await gate.wait()
        await desk.receiver.receive(fetch, flight, Sent(CommittedResponse(answer, fields), "us"))

    flight = desk.flights.lead(fetch.key, work, generating=True)
    credential = fetch.call.principal.credential
    owner, *others = [
        Reader(flight, owned, None, fields={b"x-tone": tone})
        for owned, tone in ((credential, b"dry"), (credential, b"dry"), (b"another", b"dry"))
    ]
    await desk.settle()

    same, other, reason = expected
    assert [same, same or other] == [reader.released for reader in others]
    gate.set()
    await asyncio.gather(*(read(reader) for reader in (owner, *others) if not reader.released))
    assert (reason, not reason) == (fetch.draft.reason, fetch.draft.stored)


async def test_usage_of_what_is_not_kept(desks):
    """An answer that may not be kept has cost as much as one that may."""
    desk = desks(whole(pairs=(JSON, CHUNKED, (b"Cache-Control", b"private"))))
    fetch = desk.fetch_of(fields={b"x-team": b"docs"})
    opening, _ = await desk.fetch(fetch)

    assert (False, False, "private", Usage(3, 2)) == (
        opening.kept, fetch.draft.stored, fetch.draft.reason, fetch.draft.usage
    )  # fmt: skip


async def test_incomplete_is_dropped(desks):
    """What the dialect does not call whole is not kept, and says why."""
    desk = desks(Answer(b'{"choices":[]}'))
    fetch = desk.fetch_of()
    await desk.fetch(fetch)

    assert (False, "unreadable") == (fetch.draft.stored, fetch.draft.reason)
    assert desk.store.peek(fetch.key) is None


# ---- who has it, and who pays ----


async def test_shared_with_all(desks):
    """One fetch for two callers: the cost stands in the first one's record alone."""
    desk = desks(whole())
    fetch, other = desk.fetch_of(), desk.fetch_of(number=1)
    flight, owner = desk.fly(fetch)
    joined = desk.join(flight, other)
    (_, got), (_, same) = await asyncio.gather(read(owner), read(joined))

    assert got == same
    assert (1, True, Usage(3, 2), 1.5) == (
        fetch.draft.attempts, fetch.draft.stored, fetch.draft.usage, fetch.draft.upstream_seconds
    )  # fmt: skip
    assert (0, False, None, 0.0) == (
        other.draft.attempts, other.draft.stored, other.draft.usage, other.draft.upstream_seconds
    )  # fmt: skip


@pytest.mark.parametrize("headed", [False, True], ids=["before the head", "after it"])
async def test_owner_leaves(desks, headed):
    """Where the owner leaves, the call's cost stands in the record of one who stayed: all of it, once."""
    gate = asyncio.Event()
    answer = Answer(gate, completion()) if headed else whole()
    desk = desks(*([] if headed else [gate]), answer)
    fetch, other = desk.fetch_of(), desk.fetch_of(number=1)
    flight, owner = desk.fly(fetch)
    joined = desk.join(flight, other)
    await desk.settle()
    owner.leave()
    gate.set()
    await read(joined)

    assert (1, True, Usage(3, 2), "us", 200, 1.5) == (
        other.draft.attempts, other.draft.stored, other.draft.usage, other.draft.region, other.draft.upstream_status,
        other.draft.upstream_seconds,
    )  # fmt: skip
    assert (0, False, None, 0.0) == (
        fetch.draft.attempts, fetch.draft.stored, fetch.draft.usage, fetch.draft.upstream_seconds
    )  # fmt: skip


async def test_owner_leaves_while_a_long_stream_is_judged(desks):
    """A long answer is judged in a thread; an owner that goes after the last event takes none of its cost along."""
    long = [delta("x" * 300_000), *SAID]
    gate = asyncio.Event()
    desk = desks(streamed(*long, gate))
    fetch, other = desk.fetch_of(STREAM), desk.fetch_of(STREAM, number=1)
    flight, owner = desk.fly(fetch)
    joined = desk.join(flight, other)
    while not (await owner.read()).endswith(DONE):
        pass

    assert owner.satisfied
    assert other.draft.usage is None

    owner.leave()
    gate.set()
    await read(joined)
    bills = [(draft.attempts, draft.usage, draft.stored) for draft in (fetch.draft, other.draft)]

    assert bills == [(0, None, False), (1, Usage(3, 2), True)]


async def test_private_error(desks):
    """An error that a credential has earned reaches only those who present it; the key is remembered for nobody."""
    desk = desks(Answer(b"{}", status=429, pairs=(JSON, CHUNKED, (b"Retry-After", b"600"), (b"X-Request-Id", b"u"))))
    fetch = desk.fetch_of(fields={b"x-team": b"docs"})
    stranger = desk.fetch_of(fields={b"x-team": b"docs", b"authorization": b"Bearer other"}, number=1)
    flight, owner = desk.fly(fetch)
    other, same = desk.join(flight, stranger), desk.join(flight, desk.fetch_of(fields={b"x-team": b"docs"}, number=2))
    (opening, _), (shared, _) = await asyncio.gather(read(owner), read(same))

    assert fetch.key == stranger.key
    assert other.released
    told = ((b"x-should-retry", b"false"), (b"retry-after", b"600"))
    assert told == opening.pairs[-2:]
    assert ((b"content-type", b"application/json"), *told) == shared.shared
    assert not desk.flights.marked(fetch.key, 0.0)


async def test_unshareable(desks):
    """A good answer that cannot go to others lets them go at its head, and its key is remembered for a while."""
    desk = desks(whole(pairs=(JSON, CHUNKED, (b"Content-Encoding", b"gzip"))))
    fetch = desk.fetch_of()
    flight, owner = desk.fly(fetch)
    other = desk.join(flight, desk.fetch_of(number=1))
    desk.receiver._clock = lambda: 7.0  # the wall clock says nothing: it may be set back
    await read(owner)

    assert other.released
    assert desk.flights.marked(fetch.key, 7.0 + 119)
    assert not desk.flights.marked(fetch.key, 7.0 + 120)
    assert (False, "answer-encoded") == (fetch.draft.stored, fetch.draft.reason)


async def test_kept_unmarks(desks):
    """A key whose answer could be kept after all is waited for again."""
    desk = desks(whole())
    fetch = desk.fetch_of()
    desk.flights.mark(fetch.key, 100.0)
    await desk.fetch(fetch)

    assert not desk.flights.marked(fetch.key, 0.0)
