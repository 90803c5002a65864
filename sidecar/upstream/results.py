"""
How a call's attempts ended, and what its caller gets of that.

The rule: an end that the caller doesn't get is closed here, and one that it gets tells whether to try again.
"""

from __future__ import annotations

from sidecar.core.region.breaker import Sign
from sidecar.errors import Cause, UpstreamFailed
from sidecar.upstream.call import AttemptResult


def is_definite(result: AttemptResult) -> bool:
    """Whether another region would say the same; a credential that one has refused may be another's own."""
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
    Which of two ends the caller gets: an answer rather than none, one to wait for rather than an error, and either that
    or what holds everywhere rather than what only one region lacks; of what has no answer, what was sent. Of equals the
    later.
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
    """No region answers: however the last attempt failed, the caller is told when to come back."""
    failure = UpstreamFailed(Cause.NO_REGION, str(result.failure), retry_after=max(seconds, 1.0))
    failure.final = final
    failure.by_own_deadline = isinstance(result.failure, UpstreamFailed) and result.failure.by_own_deadline
    return failure


def final(result: AttemptResult, attempts: int) -> AttemptResult:
    """What is handed back. After several attempts the caller's own would multiply ours, if it is not told."""
    if attempts > 1 and result.verdict.sign in {Sign.ERROR, Sign.UNANSWERED}:
        if result.answer is not None:
            result.answer.discourage()
        elif isinstance(result.failure, UpstreamFailed):
            result.failure.final = True
    return result
