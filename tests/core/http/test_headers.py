"""Which header fields go where."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http import headers
from sidecar.core.http.headers import (
    CREDENTIALS,
    HOP_BY_HOP,
    LONGEST_NAME,
    NEVER_RELAYED,
    OURS,
    REPLAYED,
    RETRY_AFTER,
    REWRITTEN,
    fields_of,
    forward,
    is_secretive,
    lines,
    named_by_connection,
    relay,
    replay,
    retry_fields,
    upstream_id,
    upstream_region,
)
from sidecar.core.http.retry_after import read

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT

NAMES = sorted(HOP_BY_HOP | OURS | REWRITTEN | NEVER_RELAYED | REPLAYED | CREDENTIALS | {b"x-a", b"x-b", b"prefer"})
PAIRS = st.lists(
    st.tuples(st.sampled_from(NAMES).map(bytes.title) | st.sampled_from(NAMES), st.sampled_from([b"x-a", b"", b"1"])),
    max_size=8,
).map(tuple)


def forwarded(*pairs, **how):
    return forward(pairs, fields_of(pairs), **{"identity": False, **how})


def relayed(*pairs):
    return relay(pairs, fields_of(pairs), NOW)


@pytest.mark.parametrize(
    "name",
    sorted({
        b"Connection", b"Keep-Alive", b"Proxy-Authenticate", b"Proxy-Authorization", b"Proxy-Connection", b"TE",
        b"Trailer", b"Transfer-Encoding", b"Upgrade", b"Cache-Control", b"Pragma", b"X-Sidecar-TTL",
        b"X-Sidecar-Tags", b"X-Sidecar-Fallback", b"X-Sidecar-Priority", b"X-Sidecar-Callback", b"Host",
        b"Content-Length", b"Expect",
    }),
)  # fmt: skip
def test_not_forwarded(name):
    """What is the connection's, ours, or written anew stays behind, in any spelling."""

    assert () == forwarded((name, b"1"))
    assert () == forwarded((name.upper(), b"1"), (name.lower(), b"1"))


@pytest.mark.parametrize(
    "name", [b"Authorization", b"User-Agent", b"Content-Type", b"X-Stainless-Lang", b"Cookie", b"Range"]
)
def test_forwarded(name):
    """Everything else goes on, in the caller's spelling and order, repeats too."""
    pairs = ((name, b"1"), (b"X-Z", b"2"), (name.lower(), b"3"))

    assert pairs == forwarded(*pairs)


def test_named_by_connection():
    """What ``Connection`` names is of this connection alone, in both directions (RFC 9110, 7.6.1)."""
    pairs = ((b"Connection", b"keep-alive, X-Hop"), (b"x-hop", b"1"), (b"connection", b" x-two ,,"), (b"X-Two", b"2"))

    assert ((b"A", b"b"),) == forwarded(*pairs, (b"A", b"b"))
    assert ((b"A", b"b"),) == relayed(*pairs, (b"A", b"b"))
    assert {b"keep-alive", b"x-hop", b"x-two", b""} == named_by_connection(fields_of(pairs))
    assert frozenset() == named_by_connection({})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"respond-async", None),
        (b" Respond-Async ", None),
        (b"respond-async;foo=1", None),
        (b"respond-async, wait=10", b"wait=10"),
        (b"wait=10, respond-async", b"wait=10"),
        (b"return=minimal,wait=10", b"return=minimal,wait=10"),
        (b"respond-asynchronously", b"respond-asynchronously"),
    ],
)
def test_prefer(value, expected):
    """Of ``Prefer``, the wish to be answered later is ours; other wishes are not."""

    assert (() if expected is None else ((b"Prefer", expected),)) == forwarded((b"Prefer", value))


def test_identity():
    """An answer that may be stored is asked for without coding, whatever the caller takes."""

    assert ((b"A", b"b"), (b"accept-encoding", b"identity")) == forwarded(
        (b"Accept-Encoding", b"gzip"), (b"A", b"b"), (b"accept-encoding", b"br"), identity=True
    )
    assert ((b"Accept-Encoding", b"gzip"),) == forwarded((b"Accept-Encoding", b"gzip"))


