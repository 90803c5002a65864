"""
When a service says to try again, in every spelling that is in use.

The rule: a certain value beats a precise one, and a precise one beats a guess. A value that cannot be read counts as
absent. Callers get the wait that the service named; the sidecar itself waits a minute at most.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from sidecar.core.durations import UNITS
from sidecar.core.http import error_body as complaint
from sidecar.core.http.error_body import Complaint
from sidecar.core.model import Fields

FIELDS = {b"retry-after": 1.0, b"retry-after-ms": 1000.0, b"x-ms-retry-after-ms": 1000.0}
"""Answer fields that say when to try again, and their units in a second."""

LONGEST = 60.0
"""The longest wait of the sidecar itself, seconds, whatever a service said; its own errors name no longer one."""

HOPELESS = 120.0
"""
Waits above this are too long to try again within one call, seconds: OpenAI's SDK gives up by itself there, other SDKs
would hold their callers for hours.
"""

_PRECISE_FIRST = (b"retry-after-ms", b"x-ms-retry-after-ms", b"retry-after")

_BUCKETS = (b"requests", b"tokens")
_ANTHROPIC_BUCKETS = (*_BUCKETS, b"input-tokens", b"output-tokens")

_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|[smhd])")
_DURATION = re.compile(rf"(?:{_PART.pattern}){{1,5}}")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")

_SENTENCE = re.compile(
    r"\b(?:retry|try again) (?:after|in) (?:(?P<seconds>[0-9]{1,15}(?:\.[0-9]{1,15})?) ?seconds?\b"
    rf"|(?P<duration>{_DURATION.pattern})(?![\w]))",
    re.IGNORECASE | re.ASCII,
)


def seconds_to_wait(fields: Fields, body: bytes, now: float) -> float | None:
    """
    Seconds, 0 to ``LONGEST``, after which a refused call is worth sending again, None where the answer does not say.
    *fields* and *body* (its first 64 KiB) are of an answer that refuses; *now* is seconds since the epoch.

    The first that can be read counts: ``retry-after-ms``, ``x-ms-retry-after-ms``, ``retry-after`` (RFC 9110, 10.2.3);
    Gemini's ``RetryInfo``; the resets of exhausted limits (OpenAI's and Azure's ``x-ratelimit-reset-*``, Anthropic's
    ``anthropic-ratelimit-*-reset``), the latest of them; the message ("Please retry after 37 seconds"); and last the
    resets of OpenAI's and Azure's limits that are not known to be exhausted. What is now or past is 0.
    """
    return wait_of(fields, complaint.read(fields, body), now)


def wait_of(fields: Fields, said: Complaint, now: float) -> float | None:
    """As ``seconds_to_wait``, for a body that has been read."""
    for name in _PRECISE_FIRST:
        seconds = read(fields[name].decode("latin-1").strip(), FIELDS[name], now) if name in fields else None
        if seconds is not None:
            return min(seconds, LONGEST)
    for seconds in (_duration(said.delay), _exhausted(fields, now), _in_words(said.message), _resets(fields)):
        if seconds is not None:
            return min(seconds, LONGEST)
    return None


def read(text: str, units: float, now: float) -> float | None:
    """
    The seconds of one field. *text* is a number, *units* of which are a second, or an HTTP date in any of its three
    forms. The result is at least 0, without upper bound (``inf`` for 400 digits); None if *text* is neither.
    """
    if _NUMBER.fullmatch(text):
        return float(text) / units
    try:
        date = parsedate_to_datetime(text)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def waits(fields: Fields, now: float) -> dict[bytes, float]:
    """The seconds of each field that can be read, by its name and without upper bound."""
    found = {
        name: read(fields[name].decode("latin-1").strip(), units, now)
        for name, units in FIELDS.items()
        if name in fields
    }
    return {name: seconds for name, seconds in found.items() if seconds is not None}


def _duration(text: str) -> float | None:
    """``1s``, ``6m0s``, ``7.66s``, ``120ms`` as Go writes them; without a unit, seconds."""
    if _DURATION.fullmatch(text):
        return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))
    return float(text) if _NUMBER.fullmatch(text) else None


def _exhausted(fields: Fields, now: float) -> float | None:
    found = [
        _duration(_text(fields, b"x-ratelimit-reset-" + bucket))
        for bucket in _BUCKETS
        if _text(fields, b"x-ratelimit-remaining-" + bucket) == "0"
    ]
    # Azure's Responses API gives 0 for both if it does not know.
    found = [seconds for seconds in found if seconds]
    found += [
        _instant(_text(fields, b"anthropic-ratelimit-%b-reset" % bucket), now)
        for bucket in _ANTHROPIC_BUCKETS
        if _text(fields, b"anthropic-ratelimit-%b-remaining" % bucket) == "0"
    ]
    return max((seconds for seconds in found if seconds is not None), default=None)


def _resets(fields: Fields) -> float | None:
    """If several limits have room left, the slowest one is the limit that was too small for this call."""
    found = (_duration(_text(fields, b"x-ratelimit-reset-" + bucket)) for bucket in _BUCKETS)
    return max((seconds for seconds in found if seconds), default=None)


def _instant(text: str, now: float) -> float | None:
    """Seconds until a time in the form of RFC 3339."""
    try:
        at = datetime.fromisoformat(text)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, seconds) if isfinite(seconds) else None


def _in_words(message: str) -> float | None:
    found = _SENTENCE.search(message)
    if found is None:
        return None
    return float(found["seconds"]) if found["seconds"] else _duration(found["duration"].lower())


def _text(fields: Fields, name: bytes) -> str:
    return fields.get(name, b"").decode("latin-1").strip()
