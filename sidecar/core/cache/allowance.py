"""
To whom besides its caller an answer may go, and for how long, by what the answer says about itself.

The rule: where a service's directives can be trusted, RFC 9111 holds. The AI APIs that we know send the same directive
with every answer (Groq and Cohere ``no-store``, Azure OpenAI ``no-cache``), so for them the route decides; but an
answer with ``no-store`` or ``private`` never goes to another credential. A route can change both.
"""

from __future__ import annotations

from msgspec import Struct

from sidecar.core.cache.policy import Freshness, Reason
from sidecar.core.http.directives import NOTHING_SAID, read_said
from sidecar.core.model import Fields
from sidecar.core.rules import CacheRule

NAMELESS = (b"*",)
"""``Vary`` of an answer that depends on more than the request's fields."""


class Allowance(Struct, frozen=True, gc=False):
    """
    What an answer allows. *reason*: why it is not kept, ``""`` if it may be. Then nobody else gets it, or with
    *personal* only callers with the same credential. *until*: when it stops being fresh, seconds since the epoch; None
    if it does not say. *strict*: it never serves stale. *age*: how old it was when it arrived, seconds. *vary*: the
    request fields on which it depends.
    """

    reason: str = ""
    personal: bool = False
    until: float | None = None
    strict: bool = False
    age: float = 0.0
    vary: tuple[bytes, ...] = ()


UNBOUND = Allowance()


def allowance(fields: Fields, rule: CacheRule, *, honours: bool, shared: bool, now: float) -> Allowance:
    """
    What an answer with *fields*, arriving at *now*, allows under a route's *rule*. *honours*: the dialect trusts the
    service's directives. *shared*: other principals read the caller's partition, too.
    """
    said = NOTHING_SAID if rule.directives is False else read_said(fields, now)
    if said is NOTHING_SAID:
        return UNBOUND
    honoured = honours if rule.directives is None else rule.directives
    if honoured and said.no_store:
        return Allowance(Reason.NO_STORE)
    if said.vary == NAMELESS:
        return Allowance(Reason.VARY)
    if honoured and said.no_cache:
        return Allowance(Reason.NO_CACHE)
    if honoured and said.lifetime is not None and said.lifetime <= 0:
        return Allowance(Reason.EXPIRED)
    if shared and (said.private or said.no_store):
        return Allowance(Reason.PRIVATE, personal=True, vary=said.vary)
    if not honoured:
        return Allowance(vary=said.vary) if said.vary else UNBOUND
    until = None if said.lifetime is None else now + said.lifetime
    return Allowance(until=until, strict=said.strict, age=said.age, vary=said.vary)


def bounded(fresh: Freshness, allowed: Allowance, now: float) -> Freshness:
    """
    How long an answer that is complete at *now* serves: as *fresh* says, but no longer than the answer allows. If the
    answer gives only its age, that age is taken off.
    """
    if allowed.until is None:
        left = max(fresh.ttl - allowed.age, 0.0)
    else:
        left = min(fresh.ttl, max(allowed.until - now, 0.0))
    return Freshness(left) if allowed.strict else Freshness(left, fresh.while_revalidate, fresh.if_error)
