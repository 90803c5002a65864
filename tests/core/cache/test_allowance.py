"""Who may have an answer beside its own caller, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.cache.allowance import UNBOUND, Allowance, allowance, bounded
from sidecar.core.cache.policy import Freshness
from sidecar.core.http.directives import LONGEST
from sidecar.core.rules import CacheRule

NOW = 1_800_000_000.0
ROUTE = Freshness(3600.0, 60.0, 600.0)


def allowed(control: bytes = b"", *, directives=None, honours=True, shared=False, **fields: bytes) -> Allowance:
    found = {name.encode(): value for name, value in fields.items()}
    if control:
        found[b"cache-control"] = control
    return allowance(found, CacheRule(directives=directives), honours=honours, shared=shared, now=NOW)


@pytest.mark.parametrize(
    ("control", "own", "shared"),
    [
        (b"", "", ""),
        (b"public", "", ""),
        (b"max-age=60", "", ""),
        (b"no-store", "no-store", "no-store"),
        (b"no-store, private", "no-store", "no-store"),
        (b"no-store, max-age=60", "no-store", "no-store"),
        (b"no-cache", "no-cache", "no-cache"),
        (b"no-cache, max-age=60", "no-cache", "no-cache"),
        (b'no-cache="set-cookie"', "", ""),
        (b"max-age=0", "expired", "expired"),
        (b"max-age=x", "expired", "expired"),
        (b"private", "", "private"),
        (b'private="x", max-age=60', "", "private"),
        (b"must-revalidate", "", ""),
    ],
)
def test_honoured(control, own, shared):
    """What a service that means it may be kept of, in the caller's own partition and in one that others read."""

    assert (own, False) == (allowed(control).reason, allowed(control).personal)
    assert (shared, shared == "private") == (
        allowed(control, shared=True).reason,
        allowed(control, shared=True).personal,
    )
    assert allowed(control) == allowed(control, honours=False, directives=True)


@pytest.mark.parametrize(
    "control", [b"no-store", b"private", b"no-cache, private", b"max-age=0, no-store", b"private=x"]
)
def test_confined(control):
    """Where a service doesn't mean it, what is its caller's own stays so, and is the route's to keep for it."""

    assert UNBOUND is allowed(control, honours=False)
    assert Allowance("private", personal=True) == allowed(control, honours=False, shared=True)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("control", [b"no-cache", b"max-age=0", b"must-revalidate, no-cache", b"s-maxage=1", b"public"])
def test_not_meant(control, shared):
    """Where a service doesn't mean it, nothing else that it says counts, nor what age it gives."""

    assert UNBOUND is allowed(control, honours=False, shared=shared, age=b"100", expires=b"0")


@pytest.mark.parametrize("honours", [False, True])
@pytest.mark.parametrize("control", [b"no-store", b"private", b"no-cache", b"max-age=0", b"s-maxage=5"])
def test_ignored(control, honours):
    """A route that ignores what answers say treats them as if they had said nothing."""

    assert UNBOUND is allowed(control, directives=False, honours=honours, shared=True, vary=b"*", age=b"9")


@pytest.mark.parametrize("honours", [False, True])
def test_vary(honours):
    """Whatever else counts, an answer is for requests like its own, and for no other where nobody knows which."""

    assert Allowance(vary=(b"origin",)) == allowed(honours=honours, vary=b"Origin, Accept-Encoding")
    assert Allowance("vary") == allowed(honours=honours, vary=b"Origin, *")
    assert Allowance("private", personal=True, vary=(b"origin",)) == allowed(
        b"private", honours=honours, shared=True, vary=b"Origin"
    )
    assert UNBOUND is allowed(honours=honours, vary=b"Accept-Encoding") or honours


@pytest.mark.parametrize(
    ("control", "fields", "expected"),
    [
        (b"", {}, ROUTE),
        (b"public", {}, ROUTE),
        (b"max-age=60", {}, Freshness(60.0, 60.0, 600.0)),
        (b"max-age=7200", {}, ROUTE),
        (b"max-age=60", {"age": b"45"}, Freshness(15.0, 60.0, 600.0)),
        (b"max-age=7200", {"age": b"45"}, ROUTE),
        (b"", {"age": b"600"}, Freshness(3000.0, 60.0, 600.0)),
        (b"public", {"age": b"600"}, Freshness(3000.0, 60.0, 600.0)),
        (b"must-revalidate", {"age": b"600"}, Freshness(3000.0)),
        (b"", {"age": b"3600"}, Freshness(0.0, 60.0, 600.0)),
        (b"", {"age": b"999999999999"}, Freshness(0.0, 60.0, 600.0)),
        (b"", {"age": b"x"}, ROUTE),
        (b"", {"age": b"600", "vary": b"origin"}, Freshness(3000.0, 60.0, 600.0)),
        (b"max-age=60, must-revalidate", {}, Freshness(60.0)),
        (b"proxy-revalidate", {}, Freshness(3600.0)),
        (b"max-age=7200, s-maxage=60", {}, Freshness(60.0)),
    ],
)
def test_lifetimes(control, fields, expected):
    """The route's time, or the answer's where that is less; some answers never serve stale."""

    assert expected == bounded(ROUTE, allowed(control, **fields), NOW)


def test_the_time_until_it_is_whole():
    """What passes until an answer is complete is part of its time."""

    assert Freshness(20.0, 60.0, 600.0) == bounded(ROUTE, allowed(b"max-age=60"), NOW + 40.0)
    assert Freshness(0.0, 60.0, 600.0) == bounded(ROUTE, allowed(b"max-age=60"), NOW + 61.0)


@given(
    control=st.one_of(
        st.binary(max_size=40),
        st.lists(
            st.sampled_from(
                [b"max-age=%d" % n for n in (0, 1, 60, 10**12)] + [b"s-maxage=5", b"must-revalidate", b"no-store"]
            )
        ).map(b", ".join),
    ),
    age=st.one_of(st.none(), st.integers(0, 10**12).map(lambda n: b"%d" % n), st.binary(max_size=5)),
    expires=st.one_of(st.none(), st.binary(max_size=40)),
    ttl=st.floats(0, 1e9),
    later=st.floats(-100, 1e6),
    honours=st.booleans(),
    shared=st.booleans(),
)
def test_bounds(control, age, expires, ttl, later, honours, shared):
    """No answer serves for longer than its route says, nor for less than no time."""
    fields = {name: value for name, value in (("age", age), ("expires", expires)) if value is not None}
    found = allowed(control, honours=honours, shared=shared, **fields)
    fresh = bounded(Freshness(ttl, 5.0, 7.0), found, NOW + later)

    assert 0 <= fresh.ttl <= ttl
    assert (fresh.while_revalidate, fresh.if_error) == ((0.0, 0.0) if found.strict else (5.0, 7.0))
    assert 0 <= found.age <= LONGEST