def test_replaced_credential():
    """A region's credential takes the place of every one that the caller may have sent."""
    callers = tuple((name.title(), b"caller's") for name in sorted(CREDENTIALS))
    own = ((b"x-own-key", b"region's"),)

    assert own == forwarded(*callers, (b"X-Own-Key", b"caller's"), replace=own)
    assert callers == forwarded(*callers)


@pytest.mark.parametrize(
    "name",
    [b"Connection", b"Transfer-Encoding", b"Content-Length", b"Date", b"Alt-Svc", b"Strict-Transport-Security"],
)
def test_not_relayed(name):
    """An answer loses what the listener writes itself and what speaks of an origin that is not ours."""

    assert () == relayed((name, b"1"))


def test_relayed():
    """The caller of an answer sees the rest as it came: cookies and request ids are its own."""
    pairs = ((b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X-Request-Id", b"c"), (b"Content-Encoding", b"gzip"))

    assert pairs == relayed(*pairs)


READ = [
    (b"retry-after", b"0", 0.0),
    (b"retry-after", b"7", 7.0),
    (b"retry-after", b" 7 ", 7.0),
    (b"retry-after", b"0.5", 0.5),
    (b"retry-after", b"61", 61.0),
    (b"retry-after", b"120", 120.0),
    (b"retry-after", b"121", 121.0),
    (b"retry-after", b"1000000000", 1e9),
    (b"retry-after", b"9" * 400, inf),
    (b"retry-after", b"Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
    (b"retry-after", b"Fri, 15 Jan 2027 10:00:20 +0200", 20.0),
    (b"retry-after", b"Fri, 15 Jan 2027 08:00:20", 20.0),
    (b"retry-after", b"Fri, 15 Jan 2027 08:00:20 -0000", 20.0),
    (b"retry-after", b"Friday, 15-Jan-27 08:00:20 GMT", 20.0),
    (b"retry-after", b"Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
    (b"retry-after", b"Fri, 15 Jan 2027 08:02:00 GMT", 120.0),
    (b"retry-after", b"Fri, 15 Jan 2027 08:02:01 GMT", 121.0),
    (b"retry-after", b"Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    (b"retry-after-ms", b"1500", 1.5),
    (b"retry-after-ms", b"1500.2", 1.5002),
    (b"retry-after-ms", b"120000", 120.0),
    (b"retry-after-ms", b"3600000", 3600.0),
    (b"x-ms-retry-after-ms", b"250", 0.25),
    (b"x-ms-retry-after-ms", b"120001", 120.001),
]  # fmt: skip

UNREADABLE = [
    (b"retry-after", b"-1"),
    (b"retry-after", b"1e9"),
    (b"retry-after", b"nan"),
    (b"retry-after", b""),
    (b"retry-after", b"."),
    (b"retry-after", b"soon"),
    (b"retry-after", b"5, 5"),
    (b"retry-after", b"\xb2"),
    (b"retry-after", b"Fri, 15 Jan 2027 99:00:00 GMT"),
    (b"retry-after", b"Fri, 15 Jan 99999999999999999999 08:00:00 GMT"),
    (b"retry-after", b"Fri, 15 Jan 2027 08:00:00 +99999999999999"),
    (b"retry-after-ms", b"-5"),
    (b"x-ms-retry-after-ms", b"Fri, 15 Jan 2027 99:00:00 GMT"),
]

OWN = (b"x-request-id", b"1")
AGAIN, NOT_AGAIN = (b"x-should-retry", b"true"), (b"x-should-retry", b"false")


@pytest.mark.parametrize(("name", "value", "seconds"), READ)
@pytest.mark.parametrize("said", [(), (AGAIN,), (NOT_AGAIN,)], ids=["no word", "again", "not again"])
def test_retry_fields(name, value, seconds, said):
    """When to try again stands as the service said it; above two minutes, whatever it said, trying again is no use."""
    pairs = (*said, (name.title(), value))
    told = ((NOT_AGAIN,) if seconds > 120 else said) + ((name, value),)

    assert told == retry_fields(fields_of(pairs), NOW)
    assert (OWN, *told) == relayed(*pairs, OWN)


@pytest.mark.parametrize(("name", "value"), UNREADABLE)
def test_unreadable_retry_fields(name, value):
    """What cannot be read is not said, in no spelling and no part of it; whether to try again is another matter."""

    assert () == retry_fields({name: value}, NOW)
    assert (OWN,) == relayed((name.title(), value), OWN)
    assert (OWN, AGAIN) == relayed((name.title(), value), AGAIN, OWN)


@pytest.mark.parametrize(
    ("said", "hopeless"),
    [
        ({b"retry-after": b"3600", b"retry-after-ms": b"3600000"}, True),
        ({b"retry-after": b"3600", b"retry-after-ms": b"junk"}, True),
        ({b"retry-after": b"3600", b"retry-after-ms": b"1000"}, False),
        ({b"retry-after": b"1", b"x-ms-retry-after-ms": b"3600000"}, False),
        ({b"retry-after": b"junk"}, False),
        ({}, False),
    ],
    ids=["all long", "the only one", "seconds long", "milliseconds long", "none", "nothing"],
)  # fmt: skip
def test_retry_fields_together(said, hopeless):
    """Clients read different fields: only where each of them is too long is there no use for any."""
    told = dict(retry_fields(said, NOW))

    assert hopeless == (told.pop(b"x-should-retry", b"") == b"false")
    assert {name: value for name, value in said.items() if value != b"junk"} == told


def test_whether_to_try_again():
    """Without a wait, whether to try at all stays as the service says it."""

    assert ((b"X-Should-Retry", b"false"),) == relayed((b"X-Should-Retry", b"false"))
    assert (AGAIN,) == retry_fields({b"x-should-retry": b"true", b"content-type": b"a"}, NOW)


@given(
    st.sampled_from(sorted(RETRY_AFTER)),
    st.binary(max_size=40) | st.text("0123456789.-+e", max_size=30).map(str.encode) | st.from_regex(
        rb"(Mon|Fri), [0-9]{1,3} (Jan|Dec) [0-9]{1,20} [0-9]{1,2}:[0-9]{1,3}:[0-9]{2}( (GMT|[+-][0-9]{1,12}))?",
        fullmatch=True,
    ),
    st.sampled_from([b"true", b"false", None]),
)  # fmt: skip
def test_nobody_is_invited_to_wait_for_long(name, value, should):
    """Whatever a service says, it is said again in the same bytes or not at all, and invites nobody to a long wait."""
    said = {name: value} | ({} if should is None else {b"x-should-retry": should})
    told = dict(retry_fields(said, NOW))

    assert told.get(name, value) == value
    if name in told and read(value.decode("latin-1").strip(), RETRY_AFTER[name], NOW) > 120:
        assert told[b"x-should-retry"] == b"false"
    else:
        assert told.get(b"x-should-retry") == should


def test_replayed():
    """Anybody else sees only what describes the answer, named in lower case and sorted."""
    pairs = (
        (b"X-Request-Id", b"1"), (b"OpenAI-Version", b"2"), (b"Set-Cookie", b"3"), (b"Content-Type", b"4"),
        (b"x-ratelimit-remaining-tokens", b"5"), (b"Age", b"6"), (b"content-encoding", b"7"), (b"Server", b"8"),
    )  # fmt: skip

    assert ((b"content-type", b"4"), (b"openai-version", b"2")) == replay(pairs, fields_of(pairs))


@given(PAIRS)
def test_nothing_is_added_or_turned_around(pairs):
    """What goes on is a part of what came, in its order, and nothing of the tables is in it."""
    rest = iter(pairs)
    found = forwarded(*pairs)

    assert all(pair in rest for pair in found)
    assert not {name.lower() for name, _ in found} & (HOP_BY_HOP | OURS | REWRITTEN)
    assert not {name for name, _ in replay(pairs, fields_of(pairs))} - REPLAYED
    assert replay(pairs, fields_of(pairs)) == replay(
        replay(pairs, fields_of(pairs)), fields_of(replay(pairs, fields_of(pairs)))
    )


def test_fields_of():
    """Repeated fields are joined by a comma, in their order (RFC 9110, 5.3)."""

    assert {b"a": b"1, 2, ", b"b": b""} == fields_of([(b"A", b"1"), (b"b", b""), (b"a", b"2"), (b"A", b"")])


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], ""),
        ([(b"Request-Id", b"second"), (b"X-Request-Id", b"first")], "first"),
        ([(b"request-id", b"req_01-a.b:c/d=e+f")], "req_01-a.b:c/d=e+f"),
        ([(b"apim-request-id", b"x" * 128)], "x" * 128),
        ([(b"apim-request-id", b"x" * 129)], ""),
        ([(b"x-ms-request-id", b"\xe9")], ""),
        ([(b"x-ms-request-id", b"a\n")], ""),
        ([(b"x-request-id", b"")], ""),
        ([(b"x-request-id", b"Bearer sk-echo")], ""),
        ([(b"x-request-id", b"a"), (b"x-request-id", b"b")], ""),
        ([(b"x-request-id", b"Bearer sk-echo"), (b"request-id", b"second")], "second"),
    ],
    ids=[
        "none",
        "in the table's order",
        "every sign",
        "longest",
        "too long",
        "not ascii",
        "line end",
        "empty",
        "echoed credential",
        "two",
        "next after an echo",
    ],
)
def test_upstream_id(pairs, expected):
    """A call is found again at its provider by the first id of the table; what is no id is not repeated."""

    assert expected == upstream_id(fields_of(pairs))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"West Europe", "West-Europe"), (b"eastus", "eastus"), (b"", ""), (b"a\nb", ""), (b"\xe9", "")],
    ids=["two words", "one", "empty", "line end", "not ascii"],
)
def test_upstream_region(value, expected):
    """Azure's word for where it answered, as one word; what is none is not repeated."""

    assert expected == upstream_region({b"x-ms-region": value})


