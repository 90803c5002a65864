"""What calls have changed at a service, and which answers that makes out of date."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sidecar.core.cache.changes import Changes, target_of
from sidecar.core.model import Entry, Form
from sidecar.core.rules import Match, Region, Route, Rules, Service
from sidecar.core.site.recognise import recognise
from sidecar.dialects import DIALECTS

ENTRY = Entry(200, (), b"", Form.WHOLE, "s", "r", "m", 100.0, 60.0, target=b"t" * 16)
OWN, OTHER = b"p" * 16, b"q" * 16


def site_of(target: bytes, *, method: bytes = b"GET", service: str = "api", dialect: str = "generic"):
    found = Service(service, DIALECTS[dialect], (Region("r", "https://r"),), path=f"/{service}")
    return recognise(Rules((found,), (Route("all", Match()),)), 0, b"", method, f"/{service}".encode() + target)


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"PATCH", b"DELETE", b"POST"])
def test_one_target(method):
    """Every method has the same target; keys in its query don't count, all else does as it is written."""
    expected = target_of(site_of(b"/items/1?a=1&b=2"), OWN)

    assert 16 == len(expected)
    assert expected == target_of(site_of(b"/items/1?a=1&b=2", method=method), OWN)
    assert expected == target_of(site_of(b"/items/1?a=1&key=secret&b=2", method=method), OWN)
    assert expected != target_of(site_of(b"/items/1?b=2&a=1", method=method), OWN)


@pytest.mark.parametrize(
    "other",
    [
        target_of(site_of(b"/items/1?a=1"), OTHER),
        target_of(site_of(b"/items/1?a=2"), OWN),
        target_of(site_of(b"/items/1"), OWN),
        target_of(site_of(b"/items/2?a=1"), OWN),
        target_of(site_of(b"/items//1?a=1"), OWN),
        target_of(site_of(b"/items/1?a=1", service="ipa"), OWN),
    ],
    ids=["partition", "query", "no query", "path", "slashes", "service"],
)
def test_another_target(other):
    """Partition, service, path and query tell targets apart."""

    assert other != target_of(site_of(b"/items/1?a=1"), OWN)


def test_no_target():
    """Of a service whose methods mean something else, nothing is known to be changed."""

    assert b"" == target_of(site_of(b"/v1/files", dialect="openai"), OWN)


@pytest.mark.parametrize(("at", "expected"), [(99.0, False), (100.0, False), (100.5, True)])
def test_allows(at, expected):
    """An answer serves that is younger than the last change of its target; one without a target always does."""
    changes = Changes()
    assert changes.allows(ENTRY)

    changes.note(ENTRY.target, 50.0)
    changes.note(ENTRY.target, 100.0)

    assert expected == changes.allows(replace(ENTRY, at=at))
    assert changes.allows(replace(ENTRY, at=at, target=b"u" * 16))
    assert changes.allows(replace(ENTRY, at=0.0, target=b""))


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(1, 1000)), max_size=40), st.integers(0, 9), st.floats(0, 1000))
def test_no_change_is_forgotten(changed, target, at):
    """For lack of room a change becomes one of everything, never none."""
    changes = Changes(most=3)
    last = {}
    for number, when in changed:
        changes.note(bytes([number]) * 16, when)
        last[number] = when

    if at <= last.get(target, 0.0):
        assert not changes.allows(replace(ENTRY, at=at, target=bytes([target]) * 16))
