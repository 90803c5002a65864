"""A record in the making becomes the record, field by field."""

from sidecar.core.draft import Draft
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
    "attempts": 2,
    "bytes_out": 3,
    "usage": Usage(1, 2),
    "stored": True,
    "cause": "dns",
    "observed": "first",
}


def test_freeze():
    """Nothing that a draft knows is lost, and its duration is what the clock says."""
    draft = Draft(started=100.0, **KNOWN)

    assert Record(seconds=7.5, **KNOWN) == draft.freeze(107.5)
    assert {*KNOWN, "seconds"} == set(Record.__struct_fields__)
