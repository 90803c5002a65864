"""
What may be looked up, served, shared and kept.

The rule: every decision is a value of a closed union, and every "no" carries its reason as a short code: the same code
stands in ``Cache-Status``, in the metrics and in the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from math import floor, log
from types import MappingProxyType

from msgspec import Struct

from sidecar.core.dialect import Completeness, Endpoint, Kind
from sidecar.core.http.directives import NOTHING_ASKED, Directives
from sidecar.core.http.headers import PLAIN_OPTIONS, named_by_connection
from sidecar.core.key.unsafe import Unsafe
from sidecar.core.model import Entry, Facts, Fields, Form, Pairs
from sidecar.core.request.principal import Principal
from sidecar.core.request.roles import foreign_charset
from sidecar.core.rules import CacheMode, CacheRule, Mode, Route
from sidecar.core.site.recognise import Site

DEFAULT_TTL: Mapping[Kind, float] = MappingProxyType({
    Kind.EMBEDDINGS: 86400.0, Kind.OCR: 86400.0, Kind.RERANK: 86400.0, Kind.TRANSCRIPTION: 86400.0,
    Kind.LANGUAGE: 86400.0, Kind.TRANSLATION: 86400.0, Kind.COUNT: 86400.0, Kind.CHAT: 3600.0, Kind.MODELS: 300.0,
})  # fmt: skip
"""How long an answer is fresh if its route does not say, by the kind of endpoint; seconds."""

OTHER_TTL = 3600.0

UNSHAREABLE_SECONDS = 120.0
"""How long a key is remembered whose answer could not be shared (Varnish calls this hit-for-miss)."""


CONDITIONAL = (
    b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range", b"x-http-method-override",
)  # fmt: skip
"""Request fields of calls whose answer depends on what the caller already has, or is only a part."""


class Reason(StrEnum):
    """Why a call is not looked up, or its answer is not shared or kept; a dialect can give more reasons."""

    PASSTHROUGH = "passthrough"
    CACHE_OFF = "cache-off"
    UNKNOWN_ENDPOINT = "unknown-endpoint"
    OPERATION = "operation"
    ROUTE_OFF = "route-off"
    NOT_DETERMINISTIC = "not-deterministic"
    NO_STORE = "no-store"
    CONTENT_ENCODED = "content-encoded"
    CHARSET = "charset"
    RANGE = "range"
    CONDITIONAL = "conditional"
    NO_CREDENTIAL = "no-credential"
    UNPROVABLE_SIGNATURE = "unprovable-signature"
    FOREIGN_HOST = "foreign-host"
    FOREIGN_ORIGIN = "foreign-origin"
    CONNECTION = "connection-options"
    BODY_TOO_LARGE = "body-too-large"
    MEMORY_FULL = "memory-full"
    READER_FAILED = "reader-failed"
    OBSERVE = "observe"
    CUSTOM_MODEL = "custom-model"
    URL_SOURCE = "url-source"
    STATUS = "status"
    CONTENT_TYPE = "content-type"
    ANSWER_ENCODED = "answer-encoded"
    ANSWER_TOO_LARGE = "answer-too-large"
    UNFRAMED = "unframed"
    SUPERSEDED = "superseded"
    FALLBACK = "fallback"
    UNPROVEN = "unproven"
    NO_CACHE = "no-cache"
    EXPIRED = "expired"
    PRIVATE = "private"
    VARY = "vary"


_UNREAD = frozenset({*Unsafe, "unreadable", Reason.MEMORY_FULL}) - {Unsafe.FILE_ID}
"""Reasons after which nothing more is known of a call, not even whether it is deterministic."""


class Lookup(Struct, frozen=True, gc=False):
    """The call may be answered from the cache."""

    route: Route


class Observe(Struct, frozen=True, gc=False):
    """The call goes upstream unchanged; only whether it would have been a hit is measured."""

    route: Route


class Bypass(Struct, frozen=True, gc=False):
    """The call goes upstream unchanged."""

    reason: str


def admit_head(mode: Mode, site: Site, fields: Fields, asked: Directives) -> Bypass | None:
    """Why the head alone rules a look-up out; None if the body must be read to know."""
    for reason in head_obstacles(mode, site, fields, asked):
        return Bypass(reason)
    return None


def head_obstacles(mode: Mode, site: Site, fields: Fields, asked: Directives) -> Iterator[str]:
    """All reasons why the head alone rules a look-up out; callers see the first."""
    yield from _site_obstacles(mode, site)
    yield from _field_obstacles(fields, asked)


def _site_obstacles(mode: Mode, site: Site) -> Iterator[str]:
    if mode is Mode.PASSTHROUGH:
        yield Reason.PASSTHROUGH
    endpoint = site.endpoint
    if endpoint is None:
        yield Reason.UNKNOWN_ENDPOINT
    elif endpoint.poll is not None:
        yield Reason.OPERATION
    elif endpoint.bypass:
        yield endpoint.bypass
    if mode is Mode.CACHE_OFF:
        yield Reason.CACHE_OFF
    if endpoint is not None and not endpoint.bypass and not site.cacheable:
        yield Reason.ROUTE_OFF


def _field_obstacles(fields: Fields, asked: Directives) -> Iterator[str]:
    if asked.no_store:
        yield Reason.NO_STORE
    if b"content-encoding" in fields:
        yield Reason.CONTENT_ENCODED
    if foreign_charset(fields.get(b"content-type", b"")):
        yield Reason.CHARSET  # the same bytes mean something else there
    if b"range" in fields:
        yield Reason.RANGE
    if any(name in fields for name in CONDITIONAL):
        yield Reason.CONDITIONAL
    if not named_by_connection(fields) <= PLAIN_OPTIONS:
        yield Reason.CONNECTION  # a field named there is not sent on, so no decision may use it


def admit(facts: Facts, route: Route, principal: Principal) -> Lookup | Observe | Bypass:
    """
    What a call of *principal*, whose body has been read, may do. There is no look-up for a caller that cannot be
    identified, nor for a signed call: one signature cannot be told from another.
    """
    for reason in obstacles(facts, route, principal):
        return Bypass(reason)
    return Observe(route) if route.cache.mode is CacheMode.OBSERVE else Lookup(route)


def obstacles(facts: Facts, route: Route, principal: Principal) -> Iterator[str]:
    """All reasons why such a call is not looked up; callers see the first."""
    if facts.bypass:
        yield facts.bypass
        yield from facts.further
    for need in facts.needs:
        if not _grants(route.cache, need):
            yield need
    mode = route.cache.mode
    if mode is CacheMode.OFF:
        yield Reason.ROUTE_OFF
    if principal.anonymous:
        yield Reason.NO_CREDENTIAL
    if principal.signed:
        yield Reason.UNPROVABLE_SIGNATURE
    deterministic = facts.deterministic or (facts.seeded and route.cache.trust_seed)
    if mode is CacheMode.DETERMINISTIC and facts.bypass not in _UNREAD and not deterministic:
        yield Reason.NOT_DETERMINISTIC


def _grants(rule: CacheRule, need: str) -> bool:
    """Whether a route allows what a call needs; a need that is not known here is granted by no route."""
    match need:
        case Reason.CUSTOM_MODEL:
            return rule.custom_models
        case Reason.URL_SOURCE:
            return rule.urls == "unsigned"
        case _:
            return False


class Freshness(Struct, frozen=True, gc=False):
    """
    How long an answer serves, seconds: *ttl* while it is fresh; then *while_revalidate* more while a new one is
    fetched, and *if_error* more if no new one can be had (RFC 5861).
    """

    ttl: float
    while_revalidate: float = 0.0
    if_error: float = 0.0


class Serve(Struct, frozen=True, gc=False):
    """The entry answers the call. *age* and *ttl* (what is left, below 0 when stale) in whole seconds."""

    entry: Entry
    age: int
    ttl: int


class Refresh(Struct, frozen=True, gc=False):
    """The entry answers the call, and a newer answer is to be fetched meanwhile."""

    serve: Serve


class Absent(Struct, frozen=True, gc=False):
    """There is no entry that may be served."""


ABSENT = Absent()


def judge(
    entry: Entry | None, asked: Directives, fresh: Freshness, now: float, draw: float = 1.0
) -> Serve | Refresh | Absent:
    """
    Whether a stored entry may be served at *now* to a call whose own answer would be *fresh* for so long.

    Where stale answers may serve, an entry that is still fresh is refreshed early, with a likelihood that grows towards
    its end, and earlier the longer its fetch took. *draw* is uniform in (0, 1] (Vattani, Chierichetti, Lowenstein:
    Optimal probabilistic cache stampede prevention, VLDB 2015, with beta 1).
    """
    if entry is None or asked.no_cache:
        return ABSENT
    age = max(now - entry.at, 0.0)  # a clock that was set back makes no entry younger than new
    left = min(entry.ttl, fresh.ttl) - age
    age += entry.age
    if left <= 0 and (
        entry.strict or -left >= fresh.while_revalidate or (asked is not NOTHING_ASKED and not _takes_stale(asked))
    ):
        return ABSENT
    if asked is not NOTHING_ASKED and (
        (asked.max_age is not None and age > asked.max_age)
        or (asked.ttl is not None and age >= asked.ttl)
        or (asked.min_fresh is not None and left < asked.min_fresh)
    ):
        return ABSENT
    serve = Serve(entry, int(age), floor(left))
    if fresh.while_revalidate and (left <= 0 or -entry.seconds * log(draw) >= left):
        return Refresh(serve)
    return serve


def judge_stale(entry: Entry | None, asked: Directives, fresh: Freshness, now: float) -> Serve | None:
    """Whether a stored entry may be served at *now* because no new answer can be had."""
    if entry is None or not _takes_stale(asked):
        return None
    age = max(now - entry.at, 0.0)
    left = min(entry.ttl, fresh.ttl) - age
    if -left >= (0.0 if entry.strict else fresh.if_error):
        return None
    return Serve(entry, int(age + entry.age), floor(left))


def _takes_stale(asked: Directives) -> bool:
    """A caller that limits age or freshness, or wants a new answer, takes no stale one (RFC 9111, 5.2.1)."""
    return not asked.no_cache and asked.max_age is None and asked.ttl is None and asked.min_fresh is None


def share(status: int, fields: Fields, form: Form) -> str:
    """
    Whether an answer may go to others besides its own caller, judged by its head: ``""``, or the reason why not.

    ``core/cache/allowance`` judges what the answer says about caching.
    """
    if status != 200:
        return Reason.STATUS
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        return Reason.ANSWER_ENCODED
    if form is Form.WHOLE and fields.get(b"content-type", b"").lower().startswith(b"text/html"):
        return Reason.CONTENT_TYPE
    return ""


class Keep(Struct, frozen=True, gc=False):
    """The answer is stored, and serves as long as *fresh* says."""

    fresh: Freshness


class Drop(Struct, frozen=True, gc=False):
    """The answer is not stored."""

    reason: str


def retain(endpoint: Endpoint, route: Route, asked: Directives, complete: Completeness) -> Keep | Drop:
    """Whether a shareable answer that has come to its end, and is so *complete*, is stored, and for how long."""
    if complete is not Completeness.WHOLE:
        return Drop(complete)
    fresh = freshness(endpoint, route, asked)
    return Keep(fresh) if fresh.ttl > 0 else Drop(Reason.NO_STORE)


def freshness(endpoint: Endpoint, route: Route, asked: Directives) -> Freshness:
    """How long an answer serves: as the route says, otherwise by kind of endpoint; the caller may only shorten it."""
    rule = route.cache
    ttl = rule.ttl if rule.ttl is not None else DEFAULT_TTL.get(endpoint.kind, OTHER_TTL)
    if asked.ttl is not None:
        return Freshness(min(ttl, asked.ttl))
    return Freshness(ttl, rule.stale_while_revalidate, rule.stale_if_error)


FAILING = frozenset({429, 500, 502, 503, 504, 529})
"""Statuses that mean that no answer can be had now: then a stale entry serves, where the route allows it."""


def form_of(fields: Fields) -> Form:
    """The form of an answer's body, by its content type."""
    return Form.EVENTS if fields.get(b"content-type", b"").lower().startswith(b"text/event-stream") else Form.WHOLE


def media_of(pairs: Pairs) -> str:
    """The media type of an answer, in lower case and without parameters; ``""`` where it has none."""
    for name, value in pairs:
        if name.lower() == b"content-type":
            return value.partition(b";")[0].strip().lower().decode("latin-1")
    return ""


class Audience(StrEnum):
    """To which waiting callers an error goes, besides the caller whose call got it."""

    EVERYONE = "everyone"
    SAME_QUESTION = "same-question"
    SAME_CREDENTIAL = "same-credential"
    SAME_BOTH = "same-both"


def audience(status: int) -> Audience:
    """
    For whom an answer's status holds. An error of the service itself holds for everybody. A refusal may be about
    something outside the key (a service tier, a stream), so it holds only for callers with exactly the same request.
    Rights and quotas belong to the credential. Any other status may be either, so it holds only for callers with the
    same request and credential.
    """
    if status >= 500 or status in {200, 405}:
        return Audience.EVERYONE
    if status in {400, 413, 415, 422}:
        return Audience.SAME_QUESTION
    return Audience.SAME_CREDENTIAL if status < 400 or status in {401, 402, 403, 429} else Audience.SAME_BOTH
