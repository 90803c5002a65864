"""
The forms of numbers: durations, sizes, counts, percentages, ports.

The rule: as in ``forms``. A number without its unit is refused, not guessed at.
"""

from __future__ import annotations

import re

from sidecar.core.durations import as_duration, seconds_of
from sidecar.settings.problems import shown
from sidecar.settings.shapes import ValueForm

_SIZE = re.compile(r"([0-9]{1,15})(Ki|Mi|Gi)?\Z")
_BYTES = {None: 1, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
_WHOLE = re.compile(r"[0-9]{1,9}\Z")
_COUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?(k|M)?\Z")
_ZEROS = {None: 0, "k": 3, "M": 6}
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%\Z")
_FRACTION = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\Z")

OFF = frozenset({"off", "no", "false"})
"""The spellings of ``off``, in lower case: a YAML 1.1 parser reads them all as false."""


def duration(least: float, most: float, *, off: bool = False) -> ValueForm:
    """
    A duration as ``50ms 30s 15m 12h 30d``, between two bounds in seconds; read as seconds. With *off*, that word and
    any zero are read as 0.
    """

    def read(text: str) -> float:
        seconds = 0.0 if off and (text == "0" or text.lower() in OFF) else seconds_of(text)
        if off and seconds == 0:
            return seconds
        if seconds is None:
            remedy = f"write {text}s" if _WHOLE.match(text) else "write it as 50ms, 30s, 15m, 12h or 30d"
            raise ValueError(f"{shown(text)} is not a duration; {remedy}")
        if not least <= seconds <= most:
            raise ValueError(f"{text} is out of bounds; use {as_duration(least)} to {as_duration(most)}")
        return seconds

    return ValueForm("duration · `off`" if off else "duration", read)


def size(least: int, most: int) -> ValueForm:
    """A size as ``64Mi`` or in bytes, between two bounds; read as bytes."""

    def read(text: str) -> int:
        found = _SIZE.match(text)
        if found is None:
            near = re.match(r"([0-9]{1,15}) ?([KMG])i?B?\Z", text, re.IGNORECASE)
            remedy = f"write {near[1]}{near[2].upper()}i" if near else "write it as 512Ki, 64Mi, 1Gi or in bytes"
            raise ValueError(f"{shown(text)} is not a size; {remedy}")
        count = int(found[1]) * _BYTES[found[2]]
        if not least <= count <= most:
            raise ValueError(f"{text} is out of bounds; use {as_size(least)} to {as_size(most)}")
        return count

    return ValueForm("size", read)


def as_size(count: int) -> str:
    """Bytes in the largest unit that holds them whole."""
    for unit in ("Gi", "Mi", "Ki"):
        if count and not count % _BYTES[unit]:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


def whole(least: int, most: int, *, name: str = "number", remedy: str = "") -> ValueForm:
    """A whole number between two bounds."""
    advice = remedy or f"use {least} to {most}"

    def read(text: str) -> int:
        if not _WHOLE.match(text) or not least <= int(text) <= most:
            raise ValueError(f"{shown(text)} is not a {name}; {advice}")
        return int(text)

    return ValueForm(name, read)


def count(least: int, most: int) -> ValueForm:
    """A whole number as ``600``, ``200k`` or ``1.5M``, between two bounds; ``off`` is 0."""

    def read(text: str) -> int:
        found = _COUNT.match("0" if text.lower() in OFF else text)
        if found is None:
            near = re.match(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([km])\Z", text, re.IGNORECASE)
            remedy = f"write {near[1]}{near[2].lower().replace('m', 'M')}" if near else "write it as 600, 200k or 1.5M"
            raise ValueError(f"{shown(text)} is not a count; {remedy}")
        digits, parts, unit = found[1], (found[2] or "").rstrip("0"), found[3]
        if len(parts) > _ZEROS[unit]:
            raise ValueError(f"{text} is not a whole number; use one such as 600, 200k or 1.5M")
        number = int(digits + parts.ljust(_ZEROS[unit], "0"))
        if not least <= number <= most:
            raise ValueError(f"{text} is out of bounds; use {as_count(least)} to {as_count(most)}")
        return number

    return ValueForm("count · `off`", read)


def as_count(number: int) -> str:
    """A count in the largest unit that holds it whole."""
    for unit, zeros in (("M", 6), ("k", 3)):
        if number and not number % 10**zeros:
            return f"{number // 10**zeros}{unit}"
    return str(number)


def percent(*, off: bool = False) -> ValueForm:
    """
    A percentage above 0 and up to 100, with its sign; read as a fraction of 1. With *off*, that word and any zero are
    read as 0.
    """

    def read(text: str) -> float:
        if off and (text == "0" or text.lower() in OFF):
            return 0.0
        found = _PERCENT.match(text)
        if found is None:
            near = _FRACTION.match(text)
            remedy = f"write {text}%" if near and float(text) >= 1 else "write it as 50%"
            raise ValueError(f"{shown(text)} is not a percentage; {remedy}")
        if float(found[1]) > 100 or (float(found[1]) == 0 and not off):
            bounds = "0% to 100%" if off else "more than 0% and at most 100%"
            raise ValueError(f"{text} is out of bounds; use {bounds}")
        return float(found[1]) / 100

    return ValueForm("percentage · `off`" if off else "percentage", read)


def as_percent(fraction: float) -> str:
    """A fraction of 1 as a percentage."""
    return f"{fraction * 100:g}%"


PORT = whole(0, 65535, name="port", remedy="use 1 to 65535, or 0 for any free port")
OWN_PORT = whole(1, 65535, name="port", remedy="use 1 to 65535")