SECRETIVE = (
    b"x-auth-token x-authorization x-forwarded-authorization x-ms-token-aad-access-token x-ms-client-principal "
    b"x-amz-security-token x-goog-iam-authorization-token x-functions-key x-access-token api_key apikey x-apikey "
    b"x-openai-api-key token authentication cookie cookie2 helicone-auth cf-aig-authorization x-portkey-api-key "
    b"x-portkey-virtual-key x-litellm-api-key openai-organization openai-project x-client-secret x-password"
).split()
PLAIN = (
    b"idempotency-key x-idempotency-key x-max-tokens x-author anthropic-version openai-beta x-request-id traceparent "
    b"x-ms-useragent x-partition-key x-stainless-lang content-type"
).split()


@pytest.mark.parametrize("name", [*SECRETIVE, *PLAIN], ids=bytes.decode)
def test_forward_beside_a_regions_own_credential(name):
    """What may carry a credential of the caller's stays here, in whatever field; the rest goes along."""
    pairs = ((name, b"value"), (b"x-plain", b"1"))
    scopes = (b"openai-organization", b"openai-project")
    found = forward(pairs, fields_of(pairs), identity=False, replace=((b"api-key", b"own"),), scopes=scopes)

    assert (name in SECRETIVE) == ((name, b"value") not in found)
    assert ((b"x-plain", b"1"), (b"api-key", b"own")) == found[-2:]
    assert (name, b"value") in forward(pairs, fields_of(pairs), identity=False, scopes=scopes)


