"""Which regions may take a call, and in which order."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.region.ordering import Candidate, arrange, eligible
from sidecar.core.rules import AzureIdentity, Region, StoredCredential

KEY = StoredCredential("api-key", "key")
ANYWHERE = frozenset()


def region(name, **members):
    return Region(name, f"https://{name}.example", **members)


def candidates(*regions):
    return tuple(Candidate(region, own=False) for region in regions)


def names(arranged):
    return [candidate.region.name for candidate in arranged]


def order(group, draws, *, balance="weight", latency=lambda _: None):
    return names(arrange(group, balance=balance, draws=draws, latency=latency))


@pytest.mark.parametrize(
    ("regions", "allow", "expected"),
    [
        pytest.param([], (), [], id="none"),
        pytest.param([region("a", credential_domain="x")], (), [("a", True)], id="one"),
        pytest.param(
            [region("a", credential_domain="x"), region("b", credential_domain="x")],
            (),
            [("a", True), ("b", True)],
            id="one domain",
        ),
        pytest.param(
            [region("a", credential_domain="x"), region("b", credential_domain="y")],
            (),
            [("a", True)],
            id="two domains",
        ),
        pytest.param(
            [region("a", credential_domain="x", priority=2), region("b", credential_domain="y")],
            (),
            [("b", True)],
            id="the first by priority",
        ),
        pytest.param(
            [
                region("a", credential_domain="x"),
                region("b", credential_domain="y"),
                region("c", credential_domain="x"),
            ],
            (),
            [("a", True), ("c", True)],
            id="the first as listed",
        ),
        pytest.param(
            [region("a", credential=KEY, credential_domain="x"), region("b", credential_domain="y", priority=2)],
            (),
            [("a", False), ("b", True)],
            id="a stored credential sets no domain",
        ),
        pytest.param(
            [region("a", credential_domain="x"), region("b", credential=AzureIdentity("managed"))],
            (),
            [("a", True), ("b", False)],
            id="a stored credential is asked in any domain",
        ),
        pytest.param(
            [region("a", residency="us"), region("b", residency="eu"), region("c")],
            ("eu",),
            [("b", True)],
            id="residency",
        ),
        pytest.param(
            [region("a", residency="us"), region("b", residency="eu")],
            ("eu", "us"),
            [("a", True), ("b", True)],
            id="two tags",
        ),
        pytest.param([region("a", residency="us")], ("eu",), [], id="nobody there"),
        pytest.param(
            [region("a", residency="us", credential_domain="x"), region("b", residency="eu", credential_domain="y")],
            ("eu",),
            [],
            id="residency doesn't move a credential",
        ),
        pytest.param(
            [
                region("a", residency="us", credential_domain="x"),
                region("b", residency="eu", credential_domain="y"),
                region("c", residency="eu", credential=KEY),
            ],
            ("eu",),
            [("c", False)],
            id="but another may be asked with its own",
        ),
    ],
)
def test_eligible(regions, allow, expected):
    """Residency, and one domain for the caller's own credential."""
    found = eligible(regions, frozenset(allow))

    assert expected == [(candidate.region.name, candidate.own) for candidate in found]


REGIONS = st.lists(
    st.builds(
        Region,
        name=st.uuids().map(str),
        url=st.just("https://a"),
        priority=st.integers(1, 3),
        weight=st.integers(0, 3),
        residency=st.sampled_from(["", "eu", "us"]),
        credential_domain=st.sampled_from(["x", "y", "z"]),
        credential=st.sampled_from([None, KEY]),
    ),
    max_size=6,
)


@given(REGIONS, st.frozensets(st.sampled_from(["eu", "us"])))
def test_a_callers_credential_stays_at_home(regions, allow):
    """All regions that see it are of one domain, the same for every route; a stored credential goes nowhere else."""
    own = {candidate.region.credential_domain for candidate in eligible(regions, allow) if candidate.own}
    anywhere = {candidate.region.credential_domain for candidate in eligible(regions, ANYWHERE) if candidate.own}

    assert own <= anywhere
    assert len(anywhere) <= 1
    assert all(candidate.own == (candidate.region.credential is None) for candidate in eligible(regions, allow))


