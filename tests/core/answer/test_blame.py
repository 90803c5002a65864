"""Whose error it is."""

import pytest

from sidecar.core.answer.blame import NOBODY, Blame, blame, blame_of_answer
from sidecar.errors import Cause, ClientGone, Refused, SlowReader, UpstreamFailed


def by_own_deadline(error):
    error.by_own_deadline = True
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((UpstreamFailed(cause), Blame.UPSTREAM) for cause in Cause if cause not in {Cause.DRAINING, Cause.INTERNAL}),
        (UpstreamFailed(Cause.DRAINING), Blame.SIDECAR),
        (UpstreamFailed(Cause.INTERNAL), Blame.SIDECAR),
        (by_own_deadline(UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT)), Blame.CALLER),
        (Refused(400, "bad-request", ""), Blame.CALLER),
        (Refused(421, "misdirected", ""), Blame.CALLER),
        (Refused(504, "only-if-cached", ""), Blame.CALLER),
        (Refused(429, "route-limit", ""), Blame.SIDECAR),
        (Refused(503, "no-credential", ""), Blame.SIDECAR),
        (Refused(500, "internal", ""), Blame.SIDECAR),
        (ClientGone(""), Blame.CALLER),
        (SlowReader(""), Blame.CALLER),
        (ValueError(""), Blame.SIDECAR),
    ],
)
def test_blame(error, expected):
    """Who has to do something about an error that ended a call."""

    assert expected == blame(error)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, NOBODY) for status in (200, 204, 302, 304)),
        *((status, Blame.CALLER) for status in (400, 404, 409, 413, 415, 422)),
        *((status, Blame.UPSTREAM) for status in (402, 408, 424, 425, 429, 500, 501, 502, 503, 504, 529, 600)),
    ],
)
def test_blame_of_an_answer(status, expected, own):
    """A service that fails or has no room answers so whatever it is asked; else its errors are about the request."""

    assert expected == blame_of_answer(status, own=own)


@pytest.mark.parametrize("status", [401, 403])
def test_blame_for_a_credential(status):
    """A credential that is not accepted is its owner's affair: the caller's, or ours where a region brings it."""

    assert Blame.CALLER == blame_of_answer(status, own=True)
    assert Blame.SIDECAR == blame_of_answer(status, own=False)
