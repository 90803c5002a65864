"""What may be looked up, served, shared and kept."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cache.policy import (
    ABSENT,
    DEFAULT_TTL,
    FAILING,
    OTHER_TTL,
    Audience,
    Bypass,
    Drop,
    Freshness,
    Keep,
    Lookup,
    Observe,
    Reason,
    Refresh,
    Serve,
    admit,
    admit_head,
    audience,
    form_of,
    freshness,
    head_obstacles,
    judge,
    judge_stale,
    media_of,
    obstacles,
    retain,
    share,
)
from sidecar.core.dialect import Answers, BodyForm, Completeness, Endpoint, Kind
from sidecar.core.http.directives import NOTHING_ASKED, Directives
from sidecar.core.model import Entry, Facts, Form
from sidecar.core.request.principal import Principal
from sidecar.core.rules import CacheMode, CacheRule, Mode, Region, Route, Rules, Service
from sidecar.core.site.recognise import recognise
from sidecar.dialects import DIALECTS

SOMEBODY = Principal(b"p", b"c")
NOW = 1_800_000_000.0
LONG = Freshness(1e9)
CHAT = b"/openai/v1/chat/completions"
FILES = b"/openai/v1/files"
UNKNOWN = b"/openai/v1/unheard-of"


def site_of(target=CHAT, mode=CacheMode.DETERMINISTIC):
    service = Service("openai", DIALECTS["openai"], (Region("r", "https://r"),), path="/openai")
    rules = Rules((service,), (Route("all", cache=CacheRule(mode)),))
    return recognise(rules, 0, b"", b"POST", target)


def entry_of(at=NOW, ttl=60.0, **more):
    return Entry(200, (), b"", Form.WHOLE, "s", "r", "m", at, ttl, **more)


def endpoint_of(kind=Kind.CHAT, complete=Completeness.WHOLE):
    answers = Answers(
        complete=lambda *_: complete,
        usage=None,
        model=None,
        convert=None,
        watch=None,
        narrow=None,
    )
    return Endpoint("e", kind, BodyForm.JSON, lambda _: Facts(), answers)


@pytest.mark.parametrize(
    ("mode", "site", "fields", "asked", "expected"),
    [
        pytest.param(Mode.NORMAL, site_of(), {}, Directives(), None, id="look-up"),
        pytest.param(Mode.NORMAL, site_of(), {}, Directives(no_cache=True, max_age=0.0), None, id="no-cache stores"),
        pytest.param(Mode.PASSTHROUGH, site_of(), {}, Directives(), "passthrough", id="passthrough"),
        pytest.param(Mode.PASSTHROUGH, site_of(UNKNOWN), {}, Directives(), "passthrough", id="passthrough first"),
        pytest.param(Mode.NORMAL, site_of(UNKNOWN), {}, Directives(), "unknown-endpoint", id="unknown"),
        pytest.param(Mode.NORMAL, site_of(FILES), {}, Directives(), "stateful", id="the dialect says so"),
        pytest.param(Mode.CACHE_OFF, site_of(), {}, Directives(), "cache-off", id="cache off"),
        pytest.param(Mode.NORMAL, site_of(mode=CacheMode.OFF), {}, Directives(), "route-off", id="route off"),
        pytest.param(Mode.NORMAL, site_of(), {}, Directives(no_store=True), "no-store", id="no-store"),
        pytest.param(Mode.NORMAL, site_of(), {b"content-encoding": b""}, Directives(), "content-encoded", id="coded"),
        pytest.param(Mode.NORMAL, site_of(), {b"range": b"bytes=0-1"}, Directives(), "range", id="range"),
        pytest.param(Mode.NORMAL, site_of(), {b"connection": b"Keep-Alive, close"}, Directives(), None, id="kept"),
        pytest.param(Mode.NORMAL, site_of(), {b"connection": b"TE, upgrade, ,"}, Directives(), None, id="hops"),
        pytest.param(
            Mode.NORMAL,
            site_of(),
            {b"connection": b"keep-alive, OpenAI-Beta"},
            Directives(),
            "connection-options",
            id="a field that is not sent on",
        ),
    ],
)
def test_admit_head(mode, site, fields, asked, expected):
    """What the head alone rules out, and why."""

    assert (None if expected is None else Bypass(expected)) == admit_head(mode, site, fields, asked)


@pytest.mark.parametrize(
    ("mode", "facts", "trust", "expected"),
    [
        (CacheMode.DETERMINISTIC, Facts(deterministic=True), False, Lookup),
        (CacheMode.DETERMINISTIC, Facts(), False, "not-deterministic"),
        (CacheMode.DETERMINISTIC, Facts(seeded=True), False, "not-deterministic"),
        (CacheMode.DETERMINISTIC, Facts(seeded=True), True, Lookup),
        (CacheMode.DETERMINISTIC, Facts(), True, "not-deterministic"),
        (CacheMode.DETERMINISTIC, Facts(deterministic=True, bypass="tools"), False, "tools"),
        (CacheMode.ALWAYS, Facts(), False, Lookup),
        (CacheMode.ALWAYS, Facts(bypass="server-tools"), False, "server-tools"),
        (CacheMode.OBSERVE, Facts(), False, Observe),
        (CacheMode.OBSERVE, Facts(bypass="stateful"), False, "stateful"),
        (CacheMode.OFF, Facts(deterministic=True), False, "route-off"),
    ],
)
def test_admit(mode, facts, trust, expected):
    """What a call whose body is read may do."""
    route = Route("r", cache=CacheRule(mode, trust_seed=trust))

    assert (Bypass(expected) if isinstance(expected, str) else expected(route)) == admit(facts, route, SOMEBODY)


NOBODY = Principal(b"p", b"c", anonymous=True)
SIGNER = Principal(b"p", b"c", signed=True)


@pytest.mark.parametrize(
    ("mode", "site", "fields", "asked", "expected"),
    [
        pytest.param(Mode.NORMAL, site_of(), {}, NOTHING_ASKED, [], id="none"),
        pytest.param(
            Mode.PASSTHROUGH,
            site_of(FILES),
            {b"range": b"x"},
            NOTHING_ASKED,
            ["passthrough", "stateful", "range"],
            id="mode",
        ),
        pytest.param(
            Mode.CACHE_OFF,
            site_of(mode=CacheMode.OFF),
            {},
            Directives(no_store=True),
            ["cache-off", "route-off", "no-store"],
            id="route",
        ),
        pytest.param(
            Mode.NORMAL,
            site_of(UNKNOWN),
            {b"content-encoding": b"gzip", b"if-match": b"x"},
            NOTHING_ASKED,
            ["unknown-endpoint", "content-encoded", "conditional"],
            id="fields",
        ),
    ],
)
def test_all_that_the_head_rules_out(mode, site, fields, asked, expected):
    """The first is what ``admit_head`` tells."""
    assert expected == [*head_obstacles(mode, site, fields, asked)]
    assert [Bypass(reason) for reason in expected[:1]] == [
        decision for decision in [admit_head(mode, site, fields, asked)] if decision is not None
    ]


@given(
    mode=st.sampled_from(CacheMode),
    facts=st.builds(
        Facts,
        bypass=st.sampled_from(["", "store", "unreadable", "invalid-json"]),
        deterministic=st.booleans(),
        seeded=st.booleans(),
    ),
    trust=st.booleans(),
    principal=st.sampled_from([SOMEBODY, NOBODY, SIGNER]),
)
def test_the_first_obstacle_is_told(mode, facts, trust, principal):
    """A call is admitted where there is no obstacle; else it is told the first, and each is there once."""
    route = Route("r", cache=CacheRule(mode, trust_seed=trust))
    found = [*obstacles(facts, route, principal)]
    decision = admit(facts, route, principal)

    assert len(found) == len(set(found))
    if found:
        assert Bypass(found[0]) == decision
    else:
        assert (Observe(route) if mode is CacheMode.OBSERVE else Lookup(route)) == decision


@pytest.mark.parametrize(
    ("needs", "rule", "expected"),
    [
        pytest.param(("custom-model",), {}, ["custom-model"], id="model"),
        pytest.param(("custom-model",), {"custom_models": True}, [], id="model granted"),
        pytest.param(("custom-model",), {"urls": "unsigned"}, ["custom-model"], id="model, another granted"),
        pytest.param(("url-source",), {}, ["url-source"], id="URL"),
        pytest.param(("url-source",), {"urls": "unsigned"}, [], id="URL granted"),
        pytest.param(("custom-model", "url-source"), {"custom_models": True}, ["url-source"], id="one of two"),
        pytest.param(("of-a-later-version",), {"custom_models": True, "urls": "unsigned"}, ["of-a-later-version"],
                     id="unknown"),
    ],
)  # fmt: skip
def test_needs(needs, rule, expected):
    """What a call needs is an obstacle, unless its route grants just that; nothing grants what is not known."""
    route = Route("r", cache=CacheRule(**rule))

    assert expected == [*obstacles(Facts(deterministic=True, needs=needs), route, SOMEBODY)]


def test_all_obstacles():
    """What the body says, the route and the caller; of a body that cannot be read no more is said."""
    off, deterministic = (Route("r", cache=CacheRule(mode)) for mode in (CacheMode.OFF, CacheMode.DETERMINISTIC))
    told = Facts(bypass="store", further=("file-id",))

    assert ["store", "file-id", "route-off", "no-credential"] == [*obstacles(told, off, NOBODY)]
    assert ["store", "file-id", "unprovable-signature", "not-deterministic"] == [
        *obstacles(told, deterministic, SIGNER)
    ]
    assert ["invalid-json"] == [*obstacles(Facts(bypass="invalid-json"), deterministic, SOMEBODY)]


@pytest.mark.parametrize(
    ("age", "asked", "expected"),
    [
        pytest.param(0.0, Directives(), (0, 60), id="new"),
        pytest.param(12.75, Directives(), (12, 47), id="whole seconds"),
        pytest.param(59.5, Directives(), (59, 0), id="last second"),
        pytest.param(60.0, Directives(), None, id="its time is over"),
        pytest.param(1e9, Directives(), None, id="long over"),
        pytest.param(-3600.0, Directives(), (0, 60), id="a clock that was set back"),
        pytest.param(10.0, Directives(no_cache=True), None, id="no-cache"),
        pytest.param(10.0, Directives(max_age=10.0), (10, 50), id="as old as it may be"),
        pytest.param(10.5, Directives(max_age=10.0), None, id="too old for this caller"),
        pytest.param(0.0, Directives(max_age=0.0), (0, 60), id="max-age 0 takes what is new"),
        pytest.param(9.0, Directives(ttl=10.0), (9, 51), id="within the caller's ttl"),
        pytest.param(10.0, Directives(ttl=10.0), None, id="past the caller's ttl"),
        pytest.param(0.0, Directives(ttl=0.0), None, id="ttl 0"),
        pytest.param(10.0, Directives(only_if_cached=True), (10, 50), id="only-if-cached"),
        pytest.param(10.0, Directives(no_store=True), (10, 50), id="no-store says nothing of serving"),
        pytest.param(10.0, Directives(min_fresh=50.0), (10, 50), id="fresh for as long as it has to be"),
        pytest.param(10.0, Directives(min_fresh=50.5), None, id="not fresh for long enough"),
        pytest.param(0.0, Directives(min_fresh=inf), None, id="a min-fresh that nothing meets"),
    ],
)
def test_judge(age, asked, expected):
    """Whether an entry may be served, and what its age and rest are then."""
    entry = entry_of(at=NOW - age)

    assert (ABSENT if expected is None else Serve(entry, *expected)) == judge(entry, asked, LONG, NOW)
    assert ABSENT is judge(None, asked, LONG, NOW)


def test_judge_by_what_the_service_said_of_its_age():
    """An answer that was old when it came is that much older, but not less fresh than its entry says."""
    entry = entry_of(at=NOW - 10.0, age=100.0)

    assert Serve(entry, 110, 50) == judge(entry, NOTHING_ASKED, LONG, NOW)
    assert Serve(entry, 110, 50) == judge(entry, Directives(max_age=110.0), LONG, NOW)
    assert ABSENT is judge(entry, Directives(max_age=109.0), LONG, NOW)
    assert ABSENT is judge(entry, Directives(ttl=110.0), LONG, NOW)
    assert Serve(entry, 110, 50) == judge_stale(entry, NOTHING_ASKED, LONG, NOW)


@pytest.mark.parametrize("strict", [False, True])
def test_strict_entries_never_serve_stale(strict):
    """What has to be validated once it is stale serves up to then, whatever the route says of stale answers."""
    fresh = Freshness(1e9, while_revalidate=600.0, if_error=600.0)
    new, old = (entry_of(at=NOW - age, strict=strict) for age in (10.0, 60.0))

    assert isinstance(judge(new, NOTHING_ASKED, fresh, NOW), Serve)
    assert Serve(new, 10, 50) == judge_stale(new, NOTHING_ASKED, fresh, NOW)
    assert (judge(old, NOTHING_ASKED, fresh, NOW) is ABSENT) == strict
    assert (judge_stale(old, NOTHING_ASKED, fresh, NOW) is None) == strict


@given(age=st.floats(-1e6, 1e6), ttl=st.floats(0, 1e6))
def test_judge_bounds(age, ttl):
    """What is served is never past its time, and never says more of itself than is true."""
    verdict = judge(entry_of(at=NOW - age, ttl=ttl), NOTHING_ASKED, LONG, NOW)
    if isinstance(verdict, Serve):
        assert age < ttl + 1e-3
        assert 0 <= verdict.ttl <= ttl
        assert 0 <= verdict.age <= max(age, 0) + 1e-3


@pytest.mark.parametrize(
    ("status", "fields", "form", "expected"),
    [
        (200, {b"content-type": b"application/json"}, Form.WHOLE, ""),
        (200, {}, Form.WHOLE, ""),
        (200, {b"content-encoding": b"Identity", b"cache-control": b"no-store, private"}, Form.WHOLE, ""),
        (200, {b"content-type": b"text/event-stream"}, Form.EVENTS, ""),
        (200, {b"content-encoding": b"gzip"}, Form.WHOLE, Reason.ANSWER_ENCODED),
        (200, {b"content-type": b"Text/HTML; charset=utf-8"}, Form.WHOLE, Reason.CONTENT_TYPE),
        *[(status, {}, Form.WHOLE, Reason.STATUS) for status in (201, 202, 204, 206, 301, 304, 400, 404, 429, 500)],
    ],
)
def test_share(status, fields, form, expected):
    """Whether an answer may go to others, by its head. Only a plain 200 may."""

    assert expected == share(status, fields, form)


@pytest.mark.parametrize(
    ("kind", "route_ttl", "asked_ttl", "expected"),
    [
        (Kind.CHAT, None, None, 3600.0),
        (Kind.EMBEDDINGS, None, None, 86_400.0),
        (Kind.OTHER, None, None, OTHER_TTL),
        (Kind.CHAT, 10.0, None, 10.0),
        (Kind.CHAT, 10.0, 5.0, 5.0),
        (Kind.CHAT, 10.0, 50.0, 10.0),
        (Kind.CHAT, None, float("inf"), 3600.0),
        (Kind.CHAT, 0.0, None, None),
        (Kind.CHAT, 10.0, 0.0, None),
    ],
)
def test_retain(kind, route_ttl, asked_ttl, expected):
    """A whole answer is kept for its route's time, else its kind's; a caller may only shorten it."""
    endpoint = endpoint_of(kind)
    route = Route("r", cache=CacheRule(ttl=route_ttl))
    asked = Directives(ttl=asked_ttl)

    assert (Drop(Reason.NO_STORE) if expected is None else Keep(Freshness(expected))) == retain(
        endpoint, route, asked, Completeness.WHOLE
    )
    assert Freshness(expected or 0.0) == freshness(endpoint, route, asked)


@pytest.mark.parametrize("reason", [reason for reason in Completeness if reason])
def test_incomplete_is_dropped(reason):
    """What the dialect does not call whole is never kept, and says why."""

    assert Drop(reason) == retain(endpoint_of(), Route("r"), NOTHING_ASKED, reason)


def test_default_ttls():
    """What answers from what it computes lives a day, what talks an hour; what is never cached has no default."""

    assert {
        Kind.EMBEDDINGS, Kind.OCR, Kind.RERANK, Kind.TRANSCRIPTION, Kind.TRANSLATION, Kind.COUNT, Kind.CHAT,
        Kind.MODELS, Kind.LANGUAGE,
    } == set(DEFAULT_TTL)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b"content-type": b"Text/Event-Stream; charset=utf-8"}, Form.EVENTS),
        ({b"content-type": b"application/json"}, Form.WHOLE),
        ({}, Form.WHOLE),
    ],
)
def test_form_of(fields, expected):
    """A stream is known by its content type."""

    assert expected is form_of(fields)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (((b"Date", b"x"), (b"Content-Type", b" Audio/MPEG ; rate=1")), "audio/mpeg"),
        (((b"content-type", b"text/plain"), (b"content-type", b"text/html")), "text/plain"),
        (((b"content-type", b"\xff"),), "\xff"),
        (((b"content-type", b""),), ""),
        ((), ""),
    ],
)
def test_media_of(pairs, expected):
    """The type alone, in lower case."""

    assert expected == media_of(pairs)


@pytest.mark.parametrize(
    ("principal", "reason"),
    [
        (Principal(b"p", b"c", anonymous=True), Reason.NO_CREDENTIAL),
        (Principal(b"p", b"c", signed=True), Reason.UNPROVABLE_SIGNATURE),
    ],
    ids=["anonymous", "signed"],
)
def test_whose_calls_share_nothing(principal, reason):
    """Where nobody can tell whose a call is, it reads nothing and leaves nothing behind, not even a measurement."""
    for mode in (CacheMode.ALWAYS, CacheMode.DETERMINISTIC, CacheMode.OBSERVE):
        route = Route("r", cache=CacheRule(mode))

        assert Bypass(reason) == admit(Facts(deterministic=True), route, principal)


def test_shorter_route():
    """An answer that a route with a long life stored is served on a route with a short one only while that allows."""
    entry = entry_of(at=NOW - 100, ttl=86400)

    assert ABSENT is judge(entry, NOTHING_ASKED, Freshness(60.0), NOW)
    assert Serve(entry, 100, 20) == judge(entry, NOTHING_ASKED, Freshness(120.0), NOW)


@pytest.mark.parametrize("status", range(200, 600))
def test_audience(status):
    """
    Success and the service's errors are everybody's; a refusal is for who asked the same; rights are one's own, and
    what may be of either is for who is the same in both.
    """
    if status in {200, 405} or status >= 500:
        expected = Audience.EVERYONE
    elif status in {400, 413, 415, 422}:
        expected = Audience.SAME_QUESTION
    elif status < 400 or status in {401, 402, 403, 429}:
        expected = Audience.SAME_CREDENTIAL
    else:
        expected = Audience.SAME_BOTH

    assert expected is audience(status)


def test_reasons_are_short_words():
    """Reasons label metrics and stand in ``Cache-Status``: lower-case tokens."""

    assert all(reason.value.replace("-", "").islower() for reason in Reason)


@pytest.mark.parametrize(
    ("reason", "word"),
    [(Reason.UNFRAMED, "unframed"), (Reason.SUPERSEDED, "superseded"), (Reason.MEMORY_FULL, "memory-full")],
)
def test_reasons(reason, word):
    """The words of reasons that are read outside stay what they are."""

    assert word == str(reason)


STALE = Freshness(60.0, while_revalidate=30.0, if_error=300.0)


@pytest.mark.parametrize(
    ("age", "asked", "expected"),
    [
        (59.0, Directives(), Serve),
        (60.0, Directives(), Refresh),
        (89.9, Directives(), Refresh),
        (90.0, Directives(), None),
        (70.0, Directives(no_cache=True), None),
        (70.0, Directives(max_age=100.0), None),
        (70.0, Directives(ttl=100.0), None),
        (70.0, Directives(only_if_cached=True), Refresh),
        (70.0, Directives(tags=("a",)), Refresh),
        (50.0, Directives(max_age=55.0), Serve),
    ],
)
def test_while_revalidating(age, asked, expected):
    """A stale entry serves for a while, and is refreshed; not for whoever says how old an answer may be."""
    entry = entry_of(at=NOW - age, ttl=60.0)
    verdict = judge(entry, asked, STALE, NOW)

    assert (type(verdict) if verdict is not ABSENT else None) is expected
    if isinstance(verdict, Refresh):
        assert Serve(entry, int(age), -int(age - 60) - (age % 1 > 0)) == verdict.serve


@pytest.mark.parametrize(
    ("age", "asked", "served"),
    [
        (10.0, Directives(), True),
        (61.0, Directives(), True),
        (359.0, Directives(), True),
        (360.0, Directives(), False),
        (61.0, Directives(no_cache=True), False),
        (61.0, Directives(max_age=1000.0), False),
        (61.0, Directives(ttl=1000.0), False),
        (61.0, Directives(min_fresh=0.0), False),
    ],
)
def test_spare(age, asked, served):
    """What may serve where no answer can be had, and for how long."""
    entry = entry_of(at=NOW - age, ttl=60.0)
    spare = judge_stale(entry, asked, STALE, NOW)

    assert served == (spare is not None)
    assert judge_stale(None, asked, STALE, NOW) is None
    assert judge_stale(entry, asked, Freshness(1.0), NOW) is None or age < 1.0
    assert {429, 500, 502, 503, 504, 529} == FAILING


def test_early_refresh():
    """The nearer an entry's end, and the longer its fetch took, the likelier an early refresh; none without leave."""
    drawn = [number / 1000 for number in range(1, 1001)]

    def share(age, seconds, fresh):
        entry = entry_of(at=NOW - age, ttl=60.0, seconds=seconds)
        return sum(isinstance(judge(entry, NOTHING_ASKED, fresh, NOW, draw), Refresh) for draw in drawn)

    assert 0 == share(59.9, 20.0, Freshness(60.0, if_error=300.0))
    assert 0 == share(10.0, 1.0, STALE)
    assert 0 < share(57.0, 1.0, STALE) < share(59.0, 1.0, STALE) < share(59.0, 10.0, STALE) < 1000


def test_stale_windows_are_the_routes():
    """A route gives the windows; a caller that names a lifetime of its own has none."""
    route = Route("r", cache=CacheRule(ttl=10.0, stale_while_revalidate=5.0, stale_if_error=50.0))

    assert Freshness(10.0, 5.0, 50.0) == freshness(endpoint_of(), route, NOTHING_ASKED)
    assert Freshness(8.0) == freshness(endpoint_of(), route, Directives(ttl=8.0))
