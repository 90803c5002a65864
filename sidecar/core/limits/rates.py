"""
How much of a service a route may use: its rates, what a call is expected to use, and a concurrency that adapts to what
the service can take.

The rule: rates are counted in time. What is taken is worth so many seconds of the limit, so a bucket is one instant. It
means the same to a process with a share of the limit as to the fleet with all of it, and it survives a change of the
limit. ``fleet/quota`` does the same arithmetic inside Redis.

A bucket holds ``BURST_SECONDS`` of its limit. In any minute no more is taken than the minute's limit and a full bucket:
with 2 s at most 103.3 %, which leaves room below 105 % for late corrections. Services that judge a minute's limit by
windows of 1 to 10 s (Azure OpenAI) accept that. A route with more calls than its limit uses all of it: calls go in one
after the other as the bucket fills, and no refill is lost. A call that costs more than a full bucket passes when the
bucket is full, and the calls after it pay for the overdraft; with such calls, a minute may exceed its limit by one of
them.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from msgspec import Struct, json

from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.rules import NO_LIMITS, RouteLimits

BURST_SECONDS: Final = 2.0
"""How much a bucket holds, in seconds' worth of its limit."""

MOST_DEBT_SECONDS: Final = 600.0
"""How far a bucket may be overdrawn; even the largest mistake is forgiven after that."""

BYTES_PER_TOKEN: Final = 4
"""Bytes for each token of English text and of JSON, by the rule of thumb of OpenAI's tokenizer documentation."""

MODEST_OUTPUT: Final = 500
"""Tokens that an answer is expected to have where the call sets it no limit."""

FULL: Final = float("-inf")


def limited(limits: RouteLimits) -> bool:
    """
    Whether *limits* limit anything. Most routes have the default object, which is recognised by identity: each call
    asks.
    """
    return limits is not NO_LIMITS and bool(
        limits.concurrency or limits.tokens_per_minute or limits.requests_per_minute or limits.adaptive
    )


