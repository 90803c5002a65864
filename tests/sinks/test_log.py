"""Which calls the log tells of, what it says, and that it never gets in the way."""

from __future__ import annotations

import os
import select
from datetime import datetime, timedelta
from hashlib import blake2b

import pytest
from msgspec import json

from sidecar.core.key.model_name import HIDDEN
from sidecar.core.model import Outcome, Record, Usage
from sidecar.core.rules import LogRule
from sidecar.sinks.log import LONGEST_LINE, LONGEST_TEXT, AccessLog, Pipe

AT = 1_795_426_800.25


class Lines(list):
    """What was written, decoded."""

    def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        assert 1 == line.count(b"\n")

        self.append(json.decode(line))


def record(status: int = 200, outcome: Outcome = Outcome.MISS, seconds: float = 0.5, **more) -> Record:
    return Record(AT, b"req-1", "openai", "chat", "chat.completions", outcome, status, seconds=seconds, **more)


def log_to(write, **options) -> AccessLog:
    return AccessLog(write, lambda: AT, **options)


@pytest.mark.parametrize(
    ("told", "why", "level"),
    [
        pytest.param(record(status=502, outcome=Outcome.ERROR), "error", "error", id="no-answer"),
        pytest.param(record(status=500), "error", "error", id="upstream-5xx"),
        pytest.param(record(status=429), "error", "warning", id="upstream-4xx"),
        pytest.param(record(status=200, outcome=Outcome.ERROR), "error", "warning", id="broken-after-its-head"),
        pytest.param(record(seconds=30.0), "slow", "warning", id="slow"),
        pytest.param(record(status=504, seconds=600.0), "error", "error", id="slow-error"),
    ],
)
def test_always_told(told, why, level):
    """Errors and slow calls are told every time."""
    lines = Lines()
    log = log_to(lines.write)
    log.record(told)
    log.record(told)

    assert [(why, level)] * 2 == [(line["why"], line["level"]) for line in lines]


def test_every_hundredth():
    """Of the rest each hundredth is told; errors between don't change which."""
    lines = Lines()
    log = log_to(lines.write)
    for number in range(350):
        log.record(record(bytes_out=number + 1))
        log.record(record(status=404))

    samples = [line for line in lines if line["why"] == "sample"]
    assert [100, 200, 300] == [line["bytes_out"] for line in samples]
    assert {"info"} == {line["level"] for line in samples}


@pytest.mark.parametrize(("sample", "count"), [(1.0, 8), (0.25, 2), (0.3, 2), (0.0, 0)])
def test_a_share_of_calls(sample, count):
    """As many of those that went well as the rule says, and errors whatever it says."""
    lines = Lines()
    log = log_to(lines.write, rule=LogRule(sample))
    for number in range(8):
        log.record(record(key=bytes([number] * 16)))
    log.record(record(status=404))

    assert ["sample"] * count + ["error"] == [line["why"] for line in lines]