def test_relay_of_a_regions_own_credential():
    """Cookies that the operator's credential has earned are not the caller's."""
    pairs = ((b"set-cookie", b"session=operator"), (b"x-a", b"1"))

    assert ((b"x-a", b"1"),) == relay(pairs, fields_of(pairs), NOW, own=False)
    assert pairs == relay(pairs, fields_of(pairs), NOW)


def test_lines():
    """Field lines as on the wire."""

    assert b"a: 1\r\nB: \r\n" == lines(((b"a", b"1"), (b"B", b"")))
    assert b"" == lines(())


def test_long_names_are_not_remembered():
    """A name may be as long as a head: what it looks like is known all the same, and takes no memory."""
    headers._remembered.cache_clear()
    for size in (LONGEST_NAME, LONGEST_NAME + 1, 60_000):
        assert is_secretive(b"a" * (size - 4) + b"-key")
        assert not is_secretive(b"a" * size)

    assert 2 == headers._remembered.cache_info().currsize


def test_an_id_that_opens_something():
    """The id of a call that is also that of its operation is a key to the result: the log must not repeat it."""
    answer = {b"apim-request-id": b"7f0c", b"operation-location": b"https://eu.example/results/7f0c?v=1"}

    assert "" == upstream_id(answer)
    assert "8a" == upstream_id({**answer, b"x-ms-request-id": b"8a"})
