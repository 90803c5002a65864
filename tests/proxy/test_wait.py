"""By which of two calls a caller goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sidecar.proxy.wait import settled


def reader(state="", *, owner=False, released=False):
    """A caller's place in a flight that is open with a status, has failed, or is neither."""
    opening = SimpleNamespace(status=int(state)) if state.isdigit() else None
    error = ValueError() if state == "error" else None
    return SimpleNamespace(flight=SimpleNamespace(opening=opening, error=error), owner=owner, released=released)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", None, None), ("200", None, 0), ("500", None, 0), ("error", None, 0),
        ("", "", None), ("200", "", 0), ("", "200", 1), ("200", "200", 0), ("", "400", None), ("", "401", None),
        ("400", "", 0), ("401", "", 0), ("error", "400", 1), ("400", "200", 0),
        ("500", "", None), ("", "500", None), ("error", "", None), ("", "error", None), ("", "429", None),
        ("500", "200", 1), ("error", "200", 1), ("200", "error", 0),
        ("500", "503", 0), ("error", "500", 1), ("500", "error", 0), ("error", "error", 0),
    ],
)  # fmt: skip
def test_settled(first, second, expected):
    """A good answer counts at once, a bad one when no better one can come; the first call's goes first."""
    readers = [reader(first)] + ([] if second is None else [reader(second)])
    found = settled(readers)

    assert (None if expected is None else readers[expected]) is found


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        ([reader("200", released=True)], 0),
        ([reader("200", released=True), reader("")], 0),
        ([reader(""), reader("200", released=True)], 1),
        ([reader("", owner=True), reader("200", released=True)], None),
        ([reader("200", released=True), reader("", owner=True)], None),
        ([reader("200", owner=True), reader("200", released=True)], 0),
        ([reader("error", owner=True), reader("200", released=True)], 0),
        ([reader("200", released=True), reader("500", owner=True)], 1),
    ],
)
def test_not_for_this_caller(readers, expected):
    """An answer that isn't for a caller sends it its own way, unless a call of its own is under way."""
    found = settled(readers)

    assert (None if expected is None else readers[expected]) is found
