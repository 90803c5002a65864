"""Reading error answers of any shape."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.error_body import LONGEST, NOTHING, Complaint, parse, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            b'{"error":{"message":"m","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}',
            Complaint(frozenset({"insufficientquota"}), 0, "m"),
            id="openai",
        ),
        pytest.param(b'{"error":{"code":"429","message":"m"}}', Complaint(frozenset({"429"}), 429, "m"), id="azure"),
        pytest.param(
            b'{"error":{"message":"m","type":null,"param":"prompt","code":"content_filter","status":400,"innererror":'
            b'{"code":"ResponsibleAIPolicyViolation","content_filter_result":{"hate":{"filtered":true}}}}}',
            Complaint(frozenset({"contentfilter", "responsibleaipolicyviolation"}), 400, "m"),
            id="azure's filter",
        ),
        pytest.param(
            b'{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":'
            b'"enforced_spend_limit_reached"}},"request_id":"r"}',
            Complaint(frozenset({"ratelimiterror", "enforcedspendlimitreached"}), 0, "m"),
            id="anthropic",
        ),
        pytest.param(
            b'[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[1,{"@type":"x.RetryInfo",'
            b'"retryDelay":"3s"}]}}]',
            Complaint(frozenset({"resourceexhausted"}), 429, "m", "3s"),
            id="gemini",
        ),
        pytest.param(b'{"id":"1","message":"m"}', Complaint(message="m"), id="cohere"),
        pytest.param(b'{"Message":"m"}', Complaint(message="m"), id="amazon"),
        pytest.param(
            b'{"object":"error","message":"m","type":"service_tier_capacity_exceeded","code":"3505"}',
            Complaint(frozenset({"servicetiercapacityexceeded", "3505"}), 0, "m"),
            id="mistral",
        ),
        pytest.param(b'{"error":"model x not found"}', Complaint(message="model x not found"), id="ollama"),
        pytest.param(
            b'{"error":"Model too busy","error_type":"overloaded"}',
            Complaint(frozenset({"overloaded"}), 0, "Model too busy"),
            id="a sentence and a word",
        ),
        pytest.param(
            b'{"error":"overloaded","message":"m"}', Complaint(frozenset({"overloaded"}), 0, "m"), id="a word"
        ),
        pytest.param(
            b'{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}',
            Complaint(frozenset({"servererror"}), 0, "m"),
            id="a failed response",
        ),
        pytest.param(b'{"error":{"code":999,"status":true,"message":{}}}', NOTHING, id="no such status"),
        pytest.param(b'{"error":{"code":[],"type":{},"innererror":[],"details":"x"}}', NOTHING, id="other types"),
        pytest.param(b'{"error":[]}', NOTHING, id="a list for an error"),
        pytest.param(b"[]", NOTHING, id="an empty list"),
        pytest.param(b"[[]]", NOTHING, id="a list in a list"),
        pytest.param(b'"x"', NOTHING, id="a string"),
        pytest.param(b"<html>", NOTHING, id="a page"),
        pytest.param(b"", NOTHING, id="nothing"),
        pytest.param(b"\xff", NOTHING, id="no text"),
        pytest.param(b'{"error":{"code":"\xff"}}', NOTHING, id="no text inside"),
        pytest.param(b"[" * LONGEST, NOTHING, id="deep"),
        pytest.param(b'{"error":' * 5000 + b"1" + b"}" * 5000, NOTHING, id="deep and closed"),
        pytest.param(b'{"error":{"code":1e999}}', NOTHING, id="a number out of range"),
        pytest.param(b'{"error":{"code":' + b"9" * 5000 + b"}}", NOTHING, id="a long number"),
        pytest.param(b'{"error":{"code":"429","message":"' + b"m" * LONGEST + b'"}}', NOTHING, id="too long"),
    ],
)
def test_parse(text, expected):
    """Every provider's shape, and what is none."""

    assert expected == parse(text)


@given(st.binary(max_size=200))
def test_never_raises(text):
    """Whatever the bytes, there is a complaint, or nothing."""

    assert isinstance(parse(text), Complaint)
    assert isinstance(read({b"x-amzn-errortype": text}, text), Complaint)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["error", "429"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "error", "code", "type", "status", "message", "innererror", "details", "@type", "retryDelay", "response",
        ]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_any_types(document):
    """Members of any type where others were expected."""

    assert isinstance(parse(json.dumps(document).encode()), Complaint)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"ThrottlingException", {"throttling"}),
        (b"ModelNotReadyException:http://internal.amazon.com/coral/", {"modelnotready"}),
        (b"", set()),
    ],
)
def test_amazon(name, expected):
    """Amazon names the error in a header field."""

    assert Complaint(frozenset(expected), 0, "m") == read({b"x-amzn-errortype": name}, b'{"message":"m"}')
