"""A record in the making becomes the record, field by field."""

import pytest

from sidecar.core.draft import Draft, shown
from sidecar.core.model import Outcome, Record, Usage

KNOWN = {
    "request_id": b"id",
    "at": 1.5,
    "service": "s",
    "route": "r",
    "endpoint": "e",
    "method": b"POST",
    "outcome": Outcome.MISS,
    "bytes_in": 1,
    "model": "m",
    "streamed": True,
    "status": 200,
    "reason": "why",
    "region": "eu",
    "upstream_seconds": 2.5,
    "upstream_status": 201,
    "upstream_id": "u",
    "upstream_region": "West-Europe",
    "retry_causes": ("connect",),
    "attempts": 2,
    "bytes_out": 3,
    "usage": Usage(1, 2),
    "stored": True,
    "cause": "dns",
    "observed": "first",
    "finish": "abort",
    "key": b"\x01" * 16,
    "error_origin": "upstream",
}


def draft_of(**known):
    return Draft(**{"started": 100.0, **KNOWN, **known})


def test_inherit():
    """What a call cost moves, and adds to what there is; what a caller itself got stays its own."""
    left = draft_of(status=499, outcome=Outcome.MISS, cause="client-gone")
    heir = draft_of(
        request_id=b"heir", outcome=Outcome.COLLAPSED, attempts=1, upstream_seconds=1.0, region="", reason="",
        upstream_id="", upstream_status=0, usage=None, stored=False, cause="", finish="",
    )  # fmt: skip
    heir.inherit(left)

    assert (3, 3.5, "eu", 201, "u", "why") == (
        heir.attempts, heir.upstream_seconds, heir.region, heir.upstream_status, heir.upstream_id, heir.reason
    )  # fmt: skip
    assert "abort" == heir.finish
    assert (0, 0.0) == (left.attempts, left.upstream_seconds)
    assert (b"heir", Outcome.COLLAPSED, 200, "") == (heir.request_id, heir.outcome, heir.status, heir.cause)
    assert (b"id", 499, "client-gone") == (left.request_id, left.status, left.cause)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("", ""),
        ("abort", "abort"),
        ("Größe 1", "Größe 1"),
        ("a\nb\x1b[31m\u2028\u202e", "a?b?[31m??"),
        ("x" * 65, "x" * 64),
    ],
)
def test_shown(word, expected):
    """A word of a service's is short in a record, and does nothing to a terminal."""

    assert expected == shown(word)


def test_freeze():
    """Nothing that a draft knows is lost, and it lasted until its caller had all."""
    draft = Draft(started=100.0, began=101.25, ended=107.5, **KNOWN)

    assert Record(seconds=7.5, first_content_seconds=1.25, **KNOWN) == draft.freeze()
    assert {*KNOWN, "seconds", "first_content_seconds"} == set(Record.__struct_fields__)