@given(REGIONS, st.sampled_from(["weight", "latency"]), st.data())
def test_nobody_is_lost(regions, balance, data):
    """Each candidate once, priorities ascending, those of weight 0 last in theirs."""
    group = candidates(*regions)
    draws = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=len(group), max_size=len(group)))
    seconds = {region.name: data.draw(st.none() | st.floats(0, 9)) for region in regions}
    found = arrange(group, balance=balance, draws=draws, latency=lambda region: seconds[region.name])

    assert Counter(names(group)) == Counter(names(found))

    places = [(candidate.region.priority, candidate.region.weight == 0) for candidate in found]

    assert sorted(places) == places


def spread(number, dimensions):
    """Points that fill the unit cube evenly (the Kronecker sequence of square roots of primes)."""
    steps = [prime**0.5 for prime in (2, 3, 5)[:dimensions]]
    return [[number * step % 1.0 for step in steps] for number in range(1, number + 1)]


def test_weights_share():
    """In the long run the first place is shared by weight, and so is the second among those who are left."""
    group = candidates(region("a", weight=5), region("b", weight=3), region("c", weight=2))
    orders = [order(group, draws) for draws in spread(4000, 3)]
    first = Counter(names[0] for names in orders)
    after_a = Counter(names[1] for names in orders if names[0] == "a")

    assert [0.5, 0.3, 0.2] == pytest.approx([first[name] / 4000 for name in "abc"], abs=0.01)
    assert [0.6, 0.4] == pytest.approx([after_a[name] / first["a"] for name in "bc"], abs=0.02)


def test_priorities_before_weights():
    """A region of the next priority is never first, however heavy."""
    group = candidates(region("spare", priority=2, weight=100), region("a"), region("off", weight=0))

    assert {("a", "off", "spare")} == {tuple(order(group, draws)) for draws in spread(200, 3)}


def test_weight_0_among_its_like():
    """Where nobody has a weight, all are alike."""
    group = candidates(region("a", weight=0), region("b", weight=0))
    first = Counter(order(group, draws)[0] for draws in spread(1000, 2))

    assert 500 == pytest.approx(first["a"], abs=15)


@pytest.mark.parametrize("group", [(), candidates(region("a"))], ids=["none", "one"])
def test_nothing_to_arrange(group):
    """One candidate is returned as it is, whatever was drawn."""

    assert group is arrange(group, balance="latency", draws=(), latency=lambda _: 1.0)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"a": 1.0, "b": 2.0, "c": 0.1}, ["a", "b", "c"]),
        ({"a": 2.0, "b": 1.0, "c": 0.1}, ["b", "a", "c"]),
        ({"a": 1.0, "b": 1.0}, ["a", "b", "c"]),
        ({"a": 1.0}, ["b", "a", "c"]),
        ({"b": 1.0}, ["a", "b", "c"]),
        ({}, ["a", "b", "c"]),
    ],
)
def test_power_of_two_choices(seconds, expected):
    """The quicker of the first two drawn goes first; who is not known is found out. Only the first place is settled."""
    group = candidates(region("c"), region("b"), region("a"))

    assert expected == order(group, (0.9, 0.5, 0.1), balance="latency", latency=lambda region: seconds.get(region.name))
    assert ["a", "b", "c"] == order(group, (0.9, 0.5, 0.1), latency=lambda region: seconds.get(region.name))


def test_latency_inside_a_priority():
    """A quick region of the next priority, or without weight, stays where it is; each priority is settled by itself."""
    group = candidates(
        region("slow"), region("off", weight=0), region("spare", priority=2), region("quick", priority=2)
    )
    seconds = {"slow": 9.0, "off": 0.1, "spare": 2.0, "quick": 1.0}

    assert ["slow", "off", "quick", "spare"] == order(
        group, (0.1, 0.1, 0.1, 0.9), balance="latency", latency=lambda region: seconds[region.name]
    )


def test_the_slower_of_two_is_never_first():
    """With two regions all calls go to the quicker one; with three, the slowest is never first."""
    seconds = {"a": 3.0, "b": 2.0, "c": 1.0}
    group = candidates(region("a"), region("b"), region("c"))
    first = Counter(
        order(group, draws, balance="latency", latency=lambda region: seconds[region.name])[0]
        for draws in spread(3000, 3)
    )

    assert {"b", "c"} == set(first)
    assert 2000 == pytest.approx(first["c"], abs=40)


def test_one_draw_for_each():
    """Too few draws would lose a candidate: that is refused."""
    with pytest.raises(ValueError, match="shorter"):
        order(candidates(region("a"), region("b")), (0.5,))
