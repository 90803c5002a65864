"""Errors become answers: a status for each cause, in the API's own form."""

import json

import pytest

from sidecar.core.answer.rescue import cause_of, is_callers, plain_error, rescue
from sidecar.dialects import DIALECTS
from sidecar.errors import Cause, ClientGone, Refused, SlowReader, UpstreamFailed

NO_RETRY = (b"x-should-retry", b"false")

STATUSES = {
    Cause.CONNECT: 502,
    Cause.DNS: 502,
    Cause.TLS: 502,
    Cause.CONNECT_TIMEOUT: 504,
    Cause.FIRST_BYTE_TIMEOUT: 504,
    Cause.IDLE_TIMEOUT: 504,
    Cause.DISCONNECTED: 502,
    Cause.TRUNCATED: 502,
    Cause.MALFORMED: 502,
    Cause.NO_REGION: 503,
    Cause.DRAINING: 503,
    Cause.INTERNAL: 500,
}


@pytest.mark.parametrize("cause", Cause)
def test_upstream_failures(cause):
    """Every cause has its status, its code, and a sentence for people."""
    found = rescue(UpstreamFailed(cause), DIALECTS["openai"])
    error = json.loads(found.body)["error"]

    assert STATUSES[cause] == found.status
    assert f"upstream-{cause}" == found.code == error["code"]
    assert found.message == error["message"]
    assert found.message.endswith(".")
    assert (cause is Cause.INTERNAL) == (NO_RETRY in found.pairs)
    assert (cause is Cause.DRAINING) == ((b"retry-after", b"1") in found.pairs)
    assert (b"content-type", b"application/json") == found.pairs[0]


def test_retry_after():
    """When it is worth trying again is said in whole seconds, a minute at most; after our own tries: not at all."""
    openai = DIALECTS["openai"]
    waits = [UpstreamFailed(Cause.NO_REGION, retry_after=seconds) for seconds in (0.2, 4.1, 1e9)]
    tried = UpstreamFailed(Cause.CONNECT)
    tried.final = True

    assert [b"1", b"5", b"60"] == [dict(rescue(wait, openai).pairs)[b"retry-after"] for wait in waits]
    assert NO_RETRY in rescue(tried, openai).pairs
    assert dict(rescue(Refused(429, "route-limit", "Full.", retry_after=2.5), openai).pairs)[b"retry-after"] == b"3"
    assert NO_RETRY not in rescue(Refused(429, "route-limit", "Full.", retry_after=2.5), openai).pairs


def test_no_credential():
    """A credential that is not there won't be within an SDK's tries; others may look again in half a minute."""
    pairs = rescue(Refused(503, "no-credential", "None."), DIALECTS["openai"]).pairs

    assert NO_RETRY in pairs
    assert b"30" == dict(pairs)[b"retry-after"]


def test_detail():
    """What is known of a failure stands behind its sentence."""

    assert rescue(UpstreamFailed(Cause.DNS, "api.x:443"), None).message.endswith("was not found. (api.x:443)")


@pytest.mark.parametrize(
    ("status", "retry"),
    [(400, False), (404, False), (413, False), (421, False), (499, False), (500, True), (501, False), (503, True),
     (504, False)],
)  # fmt: skip
def test_refusals(status, retry):
    """A refusal keeps its status, code and message, and says where trying again is no use."""
    found = rescue(Refused(status, "some-code", "Some sentence."), DIALECTS["openai"])

    assert (status, "some-code", "Some sentence.") == (found.status, found.code, found.message)
    assert retry == (NO_RETRY not in found.pairs)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("openai", {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "c"}}),
        ("azure-openai", {"error": {"code": "c", "message": "No."}}),
        (
            "anthropic",
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "No.", "details": {"error_code": "c"}},
            },
        ),
        ("generic", {"error": {"code": "c", "message": "No."}}),
        ("", {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": "c"}}),
    ],
)
def test_shapes(dialect, expected):
    """The body is what the API's own clients read."""

    assert expected == json.loads(rescue(Refused(400, "c", "No."), DIALECTS.get(dialect)).body)


@pytest.mark.parametrize("dialect", [*DIALECTS, ""])
@pytest.mark.parametrize("error", [ValueError("Bearer sk-secret"), RuntimeError("sk-secret"), KeyError(b"sk-secret")])
def test_bugs_tell_nothing(error, dialect):
    """A bug's own text, which may quote anything, stays here."""
    found = rescue(error, DIALECTS.get(dialect))

    assert (500, "internal") == (found.status, found.code)
    assert NO_RETRY in found.pairs
    assert "secret" not in repr(found)


def test_plain_error():
    """Callers of an unknown API get the form that most know."""

    assert "server_error" == json.loads(plain_error(500, "c", "m"))["error"]["type"]


@pytest.mark.parametrize(
    ("error", "cause", "callers"),
    [
        (UpstreamFailed(Cause.TLS), "tls", False),
        (Refused(400, "bad", "m"), "bad", False),
        (ClientGone(), "client-gone", True),
        (SlowReader(), "slow-reader", True),
        (ValueError(), "internal", False),
    ],
    ids=["upstream", "refused", "gone", "slow", "bug"],
)
def test_cause_of(error, cause, callers):
    """The word for an error in records, and whether the caller itself is it."""

    assert cause == cause_of(error)
    assert callers == is_callers(error)
