"""
The log: a JSON line for each error, each slow call and a sample of the rest, and for events of the process itself.

The rule: a line holds the fields named here, never what a caller sent or a service answered: no body, header, query or
credential. A model name that looks like a key is not shown. The one word taken from an answer is *finish*, shortened,
if it is not a known one. Writing never waits and never fails a call; lost lines are counted.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from msgspec import json

from sidecar.core.key.model_name import shown_model
from sidecar.core.model import BILLED, Outcome, Record
from sidecar.core.rules import LogRule

_SHOWN = 4
"""Bytes of a key's address that a line shows where keys are sampled: enough to see which calls are repeats."""

LONGEST_TEXT = 200
"""The most characters of one value in a request's line: callers choose model names, and services their request ids."""

LONGEST_LINE = select.PIPE_BUF
"""
Bytes. Our own messages are shown whole, because their remedy stands at their end; only if a line would be longer than
this, they lose their middle.
"""

_WHOLE = 10**8
"""A call counts as so many parts. Shares are counted in whole parts, so each hundredth is exactly a hundredth."""

_ERROR = Outcome.ERROR  # a look at a member of an enumeration's class takes 60 ns (Python 3.11)

LogValue = str | float | None


class AccessLog:
    """
    Writes lines through *write*, which may raise: *failed* counts the lines lost to that.

    *now* is the wall clock. A call is slow from *slow_seconds* on. Calls that are neither slow nor failed are sampled
    by *rule*: counted, not drawn, so that the log does not depend on chance: every hundredth for 1 %. By key, all calls
    of a key are logged or none. The key's address alone decides which, so it is the same in every pod of a fleet.
    """

    __slots__ = ("_by_key", "_now", "_passed", "_sample", "_slow_seconds", "_write", "failed")

    def __init__(
        self,
        write: Callable[[bytes], None],
        now: Callable[[], float],
        *,
        rule: LogRule = LogRule(),  # noqa: B008  frozen
        slow_seconds: float = 30.0,
    ) -> None:
        self._write = write
        self._now = now
        self._slow_seconds = slow_seconds
        self._passed = 0
        self.adopt(rule)
        self.failed = 0

    def __repr__(self) -> str:
        return f"<AccessLog of {self._sample / _WHOLE:.2%}, {self.failed} lines lost>"

    def adopt(self, rule: LogRule) -> None:
        """Sample by *rule* from now on."""
        self._sample = round(rule.sample * _WHOLE)
        self._by_key = rule.by == "key"

    def record(self, record: Record) -> None:
        """Log *record*, if it belongs to those that are logged."""
        if record.status >= 400 or record.outcome is _ERROR:
            level, why = "error" if record.status >= 500 else "warning", "error"
        elif record.seconds >= self._slow_seconds:
            level, why = "warning", "slow"
        elif self._by_key and record.key:
            if int.from_bytes(record.key) % _WHOLE >= self._sample:  # 128 bits, as good as evenly spread
                return
            level, why = "info", "sample"
        else:
            self._passed += self._sample
            if self._passed < _WHOLE:
                return
            self._passed -= _WHOLE
            level, why = "info", "sample"
        self._tell_request(record, level, why)

    def _tell_request(self, record: Record, level: str, why: str) -> None:
        key = {"key": record.key[:_SHOWN].hex()} if self._by_key and record.key else {}
        self._tell(
            lambda: json.encode(
                _shortened({**_opening(record.at, level, "request"), "why": why, **_fields(record), **key})
            )
        )

    def event(self, name: str, /, *, level: str = "info", **fields: LogValue) -> None:
        """
        Log an event of the process. *name* is a short stable word, *level* ``info``, ``warning`` or ``error``.

        The caller chooses *fields*, and makes sure that none is a secret, or text of unbounded length from others.
        """
        self._tell(lambda: _fitted({**fields, **_opening(self._now(), level, name)}))

    def _tell(self, line: Callable[[], bytes]) -> None:
        try:
            self._write(line() + b"\n")
        except Exception:  # noqa: BLE001 - whatever goes wrong here, the call itself goes on
            self.failed += 1


class Pipe:
    """
    Writes lines to *descriptor*, usually a pipe, without waiting for its reader.

    A pipe that polls writable takes ``PIPE_BUF`` bytes at once and undivided (pipe(7)), so nothing has to be set on the
    descriptor, which other processes may share. Raises ``BlockingIOError`` if it is full, ``OSError`` if it is broken,
    ``ValueError`` for a line of more than ``PIPE_BUF`` bytes.
    """

    __slots__ = ("_descriptor", "_poll")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def __call__(self, line: bytes) -> None:
        """Write *line*, whole or not at all."""
        if len(line) > select.PIPE_BUF:
            raise ValueError("line too long")
        if not self._poll.poll(0):
            raise BlockingIOError("nobody reads the log")
        os.write(self._descriptor, line)


def _opening(at: float, level: str, event: str) -> dict[str, LogValue]:
    """The beginning of every line; *at* becomes RFC 3339 in UTC."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": time, "level": level, "event": event}


def _shortened(fields: Mapping[str, LogValue]) -> dict[str, LogValue]:
    return {name: value[:LONGEST_TEXT] if isinstance(value, str) else value for name, value in fields.items()}


def _fitted(fields: Mapping[str, LogValue]) -> bytes:
    """The line of *fields*. If it is too long, long values keep only their beginning and end."""
    line = json.encode(fields)
    room = LONGEST_LINE // 2
    while len(line) >= LONGEST_LINE and room >= LONGEST_TEXT:
        line = json.encode({name: _ends(value, room) for name, value in fields.items()})
        room //= 2
    return line


def _ends(value: LogValue, room: int) -> LogValue:
    if not isinstance(value, str) or len(value) <= room:
        return value
    half = room // 2 - 1
    return f"{value[:half]} … {value[-half:]}"


def _fields(record: Record) -> dict[str, LogValue]:
    """The fields of a line about a request, without empty ones."""
    usage = record.usage
    fields: dict[str, LogValue] = {
        "request_id": record.request_id.decode("ascii", "replace"),
        "service": record.service,
        "route": record.route,
        "endpoint": record.endpoint,
        "method": record.method.decode("ascii", "replace"),
        "model": shown_model(record.model),
        "outcome": record.outcome.value,
        "status": record.status,
        "reason": record.reason,
        "cause": record.cause,
        "error_origin": record.error_origin,
        "region": record.region,
        "seconds": round(record.seconds, 6),
        "first_content_seconds": round(record.first_content_seconds or 0.0, 6),
        "upstream_seconds": round(record.upstream_seconds, 6),
        "upstream_status": record.upstream_status,
        "upstream_id": record.upstream_id,
        "upstream_region": record.upstream_region,
        "attempts": record.attempts,
        "again": " ".join(record.retry_causes),
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "prompt_tokens": usage.prompt if usage else 0,
        "completion_tokens": usage.completion if usage else 0,
        **({f"billed_{quantity}": getattr(usage, quantity) for quantity in BILLED} if usage else {}),
        "stored": record.stored,
        "streamed": record.streamed,
        "finish": record.finish,
    }
    return {name: value for name, value in fields.items() if value}
