"""What callers and services say about caching, as it is read."""

from email.utils import formatdate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.http.directives import (
    LONGEST,
    MOST_VARIED,
    NOTHING_ASKED,
    NOTHING_SAID,
    CacheDirectives,
    Directives,
    parse,
    read_directives,
    read_said,
)
from sidecar.core.model import MOST_TAGS

NOW = 1_800_000_000.0


def date(seconds):
    """An HTTP date, so many seconds from now."""
    return formatdate(NOW + seconds, usegmt=True).encode()


# ---- the parser ----


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", []),
        (b" , ,\t,", []),
        (b"no-store", [("no-store", None)]),
        (b"No-Store ,\tNO-CACHE", [("no-store", None), ("no-cache", None)]),
        (b"max-age=60", [("max-age", "60")]),
        (b"max-age = 60 ", [("max-age", "60")]),
        (b'max-age="60"', [("max-age", "60")]),
        (b"max-age=", [("max-age", "")]),
        (b"=60", []),
        (b"a=b=c", [("a", "b=c")]),
        (b'private="Set-Cookie, X-A", max-age=1', [("private", "Set-Cookie, X-A"), ("max-age", "1")]),
        (b'x="a\\", no-store", public', [("x", 'a\\", no-store'), ("public", None)]),
        (b'x="no-store', [("x", "no-store")]),
        (b'x="a, no-store', [("x", "a"), ("no-store", None)]),
        (b'x="a" y, no-store', [("x", '"a" y'), ("no-store", None)]),
        (b"\\, no-store", [("\\", None), ("no-store", None)]),
        (b"\xff=\xe9", [("\xff", "\xe9")]),
    ],
)
def test_parse(value, expected):
    """Names are in lower case and arguments out of their quotes; an open quote hides nothing."""

    assert expected == parse(value)


@given(st.binary(max_size=200))
def test_parse_hides_no_directive(value):
    """Whatever stands before it, a directive after a comma is seen unless a closed quote holds it."""
    names = [name for name, _ in parse(value.replace(b'"', b"") + b", no-store")]

    assert "no-store" == names[-1]


def test_parse_takes_its_time_once():
    """A value full of quotes and escapes is read in one pass."""
    value = b'\\"' * 30_000

    assert [("\\" * 30_000, None)] == parse(value)


# ---- requests ----


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Directives()),
        ({b"cache-control": b""}, Directives()),
        ({b"cache-control": b"no-cache"}, Directives(no_cache=True)),
        ({b"cache-control": b" No-Store ,\tNO-CACHE"}, Directives(no_cache=True, no_store=True)),
        ({b"cache-control": b"only-if-cached, max-age=60"}, Directives(only_if_cached=True, max_age=60.0)),
        ({b"cache-control": b'max-age="60"'}, Directives(max_age=60.0)),
        ({b"cache-control": b"max-age=0"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age=0000000000000060"}, Directives(max_age=60.0)),
        ({b"cache-control": b"max-age=" + b"9" * 400}, Directives(max_age=LONGEST)),
        ({b"cache-control": b"max-age=60, max-age=30, max-age=90"}, Directives(max_age=30.0)),
        ({b"cache-control": b"max-age=60, max-age=x"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age="}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age=-1"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age=1.5"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age=\xb2"}, Directives(max_age=0.0)),
        ({b"cache-control": b"max-age='60'"}, Directives(max_age=0.0)),
        ({b"cache-control": b"min-fresh=30"}, Directives(min_fresh=30.0)),
        ({b"cache-control": b"min-fresh=30, min-fresh=60, min-fresh=0"}, Directives(min_fresh=60.0)),
        ({b"cache-control": b"min-fresh"}, Directives(min_fresh=inf)),
        ({b"cache-control": b"min-fresh=-1"}, Directives(min_fresh=inf)),
        ({b"cache-control": b"max-stale, max-stale=60"}, Directives()),
        ({b"cache-control": b"no-cachex, xno-store, =, ,;"}, Directives()),
        ({b"cache-control": b'no-cache="set-cookie"'}, Directives(no_cache=True)),
        ({b"cache-control": b'x="no-store, no-cache"'}, Directives()),
        ({b"pragma": b"no-cache"}, Directives(no_cache=True)),
        ({b"pragma": b"X=1, NO-CACHE"}, Directives(no_cache=True)),
        ({b"pragma": b"no-store, only-if-cached, max-age=0, min-fresh=9"}, Directives()),
        ({b"pragma": b"no-cache", b"cache-control": b""}, Directives()),
        ({b"pragma": b"no-cache", b"cache-control": b"max-age=60"}, Directives(max_age=60.0)),
        ({b"x-sidecar-ttl": b"90"}, Directives(ttl=90.0)),
        ({b"x-sidecar-ttl": b" 1.5h "}, Directives(ttl=5400.0)),
        ({b"x-sidecar-ttl": b"250ms"}, Directives(ttl=0.25)),
        ({b"x-sidecar-ttl": b"2d"}, Directives(ttl=172_800.0)),
        ({b"x-sidecar-ttl": b"15m"}, Directives(ttl=900.0)),
        ({b"x-sidecar-ttl": b"0"}, Directives(ttl=0.0)),
        ({b"x-sidecar-ttl": b"soon"}, Directives(ttl=0.0)),
        ({b"x-sidecar-ttl": b""}, Directives(ttl=0.0)),
        ({b"x-sidecar-ttl": b"-1"}, Directives(ttl=0.0)),
        ({b"x-sidecar-ttl": b"60, 60"}, Directives(ttl=0.0)),
        ({b"x-sidecar-ttl": b"1e9"}, Directives(ttl=0.0)),
        ({b"x-sidecar-tags": b"a, b/c:d.e@f-g,,c d,\xe9," + b"x" * 65}, Directives(tags=("a", "b/c:d.e@f-g"))),
        ({b"x-sidecar-tags": b",".join(b"%d" % n for n in range(32))}, Directives(tags=tuple(map(str, range(32))))),
        (
            {b"x-sidecar-tags": b",".join(b"%d" % (n % 32) for n in range(99))},
            Directives(tags=tuple(map(str, range(32)))),
        ),
        ({b"x-sidecar-tags": b",".join(b"%d" % n for n in range(33))}, Directives(no_store=True)),
    ],
    ids=repr,
)
def test_read_directives(fields, expected):
    """Of what is said twice the more restrictive counts; an age or a TTL that cannot be read is the shortest."""

    assert expected == read_directives(fields)