def estimate(body_size: int, max_output: int | None) -> int:
    """The tokens, at least 1, that a call with *body_size* bytes of JSON and *max_output* is expected to use."""
    return max(1, body_size // BYTES_PER_TOKEN + (MODEST_OUTPUT if max_output is None else max(0, max_output)))


class _Declared(Struct):
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


_declared = json.Decoder(_Declared).decode


def declared_output(body: object) -> int | None:
    """The longest answer that a request's JSON *body* asks for, in tokens; None where it doesn't say."""
    if not isinstance(body, bytes):
        return None
    try:
        said = _declared(body)
    except UNREADABLE:
        return None
    named = (said.max_completion_tokens, said.max_output_tokens, said.max_tokens)
    return next((most for most in named if type(most) is int and most >= 0), None)


class Worth(NamedTuple):
    """Seconds of a limit that one request and one token are worth; 0 where there is no such limit."""

    request: float
    token: float


def worth(limits: RouteLimits, parts: int = 1) -> Worth:
    """What a request and a token cost one of *parts* that share *limits*."""
    return Worth(
        60.0 * parts / limits.requests_per_minute if limits.requests_per_minute else 0.0,
        60.0 * parts / limits.tokens_per_minute if limits.tokens_per_minute else 0.0,
    )


class Pair(NamedTuple):
    """Values of a route's *requests* and of its *tokens*, in seconds: how full the buckets are, or the waits."""

    requests: float
    tokens: float


BRIMFUL: Final = Pair(BURST_SECONDS, BURST_SECONDS)


class Bucket:
    """
    A rate's account: the generic cell rate algorithm (ITU-T I.371) as virtual scheduling, whose theoretical arrival
    time is here the instant at which the bucket is empty.
    """

    __slots__ = ("_empty_at",)

    def __init__(self) -> None:
        self._empty_at = FULL

    def __repr__(self) -> str:
        return f"<Bucket empty at {self._empty_at:.3f}>"

    def fill(self, now: float) -> float:
        """Seconds' worth in the bucket, at most ``BURST_SECONDS``; below 0 it is overdrawn."""
        return min(BURST_SECONDS, now - self._empty_at)

    def wait(self, now: float, seconds: float, ahead: float = 0.0) -> float:
        """How long until *seconds*' worth can be taken after *ahead*: until it is there, or the bucket is full."""
        return max(0.0, ahead + min(seconds, BURST_SECONDS) - self.fill(now))

    def take(self, now: float, seconds: float) -> None:
        """Take *seconds*' worth even if it is not there. Below 0 it is given back; more than a full bucket is lost."""
        self.set(now, self.fill(now) - seconds)

    def set(self, now: float, fill: float) -> None:
        """Set how full the bucket is."""
        self._empty_at = now - max(-MOST_DEBT_SECONDS, min(BURST_SECONDS, fill))


class Account:
    """A route's two buckets. What has no limit costs nothing."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self) -> None:
        self._requests = Bucket()
        self._tokens = Bucket()

    def __repr__(self) -> str:
        return f"<Account {self._requests!r} {self._tokens!r}>"

    def fill(self, now: float) -> Pair:
        """How full the buckets are."""
        return Pair(self._requests.fill(now), self._tokens.fill(now))

    def set(self, now: float, fill: Pair) -> None:
        """Set how full the buckets are."""
        self._requests.set(now, fill.requests)
        self._tokens.set(now, fill.tokens)

    def wait(self, now: float, worth: Worth, tokens: int, *, ahead: int = 0, ahead_tokens: int = 0) -> Pair:
        """How long a call of *tokens* has to wait behind *ahead* others, which take *ahead_tokens* together."""
        requests = self._requests.wait(now, worth.request, ahead * worth.request) if worth.request else 0.0
        return Pair(requests, self._tokens.wait(now, tokens * worth.token, ahead_tokens * worth.token))

    def take(self, now: float, worth: Worth, tokens: int, requests: int = 1) -> None:
        """Take so much even if it is not there. Below 0 it is given back."""
        self._requests.take(now, requests * worth.request)
        self._tokens.take(now, tokens * worth.token)


class Calibration:
    """
    How estimates compared with what calls really used, over about the last ``MEMORY`` calls.

    An estimate counts all the output that a call allows, but most calls use a fraction of it. If calls were charged the
    estimate, a busy route would have much of its limit tied up until its calls end.
    """

    __slots__ = ("_estimated", "_used")

    MEMORY: Final = 32
    LEAST: Final = 0.02
    MOST: Final = 5.0

    def __init__(self) -> None:
        self._estimated = 0.0
        self._used = 0.0

    def __repr__(self) -> str:
        return f"<Calibration {self.ratio:.2f}>"

    @property
    def ratio(self) -> float:
        """Tokens used for each estimated token: a ratio of sums, so it is right for the sum of calls."""
        if not self._estimated:
            return 1.0
        return max(self.LEAST, min(self.MOST, self._used / self._estimated))

    def charge(self, estimated: int) -> int:
        """What a call with this estimate is charged when it starts, at least 1 unless the estimate is 0."""
        return max(min(1, estimated), round(estimated * self.ratio))

    def learn(self, estimated: int, used: int) -> None:
        """A call has ended. A call that used nothing has failed, and teaches nothing."""
        if used > 0 and estimated > 0:
            keep = 1.0 - 1.0 / self.MEMORY
            self._estimated = self._estimated * keep + estimated
            self._used = self._used * keep + used


class Adaptive:
    """
    A concurrency that follows what the service can take: additive increase, multiplicative decrease (Chiu and Jain
    1989; ``AIMDLimit`` of Netflix' concurrency-limits, which also has the factor of 0.9 and the least use of one half).

    Until the first decrease each good call adds one, so the limit doubles in a round trip; after it, each call adds its
    part of one (slow start and congestion avoidance, RFC 5681, 3.1). The limit falls when a call is throttled, or when
    recent calls take twice as long as in the long run. Recent means an average of a few calls, because one call of a
    language model takes as long as its answer is long. *most* is the upper bound, *start* the first value; the lower
    bound is 1.
    """

    __slots__ = ("_cut_at", "_late", "_level", "_long", "_most", "_seen")

    FACTOR: Final = 0.9
    SLOW: Final = 2.0
    LATE: Final = 0.2
    LONG: Final = 0.01
    LEARNING: Final = 20
    """Calls before averages mean anything."""

    def __init__(self, most: int, start: int) -> None:
        self._most = most
        self._level = float(min(most, start))
        self._cut_at = FULL
        self._late = self._long = 0.0
        self._seen = 0

    def __repr__(self) -> str:
        return f"<Adaptive {self._level:.1f} of {self._most}>"

    @property
    def limit(self) -> int:
        """How many calls may run at a time."""
        return int(self._level)

    def settle(self, now: float, began: float, inside: int, *, throttled: bool, seconds: float | None) -> None:
        """
        A call that *began* at that time has ended; with it, *inside* calls were running. It took *seconds*; None if its
        time means nothing. Only calls that began after a decrease can cause the next one, so there is one decrease in a
        round trip.
        """
        if seconds is not None and not throttled:
            self._seen += 1
            self._late += (seconds - self._late) * max(self.LATE, 1.0 / self._seen)
            self._long += (seconds - self._long) * max(self.LONG, 1.0 / self._seen)
        slow = seconds is not None and self._seen > self.LEARNING and self._late > self.SLOW * self._long
        if throttled or slow:
            if began >= self._cut_at:
                self._level = max(1.0, self._level * self.FACTOR)
                self._cut_at = now
        elif seconds is not None and inside * 2 >= self._level:
            self._level = min(float(self._most), self._level + (1.0 if self._cut_at == FULL else 1.0 / self._level))
