"""What an attempt's end says of its region."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.breaker import Sign
from sidecar.core.region.verdict import (
    CAUSES,
    DEFAULT_WINDOW,
    EXHAUSTED_WINDOW,
    Verdict,
    judge_answer,
    judge_event_error,
    judge_failure,
    needs_body,
)
from sidecar.errors import Cause, UpstreamFailed

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT

FAILED = {"elsewhere": True, "retry_here": True}
OVERLOADED = Verdict(Sign.ERROR, "overloaded", **FAILED)
SERVER_ERROR = Verdict(Sign.ERROR, "5xx", **FAILED)
CAPACITY = Verdict(Sign.ERROR, "capacity", elsewhere=True)
NOT_READY = Verdict(Sign.ERROR, "not-ready", **FAILED)
CLIENT_ERROR = Verdict(Sign.NEUTRAL, "client-error")
FORBIDDEN = Verdict(Sign.NEUTRAL, "unauthorized")
UNAUTHORIZED = Verdict(Sign.NEUTRAL, "unauthorized", refresh=True)
NO_DEPLOYMENT = Verdict(Sign.NEUTRAL, "no-deployment", elsewhere=True)
EXHAUSTED = Verdict(Sign.NEUTRAL, "exhausted", elsewhere=True, window=EXHAUSTED_WINDOW, exhausted=True)


def quota(seconds):
    return Verdict(Sign.NEUTRAL, "quota", elsewhere=True, window=seconds, wait=seconds)


def error(**members):
    return json.dumps({"error": members}).encode()


def judge(status, body=b"", **fields):
    said = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return judge_answer(status, said, body, NOW)


AZURE_QUOTA = error(
    code="429",
    message="Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded "
    "token rate limit of your current OpenAI S0 pricing tier. Please retry after 37 seconds.",
)
OPENAI_QUOTA = error(
    message="Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000, "
    "Requested 2000. Please try again in 2s. Visit https://platform.openai.com/account/rate-limits to learn more.",
    type="tokens",
    param=None,
    code="rate_limit_exceeded",
)
OPENAI_SPENT = error(
    message="You exceeded your current quota, please check your plan and billing details.",
    type="insufficient_quota",
    param=None,
    code="insufficient_quota",
)
ANTHROPIC_QUOTA = (
    b'{"type":"error","error":{"type":"rate_limit_error","message":"This request would exceed your organization\'s rate'
    b' limit of 40,000 input tokens per minute."},"request_id":"req_1"}'
)
ANTHROPIC_SPENT = (
    b'{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your specified API usage limits.",'
    b'"details":{"error_code":"enforced_spend_limit_reached"}},"request_id":"req_1"}'
)
FILTERED = error(
    message="The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    type=None,
    param="prompt",
    code="content_filter",
    status=400,
    innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
)
FREE_TIER = error(
    code="403", message="Out of call volume quota for ComputerVision F0 pricing tier. Please retry later."
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(429, AZURE_QUOTA, quota(37.0), id="azure's own limit"),
        pytest.param(429, error(code="RateLimitReached", message="..."), quota(DEFAULT_WINDOW), id="azure, older"),
        pytest.param(429, OPENAI_QUOTA, quota(2.0), id="openai's limit"),
        pytest.param(429, ANTHROPIC_QUOTA, quota(DEFAULT_WINDOW), id="anthropic's limit"),
        pytest.param(
            429,
            error(code=429, status="RESOURCE_EXHAUSTED", message="Quota exceeded.", details=[
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3600s"}
            ]),
            quota(60.0),
            id="gemini's limit, capped",
        ),
        pytest.param(429, b'{"message":"Too many requests"}', quota(DEFAULT_WINDOW), id="bedrock's limit"),
        pytest.param(429, b"", quota(DEFAULT_WINDOW), id="no body"),
        pytest.param(429, AZURE_QUOTA[:-3], quota(DEFAULT_WINDOW), id="cut"),
        pytest.param(429, b"[" * 60_000, quota(DEFAULT_WINDOW), id="deep nesting"),
        pytest.param(429, b'{"error":{"code":' + b"9" * 5000 + b"}}", quota(DEFAULT_WINDOW), id="a huge number"),
        pytest.param(
            429,
            error(code="429", message="The system is experiencing high demand and cannot process your request."),
            CAPACITY,
            id="azure's capacity",
        ),
        pytest.param(
            429,
            error(type="no_capacity", code="no_capacity", message="Your request exceeds the maximum usage size allowed "
                  "during peak load."),
            CAPACITY,
            id="azure's peak load",
        ),
        pytest.param(
            429,
            error(message="The engine is currently overloaded, please try again later", type="server_error", code=None),
            CAPACITY,
            id="an overloaded engine",
        ),
        pytest.param(
            429, error(message="Please try again later", type="engine_overloaded_error"), CAPACITY, id="by its type"
        ),
        pytest.param(
            429,
            b'{"object":"error","message":"Service tier capacity exceeded for this model.","type":'
            b'"service_tier_capacity_exceeded","param":null,"code":"3505"}',
            CAPACITY,
            id="mistral's capacity",
        ),
        pytest.param(429, b'{"error":"Model too busy","error_type":"overloaded"}', CAPACITY, id="too busy"),
        pytest.param(429, OPENAI_SPENT, EXHAUSTED, id="openai's quota is spent"),
        pytest.param(400, error(code="billing_hard_limit_reached", message="."), EXHAUSTED, id="hard limit, 400"),
        pytest.param(429, error(code="billing_hard_limit_reached", message="."), EXHAUSTED, id="hard limit, 429"),
        pytest.param(429, ANTHROPIC_SPENT, EXHAUSTED, id="anthropic's spend limit"),
        pytest.param(402, b"", EXHAUSTED, id="payment required"),
        pytest.param(403, FREE_TIER, EXHAUSTED, id="the free tier is used up"),
        pytest.param(
            403,
            b'{"statusCode":403,"message":"Out of call volume quota. Quota will be replenished in 1.05:21:14."}',
            EXHAUSTED,
            id="a gateway's quota",
        ),
        pytest.param(400, FILTERED, CLIENT_ERROR, id="content filter"),
        pytest.param(400, error(type="invalid_request_error", message="bad"), CLIENT_ERROR, id="bad request"),
        pytest.param(400, error(code="model_not_ready", message="."), NOT_READY, id="not ready, 400"),
        pytest.param(429, error(code="ModelNotReady", message="."), NOT_READY, id="not ready, 429"),
        pytest.param(424, b'{"message":"The model returned an error."}', NOT_READY, id="bedrock's model failed"),
        pytest.param(401, error(code="401", message="."), UNAUTHORIZED, id="unauthorized"),
        pytest.param(403, error(code="403", message="Access denied"), FORBIDDEN, id="forbidden"),
        pytest.param(404, error(code="DeploymentNotFound", message="."), NO_DEPLOYMENT, id="no deployment"),
        pytest.param(404, error(code="404", message="Resource not found"), CLIENT_ERROR, id="not found"),
        pytest.param(404, error(code="model_not_found", message="."), CLIENT_ERROR, id="no such model"),
        pytest.param(408, b"", Verdict(Sign.ERROR, "timeout-408", **FAILED), id="request timeout"),
        pytest.param(409, b"", CLIENT_ERROR, id="conflict"),
        pytest.param(413, b"", CLIENT_ERROR, id="too large"),
        pytest.param(415, b"", CLIENT_ERROR, id="unsupported"),
        pytest.param(422, b"", CLIENT_ERROR, id="unprocessable"),
        pytest.param(499, b"", CLIENT_ERROR, id="any other 4xx"),
        pytest.param(500, b"", SERVER_ERROR, id="500"),
        pytest.param(501, b"", CLIENT_ERROR, id="501"),
        pytest.param(502, b"<html>", SERVER_ERROR, id="502"),
        pytest.param(503, b"", SERVER_ERROR, id="503"),
        pytest.param(
            503,
            error(code=503, message="The model is overloaded. Please try again later.", status="UNAVAILABLE"),
            OVERLOADED,
            id="gemini is overloaded",
        ),
        pytest.param(504, b"", SERVER_ERROR, id="504"),
        pytest.param(520, b"", SERVER_ERROR, id="520"),
        pytest.param(529, b"", OVERLOADED, id="529"),
        pytest.param(200, OPENAI_SPENT, Verdict(Sign.GOOD, "ok"), id="good"),
        pytest.param(302, b"", Verdict(Sign.GOOD, "ok"), id="a redirect"),
    ],
)  # fmt: skip
def test_answers(status, body, expected):
    """Whose fault an answer is, and who else may be asked."""

    assert expected == judge(status, body)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"7", 7.0),
        (b"Fri, 15 Jan 2027 08:00:20 GMT", 20.0),
        (b"garbage", DEFAULT_WINDOW),
        (b"-1", DEFAULT_WINDOW),
        (b"nan", DEFAULT_WINDOW),
        (b"1000000000", 60.0),
        (b"9" * 400, 60.0),
        (b"0", 0.0),
    ],
)
def test_windows(said, expected):
    """A limit's window is as long as the answer says, at most a minute."""

    assert quota(expected) == judge(429, retry_after=said)