@given(
    st.dictionaries(
        st.sampled_from([b"cache-control", b"pragma", b"x-sidecar-ttl", b"x-sidecar-tags"]),
        st.one_of(st.binary(), st.from_regex(rb"(max-age|min-fresh|no-cache)=?.{0,9}", fullmatch=True)),
    )
)
def test_read_directives_of_anything(fields):
    """Nothing that a caller sends breaks it."""
    asked = read_directives(fields)

    assert asked.ttl is None or asked.ttl >= 0
    assert (asked.ttl is None) == (b"x-sidecar-ttl" not in fields)
    assert asked.max_age is None or 0 <= asked.max_age <= LONGEST
    assert asked.min_fresh is None or asked.min_fresh >= 0
    assert len(asked.tags) <= MOST_TAGS


def test_nothing_asked():
    """A call without wishes costs nothing: it shares one value."""

    assert NOTHING_ASKED is read_directives({b"user-agent": b"x"})


# ---- answers ----


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (b"", CacheDirectives()),
        (b"public, immutable, x-y=1, stale-if-error=9", CacheDirectives()),
        (b"no-store", CacheDirectives(no_store=True)),
        (b"NO-STORE", CacheDirectives(no_store=True)),
        (b"no-store=1", CacheDirectives(no_store=True)),
        (b"must-understand, no-store", CacheDirectives(no_store=True)),
        (b'x="a, b", no-store', CacheDirectives(no_store=True)),
        (b'x="no-store"', CacheDirectives()),
        (b"private", CacheDirectives(private=True)),
        (b'private="set-cookie"', CacheDirectives(private=True)),
        (b"private, public", CacheDirectives(private=True)),
        (b"no-cache", CacheDirectives(no_cache=True)),
        (b'no-cache="set-cookie"', CacheDirectives()),
        (b'no-cache="set-cookie, x-a"', CacheDirectives()),
        (b'no-cache="Set-Cookie, Content-Type"', CacheDirectives(no_cache=True)),
        (b'no-cache=""', CacheDirectives(no_cache=True)),
        (b'no-cache="set-cookie", no-cache', CacheDirectives(no_cache=True)),
        (b"must-revalidate", CacheDirectives(strict=True)),
        (b"proxy-revalidate", CacheDirectives(strict=True)),
        (b"max-age=60", CacheDirectives(lifetime=60.0)),
        (b'MAX-AGE="60"', CacheDirectives(lifetime=60.0)),
        (b"max-age=0", CacheDirectives(lifetime=0.0)),
        (b"max-age=-1", CacheDirectives(lifetime=0.0)),
        (b"max-age=1.5", CacheDirectives(lifetime=0.0)),
        (b"max-age=60s", CacheDirectives(lifetime=0.0)),
        (b"max-age", CacheDirectives(lifetime=0.0)),
        (b"max-age=60, max-age=30", CacheDirectives(lifetime=30.0)),
        (b"max-age=60, max-age=30, max-age=x", CacheDirectives(lifetime=0.0)),
        (b"max-age=" + b"9" * 99, CacheDirectives(lifetime=LONGEST)),
        (b"max-age=60, s-maxage=600", CacheDirectives(lifetime=600.0, strict=True)),
        (b"s-maxage=6, max-age=60", CacheDirectives(lifetime=6.0, strict=True)),
        (b"s-maxage=600, s-maxage=6", CacheDirectives(lifetime=6.0, strict=True)),
        (b"s-maxage=x, max-age=60", CacheDirectives(lifetime=0.0, strict=True)),
        (b"private, s-maxage=600, max-age=60", CacheDirectives(private=True, lifetime=60.0)),
        (b"private, s-maxage=600", CacheDirectives(private=True)),
    ],
    ids=repr,
)
def test_read_said(control, expected):
    """What ``Cache-Control`` of an answer says: the most restrictive reading of it."""

    assert expected == read_said({b"cache-control": control}, NOW)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b"expires": date(60)}, 60.0),
        ({b"expires": date(60), b"date": date(10)}, 50.0),
        ({b"expires": date(60), b"date": date(-1e7)}, 1e7 + 60),
        ({b"expires": date(60), b"date": b"yesterday"}, 60.0),
        ({b"expires": date(-60)}, 0.0),
        ({b"expires": date(60), b"date": date(60)}, 0.0),
        ({b"expires": b"0"}, 0.0),
        ({b"expires": b"-1"}, 0.0),
        ({b"expires": b""}, 0.0),
        ({b"expires": b"Thu, 99 Foo 2094 16:00:00 GMT"}, 0.0),
        ({b"expires": date(60) + b", " + date(90)}, 0.0),
        ({b"expires": b"Friday, 15-Jan-27 08:01:00 GMT"}, 60.0),
        ({b"expires": b"Fri Jan 15 08:01:00 2027"}, 60.0),
        ({b"expires": date(60), b"cache-control": b"max-age=5"}, 5.0),
        ({b"expires": date(-60), b"cache-control": b"max-age=5"}, 5.0),
        ({b"expires": date(60), b"cache-control": b"s-maxage=5"}, 5.0),
        ({b"expires": date(60), b"cache-control": b"private, s-maxage=5"}, 60.0),
        ({b"expires": date(60), b"age": b"10"}, 50.0),
        ({b"date": date(-9)}, None),
    ],
    ids=repr,
)
def test_expires(fields, expected):
    """``Expires`` counts from the answer's ``Date``; ``max-age`` beats it, and what is no date is in the past."""

    assert expected == read_said(fields, NOW).lifetime


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (b"0", 0.0),
        (b"7", 7.0),
        (b" 7 ", 7.0),
        (b"007", 7.0),
        (b"7, 70", 7.0),
        (b"7, x", 7.0),
        (b"x, 7", 0.0),
        (b"-7", 0.0),
        (b"7.0", 0.0),
        (b"a7", 0.0),
        (b"7a", 0.0),
        (b"", 0.0),
        (b"9" * 99, LONGEST),
    ],
    ids=repr,
)
def test_age(age, expected):
    """The first value counts; one that is no age does not (cache-tests ``age-parse``)."""
    said = read_said({b"age": age, b"cache-control": b"max-age=60"}, NOW)

    assert (expected, max(60.0 - expected, 0.0)) == (said.age, said.lifetime)


