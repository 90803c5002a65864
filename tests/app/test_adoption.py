"""
Whatever rules follow whatever rules: what is served is what a process started with the new rules would serve.

No sockets: heads and bodies go straight to the proxy, and entries straight into memory, as if they had been fetched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.app.adoption import Adoption
from sidecar.app.clocks import Clocks
from sidecar.app.revision import Revision
from sidecar.app.sidecar import Sidecar
from sidecar.core.model import Entry, Form, Head
from sidecar.core.rules import (
    CacheMode,
    CacheRule,
    HeaderRule,
    Listen,
    Match,
    Region,
    Route,
    Rules,
    Service,
    Share,
)
from sidecar.dialects import DIALECTS
from sidecar.net.base import Request, Response

NOW = 1_800_000_000.0
PATH = b"/openai/v1/chat/completions"
CLOCKS = Clocks(wall=lambda: NOW, running=lambda: 1000.0, pause=pytest.fail, draw=lambda: 0.5)

VENDOR, GATEWAY, OTHER = "https://api.openai.com", "https://gateway.example", "https://other.example"


def rules(*, count=(), ignore=(), identify=(), share=None, first=None, ttl=None, mode=CacheMode.ALWAYS, url=GATEWAY):
    """Rules of one service with a route for everything, and perhaps a *first* route for team a."""
    service = Service(
        "openai",
        DIALECTS["openai"],
        (Region("here", url),),
        path="/openai",
        headers=HeaderRule(frozenset(count), frozenset(ignore)),
        credential_headers=frozenset(identify),
    )
    cache = CacheRule(mode, ttl=ttl, share=share or Share())
    routes = [Route("all", cache=cache)]
    if first is not None:
        routes.insert(0, Route("first", Match(header={"x-team": "a"}), replace(cache, share=first)))
    return Rules((service,), tuple(routes), health=Listen(port=0), admin=Listen(port=0))


HEADERS = [b"x-team", b"x-unit"]
names = st.just(set()) | st.sets(st.sampled_from(HEADERS))
shares = st.sampled_from([Share(), Share("service"), Share("header", "x-team"), Share("header", "x-unit")])


MEMBERS = {
    "count": names,
    "ignore": names,
    "identify": names,
    "share": shares,
    "first": st.none() | shares,
    "ttl": st.sampled_from([None, 10.0, 1000.0]),
    "mode": st.sampled_from([CacheMode.ALWAYS, CacheMode.ALWAYS, CacheMode.DETERMINISTIC, CacheMode.OFF]),
    "url": st.sampled_from([GATEWAY, GATEWAY, OTHER, VENDOR]),
}


@st.composite
def reloads(draw) -> tuple[Rules, Rules]:
    """Two configurations, of which the second differs from the first in some members: most reloads change few."""
    before = {name: draw(values) for name, values in MEMBERS.items()}
    tell_apart = st.sampled_from(["count", "ignore", "identify"])
    changed = draw(st.sets(st.sampled_from(sorted(MEMBERS)) | tell_apart, min_size=1, max_size=3))
    after = before | {name: draw(MEMBERS[name]) for name in sorted(changed)}
    return _fit(before), _fit(after)


def _fit(members: dict[str, Any]) -> Rules:
    """A configuration says of each header one thing."""
    count, ignore, identify = (members[name] for name in ("count", "ignore", "identify"))
    return rules(**members | {"ignore": ignore - count - identify, "identify": identify - count})


GRID = [
    {b"authorization": b"Bearer " + key, **({b"x-team": team} if team else {}), **({b"x-unit": unit} if unit else {})}
    for key in (b"sk-one", b"sk-two")
    for team in (b"", b"a", b"b")
    for unit in (b"", b"a")
]
"""Every caller that these rules may tell apart."""


def process(by: Rules) -> Sidecar:
    return Sidecar(by, environ={}, write=lambda _: None, clocks=CLOCKS)


def adopt(sidecar: Sidecar, by: Rules) -> None:
    parts = sidecar._parts
    adoption = Adoption(parts, lambda _: None)
    adoption.adopt(adoption.prepare(by, ()), Revision(by, NOW))


def request(fields: dict[bytes, bytes]) -> tuple[Head, bytes]:
    body = json.dumps({"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "Box?"}]}).encode()
    whole = {b"host": b"localhost", b"content-type": b"application/json", **fields}
    return Head(b"POST", PATH, 1, tuple(whole.items()), whole, 7400), body


def call_of(sidecar: Sidecar, fields: dict[bytes, bytes]) -> Any:
    """The plan and the call of a request."""
    head, body = request(fields)
    plan = sidecar.proxy.admit(head).plan
    return plan, sidecar.proxy._lookup.call(plan, head, body, None) if plan.bypass is None else None


def store(sidecar: Sidecar, number: int, fields: dict[bytes, bytes]) -> None:
    """As if the request had been answered a minute ago: its number is the answer."""
    plan, call = call_of(sidecar, fields)
    if call is None or call.key is None:
        return
    body = b'{"choices":[{"message":{"content":"%d"}}]}' % number
    headers = ((b"content-type", b"application/json"),)
    ttl = call.fresh.ttl + 3600.0
    entry = Entry(200, headers, body, Form.WHOLE, "openai", call.route.name, "m", NOW - 60.0, ttl)
    sidecar.memory.put(call.key, entry)
    sidecar.proxy._access._accepted.note(plan.site.place, call.principal, NOW, 1000.0)


def served(sidecar: Sidecar, fields: dict[bytes, bytes]) -> bytes | None:
    """The stored answer that a request gets, by the ordinary way and by the shortest; None: it would be fetched."""
    head, body = request(fields)
    plan = sidecar.proxy.admit(head).plan
    answer = sidecar.proxy.answer(Request(head, body, plan))
    quick = sidecar.proxy.try_hit(plan, body)
    found = answer.body if isinstance(answer, Response) else None
    assert (quick.body if isinstance(quick, Response) else None) == found
    return found


def alike(by: Rules, route: Route, caller: dict[bytes, bytes], owner: dict[bytes, bytes]) -> bool:
    """
    Whether *route*, by which *caller* is served, would hold *owner* for the same, if it took the calls of both. Who
    does not send the header by which a route shares has what was fetched with the same credentials.
    """
    share = route.cache.share
    if share.kind == "header" and share.name.encode() not in caller:
        route = replace(route, cache=replace(route.cache, share=Share()))
    alone = process(replace(by, routes=(replace(route, match=Match()),)))
    return call_of(alone, caller)[1].key == call_of(alone, owner)[1].key


@settings(max_examples=300, deadline=None)
@given(reloads(), st.permutations(GRID))
@example((rules(ignore=HEADERS), rules(ignore=HEADERS[1:])), GRID)
@example((rules(count=HEADERS[1:], url=VENDOR), rules(count=HEADERS[:1], url=VENDOR)), GRID)
@example((rules(identify=HEADERS[1:], url=VENDOR), rules(identify=HEADERS[:1], url=VENDOR)), GRID)
def test_as_if_started_with_the_new_rules(reload, stored):
    """
    The same entries under the same addresses, whichever way a process came to its rules. And an entry serves only whom
    the route that the call takes now holds for the same as the caller that it was fetched for.
    """
    before, after = reload
    one = process(before)
    for number, each in enumerate(stored):
        store(one, number, each)
        served(one, each)  # so that its head and its call are known
    adopt(one, after)
    fresh = process(after)
    secret = one.proxy._lookup._secret  # as where a fleet has one
    fresh.proxy._lookup._secret = fresh.proxy._lookup.plans._secret = secret
    fresh.proxy._lookup.plans._identities._secret = secret
    fresh.proxy._access._accepted._at.update(one.proxy._access._accepted._at)
    for entries in one.memory.walk():
        for key, held in entries:
            fresh.memory.put(key, held.entry)

    for each in GRID:
        found = served(one, each)

        assert found == served(fresh, each)
        if found is not None:
            owner = stored[int(json.loads(found)["choices"][0]["message"]["content"])]
            assert alike(after, call_of(one, each)[1].route, each, owner)


def test_another_dialect():
    """The same request means something else there: nothing stored for the service serves on."""
    one = process(rules())
    store(one, 0, {b"authorization": b"Bearer sk-one"})
    other = rules()
    other = replace(other, services=(replace(other.services[0], dialect=DIALECTS["azure-openai"]),))
    adopt(one, other)

    assert 0 == one.memory.entries