@pytest.mark.parametrize("status", [429, 503, 529])
def test_wait_of_failures(status):
    """A failure opens no window, but what it says about waiting is kept."""
    body = error(message="The model is overloaded.")

    assert (0.0, 9.0) == (judge(status, body, retry_after=b"9").window, judge(status, body, retry_after=b"9").wait)


def test_should_not_be_retried():
    """Where a service says that the call is lost, the same region is not asked again; another may be."""

    assert Verdict(Sign.ERROR, "5xx", elsewhere=True) == judge(500, x_should_retry=b"false")
    assert SERVER_ERROR == judge(500, x_should_retry=b"true")
    assert CLIENT_ERROR == judge(400, x_should_retry=b"true")


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        (b"ThrottlingException", 429, quota(DEFAULT_WINDOW)),
        (b"ModelNotReadyException", 429, NOT_READY),
        (b"ServiceUnavailableException", 503, SERVER_ERROR),
        (b"ModelTimeoutException", 408, Verdict(Sign.ERROR, "timeout-408", **FAILED)),
        (b"ModelErrorException", 424, NOT_READY),
        (b"ValidationException", 400, CLIENT_ERROR),
    ],
)
def test_amazon(name, status, expected):
    """Bedrock names its errors in the header."""

    assert expected == judge(status, b'{"message":"m"}', x_amzn_errortype=name)