@pytest.mark.parametrize(
    ("vary", "expected"),
    [
        (b"", ()),
        (b", ,", ()),
        (b"Accept-Encoding", ()),
        (b"accept-encoding, Cache-Control, Pragma, X-Sidecar-TTL", ()),
        (b"Origin", (b"origin",)),
        (b" X-Origin,Origin , ORIGIN, Referer", (b"origin", b"referer", b"x-origin")),
        (b"*", (b"*",)),
        (b"Origin, *, Accept-Encoding", (b"*",)),
        (b", *", (b"*",)),
        (b"Authorization", (b"authorization",)),
        (b",".join(b"x-%d" % n for n in range(MOST_VARIED + 1)), (b"*",)),
    ],
    ids=repr,
)
def test_vary(vary, expected):
    """The fields that a request of ours may differ in, once each (cache-tests ``vary-parse``)."""

    assert expected == read_said({b"vary": vary}, NOW).vary


@given(
    st.dictionaries(
        st.sampled_from([b"cache-control", b"expires", b"date", b"age", b"vary"]),
        st.one_of(st.binary(), st.from_regex(rb'(s-maxage|max-age|no-cache)=?"?.{0,9}', fullmatch=True)),
    ),
    st.floats(0, 1e10),
)
def test_read_said_of_anything(fields, now):
    """Nothing that a service sends breaks it, nor makes a time less than nothing."""
    said = read_said(fields, now)

    assert said.lifetime is None or said.lifetime >= 0
    assert 0 <= said.age <= LONGEST
    assert len(said.vary) <= MOST_VARIED


def test_nothing_said():
    """An answer that says nothing of caching costs nothing: it shares one value."""

    assert NOTHING_SAID is read_said({b"content-type": b"x", b"date": date(0), b"pragma": b"no-cache"}, NOW)
