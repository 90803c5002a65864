"""Each record reaches every sink, in the same order."""

from __future__ import annotations

from sidecar.core.model import Outcome
from sidecar.sinks.records import Records
from tests.sinks.scrapes import sent


def test_every_sink_hears_of_it():
    """One record, told to each sink once, the first sink first."""
    heard = []
    records = Records(lambda record: heard.append(("metrics", record)), lambda record: heard.append(("log", record)))
    record = sent(Outcome.MISS)
    records.tell(record)

    assert [("metrics", record), ("log", record)] == heard
    assert "<Records for 2 sinks>" == repr(records)