@pytest.mark.parametrize("status", [400, 403, 404, 429, 503])
@pytest.mark.parametrize("words", ["insufficient_quota", "model_not_ready", "The system is experiencing high demand",
                                   "Out of call volume quota", "DeploymentNotFound", "overloaded_error"])  # fmt: skip
def test_no_prompt_decides(status, words):
    """What a caller wrote may stand anywhere in an answer but in the error's own words."""
    plain = error(code="x", message="m", param="p")
    echoed = json.dumps({
        "error": {"code": "x", "message": "m", "param": words, "innererror": {"revised_prompt": words}, "details": []},
        "message": words, "code": words, "type": words, "input": {"error": {"code": words}},
    }).encode()  # fmt: skip

    assert judge(status, plain) == judge(status, echoed)


@pytest.mark.parametrize("status", [*range(400, 600), 200, 302, 999])
def test_needs_body(status):
    """Where the body is not asked for, it changes nothing that is decided."""
    bodies = [OPENAI_SPENT, AZURE_QUOTA, FREE_TIER, FILTERED, ANTHROPIC_SPENT, error(code="model_not_ready"),
              error(code="DeploymentNotFound"), error(type="overloaded_error")]  # fmt: skip
    decided = {(found.sign, found.elsewhere, found.exhausted) for found in [judge(status, body) for body in bodies]}

    assert needs_body(status) or len(decided) == 1


@given(st.integers(100, 999), st.binary(max_size=80), st.binary(max_size=20))
def test_never_raises(status, body, said):
    """Every answer has a verdict, with a cause and numbers from their ranges."""
    found = judge(status, body, retry_after=said, x_amzn_errortype=said)

    assert found.cause in CAUSES
    assert found.exhausted == (found.window > 60.0)
    assert 0.0 <= found.wait <= 60.0
    assert found.sign is Sign.NEUTRAL or not found.window


LOST = {"elsewhere": True, "retry_here": True}


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize(
    "cause",
    [Cause.CONNECT, Cause.CONNECT_TIMEOUT, Cause.DNS, Cause.TLS, Cause.DISCONNECTED, Cause.TRUNCATED, Cause.MALFORMED],
)
def test_unanswered(cause, repeats):
    """No answer, and no hope of one: another region, or this one once more."""

    assert Verdict(Sign.UNANSWERED, cause.value, **LOST) == judge_failure(UpstreamFailed(cause), repeats=repeats)


