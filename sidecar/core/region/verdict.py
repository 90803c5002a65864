"""
What the end of an attempt says about its region, and about what to do next.

The rule: one table. A failure counts for the breaker only if another caller would have failed as well. Another region
is asked only if it may answer. The words of an error are read from its own members alone, so that no prompt can forge
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct, json, structs

from sidecar.core.http import error_body as complaint
from sidecar.core.http import retry_after, sse
from sidecar.core.http.error_body import Complaint
from sidecar.core.key.json_rule import UNREADABLE
from sidecar.core.model import Fields
from sidecar.core.region.breaker import Sign
from sidecar.errors import Cause, UpstreamFailed

DEFAULT_WINDOW = 5.0
"""The length of a rate window if the answer names none, seconds."""

EXHAUSTED_WINDOW = 600.0
"""How long a credential without money or quota is not used again, seconds."""

CAUSES = frozenset({
    "ok", "5xx", "overloaded", "capacity", "quota", "exhausted", "not-ready", "timeout-408", "unauthorized",
    "no-deployment", "client-error", *(cause.value for cause in Cause),
})  # fmt: skip
"""Every cause that a verdict may have: a closed set, for metrics."""

_EXHAUSTED = frozenset({
    "insufficientquota", "billinghardlimitreached", "billingnotactive", "billingerror", "enforcedspendlimitreached",
})  # fmt: skip
"""An account's money is spent (OpenAI, "Error codes"; Anthropic, "Errors" and "Spend limits")."""

_NOT_READY = frozenset({"modelnotready", "notready"})

_FULL = frozenset({"nocapacity", "servicetiercapacityexceeded", "capacityexceeded", "outofcapacity", "serverisbusy"})
"""The service itself has no room, for anybody. A code with ``overloaded`` in it means the same."""

_FULL_SENTENCE = re.compile(
    r"\b(?:engine|model|server|service|system) (?:is )?(?:currently |temporarily )?"
    r"(?:experiencing (?:very )?high demand|overloaded|over capacity|at capacity|too busy|busy)\b",
    re.IGNORECASE,
)

_FREE_TIER_SPENT = re.compile(r"\bout of call volume quota\b", re.IGNORECASE)
"""What Azure AI services answer once the free tier's month is used up, with a Retry-After of days."""

_BODY_DECIDES = frozenset({400, 403, 404, 429, 503})

_STATUS: Mapping[str, int] = MappingProxyType({
    **dict.fromkeys(sorted(_EXHAUSTED), 402), **dict.fromkeys(sorted(_NOT_READY), 424),
    "overloadederror": 529, "ratelimiterror": 429, "ratelimitexceeded": 429, "ratelimitreached": 429,
    "toomanyrequests": 429, "resourceexhausted": 429, "throttling": 429, "requests": 429, "tokens": 429,
    "authenticationerror": 401, "invalidapikey": 401, "permissionerror": 403, "permissiondenied": 403,
    "notfounderror": 404, "requesttoolarge": 413, "contentfilter": 400, "contextlengthexceeded": 400,
    "invalidprompt": 400, "invalidargument": 400, "failedprecondition": 400, "validation": 400, "invalidrequest": 400,
    "invalidrequesterror": 400,
})  # fmt: skip
"""
The status that an error inside a stream would have had as an answer; the most exact word comes first. Any other word is
a failure of the service.
"""

_ERROR_EVENTS = ("error", "response.failed")


class Verdict(Struct, frozen=True, gc=False):
    """
    *sign*: what the region's breaker is told. *cause*: one of ``CAUSES``. *elsewhere*: another region may answer the
    call; *retry_here*: the same one may.

    *window*: seconds for which this region has no room for this credential and deployment, 0 for none, at most 60;
    *exhausted*: the credential has no money or quota left, and the window is ``EXHAUSTED_WINDOW``. *refresh*: a fresh
    credential may help. *wait*: seconds, 0 to 60, before which the same region should not be asked retry_here; 0 if it
    named none.
    """

    sign: Sign
    cause: str
    elsewhere: bool = False
    retry_here: bool = False
    window: float = 0.0
    exhausted: bool = False
    refresh: bool = False
    wait: float = 0.0


GOOD = Verdict(Sign.GOOD, "ok")

_FAILED = Verdict(Sign.ERROR, "5xx", elsewhere=True, retry_here=True)
_NEUTRAL = Verdict(Sign.NEUTRAL, "client-error")

