"""When to try again, in every spelling."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.retry_after import FIELDS, LONGEST, read, seconds_to_wait, waits

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT

AZURE = (
    b'{"error":{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version'
    b" 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 37 seconds."
    b' Please go here: https://aka.ms/oai/quotaincrease to increase the limit."}}'
)
GEMINI = (
    b'{"error":{"code":429,"message":"You exceeded your current quota.","status":"RESOURCE_EXHAUSTED","details":['
    b'{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"PerMinute"}]},'
    b'{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37s"}]}}'
)


def wait(fields=(), body=b""):
    return seconds_to_wait(dict(fields), body, NOW)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("0.25", 0.25),
        ("007", 7.0),
        ("00000000000000000007", 7.0),
        ("1000000000", LONGEST),
        ("9" * 400, LONGEST),
        ("9" * 60_000, LONGEST),
        ("Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
        ("Friday, 15-Jan-27 08:00:20 GMT", 20.0),
        ("Fri Jan 15 08:00:20 2027", 20.0),
        ("Fri, 15 Jan 2027 07:59:59 GMT", 0.0),
        ("Fri, 15 Jan 2027 08:00:00 GMT", 0.0),
        ("Wed, 01 Jan 2031 00:00:00 GMT", LONGEST),
        ("Fri, 15 Jan 2027 99:00:00 GMT", None),
        ("-1", None),
        ("+7", None),
        ("1e9", None),
        ("1_0", None),
        ("NaN", None),
        ("inf", None),
        ("soon", None),
        ("7, 7", None),
        ("", None),
        ("\xb2", None),
    ],
)
def test_retry_after(said, expected):
    """Seconds or a date in any of its three forms; now and the past are 0, garbage is nothing, and all is capped."""

    assert expected == wait({b"retry-after": said.encode("latin-1")})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"1500", 1.5),
        (b"0", 0.0),
        (b"250.5", 0.2505),
        (b"1000000000", LONGEST),
        (b"9" * 400, LONGEST),
        (b"-5", None),
        (b"nan", None),
    ],
)
@pytest.mark.parametrize("name", [b"retry-after-ms", b"x-ms-retry-after-ms"])
def test_milliseconds(name, said, expected):
    """Milliseconds as OpenAI and Azure say them."""

    assert expected == wait({name: said})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1s", 1.0),
        ("6m0s", LONGEST),
        ("0m7s", 7.0),
        ("7.66s", 7.66),
        ("120ms", 0.12),
        ("1s500ms", 1.5),
        ("1h2m3s", LONGEST),
        ("37", 37.0),
        ("9" * 400, LONGEST),
        ("0", None),
        ("0s", None),
        ("-1", None),
        ("s", None),
        ("1 s", None),
        ("1y", None),
        ("1s" * 6, None),
        ("", None),
    ],
)
@pytest.mark.parametrize("bucket", ["requests", "tokens"])
def test_resets(bucket, said, expected):
    """OpenAI's durations and Azure's whole seconds; 0 is what Azure says where it does not know."""
    fields = {b"x-ratelimit-reset-" + bucket.encode(): said.encode()}

    assert expected == wait(fields)
    assert expected == wait({**fields, b"x-ratelimit-remaining-" + bucket.encode(): b"0"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({b"x-ratelimit-remaining-tokens": b"0"}, 7.0, id="the exhausted one"),
        pytest.param({b"x-ratelimit-remaining-requests": b"0"}, 3.0, id="though the other is later"),
        pytest.param({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-remaining-requests": b"0"}, 7.0, id="both"),
        pytest.param({b"x-ratelimit-remaining-tokens": b"12"}, 7.0, id="none: too large for the later one"),
        pytest.param({b"x-ratelimit-remaining-tokens": b"-1"}, 7.0, id="unknown"),
    ],
)
def test_which_reset(fields, expected):
    """The reset of what is used up counts."""

    assert expected == wait({b"x-ratelimit-reset-requests": b"3s", b"x-ratelimit-reset-tokens": b"7s", **fields})


@pytest.mark.parametrize(
    ("bucket", "remaining", "reset", "expected"),
    [
        ("requests", b"0", b"2027-01-15T08:00:09Z", 9.0),
        ("tokens", b"0", b"2027-01-15T08:00:09+00:00", 9.0),
        ("input-tokens", b"0", b"2027-01-15T10:00:09+02:00", 9.0),
        ("output-tokens", b"0", b"2027-01-15T08:00:09.5Z", 9.5),
        ("tokens", b"0", b"2027-01-15T07:00:00Z", 0.0),
        ("tokens", b"0", b"2031-01-01T00:00:00Z", LONGEST),
        ("tokens", b"0", b"0001-01-01T00:00:00+23:59", 0.0),
        ("tokens", b"1", b"2027-01-15T08:00:09Z", None),
        ("tokens", b"", b"2027-01-15T08:00:09Z", None),
        ("tokens", b"0", b"9", None),
        ("tokens", b"0", b"soon", None),
        ("tokens", b"0", b"", None),
        ("other", b"0", b"2027-01-15T08:00:09Z", None),
    ],
)
def test_anthropic(bucket, remaining, reset, expected):
    """Anthropic's resets, RFC 3339, where nothing remains."""
    name = f"anthropic-ratelimit-{bucket}-".encode()

    assert expected == wait({name + b"remaining": remaining, name + b"reset": reset})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(AZURE, 37.0, id="azure's sentence"),
        pytest.param(GEMINI, 37.0, id="gemini's detail"),
        pytest.param(b"[" + GEMINI + b"]", 37.0, id="gemini's list"),
        pytest.param(GEMINI.replace(b"37s", b"3.5s"), 3.5, id="a fraction"),
        pytest.param(GEMINI.replace(b"37s", b"86400s"), LONGEST, id="a day"),
        pytest.param(GEMINI.replace(b"37s", b"-37s"), None, id="negative"),
        pytest.param(GEMINI.replace(b'"37s"', b"37"), None, id="not as it is written"),
        pytest.param(AZURE.replace(b"37 seconds", b"1 second"), 1.0, id="one second"),
        pytest.param(AZURE.replace(b"37 seconds", b"25 days"), None, id="days in words"),
        pytest.param(
            b'{"error":{"message":"Limit 10000. Please try again in 1m12s."}}', LONGEST, id="openai's sentence"
        ),
        pytest.param(b'{"error":{"message":"Please try again in 6ms. Visit"}}', 0.006, id="milliseconds in words"),
        pytest.param(
            b'{"statusCode":429,"message":"Rate limit is exceeded. Try again in 20 seconds."}', 20.0, id="apim"
        ),
        pytest.param(b'{"error":{"code":"429"},"input":"retry after 37 seconds"}', None, id="elsewhere"),
        pytest.param(AZURE[:-10], None, id="cut"),
        pytest.param(b"<html>retry after 37 seconds</html>", None, id="a page"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_body(body, expected):
    """Where only the body says it."""

    assert expected == wait(body=body)


LADDER = [
    ({b"retry-after-ms": b"1000"}, b"", 1.0),
    ({b"x-ms-retry-after-ms": b"2000"}, b"", 2.0),
    ({b"retry-after": b"3"}, b"", 3.0),
    ({}, GEMINI.replace(b"37s", b"4s"), 4.0),
    ({b"x-ratelimit-reset-tokens": b"5s", b"x-ratelimit-remaining-tokens": b"0"}, b"", 5.0),
    ({}, b'{"error":{"message":"retry after 6 seconds"}}', 6.0),
    ({b"x-ratelimit-reset-requests": b"7s"}, b"", 7.0),
]


@pytest.mark.parametrize("rung", range(len(LADDER)))
def test_precedence(rung):
    """What is certain beats what is precise, what is precise beats what is guessed; junk gives way to what follows."""
    fields = {name: value for step in LADDER[rung:] for name, value in step[0].items()}
    body = next((step[1] for step in LADDER[rung:] if step[1]), b"")
    junk = {name: b"junk" for step in LADDER[:rung] for name in step[0] if name in FIELDS}

    assert LADDER[rung][2] == wait(fields, body)
    assert LADDER[rung][2] == wait({**fields, **junk}, body)


@given(
    st.dictionaries(
        st.sampled_from([
            *FIELDS, b"x-ratelimit-reset-tokens", b"x-ratelimit-remaining-tokens", b"anthropic-ratelimit-tokens-reset",
            b"anthropic-ratelimit-tokens-remaining",
        ]),
        st.binary(max_size=30) | st.from_regex(rb"[0-9.]{1,9}(ms|s|m|h)?|0", fullmatch=True),
    ),
    st.binary(max_size=60) | st.text("retyafin 0123456789smh.", max_size=40).map(
        lambda text: json.dumps({"error": {"message": f"retry after {text}"}}).encode()
    ),
    st.sampled_from([NOW, 0.0, -1.0, 1e18]),
)  # fmt: skip
def test_bounds(fields, body, now):
    """Whatever is said: nothing, or between 0 and a minute."""
    seconds = seconds_to_wait(fields, body, now)

    assert seconds is None or 0.0 <= seconds <= LONGEST


def test_read_is_not_capped():
    """One field alone, as long as it says; the cap is its reader's."""

    assert 3600.0 == read("3600", 1.0, NOW)
    assert math.inf == read("9" * 400, 1000.0, NOW)


def test_waits_of_each_field():
    """Every field that can be read, by itself and uncapped."""
    fields = {b"retry-after": b"3600", b"retry-after-ms": b"soon", b"x-ms-retry-after-ms": b"250", b"age": b"7"}

    assert {b"retry-after": 3600.0, b"x-ms-retry-after-ms": 0.25} == waits(fields, NOW)
    assert {} == waits({}, NOW)
