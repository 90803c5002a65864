"""
How the attempts of a call ended, and which of the results the caller gets.

The rule: a result that the caller does not get is closed here. A result that it gets says whether to try again.
"""

from __future__ import annotations

from sidecar.core.region.breaker import Sign
from sidecar.errors import Cause, UpstreamFailed
from sidecar.upstream.call import AttemptResult, UpstreamCall

FULL = frozenset({429, 503, 529})
"""Statuses with which a service says that it has no room."""


def is_definite(result: AttemptResult) -> bool:
    """Whether another region would answer the same. No for a refused credential: another may have its own."""
    verdict = result.verdict
    if verdict.sign is Sign.GOOD:
        return True
    return (
        verdict.sign is Sign.NEUTRAL
        and not verdict.elsewhere
        and result.answer is not None
        and verdict.cause != "unauthorized"
    )


def better(one: AttemptResult | None, other: AttemptResult) -> AttemptResult:
    """
    Which of two results the caller gets; the other is closed. From best to worst: a good answer; an error that says how
    long to wait, or that holds in every region; an error of this region only; any other answer; a failure after the
    call was sent; a failure before that. If both are equal, the later one.
    """
    if one is None:
        return other
    if _rank(other) >= _rank(one):
        one.close()
        return other
    other.close()
    return one


def _rank(result: AttemptResult) -> int:
    verdict = result.verdict
    if result.answer is None:
        return 0 if isinstance(result.failure, UpstreamFailed) else -1  # it was not even sent
    if verdict.sign is not Sign.NEUTRAL:
        return 4 if verdict.sign is Sign.GOOD else 1
    return 2 if verdict.elsewhere and not verdict.wait else 3


def down(result: AttemptResult, seconds: float, *, final: bool) -> UpstreamFailed:
    """The failure if no region answers: for every cause, the caller is told when to come back."""
    failure = UpstreamFailed(Cause.NO_REGION, str(result.failure), retry_after=max(seconds, 1.0))
    failure.final = final
    failure.by_own_deadline = isinstance(result.failure, UpstreamFailed) and result.failure.by_own_deadline
    return failure


def final(result: AttemptResult) -> AttemptResult:
    """The result to return after several attempts. It says "do not retry": retries would multiply ours."""
    if result.verdict.sign in {Sign.ERROR, Sign.UNANSWERED}:
        if result.answer is not None:
            result.answer.discourage()
        elif isinstance(result.failure, UpstreamFailed):
            result.failure.final = True
    return result


def is_harmless(outgoing: UpstreamCall, result: AttemptResult) -> bool:
    """Whether the call may be sent to the same region again: the region may have already done what it asks."""
    if not outgoing.creates:
        return True
    if result.answer is not None:
        return result.answer.status in FULL
    return isinstance(result.failure, UpstreamFailed) and not result.failure.sent


def too_late() -> UpstreamFailed:
    """The failure of a call whose caller's time is over: nothing is sent."""
    failure = UpstreamFailed(Cause.FIRST_BYTE_TIMEOUT, "the caller's time was over before it was sent", sent=False)
    failure.by_own_deadline = True
    return failure