_VERDICTS: Mapping[str, Verdict] = MappingProxyType({
    verdict.cause: verdict
    for verdict in (
        _FAILED,
        structs.replace(_FAILED, cause="overloaded"),
        structs.replace(_FAILED, cause="not-ready"),
        structs.replace(_FAILED, cause="timeout-408"),
        structs.replace(_FAILED, cause="capacity", retry_here=False),
        _NEUTRAL,
        structs.replace(_NEUTRAL, cause="unauthorized"),
        structs.replace(_NEUTRAL, cause="no-deployment", elsewhere=True),
        structs.replace(_NEUTRAL, cause="quota", elsewhere=True),
        structs.replace(_NEUTRAL, cause="exhausted", elsewhere=True, window=EXHAUSTED_WINDOW, exhausted=True),
    )
})  # fmt: skip
"""What follows from the cause of an answered error."""

_CAUSE_OF_STATUS = {401: "unauthorized", 403: "unauthorized", 408: "timeout-408"}


def needs_body(status: int) -> bool:
    """Whether an answer with *status* can be judged only with its body."""
    return status in _BODY_DECIDES


def judge_answer(status: int, fields: Fields, body: bytes, now: float) -> Verdict:
    """
    The verdict on an answer. *body* is its first 64 KiB, without content coding; ``b""`` where ``needs_body`` does not
    ask for it or it could not be read. *now* is seconds since the epoch, for dates.
    """
    if status < 400:
        return GOOD
    said = complaint.read(fields, body)
    verdict = _judge(status, said, retry_after.wait_of(fields, said, now))
    if verdict.retry_here and fields.get(b"x-should-retry", b"").strip().lower() == b"false":
        return structs.replace(verdict, retry_here=False)
    return verdict


def judge_event_error(stream: bytes) -> Verdict:
    """
    The verdict on a stream whose error came before its first content. *stream* is its bytes so far. An error that
    cannot be read counts as a failure of the service.
    """
    said = next((found for event in sse.events(stream) if (found := _complaint_of(event)) is not None), None)
    if said is None:
        said = complaint.NOTHING
    status = said.number or next((status for word, status in _STATUS.items() if word in said.words), 500)
    return _judge(status, said, retry_after.wait_of({}, said, 0.0))


def judge_failure(failure: UpstreamFailed, *, repeats: bool) -> Verdict:
    """
    The verdict on a call without a whole answer. *repeats*: a call that took too long may be sent a second time,
    although the service may still work on the first one, which costs money.
    """
    match failure.cause:
        case Cause.DRAINING | Cause.INTERNAL | Cause.NO_REGION:
            return Verdict(Sign.NEUTRAL, failure.cause.value)
        case Cause.FIRST_BYTE_TIMEOUT | Cause.IDLE_TIMEOUT:
            repeated = repeats or not failure.sent
            return Verdict(Sign.UNANSWERED, failure.cause.value, elsewhere=repeated, retry_here=repeated)
        case _:
            return Verdict(Sign.UNANSWERED, failure.cause.value, elsewhere=True, retry_here=True)


def _judge(status: int, said: Complaint, wait: float | None) -> Verdict:
    verdict = _VERDICTS[_cause(status, said)]
    if verdict.cause == "quota":
        window = DEFAULT_WINDOW if wait is None else wait
        return structs.replace(verdict, window=window, wait=window)
    if verdict.sign is Sign.ERROR:
        return structs.replace(verdict, wait=wait or 0.0)
    return structs.replace(verdict, refresh=status == 401)


def _cause(status: int, said: Complaint) -> str:
    words = said.words
    if status >= 500:
        if status == 501:  # what a service does not offer now, it will not offer the next time
            return "client-error"
        return "overloaded" if status == 529 or _full(said) else "5xx"
    if status == 402 or (status in {400, 403, 429} and not words.isdisjoint(_EXHAUSTED)):
        return "exhausted"
    if status in {403, 429} and _FREE_TIER_SPENT.search(said.message):
        return "exhausted"
    if status == 424 or (status in {400, 429} and not words.isdisjoint(_NOT_READY)):
        return "not-ready"
    if status == 429:
        return "capacity" if _full(said) else "quota"
    if status == 404 and "deploymentnotfound" in words:
        return "no-deployment"
    return _CAUSE_OF_STATUS.get(status, "client-error")


def _full(said: Complaint) -> bool:
    return (
        not said.words.isdisjoint(_FULL)
        or any("overloaded" in word for word in said.words)
        or _FULL_SENTENCE.search(said.message) is not None
    )


def _complaint_of(event: sse.Event) -> Complaint | None:
    """The complaint in an event; None if it is no error."""
    try:
        document = json.decode(event.data)
    except UNREADABLE:
        document = None
    members = document if isinstance(document, dict) else {}
    if event.name in _ERROR_EVENTS or members.get("type") in _ERROR_EVENTS:
        return complaint.parse(event.data)
    return complaint.parse(event.data) if members.get("error") is not None else None
