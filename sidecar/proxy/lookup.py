"""
Steps 3 to 6: read a request's body, and work out its call and its key.

The rule: a body is read once. A memo finds bodies that come again, and bodies that differ from an earlier one only in
members that nobody uses. Such a body is not read again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from sidecar.core.cache.policy import Bypass, Observe, Reason, admit, freshness
from sidecar.core.dialect import BodyForm, Endpoint
from sidecar.core.key import canonical
from sidecar.core.key.body_memo import BodyParts, certain, split_body
from sidecar.core.key.fingerprint import seal
from sidecar.core.key.steady import SteadyObserver
from sidecar.core.memo import Memo
from sidecar.core.model import Facts, Head, Reading
from sidecar.core.request.plan import RequestPlan, RequestPlans
from sidecar.core.rules import Mode
from sidecar.core.site.recognise import choose_route
from sidecar.core.site.routing import choose_model
from sidecar.net.base import Observer, Spool, Stream
from sidecar.proxy.request import Call

_JSON = BodyForm.JSON  # reading a member from its enumeration takes 60 ns (Python 3.11)
_MEMO_CALLS = 1024
_MEMO_BYTES = 4 * 1024 * 1024
_CALL_WEIGHT = 500
_SEEN = 4096
_UNREAD = Reading(b"none", b"", Facts(bypass=Reason.MEMORY_FULL))
_READER_FAILED = Reading(b"none", b"", Facts(bypass=Reason.READER_FAILED))


class CallReader:
    """Works out calls by the present *plans*. *secret* is the secret of the keys, and *report* gets bugs."""

    def __init__(self, plans: RequestPlans, secret: bytes, report: Callable[[BaseException], None]) -> None:
        self.plans = plans
        self._secret = secret
        self._report = report
        self._seen: set[int] = set()
        self._calls: Memo[tuple[RequestPlan, bytes | BodyParts], Call] = Memo(_MEMO_CALLS, _MEMO_BYTES)

    def __repr__(self) -> str:
        return f"<CallReader {self._calls!r}>"

    @property
    def splits(self) -> Mapping[str, tuple[str, ...]]:
        """The header fields that make nearly every key unique, by route."""
        return self.plans.splits.found

    def switch(self, mode: Mode) -> None:
        """New calls follow *mode*; calls under way keep the mode in which they began."""
        self.adopt(self.plans.switched(mode))

    def adopt(self, plans: RequestPlans) -> None:
        """New calls follow *plans*; calls under way have a plan already, and finish on it."""
        self.plans = plans
        self._calls = Memo(_MEMO_CALLS, _MEMO_BYTES)

    def forget_requests(self) -> None:
        """Let go of every head and body that is remembered, so that callers are identified again, too."""
        self.plans.forget()
        self._calls = Memo(_MEMO_CALLS, _MEMO_BYTES)

    def observer(self, endpoint: Endpoint, content_type: bytes) -> Callable[[], Observer]:
        """A factory for the observer of a large body, which is read while it comes."""
        return partial(SteadyObserver, endpoint, content_type, self._secret)

    def call(self, plan: RequestPlan, head: Head, body: bytes | Spool | Stream, observer: Observer | None) -> Call:
        """Steps 3 to 6: from a body to a key."""
        site = plan.site
        endpoint = site.endpoint
        assert endpoint is not None
        pieces = None
        if type(body) is bytes and endpoint.body is _JSON and len(body) <= canonical.SMALL:
            known = self._calls.get((plan, body))
            if known is not None:
                return known
            pieces = split_body(body, endpoint.ignored)
            known = self._calls.get((plan, pieces))
            if known is not None:
                self._note(plan, body, known)
                return known
        # 3, 4: what the body says, and its canonical form
        reading = self._read(endpoint, head, body, observer)
        facts = reading.facts
        # 5: which model answers, and so by which route; whether that may be looked up
        model = choose_model(endpoint, facts)
        route = choose_route(site, head.fields, model)
        caller = plan.identities.caller(plan, route)
        decision = plan.bypass or admit(facts, route, caller.principal)
        fresh = freshness(endpoint, route, plan.asked)
        if isinstance(decision, Bypass):
            call = Call(endpoint, facts, route, model, caller.principal, fresh, None, decision.reason)
        else:
            # 6: the key
            key = seal(self._secret, caller.prefix, model, reading)
            observe = isinstance(decision, Observe)
            call = Call(endpoint, facts, route, model, caller.principal, fresh, key, observe=observe)
        if pieces is not None and certain(pieces, endpoint.ignored):
            self._calls.put((plan, pieces), call, sum(map(len, pieces)) + _CALL_WEIGHT + plan.excess)
        return call

    def _read(self, endpoint: Endpoint, head: Head, body: bytes | Spool | Stream, observer: Observer | None) -> Reading:
        """Read a body. If a bug of ours prevents that, the call is not looked up, but is sent on as it is."""
        try:
            if observer is not None:
                return observer.reading()
            if isinstance(body, bytes):
                return canonical.read(body, endpoint, head.fields.get(b"content-type", b""), self._secret)
        except Exception as error:  # noqa: BLE001  a bug in what is only for the cache must fail no call
            self._report(error)
            return _READER_FAILED
        return _UNREAD

    def _note(self, plan: RequestPlan, body: bytes, call: Call) -> None:
        """Remember a whole body that comes again: it is found faster than by its pieces. Most bodies come once."""
        digest = hash(body)
        if digest in self._seen:
            self._calls.put((plan, body), call, len(body) + _CALL_WEIGHT + plan.excess)
        elif len(self._seen) < _SEEN:
            self._seen.add(digest)
        else:
            self._seen.clear()
