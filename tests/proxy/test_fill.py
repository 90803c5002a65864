"""Fetching an answer: what is sent, and who waits for it."""

from contextlib import suppress

import pytest
from msgspec.structs import replace

from sidecar.core.model import Entry, Form, Usage
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, UpstreamFailed
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
    complaint,
    completion,
    delta,
    streamed,
    whole,
)


def asks_usage(body):
    return b'"include_usage":true' in body


# ---- a stream's token counts ----


async def test_usage_is_asked_for(desks):
    """A stream's token counts are asked for on the caller's behalf, and booked."""
    desk = desks(streamed())
    fetch = desk.fetch_of(STREAM)
    await desk.fetch(fetch)

    assert [True] == [asks_usage(body) for body in desk.client.bodies]
    assert (1, Usage(3, 2)) == (fetch.draft.attempts, fetch.draft.usage)


async def test_usage_refused(desks):
    """A complaint that names what we asked for is answered by one resend of the caller's own bytes."""
    refusal = complaint()
    desk = desks(refusal, streamed())
    fetch = desk.fetch_of(STREAM)
    opening, got = await desk.fetch(fetch)

    assert [True, False] == [asks_usage(body) for body in desk.client.bodies]
    assert fetch.request.body == desk.client.bodies[1]
    assert refusal.closed
    assert (200, False, b"".join(SAID)) == (opening.status, opening.usage, got)
    assert (2, "us", 200) == (fetch.draft.attempts, fetch.draft.region, fetch.draft.upstream_status)


async def test_usage_refused_is_remembered(desks):
    """What one deployment refuses is not asked of it again; of others it is."""
    desk = desks(complaint(), *[streamed() for _ in range(4)])
    asked = []
    for ask in (STREAM, STREAM | {"seed": 1}, STREAM | {"model": "gpt-4o-mini"}, STREAM | {"seed": 2}):
        await desk.fetch(desk.fetch_of(ask))
        asked.append([asks_usage(body) for body in desk.client.bodies])
        desk.client.bodies.clear()

    assert [[True, False], [False], [True], [False]] == asked


async def test_usage_refused_by_a_resource(desks):
    """Two resources of one service are two deployments, though they are named alike."""
    desk = desks(complaint(), streamed(), streamed(), streamed())
    asked = []
    for resource in (b"one", b"two", b"one"):
        target = b"/azure/%b/openai/deployments/d/chat/completions?api-version=2024-06-01" % resource
        await desk.fetch(desk.fetch_of(STREAM, {b"api-key": b"k"}, target=target))
        asked.append([asks_usage(body) for body in desk.client.bodies])
        desk.client.bodies.clear()

    assert [[True, False], [True], [False]] == asked


async def test_complaint_of_something_else(desks):
    """Any other complaint is the caller's, byte for byte, and teaches nothing."""
    desk = desks(complaint("Bad temperature."), streamed())
    fetch = desk.fetch_of(STREAM)
    opening, got = await desk.fetch(fetch)

    assert (400, b'{"error":{"message":"Bad temperature."}}') == (opening.status, got)
    assert (1, "status", None) == (fetch.draft.attempts, fetch.draft.reason, fetch.draft.usage)
    assert desk.store.peek(fetch.key) is None

    await desk.fetch(desk.fetch_of(STREAM))

    assert [True, True] == [asks_usage(body) for body in desk.client.bodies]


async def test_long_complaint(desks):
    """A complaint longer than what is looked at goes through whole."""
    parts = [b"x" * 40_000, b"y" * 40_000, b"z" * 40_000]
    desk = desks(Answer(*parts, status=400))
    _, got = await desk.fetch(desk.fetch_of(STREAM))

    assert b"".join(parts) == got


@pytest.mark.parametrize(
    "ask",
    [ASK, STREAM | {"stream_options": {"include_usage": True}}, STREAM | {"stream_options": {"include_usage": False}}],
    ids=["whole", "asked for", "refused"],
)
async def test_usage_is_not_asked_for(desks, ask):
    """Where there is nothing to ask for, or the caller has said it, its bytes go out as they are."""
    desk = desks(streamed() if "stream" in ask else whole())
    fetch = desk.fetch_of(ask)
    await desk.fetch(fetch)

    assert [fetch.request.body] == desk.client.bodies


