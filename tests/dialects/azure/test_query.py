"""Queries of Azure's AI services: what of them counts, and what decides."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.dialects.azure.query import canonical, items, values

ARRANGE = canonical("features", "queryFields")
MEMBERS = st.lists(
    st.tuples(st.sampled_from(["pages", "locale", "api-version", "made up", "Pages"]), st.text("a1,-% +", max_size=4)),
    max_size=5,
)


def written(members, escape=quote):
    return "&".join(f"{escape(name)}={escape(value)}" for name, value in members).encode()


@given(MEMBERS, st.randoms())
def test_order_of_members(members, random):
    """It has no meaning, but among members of one name."""
    names = sorted({name.lower() for name, _ in members})
    random.shuffle(names)
    shuffled = [member for name in names for member in members if member[0].lower() == name]

    assert ARRANGE(written(members)) == ARRANGE(written(shuffled))


@given(MEMBERS, MEMBERS)
def test_values(members, others):
    """Any other value is another question, and so is another order of values of one member."""
    grouped, other = ([*sorted(each, key=lambda member: member[0].lower())] for each in (members, others))

    assert (grouped == other) == (ARRANGE(written(members)) == ARRANGE(written(others)))


@given(st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=4), st.randoms())
def test_lists_without_an_order(features, random):
    """However such a list is written, it is that set; its order, or whether something stands there twice, is none."""
    shuffled = [*features, *features[:1]]
    random.shuffle(shuffled)
    cut = random.randint(0, len(shuffled))
    spelled = [
        "features=" + ",".join(shuffled),
        "features=" + "%2c".join(shuffled),
        "&pages=1&".join(f"features={','.join(part)}" for part in (shuffled[:cut], shuffled[cut:]) if part),
    ]
    expected = ARRANGE(b"features=" + ",".join(features).encode())

    assert [expected, expected] == [ARRANGE(text.encode()) for text in spelled[:2]]
    assert expected == ARRANGE(spelled[2].encode().replace(b"&pages=1", b""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"features=a,b&x=1", b"x=1&features=b&features=a"),
        (b"pages=1%2D2", b"pages=1-2"),
        (b"pages=1,2", b"pages=1%2c2"),
        (b"a=%c3%a9", b"a=%C3%A9"),
        (b"a=\xc3\xa9", b"a=%C3%A9"),
        (b"%61pi-version=1", b"api-version=1"),
        (b"a=1&&b=2&", b"b=2&a=1"),
        (b"", b"&"),
    ],
)
def test_one_question(one, other):
    """Two ways to write the same."""
    assert ARRANGE(one) == ARRANGE(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"features=a", b"features=b"),
        (b"features=a", b"features=A"),
        (b"features=", b""),
        (b"features", b"features="),
        (b"features=a", b"Features=a"),
        (b"features=a", b"queryFields=a"),
        (b"features=a,b", b"features=ab"),
        (b"pages=1,2", b"pages=2,1"),
        (b"pages=1&pages=2", b"pages=2&pages=1"),
        (b"pages=1&Pages=2", b"Pages=2&pages=1"),
        (b"a=b+c", b"a=b%2Bc"),
        (b"a=b+c", b"a=b%20c"),
        (b"a=%zz", b"a=%25zz"),
        (b"a=b%26c=d", b"a=b&c=d"),
        (b"a=b=c", b"a=b%26c"),
        (b"a%3Db=c", b"a=b=c"),
        (b"a=1", b"a=1&a=1"),
    ],
)
def test_two_questions(one, other):
    """What a service may read in two ways counts as it is written."""
    assert ARRANGE(one) != ARRANGE(other)


@given(st.binary(max_size=40))
def test_any_bytes(query):
    """Arranged once is arranged; nothing raises."""
    assert ARRANGE(query) == ARRANGE(ARRANGE(query))


def test_what_decides():
    """Names in any case, values decoded, empty ones left out."""
    query = b"Output=pdf%2Cfigures&output=&OUTPUT=+&other=x"

    assert ["pdf,figures", " "] == values(query, "output")
    assert ["pdf", "figures"] == items(query, "output")