@pytest.mark.parametrize("cause", [Cause.FIRST_BYTE_TIMEOUT, Cause.IDLE_TIMEOUT])
@pytest.mark.parametrize(
    ("sent", "repeats", "elsewhere"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_too_slow(cause, sent, repeats, elsewhere):
    """What was sent may still be worked on: it is repeated only where that was configured."""
    expected = Verdict(Sign.UNANSWERED, cause.value, elsewhere=elsewhere, retry_here=elsewhere)

    assert expected == judge_failure(UpstreamFailed(cause, sent=sent), repeats=repeats)


@pytest.mark.parametrize("cause", [Cause.DRAINING, Cause.INTERNAL, Cause.NO_REGION])
def test_our_own(cause):
    """What we did ourselves says nothing of the region."""

    assert Verdict(Sign.NEUTRAL, cause.value) == judge_failure(UpstreamFailed(cause), repeats=True)


@pytest.mark.parametrize("cause", Cause)
def test_every_failure_has_a_cause_for_metrics(cause):
    """The set is closed, and has every cause of a failed call."""

    assert judge_failure(UpstreamFailed(cause), repeats=False).cause in CAUSES


def anthropic(kind, **more):
    body = json.dumps({"type": "error", "error": {"type": kind, "message": "m", **more}}).encode()
    return b"event: error\ndata: " + body + b"\n\n"


def openai(**members):
    return b"data: " + error(**members) + b"\n\n"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(anthropic("overloaded_error"), OVERLOADED, id="anthropic is overloaded"),
        pytest.param(b"event: ping\ndata: {}\n\n" + anthropic("overloaded_error"), OVERLOADED, id="after a ping"),
        pytest.param(b": hello\r\n\r\n" + anthropic("api_error"), SERVER_ERROR, id="anthropic failed"),
        pytest.param(anthropic("timeout_error"), SERVER_ERROR, id="anthropic took too long"),
        pytest.param(anthropic("rate_limit_error"), quota(DEFAULT_WINDOW), id="anthropic's limit"),
        pytest.param(
            anthropic("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            EXHAUSTED,
            id="anthropic's spend limit",
        ),
        pytest.param(anthropic("billing_error"), EXHAUSTED, id="anthropic's billing"),
        pytest.param(anthropic("invalid_request_error"), CLIENT_ERROR, id="anthropic's client error"),
        pytest.param(anthropic("authentication_error"), UNAUTHORIZED, id="anthropic's credential"),
        pytest.param(anthropic("permission_error"), FORBIDDEN, id="anthropic's permission"),
        pytest.param(openai(type="server_error", code=None, message="m"), SERVER_ERROR, id="openai failed"),
        pytest.param(openai(type="tokens", code="rate_limit_exceeded", message="try again in 2s"), quota(2.0),
                     id="openai's limit"),
        pytest.param(openai(type="insufficient_quota", code="insufficient_quota"), EXHAUSTED, id="openai's quota"),
        pytest.param(openai(type="invalid_request_error", code="content_filter"), CLIENT_ERROR, id="content filter"),
        pytest.param(openai(type="invalid_request_error", code="rate_limit_exceeded"), quota(DEFAULT_WINDOW),
                     id="the more exact word"),
        pytest.param(openai(code="model_not_ready"), NOT_READY, id="not ready"),
        pytest.param(openai(code="429", message="The system is experiencing high demand."), CAPACITY, id="by number"),
        pytest.param(openai(code=503, status="UNAVAILABLE", message="The model is overloaded."), OVERLOADED,
                     id="gemini is overloaded"),
        pytest.param(openai(type="something_new"), SERVER_ERROR, id="an unknown word"),
        pytest.param(
            b'event: error\ndata: {"type":"error","code":"rate_limit_exceeded","message":"m","sequence_number":1}\n\n',
            quota(DEFAULT_WINDOW),
            id="a response's error",
        ),
        pytest.param(
            b'data: {"type":"response.created","response":{"error":null}}\n\nevent: response.failed\ndata: {"type":'
            b'"response.failed","response":{"error":{"code":"invalid_prompt","message":"m"}}}\n\n',
            CLIENT_ERROR,
            id="a failed response",
        ),
        pytest.param(b'data: {"error":"overloaded"}', OVERLOADED, id="without its blank line"),
        pytest.param(b"event: error\ndata: no json\n\n", SERVER_ERROR, id="unreadable"),
        pytest.param(b'event: error\ndata: {"type":["error"],"error":{"type":{}}}\n\n', SERVER_ERROR, id="other types"),
        pytest.param(b'data: {"type":["error"],"error":{"type":{}}}\n\n', SERVER_ERROR, id="other types, no name"),
        pytest.param(b"data: " + b"[" * 60_000 + b"\n\n", SERVER_ERROR, id="deep nesting"),
        pytest.param(b'data: {"choices":[{"delta":{"content":"overloaded_error"}}]}\n\n', SERVER_ERROR, id="no error"),
        pytest.param(b"", SERVER_ERROR, id="nothing"),
        pytest.param(b"\xff\x00", SERVER_ERROR, id="no text"),
    ],
)  # fmt: skip
def test_event_errors(stream, expected):
    """An error inside a stream means what the same error would mean as an answer."""

    assert expected == judge_event_error(stream)


@given(st.binary(max_size=120) | st.text('data:event error{}[]"\n', max_size=60).map(str.encode))
def test_event_errors_never_raise(stream):
    """Whatever the bytes, there is a verdict."""

    assert judge_event_error(stream).cause in CAUSES