def test_a_share_of_keys():
    """All calls of a key are told or none, the same keys by every process; the lines of one key go together."""
    keys = [blake2b(b"%d" % number, digest_size=16).digest() for number in range(400)]
    chosen = []
    for _ in range(2):
        lines = Lines()
        log = log_to(lines.write, rule=LogRule(0.25, "key"))
        for number, key in [*enumerate(keys)] * 3:
            log.record(record(bytes_out=number + 1, key=key))
        chosen.append([line["bytes_out"] for line in lines])
        assert [keys[line["bytes_out"] - 1][:4].hex() for line in lines] == [line["key"] for line in lines]

    first = chosen[0][: len(chosen[0]) // 3]
    assert [first * 3] * 2 == chosen
    assert 60 <= len(first) <= 140
    assert not any(key.hex() in str(lines) or str(key) in str(lines) for key in keys)


def test_calls_without_a_key():
    """Of those each of so many is told, whatever the rest is drawn by."""
    lines = Lines()
    log = log_to(lines.write, rule=LogRule(0.5, "key"))
    for number in range(6):
        log.record(record(bytes_out=number + 1))

    assert [2, 4, 6] == [line["bytes_out"] for line in lines]


def test_whole_line():
    """A line says what happened, when, and what it cost, and leaves out what says nothing."""
    lines = Lines()
    told = record(
        status=503,
        method=b"POST",
        model="gpt-4o",
        reason="unknown-finish",
        finish="abort",
        region="us",
        upstream_seconds=0.4999999,
        attempts=2,
        bytes_in=10,
        usage=Usage(prompt=7, completion=9, pages=2, seconds=61),
        upstream_status=503,
        upstream_id="req_abc",
        cause="disconnected",
        first_content_seconds=0.25,
        error_origin="upstream",
    )
    log_to(lines.write).record(told)

    assert [
        {
            "time": "2026-11-23T09:40:00.250Z",
            "level": "error",
            "event": "request",
            "why": "error",
            "request_id": "req-1",
            "service": "openai",
            "route": "chat",
            "endpoint": "chat.completions",
            "method": "POST",
            "model": "gpt-4o",
            "outcome": "miss",
            "status": 503,
            "reason": "unknown-finish",
            "finish": "abort",
            "cause": "disconnected",
            "error_origin": "upstream",
            "region": "us",
            "seconds": 0.5,
            "first_content_seconds": 0.25,
            "upstream_seconds": 0.5,
            "upstream_status": 503,
            "upstream_id": "req_abc",
            "attempts": 2,
            "bytes_in": 10,
            "prompt_tokens": 7,
            "completion_tokens": 9,
            "billed_pages": 2,
            "billed_seconds": 61,
        }
    ] == lines
    assert timedelta(0) == datetime.fromisoformat(lines[0]["time"]).utcoffset()


def test_event():
    """Events have the same opening, which their fields cannot replace."""
    lines = Lines()
    log_to(lines.write).event("started", level="warning", port=7400, time="never", detail=None)

    assert [
        {"time": "2026-11-23T09:40:00.250Z", "level": "warning", "event": "started", "port": 7400, "detail": None}
    ] == lines


def test_whole_messages():
    """A message of our own is told to its end, where its remedy stands, however many of its kind there are."""
    lines = Lines()
    message = "services.openai.regions[0].credential.file: " + "not there, " * 50 + "mount it"
    log_to(lines.write).event("config-problem", message=message)

    assert message == lines[0]["message"]


@pytest.mark.parametrize("letter", ["x", "ü", "\x01", "\U0001f600"], ids=["ascii", "latin", "escaped", "wide"])
def test_messages_that_fit_no_line(letter):
    """Where a line would be too long for a pipe its long values lose their middle; short ones are whole."""
    lines = Lines()
    message = "first " + letter * 9999 + " last"
    log_to(lines.write).event("config-problem", message=message, file="a.yaml")

    assert lines[0]["message"].startswith(f"first {letter}")
    assert lines[0]["message"].endswith(f"{letter} last")
    assert "a.yaml" == lines[0]["file"]
    assert LONGEST_LINE // 8 < len(json.encode(lines[0])) < LONGEST_LINE


def test_a_key_for_a_model():
    """Nothing of it is told."""
    lines = Lines()
    log_to(lines.write).record(record(status=404, model="sk-canary-0a1b2c3d"))

    assert HIDDEN == lines[0]["model"]
    assert "canary" not in str(lines)


def test_hostile_texts():
    """What others choose is one bounded line still, whatever it is made of."""
    lines = Lines()
    model = 'x\n{"level":"error"}\u2028\x00' * 100
    log_to(lines.write).record(record(status=400, model=model, upstream_id="\x01" * 9999))

    assert model[:LONGEST_TEXT] == lines[0]["model"]
    assert len(json.encode(lines[0])) < select.PIPE_BUF


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(record(status=400, model="\ud800"), id="no-text"),
        pytest.param(Record(float("nan"), b"", "", "", "", Outcome.MISS, 500), id="no-time"),
    ],
)
def test_unwritable_record(told):
    """A record that cannot be written is counted, and nothing else happens."""
    lines = Lines()
    log = log_to(lines.write)
    log.record(told)

    assert [] == lines
    assert "<AccessLog of 1.00%, 1 lines lost>" == repr(log)


def test_failing_writer():
    """A writer that fails costs lines, never a call."""

    def write(_: bytes) -> None:
        raise OSError("no space left")

    log = log_to(write)
    log.record(record(status=500))
    log.event("stopping")

    assert 2 == log.failed


@pytest.fixture
def pipe():
    """Both ends of a pipe that nobody reads unless the test does."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            continue


def test_pipe_is_never_waited_for(pipe):
    """A full pipe loses lines, whole ones, and takes them again when it is read."""
    reader, writer = pipe
    log = log_to(Pipe(writer))
    for number in range(3000):
        log.event("tick", number=number)

    assert 0 < log.failed < 3000

    held = b""
    while select.select([reader], [], [], 0)[0]:
        held += os.read(reader, 65536)
    numbers = [json.decode(line)["number"] for line in held.splitlines()]
    assert list(range(3000 - log.failed)) == numbers

    lost = log.failed
    log.event("again")
    assert lost == log.failed
    assert "again" == json.decode(os.read(reader, 4096))["event"]


def test_pipe_without_reader(pipe):
    """A pipe whose reader is gone loses lines."""
    reader, writer = pipe
    log = log_to(Pipe(writer))
    os.close(reader)
    log.event("tick")

    assert 1 == log.failed


def test_line_too_long_for_a_pipe(pipe):
    """A line that might be divided is lost instead."""
    _, writer = pipe
    log = log_to(Pipe(writer))
    log.event("wide", **{f"field{number}": "x" * LONGEST_TEXT for number in range(30)})

    assert 1 == log.failed


def test_file(tmp_path):
    """A plain file takes every line."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        log = log_to(Pipe(file.fileno()))
        log.event("one")
        log.event("two")

    assert ["one", "two"] == [json.decode(line)["event"] for line in path.read_bytes().splitlines()]
