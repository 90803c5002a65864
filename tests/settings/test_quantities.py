"""The forms of numbers: what they read, what they refuse, and how they say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.durations import as_duration
from sidecar.settings.quantities import (
    OWN_PORT,
    PORT,
    as_count,
    as_percent,
    as_size,
    count,
    duration,
    percent,
    size,
)

DAY = 86400.0
DURATION = duration(0.001, 365 * DAY)
OFF_OR_DURATION = duration(0.001, DAY, off=True)
SIZE = size(1024, 1024**3)
COUNT = count(0, 10**9)
PERCENT = percent()
OFF_OR_PERCENT = percent(off=True)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (DURATION, "50ms", 0.05),
        (DURATION, "30s", 30.0),
        (DURATION, "15m", 900.0),
        (DURATION, "12h", 43200.0),
        (DURATION, "365d", 365 * DAY),
        (SIZE, "1Ki", 1024),
        (SIZE, "64Mi", 64 * 1024**2),
        (SIZE, "2048", 2048),
        (PORT, "0", 0),
        (PORT, "65535", 65535),
        (OFF_OR_DURATION, "30s", 30.0),
        (OFF_OR_DURATION, "off", 0.0),
        (OFF_OR_DURATION, "False", 0.0),
        (OFF_OR_DURATION, "0", 0.0),
        (OFF_OR_DURATION, "0s", 0.0),
        (COUNT, "600", 600),
        (COUNT, "200k", 200_000),
        (COUNT, "1.5M", 1_500_000),
        (COUNT, "0.25k", 250),
        (COUNT, "2.0", 2),
        (COUNT, "1000M", 10**9),
        (COUNT, "0", 0),
        (COUNT, "off", 0),
        (COUNT, "No", 0),
        (PERCENT, "50%", 0.5),
        (PERCENT, "100%", 1.0),
        (PERCENT, "0.5%", 0.005),
        (OFF_OR_PERCENT, "1%", 0.01),
        (OFF_OR_PERCENT, "0%", 0.0),
        (OFF_OR_PERCENT, "0", 0.0),
        (OFF_OR_PERCENT, "off", 0.0),
    ],
)
def test_reads(form, text, expected):
    """What a form accepts has the value that it looks like."""
    value = form.read(text)

    assert expected == value
    assert type(expected) is type(value)


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (DURATION, "3600", '"3600" is not a duration; write 3600s'),
        (DURATION, "1h30m", '"1h30m" is not a duration; write it as 50ms, 30s, 15m, 12h or 30d'),
        (DURATION, "-5s", '"-5s" is not a duration; write it as 50ms, 30s, 15m, 12h or 30d'),
        (DURATION, "0s", "0s is out of bounds; use 1ms to 365d"),
        (DURATION, "366d", "366d is out of bounds; use 1ms to 365d"),
        (SIZE, "64MB", '"64MB" is not a size; write 64Mi'),
        (SIZE, "64MiB", '"64MiB" is not a size; write 64Mi'),
        (SIZE, "1.5Gi", '"1.5Gi" is not a size; write it as 512Ki, 64Mi, 1Gi or in bytes'),
        (SIZE, "2Gi", "2Gi is out of bounds; use 1Ki to 1Gi"),
        (PORT, "65536", '"65536" is not a port; use 1 to 65535, or 0 for any free port'),
        (PORT, "0x10", '"0x10" is not a port; use 1 to 65535, or 0 for any free port'),
        (PORT, "\u0667", '"\\u0667" is not a port; use 1 to 65535, or 0 for any free port'),
        (OWN_PORT, "0", '"0" is not a port; use 1 to 65535'),
        (OFF_OR_DURATION, "2d", "2d is out of bounds; use 1ms to 1d"),
        (OFF_OR_DURATION, "never", '"never" is not a duration; write it as 50ms, 30s, 15m, 12h or 30d'),
        (COUNT, "200K", '"200K" is not a count; write 200k'),
        (COUNT, "1.5 m", '"1.5 m" is not a count; write 1.5M'),
        (COUNT, "-1", '"-1" is not a count; write it as 600, 200k or 1.5M'),
        (COUNT, "1e3", '"1e3" is not a count; write it as 600, 200k or 1.5M'),
        (COUNT, "1.5", "1.5 is not a whole number; use one such as 600, 200k or 1.5M"),
        (COUNT, "1.2345k", "1.2345k is not a whole number; use one such as 600, 200k or 1.5M"),
        (COUNT, "1001M", "1001M is out of bounds; use 0 to 1000M"),
        (PERCENT, "50", '"50" is not a percentage; write 50%'),
        (PERCENT, "0.5", '"0.5" is not a percentage; write it as 50%'),
        (PERCENT, "half", '"half" is not a percentage; write it as 50%'),
        (PERCENT, "-5%", '"-5%" is not a percentage; write it as 50%'),
        (OFF_OR_PERCENT, "101%", "101% is out of bounds; use 0% to 100%"),
        (PERCENT, "0%", "0% is out of bounds; use more than 0% and at most 100%"),
        (PERCENT, "0.0%", "0.0% is out of bounds; use more than 0% and at most 100%"),
        (PERCENT, "100.1%", "100.1% is out of bounds; use more than 0% and at most 100%"),
        (PERCENT, "101%", "101% is out of bounds; use more than 0% and at most 100%"),
    ],
)
def test_refuses(form, text, expected):
    """What a form refuses is said with its remedy."""
    with pytest.raises(ValueError) as caught:
        form.read(text)

    assert expected == str(caught.value)


@given(st.integers(1, 365 * 86400 * 1000))
def test_a_duration_written_is_read_again(milliseconds):
    """Writing a duration loses nothing."""
    written = as_duration(milliseconds / 1000)

    assert pytest.approx(milliseconds / 1000) == DURATION.read(written)


@given(st.integers(1024, 1024**3))
def test_a_size_written_is_read_again(number):
    """Writing a size loses nothing."""
    written = as_size(number)

    assert number == SIZE.read(written)


@given(st.integers(0, 10**9))
def test_a_count_written_is_read_again(number):
    """Writing a count loses nothing."""
    written = as_count(number)

    assert number == COUNT.read(written)


@given(st.integers(1, 100))
def test_a_percentage_written_is_read_again(number):
    """Writing a percentage loses nothing."""
    written = as_percent(number / 100)

    assert (f"{number}%", number / 100) == (written, PERCENT.read(written))


@given(st.sampled_from([DURATION, OFF_OR_DURATION, SIZE, COUNT, PERCENT, PORT, OWN_PORT]), st.text())
def test_nothing_but_value_errors_on_one_line(form, text):
    """Whatever is written, a form reads it or says in one line why not."""
    try:
        form.read(text)
    except ValueError as error:
        message = str(error)
    else:
        message = "read; well"

    assert message.isprintable()
    assert "; " in message