async def test_failure_after_a_refusal(desks):
    """Both calls are booked, where it failed, too."""
    failure = UpstreamFailed(Cause.CONNECT)
    desk = desks(complaint(), failure)
    fetch = desk.fetch_of(STREAM)
    with pytest.raises(UpstreamFailed):
        await desk.fetch(fetch)

    assert (2, "us") == (fetch.draft.attempts, fetch.draft.region)


# ---- who waits, and who is known by it ----


@pytest.mark.parametrize("known", [False, True], ids=["for a caller", "refresh"])
async def test_who_waits(desks, known):
    """A caller's call goes before a refresh, for which nobody waits."""
    desk = desks()
    fetch = desk.fetch_of(ASK, {b"x-stainless-read-timeout": b"10"})
    if known:
        entry = Entry(200, (), b"{}", Form.WHOLE, "openai", "all", "gpt-4o", NOW, 60.0)
        fetch = replace(fetch, known=entry)
    outgoing = desk.origin._upstream_call(fetch, b"{}", [])

    assert (known, known) == (outgoing.batch, outgoing.deadline is None)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([whole()], True),
        ([streamed()], True),
        ([whole(), Answer(b"{}", status=401)], False),
        ([whole(), Answer(b"{}", status=403)], False),
        ([whole(), Answer(b"{}", status=429)], True),
        ([Answer(b"{}", status=401), whole()], True),
        ([Answer(b"{}", status=404)], False),
        ([Answer(b"{}", status=500)], False),
    ],
    ids=["whole", "stream", "refused later", "forbidden later", "throttled later", "first refused", "404", "500"],
)
async def test_accepted(desks, answers, expected):
    """A whole answer is a credential's proof, a 401 or 403 takes it back; anything else says nothing of it."""
    desk = desks(*answers)
    for number, answer in enumerate(answers):
        ask = STREAM if answer.pairs[0] == EVENTS else ASK
        fetch = desk.fetch_of(ask | {"seed": number}, {b"x-team": b"docs"})
        await desk.fetch(fetch)

    assert expected == desk.accepted.knows(fetch.plan.site.place, fetch.call.principal, NOW, desk.clock())


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"", status=204),
        Answer(completion(), status=202),
        Answer(completion(), status=201),
        Answer(b""),
        Answer(b"{}"),
        Answer(b'{"code":401,"message":"sign in"}'),
        Answer(b'{"error":{"message":"who are you?"}}'),
        Answer(b"<html>Sign in</html>", pairs=((b"Content-Type", b"text/html"), CHUNKED)),
        Answer(b'{"object":"chat.completion","choices":[]}'),
        Answer(completion().replace(b'"stop"', b'"content_filter"')),
        Answer(completion().replace(b'"stop"', b"null")),
        Answer(completion()[:-9]),
        Answer(completion(), pairs=(JSON,)),
        Answer(completion(), pairs=(JSON, CHUNKED, (b"Content-Encoding", b"br"))),
        streamed(delta("a"), DONE),
        streamed(DONE),
        Answer(completion(), UpstreamFailed(Cause.TRUNCATED, answered=True)),
    ],
    ids=lambda answer: repr(answer.parts)[:60],
)  # fmt: skip
async def test_not_accepted(desks, answer):
    """Whatever a host says to everybody proves no credential: nothing but a whole answer of the asked shape does."""
    desk = desks(answer)
    fetch = desk.fetch_of(STREAM if answer.pairs[0] == EVENTS else ASK, {b"x-team": b"docs"})
    with suppress(UpstreamFailed):
        await desk.fetch(fetch)

    assert not desk.accepted.knows(fetch.plan.site.place, fetch.call.principal, NOW, desk.clock())


async def test_lists_of_models_prove_nothing(desks):
    """Some services show them to everybody."""
    desk = desks(Answer(b'{"object":"list","data":[]}'))
    fetch = desk.fetch_of(ASK, {b"x-team": b"docs"})
    models = replace(fetch, call=replace(fetch.call, endpoint=DIALECTS["openai"].locate(b"GET", "/v1/models")))
    await desk.fetch(models)

    assert not desk.accepted.knows(fetch.plan.site.place, fetch.call.principal, NOW, desk.clock())
